//! DEVICE_SET_IRQS: signal, mask or unmask interrupts; or take their eventfds.

use std::os::fd::{BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;
use varia_spec::vfio::{IrqAction, irq_set};
use varia_sys::event::EventFd;

use super::layout::{argsz, put, split};
use super::{Command, Served};
use crate::backend::{Backend, IrqSet, ReceivedIrqData};
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// DEVICE_SET_IRQS, request; eventfds come as descriptors beside it. The reply has no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetIrqs<'a> {
    /// A flag of `VFIO_IRQ_SET_DATA_*` and a flag of `VFIO_IRQ_SET_ACTION_*`.
    pub flags: u32,
    /// The interrupt index.
    pub index: u32,
    /// The first interrupt.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// The booleans, a byte for each, where the flags say so.
    pub data: &'a [u8],
}

/// `struct vfio_irq_set` without its data.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Layout {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
}

impl SetIrqs<'_> {
    /// Append the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let layout = Layout {
            argsz: argsz::<Layout>().saturating_add(self.data.len() as u32),
            flags: self.flags,
            index: self.index,
            start: self.start,
            count: self.count,
        };
        put(out, &layout);
        out.extend_from_slice(self.data);
    }
}

impl<'a> Served<'a> for SetIrqs<'a> {
    const TAKES_DESCRIPTORS: bool = true;

    fn decode(payload: &'a [u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (layout, data) = split::<Layout>("DEVICE_SET_IRQS", payload)?;
        Ok(Self {
            flags: layout.flags,
            index: layout.index,
            start: layout.start,
            count: layout.count,
            data,
        })
    }

    /// Checks that the message has the data that its flags and its count say.
    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let action = IrqAction::from_flags(self.flags)?;
        let number = self.count as usize;
        let fds = turn.fds;
        let data = match self.flags & irq_set::DATA_MASK {
            irq_set::DATA_NONE if fds.is_empty() => ReceivedIrqData::None,
            irq_set::DATA_BOOL if fds.is_empty() && number > 0 => {
                let bytes = self.data.get(..number).ok_or(Errno::EINVAL)?;
                ReceivedIrqData::Bool(bytes.iter().map(|b| *b != 0).collect())
            }
            irq_set::DATA_EVENTFD if number > 0 => events(number, fds)?,
            _ => return Err(Errno::EINVAL),
        };
        turn.backend.set_irqs(IrqSet {
            index: self.index,
            start: self.start,
            count: self.count,
            action,
            data,
        })?;
        Ok(DONE)
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

/// Data that [`Client::set_irqs`] sends: one value for each interrupt of the range.
#[derive(Debug, Clone, Copy)]
pub enum SentIrqData<'a> {
    /// No data, for this many interrupts.
    None(u32),
    /// Booleans.
    Bool(&'a [bool]),
    /// An eventfd for each.
    Events(&'a [BorrowedFd<'a>]),
    /// Take away the eventfds of this many interrupts.
    NoEvents(u32),
}

impl Client {
    /// DEVICE_SET_IRQS; `action` is one of `VFIO_IRQ_SET_ACTION_*`. Eventfds go
    /// in as many messages as the server's `max_msg_fds` makes necessary.
    pub fn set_irqs(
        &mut self,
        index: u32,
        start: u32,
        action: u32,
        data: SentIrqData<'_>,
    ) -> Result<(), ClientError> {
        let (kind, count, bytes) = match data {
            SentIrqData::None(count) => (irq_set::DATA_NONE, count, Vec::new()),
            SentIrqData::Bool(values) => {
                let bytes = values.iter().map(|v| u8::from(*v)).collect();
                (irq_set::DATA_BOOL, values.len() as u32, bytes)
            }
            SentIrqData::NoEvents(count) => (irq_set::DATA_EVENTFD, count, Vec::new()),
            SentIrqData::Events(fds) => {
                let flags = irq_set::DATA_EVENTFD | action;
                let mut start = start;
                for fds in fds.chunks(self.server().max_fds().max(1)) {
                    let count = fds.len() as u32;
                    let set = SetIrqs {
                        flags,
                        index,
                        start,
                        count,
                        data: &[],
                    };
                    self.set_irqs_raw(&set, fds)?;
                    start = start.saturating_add(count);
                }
                return Ok(());
            }
        };
        let set = SetIrqs {
            flags: kind | action,
            index,
            start,
            count,
            data: &bytes,
        };
        self.set_irqs_raw(&set, &[])
    }

    /// DEVICE_SET_IRQS with fields that need not fit together.
    pub fn set_irqs_raw(
        &mut self,
        set: &SetIrqs<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let mut payload = Vec::new();
        set.encode(&mut payload);
        self.request(Command::DEVICE_SET_IRQS, &payload, fds)
            .map(drop)
    }
}
