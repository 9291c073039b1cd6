//! DEVICE_GET_INFO.

use std::sync::atomic::Ordering;

use crate::fake::Served;
use varia_spec::errno::Errno;
use varia_spec::vfio::{DeviceInfo, device_flags};
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

/// The reply to DEVICE_GET_INFO with this `argsz` in a structure of `len` bytes, as words and the bytes
/// behind the first six.
fn reply(served: &Served, argsz: u32, len: usize) -> (Vec<u32>, Vec<u8>) {
    let mut payload = argsz.to_ne_bytes().to_vec();
    payload.resize(len, 0);
    let mut client = served.client();
    let reply = client.request(Command::DEVICE_GET_INFO, &payload, &[]);
    let reply = reply.unwrap().payload;
    let words = reply.chunks(4).take(6);
    let words = words.map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
    (
        words.collect(),
        reply.get(24..).unwrap_or_default().to_vec(),
    )
}

#[test]
fn capabilities_come_only_to_a_client_with_room_for_the_kernels_structure() {
    let served = Served::start();
    served.fake.described.store(true, Ordering::SeqCst);
    // 24 bytes, 8 and 68 padded to 80, 8 and 8
    let need = 120;
    let caps = device_flags::CAPS;
    for (argsz, len, words, chain) in [
        (16, 16, vec![16, 3, 9, 5], false),
        (16, 24, vec![16, 3, 9, 5], false),
        (23, 24, vec![16, 3, 9, 5], false),
        (24, 24, vec![need, 3 | caps, 9, 5, 0, 0], false),
        (need - 1, 24, vec![need, 3 | caps, 9, 5, 0, 0], false),
        (need, 24, vec![need, 3 | caps, 9, 5, 24, 0], true),
        (u32::MAX, 4096, vec![need, 3 | caps, 9, 5, 24, 0], true),
        // an argsz that counts the message's header, or the room for anything
        (32, 16, vec![16, 3, 9, 5], false),
        (u32::MAX, 23, vec![16, 3, 9, 5], false),
    ] {
        let (seen, rest) = reply(&served, argsz, len);
        assert_eq!(seen, words, "argsz {argsz} in {len} bytes");
        let header = |id: u16, version: u16, next: u32| {
            [
                &id.to_ne_bytes()[..],
                &version.to_ne_bytes(),
                &next.to_ne_bytes(),
            ]
            .concat()
        };
        let expected = [
            header(3, 1, 104),
            vec![7; 68],
            vec![0; 4],
            header(4, 2, 0),
            vec![9; 8],
        ]
        .concat();
        let expected = if chain { expected } else { vec![] };
        assert_eq!(rest, expected, "argsz {argsz} in {len} bytes");
    }
    let mut client = served.client();
    let capabilities = client.device_capabilities().unwrap();
    let ids: Vec<_> = capabilities.iter().map(|c| (c.id, c.version)).collect();
    assert_eq!(ids, [(3, 1), (4, 2)]);
    assert_eq!(capabilities[0].body().get(..68), Some(&[7; 68][..]));
    assert_eq!(capabilities[1].body(), [9; 8]);
    served.fake.described.store(false, Ordering::SeqCst);
    assert_eq!(client.device_capabilities().unwrap(), []);
}
