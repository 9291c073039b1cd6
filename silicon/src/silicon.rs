//! A device made of a profile.
//!
//! What it keeps over a function-level reset: its coherent memory and the memory behind BARs 2
//! and 4. What it loses: configuration registers and BAR 0; and its memory has to become ready
//! again.

use std::fmt;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use varia_core::{BarSpec, ConfigRegister, Device, Errno, HostPhys, Interrupts, SharedFd};
use varia_spec::nvidia::{bar0, property};
use varia_spec::pci::cap::msix;
use varia_spec::pci::ext_cap::cxl;
use varia_sys::memory::SharedMemory;

use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigSpace, Effect};
use crate::error::SiliconError;
use crate::profile::{Body, Content, Profile, ReadinessMethod};

/// Bytes in the smallest page of any host.
const PAGE: u64 = 4096;
/// Physical address bits of a Grace host.
const ADDRESS_BITS: u32 = 48;

/// When the coherent memory can be used after power-on and after each reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Readiness {
    /// At once.
    #[default]
    Immediate,
    /// After this long.
    After(Duration),
    /// Not at all.
    Never,
}

/// What is broken. Nothing, by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The chip-to-chip link is down: its register never says ready, firmware gives the memory a
    /// size of 0, and the memory does not answer.
    pub c2c_down: bool,
    /// Firmware gives the memory a size of 0, but the link and the memory work.
    pub size_zero: bool,
    /// Firmware gives no properties, as inside a VM.
    pub no_properties: bool,
}

/// Where the coherent memory's bytes are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Backing {
    /// In a memfd that ends with the device.
    #[default]
    Anonymous,
    /// In a file, made if it is absent, that stays.
    File(PathBuf),
}

