//! Requests for a VM.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use varia_facts::{Bdf, Bytes};

use crate::plan::Kernel;

/// Default of the nodes for each GPU: the number that a guest's driver uses if MIG partitions the
/// GPU. A convention of operators and driver, not a constant of the hardware.
pub const NODES_PER_GPU: u32 = 8;

/// GPUs of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// This PCI function of the host.
    Function(Bdf),
    /// A number of free GPUs that share one Grace CPU.
    OneSuperchip(u32),
}

/// Error for a text that names no GPU.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is not a GPU: give a PCI address (0009:01:00.0), or 2-of-one-superchip for GPUs that share \
     a Grace CPU"
)]
pub struct WhatError(pub String);

impl FromStr for What {
    type Err = WhatError;

    fn from_str(text: &str) -> Result<Self, WhatError> {
        if let Some(count) = text.strip_suffix("-of-one-superchip") {
            return match count.parse() {
                Ok(count) if count > 0 => Ok(Self::OneSuperchip(count)),
                _ => Err(WhatError(text.to_owned())),
            };
        }
        text.parse()
            .map(Self::Function)
            .map_err(|_| WhatError(text.to_owned()))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(bdf) => bdf.fmt(f),
            Self::OneSuperchip(count) => write!(f, "{count}-of-one-superchip"),
        }
    }
}

/// DMA of devices to the VM's memory.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IommuChoice {
    /// The best that the host's kernel and QEMU support.
    #[default]
    Auto,
    /// VFIO's containers.
    Type1,
    /// `/dev/iommu`.
    Iommufd,
}

/// A request for a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The VM's name.
    pub name: String,
    /// GPUs of the VM, in order.
    pub gpus: Vec<What>,
    /// Virtual CPUs, divided evenly among the sockets of its GPUs.
    pub cpus: u32,
    /// RAM, divided likewise.
    pub memory: Bytes,
    /// Back RAM with hugepages of this size.
    pub hugepages: Option<Bytes>,
    /// Memory-less nodes for each GPU.
    pub nodes_per_gpu: u32,
    /// DMA of devices to the VM's memory.
    pub iommu: IommuChoice,
    /// Tie each virtual CPU to a CPU of the socket that it stands for.
    pub pin: bool,
    /// Give it Extended GPU Memory.
    pub egm: bool,
    /// The firmware's file; the usual place if none is given.
    pub firmware: Option<String>,
    /// A kernel to start without a disk.
    pub kernel: Option<Kernel>,
    /// Files of disks, in order.
    pub disks: Vec<String>,
}

impl Request {
    /// `gpus` for a VM of 4 CPUs and 8 GiB.
    #[must_use]
    pub fn new(gpus: impl IntoIterator<Item = What>) -> Self {
        Self {
            name: "gpu-vm".to_owned(),
            gpus: gpus.into_iter().collect(),
            cpus: 4,
            memory: Bytes(8 << 30),
            hugepages: None,
            nodes_per_gpu: NODES_PER_GPU,
            iommu: IommuChoice::Auto,
            pin: true,
            egm: false,
            firmware: None,
            kernel: None,
            disks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_and_written_back() {
        for text in ["0009:01:00.0", "2-of-one-superchip"] {
            assert_eq!(text.parse::<What>().expect(text).to_string(), text);
        }
        for text in ["", "gpu", "0-of-one-superchip", "-of-one-superchip"] {
            assert_eq!(text.parse::<What>(), Err(WhatError(text.to_owned())));
        }
    }
}
