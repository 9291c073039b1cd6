//! The core itself: open, close, configuration accesses, reset, power.
//!
//! Memory enable and power state lie under one lock. Everything that clears them, every reset and
//! every configuration write holds it exclusively; an access to the device's memory holds it
//! shared, and so does a layer above through [`MemoryGuard`]. A reset is therefore counted, and
//! its hook has run, before any later access is served.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use varia_spec::Errno;
use varia_spec::pci::header::{self, command};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};
use varia_spec::vfio::{DeviceInfo, IrqIndex, OFFSET_SHIFT, RegionIndex, device_flags};

use crate::config::{Config, Effect, Layout, MsixTable, SavedState, tiles};
use crate::device::{BusFunction, ConfigRegister, Device, HostPhys};
use crate::error::Refused;
use crate::irq::{Irqs, Vectors};
use crate::regions::DeviceRegion;

/// View of the device that a user gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// As `vfio-pci` shows it: virtual configuration space, safe for an untrusted user.
    Virtual,
    /// As it is: the configuration space is passed through, for a user that emulates the machine
    /// which owns the device.
    Physical,
}

/// A PCI power state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum PowerState {
    /// On.
    D0,
    /// Light sleep.
    D1,
    /// Deeper sleep.
    D2,
    /// Software off; configuration space still answers.
    D3hot,
}

/// A VFIO PCI device in user space, over a physical [`Device`].
pub struct Core<D: Device + ?Sized = dyn Device> {
    view: View,
    layout: Arc<Layout>,
    config: Mutex<Option<Open>>,
    lines: RwLock<Lines>,
    irqs: Arc<Irqs>,
    pub(crate) hook: Mutex<Option<ResetHook>>,
    /// Device-specific regions, added before the core is shared.
    pub(crate) regions: Vec<Box<dyn DeviceRegion>>,
    device: Arc<D>,
}

pub(crate) type ResetHook = Arc<dyn Fn() + Send + Sync>;

/// State while the device is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) config: Config,
    /// The registers right after the reset of open, put back at close.
    initial: SavedState,
    /// The registers before the device went to D3hot, when it loses them there.
    pub(crate) asleep: Option<SavedState>,
    vectors: Vectors,
}

/// State that decides whether memory may be touched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    pub(crate) memory: bool,
    pub(crate) power: PowerState,
    /// The device can be reset.
    pub(crate) resets: bool,
    /// The bytes that BAR accesses keep from the user.
    pub(crate) table: Option<MsixTable>,
}

impl Lines {
    pub(crate) fn enabled(self) -> bool {
        self.memory && self.power < PowerState::D3hot
    }
}

/// The memory lock, held shared: memory may be accessed.
///
/// While it is held no reset finishes, memory enable and power state do not change. Do not call
/// the [`Core`] while holding it, except for what its documentation says.
pub struct MemoryGuard<'a, D: Device + ?Sized = dyn Device> {
    lines: RwLockReadGuard<'a, Lines>,
    device: &'a D,
}

impl<D: Device + ?Sized> Core<D> {
    /// A core over `device`, closed.
    ///
    /// # Errors
    /// [`Refused`] when what the device presents contradicts itself.
    pub fn new(device: Arc<D>, view: View) -> Result<Self, Refused> {
        Self::with_offset_shift(device, view, OFFSET_SHIFT)
    }

    /// A core as [`Core::new`] makes it, where a file position has `shift` bits for the offset in a
    /// region: no BAR is larger than these bits address.
    ///
    /// # Errors
    /// As [`Core::new`].
    pub fn with_offset_shift(device: Arc<D>, view: View, shift: u32) -> Result<Self, Refused> {
        let largest = 1_u64.checked_shl(shift).unwrap_or(u64::MAX);
        let layout = Arc::new(Layout::new(&*device, largest)?);
        let lines = Lines {
            memory: false,
            power: PowerState::D0,
            resets: false,
            table: None,
        };
        Ok(Self {
            view,
            layout,
            config: Mutex::new(None),
            lines: RwLock::new(lines),
            irqs: Arc::new(Irqs::new()),
            hook: Mutex::new(None),
            regions: Vec::new(),
            device,
        })
    }

