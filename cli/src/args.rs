//! The command line.

mod bare_host;
mod cluster;
mod emulated;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use varia_facts::{Bdf, Bytes};
use varia_firmware::{Access, ProximityDomain};

use crate::assume::Assume;

pub(crate) use bare_host::{AcceleratorArg, BareHostArgs, HostFault, HostFaultArgs};
pub(crate) use cluster::{NodeAccess, NodeArgs, NodeCommand, NodeRunArgs, NodeStatusArgs};
pub(crate) use emulated::{
    AddArgs, As, BehaviourArgs, CtlArgs, CtlRequest, DeviceArgs, ExtensionArg, Fault, InspectArgs,
    LayoutArg, MemoryEnable, ReadyAfter, RunArgs, ServeArgs, ShapeArgs,
};

/// Help of a command that judges: its exit statuses, and examples.
macro_rules! concat_help {
    ($text:literal) => {
        format!("{}\n\n{}", crate::status::HELP, $text)
    };
}

/// VFIO PCI variant devices, emulated and real, for virtual machines.
#[derive(Debug, Parser)]
#[command(name = "varia", version)]
pub(crate) struct Varia {
    /// Log more.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve emulated devices to VMMs over vfio-user.
    #[command(
        after_help = "Example:\n  varia serve gh200 --socket /tmp/gh200.sock --memory 96G\n  varia serve gb200:4 --memory 1G --directory /tmp/run"
    )]
    Serve(ServeArgs),
    /// Administer a running `varia serve` that has a directory of sockets.
    #[command(
        after_help = "Example:\n  varia ctl --directory /tmp/run list\n  varia ctl --directory /tmp/run add nic --name nic-7"
    )]
    Ctl(CtlArgs),
    /// Show the BARs and registers that a VM would see of a device.
    #[command(after_help = "Example:\n  varia inspect gh200 --memory 96G+300M --svg layout.svg")]
    Inspect(InspectArgs),
    /// Start QEMU with a device, its NUMA nodes and Generic Initiators.
    #[command(
        after_help = "Example:\n  varia run gh200 --arch aarch64 --disk guest.qcow2 --dry-run"
    )]
    Run(RunArgs),
    /// Boot a disk image as a host of GPUs: bare silicon, an IOMMU, and coherent memory at its own
    /// addresses.
    #[command(
        after_help = "Example:\n  varia host gb200-x2 --disk debian.img --ssh 2222 --snapshot --dry-run"
    )]
    Host(BareHostArgs),
    /// Inject a fault into a GPU of a running `varia host`.
    #[command(after_help = "Example:\n  varia host-fault 0 link-down")]
    HostFault(HostFaultArgs),
    /// Show the PCI devices of a host that variant drivers serve.
    #[command(after_help = "Example:\n  varia list --sysfs host.tar --json")]
    List(ListArgs),
    /// Plan a VM that has GPUs, as QEMU's arguments or libvirt's XML.
    #[command(
        after_help = "Example:\n  varia plan --gpu gh200 --cpus 16 --memory 64G\n  varia plan --gpu gh200 --gpu gh200 --vmm libvirt\n  varia plan --gpu gb200:2-of-one-superchip --explain"
    )]
    Plan(PlanArgs),
    /// Find faults of the GPUs in an existing VM definition, and print the corrections as a diff.
    #[command(
        after_help = concat_help!("Example:\n  varia explain vm.xml --gpu 0009:01:00.0=gh200\n  varia explain vm.sh --gpu 0009:01:00.0=gh200 --json")
    )]
    Explain(ExplainArgs),
    /// Write the ACPI tables that tie GPUs to NUMA nodes, for VMMs that write none themselves.
    #[command(
        after_help = "Example:\n  varia tables --gpu gh200 --out /tmp/tables\n  varia tables --gpu gh200 --access 0,0=110,450000 --out /tmp/tables"
    )]
    Tables(TablesArgs),
    /// Check this host, a device or a plan for the requirements of a VM with GPUs. Changes
    /// nothing; fails if a check fails.
    #[command(
        after_help = concat_help!("Example:\n  varia doctor --sysfs host.tar\n  varia doctor 0009:01:00.0 --sysfs host.tar --json")
    )]
    Doctor(DoctorArgs),
    /// Write everything that `list` reads of a host to a file, without serial numbers.
    #[command(after_help = "Example:\n  varia capture host.tar")]
    Capture(CaptureArgs),
    /// Bind devices to their best VFIO drivers.
    #[command(
        after_help = "Example:\n  varia bind 0009:01:00.0 --dry-run --sysfs host.tar\n  varia bind 0009:01:00.0 --persist --dry-run --sysfs host.tar"
    )]
    Bind(BindArgs),
    /// Bind devices to the drivers that they had before `bind` since the machine started, and forget
    /// what --persist saved.
    #[command(after_help = "Example:\n  varia unbind 0009:01:00.0")]
    Unbind(UnbindArgs),
    /// Offer the GPUs of a host to Kubernetes, as a device plugin.
    #[command(after_help = "Example:\n  varia node status --sysfs host.tar")]
    Node(NodeArgs),
    /// Print shell completions of `varia`'s commands and options.
    #[command(
        after_help = "Example:\n  varia completions bash > ~/.local/share/bash-completion/completions/varia"
    )]
    Completions(CompletionsArgs),
    /// Write manual pages, for packages: one for `varia` and one for each command.
    #[command(after_help = "Example:\n  varia man --out man1")]
    Man(ManArgs),
}

