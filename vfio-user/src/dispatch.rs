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
use crate::dma::DmaTable;
use crate::payload::{
    DMA_READ, DMA_UNMAP_ALL, DMA_WRITE, DeviceReply, DmaMap, DmaUnmap, InfoQuery, IrqReply,
    MultiWrite, RegionAccess, RegionReply, SetIrqs,
};
use crate::request::Request;

/// Payload and descriptors of a reply.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Result of an attempt at a request.
#[derive(Debug)]
pub(crate) enum Handled {
    /// The request is done.
    Answered(Answer),
    /// The device is not ready: the next attempt is due after this time.
    Waits(Duration),
}

impl From<Answer> for Handled {
    fn from(answer: Answer) -> Self {
        Self::Answered(answer)
    }
}

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
    dma: DmaTable,
    /// Descriptors that the client can receive in one message.
    max_fds: usize,
}

impl<'a, B: Backend> Session<'a, B> {
    /// The backend may refuse the client.
    pub(crate) fn new(backend: &'a B, max_fds: usize) -> Result<Self, Errno> {
        backend.connected()?;
        Ok(Self {
            backend,
            dma: DmaTable::default(),
            max_fds,
        })
    }

    /// An attempt at a request. Only region accesses are made more than once.
    pub(crate) fn handle(
        &mut self,
        request: Request<'_>,
        fds: Vec<OwnedFd>,
        attempts: &mut Attempts<B::Wait>,
    ) -> Result<Handled, Errno> {
        let takes_fds = matches!(request, Request::DmaMap(_) | Request::SetIrqs(_));
        if !fds.is_empty() && !takes_fds {
            return Err(Errno::EINVAL);
        }
        let answer = match request {
            Request::RegionRead(access) => return self.region_read(access, attempts),
            Request::RegionWrite(access, data) => return self.region_write(access, data, attempts),
            Request::RegionWriteMulti(writes) => return self.region_write_multi(&writes, attempts),
            // negotiated already
            Request::Version(_) => Err(Errno::EINVAL),
            Request::DmaMap(map) => self.dma_map(map, fds),
            Request::DmaUnmap(unmap) => self.dma_unmap(unmap),
            Request::DeviceInfo { argsz } => self.device_info(argsz),
            Request::RegionInfo(query) => self.region_info(query),
            Request::IrqInfo(query) => self.irq_info(query),
            Request::SetIrqs(set) => self.set_irqs(set, fds),
            Request::Reset => self.backend.reset().map(|()| Answer::default()),
            Request::Unsupported(_) => Err(Errno::EOPNOTSUPP),
        };
        answer.map(Handled::Answered)
    }

    fn dma_map(&mut self, map: DmaMap, mut fds: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let fd = fds.pop();
        let known = DMA_READ | DMA_WRITE;
        if !fds.is_empty() || map.flags & !known != 0 {
            return Err(Errno::EINVAL);
        }
        self.dma.map(map.addr, map.size)?;
        let DmaMap {
            addr,
            size,
            flags,
            offset,
        } = map;
        if let Err(e) = self.backend.dma_map(DmaRegion {
            addr,
            size,
            flags,
            offset,
            fd,
        }) {
            self.dma.take_back(addr);
            return Err(e);
        }
        Ok(Answer::default())
    }

    fn dma_unmap(&mut self, unmap: DmaUnmap) -> Result<Answer, Errno> {
        let gone = match unmap.flags {
            0 => self.dma.unmap(unmap.addr, unmap.size)?,
            DMA_UNMAP_ALL if unmap.addr == 0 && unmap.size == 0 => self.dma.unmap_all(),
            _ => return Err(Errno::EINVAL),
        };
        for (addr, size) in gone {
            self.backend.dma_unmap(addr, size);
        }
        let mut answer = Answer::default();
        unmap.encode(&mut answer.payload);
        Ok(answer)
    }

