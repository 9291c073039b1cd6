//! Interrupts: their vectors and their triggers.
//!
//! A user sets triggers for one of INTx, MSI and MSI-X at a time; setting the first enables that
//! mode in the device. ERR and REQ have one trigger each and are independent of the mode. The
//! results, and the order in which errors are found, are those of Linux 7.2
//! `drivers/vfio/vfio_main.c:vfio_set_irqs_validate_and_prepare` and
//! `drivers/vfio/pci/vfio_pci_intrs.c`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use varia_spec::Errno;
use varia_spec::pci::cap::{msi, msix};
use varia_spec::vfio::{IrqAction, IrqIndex, IrqInfo, irq_flags};

use crate::config::{Kind, Layout, MessageState};
use crate::core::{Core, PowerState, lock};
use crate::device::{ConfigRegister, Device, Interrupts};

/// Receiver of an interrupt: an eventfd, or a test.
pub trait Trigger: Send + Sync {
    /// An interrupt happened. Neither blocks nor calls the core: the core's locks may be held.
    fn signal(&self);
}

impl<F: Fn() + Send + Sync> Trigger for F {
    fn signal(&self) {
        self();
    }
}

/// Event outside the core: an eventfd with which a user unmasks INTx. The runtime waits for the
/// descriptor, as the core waits for none.
pub trait Source: Send {
    /// Has `call` called at each event, until the returned value is dropped. A call in progress
    /// need not be waited for then: a late call does nothing.
    ///
    /// # Errors
    /// The errors of the system.
    fn watch(self: Box<Self>, call: Box<dyn Fn() + Send>) -> Result<Box<dyn Send>, Errno>;
}

/// Data of a SET_IRQS request: which of `count` vectors from `start`, and what for.
pub enum IrqData {
    /// All vectors; with [`IrqAction::Trigger`] and a count of zero: switch the index off.
    None,
    /// The vectors that are `true`.
    Bools(Vec<bool>),
    /// All vectors, with their triggers; `None` removes a trigger.
    Triggers(Vec<Option<Arc<dyn Trigger>>>),
    /// The vectors whose source has an event, from now on; `None` removes a source.
    Sources(Vec<Option<Box<dyn Source>>>),
}

/// Numbers of vectors of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Vectors {
    intx: u32,
    msi: u32,
    msix: u32,
    express: bool,
}

/// Triggers and masks.
pub(crate) struct Irqs(Mutex<State>);

#[derive(Default)]
struct State {
    /// The mode that is enabled: INTx, MSI or MSI-X.
    mode: Option<IrqIndex>,
    /// log2 of the vectors that MSI was enabled with; kept when it is disabled.
    qmax: u16,
    triggers: BTreeMap<u32, Arc<dyn Trigger>>,
    error: Option<Arc<dyn Trigger>>,
    request: Option<Arc<dyn Trigger>>,
    /// The pin is asserted.
    asserted: bool,
    /// INTx is masked: by the user, or because it was signalled.
    masked: bool,
    /// INTx is disabled in the virtual command register.
    disabled: bool,
    /// Source that unmasks INTx, and its number.
    unmask: Option<(u64, Box<dyn Send>)>,
    /// Number of sources so far.
    unmasks: u64,
}

impl Vectors {
    pub(crate) fn of<D: Device + ?Sized>(
        layout: &Layout,
        device: &D,
        pin: u8,
    ) -> Result<Self, Errno> {
        let (msi, msix) = layout.vectors(device)?;
        Ok(Self {
            intx: u32::from(pin != 0),
            msi,
            msix,
            express: layout.find(Kind::Express).is_some(),
        })
    }

    fn count(self, index: IrqIndex) -> u32 {
        match index {
            IrqIndex::INTX => self.intx,
            IrqIndex::MSI => self.msi,
            IrqIndex::MSIX => self.msix,
            IrqIndex::ERR => u32::from(self.express),
            IrqIndex::REQ => 1,
            _ => 0,
        }
    }
}

impl<D: Device + ?Sized> Core<D> {
    /// `VFIO_DEVICE_GET_IRQ_INFO`.
    ///
    /// # Errors
    /// `EINVAL` if the index does not exist, `ENODEV` while closed.
    pub fn irq_info(&self, index: IrqIndex) -> Result<IrqInfo, Errno> {
        let vectors = self.vectors()?;
        let flags = match index {
            IrqIndex::INTX => irq_flags::MASKABLE | irq_flags::AUTOMASKED,
            IrqIndex::MSIX => 0,
            IrqIndex::MSI | IrqIndex::REQ => irq_flags::NORESIZE,
            IrqIndex::ERR if vectors.express => irq_flags::NORESIZE,
            _ => return Err(Errno::EINVAL),
        };
        Ok(IrqInfo {
            flags: irq_flags::EVENTFD | flags,
            count: vectors.count(index),
        })
    }

