//! Reasons why a request is refused; each message names the constraint and the remedy.

use varia_facts::{Bdf, GroupId};

use crate::health::Reason;

/// Reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pool has no such device.
    #[error("{bdf} is not a GPU of this host: `varia list` shows the host's GPUs")]
    Unknown {
        /// The requested device.
        bdf: Bdf,
    },
    /// The device is not healthy.
    #[error("{bdf} can't be given to a VM: {}", texts(.reasons))]
    Unhealthy {
        /// The requested device.
        bdf: Bdf,
        /// Reasons.
        reasons: Vec<Reason>,
    },
    /// The request has the device twice.
    #[error("{bdf} is in the request twice: ask for each device once")]
    Twice {
        /// The requested device.
        bdf: Bdf,
    },
    /// Another member of the device's group has another user.
    #[error(
        "{bdf} is in IOMMU group {group} with {other}, which {holder} has: a group has one user, so \
         ask for both in one container, or wait until {other} is released"
    )]
    GroupTaken {
        /// The requested device.
        bdf: Bdf,
        /// Group of the device.
        group: GroupId,
        /// The other member.
        other: Bdf,
        /// User of the other member.
        holder: String,
    },
    /// Two containers of the request ask for members of one group.
    #[error(
        "{bdf} and {other} are in IOMMU group {group}, and two containers ask for them: a group has \
         one user, so ask for both in one container"
    )]
    GroupDivided {
        /// A requested device.
        bdf: Bdf,
        /// The other requested device.
        other: Bdf,
        /// Group of both devices.
        group: GroupId,
    },
    /// The device has a user.
    #[error("{bdf} is in use by {holder}: wait until it is released, or ask for another device")]
    Taken {
        /// The requested device.
        bdf: Bdf,
        /// User of the device.
        holder: String,
    },
    /// Fewer devices than requested are available.
    #[error(
        "{wanted} GPUs are requested and {available} are available: ask for fewer, or wait until \
         others are released"
    )]
    TooFew {
        /// Requested number.
        wanted: usize,
        /// Number of available devices.
        available: usize,
    },
    /// More devices must be in the set than its size.
    #[error("{must} devices must be in a set of {wanted}: ask for at least {must}")]
    TooSmall {
        /// Requested number.
        wanted: usize,
        /// Number of the devices that must be in the set.
        must: usize,
    },
}

fn texts(reasons: &[Reason]) -> String {
    let texts: Vec<_> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    texts.join("; ")
}