/// Host to read.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostArgs {
    /// Another host than this machine: a file of `varia capture`, or a directory with a sysfs.
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) sysfs: Option<PathBuf>,
}

/// Host to read, or facts of a host.
#[derive(Clone, Debug, Args)]
pub(crate) struct KnownHostArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Facts of the host, as `varia list --facts` prints them.
    #[arg(long, value_name = "FILE", conflicts_with = "sysfs")]
    pub(crate) facts: Option<PathBuf>,
    /// A version in the place of the host's, where the host can't be asked, with features of a
    /// vendor's build or options of a kernel: QEMU=10.1+arm-smmuv3.accel, LIBVIRT=12.8,
    /// KERNEL=6.17+VFIO_PCI_DMABUF. May be repeated.
    #[arg(long, value_name = "QEMU|LIBVIRT|KERNEL=VERSION[+FEATURE,...]")]
    pub(crate) assume: Vec<Assume>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Show every PCI function.
    #[arg(long)]
    pub(crate) all: bool,
    /// Read the devices' registers; refused while one of the devices is open.
    #[arg(long)]
    pub(crate) probe: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the facts of the host as JSON, for --facts of other commands.
    #[arg(long, conflicts_with = "json")]
    pub(crate) facts: bool,
}

/// Renderer of a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Vmm {
    /// QEMU's command line.
    Qemu,
    /// libvirt's domain XML.
    Libvirt,
}

/// Backend by which devices reach a VM's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum IommuArg {
    /// The best backend that this host supports.
    Auto,
    /// VFIO containers.
    Type1,
    /// /dev/iommu.
    Iommufd,
}

impl From<IommuArg> for varia_plan::IommuChoice {
    fn from(arg: IommuArg) -> Self {
        match arg {
            IommuArg::Auto => Self::Auto,
            IommuArg::Type1 => Self::Type1,
            IommuArg::Iommufd => Self::Iommufd,
        }
    }
}

