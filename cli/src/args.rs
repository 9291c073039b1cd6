//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use varia_facts::Bdf;
use varia_firmware::{Access, ProximityDomain};
use varia_plan::Arch;

use crate::size::Size;

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
    /// Serve an emulated device to a VMM over vfio-user.
    #[command(after_help = "Example:\n  varia serve gh200 --socket /tmp/gh200.sock --memory 96G")]
    Serve(ServeArgs),
    /// Show what a VM would see of a device.
    #[command(after_help = "Example:\n  varia inspect gh200 --memory 96G+300M --svg layout.svg")]
    Inspect(InspectArgs),
    /// Start QEMU with a device, its NUMA nodes and Generic Initiators.
    #[command(
        after_help = "Example:\n  varia run gh200 --arch aarch64 --disk guest.qcow2 --dry-run"
    )]
    Run(RunArgs),
    /// Show the PCI devices of a host that variant drivers serve.
    #[command(after_help = "Example:\n  varia list --sysfs host.tar --json")]
    List(ListArgs),
    /// Plan a VM that has GPUs, as QEMU's arguments or libvirt's XML.
    #[command(
        after_help = "Example:\n  varia plan --gpu gh200 --cpus 16 --memory 64G\n  varia plan --gpu gh200 --gpu gh200 --vmm libvirt\n  varia plan --gpu gb200:2-of-one-superchip --explain"
    )]
    Plan(PlanArgs),
    /// Say what is missing or wrong for the GPUs in a definition of a VM that there is already.
    #[command(
        after_help = "Exits with 0 if nothing is, 1 if something is, 2 if the definition can't be judged.\n\nExample:\n  varia explain vm.xml --gpu 0009:01:00.0=gh200\n  varia explain vm.sh --gpu 0009:01:00.0=gh200 --json"
    )]
    Explain(ExplainArgs),
    /// Write the ACPI tables that tie GPUs to NUMA nodes, for VMMs that make none.
    #[command(
        after_help = "Example:\n  varia tables --gpu gh200 --out /tmp/tables\n  varia tables --gpu gh200 --access 0,0=110,450000 --out /tmp/tables"
    )]
    Tables(TablesArgs),
    /// Check what a VM with GPUs needs: of this host, of a device, of a plan. Changes nothing;
    /// fails if a check does.
    #[command(
        after_help = "Example:\n  varia doctor --sysfs host.tar\n  varia doctor 0009:01:00.0 --sysfs host.tar --json"
    )]
    Doctor(DoctorArgs),
    /// Keep what `list` reads of a host in a file, without serial numbers.
    #[command(after_help = "Example:\n  varia capture host.tar")]
    Capture(CaptureArgs),
    /// Bind devices to the VFIO drivers that are best for them.
    #[command(after_help = "Example:\n  varia bind 0009:01:00.0 --dry-run --sysfs host.tar")]
    Bind(BindArgs),
    /// Give devices back to the drivers that they had before `bind`.
    #[command(after_help = "Example:\n  varia unbind 0009:01:00.0")]
    Unbind(UnbindArgs),
    /// Print what makes a shell complete `varia`'s commands and options.
    #[command(
        after_help = "Example:\n  varia completions bash > ~/.local/share/bash-completion/completions/varia"
    )]
    Completions(CompletionsArgs),
    /// Write manual pages, for packages: one for `varia` and one for each command.
    #[command(after_help = "Example:\n  varia man --out man1")]
    Man(ManArgs),
}

/// Which host.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostArgs {
    /// Another host than this machine: a file of `varia capture`, or a folder with a sysfs.
    #[arg(long, value_name = "DIR|FILE")]
    pub(crate) sysfs: Option<PathBuf>,
}

/// Which host, or what is known of it.
#[derive(Clone, Debug, Args)]
pub(crate) struct KnownHostArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// What is known of the host, as `varia list --facts` prints it.
    #[arg(long, value_name = "FILE", conflicts_with = "sysfs")]
    pub(crate) facts: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Show every PCI function.
    #[arg(long)]
    pub(crate) all: bool,
    /// Look at the devices' registers; refused while one of them is open.
    #[arg(long)]
    pub(crate) probe: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print all that is known of the host, as other commands read it (JSON).
    #[arg(long, conflicts_with = "json")]
    pub(crate) facts: bool,
}

/// What renders a plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Vmm {
    /// QEMU's command line.
    Qemu,
    /// libvirt's domain XML.
    Libvirt,
}

/// How devices reach a VM's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum IommuArg {
    /// What this host can do.
    Auto,
    /// VFIO's containers.
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

