//! Regions: their information, reads and writes of BARs, of the expansion ROM and of a device's
//! own regions.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_core.c:vfio_pci_ioctl_get_region_info` and
//! `vfio_pci_core_register_dev_region`, `drivers/vfio/pci/vfio_pci_rdwr.c:vfio_pci_bar_rw`.

use std::fmt;
use std::ops::Range;

use varia_spec::Errno;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;
use varia_spec::vfio::{self, RegionIndex, SparseArea, region_flags};

use crate::core::{Core, PowerState};
use crate::device::{BarSpace, Device};
use crate::rom;

/// Info of a region, as `VFIO_DEVICE_GET_REGION_INFO` returns it.
pub type RegionInfo = vfio::RegionInfo<Vec<SparseArea>>;

/// A device-specific region, beside those that every PCI device has.
pub trait DeviceRegion: Send + Sync {
    /// The region's info, with its [`RegionType`](varia_spec::vfio::RegionType). The region can't
    /// be mapped.
    fn info(&self) -> RegionInfo;

    /// Reads bytes. Returns how many.
    ///
    /// # Errors
    /// The errors of the region; `EINVAL` beyond its size.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno>;

    /// Writes bytes. Returns how many.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno>;
}

/// Place of the bytes of a region.
enum Place<'a> {
    Config,
    Bar(u8, BarSpace),
    Rom,
    Own(&'a dyn DeviceRegion),
}

/// Bytes of an access: so many to be moved, so many that are kept from the user, the rest again
/// to be moved.
#[derive(Clone, Copy)]
struct Parts {
    before: usize,
    hidden: usize,
}

impl<D: Device + ?Sized> Core<D> {
    /// Adds a device-specific region. Returns its index, behind those of PCI and of earlier ones.
    pub fn add_region(&mut self, region: Box<dyn DeviceRegion>) -> RegionIndex {
        let index = RegionIndex::COUNT + self.regions.len() as u32;
        self.regions.push(region);
        RegionIndex(index)
    }

    /// `VFIO_DEVICE_GET_REGION_INFO`. There is no VGA.
    ///
    /// # Errors
    /// `EINVAL` if the index does not exist.
    pub fn region_info(&self, index: RegionIndex) -> Result<RegionInfo, Errno> {
        let read_write = region_flags::READ | region_flags::WRITE;
        let device = self.device();
        if let Some(bar) = index.bar() {
            let Some(spec) = device.bar(bar) else {
                return Ok(RegionInfo::default());
            };
            let mut info = RegionInfo {
                flags: read_write,
                size: spec.size,
                ..RegionInfo::default()
            };
            if device.bar_fd(bar).is_some() {
                info.flags |= region_flags::MMAP;
                info.msix_mappable = self.layout().table().is_some_and(|table| table.bar == bar);
            }
            return Ok(info);
        }
        match (self.place(index)?, device.rom()) {
            (Place::Own(region), _) => Ok(region.info()),
            // a ROM without a valid image is none
            (Place::Rom, Some(size)) if self.rom_image(size) != 0 => Ok(RegionInfo {
                flags: region_flags::READ,
                size,
                ..RegionInfo::default()
            }),
            (Place::Rom, _) => Ok(RegionInfo::default()),
            _ => Ok(RegionInfo {
                flags: read_write,
                size: u64::from(CFG_SPACE_EXP_SIZE),
                ..RegionInfo::default()
            }),
        }
    }

    /// BAR with the MSI-X table, and the table's bytes in it.
    pub fn msix_table(&self) -> Option<(RegionIndex, Range<u64>)> {
        let table = self.layout().table()?;
        Some((RegionIndex(table.bar.into()), table.start..table.end))
    }

    /// Reads a region. Returns how many bytes of `data` were filled: fewer than requested only at
    /// the end of a BAR.
    ///
    /// The MSI-X table reads as ones, as the user is not to see it, and so do the bytes of a ROM
    /// behind its image.
    ///
    /// # Errors
    /// `EINVAL` for an index without bytes and an offset beyond the BAR, `EIO` while memory is
    /// disabled or the device in D3hot; for the ROM `ENOMEM` where the device shows no image; for
    /// the configuration space as [`config_read`](Self::config_read).
    pub fn region_read(
        &self,
        index: RegionIndex,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        let device = self.device();
        match self.place(index)? {
            Place::Config => self.config_read(offset, data),
            Place::Own(region) => region.read(offset, data),
            Place::Bar(bar, space) => {
                let size = device.bar(bar).map_or(0, |spec| spec.size);
                let len = clip(size, offset, data.len())?;
                let data = data.get_mut(..len).ok_or(Errno::EINVAL)?;
                let lines = self.lines();
                let open = space == BarSpace::Io || lines.enabled();
                let hidden = lines.table.filter(|table| table.bar == bar);
                let (start, end) = hidden.map_or((0, 0), |table| (table.start, table.end));
                let parts = Parts::of(offset, len, start, end);
                parts.read(offset, data, |offset, data| {
                    if open {
                        device.bar_read(bar, offset, data)
                    } else {
                        Err(Errno::EIO)
                    }
                })?;
                Ok(len)
            }
            Place::Rom => {
                let size = device.rom().ok_or(Errno::EINVAL)?;
                let len = clip(size, offset, data.len())?;
                let data = data.get_mut(..len).ok_or(Errno::EINVAL)?;
                let image = self.rom_image(size);
                // Linux looks for the image where the device itself decodes it
                if image == 0 || !self.physical_memory()? {
                    return Err(Errno::ENOMEM);
                }
                if !self.lines().enabled() {
                    return Err(Errno::EIO);
                }
                let parts = Parts::of(offset, len, image, size);
                parts.read(offset, data, |offset, data| device.rom_read(offset, data))?;
                Ok(len)
            }
        }
    }

