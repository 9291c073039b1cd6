//! Proximity domains of a device: the SRAT's Generic Initiators, or firmware's properties.
//!
//! Source: ACPI 6.5, 5.2.16 (System Resource Affinity Table) and 5.2.16.6 (Generic Initiator Affinity
//! Structure). A device handle of a PCI function is its segment, its bus, and its device and function
//! number.

use crate::refusal::Refusal;

/// The most nodes that a device may have. MIG needs eight.
pub const MAX_NODES: usize = 16;

/// Bytes before the first entry: a table's header, a reserved u32 and a reserved u64.
const ENTRIES: usize = 48;
const SIGNATURE: &[u8] = b"SRAT";
/// Type of a Generic Initiator Affinity Structure, and its length.
const INITIATOR: u8 = 5;
const INITIATOR_LEN: usize = 32;
/// Type of a device handle that names a PCI function.
const HANDLE_PCI: u8 = 1;
const ENABLED: u8 = 1;

/// A PCI function: segment, bus, device and function number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// PCI segment (domain).
    pub segment: u16,
    /// Bus in the high byte, device and function number in the low byte.
    pub bdf: u16,
}

impl Function {
    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.bdf >> 8) as u8
    }

    /// Device number.
    pub const fn device(self) -> u8 {
        (self.bdf >> 3) as u8 & 0x1f
    }
}

/// Proximity domains of a function, in rising order, each once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Domains {
    list: [u32; MAX_NODES],
    count: usize,
}

impl Domains {
    /// Domains for which a Generic Initiator of an SRAT names the function. `None` is a firmware
    /// without an SRAT.
    ///
    /// # Errors
    /// [`Refusal::NoSrat`], [`Refusal::BadSrat`], [`Refusal::NoInitiator`],
    /// [`Refusal::SharedDomain`], [`Refusal::TooManyDomains`].
    pub fn of_srat(srat: Option<&[u8]>, function: Function) -> Result<Self, Refusal> {
        let srat = srat.ok_or(Refusal::NoSrat)?;
        if !srat.starts_with(SIGNATURE) || srat.len() < ENTRIES {
            return Err(Refusal::BadSrat { offset: 0 });
        }
        let mut found = Self::default();
        let (mut count, mut others) = (0_u64, 0_u32);
        for initiator in initiators(srat) {
            let (owner, domain) = initiator?;
            if owner != function {
                others = others.saturating_add(1);
            } else if !found.contains(domain) {
                count = count.saturating_add(1);
                found.insert(domain);
            }
        }
        if count == 0 {
            return Err(Refusal::NoInitiator { function, others });
        }
        if count > MAX_NODES as u64 {
            return Err(Refusal::TooManyDomains { count });
        }
        for initiator in initiators(srat) {
            let (other, domain) = initiator?;
            if other != function && found.contains(domain) {
                return Err(Refusal::SharedDomain { domain, other });
            }
        }
        Ok(found)
    }

    /// `count` domains from `start`, as firmware's properties give them.
    ///
    /// # Errors
    /// [`Refusal::TooManyDomains`] for none, for too many, and for numbers beyond 32 bits.
    pub fn of_properties(start: u64, count: u64) -> Result<Self, Refusal> {
        let mut found = Self::default();
        if count == 0 || count > MAX_NODES as u64 {
            return Err(Refusal::TooManyDomains { count });
        }
        for index in 0..count {
            let domain = start.checked_add(index).map(u32::try_from);
            let Some(Ok(domain)) = domain else {
                return Err(Refusal::TooManyDomains { count });
            };
            found.insert(domain);
        }
        Ok(found)
    }

    /// Domains of a list.
    ///
    /// # Errors
    /// [`Refusal::TooManyDomains`] for none and for too many.
    pub fn of_list(list: &[u32]) -> Result<Self, Refusal> {
        if list.is_empty() || list.len() > MAX_NODES {
            return Err(Refusal::TooManyDomains {
                count: list.len() as u64,
            });
        }
        let mut found = Self::default();
        list.iter().for_each(|domain| found.insert(*domain));
        Ok(found)
    }

    /// The domains.
    pub fn as_slice(&self) -> &[u32] {
        self.list.get(..self.count).unwrap_or_default()
    }

    fn contains(&self, domain: u32) -> bool {
        self.as_slice().contains(&domain)
    }

    /// Adds a domain in its place; what has no room is left out, and the caller counts.
    fn insert(&mut self, domain: u32) {
        if self.count >= MAX_NODES {
            return;
        }
        let mut carried = domain;
        for slot in self.list.iter_mut().take(self.count) {
            if *slot > carried {
                core::mem::swap(slot, &mut carried);
            }
        }
        if let Some(slot) = self.list.get_mut(self.count) {
            *slot = carried;
        }
        self.count = self.count.saturating_add(1);
    }
}

/// The enabled Generic Initiators of PCI functions, with their domains.
fn initiators(srat: &[u8]) -> impl Iterator<Item = Result<(Function, u32), Refusal>> {
    let mut at = ENTRIES;
    core::iter::from_fn(move || {
        loop {
            let rest = srat.get(at..).filter(|rest| !rest.is_empty())?;
            let bad = Refusal::BadSrat { offset: at as u64 };
            let length = rest.get(1).map_or(0, |length| usize::from(*length));
            let Some(entry) = rest.get(..length).filter(|entry| entry.len() >= 2) else {
                // what follows can't be told apart
                at = srat.len();
                return Some(Err(bad));
            };
            at = at.saturating_add(length);
            if entry.first() != Some(&INITIATOR) {
                continue;
            }
            match initiator(entry) {
                None => return Some(Err(bad)),
                Some(None) => continue,
                Some(Some(found)) => return Some(Ok(found)),
            }
        }
    })
}

