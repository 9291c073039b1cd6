//! Sizes in bytes: how they are written for people and for programs, and how they are read.

use core::fmt::{self, Write as _};
use core::str::FromStr;

/// A number of bytes.
///
/// `Display` writes the exact value as a sum of binary units: `95 GiB`, `1 GiB + 300 MiB`.
/// `FromStr` reads sums of terms: `96G`, `96G+300M`, `1GiB`, `4096`, `0x1000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
#[repr(transparent)]
pub struct Bytes(pub u64);

/// A binary unit of sizes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unit {
    /// 1 byte.
    Byte,
    /// 2^10 bytes.
    Kib,
    /// 2^20 bytes.
    Mib,
    /// 2^30 bytes.
    Gib,
    /// 2^40 bytes.
    Tib,
}

impl Unit {
    /// Units from the largest to the smallest.
    const FALLING: [Self; 5] = [Self::Tib, Self::Gib, Self::Mib, Self::Kib, Self::Byte];

    /// Log2 of the unit in bytes.
    pub const fn shift(self) -> u32 {
        match self {
            Self::Byte => 0,
            Self::Kib => 10,
            Self::Mib => 20,
            Self::Gib => 30,
            Self::Tib => 40,
        }
    }

    /// Name as text for people has it: `GiB`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Byte => "bytes",
            Self::Kib => "KiB",
            Self::Mib => "MiB",
            Self::Gib => "GiB",
            Self::Tib => "TiB",
        }
    }

    /// Name after a count: `1 byte`, `2 bytes`, `1 GiB`.
    pub const fn name_after(self, count: u64) -> &'static str {
        match (count, self) {
            (1, Self::Byte) => "byte",
            _ => self.name(),
        }
    }

    /// Suffix as command lines have it: `G`; empty for bytes.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Byte => "",
            Self::Kib => "K",
            Self::Mib => "M",
            Self::Gib => "G",
            Self::Tib => "T",
        }
    }
}

impl Bytes {
    /// The exact value as counts of falling units, none of them zero; of 0, a single `0 bytes`.
    pub fn terms(self) -> impl Iterator<Item = (u64, Unit)> {
        let mut rest = self.0;
        let zero = (rest == 0).then_some((0, Unit::Byte));
        let counts = Unit::FALLING.into_iter().map(move |unit| {
            let count = rest >> unit.shift();
            rest &= (1 << unit.shift()) - 1;
            (count, unit)
        });
        zero.into_iter()
            .chain(counts.filter(|(count, _)| *count > 0))
    }

    /// The size with one decimal in its largest unit, rounded down: `23.5 GiB`, `512 MiB`.
    #[must_use]
    pub const fn rounded(self) -> Rounded {
        Rounded(self)
    }

    /// The exact value as command lines take it: `512G`, `96G+300M`, `4097`.
    ///
    /// A value that is a whole number of a unit is one term, which QEMU and libvirt read too.
    #[must_use]
    pub const fn suffixed(self) -> Suffixed {
        Suffixed(self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, unit)) in self.terms().enumerate() {
            let plus = if index == 0 { "" } else { " + " };
            write!(f, "{plus}{count} {}", unit.name_after(count))?;
        }
        Ok(())
    }
}

/// `Display` of [`Bytes::rounded`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rounded(Bytes);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.0;
        let unit = Unit::FALLING
            .into_iter()
            .find(|unit| bytes >> unit.shift() > 0);
        let unit = unit.unwrap_or(Unit::Byte);
        let (whole, tenths) = (
            bytes >> unit.shift(),
            ((u128::from(bytes) * 10) >> unit.shift()) % 10,
        );
        match (whole, unit) {
            (_, Unit::Byte) => self.0.fmt(f),
            _ if bytes.trailing_zeros() >= unit.shift() => write!(f, "{whole} {}", unit.name()),
            _ => write!(f, "{whole}.{tenths} {}", unit.name()),
        }
    }
}

/// `Display` of [`Bytes::suffixed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suffixed(Bytes);

impl fmt::Display for Suffixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, unit)) in self.0.terms().enumerate() {
            if index > 0 {
                f.write_char('+')?;
            }
            write!(f, "{count}{}", unit.suffix())?;
        }
        Ok(())
    }
}

