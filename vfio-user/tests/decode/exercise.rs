//! Properties of the decoder for any bytes: shared by the tests beside it and
//! by the fuzz target `vfio_user_decode`.

use varia_vfio_user::command::Request;
use varia_vfio_user::command::version::{MAJOR, Version};
use varia_vfio_user::command::{
    DeviceReply, IrqReply, RegionAccess, RegionRead, RegionReply, RegionWrite, WriteMulti,
};
use varia_vfio_user::wire::{HEADER_LEN, Header, MAX_DATA_XFER, MAX_MESSAGE};

/// Take `bytes` for a message from a client, and its payload for each reply that
/// a server could send. Panics where a promise of the decoder does not hold.
pub(crate) fn exercise(bytes: &[u8]) {
    let Some((head, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
    let header = Header::decode(head);
    if header.check_size(MAX_MESSAGE).is_ok() {
        assert!((HEADER_LEN..=MAX_MESSAGE).contains(&(header.size as usize)));
        assert_eq!(Header::decode(&header.encode()), header);
        if let Ok(request) = Request::decode(header.command, payload, MAX_DATA_XFER) {
            check_request(&request, payload);
        }
    }
    check_replies(payload);
}

/// What was decoded is no longer than what it was decoded from, and is encoded
/// to what is decoded to the same again.
fn check_request(request: &Request<'_>, payload: &[u8]) {
    let mut again = Vec::new();
    match request {
        Request::Version(version) => {
            if version.major != MAJOR {
                return;
            }
            version.encode(&mut again);
            assert_eq!(Version::decode(&again).as_ref(), Ok(version));
            return;
        }
        Request::DmaMap(map) => map.encode(&mut again),
        Request::DmaUnmap(unmap) => unmap.encode(&mut again),
        Request::RegionInfo(query) => return assert!(payload.len() >= 32, "{query:?}"),
        Request::IrqInfo(query) => return assert!(payload.len() >= 16, "{query:?}"),
        Request::DeviceInfo(_) => return assert!(payload.len() >= 16),
        Request::SetIrqs(set) => set.encode(&mut again),
        Request::RegionRead(RegionRead(access)) => {
            assert!(access.count as usize <= MAX_DATA_XFER);
            access.encode(&mut again);
        }
        Request::RegionWrite(RegionWrite { access, data }) => {
            assert_eq!(access.count as usize, data.len());
            access.encode(&mut again);
            again.extend_from_slice(data);
        }
        Request::RegionWriteMulti(WriteMulti(writes)) => WriteMulti::encode(writes, &mut again),
        Request::Reset(_) => {}
        Request::Feature(feature) => feature.encode(&mut again),
        Request::Unsupported(_) => return,
    }
    // the first field of those with an argsz is not kept
    let kept = match request {
        Request::DmaMap(_) | Request::SetIrqs(_) => 4,
        _ => 0,
    };
    // what is behind the structure is not looked at
    assert_eq!(
        again.get(kept..),
        payload.get(kept..again.len()),
        "{request:?}"
    );
}

fn check_replies(payload: &[u8]) {
    if let Ok((_, device)) = DeviceReply::decode(payload) {
        let mut again = Vec::new();
        device.encode(u32::MAX, &mut again);
        let (len, same) = DeviceReply::decode(&again).expect("what we encode can be decoded");
        assert_eq!(len as usize, again.len());
        let ids = |reply: &DeviceReply| -> Vec<_> {
            let capabilities = reply.capabilities.iter();
            capabilities.map(|c| (c.id, c.version)).collect()
        };
        assert_eq!(ids(&same), ids(&device));
    }
    let _ = IrqReply::decode(payload);
    let _ = Version::decode(payload);
    let _ = RegionAccess::decode("REGION_READ", payload);
    if let Ok((_, region)) = RegionReply::decode(payload) {
        assert!(region.info.areas.len() * 16 <= payload.len());
        let mut again = Vec::new();
        region.encode(u32::MAX, &mut again);
        let (_, same) = RegionReply::decode(&again).expect("what we encode can be decoded");
        assert_eq!(
            (same.info.size, same.offset, same.info.areas),
            (region.info.size, region.offset, region.info.areas)
        );
        assert_eq!(
            (same.info.region_type, same.info.msix_mappable),
            (region.info.region_type, region.info.msix_mappable)
        );
        assert_eq!(same.info.capabilities, region.info.capabilities);
    }
}
