//! A region that a client was told about, and mapping it.

use std::os::fd::OwnedFd;

use varia_spec::errno::Errno;
use varia_spec::vfio::region_flags;
use varia_sys::mapping::{Access, Mapping, Share};

use super::{ClientError, SparseArea};

/// A region, as the server describes it.
#[derive(Debug)]
pub struct Region {
    /// `VFIO_REGION_INFO_FLAG_*`.
    pub flags: u32,
    /// Its index.
    pub index: u32,
    /// Bytes.
    pub size: u64,
    /// Where it begins in `fd`.
    pub offset: u64,
    /// The parts that can be mapped; empty when the whole region can.
    pub sparse: Vec<SparseArea>,
    /// Type and subtype of a device's own region, `VFIO_REGION_INFO_CAP_TYPE`.
    pub region_type: Option<(u32, u32)>,
    /// The pages of the MSI-X table can be mapped too.
    pub msix_mappable: bool,
    /// What to map.
    pub fd: Option<OwnedFd>,
}

impl Region {
    /// Map `size` bytes from `offset` of the region. Both have to be multiples
    /// of the page size, and the range inside the region and inside one sparse
    /// area, if there are any.
    pub fn map(&self, offset: u64, size: u64, access: Access) -> Result<Mapping, ClientError> {
        let fail = |errno| ClientError::Map {
            index: self.index,
            offset,
            size,
            errno,
        };
        let whole = SparseArea {
            offset: 0,
            size: self.size,
        };
        let inside = |area: &SparseArea| {
            offset.checked_add(size).is_some_and(|end| {
                offset >= area.offset && end <= area.offset.saturating_add(area.size)
            })
        };
        let offered = self.sparse.is_empty() || self.sparse.iter().any(inside);
        let fd = self
            .fd
            .as_ref()
            .filter(|_| self.flags & region_flags::MMAP != 0);
        let (Some(fd), true, true) = (fd, offered, inside(&whole)) else {
            return Err(fail(Errno::EINVAL));
        };
        let position = self.offset.checked_add(offset).ok_or(fail(Errno::EINVAL))?;
        Mapping::new(fd, position, size, access, Share::Shared).map_err(fail)
    }
}