    /// `VFIO_DEVICE_SET_IRQS` for `count` vectors from `start`.
    ///
    /// # Errors
    /// `EINVAL` if the vectors or the data do not fit the index or its state, `ENOTTY` if the index
    /// does not have the action, `ENODEV` while closed; the errors of the device.
    pub fn set_irqs(
        &self,
        index: IrqIndex,
        action: IrqAction,
        start: u32,
        count: u32,
        data: IrqData,
    ) -> Result<(), Errno> {
        let vectors = IrqInfo {
            flags: 0,
            count: self.vectors()?.count(index),
        };
        vectors.check_range(start, count)?;
        let given = match &data {
            IrqData::None => count as usize,
            IrqData::Bools(list) => list.len(),
            IrqData::Triggers(list) => list.len(),
            IrqData::Sources(list) => list.len(),
        };
        if given != count as usize {
            return Err(Errno::EINVAL);
        }
        // held, so that the device does not go to sleep meanwhile
        let lines = self.lines();
        let mut state = lock(&self.irqs().0);
        match (index, action) {
            (IrqIndex::INTX, IrqAction::Trigger) => state.set_intx(start, count, data),
            (IrqIndex::INTX, _) => {
                let irqs = Arc::downgrade(self.irqs());
                state.mask_intx(action, start, count, data, irqs)
            }
            (IrqIndex::MSI | IrqIndex::MSIX, IrqAction::Trigger) => {
                let place = (self.layout(), &**self.device());
                let awake = lines.power == PowerState::D0;
                state.set_messages(place, awake, index, start, count, data)
            }
            (IrqIndex::ERR, IrqAction::Trigger) => set_single(&mut state.error, count, data),
            (IrqIndex::REQ, IrqAction::Trigger) => set_single(&mut state.request, count, data),
            _ => Err(Errno::ENOTTY),
        }
    }

    /// The interrupt mode that the user has enabled: INTx, MSI or MSI-X.
    pub fn irq_mode(&self) -> Option<IrqIndex> {
        lock(&self.irqs().0).mode
    }

    /// Tells the user that the device reported an error that it can't recover from.
    pub fn report_error(&self) {
        let trigger = lock(&self.irqs().0).error.clone();
        signal(trigger.as_ref());
    }

    /// Asks the user to give the device back.
    pub fn request_device(&self) {
        let trigger = lock(&self.irqs().0).request.clone();
        signal(trigger.as_ref());
    }
}

impl Irqs {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(crate) fn message_state(&self) -> MessageState {
        let state = lock(&self.0);
        MessageState {
            enabled: state.mode == Some(IrqIndex::MSI),
            qmax: state.qmax,
        }
    }

    /// The virtual command register's INTx disable bit.
    pub(crate) fn disable_intx(&self, disabled: bool) {
        let mut state = lock(&self.0);
        if state.disabled != disabled {
            state.disabled = disabled;
            state.masked = disabled;
            state.deliver_intx();
        }
    }

    /// The source with this number happened; dropped if it has been taken away.
    fn unmask_intx(&self, number: u64) {
        let mut state = lock(&self.0);
        let current = state.unmask.as_ref().map(|(number, _)| *number);
        if current == Some(number) {
            state.masked = false;
            state.deliver_intx();
        }
    }

    /// Masks the messages without a trigger again, because a reset cleared their masks.
    pub(crate) fn mask_again<D: Device + ?Sized>(&self, layout: &Layout, device: &D) {
        let state = lock(&self.0);
        // a device that does not answer sends no messages either
        let _ = state.mask_messages((layout, device));
    }

    /// Forgets every trigger and disables messages in the device.
    pub(crate) fn clear<D: Device + ?Sized>(&self, layout: &Layout, device: &D) {
        let mut state = lock(&self.0);
        if let Some(mode @ (IrqIndex::MSI | IrqIndex::MSIX)) = state.mode {
            // a device that does not answer sends no messages either
            let _ = enable_messages((layout, device), mode, None);
        }
        let asserted = state.asserted;
        *state = State {
            asserted,
            unmasks: state.unmasks,
            ..State::default()
        };
    }
}

impl Interrupts for Irqs {
    fn message(&self, vector: u16) {
        let state = lock(&self.0);
        let messages = matches!(state.mode, Some(IrqIndex::MSI | IrqIndex::MSIX));
        let trigger = state
            .triggers
            .get(&u32::from(vector))
            .filter(|_| messages)
            .cloned();
        drop(state);
        signal(trigger.as_ref());
    }

