//! Functions on bus 0 of a platform, and registers of the function itself that firmware writes.

use serde::{Deserialize, Serialize};

use crate::platform::{BadPlatform, HexBytes, Number};

/// Function on bus 0 of PCI segment 0, such as a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootFunction {
    /// Device number, 0 to 31.
    pub device: Number,
    /// Function number, 0 to 7.
    pub function: Number,
    /// Bytes of configuration space, 256 or 4096.
    pub size: Number,
    /// First bytes of configuration space, in hexadecimal digits; those behind them are 0.
    pub bytes: HexBytes,
}

/// Dword of the function's configuration space that firmware has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigDword {
    /// Offset, a multiple of 4.
    pub offset: Number,
    /// Value of 32 bits.
    pub value: Number,
}

impl RootFunction {
    pub(crate) fn check(&self) -> Result<(), BadPlatform> {
        let range = |what, Number(value): Number, possible| BadPlatform::Range {
            what,
            value,
            possible,
        };
        if self.device.0 > 31 {
            return Err(range("device number of a function", self.device, "0 to 31"));
        }
        if self.function.0 > 7 {
            return Err(range("number of a function", self.function, "0 to 7"));
        }
        if !matches!(self.size.0, 256 | 4096) {
            let what = "size of a configuration space";
            return Err(range(what, self.size, "256 or 4096"));
        }
        let bytes = self.bytes.0.len() as u64;
        if bytes > self.size.0 {
            let what = "number of bytes of a configuration space";
            return Err(range(what, Number(bytes), "at most its size"));
        }
        Ok(())
    }
}

impl ConfigDword {
    pub(crate) fn check(&self) -> Result<(), BadPlatform> {
        let (Number(offset), Number(value)) = (self.offset, self.value);
        if offset % 4 != 0 || offset >= 4096 {
            return Err(BadPlatform::Range {
                what: "offset of a configuration dword",
                value: offset,
                possible: "a multiple of 4 below 4096",
            });
        }
        if value > u32::MAX.into() {
            return Err(BadPlatform::Range {
                what: "value of a configuration dword",
                value,
                possible: "32 bits",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::PlatformFacts;

    #[test]
    fn numbers_outside_their_ranges_are_refused_with_the_value() {
        let good = || {
            let bytes = HexBytes(vec![0; 4]);
            let function = RootFunction {
                device: Number(31),
                function: Number(7),
                size: Number(256),
                bytes,
            };
            let dword = ConfigDword {
                offset: Number(0xffc),
                value: Number(u32::MAX.into()),
            };
            PlatformFacts {
                root_functions: vec![function],
                config: vec![dword],
                ..PlatformFacts::new()
            }
        };
        assert_eq!(good().check(), Ok(()));
        type Spoil = fn(&mut PlatformFacts);
        let spoil: [(Spoil, &str); 8] = [
            (
                |f| f.root_functions[0].device.0 = 32,
                "0x20: it can be 0 to 31",
            ),
            (
                |f| f.root_functions[0].function.0 = 8,
                "0x8: it can be 0 to 7",
            ),
            (
                |f| f.root_functions[0].size.0 = 0,
                "0x0: it can be 256 or 4096",
            ),
            (
                |f| f.root_functions[0].bytes.0 = vec![0; 257],
                "0x101: it can be at most",
            ),
            (
                |f| f.config[0].offset.0 = 0x1000,
                "0x1000: it can be a multiple of 4",
            ),
            (
                |f| f.config[0].offset.0 = 2,
                "0x2: it can be a multiple of 4",
            ),
            (
                |f| f.config[0].value.0 = 1 << 32,
                "0x100000000: it can be 32 bits",
            ),
            (
                |f| f.root_functions.push(f.root_functions[0].clone()),
                "device 31, function 7: leave out one",
            ),
        ];
        for (spoil, part) in spoil {
            let mut facts = good();
            spoil(&mut facts);
            let text = facts.check().unwrap_err().to_string();
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}
