//! Sizes as people write them: `96G`, `96G+300M`, `0x1000`.

use std::{fmt, str::FromStr};

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size(pub(crate) u64);

/// A suffix and log2 of what it stands for.
const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut sum: u64 = 0;
        for term in text.split('+') {
            let bytes = term_bytes(term.trim())
                .ok_or_else(|| {
                    format!(
                        "can't read the size {text:?}: write for example 96G, 96G+300M or 0x1000"
                    )
                })?
                .ok_or_else(|| {
                    format!("the size {text:?} is beyond 64 bits: write a smaller one")
                })?;
            sum = sum.checked_add(bytes).ok_or_else(|| {
                format!("the size {text:?} is beyond 64 bits: write a smaller one")
            })?;
        }
        Ok(Self(sum))
    }
}

/// The bytes of one term: `None` if it can't be read, `Some(None)` if it is too large.
fn term_bytes(term: &str) -> Option<Option<u64>> {
    if let Some(digits) = term.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Some);
    }
    let upper = term.to_ascii_uppercase();
    let upper = upper
        .strip_suffix("IB")
        .or(upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let (digits, shift) = UNITS
        .iter()
        .find_map(|(suffix, shift)| upper.strip_suffix(*suffix).map(|digits| (digits, *shift)))
        .unwrap_or((upper, 0));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift)),
    )
}

impl Size {
    /// The shortest exact sum of units, and the bytes that are left.
    fn terms(self) -> (Vec<(u64, char)>, u64) {
        let mut rest = self.0;
        let mut terms = Vec::new();
        for (suffix, shift) in UNITS.iter().rev() {
            // A TiB is written as 1024 GiB, as memory sizes are.
            if *suffix != 'T' && rest >> shift > 0 {
                terms.push((rest >> shift, *suffix));
                rest &= (1 << shift) - 1;
            }
        }
        (terms, rest)
    }

    /// As it is given on a command line: `96G+300M`.
    pub(crate) fn argument(self) -> String {
        let (terms, rest) = self.terms();
        let mut words: Vec<_> = terms
            .iter()
            .map(|(number, suffix)| format!("{number}{suffix}"))
            .collect();
        if rest > 0 || words.is_empty() {
            words.push(rest.to_string());
        }
        words.join("+")
    }
}

impl fmt::Display for Size {
    /// As it is read: `95 GiB`, `1 GiB + 300 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (terms, rest) = self.terms();
        let mut words: Vec<_> = terms
            .iter()
            .map(|(number, suffix)| format!("{number} {suffix}iB"))
            .collect();
        if rest > 0 || words.is_empty() {
            words.push(format!("{rest} bytes"));
        }
        f.write_str(&words.join(" + "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_sums_of_units() {
        for (text, bytes) in [
            ("96G", 96 << 30),
            ("96G+300M", (96 << 30) + (300 << 20)),
            ("1T", 1 << 40),
            ("0x1000", 4096),
            ("4096", 4096),
            ("4k", 4096),
            ("1GiB", 1 << 30),
            ("96G + 4K", (96 << 30) + 4096),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "G", "-1", "96X", "1.5G", "0xzz", "96G+", "+", "１"] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.contains("96G+300M"), "{error}");
        }
        for text in ["99999999999T", "16777216T", "18446744073709551615+1"] {
            assert!(
                text.parse::<Size>()
                    .expect_err(text)
                    .contains("beyond 64 bits")
            );
        }
    }

    #[test]
    fn a_size_as_an_argument_is_read_back_as_it_is() {
        for bytes in [
            0,
            1,
            4096,
            4097,
            (96 << 30) + (300 << 20),
            1 << 41,
            u64::MAX,
        ] {
            assert_eq!(Size(bytes).argument().parse(), Ok(Size(bytes)), "{bytes}");
        }
        assert_eq!(Size((96 << 30) + (300 << 20)).argument(), "96G+300M");
    }

    #[test]
    fn a_size_is_shown_exactly() {
        assert_eq!(
            Size((96 << 30) + (300 << 20)).to_string(),
            "96 GiB + 300 MiB"
        );
        assert_eq!(Size(4097).to_string(), "4 KiB + 1 bytes");
        assert_eq!(Size(1 << 41).to_string(), "2048 GiB");
    }
}
