//! Where a function is: segment, bus, device and function number.
//!
//! Source: PCI Express Base Specification 6.0, 2.2.6.2 (transaction ID); the written form is that
//! of Linux's sysfs, `SSSS:BB:DD.F`. A segment of more than 16 bits is Linux's own numbering
//! (VMD), which no firmware table can carry.

use core::fmt;
use core::str::FromStr;

/// A function's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bdf {
    segment: u32,
    bus: u8,
    devfn: u8,
}

/// Text that is no function's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotABdf;

impl core::error::Error for NotABdf {}

impl fmt::Display for NotABdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a PCI function is written as 0009:01:00.0 or, in segment 0, 01:00.0")
    }
}

impl Bdf {
    /// `None` when `device` is above 31 or `function` above 7.
    pub const fn new(segment: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self {
                segment,
                bus,
                devfn: device << 3 | function,
            })
        } else {
            None
        }
    }

    /// The segment group, which Linux calls domain.
    pub const fn segment(self) -> u32 {
        self.segment
    }

    /// The bus number.
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.devfn >> 3
    }

    /// The function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.devfn & 7
    }

    /// Device and function number in one byte, as routing and tables have it.
    pub const fn devfn(self) -> u8 {
        self.devfn
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment,
            self.bus,
            self.device(),
            self.function()
        )
    }
}

impl FromStr for Bdf {
    type Err = NotABdf;

    fn from_str(text: &str) -> Result<Self, NotABdf> {
        let (text, function) = text.rsplit_once('.').ok_or(NotABdf)?;
        let (text, device) = text.rsplit_once(':').ok_or(NotABdf)?;
        let (segment, bus) = text.rsplit_once(':').unwrap_or(("0", text));
        Self::new(
            number(segment, 8)?,
            byte(bus, 2)?,
            byte(device, 2)?,
            byte(function, 1)?,
        )
        .ok_or(NotABdf)
    }
}

/// A hexadecimal number of 1 to `digits` digits, without a sign.
fn number(text: &str, digits: usize) -> Result<u32, NotABdf> {
    if text.is_empty() || text.len() > digits || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(NotABdf);
    }
    u32::from_str_radix(text, 16).map_err(|_| NotABdf)
}

fn byte(text: &str, digits: usize) -> Result<u8, NotABdf> {
    number(text, digits).and_then(|value| u8::try_from(value).map_err(|_| NotABdf))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn what_sysfs_writes_is_read_and_written_back() {
        for text in [
            "0000:00:00.0",
            "0009:01:00.0",
            "ffff:ff:1f.7",
            "10000:e1:00.0",
        ] {
            let bdf: Bdf = text.parse().expect(text);
            assert_eq!(bdf.to_string(), text);
        }
    }

    #[test]
    fn segment_0_may_be_left_out() {
        assert_eq!("1:2.3".parse(), Bdf::new(0, 1, 2, 3).ok_or(NotABdf));
        assert_eq!("01:1f.7".parse::<Bdf>().map(Bdf::devfn), Ok(0xff));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "01:00",
            "0000:01:20.0",
            "0000:01:00.8",
            "0000:100:00.0",
            "+1:00.0",
            "0:0:0:0.0",
            "01:00.0 ",
            "01:000.0",
            "::.",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(NotABdf), "{text:?}");
        }
    }
}
