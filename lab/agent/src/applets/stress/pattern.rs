//! Pattern for memory that all threads write: each byte shows its offset, and that it has been
//! written, by whichever thread and however the writers raced.

/// Bits that an offset leaves open in its byte.
const FREE: u8 = 0x0f;

/// The bits of a byte that its place decides. The highest is never set, so that no byte is 0xFF.
fn fixed(region: u32, offset: u64) -> u8 {
    let mixed = (offset ^ u64::from(region) << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8 & 0x70
}

/// Bytes for a place, of one version.
pub(super) fn fill(region: u32, offset: u64, version: u8, bytes: &mut [u8]) {
    for (byte, at) in bytes.iter_mut().zip(offset..) {
        *byte = fixed(region, at) | version & FREE;
    }
}

/// The first byte that does not belong there: {offset, byte}.
pub(super) fn foreign(region: u32, offset: u64, bytes: &[u8]) -> Option<(u64, u8)> {
    let wrong = |(byte, at): &(u8, u64)| byte & !FREE != fixed(region, *at);
    let pair = bytes.iter().copied().zip(offset..).find(wrong);
    pair.map(|(byte, at)| (at, byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_version_belong_to_their_place_and_to_no_other() {
        let mut bytes = [0; 64];
        fill(4, 0x1000, 0xa3, &mut bytes);
        assert_eq!(foreign(4, 0x1000, &bytes), None);
        assert!(foreign(4, 0x1008, &bytes).is_some());
        assert!(foreign(2, 0x1000, &bytes).is_some());
        bytes[9] = 0xff;
        assert_eq!(foreign(4, 0x1000, &bytes), Some((0x1009, 0xff)));
    }
}
