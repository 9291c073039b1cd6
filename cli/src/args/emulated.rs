//! The options of the commands that emulate a device: serve, inspect, run.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use varia_facts::{Arch, Bytes};
use varia_variant::MemoryLayout;

/// Device to emulate.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeviceArgs {
    /// The profile, such as gh200, gb200 or nic; an unknown name lists all of them.
    pub(crate) profile: String,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

/// Coherent memory of a device.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ShapeArgs {
    /// Coherent memory, for example 96G or 96G+300M [default: the chip's own size]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// Form in which a VM gets the coherent memory [default: bar]
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub(crate) layout: Option<LayoutArg>,
    /// GPUDirect clique, 0 to 15: GPUs of one clique reach each other directly. For GPUs of NVIDIA.
    #[arg(long, value_name = "N")]
    pub(crate) gpudirect_clique: Option<u32>,
    /// Facts of the platform: device tree, zPCI [default: those of the profile, if it has any]
    #[arg(long, value_name = "FILE")]
    pub(crate) platform: Option<PathBuf>,
    /// Refuse the device unless this extension lies over it; a platform's facts select it by
    /// themselves. May be repeated.
    #[arg(long, value_enum, value_name = "EXTENSION")]
    pub(crate) extension: Vec<ExtensionArg>,
    /// Refuse a device that its variant leaves to the core.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// An extension; docs/variants.md describes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ExtensionArg {
    /// zPCI facts of s390, in the device's info, and error records.
    Zdev,
}

/// Form in which a VM gets coherent memory; docs/layouts.md compares the forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LayoutArg {
    /// BAR4, and BAR2 where the chip needs uncached memory.
    Bar,
    /// Device-specific regions that can only be mapped; BAR2 and BAR4 do not exist.
    Region,
    /// BAR2, of the physical BAR2's size.
    PhysicalBar,
}

impl From<LayoutArg> for MemoryLayout {
    fn from(layout: LayoutArg) -> Self {
        match layout {
            LayoutArg::Bar => Self::Bar,
            LayoutArg::Region => Self::Region,
            LayoutArg::PhysicalBar => Self::PhysicalBar,
        }
    }
}

/// Reads and writes of the coherent memory while memory is disabled in the command register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MemoryEnable {
    /// They reach the memory, as in Linux.
    Ignore,
    /// They fail with EIO; no BAR can be mapped then, so that each access is a message.
    Honour,
}

/// Behaviour of the device, for tests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BehaviourArgs {
    /// Keep the coherent memory in this file (created if absent) instead of a memfd.
    #[arg(long, value_name = "FILE")]
    pub(crate) backing: Option<PathBuf>,
    /// Host-physical address of the coherent memory, for example 0x80000000 [default: assumed]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) base: Option<Bytes>,
    /// Delay of readiness after power-on and after each reset, or never.
    #[arg(long, value_name = "SECONDS|never")]
    pub(crate) ready_after: Option<ReadyAfter>,
    /// Inject a fault: c2c-down, size-zero, no-properties, lost-after-resets=N,
    /// poisoned-page=OFFSET or gone-after=SECONDS; may be repeated.
    #[arg(long, value_name = "FAULT")]
    pub(crate) fault: Vec<Fault>,
    /// Give the device a copy engine in BAR0, which no chip has: DMA and MSI-X for tests
    /// (docs/guest.md).
    #[arg(long)]
    pub(crate) copy_engine: bool,
}

/// Time at which the memory becomes ready.
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

impl std::fmt::Display for ReadyAfter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// An injected fault; see [`varia_silicon::Faults`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    C2cDown,
    SizeZero,
    NoProperties,
    LostAfterResets(u64),
    PoisonedPage(Bytes),
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
                .map_err(|error| format!("{offset:?} is not an offset in the memory: {error}")),
            ("gone-after", Some(seconds)) => seconds
                .parse()
                .map(Self::GoneAfter)
                .map_err(|_| format!("{seconds:?} is not a number of seconds")),
            _ => Err(format!(
                "unknown fault {text:?}: use c2c-down, size-zero, no-properties, \
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
            Self::PoisonedPage(offset) => write!(f, "poisoned-page={}", offset.suffixed()),
            Self::GoneAfter(seconds) => write!(f, "gone-after={seconds}"),
        }
    }
}

