//! A user of the kernel's VFIO: container, group and device files, as far as access to a device's
//! regions needs them.
//!
//! Source: Linux 7.2 `include/uapi/linux/vfio.h`. Each method is one system call unless its
//! docstring says otherwise, and returns the kernel's error number, so that tests can compare the
//! results of two drivers for the same call. Only what memory safety needs is checked before the
//! kernel's own checks.

use std::ffi::{c_int, c_ulong, c_void};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use varia_spec::errno::Errno;
use varia_spec::vfio::{
    DeviceInfo, IrqInfo, OFFSET_SHIFT, REGION_INFO_LEN, RegionType, SparseArea, device_feature,
    region_cap,
};

use crate::errno;
use crate::mapping::{Access, Mapping, Share};

/// `VFIO_TYPE1v2_IOMMU`.
pub const TYPE1V2_IOMMU: u32 = 3;
/// Largest `argsz` that this module passes on, in bytes.
pub const MAX_ARGSZ: usize = 1 << 20;

/// An ioctl of VFIO, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(u32);

macro_rules! requests {
    ($($name:ident = $number:literal;)*) => {
        impl Request {
            /// All requests of this module. Requests of different files may share a number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            $(
                #[doc = concat!("`VFIO_", stringify!($name), "`.")]
                pub const $name: Self = Self::of($number);
            )*
        }
    };
}

requests! {
    SET_IOMMU = 2;
    GROUP_SET_CONTAINER = 4;
    GROUP_GET_DEVICE_FD = 6;
    DEVICE_GET_INFO = 7;
    DEVICE_GET_REGION_INFO = 8;
    DEVICE_GET_IRQ_INFO = 9;
    DEVICE_SET_IRQS = 10;
    DEVICE_RESET = 11;
    DEVICE_GET_PCI_HOT_RESET_INFO = 12;
    DEVICE_PCI_HOT_RESET = 13;
    DEVICE_FEATURE = 17;
    IOMMU_MAP_DMA = 13;
    IOMMU_UNMAP_DMA = 14;
}

impl Request {
    /// `VFIO_TYPE` and `VFIO_BASE`: all of VFIO's ioctls are `_IO(';', 100 + n)`.
    pub(crate) const fn of(n: u8) -> Self {
        Self((b';' as u32) << 8 | (100 + n as u32))
    }

    /// Number that the kernel gets.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// `VFIO_DMA_MAP_FLAG_READ` and `_WRITE`.
const DMA_READ_WRITE: u32 = 3;
/// Bytes in `struct vfio_device_feature` without data.
const FEATURE_LEN: usize = 8;

/// `/dev/vfio/vfio`: an IOMMU context that groups are put into.
#[derive(Debug)]
pub struct Container(OwnedFd);

impl Container {
    /// Open `/dev/vfio/vfio`.
    pub fn open() -> Result<Self, Errno> {
        open(Path::new("/dev/vfio/vfio")).map(Self)
    }

    /// `VFIO_SET_IOMMU`; needs a group in the container.
    pub fn set_iommu(&self, iommu: u32) -> Result<(), Errno> {
        call(&self.0, Request::SET_IOMMU, iommu).map(drop)
    }

    /// `VFIO_IOMMU_MAP_DMA`: lets devices of this container access a whole mapping, from `iova` on.
    /// The pages stay accessible after the mapping is removed.
    pub fn map_dma(&self, iova: u64, mapping: &Mapping) -> Result<(), Errno> {
        // {argsz, flags u32; vaddr, iova, size u64}
        let mut arg = Arg(vec![0; 32]);
        arg.set32(0, 32);
        arg.set32(4, DMA_READ_WRITE);
        arg.set64(8, mapping.address());
        arg.set64(16, iova);
        arg.set64(24, mapping.len() as u64);
        arg.ioctl(&self.0, Request::IOMMU_MAP_DMA).map(drop)
    }

    /// `VFIO_IOMMU_UNMAP_DMA` of `size` bytes; returns the number of bytes that had been mapped.
    pub fn unmap_dma(&self, iova: u64, size: u64) -> Result<u64, Errno> {
        // {argsz, flags u32; iova, size u64}
        let mut arg = Arg(vec![0; 24]);
        arg.set32(0, 24);
        arg.set64(8, iova);
        arg.set64(16, size);
        arg.ioctl(&self.0, Request::IOMMU_UNMAP_DMA)?;
        Ok(arg.get64(16))
    }
}

/// `/dev/vfio/<number>`: an IOMMU group.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// Open the group with this number; `EBUSY` if the group is already open.
    pub fn open(number: u32) -> Result<Self, Errno> {
        open(Path::new(&format!("/dev/vfio/{number}"))).map(Self)
    }

