//! The options of `varia host` and `varia host-fault`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use varia_facts::Bytes;

/// Host to play.
#[derive(Clone, Debug, Args)]
pub(crate) struct BareHostArgs {
    /// The topology: gh200, gh200-x4, gb200-x2 or gb300 (aarch64).
    pub(crate) topology: String,
    /// The disk image that the host boots from, raw or qcow2.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) disk: PathBuf,
    /// Leave the image as it is: what the host writes is lost at its end.
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// Forward this port of 127.0.0.1 to the host's port 22; 0 chooses a free port.
    #[arg(long, value_name = "PORT")]
    pub(crate) ssh: Option<u16>,
    /// Print a line of JSON once the host can be used: with --ssh once its SSH server answers, else
    /// once its console asks for a login. The console goes to a file of the directory.
    #[arg(long)]
    pub(crate) wait_ready: bool,
    /// Coherent memory of each GPU, sparse [default: the chip's own size]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Bytes>,
    /// RAM of the host.
    #[arg(long, value_name = "SIZE", default_value = "4G")]
    pub(crate) ram: Bytes,
    /// CPUs of the host [default: 2, or 1 for each of more sockets]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) cpus: Option<u32>,
    /// Memory-less NUMA nodes for each GPU [default: 8, or fewer that 16 nodes in all have room for]
    #[arg(long, value_name = "N")]
    pub(crate) nodes_per_gpu: Option<u32>,
    /// Accelerator.
    #[arg(long, value_enum, default_value_t = AcceleratorArg::Auto)]
    pub(crate) accel: AcceleratorArg,
    /// The directory of sockets and console, which one host holds at a time [default: varia-host in
    /// $XDG_RUNTIME_DIR or the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// Print QEMU's command without starting anything.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Draw the topology into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// QEMU itself [default: qemu-system-ARCH in $PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) qemu: Option<PathBuf>,
    /// Firmware of the host [default for aarch64: the distributions' paths]
    #[arg(long, value_name = "FILE")]
    pub(crate) bios: Option<PathBuf>,
    /// One more argument for QEMU; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) qemu_arg: Vec<String>,
}

/// Component that runs the host's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum AcceleratorArg {
    /// KVM if this machine has the host's architecture and a KVM that can be opened, else TCG.
    Auto,
    /// The CPUs of this machine.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// Fault to inject into a running host.
#[derive(Clone, Debug, Args)]
pub(crate) struct HostFaultArgs {
    /// The GPU, by its number from 0.
    pub(crate) gpu: u32,
    /// The fault, in place of those before.
    #[arg(value_enum)]
    pub(crate) fault: HostFault,
    /// The host's directory [default: as of varia host]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// A fault of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum HostFault {
    /// The link between CPU and GPU is down: the registers never say ready.
    LinkDown,
    /// The memory does not become ready again after a reset.
    ReadinessLost,
    /// The first page of the memory is poisoned.
    PoisonedPage,
    /// The function has left the bus: registers read as ones.
    Gone,
    /// No fault.
    None,
}
