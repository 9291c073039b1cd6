//! Made-up hosts that chips sit in: facts of such a host, and the files of `/sys`, `/proc` and
//! `/lib/modules` in which Linux shows them.
//!
//! The shape (which nodes have CPUs, which files there are) is that of public listings of such
//! machines; addresses, numbers of CPUs and names of firmware objects are assumed.

mod facts;
mod files;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use varia_core::{ConfigRegister, Device};
use varia_facts::{Bdf, Facts};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, header};

pub use files::{Entry, Files};

use crate::error::{SiliconError, UnknownProfile};
use crate::profile::{self, Profile};
use crate::{Options, Silicon};

/// Nodes without memory that firmware sets aside for each GPU.
const NODES_PER_GPU: u32 = 8;

/// Reason for which a host can't be made up.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Unknown chip.
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
    /// A chip that can't be made.
    #[error(transparent)]
    Silicon(#[from] SiliconError),
    /// A firmware table that can't be made.
    #[error(transparent)]
    Firmware(#[from] varia_firmware::Error),
    /// A PCI device number that no bus has.
    #[error("no PCI bus has a device {device}: 31 is the last")]
    Address {
        /// Device number.
        device: u8,
    },
}

/// A machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Name in tests and commands.
    pub name: &'static str,
    /// Vendor and product, as its firmware says.
    pub product: (&'static str, &'static str),
    /// The profile of its GPUs' chip; none for a machine without.
    pub chip: Option<&'static str>,
    /// Firmware puts each GPU into a node of its own, which has no CPUs, and not into its
    /// CPU's.
    pub own_nodes: bool,
    /// Sockets, each with CPUs and memory.
    pub sockets: u32,
    /// GPUs on each socket.
    pub gpus: u32,
    /// CPUs of each socket.
    pub cpus: u32,
    /// Memory of each socket, in bytes.
    pub memory: u64,
    /// Extended GPU Memory that firmware reserves on each socket beside `memory`, in bytes; 0 for
    /// none.
    pub egm: u64,
    /// Other PCI functions, each an NVMe drive with its own IOMMU group.
    pub drives: u32,
    /// The kernel's page size, in bytes.
    pub page: u64,
}

const GIB: u64 = 1 << 30;
const KIB: u64 = 1 << 10;

/// The machines that tests and demonstrations use.
pub const ALL: [&Machine; 6] = [
    &GH200,
    &GH200_X4,
    &GB200_NVL4,
    &GB200_EGM,
    &GB300_NVL4,
    &NONE,
];

/// Host with one Grace Hopper superchip.
pub const GH200: Machine = Machine {
    name: "gh200",
    product: ("NVIDIA", "Grace Hopper"),
    chip: Some("gh200"),
    own_nodes: false,
    sockets: 1,
    gpus: 1,
    cpus: 72,
    memory: 480 * GIB,
    egm: 0,
    drives: 2,
    page: 64 * KIB,
};

/// Host with four Grace Hopper superchips.
pub const GH200_X4: Machine = Machine {
    name: "gh200-x4",
    sockets: 4,
    memory: 120 * GIB,
    ..GH200
};

/// GB200 NVL4: two Grace CPUs, two Blackwell GPUs on each.
pub const GB200_NVL4: Machine = Machine {
    name: "gb200-nvl4",
    product: ("NVIDIA", "GB200 NVL4"),
    chip: Some("gb200"),
    own_nodes: true,
    sockets: 2,
    gpus: 2,
    ..GH200
};

/// GB200 NVL4 whose firmware reserves most of the RAM as Extended GPU Memory, with NVIDIA's kernel.
pub const GB200_EGM: Machine = Machine {
    name: "gb200-egm",
    memory: 64 * GIB,
    egm: 416 * GIB,
    ..GB200_NVL4
};

/// GB300 NVL4: two Grace CPUs, two Blackwell Ultra GPUs on each.
pub const GB300_NVL4: Machine = Machine {
    name: "gb300-nvl4",
    product: ("NVIDIA", "GB300 NVL4"),
    chip: Some("gb300"),
    ..GB200_NVL4
};

/// A machine without a GPU.
pub const NONE: Machine = Machine {
    name: "none",
    product: ("Example", "Server"),
    chip: None,
    gpus: 0,
    page: 4 * KIB,
    ..GH200
};

impl Machine {
    /// A host with a chip: as many sockets, and GPUs on each. A chip of which a superchip has several
    /// GPUs is in a host like GB200 NVL4, another one in a host like GH200.
    ///
    /// # Errors
    /// [`UnknownProfile`].
    pub fn with(chip: &'static str, sockets: u32, gpus: u32) -> Result<Self, UnknownProfile> {
        let profile = profile::find(chip)?;
        let base = match profile.per_superchip() {
            1 => GH200,
            _ => GB200_NVL4,
        };
        Ok(Self {
            name: profile.name,
            product: ("NVIDIA", profile.name),
            chip: Some(chip),
            sockets,
            gpus,
            ..base
        })
    }

    /// The PCI addresses of its GPUs, as Linux writes them.
    #[must_use]
    pub fn gpus(&self) -> Vec<String> {
        let number = 0..self.sockets * self.gpus;
        number
            .map(|gpu| format!("{:04x}:01:00.0", domain(gpu)))
            .collect()
    }

    /// Facts of this host. The BARs that a variant shows to a VM are not among them.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn facts(&self) -> Result<Facts, MachineError> {
        facts::of(self)
    }

    /// The configuration space of a GPU; `None` for a host without GPUs.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn config_space(&self) -> Result<Option<Vec<u8>>, MachineError> {
        let Some(profile) = self.profile()? else {
            return Ok(None);
        };
        // enough for the configuration space; the memory is never touched
        let silicon = Silicon::new(&profile, Options::default())?;
        let registers = (header::VENDOR_ID..CFG_SPACE_EXP_SIZE).step_by(4);
        let read = |at| {
            let register = ConfigRegister::dword(at);
            silicon.config_read(register).unwrap_or(u32::MAX)
        };
        Ok(Some(
            registers.flat_map(|at| read(at).to_le_bytes()).collect(),
        ))
    }

    /// Files of this host, by their path from the root, made from its facts.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn files(&self) -> Result<Files, MachineError> {
        let facts = self.facts()?;
        let mut configs = BTreeMap::new();
        if let Some(config) = self.config_space()? {
            let gpus = self.gpus();
            let gpus = gpus.iter().filter_map(|gpu| gpu.parse::<Bdf>().ok());
            configs.extend(gpus.map(|gpu| (gpu, config.clone())));
        }
        files::of(&facts, &configs)
    }

    /// Writes its files into a folder.
    ///
    /// # Errors
    /// Errors of the file system, and [`MachineError`].
    pub fn write(&self, root: &Path) -> io::Result<()> {
        files::write(&self.files().map_err(io::Error::other)?, root)
    }

    /// Profile of its GPUs.
    fn profile(&self) -> Result<Option<Profile>, UnknownProfile> {
        let Some(chip) = self.chip else {
            return Ok(None);
        };
        profile::find(chip).cloned().map(Some)
    }
}

/// The PCI domain of a GPU: each has a root complex of its own.
fn domain(gpu: u32) -> u32 {
    0x9 + 0x10 * gpu
}
