// SPDX-License-Identifier: GPL-2.0-only
//! Text in a buffer of fixed size, written without `core::fmt`.
//!
//! The sentences are those of `varia_variant`, which its `Display` prints in user space; tests
//! compare the two. `core::fmt` goes through function pointers and paths that can panic, which
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
