//! A user of a device that a kernel driver serves.
//!
//! Reads and writes go through the lab's position module, so that the file position which a driver
//! leaves behind is part of the answer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use varia_differential::op::{self, DOORBELLS, Descriptor, EVENTS, SLOTS};
use varia_differential::{Answer, Op, Target};
use varia_spec::Errno;
use varia_sys::child::{self, Outcome};
use varia_sys::errno::of_io;
use varia_sys::event::EventFd;
use varia_sys::guarded::{Guarded, Pointer, Returned};
use varia_sys::mapping::{Access, Mapping, Protection, Share, page_size};
use varia_sys::vfio::{Device, Group, position};

use crate::applets::vfio::OpenDevice;

/// Where the position module takes its orders; see `lab/position/varia_position.c`.
const CONTROL: u64 = 0x7fff_ffff_ffff_f000;
/// The address of the first mapping for a device's own accesses, and how far the next is away.
const IOVA: u64 = 1 << 32;
/// Limit for the kernel to suspend a device that is in low power.
const SUSPEND_LIMIT: Duration = Duration::from_secs(120);

/// The user, with all that it has open.
pub(super) struct User {
    bdf: String,
    /// `None` when it could not be opened again.
    device: Option<Device>,
    group: Group,
    container: varia_sys::vfio::Container,
    positions: File,
    memory: Guarded,
    events: Vec<EventFd>,
    kept: Vec<Option<Mapping>>,
    /// The dma-buf that was exported last.
    exported: Option<OwnedFd>,
}

impl User {
    pub(super) fn new(bdf: &str) -> Result<Self, String> {
        let opened = OpenDevice::open(bdf)?;
        let positions = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/varia_position")
            .map_err(|e| format!("/dev/varia_position: {e}: load varia_position.ko first"))?;
        let events = (0..EVENTS + DOORBELLS).map(|_| EventFd::new());
        let user = Self {
            bdf: bdf.to_owned(),
            device: Some(opened.device),
            group: opened.group,
            container: opened.container,
            positions,
            memory: Guarded::new().map_err(|e| format!("map memory: {e}"))?,
            events: events
                .collect::<io::Result<_>>()
                .map_err(|e| format!("make an event: {e}"))?,
            kept: (0..SLOTS).map(|_| None).collect(),
            exported: None,
        };
        user.show_positions()
            .map_err(|e| format!("/dev/varia_position: {e}"))?;
        Ok(user)
    }

    /// Lets the position module stand before the device that is open now.
    fn show_positions(&self) -> Result<(), Errno> {
        let fd = self.device.as_ref().map_or(-1, |d| d.as_fd().as_raw_fd());
        self.positions
            .write_at(&fd.to_ne_bytes(), CONTROL)
            .map_err(|e| of_io(&e))?;
        Ok(())
    }

    fn device(&self) -> Result<&Device, Errno> {
        self.device.as_ref().ok_or(Errno::EBADF)
    }

    /// By how much the last read or write moved the position.
    fn advance(&self) -> u64 {
        let mut moved = [0; 8];
        match self.positions.read_at(&mut moved, CONTROL) {
            Ok(8) => u64::from_ne_bytes(moved),
            // Not a value that any driver leaves behind, so that a comparison shows it.
            _ => u64::MAX,
        }
    }

    /// The answer of a read or write, with the position that it left behind.
    fn accessed(&self, result: Result<(u64, Vec<u8>), Errno>) -> Answer {
        let (result, data) = match result {
            Ok((count, data)) => (Ok(count), data),
            Err(errno) => (Err(errno.get()), Vec::new()),
        };
        Answer {
            result,
            data,
            advance: self.advance(),
        }
    }

    fn read(&self, at: u64, len: u32) -> Answer {
        let mut data = vec![0; len as usize];
        let read = self.positions.read_at(&mut data, at);
        self.accessed(read.map_err(|e| of_io(&e)).map(|count| {
            data.truncate(count);
            (count as u64, data)
        }))
    }

    fn write(&self, at: u64, data: &[u8]) -> Answer {
        let written = self.positions.write_at(data, at);
        self.accessed(
            written
                .map_err(|e| of_io(&e))
                .map(|n| (n as u64, Vec::new())),
        )
    }

    fn region_info(&self, region: u32, argsz: u32) -> Result<Answer, Errno> {
        let info = self.device()?.region_info_with(region, argsz)?;
        let mut data = Vec::new();
        for field in [info.argsz, info.flags, info.index, info.cap_offset] {
            data.extend(field.to_le_bytes());
        }
        data.extend(info.size.to_le_bytes());
        data.extend(info.offset.to_le_bytes());
        data.extend(info.caps);
        Ok(seen(data))
    }

