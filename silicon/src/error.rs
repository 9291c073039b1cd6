//! Errors of a request for a device.

use varia_core::HostPhys;
use varia_facts::{BadPlatform, Bytes};
use varia_sys::memory::MemoryError;

use crate::profile::BadProfile;

/// Reason why a device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SiliconError {
    /// No memory at all.
    #[error(
        "a {profile} without memory can't be made: give it a multiple of 4 KiB, for example {default_gib}G"
    )]
    NoMemory {
        /// The profile's name.
        profile: &'static str,
        /// Size that the chip has by default, in GiB.
        default_gib: u64,
    },
    /// Memory that ends in the middle of a page.
    #[error("memory size {} is not a multiple of 4 KiB: {}", Bytes(*size), nearest_size(*size))]
    NotPages {
        /// The size asked for, in bytes.
        size: u64,
    },
    /// A base address in the middle of a page.
    #[error("memory address {:#x} is not a multiple of 4 KiB: the nearest lower address is {:#x}", base.0, base.0 - base.0 % 4096)]
    BaseNotPage {
        /// The address asked for.
        base: HostPhys,
    },
    /// Memory that reaches beyond what a processor can address.
    #[error("memory of {} at {:#x} reaches beyond the {bits}-bit physical address space: {}", Bytes(*size), base.0, what_fits(*base, *bits))]
    BeyondAddressWidth {
        /// The address asked for.
        base: HostPhys,
        /// The size asked for, in bytes.
        size: u64,
        /// Address bits of the machine.
        bits: u32,
    },
    /// Memory asked of a chip that has none outside its BARs.
    #[error(
        "a {profile} has no coherent memory: leave out its size, address, file, readiness and copy engine, or choose a GPU"
    )]
    NotCoherent {
        /// The profile's name.
        profile: &'static str,
    },
    /// Faults of coherent memory asked of a device without any.
    #[error(
        "a {profile} has no coherent memory that could fail: leave out its faults but gone-after, or \
         choose a GPU"
    )]
    FaultsOfMemory {
        /// The profile's name.
        profile: &'static str,
    },
    /// A poisoned page beyond the end of the memory.
    #[error(
        "no page at {offset:#x} can be poisoned in {} of memory: choose a smaller offset",
        Bytes(*size)
    )]
    PoisonBeyond {
        /// The offset asked for.
        offset: u64,
        /// Bytes of memory.
        size: u64,
    },
    /// A profile that describes no possible device.
    #[error("profile {profile}: {source}")]
    BadProfile {
        /// The profile's name.
        profile: &'static str,
        /// Fault of the profile.
        source: BadProfile,
    },
    /// Facts that no platform has.
    #[error("facts of the platform: {0}")]
    BadPlatform(#[from] BadPlatform),
    /// Memory of the platform that ends beyond 64 bits.
    #[error("memory of the platform of {} at {:#x} ends beyond 64 bits: correct its base or size", Bytes(*size), base.0)]
    PlatformMemory {
        /// First address.
        base: HostPhys,
        /// Bytes.
        size: u64,
    },
    /// Memory of the platform where the chip's own memory is.
    #[error("memory of the platform of {} at {:#x} overlaps the coherent memory: give one of the two another base", Bytes(*size), base.0)]
    PlatformOverlap {
        /// First address.
        base: HostPhys,
        /// Bytes.
        size: u64,
    },
    /// A network card's queues.
    #[error("a queue of the network card can't be made: {0}")]
    Queue(virtio_queue::Error),
    /// No descriptor is free.
    #[error("the descriptor of the memory's file can't be duplicated: {0}")]
    NoDescriptor(std::io::Error),
    /// The memory's file or descriptor.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A name that no profile has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown profile \"{name}\"{}; there are {}", suggestion(*nearest), known())]
pub struct UnknownProfile {
    /// The name asked for.
    pub name: String,
    /// The profile that is spelled most like it, when any is close.
    pub nearest: Option<&'static str>,
}

/// The nearest size that is allowed: no memory is refused too, so below a page it is a page.
fn nearest_size(size: u64) -> String {
    match size - size % 4096 {
        0 => "the smallest size is 4 KiB".to_owned(),
        below => format!("the nearest smaller size is {}", Bytes(below)),
    }
}

fn what_fits(base: HostPhys, bits: u32) -> String {
    let end = 1u64 << bits;
    match end.saturating_sub(base.0) {
        0 => format!("choose an address below {end:#x}"),
        fits => format!("choose at most {} at this address", Bytes(fits)),
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean \"{name}\"?)"))
}

/// Every name, with its alias: `gh200-120gb (gh200), gb200 and nic`.
fn known() -> String {
    let name = |p: &crate::Profile| match p.alias {
        Some(alias) => format!("{} ({alias})", p.name),
        None => p.name.to_owned(),
    };
    let names: Vec<_> = crate::profile::every().map(name).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}