/// Which VM.
#[derive(Clone, Debug, Args)]
pub(crate) struct VmArgs {
    /// A PCI address; N-of-one-superchip for GPUs that share a Grace CPU; a chip (gh200, gb200,
    /// gb300, gb200:2-of-one-superchip) to plan for a host that has it. May be given again.
    #[arg(long, value_name = "WHAT", required = true)]
    pub(crate) gpu: Vec<String>,
    #[command(flatten)]
    pub(crate) known: KnownHostArgs,
    /// The VM's name.
    #[arg(long, value_name = "NAME", default_value = "gpu-vm")]
    pub(crate) name: String,
    /// Virtual CPUs, shared out among the sockets whose GPUs it has.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) cpus: u32,
    /// RAM, shared out likewise.
    #[arg(long, value_name = "SIZE", default_value = "8G")]
    pub(crate) memory: Size,
    /// Back RAM with hugepages of this size, for example 2M or 512M.
    #[arg(long, value_name = "SIZE")]
    pub(crate) hugepages: Option<Size>,
    /// Memory-less NUMA nodes for each GPU: 8 where MIG is used, 1 is enough where not.
    #[arg(long, value_name = "N", default_value_t = varia_plan::NODES_PER_GPU)]
    pub(crate) nodes_per_gpu: u32,
    /// How devices reach the VM's memory.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) iommu: IommuArg,
    /// Don't tie virtual CPUs to CPUs of the host.
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Give it Extended GPU Memory.
    #[arg(long)]
    pub(crate) egm: bool,
    /// Firmware for the VM [default for arm64: where Debian has it]
    #[arg(long, value_name = "FILE")]
    pub(crate) firmware: Option<PathBuf>,
    /// A kernel for the VM, which then needs no disk to start from.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// An initramfs for the kernel.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line, after the console's.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub(crate) append: Option<String>,
    /// A disk image; may be given again.
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Whose language to print it in.
    #[arg(long, value_enum, default_value = "qemu")]
    pub(crate) vmm: Vmm,
    /// One more argument for QEMU, such as -nographic; may be given again.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) qemu_arg: Vec<String>,
    /// Say why each part is there.
    #[arg(long, conflicts_with = "json")]
    pub(crate) explain: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the topology into this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A PCI address, or a file with a plan (`varia plan --json`), `-` for standard input
    /// [default: the host and all devices that variant drivers serve]
    #[arg(value_name = "BDF|PLAN")]
    pub(crate) what: Option<String>,
    #[command(flatten)]
    pub(crate) known: KnownHostArgs,
    /// Look at the devices' registers, unless one of them is open.
    #[arg(long, conflicts_with = "facts")]
    pub(crate) probe: bool,
    /// This QEMU instead of the one in PATH.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sysfs", "facts"])]
    pub(crate) qemu: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// libvirt's domain XML, a script with a QEMU command line, or /proc/PID/cmdline; - reads
    /// standard input.
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// The chip (gh200, gb200, gb300) of a function in it, by its address on the host or its id
    /// in the VM, where the host is another one. May be given again.
    #[arg(long, value_name = "BDF|ID=CHIP")]
    pub(crate) gpu: Vec<GpuName>,
    #[command(flatten)]
    pub(crate) known: KnownHostArgs,
    /// Memory-less NUMA nodes for each GPU [default: what firmware sets aside, or 8]
    #[arg(long, value_name = "N")]
    pub(crate) nodes_per_gpu: Option<u32>,
    /// Write the corrected definition into this file, too.
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
                "{text:?} names no GPU and its chip: write 0009:01:00.0=gh200"
            )),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TablesArgs {
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// The folder to write to; made if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// How fast the VM's node FROM reaches the memory of node TO, for HMAT, as FROM,TO=NS,MB/S;
    /// may be given again [default: what the host's firmware says of its own nodes]
    #[arg(long, value_name = "ACCESS")]
    pub(crate) access: Vec<AccessArg>,
}

/// How fast a node reaches another's memory.
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
    #[arg(required = true, value_name = "BDF")]
    pub(crate) devices: Vec<Bdf>,
    /// This driver, in either spelling, instead of the best of each device.
    #[arg(long, value_name = "NAME")]
    pub(crate) driver: Option<String>,
    /// This driver where the best one refuses the device; without it the device is left as it was.
    #[arg(long, value_name = "NAME")]
    pub(crate) fallback: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Another host, for --dry-run.
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Where to keep what devices were bound to before.
    #[arg(long, value_name = "DIR", default_value = varia_linux::bind::Live::STATE)]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UnbindArgs {
    /// PCI addresses, such as 0009:01:00.0
    #[arg(required = true, value_name = "BDF")]
    pub(crate) devices: Vec<Bdf>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Where `bind` kept what devices were bound to before.
    #[arg(long, value_name = "DIR", default_value = varia_linux::bind::Live::STATE)]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// The file to write, a tar archive.
    pub(crate) file: PathBuf,
    /// Read the configuration spaces of devices that variant drivers serve, too.
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
    /// Whose completions.
    pub(crate) shell: Shell,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write to; made if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Which device.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// The profile: gh200-120gb (or gh200), gh200-480gb, gb200, gb300, gb300-cxl (or cxl), nic.
    pub(crate) profile: String,
    /// Coherent memory, for example 96G or 96G+300M [default: what the chip has]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
}

