//! SLIT: distances between domains (5.2.17).
//!
//! Written here because the distances of the two directions may differ, which acpi_tables can't
//! represent.

use acpi_tables::AmlSink;

use crate::numa::Numa;
use crate::table::{Body, Oem};

/// System Locality Information Table of a machine.
#[must_use]
pub fn slit(numa: &Numa, oem: Oem) -> Vec<u8> {
    let mut body = Body::default();
    body.qword(numa.distances().rows().count() as u64);
    for row in numa.distances().rows() {
        body.vec(row);
    }
    body.finish(*b"SLIT", 1, oem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numa::{Distances, Domain, ProximityDomain};

    #[test]
    fn each_direction_has_its_own_entry() {
        let mut distances = Distances::new(2);
        distances
            .set(ProximityDomain(0), ProximityDomain(1), 40)
            .expect("a distance");
        let numa = Numa::new(vec![Domain::default(); 2], distances).expect("a machine");
        let table = slit(&numa, Oem::VARIA);
        assert_eq!(table[36..], [2, 0, 0, 0, 0, 0, 0, 0, 10, 40, 20, 10]);
        assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
    }
}
