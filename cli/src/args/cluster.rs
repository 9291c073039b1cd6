//! The command line of `varia node`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::HostArgs;

#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Offer the GPUs of this machine to the kubelet, until SIGTERM. What is handed out stays handed
    /// out.
    #[command(after_help = "Example:\n  varia node run --bind --http 127.0.0.1:9437")]
    Run(NodeRunArgs),
    /// Show the GPUs that would be offered, with their health, and what the kubelet will refuse.
    #[command(after_help = "Example:\n  varia node status --sysfs host.tar")]
    Status(NodeStatusArgs),
}

/// Device nodes that a container gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum NodeAccess {
    /// `/dev/vfio/vfio` and the node of the IOMMU group.
    Group,
    /// `/dev/iommu` and the node of the device.
    Cdev,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NodeRunArgs {
    /// Directory with the files of a host, instead of this machine; for tests.
    #[arg(long, value_name = "DIR")]
    pub(crate) sysfs: Option<PathBuf>,
    /// Directory of the host's ACPI tables, where /sys/firmware is hidden, as in a container
    /// [default: /sys/firmware/acpi/tables]
    #[arg(long, value_name = "DIR")]
    pub(crate) acpi: Option<PathBuf>,
    /// Bind the best driver when a GPU is allocated, and restore the previous driver when the GPU is
    /// released; never plain vfio-pci for a GPU that needs a variant driver.
    #[arg(long)]
    pub(crate) bind: bool,
    /// Domain of the resources' names, such as varia.vfio/gh200.
    #[arg(long, value_name = "NAME", default_value = "varia.vfio")]
    pub(crate) resource_domain: String,
    /// Device nodes that a container gets [default: group where /dev/vfio/vfio exists]
    #[arg(long, value_name = "KIND")]
    pub(crate) access: Option<NodeAccess>,
    /// Time between two reads of the host's facts, in seconds; events of the kernel cause reads, too.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub(crate) interval: Duration,
    /// Time after which a GPU that no pod has is released, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) release_after: Duration,
    /// Address of /metrics and /healthz [default: none]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// Directory of the device plugins' sockets.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/kubelet/device-plugins"
    )]
    pub(crate) plugins: PathBuf,
    /// Socket of the kubelet's PodResources API.
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/var/lib/kubelet/pod-resources/kubelet.sock"
    )]
    pub(crate) pods: PathBuf,
    /// Directory for what is handed out, and for the record of previous drivers.
    #[arg(long, value_name = "DIR", default_value = varia_linux::bind::Live::STATE)]
    pub(crate) state: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NodeStatusArgs {
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Domain of the resources' names.
    #[arg(long, value_name = "NAME", default_value = "varia.vfio")]
    pub(crate) resource_domain: String,
    /// Directory of what `varia node run` handed out.
    #[arg(long, value_name = "DIR", default_value = varia_linux::bind::Live::STATE)]
    pub(crate) state: PathBuf,
}

/// A time in whole seconds, at least one.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "{text:?} is not a time: give 1 to 86400 seconds, such as 5"
        )),
    }
}
