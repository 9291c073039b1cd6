//! DEVICE_GET_INFO.

use crate::fake::Served;
use varia_spec::errno::Errno;
use varia_spec::vfio::DeviceInfo;
use varia_vfio_user::command::Command;

#[test]
fn the_devices_flags_and_counts_arrive() {
    let served = Served::start();
    let info = served.client().device_info().unwrap();
    assert_eq!(
        info,
        DeviceInfo {
            flags: 3,
            num_regions: 9,
            num_irqs: 5
        }
    );
}

#[test]
fn argsz_in_the_reply_is_16_whatever_was_asked() {
    let served = Served::start();
    for argsz in [16u32, 24, u32::MAX] {
        let payload = [&argsz.to_ne_bytes()[..], &[0; 12]].concat();
        let reply = served
            .client()
            .request(Command::DEVICE_GET_INFO, &payload, &[])
            .unwrap();
        assert_eq!(reply.payload[..4], 16u32.to_ne_bytes());
        assert_eq!(reply.payload.len(), 16);
    }
}

#[test]
fn an_argsz_without_room_for_the_reply_is_refused() {
    let served = Served::start();
    let payload = [&15u32.to_ne_bytes()[..], &[0; 12]].concat();
    let e = served
        .client()
        .request(Command::DEVICE_GET_INFO, &payload, &[])
        .unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EINVAL));
}
