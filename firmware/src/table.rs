//! Header and body that all tables share.

use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

/// Origin of a table, as its header names it. An operating system that replaces a table on request
/// (Linux: from the initramfs) takes a table with equal names and a higher revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Oem {
    /// OEMID.
    pub id: [u8; 6],
    /// OEM Table ID.
    pub table_id: [u8; 8],
    /// OEM Revision.
    pub revision: u32,
}

impl Oem {
    /// Origin of Varia's tables.
    pub const VARIA: Self = Self {
        id: *b"VARIA ",
        table_id: *b"VARIATBL",
        revision: 1,
    };
}

/// Length in bytes of the header that all tables share (5.2.6).
const HEADER: u32 = 36;

/// Body of a table under construction.
#[derive(Default)]
pub(crate) struct Body(Vec<u8>);

impl AmlSink for Body {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

impl Body {
    /// Appends a structure.
    pub(crate) fn structure(&mut self, structure: &dyn Aml) -> &mut Self {
        structure.to_aml_bytes(self);
        self
    }

    /// The complete table, with length and checksum.
    pub(crate) fn finish(self, signature: [u8; 4], revision: u8, oem: Oem) -> Vec<u8> {
        let mut table = Sdt::new(
            signature,
            HEADER,
            revision,
            oem.id,
            oem.table_id,
            oem.revision,
        );
        table.append_slice(&self.0);
        table.as_slice().to_vec()
    }
}
