//! From a checked request to the backend and back to a reply's payload.
//!
//! An [`Errno`] here is a request that the device or the server refuses: the
//! client gets it as an error reply and stays connected.

use std::os::fd::OwnedFd;
use std::time::Duration;

use varia_spec::errno::Errno;
use varia_spec::vfio::{IrqAction, REGION_INFO_LEN, irq_set, region_flags};
use varia_sys::event::EventFd;

use crate::backend::{Backend, DmaRegion, IrqSet, OfferedRegion, Progress, ReceivedIrqData};
use crate::outgoing::Outgoing;
use crate::payload::{
    DMA_READ, DMA_UNMAP_ALL, DMA_UNMAP_LEN, DMA_WRITE, DeviceReply, DmaMap, DmaUnmap, InfoQuery,
    IrqReply, MultiWrite, REGION_ACCESS_LEN, RegionAccess, RegionReply, SetIrqs,
};
use crate::request::Request;

/// Result of an attempt at a request, whose reply's payload is in [`Outgoing`].
#[derive(Debug)]
pub(crate) enum Handled {
    /// The request is done. These descriptors go with the reply.
    Answered(Vec<OwnedFd>),
    /// The device is not ready: the next attempt is due after this time.
    Waits(Duration),
}

/// A request that is done, without descriptors in its reply.
const DONE: Handled = Handled::Answered(Vec::new());

/// State of a request between its attempts.
#[derive(Debug)]
pub(crate) struct Attempts<W> {
    wait: W,
    /// Writes of a REGION_WRITE_MULTI that are done.
    writes: usize,
}

impl<W> Attempts<W> {
    /// None was made yet.
    pub(crate) fn new(wait: W) -> Self {
        Self { wait, writes: 0 }
    }
}

/// A negotiated client. Dropping the session removes the client's mappings and
/// tells the backend that the client has gone.
pub(crate) struct Session<'a, B: Backend> {
    backend: &'a B,
    /// Descriptors that the client can receive in one message.
    max_fds: usize,
}

impl<'a, B: Backend> Session<'a, B> {
    /// The backend may refuse the client.
    pub(crate) fn new(backend: &'a B, max_fds: usize) -> Result<Self, Errno> {
        backend.connected()?;
        Ok(Self { backend, max_fds })
    }

    /// An attempt at a request, whose reply's payload is appended to `out`. Only region accesses
    /// are attempted more than once.
    pub(crate) fn handle(
        &mut self,
        request: Request<'_>,
        fds: Vec<OwnedFd>,
        attempts: &mut Attempts<B::Wait>,
        out: &mut Outgoing,
    ) -> Result<Handled, Errno> {
        // some clients send the descriptor of a mapping again when they remove the mapping
        let takes_fds = matches!(
            request,
            Request::DmaMap(_) | Request::DmaUnmap(_) | Request::SetIrqs(_)
        );
        if !fds.is_empty() && !takes_fds {
            return Err(Errno::EINVAL);
        }
        match request {
            Request::RegionRead(access) => return self.region_read(access, attempts, out),
            Request::RegionWrite(access, data) => {
                return self.region_write(access, data, attempts, out);
            }
            Request::RegionWriteMulti(writes) => {
                return self.region_write_multi(&writes, attempts, out);
            }
            Request::RegionInfo(query) => {
                return self.region_info(query, out).map(Handled::Answered);
            }
            // negotiated already
            Request::Version(_) => return Err(Errno::EINVAL),
            Request::DmaMap(map) => self.dma_map(map, fds)?,
            Request::DmaUnmap(unmap) => self.dma_unmap(unmap, out)?,
            Request::DeviceInfo { argsz } => {
                let info = self.backend.info();
                out.encode(|bytes| DeviceReply { info }.encode(bytes));
                fits(argsz, out.len())?;
            }
            Request::IrqInfo(query) => self.irq_info(query, out)?,
            Request::SetIrqs(set) => self.set_irqs(set, fds)?,
            Request::Reset => self.backend.reset()?,
            Request::Unsupported(_) => return Err(Errno::EOPNOTSUPP),
        }
        Ok(DONE)
    }

    fn dma_map(&self, map: DmaMap, mut fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let fd = fds.pop();
        let known = DMA_READ | DMA_WRITE;
        if !fds.is_empty() || map.flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        let DmaMap {
            addr,
            size,
            flags,
            offset,
        } = map;
        self.backend.dma_map(DmaRegion {
            addr,
            size,
            flags,
            offset,
            fd,
        })
    }

    fn dma_unmap(&self, unmap: DmaUnmap, out: &mut Outgoing) -> Result<(), Errno> {
        fits(unmap.argsz, DMA_UNMAP_LEN as usize)?;
        match unmap.flags {
            0 => self.backend.dma_unmap(unmap.addr, unmap.size)?,
            DMA_UNMAP_ALL if unmap.addr == 0 && unmap.size == 0 => self.backend.dma_unmap_all(),
            _ => return Err(Errno::EINVAL),
        }
        let reply = DmaUnmap {
            argsz: DMA_UNMAP_LEN,
            ..unmap
        };
        out.encode(|bytes| reply.encode(bytes));
        Ok(())
    }

