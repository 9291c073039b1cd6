//! Regions of a server's device, and mapping them.

use std::os::fd::OwnedFd;

use varia_spec::errno::Errno;
use varia_spec::vfio::{SparseArea, region_flags};
use varia_sys::mapping::{Access, Mapping, Share};

use super::ClientError;
use crate::command::RegionInfo;

/// A region of a server's device.
#[derive(Debug)]
pub struct RemoteRegion {
    /// The region's index.
    pub index: u32,
    /// The region's info, as the server sent it.
    pub info: RegionInfo,
    /// Descriptor to map, and the offset of the region's first byte in it.
    pub file: Option<(OwnedFd, u64)>,
}

impl RemoteRegion {
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
        let RegionInfo { flags, areas, .. } = &self.info;
        let whole = SparseArea {
            offset: 0,
            size: self.info.size,
        };
        let inside = |area: &SparseArea| {
            offset.checked_add(size).is_some_and(|end| {
                offset >= area.offset && end <= area.offset.saturating_add(area.size)
            })
        };
        let offered = areas.is_empty() || areas.iter().any(inside);
        let file = self.file.as_ref();
        let file = file.filter(|_| flags & region_flags::MMAP != 0);
        let (Some((fd, first)), true, true) = (file, offered, inside(&whole)) else {
            return Err(fail(Errno::EINVAL));
        };
        let position = first.checked_add(offset).ok_or(fail(Errno::EINVAL))?;
        Mapping::new(fd, position, size, access, Share::Shared).map_err(fail)
    }
}
