//! The structure that REGION_READ and REGION_WRITE share.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::layout::split;
use crate::wire::WireError;

/// Bytes of a [`RegionAccess`] without data.
pub const REGION_ACCESS_LEN: usize = size_of::<RegionAccess>();

/// The fixed part of REGION_READ and REGION_WRITE, request and reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// The region's index.
    pub region: u32,
    /// Bytes to transfer, or transferred.
    pub count: u32,
}

impl RegionAccess {
    /// The bytes of the fixed part.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes());
    }

    /// The fixed part and the data behind it.
    pub fn decode<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        split(what, bytes)
    }

    /// The fixed part and the bytes behind it, if not more than `max` bytes are to be transferred.
    pub(super) fn within<'a>(
        what: &'static str,
        bytes: &'a [u8],
        max: usize,
    ) -> Result<(Self, &'a [u8]), WireError> {
        let (access, data) = Self::decode(what, bytes)?;
        if access.count as usize > max {
            return Err(WireError::TooMuchData {
                what,
                count: access.count.into(),
                max,
            });
        }
        Ok((access, data))
    }
}
