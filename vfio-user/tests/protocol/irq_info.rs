//! DEVICE_GET_IRQ_INFO.

use crate::fake::Served;
use varia_spec::errno::Errno;
use varia_spec::vfio::IrqInfo;
use varia_spec::vfio::irq_flags::{EVENTFD, MASKABLE, NORESIZE};
use varia_vfio_user::command::Command;
use varia_vfio_user::command::{IrqQuery, IrqReply};

#[test]
fn flags_and_counts_arrive() {
    let served = Served::start();
    let mut client = served.client();
    for (index, flags, count) in [
        (0, EVENTFD | MASKABLE, 1),
        (1, 0, 0),
        (2, EVENTFD | NORESIZE, 8),
    ] {
        let info = IrqInfo { flags, count };
        assert_eq!(client.irq_info(index).unwrap(), info);
        let mut query = Vec::new();
        IrqQuery { argsz: 16, index }.encode(&mut query);
        let command = Command::DEVICE_GET_IRQ_INFO;
        let reply = client.request(command, &query, &[]).unwrap();
        let reply = IrqReply::decode(&reply.payload).unwrap();
        assert_eq!(reply, IrqReply { index, info });
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
