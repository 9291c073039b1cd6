//! Errors of binding; each message names the remedy.

use std::io;

use varia_facts::{Bdf, Bytes, GroupId};

use super::memory::Lack;
use super::persistent::PersistentError;
use crate::matching::{VFIO_PCI, same_name};

/// Reason why a device is not bound or not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The function does not exist.
    #[error(
        "PCI function {bdf} does not exist: `varia list` shows the functions that can be given to \
         a VM"
    )]
    NoFunction {
        /// The requested function.
        bdf: Bdf,
    },
    /// The function is a bridge.
    #[error("{bdf} is a bridge, which no VM can have: name the device behind it")]
    Bridge {
        /// The requested function.
        bdf: Bdf,
    },
    /// No IOMMU translates for the device.
    #[error(
        "{bdf} has no IOMMU group, so that no VM can get it: switch the IOMMU on in the \
         firmware's setup, and with intel_iommu=on on the kernel's command line where the CPU is \
         Intel's"
    )]
    NoIommu {
        /// The device.
        bdf: Bdf,
    },
    /// The device's group has members that the host uses.
    #[error(
        "{bdf} is in IOMMU group {group} with {others}, which the host uses: a group goes to a VM \
         as a whole, so name the other members in the same command, or unbind them first"
    )]
    Group {
        /// The device.
        bdf: Bdf,
        /// Group of the device.
        group: GroupId,
        /// Other members and their drivers.
        others: String,
    },
    /// The device is in use.
    #[error("{bdf} is in use by {user}: {remedy}")]
    InUse {
        /// The device.
        bdf: Bdf,
        /// User of the device.
        user: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// The GPU needs a variant driver that is not there.
    #[error(
        "{bdf} needs the driver {driver}: {why}; --driver vfio-pci binds it without its memory"
    )]
    NoVariant {
        /// The device.
        bdf: Bdf,
        /// The variant driver.
        driver: String,
        /// Reason for the choice of the driver.
        why: String,
    },
    /// Memory of the device is online as RAM of the host.
    #[error(
        "{size} of the memory of {bdf} are online as RAM of the host, on {place}: take them offline \
         first ({command}), then repeat the command"
    )]
    Online {
        /// The device.
        bdf: Bdf,
        /// Size of the memory.
        size: Bytes,
        /// Nodes of the memory.
        place: String,
        /// Command that takes the memory offline.
        command: String,
    },
    /// The driver does not exist.
    #[error(
        "the driver {driver} does not exist ({why}): install its module, or name another driver \
         with --driver"
    )]
    NoDriver {
        /// The requested driver.
        driver: String,
        /// Error of loading the driver.
        why: String,
    },
    /// The driver refuses the device.
    #[error(
        "the driver {driver} refuses {bdf} ({why}): the device is as it was, {before}; the \
         kernel's log has details{fallback}"
    )]
    Refused {
        /// The device.
        bdf: Bdf,
        /// The driver.
        driver: String,
        /// Error of the driver's probe.
        why: String,
        /// State of the device, before and now.
        before: String,
        /// Remedy with a fallback, if there is one.
        fallback: &'static str,
    },
    /// The driver takes the device and does not serve the device's memory.
    #[error(
        "{bdf} would be bound to {driver} WITHOUT ITS MEMORY ({why}): the device is as it was, \
         {before}; {remedy}"
    )]
    WithoutMemory {
        /// The device.
        bdf: Bdf,
        /// The driver.
        driver: String,
        /// Reason why the memory is not served.
        why: String,
        /// State of the device, before and now.
        before: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// It is not known whether the driver serves the device's memory.
    #[error(
        "it is not known whether {driver} serves {bdf} with its memory ({why}): the device is as it \
         was, {before}; remove the cause, as root, or leave --strict out"
    )]
    UnknownMemory {
        /// The device.
        bdf: Bdf,
        /// The driver.
        driver: String,
        /// Reason why it is not known.
        why: String,
        /// State of the device, before and now.
        before: String,
    },
    /// The device changed during the command.
    #[error(
        "{bdf} changed during this command ({what}): stop other programs that bind devices, and \
         repeat the command"
    )]
    Changed {
        /// The device.
        bdf: Bdf,
        /// The difference.
        what: String,
    },
    /// The device was not bound by this command.
    #[error(
        "{bdf} was not bound by `varia bind` (its driver is {}), so that its previous driver is \
         not known: name the driver with `varia bind --driver NAME`",
        .driver.as_deref().unwrap_or("none")
    )]
    NoRecord {
        /// The device.
        bdf: Bdf,
        /// Driver of the device.
        driver: Option<String>,
    },
    /// The device's previous state could not be restored.
    #[error(
        "{bdf} could not be restored to {before} ({why}); it is {now} now: remove the cause, and \
         repeat the command"
    )]
    Unrestored {
        /// The device.
        bdf: Bdf,
        /// Previous state.
        before: String,
        /// Cause of the failure.
        why: String,
        /// Current state.
        now: String,
    },
    /// A saved file can't be used.
    #[error(
        "can't {what} {path}: {source}: run this command as root, or name another directory with \
         --state"
    )]
    Saved {
        /// Operation that failed.
        what: &'static str,
        /// The file.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A saved file is damaged.
    #[error("{path} is damaged ({why}): check the devices with `varia list`, then remove the file")]
    Spoilt {
        /// The file.
        path: String,
        /// Fault of the file.
        why: String,
    },
    /// Fault of a persistent binding.
    #[error(transparent)]
    Persistent(#[from] PersistentError),
}

impl BindError {
    /// Error for a device whose memory the driver is not known to serve.
    pub(super) fn without_memory(
        bdf: Bdf,
        driver: String,
        lack: Lack,
        before: String,
        strict: bool,
    ) -> Self {
        let why = match lack {
            Lack::Missing(why) => why,
            Lack::Unknown(why) => {
                return Self::UnknownMemory {
                    bdf,
                    driver,
                    why,
                    before,
                };
            }
        };
        let remedy = match (strict, same_name(&driver, VFIO_PCI)) {
            (true, true) => {
                "name the GPU's variant driver with --driver, or leave --strict out: a VM then gets \
                 the device's own BARs alone"
            }
            (true, false) => {
                "without --strict, --fallback vfio-pci gives a VM the device's own BARs alone"
            }
            (false, true) => "--driver vfio-pci gives a VM the device's own BARs alone",
            (false, false) => "--fallback vfio-pci gives a VM the device's own BARs alone",
        };
        Self::WithoutMemory {
            bdf,
            driver,
            why,
            before,
            remedy,
        }
    }
}
