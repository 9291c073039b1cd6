//! Describing a machine and starting it.
//!
//! [`Vm`] is a description; [`Vm::boot`] turns it into QEMU's command line and an initial
//! RAM file system, starts it and waits until the agent inside greets. Software
//! emulation (TCG) runs it: it behaves the same everywhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use varia_agent::HANG;
use varia_debian::closure;
use varia_debian::command;
use varia_debian::packages::Tree;
use varia_units::Arch;

use crate::error::Result;
use crate::flavour::Flavour;
use crate::kernel::Kernel;
use crate::launch::{self, Mode};
use crate::running::Running;

/// Folder for memory of VMs and devices: in RAM, where no busy disk holds an access up.
pub const MEMORY_FOLDER: &str = "/dev/shm";

/// The machine's memory unless it is told otherwise, in MiB.
const MEMORY_MIB: u64 = 1024;

/// A machine to be.
#[derive(Clone, Debug)]
pub struct Vm {
    pub(crate) arch: Arch,
    pub(crate) flavour: Flavour,
    pub(crate) name: String,
    pub(crate) kernel: Option<Kernel>,
    pub(crate) machine_options: Vec<String>,
    pub(crate) cpu: String,
    pub(crate) cpus: u32,
    pub(crate) memory: Vec<MemoryNode>,
    pub(crate) sockets: u32,
    pub(crate) memoryless_nodes: u32,
    pub(crate) cmdline: Vec<String>,
    pub(crate) modules: Vec<ModuleWish>,
    pub(crate) files: Vec<GuestFile>,
    pub(crate) tables: Vec<Vec<u8>>,
    pub(crate) shares: Vec<(PathBuf, String)>,
    pub(crate) iommu: bool,
    pub(crate) devices: Vec<VfioUser>,
    pub(crate) qemu_args: Vec<String>,
    pub(crate) counts: bool,
    pub(crate) timeout: Duration,
}

/// Memory of a machine: one NUMA node with memory. All of it can be shared with a
/// vfio-user server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryNode {
    /// Size in MiB.
    pub mib: u64,
    /// The file whose bytes it is; anonymous if there is none. The file is extended to
    /// the size if it is shorter.
    pub file: Option<PathBuf>,
}

/// A vfio-user device, behind a PCI Express root port of its own: the n-th device's port
/// is at slot n (from 1) of the root bus, so its ACPI path on x86-64 is
/// `\_SB.PCI0.S08.S00`, `\_SB.PCI0.S10.S00` and so on; or the port is alone on a root bus of
/// its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfioUser {
    /// QEMU's id of the device; the port's is `rp-` and this.
    pub id: String,
    /// The server's socket.
    pub socket: PathBuf,
    /// Time that QEMU waits for a reply: [`HANG`] unless it is told otherwise, and QEMU's own default
    /// of 5 s, which a server on a busy machine may miss, if none.
    pub message_timeout: Option<Duration>,
    /// Further properties of the root port, such as `pref64-reserve=256G`.
    pub port_options: Vec<String>,
    /// The root bus that the port is alone on, at slot 0; none for the machine's first one.
    pub root_bus: Option<RootBus>,
}

/// A root bus on a NUMA node, as each socket of a machine with several has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootBus {
    /// Number of the bus. The port's bus has the next number.
    pub number: u8,
    /// The node of the CPUs that it is near.
    pub node: u32,
}

impl VfioUser {
    /// A device with QEMU's defaults.
    #[must_use]
    pub fn new(id: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            socket: socket.into(),
            message_timeout: Some(HANG),
            port_options: Vec::new(),
            root_bus: None,
        }
    }
}

/// A module that the machine gets.
#[derive(Clone, Debug)]
pub(crate) struct ModuleWish {
    pub(crate) source: ModuleSource,
    pub(crate) parameters: String,
    pub(crate) loads_at_boot: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum ModuleSource {
    Named(String),
    File(PathBuf),
}

/// A file that the machine gets.
#[derive(Clone, Debug)]
pub(crate) struct GuestFile {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) contents: Contents,
}

