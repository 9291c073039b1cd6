//! SRAT: processors, memory and PCI functions of each domain (5.2.16).

use acpi_tables::srat::{GenericInitiator, Handle, MemoryAffinity};
use acpi_tables::{Aml, AmlSink};

use crate::numa::{MemoryRange, Numa, Processor, ProximityDomain};
use crate::table::{Body, Oem};

/// Revision with Generic Initiators.
const REVISION: u8 = 3;
/// Flag bit 0 of every affinity structure.
const ENABLED: u32 = 1;
/// Highest id in a Processor Local APIC structure; 0xff means all processors.
const LAST_LOCAL_APIC: u32 = 0xfe;

/// System Resource Affinity Table of a machine.
#[must_use]
pub fn srat(numa: &Numa, oem: Oem) -> Vec<u8> {
    let mut body = Body::default();
    body.dword(1); // reserved, 1 for software of the first revision
    body.qword(0);
    for (domain, content) in numa.domains() {
        for processor in &content.processors {
            body.structure(&ProcessorAffinity(*processor, domain));
        }
    }
    for (domain, content) in numa.domains() {
        for range in &content.memory {
            body.structure(&memory(*range, domain));
        }
    }
    for (domain, content) in numa.domains() {
        for function in &content.initiators {
            // Numa::new has checked the segment
            let segment = function.domain as u16;
            let handle = Handle::new_pci(
                segment,
                function.bus,
                function.device(),
                function.function(),
            );
            body.structure(&GenericInitiator::new(domain.0, handle).enabled());
        }
    }
    body.finish(*b"SRAT", REVISION, oem)
}

fn memory(range: MemoryRange, domain: ProximityDomain) -> MemoryAffinity {
    let structure = MemoryAffinity::new(domain.0, range.base(), range.length()).enabled();
    if range.is_hotplug() {
        structure.hotpluggable()
    } else {
        structure
    }
}

/// Affinity structure of a processor, which acpi_tables lacks for these architectures.
struct ProcessorAffinity(Processor, ProximityDomain);

impl Aml for ProcessorAffinity {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let Self(processor, ProximityDomain(domain)) = *self;
        match processor {
            // 5.2.16.4: type, length, domain, UID, flags, clock domain
            Processor::Gicc(uid) => {
                sink.vec(&[3, 18]);
                sink.dword(domain);
                sink.dword(uid);
                sink.dword(ENABLED);
                sink.dword(0);
            }
            // 5.2.16.1: type, length, domain 7:0, id, flags, SAPIC EID, domain 31:8, clock domain
            Processor::Apic(id) if id <= LAST_LOCAL_APIC => {
                let [low, high @ ..] = domain.to_le_bytes();
                sink.vec(&[0, 16, low, id as u8]);
                sink.dword(ENABLED);
                sink.byte(0);
                sink.vec(&high);
                sink.dword(0);
            }
            // 5.2.16.3: type, length, reserved, domain, id, flags, clock domain, reserved
            Processor::Apic(id) => {
                sink.vec(&[2, 24, 0, 0]);
                sink.dword(domain);
                sink.dword(id);
                sink.dword(ENABLED);
                sink.dword(0);
                sink.dword(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numa::{Distances, Domain};

    fn structures(domain: Domain) -> Vec<Vec<u8>> {
        let domains = vec![Domain::default(), domain];
        let numa = Numa::new(domains, Distances::new(2)).expect("a machine");
        let table = srat(&numa, Oem::VARIA);
        assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        let mut rest = &table[48..];
        let mut found = Vec::new();
        while let [_, length, ..] = rest {
            let (one, others) = rest.split_at(usize::from(*length));
            found.push(one.to_vec());
            rest = others;
        }
        found
    }

    #[test]
    fn a_generic_initiator_names_its_pci_function() {
        let initiators = vec!["0009:01:02.3".parse().expect("an address")];
        let domain = Domain {
            initiators,
            ..Domain::default()
        };
        let mut expected = vec![5, 32, 0, 1, 1, 0, 0, 0, 9, 0, 1, 0x13];
        expected.resize(24, 0); // the rest of the handle
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0]); // enabled; reserved
        assert_eq!(structures(domain), [expected]);
    }

    #[test]
    fn processors_have_the_structure_that_holds_their_number() {
        let processors = [
            Processor::Gicc(7),
            Processor::Apic(254),
            Processor::Apic(255),
        ];
        let domain = Domain {
            processors: processors.to_vec(),
            ..Domain::default()
        };
        let kinds: Vec<_> = structures(domain)
            .iter()
            .map(|structure| (structure[0], structure.len()))
            .collect();
        assert_eq!(kinds, [(3, 18), (0, 16), (2, 24)]);
    }

    #[test]
    fn hot_pluggable_memory_is_marked() {
        let range = MemoryRange::new(1 << 40, 3 << 30).expect("a range");
        let domain = Domain {
            memory: vec![
                range,
                MemoryRange::hotplug(MemoryRange::new(0, 1).expect("1")),
            ],
            ..Domain::default()
        };
        let found = structures(domain);
        assert_eq!(found[0][..8], [1, 40, 1, 0, 0, 0, 0, 0]);
        assert_eq!(found[0][8..16], (1u64 << 40).to_le_bytes());
        assert_eq!(found[0][16..24], (3u64 << 30).to_le_bytes());
        assert_eq!((found[0][28], found[1][28]), (1, 3));
    }
}
