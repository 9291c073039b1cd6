//! Interrupts: how many there are, and who is told of them.
//!
//! A user sets triggers for one of INTx, MSI and MSI-X at a time; setting the first enables that
//! mode in the device. ERR and REQ have one trigger each and are independent of the mode. The
//! answers, and the order in which errors are found, are those of Linux 7.2
//! `drivers/vfio/vfio_main.c:vfio_set_irqs_validate_and_prepare` and
//! `drivers/vfio/pci/vfio_pci_intrs.c`.
//!
//! What is missing: an eventfd that unmasks INTx is refused with `ENOTTY`, because nobody here
//! waits for descriptors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use varia_spec::Errno;
use varia_spec::pci::cap::{msi, msix};
use varia_spec::vfio::{IrqIndex, irq_flags};

use crate::config::{Kind, Layout, MessageState};
use crate::core::{Core, lock};
use crate::device::{ConfigRegister, Device, Interrupts};

/// Somebody who is told of an interrupt: an eventfd, or a test.
pub trait Trigger: Send + Sync {
    /// An interrupt happened. Neither blocks nor calls the core: its locks may be held.
    fn signal(&self);
}

impl<F: Fn() + Send + Sync> Trigger for F {
    fn signal(&self) {
        self();
    }
}

/// What `VFIO_DEVICE_GET_IRQ_INFO` answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqInfo {
    /// Bits of [`varia_spec::vfio::irq_flags`].
    pub flags: u32,
    /// How many vectors.
    pub count: u32,
}

/// What to do with vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IrqAction {
    /// Keep them quiet.
    Mask,
    /// Let them be heard again.
    Unmask,
    /// Set who is told, or tell them now.
    Trigger,
}

/// Which vectors, out of `count` from `start`.
pub enum IrqData {
    /// All of them; with [`IrqAction::Trigger`] and a count of zero, none from now on.
    None,
    /// Those that are `true`.
    Bools(Vec<bool>),
    /// All of them, with who is told; `None` for nobody.
    Triggers(Vec<Option<Arc<dyn Trigger>>>),
}

/// How many vectors a device has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Vectors {
    intx: u32,
    msi: u32,
    msix: u32,
    express: bool,
}

/// Who is told of what.
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
    /// `EINVAL` for an index that there is not, `ENODEV` while closed.
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
    /// `EINVAL` when the vectors or the data do not fit the index or its state, `ENOTTY` for an
    /// action that the index does not have, `ENODEV` while closed; what the device answers.
    pub fn set_irqs(
        &self,
        index: IrqIndex,
        action: IrqAction,
        start: u32,
        count: u32,
        data: IrqData,
    ) -> Result<(), Errno> {
        let max = self.vectors()?.count(index);
        let end = start.checked_add(count).ok_or(Errno::EINVAL)?;
        if start >= max || end > max {
            return Err(Errno::EINVAL);
        }
        let given = match &data {
            IrqData::None => count as usize,
            IrqData::Bools(list) => list.len(),
            IrqData::Triggers(list) => list.len(),
        };
        if given != count as usize {
            return Err(Errno::EINVAL);
        }
        let mut state = lock(&self.irqs().0);
        match (index, action) {
            (IrqIndex::INTX, IrqAction::Trigger) => state.set_intx(start, count, data),
            (IrqIndex::INTX, _) => state.mask_intx(action, start, count, data),
            (IrqIndex::MSI | IrqIndex::MSIX, IrqAction::Trigger) => {
                let place = (self.layout(), &**self.device());
                state.set_messages(place, index, start, count, data)
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
    ) -> Result<(), Errno> {
        if self.mode != Some(IrqIndex::INTX) || start != 0 || count != 1 {
            return Err(Errno::EINVAL);
        }
        match data {
            IrqData::Triggers(_) => return Err(Errno::ENOTTY),
            IrqData::Bools(list) if !list.contains(&true) => return Ok(()),
            IrqData::Bools(_) | IrqData::None => {}
        }
        self.masked = action == IrqAction::Mask;
        self.deliver_intx();
        Ok(())
    }

    fn set_messages<D: Device + ?Sized>(
        &mut self,
        place: (&Layout, &D),
        index: IrqIndex,
        start: u32,
        count: u32,
        data: IrqData,
    ) -> Result<(), Errno> {
        let mine = self.mode == Some(index);
        if mine && count == 0 && matches!(data, IrqData::None) {
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
                    enable_messages(place, index, Some(vectors))?;
                    self.mode = Some(index);
                    if index == IrqIndex::MSI {
                        self.qmax = vectors.next_power_of_two().ilog2() as u16;
                    }
                }
                for (vector, trigger) in (start..).zip(list) {
                    match trigger {
                        Some(trigger) => self.triggers.insert(vector, trigger),
                        None => self.triggers.remove(&vector),
                    };
                }
                Ok(())
            }
            _ if !mine => Err(Errno::EINVAL),
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
        }
    }
}
