//! Facts of the platform about one PCI function, beside those of the function itself: nodes of the
//! device tree, the memory that they name, and zPCI facts of s390.
//!
//! The JSON has a version of its own, [`PLATFORM_SCHEMA`]. An unknown field is an error: a fact that
//! is not understood would be missing without a sign. A number may be a string in hexadecimal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::root::{ConfigDword, RootFunction};

/// The version of the JSON's schema.
pub const PLATFORM_SCHEMA: &str = "varia-platform/1";

/// Facts of the platform about one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformFacts {
    /// [`PLATFORM_SCHEMA`].
    pub schema: String,
    /// The device tree, on a platform that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tree: Option<DeviceTree>,
    /// Memory of the platform that the function's nodes name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<PlatformMemory>,
    /// zPCI facts, on s390.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zpci: Option<ZpciFacts>,
    /// Functions on bus 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub root_functions: Vec<RootFunction>,
    /// Registers of the function that firmware has written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<ConfigDword>,
}

/// Nodes of a device tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTree {
    /// Name of the function's node.
    pub function: String,
    /// Name of the node of the host bridge above the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_bridge: Option<String>,
    /// The nodes by their names.
    pub nodes: BTreeMap<String, TreeNode>,
}

/// A node: its properties, each as cells of 32 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreeNode {
    /// Cells of each property. The number of the node is in its property `phandle`.
    pub properties: BTreeMap<String, Vec<Number>>,
}

/// A range of the platform's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformMemory {
    /// First address.
    pub base: Number,
    /// Bytes.
    pub size: Number,
    /// First bytes, in hexadecimal digits; those behind them are 0.
    #[serde(default, skip_serializing_if = "HexBytes::is_empty")]
    pub bytes: HexBytes,
}

/// Facts that firmware of s390 gives of a function and its group; the names are those of VFIO's
/// capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZpciFacts {
    /// First DMA address.
    pub start_dma: Number,
    /// Last DMA address.
    pub end_dma: Number,
    /// Physical channel.
    pub pchid: Number,
    /// Number of the virtual function.
    pub vfn: Number,
    /// Length of the function measurement block in bytes.
    pub fmb_length: Number,
    /// Type of the function.
    pub pft: Number,
    /// Group of the function.
    pub gid: Number,
    /// Handle of the function.
    pub fh: Number,
    /// Mask of the DMA address space.
    pub dasm: Number,
    /// Address of messages.
    pub msi_addr: Number,
    /// Interval between updates of the measurement block.
    pub mui: Number,
    /// Number of interrupts.
    pub noi: Number,
    /// Longest store block that the host's kernel makes, in bytes.
    pub maxstbl: Number,
    /// Longest store block that firmware allows, in bytes.
    pub imaxstbl: Number,
    /// Version of PCI.
    pub version: Number,
    /// Path of the function, a byte for each of the four segments.
    pub pfip: [u8; 4],
    /// Utility string in EBCDIC, 64 bytes in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub util_string: Option<HexBytes>,
    /// Bytes of an error record, on a platform that keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ccdf_err_length: Option<Number>,
    /// Pending error records, the oldest first, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<HexBytes>,
}

/// A number that JSON has as a number, or as a string in hexadecimal after `0x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Number(pub u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl de::Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 0 to 2^64 - 1, or such a number in hexadecimal, as in \"0x10\"")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        let digits = text.strip_prefix("0x").filter(|d| !d.starts_with('+'));
        let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        value
            .map(Number)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

/// Bytes that JSON has as a string of hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);

impl HexBytes {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for HexBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |digit: u8| (digit as char).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or_else(|| {
            de::Error::custom(format_args!(
                "{text:?} is no row of bytes: give each byte two hexadecimal digits"
            ))
        })
    }
}

