//! DEVICE_FEATURE.

use std::sync::atomic::Ordering;

use crate::fake::Served;
use varia_spec::errno::Errno;
use varia_spec::vfio::device_feature::{GET, PROBE, SET};
use varia_vfio_user::command::Command;

/// Error of a request with these flags and this much room for data.
fn refused(served: &Served, flags: u32, room: u32) -> Option<Errno> {
    let mut client = served.client();
    client.device_feature(flags, room).unwrap_err().errno()
}

#[test]
fn a_record_is_inline_and_is_taken_by_the_request_that_has_room_for_it() {
    let served = Served::start();
    served.fake.described.store(true, Ordering::SeqCst);
    served.fake.records.lock().unwrap().push(b"record".to_vec());
    let mut client = served.client();
    assert_eq!(client.device_feature(13 | PROBE, 0).unwrap(), b"");
    assert_eq!(client.device_feature(13 | PROBE | GET, 0).unwrap(), b"");
    let short = client.device_feature(13 | GET, 5).unwrap_err();
    assert_eq!(short.errno(), Some(Errno::EINVAL));
    assert_eq!(client.device_feature(13 | GET, 6).unwrap(), b"record");
    let none = client.device_feature(13 | GET, 6).unwrap_err();
    assert_eq!(none.errno(), Some(Errno::ENOMSG));
}

#[test]
fn each_request_that_a_feature_does_not_allow_has_the_kernels_error() {
    let served = Served::start();
    served.fake.described.store(true, Ordering::SeqCst);
    for (flags, errno) in [
        (12 | GET, Errno::ENOTTY),
        (0xffff | PROBE, Errno::ENOTTY),
        // an error of the flags comes before that of the feature
        (12 | GET | SET, Errno::EINVAL),
        (13 | GET | 1 << 19, Errno::EINVAL),
        (13 | SET, Errno::EINVAL),
        (13 | PROBE | SET, Errno::EINVAL),
        (13 | PROBE | GET | SET, Errno::EINVAL),
        (13, Errno::EINVAL),
    ] {
        assert_eq!(refused(&served, flags, 64), Some(errno), "{flags:#x}");
    }
    let argsz_7 = [7u32, 13 | GET].map(u32::to_ne_bytes).concat();
    let mut client = served.client();
    let e = client.request(Command::DEVICE_FEATURE, &argsz_7, &[]);
    assert_eq!(e.unwrap_err().errno(), Some(Errno::EINVAL));
    let cut = client.request(Command::DEVICE_FEATURE, &[8, 0, 0, 0], &[]);
    assert_eq!(cut.unwrap_err().errno(), Some(Errno::EINVAL));
    client.reset().unwrap();
}

#[test]
fn a_device_without_features_does_not_speak_the_command() {
    let served = Served::start();
    assert_eq!(refused(&served, 13 | GET, 64), Some(Errno::EOPNOTSUPP));
}
