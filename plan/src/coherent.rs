//! The binding between a GPU's coherent memory, its PCI function and its memory-less nodes.
//!
//! The guest's driver adds the memory to NUMA nodes that exist for it: nodes without memory or
//! CPUs, tied to the PCI function by Generic Initiator entries of the SRAT (ACPI 6.5, 5.2.16.6).
//! How many is an agreement between operator and driver, 8 for each GPU where MIG is used.

use std::{fmt, ops::Range, path::PathBuf};

/// Nodes for each GPU unless the operator says otherwise.
pub const NODES_PER_GPU: u32 = 8;

/// The most NUMA nodes that QEMU takes (`MAX_NODES`).
pub const MAX_NODES: u32 = 128;

/// A GPU that a vfio-user server presents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VfioUserGpu {
    /// QEMU's id of the device, unique in the machine.
    pub id: String,
    /// The server's socket.
    pub socket: PathBuf,
    /// Sizes in bytes of its 64-bit prefetchable BARs.
    pub bars: Vec<u64>,
}

/// A GPU and the nodes that its memory is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoherentMemory {
    /// The device whose BARs hold the memory.
    pub device: VfioUserGpu,
    /// Guest proximity domains, without memory of their own.
    pub nodes: Range<u32>,
}

/// A request that can't be planned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// More nodes than the VMM has.
    TooManyNodes {
        /// Nodes that the request comes to, with node 0.
        wanted: u64,
    },
    /// The aperture that the BARs need is beyond 64 bits.
    ApertureTooLarge {
        /// The BARs of the GPU at fault.
        bars: Vec<u64>,
    },
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyNodes { wanted } => write!(
                f,
                "{wanted} NUMA nodes are more than the {MAX_NODES} that QEMU takes: ask for fewer \
                 GPUs or fewer nodes for each"
            ),
            Self::ApertureTooLarge { bars } => {
                let sizes: Vec<_> = bars.iter().map(|size| format!("{size:#x}")).collect();
                write!(
                    f,
                    "BARs of {} bytes need an MMIO aperture beyond 64 bits: ask for fewer GPUs \
                     or GPUs with less memory",
                    sizes.join(", ")
                )
            }
        }
    }
}

/// Gives each GPU `nodes_each` nodes, from node 1; node 0 is the VM's own memory and CPUs.
pub fn assign(gpus: Vec<VfioUserGpu>, nodes_each: u32) -> Result<Vec<CoherentMemory>, Error> {
    let wanted = 1 + gpus.len() as u64 * u64::from(nodes_each);
    if wanted > u64::from(MAX_NODES) {
        return Err(Error::TooManyNodes { wanted });
    }
    let mut first = 1;
    Ok(gpus
        .into_iter()
        .map(|device| {
            let nodes = first..first + nodes_each;
            first = nodes.end;
            CoherentMemory { device, nodes }
        })
        .collect())
}

/// The smallest power of two, in bytes, that holds the BARs of all GPUs naturally aligned, with
/// room for what else the machine maps there.
pub fn aperture(gpus: &[CoherentMemory]) -> Result<u64, Error> {
    let mut sum: u64 = 0;
    for gpu in gpus {
        for size in &gpu.device.bars {
            // Bridges align a window to its largest BAR: count each twice.
            sum = size
                .checked_mul(2)
                .and_then(|size| sum.checked_add(size))
                .ok_or_else(|| Error::ApertureTooLarge {
                    bars: gpu.device.bars.clone(),
                })?;
        }
    }
    sum.max(1)
        .checked_next_power_of_two()
        .ok_or_else(|| Error::ApertureTooLarge {
            bars: gpus
                .iter()
                .flat_map(|gpu| gpu.device.bars.clone())
                .collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(bars: &[u64]) -> VfioUserGpu {
        VfioUserGpu {
            id: "gpu0".into(),
            socket: "/run/gpu0".into(),
            bars: bars.into(),
        }
    }

    #[test]
    fn each_gpu_has_nodes_of_its_own_after_node_0() {
        let assigned = assign(vec![gpu(&[]), gpu(&[])], 8).expect("17 nodes");
        let nodes: Vec<_> = assigned.into_iter().map(|gpu| gpu.nodes).collect();
        assert_eq!(nodes, [1..9, 9..17]);
    }

    #[test]
    fn too_many_nodes_are_refused_with_their_number() {
        let error = assign(vec![gpu(&[]); 16], 8).expect_err("129 nodes");
        assert!(error.to_string().contains("129"), "{error}");
        assert!(assign(vec![gpu(&[]); 15], 8).is_ok());
    }

    #[test]
    fn the_aperture_holds_all_bars() {
        const GIB: u64 = 1 << 30;
        let one = assign(vec![gpu(&[GIB, 128 * GIB])], 8).expect("nodes");
        assert_eq!(aperture(&one), Ok(512 * GIB));
        let huge = assign(vec![gpu(&[1 << 63])], 8).expect("nodes");
        let error = aperture(&huge).expect_err("twice this is 2^64");
        assert_eq!(
            error.to_string(),
            "BARs of 0x8000000000000000 bytes need an MMIO aperture beyond 64 bits: ask for fewer \
             GPUs or GPUs with less memory"
        );
    }
}
