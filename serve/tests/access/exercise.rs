//! Any bytes as a device and what a user does to it, and what has to hold whatever that was.
//!
//! Shared by the fuzz targets `config_access` and `region_access` and by the tests that replay
//! their corpora. Every profile of the catalogue takes part, each with the variant that serves it.

#[path = "../../../fuzz/input.rs"]
mod input;
#[path = "invariants.rs"]
mod invariants;
#[path = "time.rs"]
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use varia_core::{ConfigRegister, Device, HostPhys};
use varia_serve::{Endpoint, Options, View};
use varia_silicon::profile::{self, Body};
use varia_silicon::{Faults, Readiness, Silicon};
use varia_spec::Errno;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;
use varia_spec::pci::cap::pm;
use varia_spec::pci::header::{self, command};
use varia_spec::vfio::{RegionIndex, region_flags};
use varia_variant::{MemoryLayout, Region};

use input::Input;
use invariants::address_registers;
use time::Time;

/// Where the host put the BARs and the ROM, as far as their size permits.
const ADDRESS: u32 = 0xa000_0000;
/// The longest access.
const LONGEST: usize = 64;

/// How often something happened, so that a test can say that its questions are not all trivial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Devices by the name of their profile.
    pub(crate) devices: BTreeMap<&'static str, u32>,
    /// Accesses that succeeded, and that were refused.
    pub(crate) done: u32,
    /// See `done`.
    pub(crate) refused: u32,
    /// Accesses to memory behind a variant's region.
    pub(crate) memory: u32,
    /// Resets, by a configuration write or otherwise.
    pub(crate) resets: u64,
    /// Accesses refused while memory space was disabled or the device in D3hot.
    pub(crate) asleep: u32,
    /// Devices that are served, by layout.
    pub(crate) layouts: BTreeMap<MemoryLayout, u32>,
    /// Accesses to regions that can only be mapped.
    pub(crate) only_mapped: u32,
}

impl Input<'_> {
    /// Mostly what one instruction moves, sometimes more, sometimes nothing.
    fn length(&mut self) -> Option<usize> {
        Some(match self.byte()? {
            byte @ 0..=0xef => usize::from(byte % 8) + 1,
            byte => usize::from(byte - 0xf0) * LONGEST / 15,
        })
    }
}

/// A device in the hands of a user.
struct User<'a> {
    silicon: Arc<Silicon>,
    endpoint: Endpoint,
    /// The physical BARs and the ROM's register, as the host left them.
    physical: [u32; 7],
    /// The header's constants and the lists of capabilities, as they were at open.
    constants: Vec<u32>,
    /// What was written through a variant's regions, by address.
    written: BTreeMap<u64, u8>,
    /// Memory enable as it was written last, if that was in D3hot. A function that loses its
    /// registers shows those of before its sleep when it wakes, yet what was written counts.
    enabled_asleep: Option<bool>,
    seen: &'a mut Seen,
}

/// Configuration accesses alone: each answer fits the others, whatever was written before.
pub(crate) fn config(bytes: &[u8], seen: &mut Seen) {
    let mut input = Input(bytes);
    let Some(mut user) = User::new(&mut input, seen) else {
        return;
    };
    while user.config_step(&mut input).is_some() {}
    user.leave();
}

/// Accesses of every region, resets, and a user who leaves and comes back.
pub(crate) fn regions(bytes: &[u8], seen: &mut Seen) {
    let mut input = Input(bytes);
    let Some(mut user) = User::new(&mut input, seen) else {
        return;
    };
    while user.region_step(&mut input).is_some() {}
    user.leave();
}