    /// The device below. What is done to it directly is done behind the core's back.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// Device that the user sees.
    pub fn view(&self) -> View {
        self.view
    }

    /// Has `hook` called after each reset that goes through this core, whatever asked for it,
    /// before any later access is served. It runs under the core's locks and must not call back.
    pub fn on_reset(&self, hook: impl Fn() + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Prepares the device for a user.
    ///
    /// Virtual: wakes it, enables its memory space, takes bus mastering away, resets it if that
    /// works, and reads the virtual registers. Physical: nothing is changed.
    ///
    /// # Errors
    /// `EBUSY` if the device is open already; the errors of the device.
    pub fn open(&self) -> Result<(), Errno> {
        let mut slot = lock(&self.config);
        if slot.is_some() {
            return Err(Errno::EBUSY);
        }
        let mut lines = write(&self.lines);
        let device = &*self.device;
        lines.power = self.physical_power()?;
        lines.resets = match self.view {
            View::Virtual => {
                self.enable(&mut lines)?;
                self.function_reset(&mut lines).is_ok()
            }
            View::Physical => self.layout.can_reset(device),
        };
        let initial = SavedState::save(&self.layout, device)?;
        if self.view == View::Virtual {
            let shown = ConfigRegister::word(header::COMMAND);
            let command = device.config_read(shown)? & !u32::from(command::INTX_DISABLE);
            device.config_write(shown, command)?;
        }
        let config = Config::new(Arc::clone(&self.layout), device)?;
        let vectors = Vectors::of(&self.layout, device, config.interrupt_pin())?;
        lines.memory = match self.view {
            View::Virtual => config.memory_enabled(),
            View::Physical => self.physical_memory()?,
        };
        lines.table = match self.view {
            View::Virtual => self.layout.table(),
            View::Physical => None,
        };
        *slot = Some(Open {
            config,
            initial,
            asleep: None,
            vectors,
        });
        drop((lines, slot));
        let sink: Arc<dyn crate::Interrupts> = self.irqs.clone();
        device.connect(Some(sink));
        Ok(())
    }

    /// Takes the device back from its user: no interrupts, no bus mastering, a reset if the device
    /// can be reset. Does nothing if the device is not open.
    pub fn close(&self) {
        let mut slot = lock(&self.config);
        let Some(open) = slot.take() else { return };
        self.device.connect(None);
        self.irqs.clear(&self.layout, &*self.device);
        if self.view == View::Physical {
            return;
        }
        let mut lines = write(&self.lines);
        let device = &*self.device;
        // a device that does not answer can't be put in order, and nobody is left to be told
        let _ = self.set_physical_power(PowerState::D0);
        lines.power = PowerState::D0;
        lines.memory = false;
        let quiet = ConfigRegister::word(header::COMMAND);
        let _ = device.config_write(quiet, u32::from(command::INTX_DISABLE));
        if lines.resets {
            let _ = self.reset_only();
        }
        let _ = open.initial.restore(device);
    }

    /// True while a user has the device open.
    pub fn is_open(&self) -> bool {
        lock(&self.config).is_some()
    }

    /// Ranges of the conventional capabilities that a user sees, in the order of their list.
    pub fn capabilities(&self) -> Vec<Range<u16>> {
        let places = self.layout.places();
        // the header, and extended capabilities, are places too
        let conventional = header::STD_HEADER_SIZEOF..CFG_SPACE_SIZE;
        places
            .filter(|(start, _)| conventional.contains(start))
            .map(|(start, len)| start..start + len)
            .collect()
    }

    /// `VFIO_DEVICE_GET_INFO`.
    pub fn info(&self) -> DeviceInfo {
        let reset = if read(&self.lines).resets {
            device_flags::RESET
        } else {
            0
        };
        DeviceInfo {
            flags: device_flags::PCI | reset,
            num_regions: RegionIndex::COUNT + self.regions.len() as u32,
            num_irqs: IrqIndex::COUNT,
        }
    }

    /// Reads configuration space into all of `data`. Returns the length of `data`.
    ///
    /// # Errors
    /// `EFAULT` if the range is not inside the 4096 bytes (an empty range always is), `ENODEV` while
    /// closed; the errors of the device, with part of `data` filled.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        let slot = lock(&self.config);
        let open = slot.as_ref().ok_or(Errno::ENODEV)?;
        if data.is_empty() {
            return Ok(0);
        }
        let start = config_range(offset, data.len())?;
        let device = &*self.device;
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = start + done as u16;
            done += match self.view {
                View::Virtual => open.config.read(device, at, rest)?,
                View::Physical => read_physical(device, at, rest)?,
            };
        }
        Ok(done)
    }

    /// Writes all of `data` to configuration space. Returns the length of `data`.
    ///
    /// # Errors
    /// As [`config_read`](Self::config_read), with part of `data` written, in rising order.
    pub fn config_write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let mut slot = lock(&self.config);
        let open = slot.as_mut().ok_or(Errno::ENODEV)?;
        if data.is_empty() {
            return Ok(0);
        }
        let start = config_range(offset, data.len())?;
        let mut lines = write(&self.lines);
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let at = start + done as u16;
            done += match self.view {
                View::Virtual => self.write_virtual(open, &mut lines, at, rest)?,
                View::Physical => self.write_physical(&mut lines, at, rest)?,
            };
        }
        Ok(done)
    }

    /// `VFIO_DEVICE_RESET`. Virtual registers keep their values.
    ///
    /// # Errors
    /// `EINVAL` if the device can't be reset, `ENODEV` while closed.
    pub fn reset(&self) -> Result<(), Errno> {
        let mut slot = lock(&self.config);
        let open = slot.as_mut().ok_or(Errno::ENODEV)?;
        let mut lines = write(&self.lines);
        if !lines.resets {
            return Err(Errno::EINVAL);
        }
        match self.view {
            View::Virtual => {
                self.set_power(open, &mut lines, PowerState::D0)?;
                self.function_reset(&mut lines)
            }
            View::Physical => {
                self.reset_only()?;
                self.follow_physical(&mut lines)
            }
        }
    }

    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: the functions that a reset of the bus or slot resets.
    ///
    /// # Errors
    /// `ENODEV` when there is no such reset.
    pub fn hot_reset_info(&self) -> Result<Vec<BusFunction>, Errno> {
        let functions = self.device.bus_functions();
        if functions.is_empty() {
            return Err(Errno::ENODEV);
        }
        Ok(functions)
    }

    /// `VFIO_DEVICE_PCI_HOT_RESET` by a user who owns `groups`. Virtual registers keep their
    /// values.
    ///
    /// A core stands for one function, so that a bus with more can't be reset.
    ///
    /// # Errors
    /// `EINVAL` for no groups or too many, when a function's group is not among them, and when
    /// there are more functions; `ENODEV` as [`hot_reset_info`](Self::hot_reset_info), and while
    /// closed; what the device answers.
    pub fn hot_reset(&self, groups: &[u32]) -> Result<(), Errno> {
        let mut slot = lock(&self.config);
        let open = slot.as_mut().ok_or(Errno::ENODEV)?;
        if groups.is_empty() {
            return Err(Errno::EINVAL);
        }
        let functions = self.hot_reset_info()?;
        let [only] = functions.as_slice() else {
            return Err(Errno::EINVAL);
        };
        if groups != [only.group] {
            return Err(Errno::EINVAL);
        }
        let mut lines = write(&self.lines);
        if self.view == View::Virtual {
            self.set_power(open, &mut lines, PowerState::D0)?;
            return self.bus_reset(&mut lines);
        }
        self.device.bus_reset()?;
        self.tell_reset();
        self.follow_physical(&mut lines)
    }

    /// Takes the shared hold under which the device's memory may be touched.
    pub fn memory(&self) -> MemoryGuard<'_, D> {
        MemoryGuard {
            lines: read(&self.lines),
            device: &self.device,
        }
    }

    /// Number of resets of the device, whatever started them. No access that is served after a
    /// reset sees the count from before it.
    pub fn reset_count(&self) -> u64 {
        self.device.reset_count()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn lines(&self) -> RwLockReadGuard<'_, Lines> {
        read(&self.lines)
    }

    pub(crate) fn irqs(&self) -> &Arc<Irqs> {
        &self.irqs
    }

    /// The vectors of an open device.
    pub(crate) fn vectors(&self) -> Result<Vectors, Errno> {
        let slot = lock(&self.config);
        slot.as_ref().map(|open| open.vectors).ok_or(Errno::ENODEV)
    }

    fn write_virtual(
        &self,
        open: &mut Open,
        lines: &mut Lines,
        at: u16,
        data: &[u8],
    ) -> Result<usize, Errno> {
        let message = self.irqs.message_state();
        let (count, effect) = open.config.write(&*self.device, at, data, message)?;
        match effect {
            None => {}
            Some(Effect::Command) => {
                lines.memory = open.config.memory_enabled();
                self.irqs.disable_intx(open.config.intx_disabled());
            }
            Some(Effect::Power(state)) => {
                let state = match state {
                    0 => PowerState::D0,
                    1 => PowerState::D1,
                    2 => PowerState::D2,
                    _ => PowerState::D3hot,
                };
                // as a function does: a state that it can't enter changes nothing
                let _ = self.set_power(open, lines, state);
            }
            // as a function does: nobody is told how a reset went
            Some(Effect::Reset) => {
                // awake first, with the registers that it had before it went to sleep
                let awake = self.set_power(open, lines, PowerState::D0);
                let _ = awake.and_then(|()| self.function_reset(lines));
            }
        }
        Ok(count)
    }

    fn write_physical(&self, lines: &mut Lines, at: u16, data: &[u8]) -> Result<usize, Errno> {
        let Some(register) = tiles(at, at + data.len() as u16).next() else {
            return Ok(0);
        };
        let count = usize::from(register.width().bytes());
        let bytes = data.iter().take(count).rev();
        let value = bytes.fold(0, |value, byte| value << 8 | u32::from(*byte));
        let before = self.device.reset_count();
        self.device.config_write(register, value)?;
        if self.device.reset_count() != before {
            self.tell_reset();
        }
        self.follow_physical(lines)?;
        Ok(count)
    }
}

