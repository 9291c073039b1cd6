//! SSDT: properties of PCI functions in the form of bare-metal firmware (6.2.5 `_DSD`).

use std::fmt;
use std::str::FromStr;

use acpi_tables::aml::{Device, If, Name, Package, Path, Scope, Uuid, ZERO};
use acpi_tables::{Aml, AmlSink};
use varia_spec::nvidia::property;

use crate::error::Error;
use crate::table::{Body, Oem};

/// UUID at the beginning of a `_DSD` of device properties (ACPI `_DSD` Device Properties UUID).
const DEVICE_PROPERTIES: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";

/// Absolute path of a device in ACPI's namespace, such as `\_SB.PCI0.S08.S00`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AcpiPath(String);

impl FromStr for AcpiPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Path {
            path: text.to_owned(),
        };
        let names = text.strip_prefix('\\').ok_or_else(wrong)?;
        let mut padded = Vec::new();
        for name in names.split('.') {
            let is_name = (1..=4).contains(&name.len())
                && name
                    .bytes()
                    .all(|c| c == b'_' || c.is_ascii_uppercase() || c.is_ascii_digit())
                && !name.starts_with(|c: char| c.is_ascii_digit());
            if !is_name {
                return Err(wrong());
            }
            padded.push(format!("{name:_<4}"));
        }
        // a path has its number of names in one byte
        if padded.len() > 255 {
            return Err(wrong());
        }
        Ok(Self(format!("\\{}", padded.join("."))))
    }
}

impl fmt::Display for AcpiPath {
    /// Writes the path with each name padded to four characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Properties of one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceProperties {
    device: AcpiPath,
    /// The device is a root bus of which tables describe nothing below: the properties belong to the
    /// function behind the port in slot 0, and the table defines both.
    is_root_bus: bool,
    values: Vec<(String, u64)>,
}

impl DeviceProperties {
    /// Properties of the device at `device`, by name.
    ///
    /// # Errors
    /// [`Error::PropertyName`] if a name can't be a string of AML.
    pub fn new(
        device: AcpiPath,
        values: impl IntoIterator<Item = (String, u64)>,
    ) -> Result<Self, Error> {
        let values: Vec<_> = values.into_iter().collect();
        let printable = |name: &str| {
            !name.is_empty() && name.bytes().all(|c| c == b' ' || c.is_ascii_graphic())
        };
        match values.iter().find(|(name, _)| !printable(name)) {
            Some((name, _)) => Err(Error::PropertyName { name: name.clone() }),
            None => Ok(Self {
                device,
                is_root_bus: false,
                values,
            }),
        }
    }

    /// Properties that the firmware of Grace Hopper gives a GPU: place and size of its memory, and
    /// the domains reserved for the memory.
    #[must_use]
    pub fn coherent_memory(
        device: AcpiPath,
        base: u64,
        size: u64,
        domains: std::ops::Range<u32>,
    ) -> Self {
        let count = domains.end.saturating_sub(domains.start);
        let values = [
            (property::MEM_BASE_PA, base),
            (property::MEM_SIZE, size),
            (property::MEM_PXM_START, domains.start.into()),
            (property::MEM_PXM_COUNT, count.into()),
        ];
        Self {
            device,
            is_root_bus: false,
            values: values.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// The same properties for function 0 behind the root port in slot 0 of the root bus that
    /// `device` is, where no table describes the port and the function, as below QEMU's `pxb-pcie`.
    #[must_use]
    pub fn behind_root_port(mut self) -> Self {
        self.is_root_bus = true;
        self
    }

    /// The same properties with those of the socket's Extended GPU Memory: its place, its proximity
    /// domain and the address of its table of retired pages.
    #[must_use]
    pub fn with_egm(mut self, base: u64, size: u64, pxm: u32, retired_pages: u64) -> Self {
        let values = [
            (property::EGM_BASE_PA, base),
            (property::EGM_SIZE, size),
            (property::EGM_PXM, pxm.into()),
            (property::EGM_RETIRED_PAGES, retired_pages),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value));
        self.values.extend(values);
        self
    }
}

/// Secondary System Description Table that adds `_DSD` to devices that another table defines, and to
/// functions behind root ports of root buses that it defines.
///
/// Numbers of 4 GiB and more need a DSDT of revision 2: with a DSDT of revision 1, such as QEMU's
/// for x86, an operating system truncates all integers to 32 bits.
#[must_use]
pub fn ssdt(devices: &[DeviceProperties], oem: Oem) -> Vec<u8> {
    let mut body = Body::default();
    // never executed: an interpreter that does not know the opcode skips the block
    let externals: Vec<_> = devices.iter().map(|one| External(&one.device)).collect();
    let externals = externals.iter().map(|one| one as &dyn Aml).collect();
    body.structure(&If::new(&ZERO, externals));
    for DeviceProperties {
        device,
        is_root_bus,
        values,
    } in devices
    {
        let pairs: Vec<_> = values
            .iter()
            .map(|(name, value)| Pair(name, *value))
            .collect();
        let uuid = Uuid::new(DEVICE_PROPERTIES);
        let list = Package::new(pairs.iter().map(|pair| pair as &dyn Aml).collect());
        let dsd = Name::new("_DSD".into(), &Package::new(vec![&uuid, &list]));
        let scope = Path::new(&device.0);
        let address = Name::new("_ADR".into(), &ZERO);
        match is_root_bus {
            false => body.structure(&Scope::new(scope, vec![&dsd])),
            true => {
                let function = Device::new("S00_".into(), vec![&address, &dsd]);
                let port = Device::new("S00_".into(), vec![&address, &function]);
                body.structure(&Scope::new(scope, vec![&port]))
            }
        };
    }
    body.finish(*b"SSDT", 2, oem)
}

/// Differentiated System Description Table without devices, of revision 2: integers of the
/// namespace have 64 bits.
#[must_use]
pub fn empty_dsdt(oem: Oem) -> Vec<u8> {
    Body::default().finish(*b"DSDT", 2, oem)
}

/// Declaration of a device that another table defines (20.2.5.2 `DefExternal`).
struct External<'a>(&'a AcpiPath);

