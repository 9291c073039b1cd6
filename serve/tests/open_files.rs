//! A server that has no descriptor left refuses what takes one, and the next attempt is served. The
//! limit of open files belongs to the whole process, so this program has one test.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use varia_serve::{Backend, Endpoint, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::Errno;
use varia_spec::vfio::{IrqAction, IrqIndex, RegionIndex};
use varia_sys::event::EventFd;
use varia_vfio_user::backend::{Backend as _, IrqSet, ReceivedIrqData};

#[test]
fn what_takes_a_descriptor_is_refused_while_there_is_none() {
    let silicon = Silicon::new(profile::find("nic").unwrap(), Default::default()).unwrap();
    let endpoint = Endpoint::new(Arc::new(silicon), Options::default()).unwrap();
    let card = Backend::new(Arc::new(endpoint));
    card.endpoint().open().unwrap();
    let event = EventFd::new().unwrap();
    let intx = |action, event| {
        card.set_irqs(IrqSet {
            index: IrqIndex::INTX.0,
            start: 0,
            count: 1,
            action,
            data: ReceivedIrqData::Events(vec![event]),
        })
    };
    intx(IrqAction::Trigger, event.try_clone().unwrap()).unwrap();
    let (first, second) = (event.try_clone().unwrap(), event.try_clone().unwrap());
    let mappable = (0..RegionIndex::COUNT)
        .find(|index| {
            card.region_info(*index)
                .is_ok_and(|info| info.file.is_some())
        })
        .unwrap();

    let before = getrlimit(Resource::Nofile);
    // all below are in use
    let none = Rlimit {
        current: Some(4),
        ..before
    };
    setrlimit(Resource::Nofile, none).unwrap();
    assert!(event.as_fd().try_clone_to_owned().is_err());
    let region = card.region_info(mappable).map(drop);
    let unmask = intx(IrqAction::Unmask, first);
    setrlimit(Resource::Nofile, before).unwrap();

    assert_eq!(region, Err(Errno::EMFILE));
    assert_eq!(unmask, Err(Errno::EMFILE));
    assert!(card.region_info(mappable).unwrap().file.is_some());
    intx(IrqAction::Unmask, second).unwrap();
}
