//! The platform around a function: its device tree, the memory that the tree names, and zPCI facts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use varia_core::{Errno, HostPhys, TreeNode};
use varia_facts::{DeviceTree, Number, PlatformFacts, RootFunction, ZpciFacts};
use varia_spec::zpci;
use varia_sys::memory::{MemoryError, SharedMemory};

use crate::error::SiliconError;
use crate::silicon::lock;

/// A platform, made of its facts.
#[derive(Debug)]
pub(crate) struct Platform {
    facts: PlatformFacts,
    memory: Vec<(HostPhys, SharedMemory)>,
    zpci: Option<zpci::Facts>,
    errors: Mutex<VecDeque<Vec<u8>>>,
    /// Configuration spaces on bus 0, by device and function number.
    root: BTreeMap<(u8, u8), Vec<u8>>,
}

impl Platform {
    /// # Errors
    /// Facts that no platform has; memory that can't be made.
    pub(crate) fn new(facts: &PlatformFacts) -> Result<Self, SiliconError> {
        facts.check()?;
        let memory = facts.memory.iter().map(|range| {
            let base = HostPhys(range.base.0);
            base.checked_add(range.size.0)
                .ok_or(SiliconError::PlatformMemory {
                    base,
                    size: range.size.0,
                })?;
            let bytes = SharedMemory::anonymous("platform", range.size.0)?;
            bytes.write(0, &range.bytes.0)?;
            Ok::<_, SiliconError>((base, bytes))
        });
        let errors = facts.zpci.iter().flat_map(|zpci| &zpci.errors);
        Ok(Self {
            facts: facts.clone(),
            memory: memory.collect::<Result<_, _>>()?,
            zpci: facts.zpci.as_ref().map(clp),
            root: facts.root_functions.iter().map(space).collect(),
            errors: Mutex::new(errors.map(|record| record.0.clone()).collect()),
        })
    }

    pub(crate) fn facts(&self) -> &PlatformFacts {
        &self.facts
    }

    /// `len` bytes of memory at `address`: the memory, and their offset in it.
    pub(crate) fn memory(&self, address: HostPhys, len: u64) -> Option<(&SharedMemory, u64)> {
        self.memory.iter().find_map(|(base, bytes)| {
            let offset = address.0.checked_sub(base.0)?;
            (offset.checked_add(len)? <= bytes.len()).then_some((bytes, offset))
        })
    }

    /// Configuration space of a function on bus 0.
    pub(crate) fn root(&self, devfn: (u8, u8)) -> Result<&[u8], Errno> {
        let space = self.root.get(&devfn).ok_or(Errno::ENODEV)?;
        Ok(space)
    }

    /// # Errors
    /// A range of its memory that has a byte of the chip's own memory, given as base and length.
    pub(crate) fn check_beside(&self, (own, len): (HostPhys, u64)) -> Result<(), SiliconError> {
        for (base, bytes) in &self.memory {
            let size = bytes.len();
            let lower = if base.0 < own.0 { size } else { len };
            if size != 0 && base.0.abs_diff(own.0) < lower {
                let base = *base;
                return Err(SiliconError::PlatformOverlap { base, size });
            }
        }
        Ok(())
    }

    /// Loses what its memory and the registers in it hold, but for what firmware puts there.
    pub(crate) fn forget(&self) -> Result<(), MemoryError> {
        for ((_, bytes), range) in self.memory.iter().zip(&self.facts.memory) {
            bytes.discard(0, bytes.len())?;
            bytes.write(0, &range.bytes.0)?;
        }
        Ok(())
    }

    pub(crate) fn tree_property(&self, node: TreeNode, name: &str) -> Result<Vec<u8>, Errno> {
        let tree = self.facts.device_tree.as_ref().ok_or(Errno::ENODEV)?;
        let node = match node {
            TreeNode::Function => tree.nodes.get(&tree.function),
            TreeNode::HostBridge => tree.host_bridge.as_ref().and_then(|n| tree.nodes.get(n)),
            TreeNode::Phandle(phandle) => tree.by_phandle(phandle),
        };
        let node = node.ok_or(Errno::ENODEV)?;
        DeviceTree::property(node, name).ok_or(Errno::ENOENT)
    }

    pub(crate) fn zpci(&self) -> Option<zpci::Facts> {
        self.zpci
    }

    pub(crate) fn take_error_record(&self) -> Option<Vec<u8>> {
        lock(&self.errors).pop_front()
    }
}

/// Place and configuration space of a function; the numbers were checked.
fn space(function: &RootFunction) -> ((u8, u8), Vec<u8>) {
    let mut space = function.bytes.0.clone();
    space.resize(function.size.0 as usize, 0);
    ((function.device.0 as u8, function.function.0 as u8), space)
}

/// The facts as firmware gives them.
fn clp(facts: &ZpciFacts) -> zpci::Facts {
    let util_string = facts.util_string.as_ref();
    zpci::Facts {
        start_dma: facts.start_dma.0,
        end_dma: facts.end_dma.0,
        pchid: facts.pchid.0,
        vfn: facts.vfn.0,
        fmb_length: facts.fmb_length.0,
        pft: facts.pft.0,
        gid: facts.gid.0,
        fh: facts.fh.0,
        error_length: facts.ccdf_err_length.map(|Number(len)| len),
        dasm: facts.dasm.0,
        msi_addr: facts.msi_addr.0,
        mui: facts.mui.0,
        noi: facts.noi.0,
        maxstbl: facts.maxstbl.0,
        imaxstbl: facts.imaxstbl.0,
        version: facts.version.0,
        // the length was checked
        util_string: util_string.and_then(|string| string.0.as_slice().try_into().ok()),
        pfip: facts.pfip,
    }
}