/// Reason why a text is not a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SizeError {
    /// A term is neither a number with a unit nor a hexadecimal number.
    Unreadable,
    /// The sum is beyond 64 bits.
    TooLarge,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "not a size: write for example 96G, 96G+300M or 0x1000",
            Self::TooLarge => "a size beyond 64 bits: write a smaller one",
        })
    }
}

impl core::error::Error for SizeError {}

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let mut sum: u64 = 0;
        for term in text.split('+') {
            sum = sum
                .checked_add(term_bytes(term.trim())?)
                .ok_or(SizeError::TooLarge)?;
        }
        Ok(Self(sum))
    }
}

/// Bytes of one term.
fn term_bytes(term: &str) -> Result<u64, SizeError> {
    if let Some(digits) = term.strip_prefix("0x") {
        return number(digits, 16);
    }
    let digits_end = term
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(term.len());
    let (digits, unit) = term.split_at_checked(digits_end).unwrap_or((term, ""));
    let unit = unit.trim_start();
    let named = |candidate: &Unit| {
        [
            candidate.suffix(),
            candidate.name(),
            candidate.name_after(1),
        ]
        .iter()
        .any(|name| unit.eq_ignore_ascii_case(name))
            || unit
                .strip_suffix(['B', 'b'])
                .is_some_and(|front| front.eq_ignore_ascii_case(candidate.suffix()))
    };
    let unit = Unit::FALLING
        .iter()
        .find(|unit| named(unit))
        .ok_or(SizeError::Unreadable)?;
    number(digits, 10)?
        .checked_mul(1 << unit.shift())
        .ok_or(SizeError::TooLarge)
}

/// A number that is digits alone, without a sign.
fn number(digits: &str, radix: u32) -> Result<u64, SizeError> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(SizeError::Unreadable);
    }
    u64::from_str_radix(digits, radix).map_err(|_| SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn sizes_are_read_as_sums_of_units() {
        for (text, bytes) in [
            ("96G", 96 << 30),
            ("96G+300M", (96 << 30) + (300 << 20)),
            ("1T", 1 << 40),
            ("0x1000", 4096),
            ("4096", 4096),
            ("4k", 4096),
            ("1GiB", 1 << 30),
            ("2gb", 2 << 30),
            ("12B", 12),
            ("12 bytes", 12),
            ("96G + 4K", (96 << 30) + 4096),
            ("1 GiB + 300 MiB", (1 << 30) + (300 << 20)),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_size_is_refused_by_its_reason() {
        for text in [
            "", "G", "-1", "96X", "1.5G", "0xzz", "0x", "0x+1", "96G+", "+", "１", "1iB", "é",
        ] {
            assert_eq!(text.parse::<Bytes>(), Err(SizeError::Unreadable), "{text}");
        }
        for text in [
            "99999999999T",
            "16777216T",
            "18446744073709551615+1",
            "0x10000000000000000",
        ] {
            assert_eq!(text.parse::<Bytes>(), Err(SizeError::TooLarge), "{text}");
        }
    }

    #[test]
    fn a_size_is_written_exactly_and_read_back() {
        for (bytes, shown, suffixed) in [
            (0, "0 bytes", "0"),
            (1, "1 byte", "1"),
            (4096, "4 KiB", "4K"),
            (4097, "4 KiB + 1 byte", "4K+1"),
            (512 << 30, "512 GiB", "512G"),
            ((96 << 30) + (300 << 20), "96 GiB + 300 MiB", "96G+300M"),
            (1 << 41, "2 TiB", "2T"),
            (
                u64::MAX,
                "16777215 TiB + 1023 GiB + 1023 MiB + 1023 KiB + 1023 bytes",
                "16777215T+1023G+1023M+1023K+1023",
            ),
        ] {
            let size = Bytes(bytes);
            assert_eq!(size.to_string(), shown);
            assert_eq!(size.suffixed().to_string(), suffixed);
            assert_eq!(shown.parse(), Ok(size));
            assert_eq!(suffixed.parse(), Ok(size));
        }
    }

    #[test]
    fn a_rounded_size_has_one_decimal_in_its_largest_unit() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (512 << 20, "512 MiB"),
            ((8 << 30) - 1, "7.9 GiB"),
            (24_684_096 << 10, "23.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Bytes(bytes).rounded().to_string(), text);
        }
    }
}