/// VM to plan.
#[derive(Clone, Debug, Args)]
pub(crate) struct VmArgs {
    /// A PCI address; N-of-one-superchip for GPUs that share a Grace CPU; a chip such as
    /// gh200, or gb200:2-of-one-superchip, to plan for a host with this chip; an unknown name lists
    /// all chips. May be repeated.
    #[arg(long, value_name = "WHAT", required = true)]
    pub(crate) gpu: Vec<String>,
    #[command(flatten)]
    pub(crate) known: KnownHostArgs,
    /// The VM's name.
    #[arg(long, value_name = "NAME", default_value = "gpu-vm")]
    pub(crate) name: String,
    /// Virtual CPUs, distributed over the sockets of the VM's GPUs.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) cpus: u32,
    /// RAM, distributed over the same sockets.
    #[arg(long, value_name = "SIZE", default_value = "8G")]
    pub(crate) memory: Bytes,
    /// Back RAM with hugepages of this size, for example 2M or 512M.
    #[arg(long, value_name = "SIZE")]
    pub(crate) hugepages: Option<Bytes>,
    /// Memory-less NUMA nodes for each GPU: 8 with MIG; 1 is enough without MIG.
    #[arg(long, value_name = "N", default_value_t = varia_plan::NODES_PER_GPU)]
    pub(crate) nodes_per_gpu: u32,
    /// Backend by which devices reach the VM's memory.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) iommu: IommuArg,
    /// Don't pin virtual CPUs to CPUs of the host.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Give the VM Extended GPU Memory.
    #[arg(long)]
    pub(crate) egm: bool,
    /// Firmware for the VM [default for arm64: Debian's path]
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Option<PathBuf>,
    /// A kernel for the VM, which then needs no disk to start.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// An initramfs for the kernel.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line, after the console's.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub(crate) append: Option<String>,
    /// A disk image; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Output format: the configuration of this VMM.
    #[arg(long, value_enum, default_value = "qemu")]
    pub(crate) vmm: Vmm,
    /// One more argument for QEMU, such as -nographic; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) qemu_arg: Vec<String>,
    /// Print the reason for each part.
    #[arg(long, conflicts_with = "json")]
    pub(crate) explain: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Also draw the topology into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A PCI address, a file with a plan (`varia plan --json`), a definition of a VM as `varia
    /// explain` reads it, or `-` for standard input [default: the host, its GPUs and the devices that
    /// are bound to VFIO]
    #[arg(value_name = "BDF|PLAN|DEFINITION")]
    pub(crate) what: Option<String>,
    #[command(flatten)]
    pub(crate) known: KnownHostArgs,
    /// Read the devices' registers, unless one of the devices is open.
    #[arg(long, conflicts_with = "facts")]
    pub(crate) probe: bool,
    /// Exit with status 1 for warnings, too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// QEMU [default: the one in PATH]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sysfs", "facts"])]
    pub(crate) qemu: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// libvirt's domain XML, a script with a QEMU command line, or /proc/PID/cmdline; `-` reads
    /// standard input.
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// The chip of a function in the definition, such as gh200 (an unknown name lists all chips);
    /// the function is named by its address on the host or by its id in the VM. For hosts other than
    /// this one. May be repeated.
    #[arg(long, value_name = "BDF|ID=CHIP")]
    pub(crate) gpu: Vec<GpuName>,
    #[command(flatten)]
    pub(crate) known: KnownHostArgs,
    /// Memory-less NUMA nodes for each GPU [default: the number that firmware reserves, or 8]
    #[arg(long, value_name = "N")]
    pub(crate) nodes_per_gpu: Option<u32>,
    /// Report and correct faults alone, without advice.
    #[arg(long, conflicts_with = "strict")]
    pub(crate) faults_only: bool,
    /// Exit with status 1 for advice, too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Also write the corrected definition into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A function and its chip.
#[derive(Clone, Debug)]
pub(crate) struct GpuName {
    pub(crate) name: String,
    pub(crate) chip: String,
}

impl std::str::FromStr for GpuName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, chip)) if !name.is_empty() && !chip.is_empty() => Ok(Self {
                name: name.to_owned(),
                chip: chip.to_owned(),
            }),
            _ => Err(format!(
                "{text:?} is not FUNCTION=CHIP: write for example 0009:01:00.0=gh200"
            )),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TablesArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Output directory; created if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Latency and bandwidth from the VM's node FROM to the memory of node TO, for HMAT, as
    /// FROM,TO=NS,MB/S; may be repeated [default: the values of the host's firmware]
    #[arg(long, value_name = "ACCESS")]
    pub(crate) access: Vec<AccessArg>,
}

