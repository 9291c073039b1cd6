//! Machines that chips sit in, as Linux shows them: the files of `/sys`, `/proc` and
//! `/lib/modules` that an inventory reads.
//!
//! The shape (which nodes have CPUs, which files there are) is that of public listings of such
//! machines; addresses, numbers of CPUs and names of firmware objects are assumed.

mod aml;
mod files;

use std::io;
use std::path::Path;

pub use files::{Entry, Files};

/// A machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// What it is asked for by.
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
    /// Other PCI functions, each an NVMe drive with its own IOMMU group.
    pub drives: u32,
    /// The kernel's page size, in bytes.
    pub page: u64,
}

const GIB: u64 = 1 << 30;
const KIB: u64 = 1 << 10;

/// The machines that tests and demonstrations use.
pub const ALL: [&Machine; 5] = [&GH200, &GH200_X4, &GB200_NVL4, &GB300_NVL4, &NONE];

/// One Grace Hopper superchip.
pub const GH200: Machine = Machine {
    name: "gh200",
    product: ("NVIDIA", "Grace Hopper"),
    chip: Some("gh200"),
    own_nodes: false,
    sockets: 1,
    gpus: 1,
    cpus: 72,
    memory: 480 * GIB,
    drives: 2,
    page: 64 * KIB,
};

/// Four of them.
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

/// The same with two GB300 on each.
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
    /// The PCI addresses of its GPUs, as Linux writes them.
    #[must_use]
    pub fn gpus(&self) -> Vec<String> {
        let number = 0..self.sockets * self.gpus;
        number
            .map(|gpu| format!("{}:01:00.0", domain(gpu)))
            .collect()
    }

    /// Its files, by their path from the root.
    ///
    /// # Errors
    /// Those of making the chip.
    pub fn files(&self) -> io::Result<Files> {
        files::of(self)
    }

    /// Writes its files into a folder.
    ///
    /// # Errors
    /// Those of the file system, and of making the chip.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        files::write(&self.files()?, root)
    }
}

/// The PCI domain of a GPU: each has a root complex of its own.
fn domain(gpu: u32) -> String {
    format!("{:04x}", 0x9 + 0x10 * gpu)
}