#[derive(Clone, Debug)]
pub(crate) enum Contents {
    Bytes(Vec<u8>),
    Host(PathBuf),
}

impl Vm {
    /// A machine with 1 GiB of memory and two processors. An architecture alone means Debian's
    /// ordinary kernel.
    #[must_use]
    pub fn new(flavour: impl Into<Flavour>) -> Self {
        let flavour = flavour.into();
        let arch = flavour.arch();
        let cpu = match arch {
            Arch::Aarch64 => "max,pauth-impdef=on",
            Arch::X86_64 => "max",
        };
        let machine_options = match arch {
            Arch::Aarch64 => vec!["virt".to_owned(), "gic-version=3".to_owned()],
            Arch::X86_64 => vec!["q35".to_owned()],
        };
        Self {
            arch,
            flavour,
            name: format!("vm-{flavour}"),
            kernel: None,
            machine_options,
            cpu: cpu.to_owned(),
            cpus: 2,
            memory: vec![MemoryNode {
                mib: MEMORY_MIB,
                file: None,
            }],
            sockets: 1,
            memoryless_nodes: 0,
            cmdline: Vec::new(),
            modules: Vec::new(),
            files: Vec::new(),
            tables: Vec::new(),
            shares: Vec::new(),
            iommu: false,
            devices: Vec::new(),
            qemu_args: Vec::new(),
            counts: false,
            timeout: HANG,
        }
    }

    /// The architecture.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Kernel of the lab that the machine runs, unless another was given.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// A name, for messages and log files.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Another kernel than the lab's.
    #[must_use]
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// A further option of the machine type, such as `highmem-mmio-size=1T`.
    #[must_use]
    pub fn machine(mut self, option: impl Into<String>) -> Self {
        self.machine_options.push(option.into());
        self
    }

    /// Another processor model, with its options.
    #[must_use]
    pub fn cpu(mut self, model: impl Into<String>) -> Self {
        self.cpu = model.into();
        self
    }

    /// Makes the machine's clock count instructions: each takes a nanosecond, as long as a processor
    /// has something to do. What it measures is then the same each time, however busy its host is.
    #[must_use]
    pub fn count_instructions(mut self) -> Self {
        self.counts = true;
        self
    }

    /// Number of processors.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Size of the memory in MiB, in one node.
    #[must_use]
    pub fn memory(mut self, mib: u64) -> Self {
        self.memory = vec![MemoryNode { mib, file: None }];
        self
    }

    /// The memory node by node; the first node has the processors, unless there are more
    /// [sockets](Self::sockets).
    #[must_use]
    pub fn memory_nodes(mut self, nodes: impl IntoIterator<Item = MemoryNode>) -> Self {
        self.memory = nodes.into_iter().collect();
        self
    }

    /// Number of sockets, which share out the processors evenly; each is a NUMA node, from the
    /// first.
    #[must_use]
    pub fn sockets(mut self, count: u32) -> Self {
        self.sockets = count;
        self
    }

    /// Number of NUMA nodes without memory, after the nodes with memory.
    #[must_use]
    pub fn memoryless_nodes(mut self, count: u32) -> Self {
        self.memoryless_nodes = count;
        self
    }

    /// Further words of the kernel's command line.
    #[must_use]
    pub fn cmdline(mut self, words: impl Into<String>) -> Self {
        self.cmdline.push(words.into());
        self
    }

    /// Loads a module of the kernel at boot, and what it depends on before it.
    #[must_use]
    pub fn module(self, name: impl Into<String>) -> Self {
        self.module_with(name, "")
    }

    /// [`Vm::module`] with parameters, as `insmod` takes them.
    #[must_use]
    pub fn module_with(self, name: impl Into<String>, parameters: impl Into<String>) -> Self {
        self.wish(ModuleSource::Named(name.into()), parameters.into(), true)
    }

