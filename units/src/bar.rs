//! Base address registers by index and by size.

/// Index of a physical base address register: 0 to 5.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct BarIndex(u8);

impl BarIndex {
    /// BAR0.
    pub const BAR0: Self = Self(0);
    /// BAR1.
    pub const BAR1: Self = Self(1);
    /// BAR2.
    pub const BAR2: Self = Self(2);
    /// BAR3.
    pub const BAR3: Self = Self(3);
    /// BAR4.
    pub const BAR4: Self = Self(4);
    /// BAR5.
    pub const BAR5: Self = Self(5);

    /// An index read from outside; `None` unless 0 to 5.
    pub const fn new(index: u8) -> Option<Self> {
        if index < 6 { Some(Self(index)) } else { None }
    }

    /// The index, 0 to 5.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Size of a BAR in bytes: a power of two.
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

    /// Size in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Address bits of a BAR of this size.
    pub const fn address_mask(self) -> u64 {
        !(self.0.wrapping_sub(1))
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
}
