//! Event counters.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use varia_sys::event::EventFd;

#[test]
fn triggers_add_up_and_drain_takes_them_all() {
    let e = EventFd::new().unwrap();
    assert_eq!(e.drain().unwrap(), 0);
    e.trigger().unwrap();
    e.try_clone().unwrap().trigger().unwrap();
    assert!(e.wait(Some(Duration::from_secs(600))).unwrap());
    assert_eq!(e.drain().unwrap(), 2);
    assert!(!e.wait(Some(Duration::from_millis(1))).unwrap());
}

#[test]
fn a_full_counter_in_blocking_mode_does_not_block_the_device() {
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let e = EventFd::from_fd(fd).unwrap();
    e.trigger().unwrap();
    assert_eq!(e.drain().unwrap(), u64::MAX - 1);
    assert_eq!(e.drain().unwrap(), 0);
}

#[test]
fn a_descriptor_that_is_no_eventfd_is_refused() {
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let e = EventFd::from_fd(file).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::InvalidInput);
    let e = EventFd::new().unwrap();
    assert!(EventFd::from_fd(e.as_fd().try_clone_to_owned().unwrap()).is_ok());
}
