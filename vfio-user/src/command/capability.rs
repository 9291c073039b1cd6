//! Chains of capabilities behind a structure: `struct vfio_info_cap_header` and a body for each.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::vfio::region_cap;

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

/// A capability: its id, and its body behind the header.
pub(super) type Capability = (u16, Vec<u8>);

/// Bytes of the capabilities with their headers.
pub(super) fn len(capabilities: &[Capability]) -> usize {
    let lens = capabilities
        .iter()
        .map(|(_, body)| size_of::<HeaderLayout>() + body.len());
    lens.sum()
}

/// Appends the capabilities, of which the first begins at `at` of the structure.
pub(super) fn put_all(out: &mut Vec<u8>, capabilities: &[Capability], mut at: usize) {
    let end = at + len(capabilities);
    for (id, body) in capabilities {
        at += size_of::<HeaderLayout>() + body.len();
        let header = HeaderLayout {
            id: *id,
            version: region_cap::VERSION,
            next: if at < end { at as u32 } else { 0 },
        };
        put(out, &header);
        out.extend_from_slice(body);
    }
}

/// Gives each capability's id and the bytes from its body on to `take`, along the chain that begins
/// at `first` of the structure `bytes`. `what` names the chain in errors.
pub(super) fn take_all<'a>(
    what: &'static str,
    bytes: &'a [u8],
    first: u32,
    mut take: impl FnMut(u16, &'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut at = first as usize;
    // a chain with more capabilities than headers fit is a loop
    for _ in 0..bytes.len() / size_of::<HeaderLayout>() {
        let Some(here) = bytes.get(at..) else {
            break;
        };
        let (header, body) = split::<HeaderLayout>(what, here)?;
        take(header.id, body)?;
        if header.next == 0 {
            return Ok(());
        }
        at = header.next as usize;
    }
    Err(WireError::TooShort {
        what,
        len: bytes.len(),
        need: at,
    })
}
