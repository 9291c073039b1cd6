//! A chip's coherent memory, made as it was asked for.

use varia_core::HostPhys;
use varia_sys::memory::SharedMemory;

use crate::error::SiliconError;
use crate::fault::Faults;
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

/// A chip's coherent memory as a request wants it, checked and not yet made.
pub(crate) struct WantedMemory {
    pub(crate) base: HostPhys,
    pub(crate) size: u64,
    firmware: Coherent,
}

impl WantedMemory {
    /// The memory of a chip that has any.
    ///
    /// # Errors
    /// [`SiliconError`] for a size or address that no machine has, and for a request to a chip
    /// without such memory.
    pub(crate) fn new(profile: &Profile, options: &Options) -> Result<Option<Self>, SiliconError> {
        let Some(firmware) = profile.coherent else {
            let asked = options.memory.is_some()
                || options.base.is_some()
                || !matches!(options.backing, Backing::Anonymous)
                || options.readiness != Readiness::Immediate
                || options.copy_engine;
            if asked {
                return Err(SiliconError::NotCoherent {
                    profile: profile.name,
                });
            }
            check_faults(profile, None, options.faults)?;
            return Ok(None);
        };
        let size = options.memory.unwrap_or(firmware.size.value);
        let base = options.base.unwrap_or(firmware.base.value);
        check_memory(profile, base, size)?;
        check_faults(profile, Some(size), options.faults)?;
        Ok(Some(Self {
            base,
            size,
            firmware,
        }))
    }

    /// The memory itself. A file that is created stays.
    ///
    /// # Errors
    /// [`SiliconError::Memory`] for a backing that is no good.
    pub(crate) fn make(
        self,
        profile: &Profile,
        options: &Options,
    ) -> Result<CoherentMemory, SiliconError> {
        let size = self.size;
        let bytes = match &options.backing {
            Backing::Anonymous => SharedMemory::anonymous(profile.name, size)?,
            Backing::File(path) => SharedMemory::create_file(path, size)?,
            Backing::PartOfFile(path, offset) => SharedMemory::part_of_file(path, *offset, size)?,
            Backing::Descriptor(name, fd) => {
                let fd = fd.try_clone().map_err(SiliconError::NoDescriptor)?;
                SharedMemory::of_descriptor(name, fd, size)?
            }
        };
        Ok(CoherentMemory {
            base: self.base,
            bytes,
            firmware: self.firmware,
            uncounted: options.uncounted,
        })
    }
}

/// Checks that a chip with `size` bytes of coherent memory, if it has any, can have these faults.
pub(crate) fn check_faults(
    profile: &Profile,
    size: Option<u64>,
    faults: Faults,
) -> Result<(), SiliconError> {
    match (size, faults.poisoned_page) {
        (Some(size), Some(offset)) if offset >= size => {
            Err(SiliconError::PoisonBeyond { offset, size })
        }
        (None, _) if faults.are_of_memory() => Err(SiliconError::FaultsOfMemory {
            profile: profile.name,
        }),
        _ => Ok(()),
    }
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
