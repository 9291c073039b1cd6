//! Host-physical addresses and the page frames that contain them.

/// A host-physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
#[repr(transparent)]
pub struct HostPhys(pub u64);

impl HostPhys {
    /// The address `bytes` higher; `None` beyond 64 bits.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

/// Log2 of the host's base page size in bytes: 12 (4 KiB) to 16 (64 KiB).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct PageShift(u32);

impl PageShift {
    /// 4 KiB pages.
    pub const KIB_4: Self = Self(12);
    /// 16 KiB pages.
    pub const KIB_16: Self = Self(14);
    /// 64 KiB pages.
    pub const KIB_64: Self = Self(16);

    /// A page shift read from outside; `None` unless 12 to 16.
    pub const fn new(shift: u32) -> Option<Self> {
        if shift >= 12 && shift <= 16 {
            Some(Self(shift))
        } else {
            None
        }
    }

    /// Log2 of the page size.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Page size in bytes.
    pub const fn size(self) -> u64 {
        1 << self.0
    }

    /// Bytes in `1 << order` pages; `None` beyond 64 bits.
    pub const fn order_size(self, order: u32) -> Option<u64> {
        match self.0.checked_add(order) {
            Some(shift) => 1u64.checked_shl(shift),
            None => None,
        }
    }

    /// Page frame that contains an address.
    pub const fn frame(self, at: HostPhys) -> PageFrame {
        PageFrame(at.0 >> self.0)
    }
}

/// A host page frame number: a host-physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct PageFrame(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_beyond_64_bits_has_no_size() {
        assert_eq!(PageShift::KIB_4.order_size(9), Some(2 << 20));
        assert_eq!(PageShift::KIB_64.order_size(13), Some(512 << 20));
        assert_eq!(PageShift::KIB_64.order_size(48), None);
        assert_eq!(PageShift::KIB_4.order_size(u32::MAX), None);
    }
}
