//! DEVICE_GET_IRQ_INFO.

use crate::fake::Served;
use varia_spec::errno::Errno;
use varia_spec::vfio::irq_flags::{EVENTFD, MASKABLE, NORESIZE};
use varia_vfio_user::client::IrqInfo;

#[test]
fn flags_and_counts_arrive() {
    let served = Served::start();
    let mut client = served.client();
    for (index, flags, count) in [
        (0, EVENTFD | MASKABLE, 1),
        (1, 0, 0),
        (2, EVENTFD | NORESIZE, 8),
    ] {
        assert_eq!(
            client.irq_info(index).unwrap(),
            IrqInfo {
                flags,
                index,
                count
            }
        );
    }
}

#[test]
fn bad_indices_are_refused_and_the_connection_stays() {
    let served = Served::start();
    let mut client = served.client();
    for index in [5, u32::MAX] {
        assert_eq!(
            client.irq_info(index).unwrap_err().errno(),
            Some(Errno::EINVAL)
        );
    }
    client.irq_info(0).unwrap();
}