/// View of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum As {
    /// The view of a VM: BAR0, BAR2 = resmem, BAR4 = usemem.
    Virtual,
    /// The view of the machine that owns the device: bare silicon.
    Physical,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// Profiles, such as gh200, gb200:8 or nic; an unknown name lists all of them. `:N` makes N
    /// devices. The other options hold for each device.
    #[arg(value_name = "PROFILE[:N]", required_unless_present = "config")]
    pub(crate) profiles: Vec<String>,
    /// Devices in a TOML file (docs/serve.md), besides those on the command line.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The directory of the sockets: one for each device, control.sock for `varia ctl`, metrics.sock
    /// for Prometheus [default for several devices: varia in $XDG_RUNTIME_DIR or the temporary
    /// directory]
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub(crate) directory: Option<PathBuf>,
    /// Use a listening socket that the process was started with, for the first device, then the
    /// second and so on; systemd's sockets are found without this option. May be repeated.
    #[arg(long, value_name = "fd:N", value_parser = inherited, conflicts_with = "socket")]
    pub(crate) listen: Vec<i32>,
    /// Don't confine the process after its start (landlock, seccomp).
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourArgs,
    /// View of the device for the client.
    #[arg(long = "as", value_enum, default_value_t = As::Virtual)]
    pub(crate) view: As,
    /// The socket [default: varia-PROFILE.sock in $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Reads and writes of the memory while memory is disabled in the command register.
    #[arg(long, value_enum, default_value_t = MemoryEnable::Ignore)]
    pub(crate) memory_enable: MemoryEnable,
    /// The same as --memory-enable honour.
    #[arg(long, conflicts_with = "memory_enable")]
    pub(crate) honour_memory_enable: bool,
    /// Drop a client that sends nothing for this time [default: a client may be silent for ever]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) idle_timeout: Option<u64>,
    /// Poll for this time after a message without sleeping: shorter answers, at the cost of a CPU
    /// while messages come so soon [default: 0; 50 if no number is given]
    #[arg(long, value_name = "MICROSECONDS", num_args = 0..=1, default_missing_value = "50")]
    pub(crate) spin: Option<u64>,
}

/// The descriptor in `fd:N`.
fn inherited(text: &str) -> Result<i32, String> {
    let number = text.strip_prefix("fd:").and_then(|n| n.parse().ok());
    number
        .filter(|fd| *fd > 2)
        .ok_or_else(|| format!("{text:?} is not fd:N with a descriptor from 3 on, as in fd:3"))
}

/// Administration of a running server.
#[derive(Clone, Debug, Args)]
pub(crate) struct CtlArgs {
    /// The server's directory, as of `varia serve --directory` [default: varia in $XDG_RUNTIME_DIR
    /// or the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) request: CtlRequest,
}

/// What a running server is asked for.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CtlRequest {
    /// Show all devices.
    List,
    /// Show a device: registers and BARs, mappings, messages.
    Inspect {
        /// Name of the device.
        device: String,
    },
    /// Add a device. Its files are opened by this command, and created if absent.
    Add(AddArgs),
    /// Remove a device. Its client loses the connection.
    Remove {
        /// Name of the device.
        device: String,
    },
    /// Reset a device.
    Reset {
        /// Name of the device.
        device: String,
    },
    /// Inject faults into a device in place of those before; without a fault, take them all away.
    Fault {
        /// Name of the device.
        device: String,
        /// The faults, as of `varia serve --fault`.
        faults: Vec<String>,
    },
}

/// A device for a running server.
#[derive(Clone, Debug, Args)]
pub(crate) struct AddArgs {
    /// The profile, such as gh200, gb200 or nic; an unknown name lists all of them.
    pub(crate) profile: String,
    /// Name of the device [default: the profile's name, with a number if it is taken]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourArgs,
    /// View of the device for the client.
    #[arg(long = "as", value_enum, default_value_t = As::Virtual)]
    pub(crate) view: As,
    /// Reads and writes of the memory while memory is disabled in the command register.
    #[arg(long, value_enum, default_value_t = MemoryEnable::Ignore)]
    pub(crate) memory_enable: MemoryEnable,
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
    /// Print QEMU's command without starting QEMU.
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
    pub(crate) ram: Bytes,
    /// The guest's CPUs.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cpus: u32,
    /// Memory-less NUMA nodes for the device [default: 8 for a device with coherent memory, else 0]
    #[arg(long, value_name = "N")]
    pub(crate) nodes: Option<u32>,
    /// QEMU itself [default: qemu-system-ARCH in $PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) qemu: Option<PathBuf>,
    /// Firmware for the guest [default for aarch64: the distributions' paths]
    #[arg(long, value_name = "FILE")]
    pub(crate) bios: Option<PathBuf>,
    /// One more argument for QEMU; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) qemu_arg: Vec<String>,
}
