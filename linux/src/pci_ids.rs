//! Names of vendors and devices, from the database `pci.ids` that distributions install.
//!
//! The format: a line for each vendor, `VVVV  Name`; below a vendor its devices, `<tab>DDDD  Name`;
//! below a device its subsystems, with two tabs; comments with `#`; at the end classes,
//! `C CC  Name`.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

/// Paths of the file on the known distributions, relative to the root.
pub const PLACES: [&str; 3] = [
    "usr/share/misc/pci.ids",
    "usr/share/hwdata/pci.ids",
    "usr/share/pci.ids",
];

/// Names of vendors and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciIds {
    vendors: BTreeMap<u16, String>,
    devices: BTreeMap<(u16, u16), String>,
    found: bool,
}

impl PciIds {
    /// Reads the names of the wanted devices (vendor, device) from the host's own database, or else
    /// from this machine's database.
    #[must_use]
    pub fn of(tree: &Tree, wanted: &BTreeSet<(u16, u16)>) -> Self {
        let here = Tree::live();
        for tree in [tree, &here] {
            for place in PLACES {
                if let Ok(bytes) = tree.read(place) {
                    return Self::parse(&bytes, wanted);
                }
            }
        }
        Self::default()
    }

    /// True if a database was found.
    #[must_use]
    pub fn found(&self) -> bool {
        self.found
    }

    /// Names of vendor and device; `None` if the vendor is not in the database.
    #[must_use]
    pub fn name(&self, vendor: u16, device: u16) -> Option<String> {
        let vendor_name = self.vendors.get(&vendor)?;
        Some(match self.devices.get(&(vendor, device)) {
            Some(device) => format!("{vendor_name} {device}"),
            None => format!("{vendor_name} device {device:04x}"),
        })
    }

    fn parse(bytes: &[u8], wanted: &BTreeSet<(u16, u16)>) -> Self {
        let mut ids = Self {
            found: true,
            ..Self::default()
        };
        // the current vendor, if one of the vendor's devices is wanted
        let mut vendor = None;
        for line in bytes.split(|byte| *byte == b'\n') {
            match line {
                [b'\t', b'\t', ..] | [] | [b'#', ..] => {}
                [b'\t', rest @ ..] => {
                    let (Some(vendor), Some((device, name))) = (vendor, entry(rest)) else {
                        continue;
                    };
                    if wanted.contains(&(vendor, device)) {
                        ids.devices.insert((vendor, device), name);
                    }
                }
                line => {
                    vendor = None;
                    let of_wanted = entry(line).filter(|(id, _)| {
                        wanted.range((*id, 0)..=(*id, u16::MAX)).next().is_some()
                    });
                    if let Some((id, name)) = of_wanted {
                        vendor = Some(id);
                        ids.vendors.insert(id, name);
                    }
                }
            }
        }
        ids
    }

    /// The same names in the format of the database.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let mut text = String::new();
        for (vendor, name) in &self.vendors {
            text += &format!("{vendor:04x}  {name}\n");
            for ((_, device), name) in self.devices.range((*vendor, 0)..=(*vendor, u16::MAX)) {
                text += &format!("\t{device:04x}  {name}\n");
            }
        }
        text
    }
}

/// Parses `10de  NVIDIA Corporation`.
fn entry(line: &[u8]) -> Option<(u16, String)> {
    let (id, name) = line.split_at_checked(4)?;
    let id = u16::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?;
    let name = name.strip_prefix(b"  ")?;
    Some((id, String::from_utf8_lossy(name).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\n\
        10de  NVIDIA Corporation\n\
        \t2342  GH100 [GH200 120GB / 480GB]\n\
        \t\t10de 1809  Board\n\
        1af4  Red Hat, Inc.\n\
        \t2342  Another\n\
        C 03  Display controller\n\
        \t02  3D controller\n";

    fn ids(wanted: &[(u16, u16)]) -> PciIds {
        PciIds::parse(TEXT.as_bytes(), &wanted.iter().copied().collect())
    }

    #[test]
    fn a_device_has_its_name_from_its_own_vendor() {
        let ids = ids(&[(0x10de, 0x2342), (0x1af4, 0x2342), (0x10de, 0x2941)]);
        let gh200 = "NVIDIA Corporation GH100 [GH200 120GB / 480GB]";
        assert_eq!(ids.name(0x10de, 0x2342).as_deref(), Some(gh200));
        assert_eq!(
            ids.name(0x1af4, 0x2342).as_deref(),
            Some("Red Hat, Inc. Another")
        );
        assert_eq!(
            ids.name(0x10de, 0x2941).as_deref(),
            Some("NVIDIA Corporation device 2941")
        );
        assert_eq!(ids.name(0x8086, 1), None);
    }

    #[test]
    fn an_excerpt_gives_the_same_names() {
        let wanted = [(0x10de, 0x2342)];
        let ids = ids(&wanted);
        let wanted = wanted.iter().copied().collect();
        assert_eq!(PciIds::parse(ids.excerpt().as_bytes(), &wanted), ids);
    }

    #[test]
    fn noise_contains_no_names() {
        let noise: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let all = [(0x10de, 0x2342)].into();
        assert_eq!(PciIds::parse(&noise, &all).name(0x10de, 0x2342), None);
    }
}
