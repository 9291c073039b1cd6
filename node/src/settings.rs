//! Settings of the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Device nodes that a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `/dev/vfio/vfio` and the group's node.
    Group,
    /// `/dev/iommu` and the device's node.
    Cdev,
}

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domain of the resources' names.
    pub domain: String,
    /// Device nodes that a container gets; `None` for groups where `/dev/vfio/vfio` exists.
    pub access: Option<Access>,
    /// Binds the best driver when a device is allocated.
    pub binds: bool,
    /// Time between two refreshes of the facts.
    pub interval: Duration,
    /// Time between two polls of the kubelet's sockets and pods.
    pub poll: Duration,
    /// Time after which a device that no pod has is released.
    pub release_after: Duration,
    /// Longest wait for a device's memory before a container starts.
    pub ready_within: Duration,
    /// Directory of the device plugins' sockets and of the kubelet's.
    pub plugins: PathBuf,
    /// Socket of the PodResources API.
    pub pods: PathBuf,
    /// Address of metrics and health; `None` for none.
    pub http: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domain: "varia.vfio".to_owned(),
            access: None,
            binds: false,
            interval: Duration::from_secs(2),
            poll: Duration::from_secs(1),
            release_after: Duration::from_secs(30),
            // the kubelet gives up after 30 s
            ready_within: Duration::from_secs(25),
            plugins: "/var/lib/kubelet/device-plugins".into(),
            pods: "/var/lib/kubelet/pod-resources/kubelet.sock".into(),
            http: None,
        }
    }
}
