//! Facts of a host, read from its files.
//!
//! A fact whose file is missing or can't be read is absent. The notes name what an operator should
//! know of absent facts.

mod egm;
mod host;
mod kernel;
mod online;
mod pci;
mod reading;

use std::path::Path;

use varia_facts::{Bdf, Facts, PciFunction};
use varia_spec::nvidia::chip::Identity;

use crate::error::Error;
use crate::matching::{Aliases, Choice, Modalias, Why};
use crate::programs::Programs;
use crate::tree::Tree;

pub(crate) use egm::{CLASS as EGM_CLASS, GPUS as EGM_GPUS, SIZE as EGM_SIZE};
pub(crate) use host::{
    ADDRESS_SIZES, CPUINFO, MIDR, SPEED, SPEED_BANDWIDTHS, SPEED_LATENCIES, arch_here,
};
pub(crate) use kernel::{
    CONFIG_CAPTURED, MODULES, PARAMETERS, cmdline, compressed_config, config_places, is_option,
};
pub use pci::functions_folder;
pub(crate) use reading::Reading;

/// Extent of an inventory: the PCI functions that are read in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// Functions that a variant driver serves; of the other functions what the IOMMU groups need.
    Served,
    /// All functions.
    All,
}

/// Facts of a host, with the aliases of its drivers.
#[derive(Debug)]
pub struct Inventory {
    /// Facts. The functions are those that a variant driver serves, the other members of their
    /// IOMMU groups and the bridges above them; or all.
    pub facts: Facts,
    /// Aliases of the kernel's modules.
    pub aliases: Aliases,
    /// Facts that could not be read, and the reasons.
    pub notes: Vec<String>,
}

impl Inventory {
    /// Reads the facts of a host, without an access to any device.
    ///
    /// # Errors
    /// [`Error::NoPci`] if the host has no PCI bus.
    pub fn of(tree: &Tree, extent: Extent) -> Result<Self, Error> {
        let mut notes = Vec::new();
        let reading = Reading::of(tree);
        let mut kernel = kernel::kernel(&reading);
        let programs = Programs::captured(&reading);
        programs.apply(&mut kernel);
        let aliases = Aliases::of(tree, kernel.release.as_deref().unwrap_or_default());
        let host = host::host(&reading);
        let mut facts = Facts::new(host, kernel, programs.vmm);
        pci::functions(&reading, extent, &aliases, &mut facts, &mut notes)?;
        online::note(tree, &mut facts);
        facts.unread = reading.unread();
        if aliases.malformed() > 0 {
            notes.push(format!(
                "{} lines of modules.alias are malformed: run depmod",
                aliases.malformed()
            ));
        }
        Ok(Self {
            facts,
            aliases,
            notes,
        })
    }

    /// Queries this machine's QEMU, libvirt and modinfo, too. `qemu` replaces the QEMU in PATH. A
    /// captured host already contains the output of its own programs.
    pub fn ask_programs(&mut self, tree: &Tree, qemu: Option<&Path>) {
        if tree.is_live() {
            let programs = Programs::ask(self.facts.host.arch, qemu);
            programs.apply(&mut self.facts.kernel);
            self.facts.vmm = programs.vmm;
        }
    }

    /// Functions to show: functions that a variant driver serves, of Varia's or installed, and
    /// every data-centre GPU of NVIDIA's.
    #[must_use]
    pub fn served(&self) -> Vec<Bdf> {
        let served = |function: &&PciFunction| {
            let (vendor, device) = (function.vendor, function.device);
            function.variant.is_some()
                || Identity::of(vendor, device, function.class) != Identity::Other
                || matches!(self.best(function).why, Why::Alias { .. })
        };
        let functions = self.facts.functions.iter().filter(served);
        functions.map(|function| function.bdf).collect()
    }

    /// Best driver for a function.
    #[must_use]
    pub fn best(&self, function: &PciFunction) -> Choice {
        self.aliases.choose(&Modalias::of(function))
    }
}