    /// Writes a region. Answers how many bytes of `data` it took: fewer than given only at the end
    /// of a BAR.
    ///
    /// Bytes for the MSI-X table are dropped.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read); `EINVAL` for the ROM.
    pub fn region_write(
        &self,
        index: RegionIndex,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        let device = self.device();
        match self.place(index)? {
            Place::Config => self.config_write(offset, data),
            Place::Own(region) => region.write(offset, data),
            Place::Rom => Err(Errno::EINVAL),
            Place::Bar(bar, space) => {
                let size = device.bar(bar).map_or(0, |spec| spec.size);
                let len = clip(size, offset, data.len())?;
                let data = data.get(..len).ok_or(Errno::EINVAL)?;
                let lines = self.lines();
                let open = space == BarSpace::Io || lines.enabled();
                let hidden = lines.table.filter(|table| table.bar == bar);
                let (start, end) = hidden.map_or((0, 0), |table| (table.start, table.end));
                let parts = Parts::of(offset, len, start, end);
                parts.write(offset, data, |offset, data| {
                    if open {
                        device.bar_write(bar, offset, data)
                    } else {
                        Err(Errno::EIO)
                    }
                })?;
                Ok(len)
            }
        }
    }

    /// Length in bytes of the images in the ROM; 0 while the device is not in D0, as it decodes no
    /// addresses then.
    fn rom_image(&self, size: u64) -> u64 {
        if self.lines().power != PowerState::D0 {
            return 0;
        }
        rom::image_len(&**self.device(), size)
    }

    fn place(&self, index: RegionIndex) -> Result<Place<'_>, Errno> {
        if let Some(bar) = index.bar() {
            let spec = self.device().bar(bar).ok_or(Errno::EINVAL)?;
            return Ok(Place::Bar(bar, spec.space));
        }
        match index {
            RegionIndex::CONFIG => Ok(Place::Config),
            RegionIndex::ROM => Ok(Place::Rom),
            _ => {
                let own = index.0.checked_sub(RegionIndex::COUNT);
                let own = own.ok_or(Errno::EINVAL)? as usize;
                let region = self.regions.get(own).ok_or(Errno::EINVAL)?;
                Ok(Place::Own(&**region))
            }
        }
    }
}

impl Parts {
    /// `len` bytes at `offset`, with those from `start` to `end` kept from the user.
    fn of(offset: u64, len: usize, start: u64, end: u64) -> Self {
        let last = offset.saturating_add(len as u64);
        if start >= end {
            return Self {
                before: len,
                hidden: 0,
            };
        }
        let start = start.clamp(offset, last);
        let end = end.clamp(start, last);
        Self {
            before: (start - offset) as usize,
            hidden: (end - start) as usize,
        }
    }

    fn read(
        self,
        offset: u64,
        data: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (first, rest) = data
            .split_at_mut_checked(self.before)
            .ok_or(Errno::EINVAL)?;
        let (hidden, last) = rest
            .split_at_mut_checked(self.hidden)
            .ok_or(Errno::EINVAL)?;
        if !first.is_empty() {
            read(offset, first)?;
        }
        hidden.fill(0xff);
        if !last.is_empty() {
            read(offset + (self.before + self.hidden) as u64, last)?;
        }
        Ok(())
    }

    fn write(
        self,
        offset: u64,
        data: &[u8],
        write: impl Fn(u64, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (first, rest) = data.split_at_checked(self.before).ok_or(Errno::EINVAL)?;
        let last = rest.get(self.hidden..).ok_or(Errno::EINVAL)?;
        if !first.is_empty() {
            write(offset, first)?;
        }
        if !last.is_empty() {
            write(offset + (self.before + self.hidden) as u64, last)?;
        }
        Ok(())
    }
}

/// `count`, clipped to the end of a region of `size` bytes.
fn clip(size: u64, offset: u64, count: usize) -> Result<usize, Errno> {
    let rest = size.checked_sub(offset).filter(|rest| *rest != 0);
    let rest = usize::try_from(rest.ok_or(Errno::EINVAL)?).unwrap_or(usize::MAX);
    Ok(count.min(rest))
}

impl fmt::Debug for dyn DeviceRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info().fmt(f)
    }
}
