//! Proximity domains of a machine: contents and distances.

use std::collections::HashSet;
use std::fmt;

use varia_facts::Bdf;

use crate::error::Error;

/// Number of a domain, the same in SRAT, SLIT, HMAT and in an operating system's `_PXM`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProximityDomain(pub u32);

impl fmt::Display for ProximityDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A processor, as named in the MADT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Processor {
    /// ACPI Processor UID of the processor's GICC (arm64).
    Gicc(u32),
    /// APIC id of the processor (x86).
    Apic(u32),
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gicc(uid) => write!(f, "the processor with UID {uid}"),
            Self::Apic(id) => write!(f, "the processor with APIC id {id}"),
        }
    }
}

/// Memory present at boot, or an address range reserved for memory that is added later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRange {
    base: u64,
    length: u64,
    hotplug: bool,
}

impl MemoryRange {
    /// Memory of `length` bytes from the guest-physical address `base`.
    ///
    /// # Errors
    /// [`Error::MemoryRange`] if the range is empty or ends beyond 64 bits.
    pub fn new(base: u64, length: u64) -> Result<Self, Error> {
        if length == 0 || base.checked_add(length).is_none() {
            return Err(Error::MemoryRange { base, length });
        }
        Ok(Self {
            base,
            length,
            hotplug: false,
        })
    }

    /// The same range, marked as hot-pluggable.
    #[must_use]
    pub const fn hotplug(mut self) -> Self {
        self.hotplug = true;
        self
    }

    pub(crate) const fn base(self) -> u64 {
        self.base
    }

    pub(crate) const fn length(self) -> u64 {
        self.length
    }

    pub(crate) const fn is_hotplug(self) -> bool {
        self.hotplug
    }
}

/// Contents of a proximity domain. An empty domain can get memory later.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Domain {
    /// Processors of the domain.
    pub processors: Vec<Processor>,
    /// Memory of the domain.
    pub memory: Vec<MemoryRange>,
    /// Generic Initiators: PCI functions that belong to the domain.
    pub initiators: Vec<Bdf>,
}

/// Distances between domains; the distance of a domain to itself is 10.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Distances {
    rows: Vec<Vec<u8>>,
}

impl Distances {
    /// Distance of a domain to itself.
    pub const LOCAL: u8 = 10;
    /// Distance that Linux and QEMU assume without a SLIT.
    pub const REMOTE: u8 = 20;

    /// Distances of `domains` domains, each [`REMOTE`](Self::REMOTE) from every other domain.
    #[must_use]
    pub fn new(domains: usize) -> Self {
        let row = |from: usize| {
            (0..domains)
                .map(|to| {
                    if to == from {
                        Self::LOCAL
                    } else {
                        Self::REMOTE
                    }
                })
                .collect()
        };
        Self {
            rows: (0..domains).map(row).collect(),
        }
    }

    /// Sets the distance from one domain to another. The distance in the other direction is an
    /// entry of its own.
    ///
    /// # Errors
    /// [`Error::UnknownDomain`] if a domain does not exist; [`Error::Distance`] unless the distance
    /// is 10 for a domain and itself, or 11 to 255 for two domains.
    pub fn set(
        &mut self,
        from: ProximityDomain,
        to: ProximityDomain,
        distance: u8,
    ) -> Result<(), Error> {
        if (from == to) != (distance == Self::LOCAL) || distance < Self::LOCAL {
            return Err(Error::Distance { from, to, distance });
        }
        let last = last(self.rows.len());
        let unknown = |domain| Error::UnknownDomain { domain, last };
        let row = usize::try_from(from.0)
            .ok()
            .and_then(|from| self.rows.get_mut(from))
            .ok_or_else(|| unknown(from))?;
        *usize::try_from(to.0)
            .ok()
            .and_then(|to| row.get_mut(to))
            .ok_or_else(|| unknown(to))? = distance;
        Ok(())
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(Vec::as_slice)
    }
}