impl Aml for External<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const EXTERNAL_OP: u8 = 0x15;
        const DEVICE: u8 = 6;
        sink.byte(EXTERNAL_OP);
        Path::new(&self.0.0).to_aml_bytes(sink);
        sink.byte(DEVICE);
        sink.byte(0); // takes no arguments
    }
}

struct Pair<'a>(&'a String, u64);

impl Aml for Pair<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        Package::new(vec![self.0, &self.1]).to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_of_short_capital_names() {
        let path: AcpiPath = "\\_SB.PCI0.S08.S00".parse().expect("a path");
        assert_eq!(path.to_string(), "\\_SB_.PCI0.S08_.S00_");
        for text in [
            "",
            "\\",
            "_SB.PCI0",
            "\\_SB..PCI0",
            "\\_SB.pci0",
            "\\_SB.PCI00",
            "\\_SB.0PCI",
            "\\_SB.PCI0\n",
        ] {
            assert!(text.parse::<AcpiPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_has_at_most_255_names() {
        let path = |count: usize| format!("\\{}", vec!["A"; count].join("."));
        assert!(path(255).parse::<AcpiPath>().is_ok());
        assert!(path(256).parse::<AcpiPath>().is_err());
    }

    #[test]
    fn a_table_refers_to_its_devices_and_has_their_properties() {
        let contains = |table: &[u8], bytes: &[u8]| {
            let mut windows = table.windows(bytes.len());
            windows.any(|window| window == bytes)
        };
        let device: AcpiPath = "\\_SB.PCI0.S08.S00".parse().expect("a path");
        let base = 0x1234_5678_9abc;
        let of_gpu = DeviceProperties::coherent_memory(device, base, 1 << 33, 1..9);
        let table = ssdt(&[of_gpu], Oem::VARIA);
        assert_eq!(table[..4], *b"SSDT");
        assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        // ExternalOp, a path of four names, a device, no arguments
        let external = b"\x15\\\x2f\x04_SB_PCI0S08_S00_\x06\0";
        assert!(contains(&table, external), "{table:x?}");
        // the name as a string, the value as a QWord
        let pair = [
            b"\x0dnvidia,gpu-mem-base-pa\0\x0e".as_slice(),
            &u64::to_le_bytes(base),
        ];
        assert!(contains(&table, &pair.concat()), "{table:x?}");
        let count = b"\x0dnvidia,gpu-mem-pxm-count\0\x0a\x08";
        assert!(contains(&table, count), "{table:x?}");
    }

    #[test]
    fn an_empty_dsdt_is_a_header_whose_revision_makes_integers_64_bits_wide() {
        let table = empty_dsdt(Oem::VARIA);
        let header = [b"DSDT".as_slice(), &36_u32.to_le_bytes(), &[2]].concat();
        assert_eq!((table.len(), &table[..9]), (36, &header[..]));
        assert_eq!(table.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
    }

    #[test]
    fn a_name_that_aml_cannot_represent_is_refused() {
        let path: AcpiPath = "\\_SB.PCI0".parse().expect("a path");
        for name in ["", "a\0b", "ä"] {
            let values = [(name.to_owned(), 1)];
            assert!(
                DeviceProperties::new(path.clone(), values).is_err(),
                "{name:?}"
            );
        }
    }
}
