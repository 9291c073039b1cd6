//! DEVICE_RESET, and commands that are not spoken.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::fake::{Event, Served};
use varia_spec::errno::Errno;
use varia_sys::event::EventFd;
use varia_vfio_user::command::Command;

#[test]
fn a_reset_reaches_the_device() {
    let served = Served::start();
    served.client().reset().unwrap();
    assert!(served.events().contains(&Event::Reset));
}

#[test]
fn a_device_that_panics_ends_its_client_and_no_other() {
    let served = Served::start();
    let mut client = served.client();
    served.fake.panics.store(true, Ordering::SeqCst);
    let end = client.reset().unwrap_err();
    assert_eq!(end.errno(), None, "no reply, but the end: {end}");
    served.client().reset().unwrap();
}

#[test]
fn commands_that_are_not_spoken_are_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    for number in [0, 6, 11, 12, 14, 16, 17, 18, 19, 0x7fff, 0xffff] {
        let e = client.request(Command(number), &[0; 24], &[]).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EOPNOTSUPP), "command {number}");
    }
    client.reset().unwrap();
}

#[test]
fn a_descriptor_that_nobody_wants_is_refused() {
    let served = Served::start();
    let mut client = served.client();
    let event = EventFd::new().unwrap();
    let e = client
        .request(Command::DEVICE_RESET, &[], &[event.as_fd()])
        .unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
    assert_eq!(served.events(), [Event::Connected]);
    client.reset().unwrap();
}