/// Highest domain of `count` domains.
fn last(count: usize) -> ProximityDomain {
    ProximityDomain(u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// The checked domains of a machine, as input for tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numa {
    domains: Vec<Domain>,
    distances: Distances,
}

impl Numa {
    /// Checks the domains and their distances. The n-th of `domains` is proximity domain n.
    ///
    /// # Errors
    /// [`Error::NoDomain`], [`Error::DistanceCount`], [`Error::ProcessorTwice`],
    /// [`Error::InitiatorTwice`], [`Error::Segment`], [`Error::MemoryOverlap`].
    pub fn new(domains: Vec<Domain>, distances: Distances) -> Result<Self, Error> {
        if domains.is_empty() {
            return Err(Error::NoDomain);
        }
        if distances.rows.len() != domains.len() {
            return Err(Error::DistanceCount {
                distances: distances.rows.len(),
                domains: domains.len(),
            });
        }
        let numa = Self { domains, distances };
        numa.check_processors()?;
        numa.check_initiators()?;
        numa.check_memory()?;
        Ok(numa)
    }

    fn check_processors(&self) -> Result<(), Error> {
        let mut seen = HashSet::new();
        for processor in self.domains.iter().flat_map(|domain| &domain.processors) {
            if !seen.insert(processor) {
                return Err(Error::ProcessorTwice {
                    processor: *processor,
                });
            }
        }
        Ok(())
    }

    fn check_initiators(&self) -> Result<(), Error> {
        for (domain, content) in self.domains() {
            let mut seen = HashSet::new();
            for function in &content.initiators {
                if u16::try_from(function.domain).is_err() {
                    return Err(Error::Segment {
                        function: *function,
                    });
                }
                if !seen.insert(function) {
                    return Err(Error::InitiatorTwice {
                        domain,
                        function: *function,
                    });
                }
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<(), Error> {
        let mut ranges: Vec<_> = self
            .domains
            .iter()
            .flat_map(|domain| domain.memory.iter().copied())
            .collect();
        ranges.sort_by_key(|range| range.base);
        for (first, second) in ranges.iter().zip(ranges.iter().skip(1)) {
            if second.base - first.base < first.length {
                return Err(Error::MemoryOverlap {
                    first: first.base,
                    second: second.base,
                });
            }
        }
        Ok(())
    }

    /// Domains with their numbers.
    pub fn domains(&self) -> impl Iterator<Item = (ProximityDomain, &Domain)> {
        (0..).map(ProximityDomain).zip(&self.domains)
    }

    pub(crate) const fn distances(&self) -> &Distances {
        &self.distances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(processors: &[u32]) -> Domain {
        Domain {
            processors: processors.iter().copied().map(Processor::Gicc).collect(),
            ..Domain::default()
        }
    }

    fn numa(domains: Vec<Domain>) -> Result<Numa, Error> {
        let distances = Distances::new(domains.len());
        Numa::new(domains, distances)
    }

    #[test]
    fn a_domain_shows_as_its_number() {
        assert_eq!(ProximityDomain(17).to_string(), "17");
    }

    #[test]
    fn a_processor_is_in_one_domain() {
        assert!(numa(vec![domain(&[0, 1]), domain(&[2])]).is_ok());
        let error = numa(vec![domain(&[0, 1]), domain(&[1])]).expect_err("1 is there twice");
        assert_eq!(
            error,
            Error::ProcessorTwice {
                processor: Processor::Gicc(1)
            }
        );
    }

    #[test]
    fn adjacent_memory_is_accepted_and_overlapping_memory_is_refused() {
        let with = |ranges: &[(u64, u64)]| {
            let memory = ranges
                .iter()
                .map(|(base, length)| MemoryRange::new(*base, *length))
                .collect::<Result<_, _>>()?;
            numa(vec![Domain {
                memory,
                ..Domain::default()
            }])
        };
        assert!(with(&[(0x2000, 0x1000), (0x1000, 0x1000)]).is_ok());
        assert_eq!(
            with(&[(0x2000, 0x1000), (0x1000, 0x1001)]),
            Err(Error::MemoryOverlap {
                first: 0x1000,
                second: 0x2000
            })
        );
        assert!(matches!(with(&[(1, 0)]), Err(Error::MemoryRange { .. })));
        assert!(matches!(
            with(&[(1, u64::MAX)]),
            Err(Error::MemoryRange { .. })
        ));
    }

    #[test]
    fn an_initiator_is_listed_once_and_in_a_segment_that_tables_can_name() {
        let with = |functions: &[&str]| {
            let initiators = functions
                .iter()
                .map(|text| text.parse().expect(text))
                .collect();
            numa(vec![Domain {
                initiators,
                ..Domain::default()
            }])
        };
        assert!(with(&["ffff:01:00.0", "ffff:01:00.1"]).is_ok());
        assert!(matches!(
            with(&["10000:01:00.0"]),
            Err(Error::Segment { .. })
        ));
        assert!(matches!(
            with(&["01:00.0", "01:00.0"]),
            Err(Error::InitiatorTwice { .. })
        ));
    }

    #[test]
    fn only_distances_that_a_slit_can_represent_are_accepted() {
        let (a, b, c) = (ProximityDomain(0), ProximityDomain(1), ProximityDomain(2));
        let mut distances = Distances::new(2);
        for (from, to, distance, taken) in [
            (a, a, 10, true),
            (a, a, 11, false),
            (a, b, 10, false),
            (a, b, 9, false),
            (a, b, 11, true),
            (b, a, 255, true),
            (a, c, 20, false),
            (c, a, 20, false),
        ] {
            let result = distances.set(from, to, distance);
            assert_eq!(result.is_ok(), taken, "{from} {to} {distance}: {result:?}");
        }
        assert_eq!(
            distances.rows().collect::<Vec<_>>(),
            [[10, 11], [255, 10]],
            "a refused distance changes nothing"
        );
    }

    #[test]
    fn the_number_of_rows_is_the_number_of_domains() {
        assert_eq!(numa(Vec::new()), Err(Error::NoDomain));
        assert!(matches!(
            Numa::new(vec![domain(&[0])], Distances::new(2)),
            Err(Error::DistanceCount { .. })
        ));
    }
}
