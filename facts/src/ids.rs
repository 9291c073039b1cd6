//! Names and numbers that Linux gives to functions, nodes, groups and CPUs, each a type of its own.
//!
//! In JSON a PCI address and a list of CPUs are the text that Linux writes.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Linux's number of a NUMA node of the host.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// Linux's number of an IOMMU group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GroupId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of a PCI function: domain (ACPI segment), bus, device, function, as Linux
/// writes it: `0000:01:00.0`. A domain may have more than 16 bits where a host bridge has no
/// ACPI segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Domain.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    device: u8,
    /// Function, 0 to 7.
    function: u8,
}

/// A text that is not the address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a PCI address: give domain, bus, device and function, as in 0000:01:00.0")]
pub struct BdfError(pub String);

impl Bdf {
    /// An address; `None` if the device is above 31 or the function above 7.
    #[must_use]
    pub fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        (device < 32 && function < 8).then_some(Self {
            domain,
            bus,
            device,
            function,
        })
    }

    /// Device number, 0 to 31.
    #[must_use]
    pub fn device(self) -> u8 {
        self.device
    }

    /// Function number, 0 to 7.
    #[must_use]
    pub fn function(self) -> u8 {
        self.function
    }
}

impl FromStr for Bdf {
    type Err = BdfError;

    /// `DDDD:BB:DD.F`, or without the domain for domain 0.
    fn from_str(text: &str) -> Result<Self, BdfError> {
        parse_bdf(text).ok_or_else(|| BdfError(text.to_owned()))
    }
}

fn parse_bdf(text: &str) -> Option<Bdf> {
    let (front, function) = text.split_once('.')?;
    let mut parts = front.rsplit(':');
    let device = hex(parts.next()?, 2)?;
    let bus = hex(parts.next()?, 2)?;
    let domain = parts.next().map_or(Some(0), |domain| hex(domain, 8))?;
    if parts.next().is_some() {
        return None;
    }
    Bdf::new(
        domain,
        u8::try_from(bus).ok()?,
        u8::try_from(device).ok()?,
        u8::try_from(hex(function, 1)?).ok()?,
    )
}

/// Number of one to `most` hexadecimal digits, and nothing else.
fn hex(text: &str, most: usize) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || text.len() > most {
        return None;
    }
    u32::from_str_radix(text, 16).ok()
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

impl Serialize for Bdf {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bdf {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// CPUs by number, as ranges in rising order: `0-71,144-147`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuList {
    ranges: Vec<(u32, u32)>,
}

/// A text that is not a list of CPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of CPUs: give rising numbers and ranges, as in 0-3,8")]
pub struct CpuListError(pub String);

impl CpuList {
    /// True for a list without CPUs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of CPUs.
    #[must_use]
    pub fn count(&self) -> u64 {
        let count = |(first, last): &(u32, u32)| u64::from(*last) - u64::from(*first) + 1;
        self.ranges.iter().map(count).sum()
    }

    /// True if the list has the CPU.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        let has = |(first, last): &(u32, u32)| (*first..=*last).contains(&cpu);
        self.ranges.iter().any(has)
    }

    /// The CPUs in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(first, last)| first..=last)
    }
}

impl FromIterator<u32> for CpuList {
    /// CPUs in any order, each once.
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let sorted: BTreeSet<u32> = cpus.into_iter().collect();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for cpu in sorted {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(cpu) => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        Self { ranges }
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let wrong = || CpuListError(text.to_owned());
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = first.parse().map_err(|_| wrong())?;
            let last = last.parse().map_err(|_| wrong())?;
            if first > last || ranges.last().is_some_and(|before| before.1 >= first) {
                return Err(wrong());
            }
            ranges.push((first, last));
        }
        Ok(Self { ranges })
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_linux_writes_them() {
        for text in ["0000:01:00.0", "0009:ff:1f.7", "10000:e1:00.0"] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        }
        let short: Bdf = "1:0.3".parse().unwrap();
        assert_eq!(short.to_string(), "0000:01:00.3");
    }

    #[test]
    fn what_is_no_address_is_refused_by_its_text() {
        for text in [
            "",
            "gpu",
            "0000:01:20.0",
            "0000:01:00.8",
            "0000:100:00.0",
            "0:0:0:0.0",
            "+0:1:0.0",
            "0000:01:00",
            "0000:01:00.0 ",
            "123456789:01:00.0",
            "::.",
        ] {
            assert_eq!(text.parse::<Bdf>(), Err(BdfError(text.to_owned())));
        }
    }

    #[test]
    fn a_list_of_cpus_comes_back_as_it_was() {
        for (text, count) in [
            ("", 0),
            ("0", 1),
            ("0-71", 72),
            ("0-3,8,10-4294967295", 4294967291),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!((list.to_string().as_str(), list.count()), (text, count));
        }
        let list: CpuList = "1-2,4\n".parse().unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [1, 2, 4]);
        let inside = (0..6).filter(|cpu| list.contains(*cpu));
        assert_eq!(inside.collect::<Vec<_>>(), [1, 2, 4]);
        for (cpus, text) in [(&[5, 3, 4, 9, 3][..], "3-5,9"), (&[u32::MAX], "4294967295")] {
            let list: CpuList = cpus.iter().copied().collect();
            assert_eq!(list.to_string(), text);
        }
    }

    #[test]
    fn a_list_that_falls_or_overlaps_is_refused() {
        for text in ["3-1", "0-4,4", "5,2", "a", "1-", "4294967296"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }
}
