//! Plans without hardware, which any machine can start.

use std::path::PathBuf;

use crate::gpu::{Gpu, Source};
use crate::plan::{Accelerator, Backing, Iommu, Plan, Socket};

impl Plan {
    /// The same VM with vfio-user servers in the place of the host's functions, run by software,
    /// without what only hardware has: an IOMMU of the host, its nodes, CPUs and hugepages.
    /// `socket` says where the n-th GPU's server listens. Nothing else changes.
    #[must_use]
    pub fn without_hardware(&self, socket: impl Fn(usize) -> PathBuf) -> Self {
        let gpu = |(index, gpu): (usize, &Gpu)| {
            let mut gpu = gpu.clone();
            gpu.memory.source = Source::VfioUser(socket(index));
            gpu
        };
        let own = |socket: &Socket| Socket {
            backing: Backing::Pages,
            host_node: None,
            pins: Vec::new(),
            ..socket.clone()
        };
        Self {
            accelerator: Accelerator::Tcg,
            iommu: Iommu::None,
            gpus: self.gpus.iter().enumerate().map(gpu).collect(),
            sockets: self.sockets.iter().map(own).collect(),
            ..self.clone()
        }
    }
}
