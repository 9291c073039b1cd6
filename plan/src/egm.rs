//! Extended GPU Memory (EGM) for a VM: the device of each socket, or the constraint against it.
//!
//! The RAM of a socket is then the EGM that firmware reserves on that socket, which its GPUs reach.
//! An object of QEMU tells the guest's driver of each GPU which node that is. Source: the series
//! "vfio/nvgrace-egm" (v2, February 2026) and [`QEMU_OF_VENDORS`].

use varia_facts::{Arch, Bdf, Bytes, EgmDevice, Facts, NodeId, PciFunction};

use crate::error::Error;
use crate::plan::{Plan, Socket};
use crate::request::Request;
use crate::versions::{
    self, EGM_ELEMENT, EGM_OBJECT, LIBVIRT_OF_VENDORS_ALONE, QEMU_OF_VENDORS, vendor,
};

/// The device of EGM for each socket, in the order of the sockets.
pub(crate) fn devices<'a>(
    facts: &'a Facts,
    request: &Request,
    functions: &[&PciFunction],
    sockets: &[Option<NodeId>],
) -> Result<Vec<&'a EgmDevice>, Error> {
    if request.hugepages.is_some() {
        return Err(Error::EgmHugePages);
    }
    let gpus: Vec<_> = functions.iter().map(|function| function.bdf).collect();
    let mut devices = Vec::new();
    for socket in sockets {
        let mut own = functions.iter().filter(|one| one.cpu_node == *socket);
        let first = own.next().ok_or(Error::NoGpu)?;
        let device = device(facts, first)?;
        for other in own {
            if self::device(facts, other)?.pxm != device.pxm {
                return Err(Error::EgmOfTwo {
                    bdf: first.bdf,
                    other: other.bdf,
                });
            }
        }
        let share = Bytes(request.memory.0 / sockets.len().max(1) as u64);
        if let Some(error) = egm_errors(device, &gpus, share).into_iter().next() {
            return Err(error);
        }
        devices.push(device);
    }
    if facts.host.arch == Some(Arch::X86_64) || versions::has(&facts.vmm, EGM_OBJECT) != Some(true)
    {
        let qemu = facts.vmm.qemu.as_ref();
        return Err(Error::EgmQemu {
            qemu: qemu.map_or("QEMU".to_owned(), |qemu| format!("QEMU {}", qemu.version)),
        });
    }
    Ok(devices)
}

/// Constraints that a VM with these GPUs violates whose RAM is from a device of EGM, the RAM's size
/// being `wanted`: [`Error::EgmPartial`] and [`Error::EgmSize`].
#[must_use]
pub fn egm_errors(device: &EgmDevice, gpus: &[Bdf], wanted: Bytes) -> Vec<Error> {
    let mut errors = Vec::new();
    let absent = device.gpus.iter().filter(|gpu| !gpus.contains(gpu));
    let absent: Vec<_> = absent.map(ToString::to_string).collect();
    if !absent.is_empty() {
        errors.push(Error::EgmPartial {
            path: device.path(),
            absent: absent.join(", "),
        });
    }
    if let Some(there) = device.size.filter(|there| *there < wanted) {
        errors.push(Error::EgmSize {
            path: device.path(),
            there,
            wanted,
        });
    }
    errors
}

fn device<'a>(facts: &'a Facts, function: &PciFunction) -> Result<&'a EgmDevice, Error> {
    let bdf = function.bdf;
    match (facts.host.egm_of(bdf), function.egm) {
        (Some(device), _) if device.has_node == Some(false) => Err(Error::EgmNode {
            path: device.path(),
        }),
        (Some(device), _) => Ok(device),
        (None, Some(egm)) => Err(Error::EgmDriver {
            bdf,
            size: egm.size,
        }),
        (None, None) => Err(Error::EgmAbsent { bdf }),
    }
}

/// Remark of a plan with EGM: its source, and that nobody ran it here.
pub(crate) fn note() -> String {
    let source = QEMU_OF_VENDORS.iter().find(|(name, _)| *name == EGM_OBJECT);
    let source = source.map_or("", |(_, source)| source);
    format!(
        "Varia never ran a VM with Extended GPU Memory: no QEMU of qemu.org has {EGM_OBJECT}, whose \
         form is that of {source}"
    )
}

/// Remark of a domain with EGM.
#[must_use]
pub fn egm_domain_note(plan: &Plan) -> Option<String> {
    let source = vendor(LIBVIRT_OF_VENDORS_ALONE, EGM_ELEMENT)?;
    plan.sockets.iter().any(Socket::is_egm).then(|| {
        format!(
            "Varia never gave libvirt a domain with Extended GPU Memory: no libvirt of libvirt.org \
             has <memory model='egm'>, whose form is that of {source}"
        )
    })
}

/// The object that ties a device of QEMU to the EGM that is the RAM of this node.
#[must_use]
pub fn egm_object(id: &str, device: &str, node: impl std::fmt::Display) -> String {
    format!("{EGM_OBJECT},id={id},pci-dev={device},node={node}")
}