/// Latency and bandwidth of a node's access to another node's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AccessArg(pub(crate) Access);

impl std::str::FromStr for AccessArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |text: &str| {
            let (first, second) = text.split_once(',')?;
            Some((first.parse().ok()?, second.parse().ok()?))
        };
        let parts = text.split_once('=');
        let parts = parts.and_then(|(nodes, speed)| Some((pair(nodes)?, pair(speed)?)));
        let ((initiator, target), (nanoseconds, megabytes_per_second)) = parts.ok_or_else(|| {
            format!(
                "{text:?} is not FROM,TO=NS,MB/S: give two nodes of the VM, nanoseconds and MB/s, \
                 such as 0,0=110,450000"
            )
        })?;
        Ok(Self(Access {
            initiator: ProximityDomain(initiator),
            target: ProximityDomain(target),
            nanoseconds,
            megabytes_per_second,
        }))
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BindArgs {
    /// PCI addresses, such as 0009:01:00.0
    #[arg(required_unless_present = "persisted", value_name = "BDF")]
    pub(crate) devices: Vec<Bdf>,
    /// Bind the devices at each start of the machine, too: saves the drivers in /etc/varia/bind.d,
    /// which varia-bind.service reads.
    #[arg(long)]
    pub(crate) persist: bool,
    /// Bind all devices that --persist saved, as the service does at each start.
    #[arg(long, conflicts_with_all = ["devices", "persist", "driver", "fallback", "strict", "dry_run"])]
    pub(crate) persisted: bool,
    /// Only keep other drivers from devices that --persist saved, as the udev rule does before a
    /// driver is loaded.
    #[arg(long, conflicts_with_all = ["persist", "persisted", "driver", "fallback", "strict", "dry_run"])]
    pub(crate) reserve: bool,
    /// Driver to bind, in either spelling [default: the best driver of each device]
    #[arg(long, value_name = "NAME")]
    pub(crate) driver: Option<String>,
    /// Driver to bind if the best driver refuses the device, or serves a GPU without the GPU's
    /// memory on a host [default: none, the device stays as it was]
    #[arg(long, value_name = "NAME")]
    pub(crate) fallback: Option<String>,
    /// Refuse a GPU that a VM would get without the GPU's memory, inside a VM too.
    #[arg(long, conflicts_with = "fallback")]
    pub(crate) strict: bool,
    /// Print the changes without making them.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Another host, for --dry-run.
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Directory for the record of previous drivers.
    #[arg(long, value_name = "DIR", default_value = varia_linux::bind::Live::STATE)]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UnbindArgs {
    /// PCI addresses, such as 0009:01:00.0
    #[arg(required = true, value_name = "BDF")]
    pub(crate) devices: Vec<Bdf>,
    /// Print the changes without making them.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Directory in which `bind` recorded the previous drivers.
    #[arg(long, value_name = "DIR", default_value = varia_linux::bind::Live::STATE)]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// The file to write, a tar archive.
    pub(crate) file: PathBuf,
    /// Also read the configuration spaces of devices that variant drivers serve.
    #[arg(long)]
    pub(crate) config: bool,
}

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Fish,
    Zsh,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for.
    pub(crate) shell: Shell,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// Output directory; created if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Varia::command().debug_assert();
    }

    #[test]
    fn a_size_that_cannot_be_read_is_refused_with_an_example() {
        let error = Varia::try_parse_from(["varia", "serve", "gh200", "--memory", "lots"])
            .expect_err("no size")
            .to_string();
        assert!(
            error.contains("lots") && error.contains("96G+300M"),
            "{error}"
        );
    }
}