    /// `VFIO_GROUP_SET_CONTAINER`.
    pub fn set_container(&self, container: &Container) -> Result<(), Errno> {
        let mut arg = Arg(container.0.as_raw_fd().to_ne_bytes().to_vec());
        arg.ioctl(&self.0, Request::GROUP_SET_CONTAINER).map(drop)
    }

    /// `VFIO_GROUP_GET_DEVICE_FD`: the device with this name, for PCI
    /// `0000:01:00.0`.
    pub fn device(&self, name: &str) -> Result<Device, Errno> {
        let mut arg = Arg(name.as_bytes().to_vec());
        arg.0.push(0);
        let fd = arg.ioctl(&self.0, Request::GROUP_GET_DEVICE_FD)?;
        if fd < 0 {
            return Err(Errno::EIO);
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Device(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// `struct vfio_region_info`, with the capability chain as the kernel wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRegionInfo {
    /// The kernel's `argsz`: the number of bytes that the kernel needs.
    pub argsz: u32,
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// The requested index.
    pub index: u32,
    /// Offset of the capability chain from the start of the structure; 0 without capabilities, or
    /// without room for them.
    pub cap_offset: u32,
    /// Size of the region in bytes.
    pub size: u64,
    /// Position of the region in the device file.
    pub offset: u64,
    /// All bytes behind the structure that the kernel had room for.
    pub caps: Vec<u8>,
}

impl RawRegionInfo {
    /// Bytes of a capability after its header, to the end of the buffer; `None` if the region has no
    /// such capability. A chain that leaves the buffer ends there.
    fn capability(&self, id: u16) -> Option<Arg> {
        let caps = Arg(self.caps.clone());
        let mut at = self.cap_offset as usize;
        // each capability has at least 8 bytes, so a longer chain is a loop
        for _ in 0..=self.caps.len() / region_cap::HEADER_LEN {
            let start = at.checked_sub(REGION_INFO_LEN)?;
            let body = self
                .caps
                .get(start.checked_add(region_cap::HEADER_LEN)?..)?;
            if caps.get16(start) == id {
                return Some(Arg(body.to_vec()));
            }
            at = caps.get32(start + 4) as usize;
        }
        None
    }

    /// The areas of the sparse-mmap capability; `None` if the region has no such capability. A chain
    /// that leaves the buffer ends there.
    #[must_use]
    pub fn sparse_areas(&self) -> Option<Vec<SparseArea>> {
        let body = self.capability(region_cap::SPARSE_MMAP)?;
        let areas = body.0.get(8..)?.chunks_exact(16);
        let area = |area: &[u8]| {
            let area = Arg(area.to_vec());
            SparseArea {
                offset: area.get64(0),
                size: area.get64(8),
            }
        };
        Some(areas.take(body.get32(0) as usize).map(area).collect())
    }

    /// Type and subtype of a device-specific region; `None` if the region has no such capability.
    #[must_use]
    pub fn region_type(&self) -> Option<RegionType> {
        let body = self.capability(region_cap::TYPE)?;
        (body.0.len() >= 8).then(|| RegionType {
            kind: body.get32(0),
            subtype: body.get32(4),
        })
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An open device.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// `VFIO_DEVICE_GET_REGION_INFO` with the room that the kernel needs: two calls for a region
    /// with capabilities.
    pub fn region_info(&self, index: u32) -> Result<RawRegionInfo, Errno> {
        let info = self.region_info_with(index, REGION_INFO_LEN as u32)?;
        if info.argsz as usize <= REGION_INFO_LEN {
            return Ok(info);
        }
        self.region_info_with(index, info.argsz)
    }

    /// `VFIO_DEVICE_GET_REGION_INFO` with this `argsz`, right or wrong; `EINVAL` without a call if
    /// `argsz` is more than [`MAX_ARGSZ`].
    pub fn region_info_with(&self, index: u32, argsz: u32) -> Result<RawRegionInfo, Errno> {
        let room = argsz as usize;
        if room > MAX_ARGSZ {
            return Err(Errno::EINVAL);
        }
        let mut arg = Arg(vec![0; room.max(REGION_INFO_LEN)]);
        arg.set32(0, argsz);
        arg.set32(8, index);
        arg.ioctl(&self.0, Request::DEVICE_GET_REGION_INFO)?;
        Ok(RawRegionInfo {
            argsz: arg.get32(0),
            flags: arg.get32(4),
            index: arg.get32(8),
            cap_offset: arg.get32(12),
            size: arg.get64(16),
            offset: arg.get64(24),
            caps: arg.0.get(REGION_INFO_LEN..).unwrap_or_default().to_vec(),
        })
    }

    /// `VFIO_DEVICE_GET_INFO`.
    pub fn info(&self) -> Result<DeviceInfo, Errno> {
        const LEN: usize = 24;
        let mut arg = Arg(vec![0; LEN]);
        arg.set32(0, LEN as u32);
        arg.ioctl(&self.0, Request::DEVICE_GET_INFO)?;
        Ok(DeviceInfo {
            flags: arg.get32(4),
            num_regions: arg.get32(8),
            num_irqs: arg.get32(12),
        })
    }

    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    pub fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        const LEN: usize = 16;
        let mut arg = Arg(vec![0; LEN]);
        arg.set32(0, LEN as u32);
        arg.set32(8, index);
        arg.ioctl(&self.0, Request::DEVICE_GET_IRQ_INFO)?;
        Ok(IrqInfo {
            flags: arg.get32(4),
            count: arg.get32(12),
        })
    }

    /// `VFIO_DEVICE_SET_IRQS`; returns the kernel's value, which is above zero if the kernel has
    /// fewer vectors than requested.
    pub fn set_irqs(
        &self,
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
        data: &[u8],
    ) -> Result<i32, Errno> {
        const LEN: usize = 20;
        let mut arg = Arg(vec![0; LEN]);
        arg.0.extend_from_slice(data);
        for (at, value) in [
            (0, arg.0.len() as u32),
            (4, flags),
            (8, index),
            (12, start),
            (16, count),
        ] {
            arg.set32(at, value);
        }
        arg.ioctl(&self.0, Request::DEVICE_SET_IRQS)
    }

    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO` with room for `room` functions: {group, segment, bus,
    /// device and function} of each.
    pub fn hot_reset_info(&self, room: usize) -> Result<Vec<(u32, u16, u8, u8)>, Errno> {
        const LEN: usize = 12;
        const EACH: usize = 8;
        let mut arg = Arg(vec![0; LEN + EACH * room]);
        arg.set32(0, (LEN + EACH * room) as u32);
        arg.ioctl(&self.0, Request::DEVICE_GET_PCI_HOT_RESET_INFO)?;
        let count = (arg.get32(8) as usize).min(room);
        let function = |i: usize| {
            let at = LEN + EACH * i;
            let [bus, devfn] = arg.bytes(at + 6);
            (arg.get32(at), arg.get16(at + 4), bus, devfn)
        };
        Ok((0..count).map(function).collect())
    }

    /// `VFIO_DEVICE_PCI_HOT_RESET` by the owner of these groups.
    pub fn hot_reset(&self, groups: &[&Group]) -> Result<(), Errno> {
        const LEN: usize = 12;
        let mut arg = Arg(vec![0; LEN]);
        for group in groups {
            arg.0.extend(group.0.as_raw_fd().to_ne_bytes());
        }
        arg.set32(0, arg.0.len() as u32);
        arg.set32(8, groups.len() as u32);
        arg.ioctl(&self.0, Request::DEVICE_PCI_HOT_RESET).map(drop)
    }

    /// `VFIO_DEVICE_RESET`.
    pub fn reset(&self) -> Result<(), Errno> {
        call(&self.0, Request::DEVICE_RESET, 0).map(drop)
    }

    /// `VFIO_DEVICE_FEATURE` with an index and flags of
    /// [`device_feature`](varia_spec::vfio::device_feature), for a feature without data.
    ///
    /// A feature with data returns `EINVAL`: data may hold addresses, which the kernel would
    /// follow.
    pub fn feature(&self, flags: u32) -> Result<(), Errno> {
        let mut arg = Arg(vec![0; FEATURE_LEN]);
        arg.set32(0, FEATURE_LEN as u32);
        arg.set32(4, flags);
        arg.ioctl(&self.0, Request::DEVICE_FEATURE).map(drop)
    }

    /// `VFIO_DEVICE_FEATURE_DMA_BUF`: `len` bytes from `offset` of a region as a dma-buf, in one range.
    pub fn dma_buf(&self, region: u32, offset: u64, len: u64) -> Result<OwnedFd, Errno> {
        // {argsz, flags}, {region index, open flags, flags, ranges}, {offset, length}
        const LEN: usize = FEATURE_LEN + 16 + 16;
        let mut arg = Arg(vec![0; LEN]);
        arg.set32(0, LEN as u32);
        arg.set32(4, device_feature::GET | device_feature::DMA_BUF);
        arg.set32(8, region);
        arg.set32(12, (libc::O_RDWR | libc::O_CLOEXEC) as u32);
        arg.set32(20, 1);
        arg.set64(24, offset);
        arg.set64(32, len);
        let fd = arg.ioctl(&self.0, Request::DEVICE_FEATURE)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Read at `position` of the device file, which is a region's [`offset`](RawRegionInfo::offset)
    /// plus the offset in the region; returns the number of bytes.
    pub fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::pread(&self.0, buf, position).map_err(errno::of_rustix)
    }

    /// Write at `position` of the device file; returns the number of bytes.
    pub fn write_at(&self, position: u64, data: &[u8]) -> Result<usize, Errno> {
        rustix::io::pwrite(&self.0, data, position).map_err(errno::of_rustix)
    }

    /// Map `len` bytes from `position` of the device file.
    pub fn map(&self, position: u64, len: u64, access: Access) -> Result<Mapping, Errno> {
        Mapping::new(&self.0, position, len, access, Share::Shared)
    }

    /// Same as [`map`](Self::map), shared or private.
    pub fn map_as(
        &self,
        position: u64,
        len: u64,
        access: Access,
        share: Share,
    ) -> Result<Mapping, Errno> {
        Mapping::new(&self.0, position, len, access, share)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Position in a device file of `offset` in the region `index`, in vfio-pci's packing. The position
/// may lie outside the region.
#[must_use]
pub const fn position(index: u32, offset: u64) -> u64 {
    ((index as u64) << OFFSET_SHIFT) | offset
}

/// The argument of an ioctl, field by field in the machine's byte order.
struct Arg(Vec<u8>);

impl Arg {
    fn set32(&mut self, at: usize, value: u32) {
        if let Some(field) = self.0.get_mut(at..).and_then(|f| f.first_chunk_mut()) {
            *field = value.to_ne_bytes();
        }
    }

    fn set64(&mut self, at: usize, value: u64) {
        if let Some(field) = self.0.get_mut(at..).and_then(|f| f.first_chunk_mut()) {
            *field = value.to_ne_bytes();
        }
    }

    /// The `N` bytes at `at`; zeros beyond the end.
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0
            .get(at..)
            .and_then(|f| f.first_chunk().copied())
            .unwrap_or([0; N])
    }

    fn get16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    fn get32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    fn get64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    /// Pass the bytes to `request`.
    ///
    /// All callers are in this module, and pass a buffer that is at least as
    /// long as the fixed part of the request's structure and as its `argsz`.
    fn ioctl(&mut self, fd: impl AsFd, request: Request) -> Result<c_int, Errno> {
        let fd = fd.as_fd().as_raw_fd();
        let arg: *mut c_void = self.0.as_mut_ptr().cast();
        // SAFETY: `fd` is open during the call; `arg` is valid for reads and
        // writes of the length that the request's structure declares (above).
        let value = unsafe { libc::ioctl(fd, request.number() as _, arg) };
        if value < 0 {
            Err(errno::last())
        } else {
            Ok(value)
        }
    }
}

/// An ioctl whose argument is a number.
fn call(fd: impl AsFd, request: Request, value: u32) -> Result<c_int, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the requests passed here take a number and touch no memory of ours.
    let value = unsafe { libc::ioctl(fd, request.number() as _, c_ulong::from(value)) };
    if value < 0 {
        Err(errno::last())
    } else {
        Ok(value)
    }
}

/// Makes an ioctl of any file by its number, with zero for an argument: what a filter of system
/// calls lets through gets the kernel's own error, `ENOTTY` of a file that does not have the ioctl.
/// Of a device, an ioctl without an argument has its effect: `VFIO_DEVICE_RESET` resets the device.
///
/// Errors: error of the ioctl.
pub fn ioctl_without_argument(file: impl AsFd, number: u32) -> Result<i32, Errno> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: `fd` is open during the call. The argument is null, where this process has no memory.
    let value = unsafe { libc::ioctl(fd, number as _, std::ptr::null_mut::<c_void>()) };
    if value < 0 {
        Err(errno::last())
    } else {
        Ok(value)
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map(|file: File| file.into())
        .map_err(|e| errno::of_io(&e))
}
