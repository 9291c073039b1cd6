// SPDX-License-Identifier: GPL-2.0-only
//! Text in a buffer of fixed size, written without `core::fmt`.
//!
//! The sentences are those of `varia_variant`, which its `Display` prints in user space; a test
//! compares the two. `core::fmt` goes through function pointers and paths that can panic, which
//! this object must not contain.

use varia_variant::{Bytes, Sentence, TextSegment};

/// A C string under construction in a buffer of the caller; what does not fit is cut off.
pub(crate) struct Text<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    /// An empty string in this buffer.
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        if let Some(first) = bytes.first_mut() {
            *first = 0;
        }
        Self { bytes, len: 0 }
    }

    /// A sentence, segment by segment.
    pub(crate) fn sentence(&mut self, sentence: &Sentence) -> &mut Self {
        for segment in sentence.segments() {
            match *segment {
                TextSegment::Text(words) => self.str(words),
                TextSegment::Decimal(number) => self.dec(number),
                TextSegment::Hexadecimal(number) => self.hex(number),
                TextSegment::Size(size) => self.size(size),
            };
        }
        self
    }

    /// A size as a sum of binary units, as its `Display` has it.
    pub(crate) fn size(&mut self, size: Bytes) -> &mut Self {
        let mut plus = "";
        for (count, unit) in size.terms() {
            self.str(plus)
                .dec(count)
                .str(" ")
                .str(unit.name_after(count));
            plus = " + ";
        }
        self
    }

    /// A byte, and the NUL behind it.
    fn byte(&mut self, byte: u8) {
        if let Some([slot, end, ..]) = self.bytes.get_mut(self.len..) {
            (*slot, *end) = (byte, 0);
            self.len += 1;
        }
    }

    /// Text as it is.
    pub(crate) fn str(&mut self, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.byte(byte);
        }
        self
    }

    /// Decimal digits, as many as are needed.
    pub(crate) fn dec(&mut self, value: u64) -> &mut Self {
        let mut unit = 1_u64;
        while value.checked_div(unit).unwrap_or(0) >= 10 {
            // At most 10^19, which fits.
            unit *= 10;
        }
        loop {
            // A unit is never 0, which the compiler can't see.
            let digit = value.checked_div(unit).unwrap_or(0) % 10;
            self.byte(b'0' + digit as u8);
            if unit == 1 {
                return self;
            }
            unit /= 10;
        }
    }

    /// `0x` and the digits that are needed.
    pub(crate) fn hex(&mut self, value: u64) -> &mut Self {
        self.str("0x");
        let mut shift = value.checked_ilog2().unwrap_or(0) & !3;
        loop {
            let digit = ((value >> shift) & 0xf) as u8;
            self.byte(if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            });
            if shift == 0 {
                return self;
            }
            shift -= 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use varia_spec::Errno;
    use varia_variant::{BarIndex, Decline, HostPhys, Refusal};

    use super::*;
    use crate::{probe::NOT_SERVED, types::TEXT_LEN};

    fn string(write: impl Fn(&mut Text<'_>)) -> String {
        let mut bytes = [0xee; TEXT_LEN];
        write(&mut Text::new(&mut bytes));
        let end = bytes.iter().position(|byte| *byte == 0).expect("a NUL");
        String::from_utf8(bytes[..end].to_vec()).expect("text")
    }

    #[test]
    fn reasons_read_as_their_display_does_and_none_is_cut() {
        let errno = Errno::EOVERFLOW;
        for reason in [
            Decline::LinkDown,
            Decline::NoCommands,
            Decline::BarTaken(BarIndex::BAR0),
            Decline::Property {
                name: "nvidia,gpu-mem-base-pa",
                errno,
            },
        ] {
            let text = string(|text| {
                text.sentence(&reason.sentence());
            });
            assert_eq!(text, reason.to_string());
        }
        for (address, size) in [
            (0, Bytes(0)),
            (0x42_0000_0000, Bytes(1)),
            (0xffff_ffff, Bytes((95 << 30) + 4096)),
            (u64::MAX, Bytes(u64::MAX)),
        ] {
            let base = HostPhys(address);
            for refusal in [
                Refusal::BelowReserve {
                    size,
                    reserve: size,
                },
                Refusal::NothingUsable { size, least: size },
                Refusal::BaseNotPageAligned { base, page: size },
                Refusal::BeyondAddresses { base, size },
                Refusal::OutOfReach {
                    base,
                    length: size,
                    last: base,
                },
                Refusal::BarTooLarge { length: size },
                Refusal::SystemRam { base, length: size },
                Refusal::NoBar0,
                Refusal::Bar0TooSmall { size, end: address },
                Refusal::NotReady { errno },
                Refusal::Claimed {
                    name: "usemem",
                    base,
                    length: size,
                },
                Refusal::Strict(Decline::NoCommands),
                Refusal::Strict(Decline::Property {
                    name: "nvidia,gpu-mem-base-pa",
                    errno,
                }),
            ] {
                let text = string(|text| {
                    text.str(NOT_SERVED).sentence(&refusal.sentence());
                });
                assert_eq!(text, format!("{NOT_SERVED}{refusal}"));
            }
        }
    }

    #[test]
    fn sizes_read_as_their_display_does() {
        for bytes in [
            0,
            1,
            1023,
            4097,
            95 << 30,
            (1 << 30) + (300 << 20),
            u64::MAX,
        ] {
            let size = Bytes(bytes);
            let text = string(|text| {
                text.size(size);
            });
            assert_eq!(text, size.to_string());
        }
    }

    #[test]
    fn numbers_have_the_digits_they_need() {
        for value in [0, 9, 10, 1234567890, 10_u64.pow(19), u64::MAX] {
            let text = string(|text| {
                text.dec(value).str(" ").hex(value);
            });
            assert_eq!(text, format!("{value} {value:#x}"));
        }
    }

    #[test]
    fn text_that_does_not_fit_is_cut_and_still_ends() {
        let long = "x".repeat(TEXT_LEN + 10);
        let text = string(|text| {
            text.str(&long);
        });
        assert_eq!(text.len(), TEXT_LEN - 1);
        // There may be no room at all.
        Text::new(&mut []).str("x");
    }
}
