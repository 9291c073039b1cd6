//! DEVICE_SET_IRQS: eventfds, booleans, and ranges that are refused.

use std::os::fd::AsFd;

use crate::fake::{Event, Served};
use varia_spec::errno::Errno;
use varia_spec::vfio::IrqAction;
use varia_spec::vfio::irq_set::{
    ACTION_MASK, ACTION_TRIGGER, ACTION_UNMASK, DATA_BOOL, DATA_EVENTFD, DATA_NONE,
};
use varia_sys::event::EventFd;
use varia_vfio_user::client::{Client, SentIrqData};
use varia_vfio_user::command::SetIrqs;

fn last(served: &Served) -> Event {
    served.events().pop().unwrap()
}

fn irqs(index: u32, start: u32, count: u32, action: IrqAction, data: &str) -> Event {
    Event::Irqs {
        index,
        start,
        count,
        action,
        data: data.into(),
    }
}

#[test]
fn an_eventfd_reaches_the_device_and_its_trigger_the_client() {
    let served = Served::start();
    let mut client = served.client();
    let events: Vec<_> = (0..8).map(|_| EventFd::new().unwrap()).collect();
    let fds: Vec<_> = events.iter().map(AsFd::as_fd).collect();
    client
        .set_irqs(2, 0, ACTION_TRIGGER, SentIrqData::Events(&fds))
        .unwrap();
    assert_eq!(
        last(&served),
        irqs(2, 0, 8, IrqAction::Trigger, "8 of 8 events")
    );
    served.fake.triggers.lock().unwrap()[5].trigger().unwrap();
    let counts: Vec<_> = events.iter().map(|e| e.drain().unwrap()).collect();
    assert_eq!(counts, [0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn a_range_without_descriptors_takes_its_eventfds_away() {
    let served = Served::start();
    let mut client = served.client();
    client
        .set_irqs(2, 3, ACTION_TRIGGER, SentIrqData::NoEvents(4))
        .unwrap();
    assert_eq!(
        last(&served),
        irqs(2, 3, 4, IrqAction::Trigger, "0 of 4 events")
    );
}

#[test]
fn masks_booleans_and_switching_off_arrive_as_sent() {
    let served = Served::start();
    let mut client = served.client();
    client
        .set_irqs(0, 0, ACTION_MASK, SentIrqData::None(1))
        .unwrap();
    assert_eq!(last(&served), irqs(0, 0, 1, IrqAction::Mask, "none"));
    client
        .set_irqs(0, 0, ACTION_UNMASK, SentIrqData::None(1))
        .unwrap();
    assert_eq!(last(&served), irqs(0, 0, 1, IrqAction::Unmask, "none"));
    client
        .set_irqs(2, 6, ACTION_TRIGGER, SentIrqData::Bool(&[true, false]))
        .unwrap();
    assert_eq!(
        last(&served),
        irqs(2, 6, 2, IrqAction::Trigger, "[true, false]")
    );
    client
        .set_irqs(2, 0, ACTION_TRIGGER, SentIrqData::None(0))
        .unwrap();
    assert_eq!(last(&served), irqs(2, 0, 0, IrqAction::Trigger, "none"));
}

fn refused(client: &mut Client, set: SetIrqs<'_>) {
    let e = client.set_irqs_raw(&set, &[]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL), "{set:?}");
}

#[test]
fn bad_ranges_and_flags_are_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    let trigger = ACTION_TRIGGER | DATA_NONE;
    for (index, start, count) in [
        (5, 0, 1),
        (2, 0, 9),
        (2, 8, 0),
        (2, 7, 2),
        (2, 1, u32::MAX),
        (1, 0, 0),
        (u32::MAX, 0, 1),
    ] {
        refused(
            &mut client,
            SetIrqs {
                flags: trigger,
                index,
                start,
                count,
                data: &[],
            },
        );
    }
    for flags in [
        0,
        DATA_NONE,
        ACTION_TRIGGER,
        trigger | ACTION_MASK,
        trigger | DATA_EVENTFD,
        trigger | 1 << 6,
        trigger | 1 << 31,
    ] {
        refused(
            &mut client,
            SetIrqs {
                flags,
                index: 2,
                start: 0,
                count: 1,
                data: &[],
            },
        );
    }
    // as many as there can be, of which nothing is allocated
    for (start, count) in [(0, u32::MAX), (8, u32::MAX)] {
        refused(
            &mut client,
            SetIrqs {
                flags: ACTION_TRIGGER | DATA_EVENTFD,
                index: 2,
                start,
                count,
                data: &[],
            },
        );
    }
    for (count, data) in [(2, &[1][..]), (0, &[])] {
        let flags = ACTION_TRIGGER | DATA_BOOL;
        refused(
            &mut client,
            SetIrqs {
                flags,
                index: 2,
                start: 0,
                count,
                data,
            },
        );
    }
    assert_eq!(served.events(), [Event::Connected]);
    client.device_info().unwrap();
}

#[test]
fn descriptors_must_be_eventfds_and_as_many_as_the_range() {
    let served = Served::start();
    let mut client = served.client();
    let event = EventFd::new().unwrap();
    let file = tempfile::tempfile().unwrap();
    let flags = ACTION_TRIGGER | DATA_EVENTFD;
    let set = |count| SetIrqs {
        flags,
        index: 2,
        start: 0,
        count,
        data: &[],
    };
    let e = client.set_irqs_raw(&set(1), &[file.as_fd()]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    for count in [1, 3] {
        let e = client
            .set_irqs_raw(&set(count), &[event.as_fd(), event.as_fd()])
            .unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EINVAL));
    }
    let none = SetIrqs {
        flags: ACTION_TRIGGER | DATA_NONE,
        ..set(1)
    };
    let e = client.set_irqs_raw(&none, &[event.as_fd()]).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    client
        .set_irqs_raw(&set(2), &[event.as_fd(), event.as_fd()])
        .unwrap();
}

#[test]
fn a_client_that_goes_takes_its_eventfds_with_it() {
    let served = Served::start();
    let mut client = served.client();
    let event = EventFd::new().unwrap();
    client
        .set_irqs(2, 0, ACTION_TRIGGER, SentIrqData::Events(&[event.as_fd()]))
        .unwrap();
    drop(client);
    served.wait_for(&Event::Disconnected);
    assert!(served.fake.triggers.lock().unwrap().is_empty());
}
