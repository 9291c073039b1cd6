// SPDX-License-Identifier: GPL-2.0-only
//! Why a probe was declined or failed, written without `core::fmt`.
//!
//! The wording is that of `varia_variant`'s `Display`; a test compares the two. `core::fmt` goes
//! through function pointers and paths that can panic, which this object must not contain.

use varia_spec::Errno;
use varia_variant::{Decline, Refusal};

use crate::types::TEXT_LEN;

/// What to do about a memory size.
const ANOTHER_SIZE: &str = "; the host's firmware has to give another memory size";

/// What to do about a memory base.
const ANOTHER_BASE: &str = "; the host's firmware has to give another memory base";

/// A C string under construction; what does not fit is cut off.
pub(crate) struct Text {
    bytes: [u8; TEXT_LEN],
    len: usize,
}

impl Text {
    /// An empty string.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; TEXT_LEN],
            len: 0,
        }
    }

    /// Copies the text and a NUL to `out`, cut to what fits.
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        let text = self.bytes.iter().take(self.len);
        let mut room = out.iter_mut();
        let end = room.next_back();
        for (slot, byte) in room.by_ref().zip(text.copied().chain([0])) {
            *slot = byte;
        }
        if let Some(end) = end {
            *end = 0;
        }
    }

    /// Why the base serves the device alone.
    pub(crate) fn decline(self, reason: &Decline) -> Self {
        match reason {
            Decline::Property { name, errno } => self
                .str("firmware property ")
                .str(name)
                .str(" can't be read (")
                .str(errno.name())
                .str("): served as a plain PCI device without its coherent memory; check the host's ACPI tables"),
            Decline::LinkDown => self.str(
                "firmware reports a memory size of 0, so the chip-to-chip link is down: served as \
                 a plain PCI device without its coherent memory; check the link and reset the host",
            ),
            Decline::NoCommands => self.str(
                "the function's owner offers no legacy commands for it: served as it is, without a \
                 legacy interface; give it to a guest with a modern driver",
            ),
            Decline::BarTaken(bar) => self
                .str("the function has a BAR")
                .dec(bar.get().into())
                .str(
                    " of its own: served as it is, without a legacy interface; give it to a guest \
                     with a driver for it",
                ),
        }
    }

    /// Why the probe fails.
    pub(crate) fn refusal(self, refusal: &Refusal) -> Self {
        match refusal {
            Refusal::BelowReserve { size, reserve } => self
                .str("memory size ")
                .hex(*size)
                .str(" is smaller than the ")
                .hex(*reserve)
                .str(" bytes to reserve from it")
                .str(ANOTHER_SIZE),
            Refusal::NothingUsable { size, least } => self
                .str("memory size ")
                .hex(*size)
                .str(" leaves nothing usable: at least ")
                .hex(*least)
                .str(" bytes are needed")
                .str(ANOTHER_SIZE),
            Refusal::BaseNotPageAligned { base, page } => self
                .str("memory base ")
                .hex(*base)
                .str(" is not a multiple of the page size ")
                .hex(*page)
                .str(ANOTHER_BASE),
            Refusal::BeyondAddresses { base, size } => self
                .str("memory of ")
                .hex(*size)
                .str(" bytes at ")
                .hex(*base)
                .str(" ends beyond 64 bits")
                .str(ANOTHER_BASE),
            Refusal::OutOfReach { base, length, last } => self
                .str("memory of ")
                .hex(*length)
                .str(" bytes at ")
                .hex(*base)
                .str(" ends beyond ")
                .hex(*last)
                .str(", the last address that the CPU can reach")
                .str(ANOTHER_BASE),
            Refusal::BarTooLarge { length } => self
                .str("memory of ")
                .hex(*length)
                .str(" bytes needs a BAR above 1 TiB, which VFIO can't address")
                .str(ANOTHER_SIZE),
            Refusal::SystemRam { base, length } => self
                .str("memory of ")
                .hex(*length)
                .str(" bytes at ")
                .hex(*base)
                .str(
                    " overlaps what the kernel uses as its own RAM; take it offline first, or \
                     have the host's firmware give another memory base",
                ),
            Refusal::Bar0TooSmall { size: 0, .. } => self.str(
                "it has no BAR0 with the registers that tell when it is ready; rescan the bus, or \
                 reset the host",
            ),
            Refusal::Bar0TooSmall { size, least } => self
                .str("BAR0 has ")
                .hex(*size)
                .str(" bytes and its readiness registers end at ")
                .hex(*least)
                .str("; check that the function is a GPU of this driver"),
        }
    }

    /// Why the first wait for readiness failed.
    pub(crate) fn not_ready(self, errno: Errno) -> Self {
        self.str("it is not ready (")
            .str(errno.name())
            .str("): check its memory and its link to the CPU, reset it, then bind it again")
    }

    fn byte(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// Text as it is.
    pub(crate) fn str(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            self.byte(byte);
        }
        self
    }

    /// Decimal digits, as many as are needed.
    pub(crate) fn dec(mut self, value: u64) -> Self {
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
    pub(crate) fn hex(mut self, value: u64) -> Self {
        self = self.str("0x");
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
    use super::*;

    fn string(text: Text) -> String {
        let mut bytes = [0xee; TEXT_LEN];
        text.copy_to(&mut bytes);
        let end = bytes.iter().position(|byte| *byte == 0).expect("a NUL");
        String::from_utf8(bytes[..end].to_vec()).expect("text")
    }

    #[test]
    fn reasons_read_as_their_display_does() {
        for reason in [
            Decline::LinkDown,
            Decline::NoCommands,
            Decline::BarTaken(varia_variant::BarIndex::BAR0),
            Decline::Property {
                name: "nvidia,gpu-mem-base-pa",
                errno: Errno::EOVERFLOW,
            },
        ] {
            assert_eq!(string(Text::new().decline(&reason)), reason.to_string());
        }
        let (base, size, page) = (0x42_0000_0000, 0, 0x1_0000);
        for refusal in [
            Refusal::BelowReserve {
                size,
                reserve: 1 << 30,
            },
            Refusal::NothingUsable { size, least: page },
            Refusal::BaseNotPageAligned { base, page },
            Refusal::BeyondAddresses {
                base: u64::MAX,
                size: 0xfedc_ba98_7654_3210,
            },
            Refusal::OutOfReach {
                base,
                length: 4096,
                last: 0xffff_ffff,
            },
            Refusal::BarTooLarge { length: 15 },
            Refusal::SystemRam { base, length: 4096 },
            Refusal::Bar0TooSmall { size, least: 1 },
            Refusal::Bar0TooSmall {
                size: 16,
                least: 32,
            },
        ] {
            assert_eq!(string(Text::new().refusal(&refusal)), refusal.to_string());
        }
    }

    #[test]
    fn numbers_have_the_digits_they_need() {
        for value in [0, 9, 10, 1234567890, 10_u64.pow(19), u64::MAX] {
            assert_eq!(string(Text::new().dec(value)), value.to_string());
            assert_eq!(string(Text::new().hex(value)), format!("{value:#x}"));
        }
    }

    #[test]
    fn text_that_does_not_fit_is_cut_and_still_ends() {
        let long = "x".repeat(TEXT_LEN + 10);
        assert_eq!(string(Text::new().str(&long)).len(), TEXT_LEN - 1);
    }
}