/// Something in the facts that no platform has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadPlatform {
    /// A file of another version.
    #[error("the schema is {found:?}: this version reads {PLATFORM_SCHEMA:?}")]
    Schema {
        /// Schema in the file.
        found: String,
    },
    /// A cell of more than 32 bits.
    #[error(
        "{value:#x} in property {property} of node {node} has more than 32 bits: write it as two \
         cells, the upper half first"
    )]
    Cell {
        /// Name of the node.
        node: String,
        /// Name of the property.
        property: String,
        /// The number.
        value: u64,
    },
    /// A name that no node has.
    #[error("{what} is {name:?}, and no node has this name: add the node, or correct the name")]
    NoNode {
        /// Field with the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two nodes with one number.
    #[error("nodes {first} and {second} both have the phandle {phandle}: give each its own")]
    TwoNodes {
        /// The number.
        phandle: u64,
        /// Name of a node.
        first: String,
        /// Name of the other node.
        second: String,
    },
    /// A number outside its range.
    #[error("the {what} is {value:#x}: it can be {possible}")]
    Range {
        /// Name of the number.
        what: &'static str,
        /// The number.
        value: u64,
        /// Values that are possible.
        possible: &'static str,
    },
    /// Two functions at one place.
    #[error("two root_functions are device {device}, function {function}: leave out one")]
    TwoFunctions {
        /// Device number.
        device: u64,
        /// Function number.
        function: u64,
    },
    /// Two ranges of memory with a byte in common.
    #[error(
        "memory at {first:#x} reaches into memory at {second:#x}: give one of the two another base or size"
    )]
    Overlap {
        /// First address of the lower range.
        first: u64,
        /// First address of the higher range.
        second: u64,
    },
    /// A utility string of another length.
    #[error("util_string has {len} bytes: give it 64, filled up with 40, the space of EBCDIC")]
    UtilString {
        /// Bytes in the file.
        len: usize,
    },
    /// An error record of another length than the platform's.
    #[error("an error record has {len} bytes, and ccdf_err_length is {expected}: give it as many")]
    Record {
        /// Bytes of the record.
        len: usize,
        /// Bytes of a record of the platform; 0 if it keeps none.
        expected: u64,
    },
}

impl PlatformFacts {
    /// Facts of a platform about which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self {
            schema: PLATFORM_SCHEMA.to_owned(),
            device_tree: None,
            memory: Vec::new(),
            zpci: None,
            root_functions: Vec::new(),
            config: Vec::new(),
        }
    }

    /// Checks what the types can't say.
    ///
    /// # Errors
    /// [`BadPlatform`] for the first thing that no platform has.
    pub fn check(&self) -> Result<(), BadPlatform> {
        if self.schema != PLATFORM_SCHEMA {
            return Err(BadPlatform::Schema {
                found: self.schema.clone(),
            });
        }
        self.device_tree
            .as_ref()
            .map_or(Ok(()), DeviceTree::check)?;
        check_memory(&self.memory)?;
        self.zpci.as_ref().map_or(Ok(()), ZpciFacts::check)?;
        for range in &self.memory {
            let bytes = range.bytes.0.len() as u64;
            if bytes > range.size.0 {
                return Err(BadPlatform::Range {
                    what: "number of bytes of a range of memory",
                    value: bytes,
                    possible: "at most its size",
                });
            }
        }
        self.root_functions
            .iter()
            .try_for_each(RootFunction::check)?;
        let mut places = BTreeSet::new();
        for RootFunction {
            device, function, ..
        } in &self.root_functions
        {
            if !places.insert((device, function)) {
                let (device, function) = (device.0, function.0);
                return Err(BadPlatform::TwoFunctions { device, function });
            }
        }
        self.config.iter().try_for_each(ConfigDword::check)
    }
}

/// No byte of memory is in two ranges.
fn check_memory(memory: &[PlatformMemory]) -> Result<(), BadPlatform> {
    let mut ranges: Vec<_> = memory.iter().filter(|range| range.size.0 != 0).collect();
    ranges.sort_by_key(|range| range.base);
    let mut pairs = ranges.iter().zip(ranges.iter().skip(1));
    match pairs.find(|(low, high)| high.base.0 - low.base.0 < low.size.0) {
        Some((low, high)) => Err(BadPlatform::Overlap {
            first: low.base.0,
            second: high.base.0,
        }),
        None => Ok(()),
    }
}

