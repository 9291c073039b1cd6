//! Errors that a device reported since the machine started, as the kernel counts them: no access to
//! the device.
//!
//! Source: `Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats` of Linux 7.2.

use varia_facts::Bdf;

use crate::inventory::functions_folder;
use crate::matching::module_name;
use crate::tree::Tree;

/// Uncorrectable errors of AER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncorrectable {
    /// Errors after which the link is not reliable.
    pub fatal: u64,
    /// Errors that lost a transaction.
    pub nonfatal: u64,
}

/// Counts of a device; `None` if the device has no AER or the kernel does not count.
#[must_use]
pub fn uncorrectable(tree: &Tree, bdf: Bdf) -> Option<Uncorrectable> {
    let total = |file: &str, name: &str| {
        let text = tree.text(&format!("{}/{file}", functions_folder(bdf)))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line?.trim().parse().ok()
    };
    Some(Uncorrectable {
        fatal: total("aer_dev_fatal", "TOTAL_ERR_FATAL")?,
        nonfatal: total("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL")?,
    })
}

/// Number of ranges of failed pages of a device, as a module of Varia's lists them in debugfs; `None` if the
/// driver has no such list or the list can't be read.
#[must_use]
pub fn poisoned_ranges(tree: &Tree, driver: &str, bdf: Bdf) -> Option<usize> {
    let module = module_name(driver);
    let text = tree.text(&format!("sys/kernel/debug/{module}/{bdf}/poison"))?;
    Some(text.lines().filter(|line| !line.trim().is_empty()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_and_anything_else_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let bdf: Bdf = "0009:01:00.0".parse().unwrap();
        let folder = root.path().join("sys/bus/pci/devices/0009:01:00.0");
        std::fs::create_dir_all(&folder).unwrap();
        let tree = Tree::open(root.path()).unwrap();
        assert_eq!(uncorrectable(&tree, bdf), None);
        let put = |file: &str, text: &str| std::fs::write(folder.join(file), text).unwrap();
        put("aer_dev_fatal", "Undefined 0\nDLP 2\nTOTAL_ERR_FATAL 2\n");
        put("aer_dev_nonfatal", "garbage");
        assert_eq!(uncorrectable(&tree, bdf), None);
        put("aer_dev_nonfatal", "TLP 1\nTOTAL_ERR_NONFATAL 1\n");
        let expected = Uncorrectable {
            fatal: 2,
            nonfatal: 1,
        };
        assert_eq!(uncorrectable(&tree, bdf), Some(expected));
    }
}