    fn device_info(&self, argsz: u32) -> Result<Answer, Errno> {
        let mut answer = Answer::default();
        let info = self.backend.info();
        DeviceReply { info }.encode(&mut answer.payload);
        fits(argsz, answer.payload.len())?;
        Ok(answer)
    }

    fn region_info(&self, query: InfoQuery) -> Result<Answer, Errno> {
        fits(query.argsz, REGION_INFO_LEN)?;
        self.check_region(query.index)?;
        let OfferedRegion { mut info, file } = self.backend.region_info(query.index)?;
        let file = file.filter(|_| info.flags & region_flags::MMAP != 0 && self.max_fds > 0);
        if file.is_none() {
            info.flags &= !region_flags::MMAP;
            info.areas.clear();
            info.msix_mappable = false;
        }
        let (fd, offset) = file.unzip();
        let mut answer = Answer {
            payload: Vec::new(),
            fds: fd.into_iter().collect(),
        };
        let reply = RegionReply {
            index: query.index,
            offset: offset.unwrap_or_default(),
            info,
        };
        reply.encode(query.argsz, &mut answer.payload);
        Ok(answer)
    }

    fn irq_info(&self, query: InfoQuery) -> Result<Answer, Errno> {
        let index = query.index;
        if index >= self.backend.info().num_irqs {
            return Err(Errno::EINVAL);
        }
        let info = self.backend.irq_info(index)?;
        let mut answer = Answer::default();
        IrqReply { index, info }.encode(&mut answer.payload);
        fits(query.argsz, answer.payload.len())?;
        Ok(answer)
    }

    /// Checks that the message has the data that its flags and its count say.
    fn set_irqs(&self, set: SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<Answer, Errno> {
        let action = IrqAction::from_flags(set.flags)?;
        let number = set.count as usize;
        let data = match set.flags & irq_set::DATA_MASK {
            irq_set::DATA_NONE if set.data.is_empty() && fds.is_empty() => ReceivedIrqData::None,
            irq_set::DATA_BOOL if set.data.len() == number && fds.is_empty() && number > 0 => {
                ReceivedIrqData::Bool(set.data.iter().map(|b| *b != 0).collect())
            }
            irq_set::DATA_EVENTFD if set.data.is_empty() && number > 0 => events(number, fds)?,
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
        })?;
        Ok(Answer::default())
    }

    fn region_read(
        &self,
        access: RegionAccess,
        attempts: &mut Attempts<B::Wait>,
    ) -> Result<Handled, Errno> {
        self.check_region(access.region)?;
        let mut data = vec![0; access.count as usize];
        let RegionAccess { region, offset, .. } = access;
        let read = self
            .backend
            .region_read(region, offset, &mut data, &mut attempts.wait)?;
        let n = match read {
            Progress::Done(n) => n,
            Progress::Wait(time) => return Ok(Handled::Waits(time)),
        };
        data.truncate(n);
        let mut answer = Answer::default();
        RegionAccess {
            count: data.len() as u32,
            ..access
        }
        .encode(&mut answer.payload);
        answer.payload.append(&mut data);
        Ok(answer.into())
    }

    fn region_write(
        &self,
        access: RegionAccess,
        data: &[u8],
        attempts: &mut Attempts<B::Wait>,
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
        let mut answer = Answer::default();
        RegionAccess {
            count: n.min(data.len()) as u32,
            ..access
        }
        .encode(&mut answer.payload);
        Ok(answer.into())
    }

    /// Writes in order up to the first that fails; its error when it is the
    /// first of all, else how many were done.
    fn region_write_multi(
        &self,
        writes: &[MultiWrite],
        attempts: &mut Attempts<B::Wait>,
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
        let answer = Answer {
            payload: (attempts.writes as u64).to_ne_bytes().to_vec(),
            fds: Vec::new(),
        };
        Ok(answer.into())
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
        for (addr, size) in self.dma.unmap_all() {
            self.backend.dma_unmap(addr, size);
        }
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