impl Default for PlatformFacts {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeNode {
    /// Number of the node.
    pub fn phandle(&self) -> Option<u64> {
        let cells = self.properties.get("phandle")?;
        cells.first().map(|cell| cell.0)
    }
}

impl DeviceTree {
    /// Cells of a property as bytes; `None` without the property.
    pub fn property(node: &TreeNode, name: &str) -> Option<Vec<u8>> {
        let cells = node.properties.get(name)?.iter();
        Some(
            cells
                .flat_map(|cell| (cell.0 as u32).to_be_bytes())
                .collect(),
        )
    }

    /// The node with this number.
    pub fn by_phandle(&self, phandle: u32) -> Option<&TreeNode> {
        let mut nodes = self.nodes.values();
        nodes.find(|node| node.phandle() == Some(phandle.into()))
    }

    fn check(&self) -> Result<(), BadPlatform> {
        let names = [
            ("function", Some(&self.function)),
            ("host_bridge", self.host_bridge.as_ref()),
        ];
        for (what, name) in names {
            if let Some(name) = name.filter(|name| !self.nodes.contains_key(*name)) {
                let name = name.clone();
                return Err(BadPlatform::NoNode { what, name });
            }
        }
        let mut numbered = BTreeMap::new();
        for (name, node) in &self.nodes {
            for (property, cells) in &node.properties {
                if let Some(Number(value)) = cells.iter().find(|cell| cell.0 > u32::MAX.into()) {
                    return Err(BadPlatform::Cell {
                        node: name.clone(),
                        property: property.clone(),
                        value: *value,
                    });
                }
            }
            if let Some(phandle) = node.phandle() {
                if let Some(first) = numbered.insert(phandle, name) {
                    return Err(BadPlatform::TwoNodes {
                        phandle,
                        first: first.clone(),
                        second: name.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl ZpciFacts {
    fn check(&self) -> Result<(), BadPlatform> {
        if let Some(string) = self.util_string.as_ref().filter(|s| s.0.len() != 64) {
            let len = string.0.len();
            return Err(BadPlatform::UtilString { len });
        }
        let expected = self.ccdf_err_length.map_or(0, |len| len.0);
        let mut lens = self.errors.iter().map(|record| record.0.len());
        match lens.find(|len| *len as u64 != expected) {
            Some(len) => Err(BadPlatform::Record { len, expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_memory(ranges: &[(u64, u64)]) -> Result<(), BadPlatform> {
        let memory = ranges.iter().map(|(base, size)| PlatformMemory {
            base: Number(*base),
            size: Number(*size),
            bytes: HexBytes::default(),
        });
        let facts = PlatformFacts {
            memory: memory.collect(),
            ..PlatformFacts::new()
        };
        facts.check()
    }

    #[test]
    fn ranges_of_memory_may_touch_and_must_not_overlap() {
        assert_eq!(with_memory(&[(0x3000, 0x1000), (0x1000, 0x2000)]), Ok(()));
        assert_eq!(with_memory(&[(u64::MAX, 1), (0, u64::MAX)]), Ok(()));
        for (ranges, first, second) in [
            (&[(0x2fff, 0x1000), (0x1000, 0x2000)][..], 0x1000, 0x2fff),
            (&[(5, 1), (5, 1)], 5, 5),
            (&[(0, 10), (20, 10), (3, 1)], 0, 3),
            (&[(u64::MAX, 1), (1, u64::MAX)], 1, u64::MAX),
        ] {
            let refused = Err(BadPlatform::Overlap { first, second });
            assert_eq!(with_memory(ranges), refused, "{ranges:?}");
        }
    }
}