impl<D: Device + ?Sized> MemoryGuard<'_, D> {
    /// Memory space is enabled, and the device is not in D3hot.
    pub fn enabled(&self) -> bool {
        self.lines.enabled()
    }

    /// Reads a register of a BAR, whatever the command register says.
    ///
    /// # Errors
    /// As [`Device::bar_read`].
    pub fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.device.bar_read(bar, offset, data)
    }

    /// Reads memory outside every BAR.
    ///
    /// # Errors
    /// As [`Device::memory_read`].
    pub fn read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        self.device.memory_read(address, data)
    }

    /// Writes memory outside every BAR.
    ///
    /// # Errors
    /// As [`Device::memory_write`].
    pub fn write(&self, address: HostPhys, data: &[u8]) -> Result<(), Errno> {
        self.device.memory_write(address, data)
    }
}

impl<D: Device + ?Sized> fmt::Debug for Core<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

impl<D: Device + ?Sized> fmt::Debug for MemoryGuard<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryGuard")
            .field("lines", &*self.lines)
            .finish_non_exhaustive()
    }
}

/// Reads the first register of the device that is in `data`, from `at`. Answers its bytes.
fn read_physical<D: Device + ?Sized>(device: &D, at: u16, data: &mut [u8]) -> Result<usize, Errno> {
    let Some(register) = tiles(at, at + data.len() as u16).next() else {
        return Ok(0);
    };
    let value = device.config_read(register)?.to_le_bytes();
    let count = usize::from(register.width().bytes());
    for (to, from) in data.iter_mut().zip(value).take(count) {
        *to = from;
    }
    Ok(count)
}

fn config_range(offset: u64, len: usize) -> Result<u16, Errno> {
    let inside = len as u64 <= u64::from(CFG_SPACE_EXP_SIZE).saturating_sub(offset);
    let at = u16::try_from(offset).map_err(|_| Errno::EFAULT)?;
    if inside { Ok(at) } else { Err(Errno::EFAULT) }
}

/// A lock that a panic left behind guards values that are each valid by themselves.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
