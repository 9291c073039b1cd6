//! Structures as bytes, by their layout in memory: all fields are in the byte order of the machine,
//! and no structure has padding.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use varia_spec::errno::Errno;

use crate::wire::WireError;

/// The structure at the front of `bytes`, and the bytes behind it. `what` names the structure in
/// errors.
pub(super) fn split<'a, T: FromBytes>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), WireError> {
    T::read_from_prefix(bytes).map_err(|_| WireError::TooShort {
        what,
        len: bytes.len(),
        need: size_of::<T>(),
    })
}

/// Appends the bytes of a structure.
pub(super) fn put(out: &mut Vec<u8>, layout: &(impl IntoBytes + Immutable)) {
    out.extend_from_slice(layout.as_bytes());
}

/// Bytes of a structure, for its `argsz`.
pub(super) const fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

/// Checks that the fixed part of a reply fits into the `argsz` of its request.
pub(super) fn fits(argsz: u32, len: usize) -> Result<(), Errno> {
    if (argsz as usize) < len {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}
