//! Numbers with a meaning.

/// A host-physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct HostPhys(pub u64);

impl HostPhys {
    /// The address `bytes` further on, or `None` beyond 64 bits.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

/// The size of a BAR in bytes: a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct BarSize(u64);

impl BarSize {
    /// The smallest BAR that covers `len` bytes; `None` for 0 or above 2^63.
    pub const fn covering(len: u64) -> Option<Self> {
        if len == 0 {
            return None;
        }
        match len.checked_next_power_of_two() {
            Some(size) => Some(Self(size)),
            None => None,
        }
    }

    /// The size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address bits of a BAR of this size.
    pub const fn address_mask(self) -> u64 {
        !(self.0.wrapping_sub(1))
    }
}

/// A physical base address register, by its number: 0 to 5.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Bar(u8);

impl Bar {
    /// BAR0.
    pub const BAR0: Self = Self(0);

    /// A number from outside; `None` unless 0 to 5.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 6 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Log2 of the host's base page size in bytes: 12 for 4 KiB, 14, or 16.
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

    /// A page shift from outside; `None` unless 12 to 16.
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

    /// The page size in bytes.
    pub const fn size(self) -> u64 {
        1 << self.0
    }

    /// Bytes in `1 << order` pages, or `None` beyond 64 bits.
    pub const fn order_size(self, order: u32) -> Option<u64> {
        match self.0.checked_add(order) {
            Some(shift) => 1u64.checked_shl(shift),
            None => None,
        }
    }

    /// The page frame that contains an address.
    pub const fn frame(self, at: HostPhys) -> PageFrame {
        PageFrame(at.0 >> self.0)
    }
}

/// A host page frame number: a host-physical address divided by the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct PageFrame(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Millis(pub u64);

/// A point of time in milliseconds from an arbitrary start, never going back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The point `delay` later; saturates at the end of time.
    pub const fn after(self, delay: Millis) -> Self {
        Self(self.0.saturating_add(delay.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_covers_its_length_with_a_power_of_two() {
        for (len, size) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (95 << 30, 128 << 30),
            (1 << 63, 1 << 63),
        ] {
            assert_eq!(
                BarSize::covering(len).map(BarSize::get),
                Some(size),
                "length {len}"
            );
        }
        assert_eq!(BarSize::covering(0), None);
        assert_eq!(BarSize::covering((1 << 63) + 1), None);
    }

    #[test]
    fn an_order_beyond_64_bits_has_no_size() {
        assert_eq!(PageShift::KIB_4.order_size(9), Some(2 << 20));
        assert_eq!(PageShift::KIB_64.order_size(13), Some(512 << 20));
        assert_eq!(PageShift::KIB_64.order_size(48), None);
        assert_eq!(PageShift::KIB_4.order_size(u32::MAX), None);
    }
}