    /// Loads a module file of one's own at boot, and what it depends on before it.
    #[must_use]
    pub fn module_file(self, path: impl Into<PathBuf>) -> Self {
        self.wish(ModuleSource::File(path.into()), String::new(), true)
    }

    /// Puts a module into the machine for [`Running::modprobe`], without loading it.
    #[must_use]
    pub fn module_later(self, name: impl Into<String>) -> Self {
        self.wish(ModuleSource::Named(name.into()), String::new(), false)
    }

    /// Puts a file with these bytes at an absolute path of the machine.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let contents = Contents::Bytes(bytes.into());
        self.files.push(GuestFile {
            path: path.into(),
            mode: 0o644,
            contents,
        });
        self
    }

    /// Puts a file of this machine at an absolute path of the other, permissions kept.
    #[must_use]
    pub fn host_file(mut self, path: impl Into<String>, host: impl Into<PathBuf>) -> Self {
        let contents = Contents::Host(host.into());
        self.files.push(GuestFile {
            path: path.into(),
            mode: 0,
            contents,
        });
        self
    }

    /// Puts programs of a fetched set into the machine, at their own paths, with the
    /// shared libraries that they need. `programs` are absolute paths such as
    /// `/usr/bin/lspci`.
    ///
    /// # Errors
    /// [`crate::LabError::Missing`] if a program or a library is not in the set.
    pub fn programs(mut self, tree: &Tree, programs: &[&str]) -> Result<Self> {
        for (path, host) in closure::of(tree, self.arch, programs)? {
            self = self.host_file(path, host);
        }
        Ok(self)
    }

    /// An ACPI table (AML with its header) that the kernel adds at boot.
    #[must_use]
    pub fn acpi_table(mut self, table: impl Into<Vec<u8>>) -> Self {
        self.tables.push(table.into());
        self
    }

    /// Exports a folder read-only; the machine has it at `/share/TAG`.
    #[must_use]
    pub fn share(mut self, folder: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        self.shares.push((folder.into(), tag.into()));
        self
    }

    /// An IOMMU that works with vfio-user devices: `intel-iommu` with caching mode, or
    /// `virtio-iommu` with its driver loaded before every other module.
    #[must_use]
    pub fn iommu(mut self) -> Self {
        self.iommu = true;
        self
    }

    /// Attaches a vfio-user device with QEMU's defaults.
    #[must_use]
    pub fn vfio_user(self, id: impl Into<String>, socket: &Path) -> Self {
        self.device(VfioUser::new(id, socket))
    }

    /// Attaches a vfio-user device.
    #[must_use]
    pub fn device(mut self, device: VfioUser) -> Self {
        self.devices.push(device);
        self
    }

    /// Further arguments of QEMU, at the end of its command line.
    #[must_use]
    pub fn qemu_args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.qemu_args.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Time limit of booting.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Starts the machine and waits for its agent.
    ///
    /// # Errors
    /// What keeps it from being started, [`crate::LabError::Description`] if the
    /// description makes no sense, [`crate::LabError::Vm`] if it does not come up in
    /// time or not as described.
    pub fn boot(&self) -> Result<Running> {
        Running::boot(self)
    }

    /// Starts the machine with its console on this terminal, for a person; returns when
    /// it has been switched off.
    ///
    /// # Errors
    /// What keeps it from being started.
    pub fn shell(&self) -> Result<()> {
        let launch = launch::prepare(self, Mode::Shell)?;
        let mut command = launch.command;
        let status = command
            .status()
            .map_err(|source| command::unstartable(&command, source))?;
        if status.success() {
            return Ok(());
        }
        Err(command::failed(&command, &status.to_string(), "").into())
    }

    fn wish(mut self, source: ModuleSource, parameters: String, loads_at_boot: bool) -> Self {
        self.modules.push(ModuleWish {
            source,
            parameters,
            loads_at_boot,
        });
        self
    }
}
