//! A device made of a profile.
//!
//! State that survives a reset: the coherent memory, memory of the platform with its registers, the
//! memory behind BARs and the vital product data. State that a reset loses: configuration registers
//! and registers behind BARs; and the coherent memory has to become ready again.

mod mastering;

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use varia_core::{
    BarSpec, ConfigRegister, Device, Dma, Errno, HostPhys, Interrupts, SharedFd, TreeNode,
};
use varia_facts::PlatformFacts;
use varia_spec::copy_engine;
use varia_spec::nvidia::{bar0, property};
use varia_spec::pci::cap::msix;
use varia_spec::pci::ext_cap::cxl;
use varia_spec::zpci;
use varia_sys::memory::SharedMemory;

use crate::config::{ConfigSpace, Effect};
use crate::engine::Engine;
use crate::error::SiliconError;
use crate::fault::Faults;
use crate::memory::{CoherentMemory, WantedMemory, check_faults};
use crate::options::{Options, Readiness};
use crate::platform::Platform;
use crate::profile::{BarModel, Body, Content, Fact, Profile, ReadinessMethod};
use crate::rom;
use crate::virtio::Card;
use crate::wires::Wires;

/// A physical function, with its memory and the firmware that describes it.
pub struct Silicon {
    profile: Profile,
    readiness: Readiness,
    wires: Wires,
    memory: Option<CoherentMemory>,
    bars: Vec<(u8, SharedMemory)>,
    rom: Vec<u8>,
    resets: AtomicU64,
    /// Reads of the register that a poll of the readiness begins with.
    polls: AtomicU64,
    card: Option<Arc<Card>>,
    engine: Option<Arc<Engine>>,
    platform: Option<Platform>,
}

/// Place of the MSI-X table and of the pending bits.
#[derive(Clone, Copy)]
struct MessageX {
    vectors: u16,
    bar: u8,
    table: u64,
    pending: u64,
}

pub(crate) struct State {
    pub(crate) config: ConfigSpace,
    /// Time at which the memory began to become ready.
    started: Duration,
}

impl Silicon {
    /// A device that has just been powered on.
    ///
    /// # Errors
    /// [`SiliconError`] for a size or address that no machine has, or a backing that is no good.
    pub fn new(profile: &Profile, options: Options) -> Result<Self, SiliconError> {
        profile.check().map_err(|source| SiliconError::BadProfile {
            profile: profile.name,
            source,
        })?;
        let wanted = WantedMemory::new(profile, &options)?;
        let range = wanted.as_ref().map(|m| (m.base, m.size));
        let bars = profile.bars.iter().map(|bar| {
            let name = format!("{}-bar{}", profile.name, bar.value.index);
            SharedMemory::anonymous(&name, bar.value.spec.size).map(|m| (bar.value.index, m))
        });
        let is_card = |bar: &&Fact<BarModel>| bar.value.content == Content::NetworkCard;
        let card = profile.bars.iter().find(is_card);
        let card = card.map(|bar| Card::new(bar.value.index)).transpose();
        let facts = options.platform.as_ref().or(profile.platform.as_ref());
        let platform = facts.map(Platform::new).transpose()?;
        if let Some((platform, range)) = platform.as_ref().zip(range) {
            platform.check_beside(range)?;
        }
        // the last that can fail: a file that is made stays
        let bars = bars.collect::<Result<_, _>>()?;
        let card = card.map_err(SiliconError::Queue)?.map(Arc::new);
        let memory = wanted.map(|m| m.make(profile, &options)).transpose()?;
        let now = options.clock.now();
        let registers = facts.map_or(&[][..], |facts| &facts.config);
        let state = State {
            config: ConfigSpace::new(profile, range, registers),
            started: now,
        };
        let silicon = Self {
            profile: profile.clone(),
            readiness: options.readiness,
            wires: Wires::new(state, options.clock, options.faults),
            memory,
            bars,
            rom: profile.rom.map_or_else(Vec::new, |_| rom::image(profile)),
            resets: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            card,
            engine: options.copy_engine.then(Arc::default),
            platform,
        };
        silicon.clear_registers()?;
        Ok(silicon)
    }

