//! Regions: their information, reads and writes of BARs.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_core.c:vfio_pci_ioctl_get_region_info` and
//! `drivers/vfio/pci/vfio_pci_rdwr.c:vfio_pci_bar_rw`.

use varia_spec::Errno;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;
use varia_spec::vfio::{RegionIndex, region_flags};

use crate::core::Core;
use crate::device::{BarSpace, Device};

/// What `VFIO_DEVICE_GET_REGION_INFO` answers. A region can be mapped as a whole or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Bytes; 0 for a region that the device does not have.
    pub size: u64,
    /// Bits of [`varia_spec::vfio::region_flags`].
    pub flags: u32,
}

impl Region {
    fn new(size: u64, flags: u32) -> Self {
        Self { size, flags }
    }
}

impl<D: Device + ?Sized> Core<D> {
    /// `VFIO_DEVICE_GET_REGION_INFO`. There is no ROM and no VGA.
    ///
    /// # Errors
    /// `EINVAL` for an index that there is not.
    pub fn region_info(&self, index: RegionIndex) -> Result<Region, Errno> {
        let read_write = region_flags::READ | region_flags::WRITE;
        if let Some(bar) = index.bar() {
            let Some(spec) = self.device().bar(bar) else {
                return Ok(Region::new(0, 0));
            };
            let mut region = Region::new(spec.size, read_write);
            if self.device().bar_fd(bar).is_some() {
                region.flags |= region_flags::MMAP;
            }
            return Ok(region);
        }
        match index {
            RegionIndex::CONFIG => Ok(Region::new(u64::from(CFG_SPACE_EXP_SIZE), read_write)),
            RegionIndex::ROM => Ok(Region::new(0, 0)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Reads a region. Answers how many bytes of `data` it filled: fewer than asked for only at
    /// the end of a BAR.
    ///
    /// The MSI-X table reads as ones, as the user is not to see it.
    ///
    /// # Errors
    /// `EINVAL` for an index without bytes and an offset beyond the BAR, `EIO` while memory is
    /// disabled or the device in D3hot; for the configuration space as
    /// [`config_read`](Self::config_read).
    pub fn region_read(
        &self,
        index: RegionIndex,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        if index == RegionIndex::CONFIG {
            return self.config_read(offset, data);
        }
        let (bar, space, len) = self.clip(index, offset, data.len())?;
        let data = data.get_mut(..len).ok_or(Errno::EINVAL)?;
        let lines = self.lines();
        let open = space == BarSpace::Io || lines.enabled();
        let (before, hidden) = self.split(lines.table, bar, offset, len);
        let (first, rest) = data.split_at_mut_checked(before).ok_or(Errno::EINVAL)?;
        let (table, last) = rest.split_at_mut_checked(hidden).ok_or(Errno::EINVAL)?;
        if !open && !first.is_empty() {
            return Err(Errno::EIO);
        }
        if !first.is_empty() {
            self.device().bar_read(bar, offset, first)?;
        }
        table.fill(0xff);
        if !last.is_empty() {
            if !open {
                return Err(Errno::EIO);
            }
            self.device()
                .bar_read(bar, offset + (before + hidden) as u64, last)?;
        }
        Ok(len)
    }

    /// Writes a region. Answers how many bytes of `data` it took: fewer than given only at the end
    /// of a BAR.
    ///
    /// Bytes for the MSI-X table are dropped.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read).
    pub fn region_write(
        &self,
        index: RegionIndex,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        if index == RegionIndex::CONFIG {
            return self.config_write(offset, data);
        }
        let (bar, space, len) = self.clip(index, offset, data.len())?;
        let data = data.get(..len).ok_or(Errno::EINVAL)?;
        let lines = self.lines();
        let open = space == BarSpace::Io || lines.enabled();
        let (before, hidden) = self.split(lines.table, bar, offset, len);
        let (first, rest) = data.split_at_checked(before).ok_or(Errno::EINVAL)?;
        let last = rest.get(hidden..).ok_or(Errno::EINVAL)?;
        if !first.is_empty() {
            if !open {
                return Err(Errno::EIO);
            }
            self.device().bar_write(bar, offset, first)?;
        }
        if !last.is_empty() {
            if !open {
                return Err(Errno::EIO);
            }
            self.device()
                .bar_write(bar, offset + (before + hidden) as u64, last)?;
        }
        Ok(len)
    }

    /// The BAR behind `index`, and how many of `count` bytes at `offset` it has.
    fn clip(
        &self,
        index: RegionIndex,
        offset: u64,
        count: usize,
    ) -> Result<(u8, BarSpace, usize), Errno> {
        let bar = index.bar().ok_or(Errno::EINVAL)?;
        let spec = self.device().bar(bar).ok_or(Errno::EINVAL)?;
        let rest = spec.size.checked_sub(offset).filter(|rest| *rest != 0);
        let rest = usize::try_from(rest.ok_or(Errno::EINVAL)?).unwrap_or(usize::MAX);
        Ok((bar, spec.space, count.min(rest)))
    }

    /// How many of `len` bytes at `offset` lie before the MSI-X table, and how many in it.
    fn split(
        &self,
        table: Option<crate::core::MsixTable>,
        bar: u8,
        offset: u64,
        len: usize,
    ) -> (usize, usize) {
        let Some(table) = table.filter(|t| t.bar == bar) else {
            return (len, 0);
        };
        let end = offset.saturating_add(len as u64);
        let first = table.start.clamp(offset, end);
        let last = table.end.clamp(first, end);
        ((first - offset) as usize, (last - first) as usize)
    }
}
