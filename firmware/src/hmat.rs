//! HMAT: latency and bandwidth of memory for processors and devices (5.2.27).

use std::collections::BTreeMap;

use acpi_tables::hmat::MemoryProximityDomain;
use acpi_tables::{Aml, AmlSink};

use crate::error::Error;
use crate::numa::{Domain, Numa, ProximityDomain};
use crate::table::{Body, Oem};

/// Revision with latencies in picoseconds.
const REVISION: u8 = 2;
/// Entry of an unreachable target, or of an unknown value.
const UNKNOWN: u16 = 0xffff;

/// Performance of one domain's accesses to the memory of another domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Domain with processors or a PCI function.
    pub initiator: ProximityDomain,
    /// Domain with memory.
    pub target: ProximityDomain,
    /// Read and write latency, in nanoseconds.
    pub nanoseconds: u32,
    /// Read and write bandwidth, in MB/s.
    pub megabytes_per_second: u32,
}

/// Heterogeneous Memory Attribute Table of a machine. Pairs of domains without an entry in
/// `accesses` are unknown.
///
/// # Errors
/// [`Error::UnknownDomain`], [`Error::Access`] and [`Error::AccessTwice`] if an access can't be
/// described; [`Error::Unit`] if the values have no common unit.
pub fn hmat(numa: &Numa, accesses: &[Access], oem: Oem) -> Result<Vec<u8>, Error> {
    let initiators = numbers(numa, |domain| {
        !domain.processors.is_empty() || !domain.initiators.is_empty()
    });
    let targets = numbers(numa, |domain| !domain.memory.is_empty());
    let mut known = BTreeMap::new();
    for access in accesses {
        let (initiator, target) = (access.initiator, access.target);
        if !initiators.contains(&initiator.0) || !targets.contains(&target.0) {
            return Err(Error::Access { initiator, target });
        }
        if known.insert((initiator.0, target.0), access).is_some() {
            return Err(Error::AccessTwice { initiator, target });
        }
    }

    let mut body = Body::default();
    body.dword(0);
    for (domain, content) in numa.domains() {
        if !content.memory.is_empty() && !content.processors.is_empty() {
            body.structure(&MemoryProximityDomain::new(domain.0, domain.0));
        }
    }
    for quantity in [Quantity::Latency, Quantity::Bandwidth] {
        let values = |access: &Access| quantity.of(access);
        let unit = unit(quantity, accesses.iter().map(values))?;
        let entry = |initiator: &u32, target: &u32| {
            known
                .get(&(*initiator, *target))
                .and_then(|access| u16::try_from(values(access) / unit).ok())
                .unwrap_or(UNKNOWN)
        };
        let entries = initiators
            .iter()
            .flat_map(|initiator| targets.iter().map(move |target| (initiator, target)))
            .map(|(initiator, target)| entry(initiator, target))
            .collect();
        body.structure(&Locality {
            quantity,
            unit,
            initiators: &initiators,
            targets: &targets,
            entries,
        });
    }
    Ok(body.finish(*b"HMAT", REVISION, oem))
}

fn numbers(numa: &Numa, wanted: impl Fn(&Domain) -> bool) -> Vec<u32> {
    numa.domains()
        .filter(|(_, domain)| wanted(domain))
        .map(|(number, _)| number.0)
        .collect()
}

/// Quantity of a matrix; the discriminants are the table's data types.
#[derive(Clone, Copy)]
enum Quantity {
    Latency = 0,
    Bandwidth = 3,
}

impl Quantity {
    /// Value in the table's base units: picoseconds, MB/s.
    fn of(self, access: &Access) -> u64 {
        match self {
            Self::Latency => u64::from(access.nanoseconds) * 1000,
            Self::Bandwidth => access.megabytes_per_second.into(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latencies (in ps)",
            Self::Bandwidth => "bandwidths (in MB/s)",
        }
    }
}

/// Greatest common unit of all values, if the multiples fit into entries.
fn unit(quantity: Quantity, values: impl Iterator<Item = u64> + Clone) -> Result<u64, Error> {
    let unit = values.clone().fold(0, divisor).max(1);
    let largest = values.clone().max().unwrap_or(0);
    if largest / unit >= u64::from(UNKNOWN) {
        return Err(Error::Unit {
            quantity: quantity.name(),
            smallest: values.min().unwrap_or(0),
            largest,
        });
    }
    Ok(unit)
}

/// Greatest common divisor; the divisor of 0 and a number is the number.
const fn divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// System Locality Latency and Bandwidth Information structure (5.2.27.4). Written here because
/// acpi_tables 0.2.1 addresses the rows of a matrix that is not square by the wrong length.
struct Locality<'a> {
    quantity: Quantity,
    unit: u64,
    initiators: &'a [u32],
    targets: &'a [u32],
    entries: Vec<u16>,
}