/// Function and domain of a Generic Initiator; `Some(None)` for one that is disabled or has no PCI
/// function, `None` for one that is too short.
fn initiator(entry: &[u8]) -> Option<Option<(Function, u32)>> {
    let entry = entry.first_chunk::<INITIATOR_LEN>()?;
    let [_, _, _, kind, d0, d1, d2, d3, s0, s1, bus, devfn, rest @ ..] = *entry;
    let enabled = rest.get(12).copied()? & ENABLED != 0;
    let function = Function {
        segment: u16::from_le_bytes([s0, s1]),
        bdf: u16::from_be_bytes([bus, devfn]),
    };
    let domain = u32::from_le_bytes([d0, d1, d2, d3]);
    Some((kind == HANDLE_PCI && enabled).then_some((function, domain)))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const GPU: Function = Function {
        segment: 0,
        bdf: 0x0100,
    };
    const OTHER: Function = Function {
        segment: 0,
        bdf: 0x0208,
    };

    fn entry(function: Function, domain: u32, kind: u8, flags: u8) -> Vec<u8> {
        let mut bytes = [0; INITIATOR_LEN];
        (bytes[0], bytes[1], bytes[3], bytes[24]) = (INITIATOR, INITIATOR_LEN as u8, kind, flags);
        bytes[4..8].copy_from_slice(&domain.to_le_bytes());
        bytes[8..10].copy_from_slice(&function.segment.to_le_bytes());
        bytes[10..12].copy_from_slice(&function.bdf.to_be_bytes());
        bytes.to_vec()
    }

    fn srat(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut table = SIGNATURE.to_vec();
        table.resize(ENTRIES, 0);
        // A memory affinity structure is not looked at.
        table.extend([1, 40]);
        table.resize(ENTRIES + 40, 0xee);
        table.extend(entries.concat());
        table
    }

    fn of(entries: &[Vec<u8>]) -> Result<Vec<u32>, Refusal> {
        Domains::of_srat(Some(&srat(entries)), GPU).map(|found| found.as_slice().to_vec())
    }

    fn ours(domain: u32) -> Vec<u8> {
        entry(GPU, domain, HANDLE_PCI, ENABLED)
    }

    #[test]
    fn the_domains_are_those_of_the_function_in_rising_order() {
        let theirs = entry(OTHER, 9, HANDLE_PCI, ENABLED);
        let disabled = entry(GPU, 5, HANDLE_PCI, 0);
        let acpi = entry(GPU, 6, 0, ENABLED);
        let entries = [ours(3), theirs, ours(1), disabled, acpi, ours(2), ours(1)];
        assert_eq!(of(&entries), Ok([1, 2, 3].to_vec()));
        for count in 1..=MAX_NODES as u32 {
            let entries: Vec<_> = (0..count).rev().map(ours).collect();
            assert_eq!(of(&entries), Ok((0..count).collect()));
        }
    }

    #[test]
    fn what_the_srat_lacks_is_refused_with_its_numbers() {
        let theirs = |domain| entry(OTHER, domain, HANDLE_PCI, ENABLED);
        assert_eq!(Domains::of_srat(None, GPU), Err(Refusal::NoSrat));
        let none = |others| {
            Err(Refusal::NoInitiator {
                function: GPU,
                others,
            })
        };
        assert_eq!(of(&[]), none(0));
        assert_eq!(of(&[theirs(1), theirs(2)]), none(2));
        let shared = Refusal::SharedDomain {
            domain: 2,
            other: OTHER,
        };
        assert_eq!(of(&[theirs(2), ours(1), ours(2)]), Err(shared));
        assert_eq!(
            std::format!("{shared}"),
            "proximity domain 2 also belongs to the function on bus 2 device 1: give each GPU nodes of its own"
        );
        let many: Vec<_> = (0..17).map(ours).collect();
        assert_eq!(of(&many), Err(Refusal::TooManyDomains { count: 17 }));
        let segment = Function { segment: 1, ..GPU };
        assert_eq!(of(&[entry(segment, 1, HANDLE_PCI, ENABLED)]), none(1));
    }

    #[test]
    fn a_table_cut_anywhere_or_changed_anywhere_is_refused_or_read_and_never_panics() {
        let table = srat(&[ours(1), ours(2)]);
        for len in 0..table.len() {
            let cut = Domains::of_srat(table.get(..len), GPU);
            let whole = [88, 120].contains(&len);
            assert_eq!(
                matches!(cut, Err(Refusal::BadSrat { .. })),
                !whole && len != 48,
                "{len}: {cut:?}"
            );
        }
        for at in 0..table.len() {
            for value in 0..=u8::MAX {
                let mut changed = table.clone();
                changed[at] = value;
                if let Ok(found) = Domains::of_srat(Some(&changed), GPU) {
                    assert!((1..=2).contains(&found.as_slice().len()));
                }
            }
        }
    }

    #[test]
    fn properties_give_a_range_of_domains() {
        let of = |start, count| Domains::of_properties(start, count);
        let eight = of(16, 8).map(|found| found.as_slice().to_vec());
        assert_eq!(eight, Ok((16..24).collect()));
        for (start, count) in [
            (0, 0),
            (0, 17),
            (0, u64::MAX),
            (u64::MAX, 1),
            (u64::from(u32::MAX), 2),
        ] {
            assert_eq!(of(start, count), Err(Refusal::TooManyDomains { count }));
        }
    }
}