/// How the device behaves, for tests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BehaviourArgs {
    /// Keep the coherent memory in this file (made if absent) instead of a memfd.
    #[arg(long, value_name = "FILE")]
    pub(crate) backing: Option<PathBuf>,
    /// Host-physical address of the coherent memory, for example 0x80000000 [default: assumed]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) base: Option<Size>,
    /// The memory is ready so many seconds after power-on and after each reset, or never.
    #[arg(long, value_name = "SECONDS|never")]
    pub(crate) ready_after: Option<ReadyAfter>,
    /// Break something: c2c-down, size-zero, no-properties, lost-after-resets=N,
    /// poisoned-page=OFFSET or gone-after=SECONDS; may be given again.
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Vec<Fault>,
}

/// When the memory is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadyAfter {
    Seconds(u64),
    Never,
}

impl std::str::FromStr for ReadyAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self::Never),
            text => text
                .parse()
                .map(Self::Seconds)
                .map_err(|_| format!("{text:?} is neither a number of seconds nor \"never\"")),
        }
    }
}

/// Something broken; see [`varia_silicon::Faults`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    C2cDown,
    SizeZero,
    NoProperties,
    LostAfterResets(u64),
    PoisonedPage(Size),
    GoneAfter(u64),
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("c2c-down", None) => Ok(Self::C2cDown),
            ("size-zero", None) => Ok(Self::SizeZero),
            ("no-properties", None) => Ok(Self::NoProperties),
            ("lost-after-resets", Some(count)) => count
                .parse()
                .map(Self::LostAfterResets)
                .map_err(|_| format!("{count:?} is not a number of resets")),
            ("poisoned-page", Some(offset)) => offset
                .parse()
                .map(Self::PoisonedPage)
                .map_err(|error| format!("{offset:?} is no offset in the memory: {error}")),
            ("gone-after", Some(seconds)) => seconds
                .parse()
                .map(Self::GoneAfter)
                .map_err(|_| format!("{seconds:?} is not a number of seconds")),
            _ => Err(format!(
                "there is no fault {text:?}: use c2c-down, size-zero, no-properties, \
                 lost-after-resets=N, poisoned-page=OFFSET or gone-after=SECONDS"
            )),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::C2cDown => f.write_str("c2c-down"),
            Self::SizeZero => f.write_str("size-zero"),
            Self::NoProperties => f.write_str("no-properties"),
            Self::LostAfterResets(count) => write!(f, "lost-after-resets={count}"),
            Self::PoisonedPage(offset) => write!(f, "poisoned-page={}", offset.argument()),
            Self::GoneAfter(seconds) => write!(f, "gone-after={seconds}"),
        }
    }
}

/// Which side of the device is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum As {
    /// What a VM sees: BAR0, BAR2 = resmem, BAR4 = usemem.
    Virtual,
    /// What the machine that owns it sees: bare silicon.
    Physical,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourArgs,
    /// Which side of the device the client sees.
    #[arg(long = "as", value_enum, default_value_t = As::Virtual)]
    pub(crate) view: As,
    /// The socket [default: varia-PROFILE.sock in $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Fail reads and writes of the memory while memory is disabled in the command register.
    #[arg(long)]
    pub(crate) honour_memory_enable: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw the layout to scale into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourArgs,
    /// The guest's architecture: aarch64 or x86_64.
    #[arg(long, default_value = "aarch64")]
    pub(crate) arch: Arch,
    /// Print the command and start nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A kernel for the guest.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// An initramfs for the kernel.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line, after the console's.
    #[arg(long, value_name = "TEXT", requires = "kernel")]
    pub(crate) append: Option<String>,
    /// A disk image to boot from.
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Option<PathBuf>,
    /// The guest's own memory.
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    pub(crate) ram: Size,
    /// The guest's CPUs.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cpus: u32,
    /// Memory-less NUMA nodes for the device [default: 8 if it has coherent memory, else none]
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u32>,
    /// QEMU itself [default: qemu-system-ARCH in $PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) qemu: Option<PathBuf>,
    /// Firmware for the guest [default for aarch64: where distributions put it]
    #[arg(long, value_name = "FILE")]
    pub(crate) bios: Option<PathBuf>,
    /// One more argument for QEMU; may be given again.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) qemu_arg: Vec<String>,
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