impl Aml for Locality<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let numbers = self.initiators.len() + self.targets.len();
        let length = 32 + 4 * numbers + 2 * self.entries.len();
        sink.word(1); // type
        sink.word(0);
        sink.dword(length as u32);
        sink.byte(0); // of memory, not of a cache
        sink.byte(self.quantity as u8);
        sink.byte(0); // transfers of any size
        sink.byte(0);
        sink.dword(self.initiators.len() as u32);
        sink.dword(self.targets.len() as u32);
        sink.dword(0);
        sink.qword(self.unit);
        for number in self.initiators.iter().chain(self.targets) {
            sink.dword(*number);
        }
        for entry in &self.entries {
            sink.word(*entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numa::{Distances, MemoryRange, Processor};

    const CPU: ProximityDomain = ProximityDomain(0);
    const GPU: ProximityDomain = ProximityDomain(1);
    const FAR: ProximityDomain = ProximityDomain(2);

    fn numa() -> Numa {
        let memory = |base| MemoryRange::new(base, 1 << 30).expect("memory");
        let domains = vec![
            Domain {
                processors: vec![Processor::Gicc(0)],
                memory: vec![memory(0)],
                ..Domain::default()
            },
            Domain {
                initiators: vec!["01:00.0".parse().expect("an address")],
                ..Domain::default()
            },
            Domain {
                memory: vec![memory(1 << 40)],
                ..Domain::default()
            },
        ];
        Numa::new(domains, Distances::new(3)).expect("a machine")
    }

    fn access(initiator: ProximityDomain, target: ProximityDomain, value: u32) -> Access {
        Access {
            initiator,
            target,
            nanoseconds: value,
            megabytes_per_second: value,
        }
    }

    /// Entries of the latency and bandwidth matrices, with their units.
    fn matrices(table: &[u8]) -> Vec<(u64, Vec<u16>)> {
        let mut rest = &table[40..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[4..8].try_into().expect("4")) as usize;
            if rest[0] == 1 {
                let unit = u64::from_le_bytes(rest[24..32].try_into().expect("8"));
                let entries = rest[32 + 4 * 4..length]
                    .chunks(2)
                    .map(|pair| u16::from_le_bytes(pair.try_into().expect("2")))
                    .collect();
                found.push((unit, entries));
            }
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn entries_are_by_initiator_and_then_by_target() {
        let accesses = [
            access(CPU, CPU, 100),
            access(CPU, FAR, 300),
            access(GPU, FAR, 200),
        ];
        let table = hmat(&numa(), &accesses, Oem::VARIA).expect("a table");
        assert_eq!(
            matrices(&table),
            [
                (100_000, vec![1, 3, UNKNOWN, 2]),
                (100, vec![1, 3, UNKNOWN, 2]),
            ]
        );
        assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
    }

    #[test]
    fn only_memory_with_processors_is_named_as_theirs() {
        let table = hmat(&numa(), &[], Oem::VARIA).expect("a table");
        let mut rest = &table[40..];
        let mut named = Vec::new();
        while let Some((length, _)) = rest.get(4..).and_then(|rest| rest.split_first_chunk()) {
            let (structure, behind) = rest.split_at(u32::from_le_bytes(*length) as usize);
            if structure[0] == 0 {
                // flags, reserved, initiator, memory
                named.push((structure[8], structure[12], structure[16]));
            }
            rest = behind;
        }
        assert_eq!(named, [(1, 0, 0)]);
    }

    #[test]
    fn a_matrix_that_is_no_square_has_room_for_its_numbers_and_entries() {
        let mut domains: Vec<_> = numa().domains().map(|(_, one)| one.clone()).collect();
        domains.pop();
        let numa = Numa::new(domains, Distances::new(2)).expect("a machine");
        let table = hmat(&numa, &[access(GPU, CPU, 1)], Oem::VARIA).expect("a table");
        // two initiators, one target
        let matrix = 32 + 4 * 3 + 2 * 2;
        assert_eq!(table.len(), 40 + 40 + 2 * matrix);
        let length = u32::try_from(matrix).expect("small").to_le_bytes();
        assert_eq!(table[80 + 4..80 + 8], length);
    }

    #[test]
    fn accesses_that_the_table_cannot_represent_are_refused() {
        let of = |accesses: &[Access]| hmat(&numa(), accesses, Oem::VARIA).expect_err("refused");
        assert!(matches!(of(&[access(FAR, CPU, 1)]), Error::Access { .. }));
        assert!(matches!(of(&[access(CPU, GPU, 1)]), Error::Access { .. }));
        let twice = [access(CPU, CPU, 1), access(CPU, CPU, 2)];
        assert!(matches!(of(&twice), Error::AccessTwice { .. }));
        let uneven = [access(CPU, CPU, 65535), access(CPU, FAR, 1)];
        assert!(matches!(of(&uneven), Error::Unit { .. }));
        let text = of(&uneven).to_string();
        assert!(text.contains("latencies (in ps)"), "{text}");
        let mut wide = access(CPU, CPU, 1);
        wide.megabytes_per_second = 65535;
        let text = of(&[wide, access(CPU, FAR, 1)]).to_string();
        assert!(text.contains("bandwidths (in MB/s)"), "{text}");
    }
}