    fn ioctl(
        &mut self,
        number: u8,
        argument: &[u8],
        descriptors: &[(u16, Descriptor)],
        pointer: op::Pointer,
    ) -> Result<Answer, Errno> {
        let device = self.device.as_ref().ok_or(Errno::EBADF)?;
        let mut argument = argument.to_vec();
        let mut named = Vec::new();
        for (at, descriptor) in descriptors {
            let fd = match descriptor {
                Descriptor::Event(event) => self.events.get(usize::from(*event)).map(AsFd::as_fd),
                Descriptor::Group => Some(self.group.as_fd()),
                Descriptor::Device => Some(device.as_fd()),
            };
            let number = fd.ok_or(Errno::EBADF)?.as_raw_fd();
            let field = argument.get_mut(usize::from(*at)..);
            let field = field.and_then(|field| field.first_chunk_mut::<4>());
            *field.ok_or(Errno::EINVAL)? = number.to_ne_bytes();
            named.push(usize::from(*at));
        }
        let returned = self
            .memory
            .ioctl(device, number, &mut argument, pointer_of(pointer))?;
        // A descriptor's number is not the driver's doing.
        for at in named {
            if let Some(field) = argument.get_mut(at..at + 4) {
                field.fill(0);
            }
        }
        match returned {
            Returned::Number(value) => Ok(Answer {
                data: argument,
                ..Answer::done(value.unsigned_abs().into())
            }),
            Returned::Descriptor(fd) => {
                let size = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0));
                let size = size.map_err(|e| of_io(&e.into()))?;
                self.exported = Some(fd);
                Ok(Answer {
                    data: argument,
                    ..Answer::done(size)
                })
            }
        }
    }

    fn kept(&mut self, slot: u8) -> Result<&mut Mapping, Errno> {
        let slot = self.kept.get_mut(usize::from(slot));
        slot.and_then(Option::as_mut).ok_or(Errno::ENOENT)
    }

    fn keep(&mut self, slot: u8, mapping: Option<Mapping>) {
        if let Some(place) = self.kept.get_mut(usize::from(slot)) {
            *place = mapping;
        }
    }

    fn dma(&mut self, slot: u8, map: bool) -> Result<Answer, Errno> {
        let iova = IOVA * (u64::from(slot) + 1);
        if map {
            let mapping = self.kept.get(usize::from(slot)).and_then(Option::as_ref);
            self.container
                .map_dma(iova, mapping.ok_or(Errno::ENOENT)?)?;
            return Ok(Answer::done(0));
        }
        self.container.unmap_dma(iova, IOVA).map(Answer::done)
    }

    fn reopen(&mut self, unmap: bool) -> Result<Answer, Errno> {
        self.device = None;
        self.show_positions()?;
        if unmap {
            self.kept.iter_mut().for_each(|slot| *slot = None);
        }
        let opened = self.group.device(&self.bdf);
        let result = opened.map(|device| self.device = Some(device));
        self.show_positions()?;
        result.map(|()| Answer::done(0))
    }

    fn await_suspend(&self) -> Result<Answer, Errno> {
        let path = format!("/sys/bus/pci/devices/{}/power/runtime_status", self.bdf);
        let end = Instant::now() + SUSPEND_LIMIT;
        loop {
            let status = fs::read_to_string(&path).map_err(|e| of_io(&e))?;
            let suspended = status.trim() == "suspended";
            if suspended || Instant::now() > end {
                return Ok(Answer::done(suspended.into()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn event(&self, event: u8) -> Result<&EventFd, Errno> {
        self.events.get(usize::from(event)).ok_or(Errno::ENOENT)
    }

    fn try_run(&mut self, op: &Op) -> Result<Answer, Errno> {
        match op {
            Op::RegionInfo { region, argsz } => self.region_info(*region, *argsz),
            Op::Read {
                region,
                offset,
                len,
            } => Ok(self.read(position(*region, *offset), *len)),
            Op::Write {
                region,
                offset,
                data,
            } => Ok(self.write(position(*region, *offset), data)),
            Op::Map {
                region,
                offset,
                len,
                touch,
                data,
                ..
            } => {
                let at = position(*region, *offset);
                let mapping = self.device()?.map(at, *len, Access::ReadWrite)?;
                touched(&mapping, *touch, data)
            }
            Op::MapPrivate {
                region,
                offset,
                protection,
            } => {
                let (at, page) = (position(*region, *offset), page_size() as u64);
                let protection = protection_of(*protection);
                let device = self.device()?;
                Mapping::with(device, at, page, protection, Share::Private, false)?;
                Ok(Answer::done(0))
            }
            Op::Reset => self.device()?.reset().map(|()| Answer::done(0)),
            Op::BadRead {
                region,
                offset,
                len,
                pointer,
            } => {
                let (at, len) = (position(*region, *offset), *len as usize);
                let pointer = pointer_of(*pointer);
                let read = self.memory.read(&self.positions, at, len, pointer);
                Ok(self.accessed(read.map(|data| (data.len() as u64, data))))
            }
            Op::BadWrite {
                region,
                offset,
                data,
                pointer,
            } => {
                let (at, pointer) = (position(*region, *offset), pointer_of(*pointer));
                let written = self.memory.write(&self.positions, at, data, pointer);
                Ok(self.accessed(written.map(|count| (count as u64, Vec::new()))))
            }
            Op::Ioctl {
                number,
                argument,
                descriptors,
                pointer,
            } => self.ioctl(*number, argument, descriptors, *pointer),
            Op::Keep {
                slot,
                region,
                offset,
                len,
                protection,
                populate,
            } => {
                self.keep(*slot, None);
                let (at, protection) = (position(*region, *offset), protection_of(*protection));
                let device = self.device()?;
                let mapping =
                    Mapping::with(device, at, *len, protection, Share::Shared, *populate)?;
                self.keep(*slot, Some(mapping));
                Ok(Answer::done(0))
            }
            Op::Touch {
                slot,
                at,
                data,
                directly: false,
            } => touched(self.kept(*slot)?, *at, data),
            Op::Touch { slot, at, data, .. } => {
                let mapping = self.kept(*slot)?;
                in_child(|| touched_directly(mapping, *at, data))
            }
            Op::Protect { slot, protection } => {
                self.kept(*slot)?.protect(protection_of(*protection))?;
                Ok(Answer::done(0))
            }
            Op::Unmap { slot } => {
                self.kept(*slot)?;
                self.keep(*slot, None);
                Ok(Answer::done(0))
            }
            Op::Dma { slot, map } => self.dma(*slot, *map),
            Op::Signal { event } => {
                self.event(*event)?.trigger().map_err(|e| of_io(&e))?;
                Ok(Answer::done(0))
            }
            Op::Drain { event } => {
                let count = self.event(*event)?.drain().map_err(|e| of_io(&e))?;
                Ok(Answer::done(count))
            }
            Op::AwaitSuspend => self.await_suspend(),
            Op::Child(op) => in_child(|| self.try_run(op)),
            Op::Reopen { unmap } => self.reopen(*unmap),
        }
    }
}

impl Target for User {
    fn run(&mut self, op: &Op) -> Answer {
        self.try_run(op)
            .unwrap_or_else(|errno| Answer::failed(errno.get()))
    }
}

fn seen(data: Vec<u8>) -> Answer {
    Answer {
        data,
        ..Answer::done(0)
    }
}

/// Reads 8 bytes of a mapping and writes `data`, by the kernel, which reports a fault.
fn touched(mapping: &Mapping, at: u64, data: &[u8]) -> Result<Answer, Errno> {
    let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    let mut bytes = vec![0; 8];
    mapping.peek(at, &mut bytes)?;
    if !data.is_empty() {
        mapping.poke(at, data)?;
    }
    Ok(seen(bytes))
}

/// The same by the processor, which gets a signal.
fn touched_directly(mapping: &Mapping, at: u64, data: &[u8]) -> Result<Answer, Errno> {
    let at = usize::try_from(at).map_err(|_| Errno::EINVAL)?;
    let mut bytes = vec![0; 8];
    mapping.read(at, &mut bytes)?;
    if !data.is_empty() {
        mapping.write(at, data)?;
    }
    Ok(seen(bytes))
}

/// Answer of a child process; a signal that ends the child is a negative error.
fn in_child(work: impl FnOnce() -> Result<Answer, Errno>) -> Result<Answer, Errno> {
    let outcome = child::run(|| {
        let answer = work().unwrap_or_else(|errno| Answer::failed(errno.get()));
        postcard::to_stdvec(&answer).unwrap_or_default()
    })?;
    match outcome {
        Outcome::Signal(signal) => Ok(Answer::failed(-signal)),
        Outcome::Said(bytes) => postcard::from_bytes(&bytes).map_err(|_| Errno::EPROTO),
    }
}

fn protection_of(protection: op::Protection) -> Protection {
    Protection {
        read: protection.read,
        write: protection.write,
        execute: protection.execute,
    }
}

fn pointer_of(pointer: op::Pointer) -> Pointer {
    match pointer {
        op::Pointer::Good => Pointer::Good,
        op::Pointer::Cut(room) => Pointer::Cut(room.into()),
        op::Pointer::ReadOnly => Pointer::ReadOnly,
        op::Pointer::Null => Pointer::Null,
    }
}
