//! Plans of VMs whose GPUs are vfio-user servers, without devices of the host.

use std::path::PathBuf;

use varia_facts::{Arch, Bytes, Host};

use crate::aperture::aperture;
use crate::distances::distances;
use crate::error::Error;
use crate::gpu::{GuestNode, PlannedBar, Source, VirtualFunction};
use crate::limits::ADDRESS_BITS;
use crate::make::{Attached, attach, note_nodes};
use crate::plan::{Accelerator, Backing, Firmware, Iommu, Plan, SCHEMA, Socket};
use crate::topology::Buses;

/// A request for such a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emulated {
    /// The guest's architecture.
    pub arch: Arch,
    /// Virtual CPUs, all on node 0.
    pub cpus: u32,
    /// RAM, all on node 0 and shared with the servers.
    pub memory: Bytes,
    /// A server's socket and its device's 64-bit prefetchable BARs, for each GPU.
    pub gpus: Vec<(PathBuf, Vec<PlannedBar>)>,
    /// Memory-less nodes for each GPU.
    pub nodes_per_gpu: u32,
}

impl Emulated {
    /// Plans it.
    ///
    /// # Errors
    /// [`Error::TooManyNodes`], [`Error::TooManyGpus`], [`Error::Aperture`].
    pub fn plan(self) -> Result<Plan, Error> {
        let socket = Socket {
            node: GuestNode(0),
            vcpus: 0..self.cpus.max(1),
            memory: self.memory,
            backing: Backing::Pages,
            host_node: None,
            pins: Vec::new(),
        };
        let sockets = vec![socket];
        let devices = self
            .gpus
            .into_iter()
            .enumerate()
            .map(|(index, (socket, bars))| {
                let id = format!("gpu{index}");
                let device = VirtualFunction { id, bars };
                Attached {
                    device,
                    source: Source::VfioUser(socket),
                    socket: GuestNode(0),
                    iommu: None,
                }
            })
            .collect();
        let buses = Buses::with_disks(0);
        let gpus = attach(devices, 1, self.arch, self.nodes_per_gpu, buses)?;
        let mut plan = Plan {
            schema: SCHEMA.to_owned(),
            name: "emulated".to_owned(),
            arch: self.arch,
            accelerator: Accelerator::Tcg,
            distances: distances(&sockets, &gpus, &Host::default(), &[]),
            aperture: aperture(self.arch, self.memory, &gpus, ADDRESS_BITS)?,
            sockets,
            gpus,
            iommu: Iommu::None,
            firmware: Firmware::Own,
            kernel: None,
            disks: Vec::new(),
            notes: Vec::new(),
        };
        note_nodes(&mut plan);
        Ok(plan)
    }
}