impl<'a> User<'a> {
    /// Takes a profile, its memory and what is broken from the input; `None` when the runtime
    /// refuses the device.
    fn new(input: &mut Input<'_>, seen: &'a mut Seen) -> Option<Self> {
        let profile = profile::ALL.get(usize::from(input.byte()?) % profile::ALL.len())?;
        let choice = input.byte()?;
        let layout = match choice & 7 {
            5 => MemoryLayout::Region,
            6 => MemoryLayout::PhysicalBar,
            _ => MemoryLayout::Bar,
        };
        let time = Time::default();
        let mut options = varia_silicon::Options {
            clock: Arc::new(time.clone()),
            ..Default::default()
        };
        if profile.coherent.is_some() {
            // from one block and the carve-out up, with a tail that is no whole block
            let memory = (3 << 29) + (u64::from(choice & 7) << 29) + 0x5000;
            options.memory = Some(memory);
            options.faults = Faults {
                size_zero: choice & 0x70 == 0x10,
                no_properties: choice & 0x70 == 0x20,
                poisoned_page: (choice & 0x70 == 0x30).then_some(memory - 0x1000),
                ..Faults::NONE
            };
            if choice & 0x80 != 0 {
                options.readiness = Readiness::After(Duration::from_secs(1));
            }
        }
        let silicon = Arc::new(Silicon::new(profile, options).expect("silicon of the catalogue"));
        *seen.devices.entry(profile.name).or_default() += 1;
        let registers = address_registers();
        for register in registers {
            let written = silicon.config_write(register, ADDRESS);
            written.expect("a device answers");
        }
        let serve = Options {
            view: View::Virtual,
            clock: Arc::new(time),
            // memory that can only be mapped can't honour the bit
            honour_memory_enable: choice & 8 != 0 && layout != MemoryLayout::Region,
            layout,
            ..Options::default()
        };
        let endpoint = Endpoint::new(Arc::clone(&silicon) as Arc<_>, serve).ok()?;
        *seen.layouts.entry(layout).or_default() += 1;
        endpoint.open().ok()?;
        let raw = |register| silicon.config_read(register).expect("a device answers");
        let physical = registers.map(raw);
        let mut user = Self {
            silicon,
            endpoint,
            physical,
            constants: Vec::new(),
            written: BTreeMap::new(),
            enabled_asleep: None,
            seen,
        };
        user.constants = user.constants();
        Some(user)
    }

    fn leave(self) {
        self.endpoint.close();
        self.seen.resets += self.silicon.reset_count();
        let mut byte = [0];
        let closed = self.endpoint.read(RegionIndex::CONFIG, 0, &mut byte);
        assert_eq!(
            closed,
            Err(Errno::ENODEV),
            "nothing is answered after close"
        );
    }

