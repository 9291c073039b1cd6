//! Chains of capabilities behind a structure: `struct vfio_info_cap_header` and a body for each,
//! padded to 8 bytes (Linux 7.2 `drivers/vfio/vfio_main.c:vfio_info_cap_add`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::{put, split};
use crate::wire::WireError;

/// `struct vfio_info_cap_header`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HeaderLayout {
    id: u16,
    version: u16,
    /// Offset of the next capability in the structure; 0 for none.
    next: u32,
}

/// A capability of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capability<Body> {
    pub(super) id: u16,
    pub(super) version: u16,
    /// Bytes behind the header; when decoded, up to the next capability or to the end.
    pub(super) body: Body,
}

impl<Body: AsRef<[u8]>> Capability<Body> {
    fn len(&self) -> usize {
        (size_of::<HeaderLayout>() + self.body.as_ref().len()).next_multiple_of(8)
    }
}

/// Bytes of the capabilities with their headers.
pub(super) fn len<Body: AsRef<[u8]>>(capabilities: &[Capability<Body>]) -> usize {
    capabilities.iter().map(Capability::len).sum()
}

/// Appends the capabilities, of which the first begins at `at` of the structure.
pub(super) fn put_all<Body: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    capabilities: &[Capability<Body>],
    mut at: usize,
) {
    let end = at + len(capabilities);
    for capability in capabilities {
        let filled = out.len() + capability.len();
        at += capability.len();
        let header = HeaderLayout {
            id: capability.id,
            version: capability.version,
            next: if at < end { at as u32 } else { 0 },
        };
        put(out, &header);
        out.extend_from_slice(capability.body.as_ref());
        out.resize(filled, 0);
    }
}

/// Gives each capability to `take`, along the chain that begins
/// at `first` of the structure `bytes`. `what` names the chain in errors.
pub(super) fn take_all<'a>(
    what: &'static str,
    bytes: &'a [u8],
    first: u32,
    mut take: impl FnMut(Capability<&'a [u8]>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut at = first as usize;
    // a chain with more capabilities than headers fit is a loop
    for _ in 0..bytes.len() / size_of::<HeaderLayout>() {
        let Some(here) = bytes.get(at..) else {
            break;
        };
        let (header, body) = split::<HeaderLayout>(what, here)?;
        let next = header.next as usize;
        let len = next.checked_sub(at + size_of::<HeaderLayout>());
        take(Capability {
            id: header.id,
            version: header.version,
            body: len.and_then(|len| body.get(..len)).unwrap_or(body),
        })?;
        if header.next == 0 {
            return Ok(());
        }
        at = next;
    }
    Err(WireError::TooShort {
        what,
        len: bytes.len(),
        need: at,
    })
}
