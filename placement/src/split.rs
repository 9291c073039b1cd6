//! The option `split=`: how many bytes of the memory each node gets.

use varia_units::Bytes;

use crate::domains::MAX_NODES;
use crate::refusal::Refusal;

/// Division of the memory among the nodes of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocation to box it with"
)]
pub enum Split {
    /// Everything to the first node, as the vendor's driver does without MIG.
    #[default]
    First,
    /// The same number of blocks to each node; the first nodes get one more if it does not divide.
    Even,
    /// A size for each named node, in the order in which the nodes get the memory.
    Sizes([Option<(u32, Bytes)>; MAX_NODES]),
}

impl Split {
    /// Reads `first`, `even`, or `NODE:SIZE,…` with sizes such as `2G`, `512M` or `4096`. No text
    /// means `first`.
    ///
    /// # Errors
    /// [`Refusal::BadSplit`] with the position, [`Refusal::SplitTwice`].
    // A frame of its own: the stack of a kernel is small.
    #[inline(never)]
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        // A parameter that is written in sysfs ends with a newline.
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        match text {
            b"" | b"first" => return Ok(Self::First),
            b"even" => return Ok(Self::Even),
            _ => {}
        }
        let mut reader = Reader { text, at: 0 };
        let mut sizes = [None; MAX_NODES];
        let mut slots = sizes.iter_mut();
        loop {
            let begin = reader.at;
            let node = reader.number()?;
            let node = u32::try_from(node).map_err(|_| bad(begin))?;
            reader.expect(b':')?;
            let size = reader.size()?;
            let Some(slot) = slots.next() else {
                return Err(bad(begin));
            };
            *slot = Some((node, size));
            if reader.peek().is_none() {
                break;
            }
            reader.expect(b',')?;
        }
        for (index, pair) in sizes.iter().enumerate() {
            let Some((node, _)) = pair else { break };
            let before = sizes.iter().take(index).flatten();
            if before.into_iter().any(|(other, _)| other == node) {
                return Err(Refusal::SplitTwice { node: *node });
            }
        }
        Ok(Self::Sizes(sizes))
    }
}

/// Refusal of the character at an index.
fn bad(index: usize) -> Refusal {
    Refusal::BadSplit {
        position: (index as u64).saturating_add(1),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.peek() != Some(byte) {
            return Err(bad(self.at));
        }
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    /// Decimal digits, at least one.
    fn number(&mut self) -> Result<u64, Refusal> {
        let begin = self.at;
        let mut value: u64 = 0;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u64::from(digit.wrapping_sub(b'0'))))
                .ok_or(bad(begin))?;
            self.at = self.at.saturating_add(1);
        }
        if self.at == begin {
            return Err(bad(begin));
        }
        Ok(value)
    }

    fn size(&mut self) -> Result<Bytes, Refusal> {
        let begin = self.at;
        let number = self.number()?;
        let shift = match self.peek().map(|byte| byte.to_ascii_uppercase()) {
            Some(b'K') => 10,
            Some(b'M') => 20,
            Some(b'G') => 30,
            Some(b'T') => 40,
            _ => 0,
        };
        if shift != 0 {
            self.at = self.at.saturating_add(1);
        }
        let size = number.checked_mul(1 << shift).ok_or(bad(begin))?;
        Ok(Bytes(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(pairs: &[(u32, u64)]) -> Split {
        let mut all = [None; MAX_NODES];
        for (slot, (node, size)) in all.iter_mut().zip(pairs) {
            *slot = Some((*node, Bytes(*size)));
        }
        Split::Sizes(all)
    }

    #[test]
    fn splits_are_read_as_the_option_documents_them() {
        for (text, split) in [
            ("", Split::First),
            ("first", Split::First),
            ("first\n", Split::First),
            ("even", Split::Even),
            ("1:2G", sizes(&[(1, 2 << 30)])),
            (
                "8:512m,2:4096,0:1T",
                sizes(&[(8, 512 << 20), (2, 4096), (0, 1 << 40)]),
            ),
            ("3:0", sizes(&[(3, 0)])),
        ] {
            assert_eq!(Split::parse(text.as_bytes()), Ok(split), "{text:?}");
        }
    }

    #[test]
    fn a_split_that_can_t_be_read_is_refused_with_the_position() {
        for (text, position) in [
            ("last", 1),
            ("Even", 1),
            ("1", 2),
            ("1:", 3),
            ("1:G", 3),
            ("1:2G,", 6),
            ("1:2G;2:1G", 5),
            ("1:2GiB", 5),
            ("1:-2G", 3),
            (" 1:2G", 1),
            ("1:2G,2", 7),
            ("4294967296:1G", 1),
            ("1:99999999999999999999", 3),
            ("1:17179869184G", 3),
        ] {
            let refused = Err(Refusal::BadSplit { position });
            assert_eq!(Split::parse(text.as_bytes()), refused, "{text:?}");
        }
        let twice = Err(Refusal::SplitTwice { node: 1 });
        assert_eq!(Split::parse(b"1:1G,2:1G,1:1G"), twice);
    }

    #[test]
    fn more_nodes_than_are_supported_are_refused() {
        let text = |count: usize| {
            let parts: std::vec::Vec<_> = (0..count).map(|n| std::format!("{n}:1G")).collect();
            parts.join(",")
        };
        assert!(Split::parse(text(MAX_NODES).as_bytes()).is_ok());
        assert!(Split::parse(text(MAX_NODES + 1).as_bytes()).is_err());
    }
}
