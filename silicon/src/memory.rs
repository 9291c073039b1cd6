//! A chip's coherent memory, made as it was asked for.

use varia_core::HostPhys;
use varia_sys::memory::SharedMemory;

use crate::error::SiliconError;
use crate::options::{Backing, Options, Readiness};
use crate::profile::{Coherent, Profile};

/// Bytes in the smallest page of any host.
pub(crate) const PAGE: u64 = 4096;
/// Physical address bits of a Grace host.
const ADDRESS_BITS: u32 = 48;

/// A device's memory outside every BAR.
#[derive(Debug)]
pub struct CoherentMemory {
    /// Address of the memory.
    pub base: HostPhys,
    /// Content of the memory.
    pub bytes: SharedMemory,
    /// Properties that firmware gives the memory.
    pub(crate) firmware: Coherent,
    /// Bytes at its end that firmware does not count.
    pub(crate) uncounted: u64,
}

/// The memory of a chip that has any.
///
/// # Errors
/// [`SiliconError`] for a size or address that no machine has, a backing that is no good, and a
/// request to a chip without such memory.
pub(crate) fn make_memory(
    profile: &Profile,
    options: &Options,
) -> Result<Option<CoherentMemory>, SiliconError> {
    let Some(firmware) = profile.coherent else {
        let asked = options.memory.is_some()
            || options.base.is_some()
            || options.backing != Backing::Anonymous
            || options.readiness != Readiness::Immediate;
        return if asked {
            Err(SiliconError::NotCoherent {
                profile: profile.name,
            })
        } else {
            Ok(None)
        };
    };
    let size = options.memory.unwrap_or(firmware.size.value);
    let base = options.base.unwrap_or(firmware.base.value);
    check_memory(profile, base, size)?;
    if let Some(offset) = options.faults.poisoned_page.filter(|at| *at >= size) {
        return Err(SiliconError::PoisonBeyond { offset, size });
    }
    let bytes = match &options.backing {
        Backing::Anonymous => SharedMemory::anonymous(profile.name, size)?,
        Backing::File(path) => SharedMemory::create_file(path, size)?,
        Backing::PartOfFile(path, offset) => SharedMemory::part_of_file(path, *offset, size)?,
    };
    Ok(Some(CoherentMemory {
        base,
        bytes,
        firmware,
        uncounted: options.uncounted,
    }))
}

fn check_memory(profile: &Profile, base: HostPhys, size: u64) -> Result<(), SiliconError> {
    if size == 0 {
        let default = profile.coherent.map_or(0, |memory| memory.size.value);
        return Err(SiliconError::NoMemory {
            profile: profile.name,
            default_gib: default >> 30,
        });
    }
    if !size.is_multiple_of(PAGE) {
        return Err(SiliconError::NotPages { size });
    }
    if !base.0.is_multiple_of(PAGE) {
        return Err(SiliconError::BaseNotPage { base });
    }
    let end = base.0.checked_add(size);
    if end.is_none_or(|end| end > 1 << ADDRESS_BITS) {
        return Err(SiliconError::BeyondAddressWidth {
            base,
            size,
            bits: ADDRESS_BITS,
        });
    }
    Ok(())
}