    /// One access; `None` at the end of the input.
    fn config_step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let kind = input.byte()?;
        let word = input.word()?;
        let at = match kind & 0x60 {
            // as far as there are registers, mostly
            0x00..=0x40 => u64::from(word) % u64::from(CFG_SPACE_EXP_SIZE / 4),
            _ => u64::from(word) % (u64::from(CFG_SPACE_EXP_SIZE) + 16),
        };
        let len = input.length()?;
        if kind & 1 == 0 {
            self.config_read(at, len);
        } else {
            let data = input.bytes(len)?;
            self.config_write(at, &data);
        }
        Some(())
    }

    fn region_step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let kind = input.byte()?;
        match kind {
            0x00..=0x3f => return self.config_step(input),
            0x40..=0x43 => self.reset(),
            0x44..=0x45 => self.reopen(),
            0x46..=0x47 => self.config_write(4, &[kind & 5, 0]),
            0x48..=0x4b => self.power(kind & 3),
            // awake and enabled again, so that most accesses pass
            0x4c..=0x5f => {
                self.power(0);
                self.config_write(4, &[kind & 7 | 2, 0]);
            }
            _ => self.region_access(kind, input)?,
        }
        Some(())
    }

    fn config_read(&mut self, at: u64, len: usize) {
        let whole = self.read(RegionIndex::CONFIG, at, len);
        let end = at + len as u64;
        if len != 0 && end > u64::from(CFG_SPACE_EXP_SIZE) {
            assert_eq!(whole, Err(Errno::EFAULT), "{len} bytes at {at:#x}");
            return;
        }
        let whole = whole.expect("the space is readable");
        assert_eq!(whole.len(), len);
        let again = self.read(RegionIndex::CONFIG, at, len);
        assert_eq!(again.as_deref(), Ok(&whole[..]), "reads change nothing");
        let single = |at| self.endpoint_read(RegionIndex::CONFIG, at, 1).map(|b| b[0]);
        let singles: Result<Vec<_>, _> = (at..end).map(single).collect();
        assert_eq!(
            singles,
            Ok(whole),
            "bytes at {at:#x} are those of the whole"
        );
    }

    fn config_write(&mut self, at: u64, data: &[u8]) {
        let asleep = self.asleep();
        let answer = self.endpoint.write(RegionIndex::CONFIG, at, data);
        let written = u64::from(header::COMMAND).checked_sub(at);
        if let Some(byte) = written.and_then(|at| data.get(at as usize)) {
            let enabled = u16::from(*byte) & command::MEMORY != 0;
            self.enabled_asleep = asleep.then_some(enabled);
        }
        self.count(answer.is_ok());
        let fits = at + data.len() as u64 <= u64::from(CFG_SPACE_EXP_SIZE);
        if fits || data.is_empty() {
            assert_eq!(answer, Ok(data.len()), "{data:x?} at {at:#x}");
        }
        self.check_registers();
    }

    fn reset(&mut self) {
        let addresses = self.read(RegionIndex::CONFIG, 0x10, 24);
        let before = self.silicon.reset_count();
        let answer = self.endpoint.reset();
        assert_eq!(answer, Ok(()), "every profile can be reset");
        assert!(self.silicon.reset_count() > before);
        if self.endpoint.variant().is_none() {
            let kept = self.read(RegionIndex::CONFIG, 0x10, 24);
            assert_eq!(kept, addresses, "virtual BARs survive a reset");
        }
        self.check_registers();
    }

    /// Asks for a power state, 0 to 3.
    fn power(&mut self, state: u8) {
        if let Some(at) = self.capability(|body| matches!(body, Body::Power { .. })) {
            self.config_write(u64::from(at + pm::CTRL), &[state]);
        }
    }

    fn reopen(&mut self) {
        self.endpoint.close();
        self.endpoint.open().expect("it opens again");
        self.enabled_asleep = None;
        assert_eq!(self.endpoint.open(), Err(Errno::EBUSY));
        self.check_registers();
    }

    /// An access near the beginning, the middle or an end of a region.
    fn region_access(&mut self, kind: u8, input: &mut Input<'_>) -> Option<()> {
        let index = RegionIndex(u32::from(kind % 11));
        let (place, near, len) = (input.byte()?, input.word()?, input.length()?);
        let info = self.endpoint.region_info(index);
        let size = info.as_ref().map_or(0, |info| info.info.size);
        let length = match self.endpoint.region(index) {
            Region::Memory(memory) => memory.length(),
            _ => size,
        };
        let near = near as i16;
        let offset = match place % 6 {
            0 => near.unsigned_abs().into(),
            1 => size.wrapping_add_signed((near % 16).into()),
            2 => length.wrapping_add_signed((near % 16).into()),
            3 => u64::from(near.unsigned_abs()) << 12,
            4 => (size / 2).wrapping_add_signed(near.into()),
            _ => u64::MAX - u64::from(near.unsigned_abs()),
        };
        // the part of a sum that would wrap belongs to the transport, which refuses it
        if offset.checked_add(len as u64).is_none() {
            return Some(());
        }
        if index == RegionIndex::CONFIG {
            self.config_read(offset, len);
            return Some(());
        }
        let write = place & 0x80 != 0;
        let data = if write {
            input.bytes(len)?
        } else {
            vec![0; len]
        };
        match self.endpoint.region(index) {
            Region::Memory(memory) => {
                let base = memory.base();
                let allowed = match write {
                    true => region_flags::WRITE,
                    false => region_flags::READ,
                };
                if memory.info().flags & allowed != 0 {
                    self.memory_access(index, (base, length, size), offset, data, write);
                } else {
                    let refused = self.access(index, offset, data, write);
                    assert_eq!(refused, Err(Errno::EINVAL), "{index:?} can only be mapped");
                    self.seen.only_mapped += 1;
                }
            }
            Region::Registers(_) => self.register_access(index, size, offset, data, write),
            Region::Base | Region::Absent | Region::Composed(_) => {
                self.base_access(index, size, offset, data, write)
            }
        }
        Some(())
    }

    /// A region of the core's: a BAR answers what is inside it, and memory only while it is enabled.
    fn base_access(&mut self, index: RegionIndex, size: u64, at: u64, data: Vec<u8>, write: bool) {
        let spec = index.bar().and_then(|bar| self.silicon.bar(bar));
        let decodes =
            spec.is_none_or(|spec| spec.space == varia_core::BarSpace::Io) || self.memory_enabled();
        let len = data.len() as u64;
        let inside = spec.is_some() && at < size && len != 0;
        match self.access(index, at, data, write) {
            Err(errno) => {
                let rom = index == RegionIndex::ROM && errno == Errno::ENOMEM;
                assert!(
                    matches!(errno, Errno::EINVAL | Errno::EIO) || rom,
                    "{errno:?} for {index:?} at {at:#x}"
                );
                assert!(!inside || !decodes, "{errno:?} for {index:?} at {at:#x}");
                self.seen.asleep += u32::from(inside);
            }
            Ok(done) if done.is_empty() => assert!(!inside, "{index:?} at {at:#x}"),
            Ok(done) => {
                assert_eq!(done.len() as u64, len.min(size.saturating_sub(at)));
                // what is hidden from the user, the MSI-X table, needs no memory
                let hidden = write || done.iter().all(|byte| *byte == 0xff);
                assert!(decodes || hidden, "{index:?} answers while disabled");
            }
        }
    }

    /// A variant's registers: its own rules, but never more bytes than there are.
    fn register_access(
        &mut self,
        index: RegionIndex,
        size: u64,
        at: u64,
        data: Vec<u8>,
        write: bool,
    ) {
        let len = data.len() as u64;
        if let Ok(done) = self.access(index, at, data, write) {
            assert!(done.is_empty() || at + done.len() as u64 <= size);
            assert!(done.len() as u64 <= len);
        }
    }

    /// A variant's memory: every byte is the one that was written last, to its place in the
    /// coherent memory and to no other.
    fn memory_access(
        &mut self,
        index: RegionIndex,
        (base, length, size): (HostPhys, u64, u64),
        at: u64,
        data: Vec<u8>,
        write: bool,
    ) {
        let len = data.len() as u64;
        let answer = self.access(index, at, data.clone(), write);
        let done = match answer {
            Ok(done) => done,
            Err(Errno::EINVAL) => {
                assert!(at >= size, "{at:#x} is inside {index:?}");
                return;
            }
            // disabled, or poisoned: what was written before the page is there
            Err(Errno::EIO) => {
                self.forget(base, at, len);
                return;
            }
            Err(errno) => panic!("{errno:?} for {index:?} at {at:#x}"),
        };
        self.seen.memory += 1;
        assert!(at < size);
        if self.silicon_is_whole() {
            assert_eq!(done.len() as u64, len.min(size - at));
        }
        for (offset, byte) in (at..).zip(&done) {
            let address = base.0 + offset;
            if offset >= length {
                assert!(write || *byte == 0xff, "beyond the memory, at {offset:#x}");
            } else if write {
                self.written.insert(address, *byte);
            } else {
                let expected = self.written.get(&address).copied().unwrap_or(0);
                assert_eq!(*byte, expected, "at {offset:#x} of {index:?}");
            }
        }
        if let Some(first) = (at < length && !done.is_empty()).then_some(base.0 + at) {
            let mut byte = [0];
            let host = self.silicon.memory_read(HostPhys(first), &mut byte);
            let expected = self.written.get(&first).copied().unwrap_or(0);
            assert!(host.is_err() || byte[0] == expected, "the host sees it too");
        }
    }

    /// A write that failed on its way may have written a part.
    fn forget(&mut self, base: HostPhys, at: u64, len: u64) {
        for address in (base.0.saturating_add(at)..).take(len as usize) {
            let mut byte = [0];
            if self
                .silicon
                .memory_read(HostPhys(address), &mut byte)
                .is_ok()
            {
                self.written.insert(address, byte[0]);
            }
        }
    }

    /// No page is poisoned.
    fn silicon_is_whole(&self) -> bool {
        let memory = self.silicon.coherent_memory();
        memory.is_none_or(|memory| {
            let whole = self.silicon.memory_fd(memory.base, memory.bytes.len());
            whole.is_some()
        })
    }

    /// The bytes that were read, or the part of `data` that was written.
    fn access(
        &mut self,
        index: RegionIndex,
        at: u64,
        mut data: Vec<u8>,
        write: bool,
    ) -> Result<Vec<u8>, Errno> {
        let answer = if write {
            self.endpoint.write(index, at, &data)
        } else {
            self.endpoint.read(index, at, &mut data)
        };
        self.count(answer.is_ok());
        data.truncate(answer?);
        Ok(data)
    }

    fn read(&mut self, index: RegionIndex, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let answer = self.endpoint_read(index, at, len);
        self.count(answer.is_ok());
        answer
    }

    fn endpoint_read(&self, index: RegionIndex, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut data = vec![0; len];
        let count = self.endpoint.read(index, at, &mut data)?;
        data.truncate(count);
        Ok(data)
    }

    fn count(&mut self, done: bool) {
        if done {
            self.seen.done += 1;
        } else {
            self.seen.refused += 1;
        }
    }

    fn virtual_dword(&self, at: u16) -> u32 {
        let bytes = self.endpoint_read(RegionIndex::CONFIG, u64::from(at), 4);
        let bytes = bytes.expect("the space is readable");
        bytes
            .iter()
            .rev()
            .fold(0, |v, byte| v << 8 | u32::from(*byte))
    }

    fn raw(&self, at: u16) -> u32 {
        let value = self.silicon.config_read(ConfigRegister::dword(at));
        value.expect("a device answers") >> (8 * (at & 3))
    }

    /// Where the profile has a capability.
    fn capability(&self, is_it: impl Fn(&Body) -> bool) -> Option<u16> {
        let mut all = self.silicon.profile().capabilities.iter();
        all.find(|c| is_it(&c.value.body)).map(|c| c.value.offset)
    }

    /// Memory space is enabled in the command register that the user sees, and the device is not
    /// in D3hot.
    fn memory_enabled(&self) -> bool {
        let shown = self.virtual_dword(header::COMMAND) & u32::from(command::MEMORY) != 0;
        self.enabled_asleep.unwrap_or(shown) && !self.asleep()
    }

    /// The device is in D3hot.
    fn asleep(&self) -> bool {
        let power = self.capability(|body| matches!(body, Body::Power { .. }));
        let state = power.map_or(0, |at| self.raw(at + pm::CTRL));
        state & u32::from(pm::CTRL_STATE_MASK) == 3
    }
}