    /// Returns the descriptors of the reply.
    fn region_info(&self, query: InfoQuery, out: &mut Outgoing) -> Result<Vec<OwnedFd>, Errno> {
        let InfoQuery { argsz, index } = query;
        fits(argsz, REGION_INFO_LEN)?;
        self.check_region(index)?;
        let OfferedRegion { mut info, file } = match self.backend.region_info(index) {
            // a kind of region that this device does not have, such as VGA: clients go through all
            // indices that DEVICE_GET_INFO counts
            Err(Errno::EINVAL) => OfferedRegion::default(),
            other => other?,
        };
        let file = file.filter(|_| info.flags & region_flags::MMAP != 0 && self.max_fds > 0);
        if file.is_none() {
            info.flags &= !region_flags::MMAP;
            info.areas.clear();
            info.msix_mappable = false;
        }
        let (fd, offset) = file.unzip();
        let reply = RegionReply {
            index,
            offset: offset.unwrap_or_default(),
            info,
        };
        out.encode(|bytes| reply.encode(argsz, bytes));
        // a client that has to ask again gets the descriptor then
        let whole = argsz as usize >= reply.full_len();
        Ok(fd.into_iter().filter(|_| whole).collect())
    }

    fn irq_info(&self, query: InfoQuery, out: &mut Outgoing) -> Result<(), Errno> {
        let index = query.index;
        if index >= self.backend.info().num_irqs {
            return Err(Errno::EINVAL);
        }
        let info = self.backend.irq_info(index)?;
        out.encode(|bytes| IrqReply { index, info }.encode(bytes));
        fits(query.argsz, out.len())
    }

    /// Checks that the message has the data that its flags and its count say.
    fn set_irqs(&self, set: SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let action = IrqAction::from_flags(set.flags)?;
        let number = set.count as usize;
        let data = match set.flags & irq_set::DATA_MASK {
            irq_set::DATA_NONE if fds.is_empty() => ReceivedIrqData::None,
            irq_set::DATA_BOOL if fds.is_empty() && number > 0 => {
                let bytes = set.data.get(..number).ok_or(Errno::EINVAL)?;
                ReceivedIrqData::Bool(bytes.iter().map(|b| *b != 0).collect())
            }
            irq_set::DATA_EVENTFD if number > 0 => events(number, fds)?,
            _ => return Err(Errno::EINVAL),
        };
        let SetIrqs {
            index,
            start,
            count,
            ..
        } = set;
        self.backend.set_irqs(IrqSet {
            index,
            start,
            count,
            action,
            data,
        })
    }

    fn region_read(
        &self,
        access: RegionAccess,
        attempts: &mut Attempts<B::Wait>,
        out: &mut Outgoing,
    ) -> Result<Handled, Errno> {
        self.check_region(access.region)?;
        let RegionAccess { region, offset, .. } = access;
        let asked = access.count as usize;
        out.room(REGION_ACCESS_LEN);
        // the device's bytes go straight into the reply
        let data = out.room(asked);
        let read = self
            .backend
            .region_read(region, offset, data, &mut attempts.wait)?;
        let count = match read {
            Progress::Done(n) => n.min(asked),
            Progress::Wait(time) => return Ok(Handled::Waits(time)),
        };
        let reply = RegionAccess {
            count: count as u32,
            ..access
        };
        out.write(0, &reply.bytes());
        out.truncate(REGION_ACCESS_LEN + count);
        Ok(DONE)
    }

    fn region_write(
        &self,
        access: RegionAccess,
        data: &[u8],
        attempts: &mut Attempts<B::Wait>,
        out: &mut Outgoing,
    ) -> Result<Handled, Errno> {
        self.check_region(access.region)?;
        let RegionAccess { region, offset, .. } = access;
        let written = self
            .backend
            .region_write(region, offset, data, &mut attempts.wait)?;
        let n = match written {
            Progress::Done(n) => n,
            Progress::Wait(time) => return Ok(Handled::Waits(time)),
        };
        let reply = RegionAccess {
            count: n.min(data.len()) as u32,
            ..access
        };
        out.encode(|bytes| reply.encode(bytes));
        Ok(DONE)
    }

    /// Writes in order up to the first that fails; its error when it is the
    /// first of all, else how many were done.
    fn region_write_multi(
        &self,
        writes: &[MultiWrite],
        attempts: &mut Attempts<B::Wait>,
        out: &mut Outgoing,
    ) -> Result<Handled, Errno> {
        for write in writes.iter().skip(attempts.writes) {
            let result = write.data().ok_or(Errno::EINVAL).and_then(|data| {
                self.check_region(write.region)?;
                self.backend
                    .region_write(write.region, write.offset, data, &mut attempts.wait)
            });
            match result {
                Ok(Progress::Done(_)) => attempts.writes += 1,
                Ok(Progress::Wait(time)) => return Ok(Handled::Waits(time)),
                Err(e) if attempts.writes == 0 => return Err(e),
                Err(_) => break,
            }
        }
        let done = attempts.writes as u64;
        out.encode(|bytes| bytes.extend(done.to_ne_bytes()));
        Ok(DONE)
    }

    fn check_region(&self, index: u32) -> Result<(), Errno> {
        if index < self.backend.info().num_regions {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }
}

impl<B: Backend> Drop for Session<'_, B> {
    fn drop(&mut self) {
        self.backend.dma_unmap_all();
        self.backend.disconnected();
    }
}

/// `count` events: a descriptor for each, or no descriptor, which removes the events.
fn events(count: usize, fds: Vec<OwnedFd>) -> Result<ReceivedIrqData, Errno> {
    if fds.is_empty() {
        return Ok(ReceivedIrqData::NoEvents);
    }
    if fds.len() != count {
        return Err(Errno::EINVAL);
    }
    let events = fds.into_iter().map(EventFd::from_fd);
    let events = events.collect::<Result<_, _>>();
    events
        .map(ReceivedIrqData::Events)
        .map_err(|_| Errno::EINVAL)
}

/// The reply's fixed part has to fit into the request's `argsz`.
fn fits(argsz: u32, len: usize) -> Result<(), Errno> {
    if (argsz as usize) < len {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}
