//! Sentences in segments, for runtimes with and without `core::fmt`.
//!
//! User space prints a sentence by its `Display`. The kernel object writes the same segments into
//! a fixed buffer, because `core::fmt` brings paths that can panic.

use core::fmt;

use varia_units::Bytes;

/// The most segments in a sentence.
const MAX_SEGMENTS: usize = 8;

/// A segment of a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextSegment {
    /// Text as it is.
    Text(&'static str),
    /// Number in decimal digits.
    Decimal(u64),
    /// Offset or address in hexadecimal digits after `0x`.
    Hexadecimal(u64),
    /// Size in binary units, as `Display` of [`Bytes`] has it.
    Size(Bytes),
}

impl fmt::Display for TextSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Decimal(number) => write!(f, "{number}"),
            Self::Hexadecimal(number) => write!(f, "{number:#x}"),
            Self::Size(size) => size.fmt(f),
        }
    }
}

/// A sentence of at most 8 segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sentence([TextSegment; MAX_SEGMENTS]);

impl Sentence {
    /// Sentence of these segments, in their order.
    pub fn new<const N: usize>(segments: [TextSegment; N]) -> Self {
        const { assert!(N <= MAX_SEGMENTS, "the sentence has too many segments") };
        let mut all = [TextSegment::Text(""); MAX_SEGMENTS];
        for (slot, segment) in all.iter_mut().zip(segments) {
            *slot = segment;
        }
        Self(all)
    }

    /// Segments in their order.
    pub const fn segments(&self) -> &[TextSegment] {
        &self.0
    }
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| segment.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_sentence_reads_as_its_segments_one_after_the_other() {
        use TextSegment::{Decimal, Hexadecimal, Size, Text};
        let segments = [
            Text("BAR"),
            Decimal(4),
            Text(" at "),
            Hexadecimal(0x20),
            Text(" has "),
            Size(Bytes(95 << 30)),
        ];
        let sentence = Sentence::new(segments);
        assert_eq!(sentence.to_string(), "BAR4 at 0x20 has 95 GiB");
        assert_eq!(sentence.segments().get(..6), Some(segments.as_slice()));
    }
}