    fn intx(&self, asserted: bool) {
        let mut state = lock(&self.0);
        state.asserted = asserted;
        state.deliver_intx();
    }
}

impl State {
    /// Signals an asserted pin once, then masks it until the user unmasks it.
    fn deliver_intx(&mut self) {
        let live = self.mode == Some(IrqIndex::INTX) && !self.masked && !self.disabled;
        if live && self.asserted {
            self.masked = true;
            signal(self.triggers.get(&0));
        }
    }

    fn set_intx(&mut self, start: u32, count: u32, data: IrqData) -> Result<(), Errno> {
        let mine = self.mode == Some(IrqIndex::INTX);
        if mine && count == 0 && matches!(data, IrqData::None) {
            self.mode = None;
            self.triggers.clear();
            self.unmask = None;
            return Ok(());
        }
        if !(mine || self.mode.is_none()) || start != 0 || count != 1 {
            return Err(Errno::EINVAL);
        }
        match data {
            IrqData::Triggers(mut list) => {
                self.triggers.clear();
                if let Some(trigger) = list.pop().flatten() {
                    self.triggers.insert(0, trigger);
                }
                if !mine {
                    self.mode = Some(IrqIndex::INTX);
                    self.masked = self.disabled;
                }
                self.deliver_intx();
                Ok(())
            }
            _ if !mine => Err(Errno::EINVAL),
            IrqData::Sources(_) => Err(Errno::EINVAL),
            IrqData::Bools(list) if !list.contains(&true) => Ok(()),
            IrqData::Bools(_) | IrqData::None => {
                if !self.disabled {
                    signal(self.triggers.get(&0));
                }
                Ok(())
            }
        }
    }

    fn mask_intx(
        &mut self,
        action: IrqAction,
        start: u32,
        count: u32,
        data: IrqData,
        irqs: Weak<Irqs>,
    ) -> Result<(), Errno> {
        if self.mode != Some(IrqIndex::INTX) || start != 0 || count != 1 {
            return Err(Errno::EINVAL);
        }
        match data {
            IrqData::Sources(mut list) if action == IrqAction::Unmask => {
                return self.unmask_by(list.pop().flatten(), irqs);
            }
            IrqData::Sources(_) | IrqData::Triggers(_) => return Err(Errno::ENOTTY),
            IrqData::Bools(list) if !list.contains(&true) => return Ok(()),
            IrqData::Bools(_) | IrqData::None => {}
        }
        self.masked = action == IrqAction::Mask;
        self.deliver_intx();
        Ok(())
    }

    /// One source at a time: the present source has to be removed first.
    fn unmask_by(
        &mut self,
        source: Option<Box<dyn Source>>,
        irqs: Weak<Irqs>,
    ) -> Result<(), Errno> {
        let Some(source) = source else {
            self.unmask = None;
            return Ok(());
        };
        if self.unmask.is_some() {
            return Err(Errno::EBUSY);
        }
        self.unmasks += 1;
        let number = self.unmasks;
        let watch = source.watch(Box::new(move || {
            if let Some(irqs) = irqs.upgrade() {
                irqs.unmask_intx(number);
            }
        }))?;
        self.unmask = Some((number, watch));
        Ok(())
    }

    /// Masks the messages of an enabled MSI that have no trigger, if the device has masks.
    fn mask_messages<D: Device + ?Sized>(&self, place: (&Layout, &D)) -> Result<(), Errno> {
        if self.mode != Some(IrqIndex::MSI) {
            return Ok(());
        }
        let heard = |mask: u32, vector: &u32| mask & !1_u32.checked_shl(*vector).unwrap_or(0);
        let silent = self.triggers.keys().fold(u32::MAX, heard);
        write_masks(place, silent)
    }