    /// Profile that the device was made of.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The coherent memory; `None` on a chip without any.
    pub fn coherent_memory(&self) -> Option<&CoherentMemory> {
        self.memory.as_ref()
    }

    /// Facts of the platform, if any are known.
    pub fn platform_facts(&self) -> Option<&PlatformFacts> {
        self.platform.as_ref().map(Platform::facts)
    }

    /// Loses what all of its memory holds, as when it is switched off.
    ///
    /// # Errors
    /// Error of the system.
    pub fn forget(&self) -> Result<(), SiliconError> {
        let coherent = self.memory.iter().map(|memory| &memory.bytes);
        for memory in coherent.chain(self.bars.iter().map(|(_, memory)| memory)) {
            memory.discard(0, memory.len())?;
        }
        self.platform.as_ref().map_or(Ok(()), Platform::forget)?;
        self.clear_registers()
    }

    /// The coherent memory can be used now.
    pub fn is_ready(&self) -> bool {
        self.ready(&lock(&self.wires.state))
    }

    /// Number of polls of the readiness so far: reads of the register that a driver reads first, the
    /// chip-to-chip link in BAR0 or the status of the CXL Device DVSEC. Other readers of the register
    /// count too.
    pub fn readiness_polls(&self) -> u64 {
        self.polls.load(Ordering::SeqCst)
    }

    /// Sends the message of `vector`, if messages are enabled. A chip does so by itself; this is
    /// for tests of what lies above.
    pub fn raise(&self, vector: u16) {
        self.wires.raise(vector);
    }

    /// Injects other faults from now on.
    ///
    /// # Errors
    /// [`SiliconError::FaultsOfMemory`] and [`SiliconError::PoisonBeyond`]; the faults stay as they
    /// were.
    pub fn set_faults(&self, faults: Faults) -> Result<(), SiliconError> {
        let size = self.memory.as_ref().map(|memory| memory.bytes.len());
        check_faults(&self.profile, size, faults)?;
        self.wires.set_faults(faults);
        Ok(())
    }

    /// The faults that are injected now.
    pub fn faults(&self) -> Faults {
        self.wires.faults()
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        lock(&self.wires.state).config.bytes().to_vec()
    }

    fn is_gone(&self) -> bool {
        self.wires.is_gone()
    }

    /// The memory was lost, by the fault of that name.
    fn is_lost(&self) -> bool {
        let lost = self.wires.faults().lost_after_resets;
        lost.is_some_and(|resets| self.reset_count() >= resets)
    }

    fn ready(&self, state: &State) -> bool {
        let waited = self.wires.clock.now().saturating_sub(state.started);
        let ready = match self.readiness {
            Readiness::Immediate => true,
            Readiness::After(needed) => waited >= needed,
            Readiness::Never => false,
            Readiness::EverySecondPoll => self.readiness_polls().is_multiple_of(2),
        };
        ready && !self.is_lost()
    }

    /// Status bits of a CXL Device DVSEC.
    fn cxl_status(&self, state: &State) -> u32 {
        let valid = self.readiness != Readiness::Never && !self.is_lost();
        let active = self.ready(state) && !self.wires.faults().c2c_down;
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        bit(valid, cxl::MEM_INFO_VALID) | bit(active, cxl::MEM_ACTIVE)
    }

    /// Registers of a BAR that always read as something, by offset: {offset, bytes}.
    fn fixed_registers(&self, bar: u8) -> Vec<(u64, Vec<u8>)> {
        let mut fixed = Vec::new();
        if bar == 0 && self.memory.is_some() {
            let ready = self.is_ready();
            let status = |ready: bool| if ready { bar0::STATUS_READY } else { 0 }.to_le_bytes();
            let link = status(ready && !self.wires.faults().c2c_down);
            fixed.push((bar0::C2C_LINK, link.to_vec()));
            fixed.push((bar0::HBM_TRAINING, status(ready).to_vec()));
        }
        if let Some(engine) = self.engine.as_ref().filter(|_| bar == 0) {
            fixed.push((copy_engine::OFFSET, engine.registers()));
        }
        if let Some(message) = self.message_x().filter(|message| message.bar == bar) {
            let words = u64::from(message.vectors).div_ceil(64);
            fixed.push((message.pending, vec![0; 8 * words as usize]));
        }
        fixed
    }

