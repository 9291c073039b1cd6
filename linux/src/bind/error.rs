//! What keeps a device from being bound. Each message says what to do.

use std::io;

use varia_facts::{Bdf, GroupId};

/// Why a device is not bound, or not given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is no such function.
    #[error("there is no PCI function {bdf}: `varia list` shows those that can be given to a VM")]
    NoFunction {
        /// What was asked for.
        bdf: Bdf,
    },
    /// It is a bridge.
    #[error("{bdf} is a bridge, which no VM can have: name the device behind it")]
    Bridge {
        /// What was asked for.
        bdf: Bdf,
    },
    /// No IOMMU translates for it.
    #[error(
        "{bdf} is in no IOMMU group, so it can't be given to a VM: switch the IOMMU on in the \
         firmware's setup, and with intel_iommu=on on the kernel's command line where the CPU is \
         Intel's"
    )]
    NoIommu {
        /// The device.
        bdf: Bdf,
    },
    /// Its group has members that the host uses.
    #[error(
        "{bdf} is in IOMMU group {group} with {others}, which the host uses: a group goes to a VM \
         as a whole, so name them in the same command, or unbind them first"
    )]
    Group {
        /// The device.
        bdf: Bdf,
        /// Its group.
        group: GroupId,
        /// The members and their drivers.
        others: String,
    },
    /// Somebody uses it.
    #[error("{bdf} is in use by {user}: {remedy}")]
    InUse {
        /// The device.
        bdf: Bdf,
        /// Who.
        user: String,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no such driver.
    #[error(
        "there is no driver {driver} ({why}): install its module, or name another with --driver"
    )]
    NoDriver {
        /// What was wanted.
        driver: String,
        /// What loading it said.
        why: String,
    },
    /// The driver does not take the device.
    #[error(
        "the driver {driver} refuses {bdf} ({why}): the device is as it was, {before}; the \
         kernel's log says more{fallback}"
    )]
    Refused {
        /// The device.
        bdf: Bdf,
        /// The driver.
        driver: String,
        /// What it said.
        why: String,
        /// What the device was and is.
        before: String,
        /// What else could be done.
        fallback: &'static str,
    },
    /// The device changed while it was being looked at.
    #[error("{bdf} changed meanwhile ({what}): is another program binding devices? try again")]
    Changed {
        /// The device.
        bdf: Bdf,
        /// What is different.
        what: String,
    },
    /// It was not bound by this command.
    #[error(
        "{bdf} was not bound by `varia bind` (its driver is {}), so nothing is known to restore: \
         bind it to what it should have with `varia bind --driver NAME`",
        .driver.as_deref().unwrap_or("none")
    )]
    NoRecord {
        /// The device.
        bdf: Bdf,
        /// Its driver.
        driver: Option<String>,
    },
    /// It could not be taken back.
    #[error(
        "{bdf} could not be taken back to {before} ({why}); it is {now} now: put right what keeps \
         it, and repeat the command"
    )]
    Unrestored {
        /// The device.
        bdf: Bdf,
        /// What it was.
        before: String,
        /// What kept it.
        why: String,
        /// What it is.
        now: String,
    },
    /// A saved file can't be used.
    #[error("can't {what} {path}: {source}: run it as root, or name another folder with --state")]
    Saved {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A saved file is spoilt.
    #[error(
        "{path} is spoilt ({why}): look at the devices with `varia list`, then remove the file"
    )]
    Spoilt {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}