    fn set_messages<D: Device + ?Sized>(
        &mut self,
        place: (&Layout, &D),
        awake: bool,
        index: IrqIndex,
        start: u32,
        count: u32,
        data: IrqData,
    ) -> Result<(), Errno> {
        let mine = self.mode == Some(index);
        if mine && count == 0 && matches!(data, IrqData::None) {
            if index == IrqIndex::MSI {
                write_masks(place, 0)?;
            }
            enable_messages(place, index, None)?;
            self.mode = None;
            self.triggers.clear();
            return Ok(());
        }
        if !(mine || self.mode.is_none()) {
            return Err(Errno::EINVAL);
        }
        match data {
            IrqData::Triggers(list) => {
                if !mine {
                    let vectors = start + count;
                    if vectors == 0 {
                        return Err(Errno::ERANGE);
                    }
                    // Linux 7.2 `drivers/pci/msi/msi.c:__pci_enable_msix_range`
                    if !awake {
                        return Err(Errno::EINVAL);
                    }
                    enable_messages(place, index, Some(vectors))?;
                    self.mode = Some(index);
                    if index == IrqIndex::MSI {
                        self.qmax = vectors.next_power_of_two().ilog2() as u16;
                    }
                }
                let mut changed = !mine;
                for (vector, trigger) in (start..).zip(list) {
                    changed |= trigger.is_some();
                    let old = match trigger {
                        Some(trigger) => self.triggers.insert(vector, trigger),
                        None => self.triggers.remove(&vector),
                    };
                    changed |= old.is_some();
                }
                if !changed {
                    return Ok(());
                }
                self.mask_messages(place)
            }
            _ if !mine => Err(Errno::EINVAL),
            IrqData::Sources(_) => Err(Errno::EINVAL),
            IrqData::Bools(list) => {
                let wanted = (start..).zip(list).filter(|(_, wanted)| *wanted);
                wanted.for_each(|(vector, _)| signal(self.triggers.get(&vector)));
                Ok(())
            }
            IrqData::None => {
                let vectors = self.triggers.range(start..start + count);
                vectors.for_each(|(_, trigger)| trigger.signal());
                Ok(())
            }
        }
    }
}

/// ERR and REQ: one trigger, replaced or signalled.
fn set_single(slot: &mut Option<Arc<dyn Trigger>>, count: u32, data: IrqData) -> Result<(), Errno> {
    match data {
        IrqData::None if slot.is_none() => return Err(Errno::EINVAL),
        IrqData::None if count == 0 => *slot = None,
        IrqData::None => signal(slot.as_ref()),
        _ if count == 0 => return Err(Errno::EINVAL),
        IrqData::Bools(list) if list.contains(&true) => signal(slot.as_ref()),
        IrqData::Bools(_) => {}
        IrqData::Triggers(mut list) => *slot = list.pop().flatten(),
        IrqData::Sources(_) => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// Turns MSI or MSI-X on in the device for that many vectors, or off.
fn enable_messages<D: Device + ?Sized>(
    (layout, device): (&Layout, &D),
    index: IrqIndex,
    vectors: Option<u32>,
) -> Result<(), Errno> {
    let (kind, enable, clear) = if index == IrqIndex::MSI {
        (
            Kind::Message,
            msi::FLAGS_ENABLE,
            msi::FLAGS_ENABLE | msi::FLAGS_QSIZE,
        )
    } else {
        (
            Kind::MessageX,
            msix::FLAGS_ENABLE,
            msix::FLAGS_ENABLE | msix::FLAGS_MASKALL,
        )
    };
    let at = layout.find(kind).ok_or(Errno::EINVAL)?;
    let register = ConfigRegister::word(at + msi::FLAGS);
    let mut flags = device.config_read(register)? & !u32::from(clear);
    if let Some(vectors) = vectors {
        flags |= u32::from(enable);
        if index == IrqIndex::MSI {
            flags |= vectors.next_power_of_two().ilog2() << 4;
        }
    }
    device.config_write(register, flags)
}

/// Writes the mask bits of those MSI vectors that the device has, if it has masks.
///
/// Source: Linux 7.2 `drivers/pci/msi/msi.c`, which masks a vector without a handler and leaves
/// MSI unmasked when it disables it.
fn write_masks<D: Device + ?Sized>(
    (layout, device): (&Layout, &D),
    mask: u32,
) -> Result<(), Errno> {
    let at = layout.find(Kind::Message).ok_or(Errno::EINVAL)?;
    let flags = device.config_read(ConfigRegister::word(at + msi::FLAGS))? as u16;
    if flags & msi::FLAGS_MASKBIT == 0 {
        return Ok(());
    }
    let wide = flags & msi::FLAGS_64BIT != 0;
    let register = at + if wide { msi::MASK_64 } else { msi::MASK_32 };
    let (vectors, _) = layout.vectors(device)?;
    let all = u32::MAX.checked_shr(32 - vectors.min(32)).unwrap_or(0);
    device.config_write(ConfigRegister::dword(register), mask & all)
}

fn signal(trigger: Option<&Arc<dyn Trigger>>) {
    if let Some(trigger) = trigger {
        trigger.signal();
    }
}

impl fmt::Debug for IrqData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bools(list) => f.debug_tuple("Bools").field(list).finish(),
            Self::Triggers(list) => write!(f, "Triggers({})", list.len()),
            Self::Sources(list) => write!(f, "Sources({})", list.len()),
        }
    }
}