    fn message_x(&self) -> Option<MessageX> {
        self.profile
            .capabilities
            .iter()
            .find_map(|c| match c.value.body {
                Body::MessageX {
                    vectors,
                    bar,
                    table,
                    pending,
                } => Some(MessageX {
                    vectors,
                    bar,
                    table: u64::from(table),
                    pending: u64::from(pending),
                }),
                _ => None,
            })
    }

    /// Clears the registers behind BARs, and masks each MSI-X vector, as after a reset.
    fn clear_registers(&self) -> Result<(), SiliconError> {
        let message = self.message_x();
        for (index, memory) in &self.bars {
            if self.profile.bar(*index).map(|b| b.content) == Some(Content::Registers) {
                memory.discard(0, memory.len())?;
            }
            if let Some(message) = message.filter(|message| message.bar == *index) {
                for vector in 0..u64::from(message.vectors) {
                    let masked = [[0; 12].as_slice(), &[1, 0, 0, 0]].concat();
                    memory.write(message.table + vector * msix::ENTRY_SIZE, &masked)?;
                }
            }
        }
        Ok(())
    }

    /// `len` bytes of coherent memory at `address`: the memory, and their offset in it.
    fn coherent(&self, address: HostPhys, len: u64) -> Option<(&CoherentMemory, u64)> {
        let memory = self.memory.as_ref()?;
        let offset = address.0.checked_sub(memory.base.0)?;
        (offset.checked_add(len)? <= memory.bytes.len()).then_some((memory, offset))
    }

    /// The first of `len` bytes of coherent memory that is in a poisoned page, as an offset.
    fn poisoned(&self, offset: u64, len: u64) -> Option<u64> {
        self.wires.poisoned(offset, len)
    }

    /// Bytes of coherent memory answer.
    fn answers(&self, offset: u64, len: u64) -> bool {
        self.wires.answers(offset, len)
    }

    /// Memory of the platform at an address.
    fn platform_memory(&self, address: HostPhys, len: u64) -> Option<(&SharedMemory, u64)> {
        self.platform.as_ref()?.memory(address, len)
    }

    fn bar_memory(&self, bar: u8, offset: u64, len: usize) -> Result<&SharedMemory, Errno> {
        let (_, memory) = self
            .bars
            .iter()
            .find(|(i, _)| *i == bar)
            .ok_or(Errno::EINVAL)?;
        let end = offset.checked_add(len as u64).ok_or(Errno::EINVAL)?;
        if end <= memory.len() {
            Ok(memory)
        } else {
            Err(Errno::EINVAL)
        }
    }

    fn restart(&self, mut state: MutexGuard<'_, State>) -> Result<(), Errno> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        state.config.reset();
        state.started = self.wires.clock.now();
        let cleared = self.clear_registers().map_err(|_| Errno::EIO);
        let pin = self.card.as_ref().map(|card| card.reset());
        if let Some(engine) = &self.engine {
            engine.reset();
        }
        drop(state);
        self.wires.signal(pin);
        cleared
    }
}