/// What is asked of a device beyond its profile.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of coherent memory; `None` for what the chip has.
    pub memory: Option<u64>,
    /// Where the memory begins; `None` for what the profile assumes.
    pub base: Option<HostPhys>,
    /// Where its bytes are.
    pub backing: Backing,
    /// When it can be used.
    pub readiness: Readiness,
    /// What is broken.
    pub faults: Faults,
    /// What readiness is measured by.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: None,
            base: None,
            backing: Backing::Anonymous,
            readiness: Readiness::Immediate,
            faults: Faults::default(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A physical GPU function, with its memory and the firmware that describes it.
pub struct Silicon {
    profile: Profile,
    readiness: Readiness,
    faults: Faults,
    clock: Arc<dyn Clock>,
    base: HostPhys,
    memory: SharedMemory,
    bars: Vec<(u8, SharedMemory)>,
    state: Mutex<State>,
    resets: AtomicU64,
    interrupts: Mutex<Option<Arc<dyn Interrupts>>>,
}

struct State {
    config: ConfigSpace,
    /// When the memory began to become ready.
    started: Duration,
}

impl Silicon {
    /// A device that has just been powered on.
    ///
    /// # Errors
    /// [`SiliconError`] for a size or address that no machine has, or a backing that is no good.
    pub fn new(profile: &Profile, options: Options) -> Result<Self, SiliconError> {
        let size = options.memory.unwrap_or(profile.memory.value);
        let base = options.base.unwrap_or(profile.memory_base.value);
        check_memory(profile, base, size)?;
        let memory = match &options.backing {
            Backing::Anonymous => SharedMemory::anonymous(profile.name, size)?,
            Backing::File(path) => SharedMemory::create_file(path, size)?,
        };
        let bars = profile.bars.iter().map(|bar| {
            let name = format!("{}-bar{}", profile.name, bar.value.index);
            SharedMemory::anonymous(&name, bar.value.spec.size).map(|m| (bar.value.index, m))
        });
        let state = State {
            config: ConfigSpace::new(profile),
            started: options.clock.now(),
        };
        let silicon = Self {
            profile: profile.clone(),
            readiness: options.readiness,
            faults: options.faults,
            clock: options.clock,
            base,
            memory,
            bars: bars.collect::<Result<_, _>>()?,
            state: Mutex::new(state),
            resets: AtomicU64::new(0),
            interrupts: Mutex::new(None),
        };
        silicon.mask_vectors()?;
        Ok(silicon)
    }

    /// What it was made of.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Where the coherent memory begins.
    pub fn memory_base(&self) -> HostPhys {
        self.base
    }

    /// The coherent memory.
    pub fn coherent_memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The coherent memory can be used now.
    pub fn is_ready(&self) -> bool {
        self.ready(&lock(&self.state))
    }

    /// Sends the message of `vector`, if messages are enabled. A chip does so by itself; this is
    /// for tests of what lies above.
    pub fn raise(&self, vector: u16) {
        let enabled = lock(&self.state).config.messages_enabled();
        let sink = lock(&self.interrupts).clone().filter(|_| enabled);
        if let Some(sink) = sink {
            sink.message(vector);
        }
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        lock(&self.state).config.bytes().to_vec()
    }

    fn ready(&self, state: &State) -> bool {
        let waited = self.clock.now().saturating_sub(state.started);
        match self.readiness {
            Readiness::Immediate => true,
            Readiness::After(needed) => waited >= needed,
            Readiness::Never => false,
        }
    }

    /// Registers of BAR 0 that always read as something, by offset: {offset, bytes}.
    fn fixed_registers(&self) -> impl Iterator<Item = (u64, [u8; 4])> {
        let ready = self.is_ready();
        let status = |ready: bool| if ready { bar0::STATUS_READY } else { 0 }.to_le_bytes();
        let pending = self.message_x().map(|(_, _, pending)| (pending, [0; 4]));
        [
            Some((bar0::C2C_LINK, status(ready && !self.faults.c2c_down))),
            Some((bar0::HBM_TRAINING, status(ready))),
            pending,
        ]
        .into_iter()
        .flatten()
    }

    /// {vectors, table offset, pending bits offset}
    fn message_x(&self) -> Option<(u16, u64, u64)> {
        self.profile
            .capabilities
            .iter()
            .find_map(|c| match c.value.body {
                Body::MessageX {
                    vectors,
                    table,
                    pending,
                } => Some((vectors, u64::from(table), u64::from(pending))),
                _ => None,
            })
    }

    /// Clears BAR 0 but for the mask bit of each MSI-X vector, which is set after a reset.
    fn mask_vectors(&self) -> Result<(), SiliconError> {
        let (vectors, table, _) = self.message_x().unwrap_or_default();
        for (index, memory) in &self.bars {
            let registers = self.profile.bar(*index).map(|b| b.content) == Some(Content::Registers);
            if !registers {
                continue;
            }
            memory.discard(0, memory.len())?;
            for vector in 0..u64::from(vectors) {
                memory.write(table + vector * msix::ENTRY_SIZE + 12, &[1])?;
            }
        }
        Ok(())
    }

    fn memory_offset(&self, address: HostPhys, len: u64) -> Option<u64> {
        let offset = address.0.checked_sub(self.base.0)?;
        (offset.checked_add(len)? <= self.memory.len()).then_some(offset)
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

    fn restart(&self, state: &mut State) -> Result<(), Errno> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        state.config.reset();
        state.started = self.clock.now();
        self.mask_vectors().map_err(|_| Errno::EIO)
    }
}

impl Device for Silicon {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        let state = lock(&self.state);
        let value = state.config.read(register);
        let ReadinessMethod::Cxl(at) = self.profile.readiness() else {
            return Ok(value);
        };
        let status = ConfigRegister::dword(at + cxl::RANGE1_SIZE_LOW);
        if ConfigRegister::dword(register.offset()) != status {
            return Ok(value);
        }
        let mut bits = 0;
        if self.readiness != Readiness::Never {
            bits |= cxl::MEM_INFO_VALID;
        }
        if self.ready(&state) {
            bits |= cxl::MEM_ACTIVE;
        }
        let shift = 8 * (register.offset() - status.offset());
        Ok(value | bits >> shift & register.width().mask())
    }

    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        match state.config.write(register, value) {
            Effect::None => Ok(()),
            Effect::Reset => self.restart(&mut state),
        }
    }

    fn bar(&self, bar: u8) -> Option<BarSpec> {
        self.profile.bar(bar).map(|b| b.spec)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let memory = self.bar_memory(bar, offset, data.len())?;
        memory.read(offset, data).map_err(|_| Errno::EIO)?;
        if self.profile.bar(bar).map(|b| b.content) == Some(Content::Registers) {
            for (at, bytes) in self.fixed_registers() {
                for (byte, at) in bytes.into_iter().zip(at..) {
                    let index = at.checked_sub(offset).and_then(|i| usize::try_from(i).ok());
                    if let Some(slot) = index.and_then(|i| data.get_mut(i)) {
                        *slot = byte;
                    }
                }
            }
        }
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let memory = self.bar_memory(bar, offset, data.len())?;
        memory.write(offset, data).map_err(|_| Errno::EIO)
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

    fn reset(&self) -> Result<(), Errno> {
        self.restart(&mut lock(&self.state))
    }

    fn reset_count(&self) -> u64 {
        self.resets.load(Ordering::SeqCst)
    }

    fn memory_read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        let offset = self
            .memory_offset(address, data.len() as u64)
            .ok_or(Errno::EFAULT)?;
        if self.faults.c2c_down {
            return Err(Errno::EIO);
        }
        self.memory.read(offset, data).map_err(|_| Errno::EIO)
    }

    fn memory_write(&self, address: HostPhys, data: &[u8]) -> Result<(), Errno> {
        let offset = self
            .memory_offset(address, data.len() as u64)
            .ok_or(Errno::EFAULT)?;
        if self.faults.c2c_down {
            return Err(Errno::EIO);
        }
        self.memory.write(offset, data).map_err(|_| Errno::EIO)
    }

    fn memory_fd(&self, address: HostPhys, len: u64) -> Option<SharedFd<'_>> {
        let offset = self.memory_offset(address, len)?;
        let shared = SharedFd {
            fd: self.memory.as_fd(),
            offset: self.memory.fd_offset().checked_add(offset)?,
        };
        (!self.faults.c2c_down).then_some(shared)
    }

    fn property(&self, name: &str) -> Option<u64> {
        if self.faults.no_properties {
            return None;
        }
        let gone = self.faults.c2c_down || self.faults.size_zero;
        match name {
            property::MEM_BASE_PA => Some(self.base.0),
            property::MEM_SIZE => Some(if gone { 0 } else { self.memory.len() }),
            property::MEM_PXM_START => Some(self.profile.pxm_start.value),
            property::MEM_PXM_COUNT => Some(self.profile.pxm_count.value),
            _ => None,
        }
    }

    fn connect(&self, sink: Option<Arc<dyn Interrupts>>) {
        *lock(&self.interrupts) = sink;
    }
}

impl fmt::Debug for Silicon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silicon")
            .field("profile", &self.profile.name)
            .field("base", &self.base)
            .field("memory", &self.memory)
            .field("readiness", &self.readiness)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

fn check_memory(profile: &Profile, base: HostPhys, size: u64) -> Result<(), SiliconError> {
    if size == 0 {
        let default_gib = profile.memory.value >> 30;
        return Err(SiliconError::NoMemory {
            profile: profile.name,
            default_gib,
        });
    }
    if !size.is_multiple_of(PAGE) {
        return Err(SiliconError::NotPages { size });
    }
    if !base.0.is_multiple_of(PAGE) {
        return Err(SiliconError::BaseNotPage { base });
    }
    let end = base.0.checked_add(size);
    if end.is_none_or(|end| end > 1 << ADDRESS_BITS) {
        return Err(SiliconError::BeyondAddressWidth {
            base,
            size,
            bits: ADDRESS_BITS,
        });
    }
    Ok(())
}

/// A lock that a panic left behind guards values that are each valid by themselves.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