impl Device for Silicon {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        if self.is_gone() {
            return Ok(register.width().mask());
        }
        let state = lock(&self.wires.state);
        let value = state.config.read(register);
        let Some(ReadinessMethod::Cxl(at)) = self.profile.readiness() else {
            return Ok(value);
        };
        let status = ConfigRegister::dword(at + cxl::RANGE1_SIZE_LOW);
        if ConfigRegister::dword(register.offset()) != status {
            return Ok(value);
        }
        let shift = 8 * (register.offset() - status.offset());
        if shift == 0 {
            self.polls.fetch_add(1, Ordering::SeqCst);
        }
        Ok(value | self.cxl_status(&state) >> shift & register.width().mask())
    }

    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        if self.is_gone() {
            return Ok(());
        }
        let mut state = lock(&self.wires.state);
        match state.config.write(register, value) {
            Effect::None => Ok(()),
            Effect::Reset => self.restart(state),
        }
    }

    fn bar(&self, bar: u8) -> Option<BarSpec> {
        self.profile.bar(bar).map(|b| b.spec)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let memory = self.bar_memory(bar, offset, data.len())?;
        if self.is_gone() {
            data.fill(0xff);
            return Ok(());
        }
        if let Some(card) = self.card_behind(bar) {
            self.wires.signal(card.read(offset, data));
            return Ok(());
        }
        memory.read(offset, data).map_err(|_| Errno::EIO)?;
        let end = offset.saturating_add(data.len() as u64);
        if bar == 0 && (offset..end).contains(&bar0::C2C_LINK) && self.memory.is_some() {
            self.polls.fetch_add(1, Ordering::SeqCst);
        }
        for (at, bytes) in self.fixed_registers(bar) {
            for (byte, at) in bytes.into_iter().zip(at..) {
                let index = at.checked_sub(offset).and_then(|i| usize::try_from(i).ok());
                if let Some(slot) = index.and_then(|i| data.get_mut(i)) {
                    *slot = byte;
                }
            }
        }
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let memory = self.bar_memory(bar, offset, data.len())?;
        if self.is_gone() {
            return Ok(());
        }
        if let Some(card) = self.card_behind(bar) {
            self.wires.signal(card.write(offset, data, self.switches()));
            self.go_on(card);
            return Ok(());
        }
        memory.write(offset, data).map_err(|_| Errno::EIO)?;
        if let Some(engine) = self.engine.as_ref().filter(|_| bar == 0) {
            if let Some(command) = engine.write(offset, data) {
                self.run_engine(engine, command);
            }
        }
        Ok(())
    }

    fn bar_fd(&self, bar: u8) -> Option<SharedFd<'_>> {
        let content = self.profile.bar(bar)?.content;
        let (_, memory) = self.bars.iter().find(|(i, _)| *i == bar)?;
        let shared = SharedFd {
            fd: memory.as_fd(),
            offset: memory.fd_offset(),
        };
        (content == Content::Memory).then_some(shared)
    }

    fn rom(&self) -> Option<u64> {
        self.profile.rom.map(|rom| u64::from(rom.value))
    }

    fn rom_read(&self, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > self.rom().unwrap_or(0)) {
            return Err(Errno::EINVAL);
        }
        data.fill(0xff);
        if !self.is_gone() {
            let image = usize::try_from(offset)
                .ok()
                .and_then(|at| self.rom.get(at..));
            let bytes = data.iter_mut().zip(image.unwrap_or_default());
            bytes.for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        if self.is_gone() {
            return Err(Errno::ENOTTY);
        }
        self.restart(lock(&self.wires.state))
    }

    fn reset_count(&self) -> u64 {
        self.resets.load(Ordering::SeqCst)
    }

    fn memory_read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        let len = data.len() as u64;
        if let Some((memory, offset)) = self.platform_memory(address, len) {
            if self.is_gone() {
                return Err(Errno::EIO);
            }
            return memory.read(offset, data).map_err(|_| Errno::EIO);
        }
        let (memory, offset) = self.coherent(address, len).ok_or(Errno::EFAULT)?;
        if !self.answers(offset, len) {
            return Err(Errno::EIO);
        }
        memory.bytes.read(offset, data).map_err(|_| Errno::EIO)
    }

    fn memory_write(&self, address: HostPhys, data: &[u8]) -> Result<(), Errno> {
        let len = data.len() as u64;
        if let Some((memory, offset)) = self.platform_memory(address, len) {
            if self.is_gone() {
                return Err(Errno::EIO);
            }
            return memory.write(offset, data).map_err(|_| Errno::EIO);
        }
        let (memory, offset) = self.coherent(address, len).ok_or(Errno::EFAULT)?;
        if !self.answers(offset, len) {
            return Err(Errno::EIO);
        }
        memory.bytes.write(offset, data).map_err(|_| Errno::EIO)
    }

    fn memory_failed(&self, address: HostPhys, len: u64) -> Option<HostPhys> {
        let (memory, offset) = self.coherent(address, len)?;
        let failed = self.poisoned(offset, len)?;
        memory.base.checked_add(failed)
    }

    fn memory_fd(&self, address: HostPhys, len: u64) -> Option<SharedFd<'_>> {
        if let Some((memory, offset)) = self.platform_memory(address, len) {
            let shared = SharedFd {
                fd: memory.as_fd(),
                offset: memory.fd_offset().checked_add(offset)?,
            };
            return (!self.is_gone()).then_some(shared);
        }
        let (memory, offset) = self.coherent(address, len)?;
        let shared = SharedFd {
            fd: memory.bytes.as_fd(),
            offset: memory.bytes.fd_offset().checked_add(offset)?,
        };
        self.answers(offset, len).then_some(shared)
    }

    fn property(&self, name: &str) -> Option<u64> {
        let memory = self
            .memory
            .as_ref()
            .filter(|_| !self.wires.faults().no_properties)?;
        let no_size = self.wires.faults().c2c_down || self.wires.faults().size_zero;
        match name {
            property::MEM_BASE_PA => Some(memory.base.0),
            property::MEM_SIZE => Some(if no_size {
                0
            } else {
                memory.bytes.len().saturating_sub(memory.uncounted)
            }),
            property::MEM_PXM_START => Some(memory.firmware.pxm_start.value),
            property::MEM_PXM_COUNT => Some(memory.firmware.pxm_count.value),
            _ => None,
        }
    }

    fn platform_read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        let found = self.platform_memory(address, data.len() as u64);
        let (memory, offset) = found.ok_or(Errno::EFAULT)?;
        memory.read(offset, data).map_err(|_| Errno::EFAULT)
    }

    fn root_config_read(&self, devfn: (u8, u8), register: ConfigRegister) -> Result<u32, Errno> {
        let platform = self.platform.as_ref().ok_or(Errno::ENODEV)?;
        let at = usize::from(register.offset());
        let bytes = platform.root(devfn)?.get(at..).unwrap_or_default();
        // what the space does not have reads as ones
        let mut value = [0xff; 4];
        for (slot, byte) in value.iter_mut().zip(bytes) {
            *slot = *byte;
        }
        Ok(u32::from_le_bytes(value) & register.width().mask())
    }

    fn root_config_size(&self, devfn: (u8, u8)) -> Result<u16, Errno> {
        let platform = self.platform.as_ref().ok_or(Errno::ENODEV)?;
        u16::try_from(platform.root(devfn)?.len()).map_err(|_| Errno::EINVAL)
    }

    fn tree_property(&self, node: TreeNode, name: &str) -> Result<Vec<u8>, Errno> {
        let platform = self.platform.as_ref().ok_or(Errno::ENOENT)?;
        platform.tree_property(node, name)
    }

    fn zpci(&self) -> Option<zpci::Facts> {
        self.platform.as_ref()?.zpci()
    }

    fn take_error_record(&self) -> Option<Vec<u8>> {
        self.platform.as_ref()?.take_error_record()
    }

    fn owner_command(&self, opcode: u16, data: &[u8], result: &mut [u8]) -> Result<(), Errno> {
        let card = self.card.as_ref().ok_or(Errno::ENOTTY)?;
        if self.is_gone() {
            return Err(Errno::EIO);
        }
        let signal = card.command(opcode, data, result, self.switches())?;
        self.wires.signal(signal);
        Ok(())
    }

    fn attach(&self, memory: Option<Arc<Dma>>) {
        if let Some(card) = &self.card {
            card.attach(memory.clone());
        }
        if let Some(engine) = &self.engine {
            engine.attach(memory);
        }
    }

    fn connect(&self, sink: Option<Arc<dyn Interrupts>>) {
        *lock(&self.wires.interrupts) = sink;
    }
}

impl fmt::Debug for Silicon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silicon")
            .field("profile", &self.profile.name)
            .field("memory", &self.memory)
            .field("readiness", &self.readiness)
            .field("faults", &self.wires.faults())
            .finish_non_exhaustive()
    }
}

/// A lock that a panic left behind guards values that are each valid by themselves.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
