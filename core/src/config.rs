//! The virtual configuration space.
//!
//! Every byte belongs to a capability, to the header, or to nobody; the owner says which of its
//! bits are the core's and which can be written (`perms`). An access is cut into naturally aligned
//! pieces of at most four bytes that have one owner, so the code below sees whole registers or
//! less. Bytes that nobody owns go to the device unchanged: some devices hide registers there.
//!
//! What is not here: the act that a write asks for. A write returns an [`Effect`], which the core
//! carries out.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c`.

mod perms;
mod state;
mod walk;

use varia_spec::Errno;
use varia_spec::pci::cap::{af, exp, id, msi, pm};
use varia_spec::pci::ext_cap;
use varia_spec::pci::header::{self, STD_HEADER_SIZEOF, bar, command};
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};

use crate::device::{BarSpace, ConfigRegister, Device, Width};
use perms::Perms;
pub(crate) use state::SavedState;
pub use walk::find_dvsec;

/// What a configuration write asks the core to do, after the registers have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Memory space or INTx were switched.
    Command,
    /// Bits 1:0 of the power management control register were written.
    Power(u8),
    /// A function-level reset.
    Reset,
}

/// What the interrupt state adds to a write of the MSI capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageState {
    /// MSI is the interrupt mode that triggers were set for.
    pub(crate) enabled: bool,
    /// log2 of the vectors it was set up with.
    pub(crate) qmax: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Header,
    Power,
    Message,
    Express,
    Advanced,
    Other,
}

/// A capability, or the header.
#[derive(Clone, Debug)]
pub(crate) struct Capability {
    kind: Kind,
    start: u16,
    perms: Perms,
    /// Writes go to the device as they are.
    raw_write: bool,
}

/// The core's copy of the registers.
#[derive(Debug)]
pub(crate) struct Values(Vec<u8>);

/// The values, and who owns each byte.
#[derive(Debug)]
pub(crate) struct Map {
    values: Values,
    /// For each byte one more than the index in `capabilities`; 0 for nobody.
    owners: Vec<u16>,
    capabilities: Vec<Capability>,
}

/// The virtual configuration space of an open device.
#[derive(Debug)]
pub(crate) struct Config {
    map: Map,
    /// The physical BARs and the ROM address at open.
    physical_bars: [u32; 6],
}

/// One piece of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    register: ConfigRegister,
}

impl Piece {
    /// Where it goes.
    pub(crate) fn register(self) -> ConfigRegister {
        self.register
    }

    /// How many bytes.
    pub(crate) fn len(self) -> usize {
        usize::from(self.register.width().bytes())
    }
}

impl Config {
    /// Reads the device's registers and finds its capabilities.
    ///
    /// # Errors
    /// What the device answers to a read.
    pub(crate) fn new<D: Device + ?Sized>(device: &D) -> Result<Self, Errno> {
        let space = usize::from(CFG_SPACE_EXP_SIZE);
        let mut map = Map {
            values: Values(vec![0; space]),
            owners: vec![0; space],
            capabilities: Vec::new(),
        };
        let header = Capability {
            kind: Kind::Header,
            ..Capability::other(0, perms::basic())
        };
        map.add(header, STD_HEADER_SIZEOF, CFG_SPACE_SIZE);
        map.values.fill(device, 0, STD_HEADER_SIZEOF)?;
        let mut physical_bars = [0; 6];
        for (at, bar) in (header::BASE_ADDRESS_0..)
            .step_by(4)
            .zip(&mut physical_bars)
        {
            *bar = map.values.get(at, 4);
        }
        walk::conventional(&mut map, device)?;
        if map.capabilities.iter().any(|c| c.kind == Kind::Express) {
            walk::extended(&mut map, device)?;
        }
        let mut config = Self { map, physical_bars };
        config.fix_bars(device);
        Ok(config)
    }

    /// Memory space is enabled in the virtual command register.
    pub(crate) fn memory_enabled(&self) -> bool {
        self.command() & command::MEMORY != 0
    }

    /// INTx is disabled in the virtual command register.
    pub(crate) fn intx_disabled(&self) -> bool {
        self.command() & command::INTX_DISABLE != 0
    }

    /// The virtual interrupt pin, 0 for none.
    pub(crate) fn interrupt_pin(&self) -> u8 {
        self.map.values.get(header::INTERRUPT_PIN, 1) as u8
    }

    /// The first piece of an access of `count` bytes at `pos`; `None` beyond the space.
    pub(crate) fn piece(&self, pos: u16, count: usize) -> Option<Piece> {
        let owner = |at: u16| self.map.owners.get(usize::from(at)).copied();
        let first = owner(pos)?;
        let same = |n: u16| (1..n).all(|i| owner(pos + i) == Some(first));
        let width = if count >= 4 && pos.is_multiple_of(4) && same(4) {
            Width::Dword
        } else if count >= 2 && pos.is_multiple_of(2) && same(2) {
            Width::Word
        } else {
            Width::Byte
        };
        ConfigRegister::new(pos, width).map(|register| Piece { register })
    }

    /// What the user reads.
    pub(crate) fn read<D: Device + ?Sized>(&self, device: &D, piece: Piece) -> Result<u32, Errno> {
        let register = piece.register;
        let Some(owner) = self.map.owner(register.offset()) else {
            return device.config_read(register);
        };
        let (virt, _) = owner.masks(register);
        let seen = self.map.values.read(register) & virt;
        if virt == register.width().mask() {
            return Ok(seen);
        }
        Ok(device.config_read(register)? & !virt | seen)
    }

    /// What the user writes.
    pub(crate) fn write<D: Device + ?Sized>(
        &mut self,
        device: &D,
        piece: Piece,
        value: u32,
        message: MessageState,
    ) -> Result<Option<Effect>, Errno> {
        let register = piece.register;
        let Some(owner) = self.map.owner(register.offset()) else {
            return device.config_write(register, value).and(Ok(None));
        };
        if owner.raw_write {
            return device.config_write(register, value).and(Ok(None));
        }
        let (kind, start) = (owner.kind, owner.start);
        let masks = owner.masks(register);
        match kind {
            Kind::Header => self.write_header(device, register, value, masks),
            Kind::Power => {
                self.write_masked(device, register, value, masks)?;
                let state = (value & u32::from(pm::CTRL_STATE_MASK)) as u8;
                let hit = register.offset() == start + pm::CTRL;
                Ok(hit.then_some(Effect::Power(state)))
            }
            Kind::Message => {
                self.write_masked(device, register, value, masks)?;
                self.fix_message(device, register, start, message)
            }
            Kind::Express => {
                let before = self.map.values.get(start + exp::DEVCTL, 2) as u16;
                self.write_masked(device, register, value, masks)?;
                self.act_express(device, start, before)
            }
            Kind::Advanced => {
                self.write_masked(device, register, value, masks)?;
                self.act_advanced(device, start)
            }
            Kind::Other => self
                .write_masked(device, register, value, masks)
                .and(Ok(None)),
        }
    }

    /// Where capability `kind` begins, if the user sees one.
    pub(crate) fn find(&self, kind: Kind) -> Option<u16> {
        let mut all = self.map.capabilities.iter();
        all.find(|c| c.kind == kind).map(|c| c.start)
    }

    fn command(&self) -> u16 {
        self.map.values.get(header::COMMAND, 2) as u16
    }

    /// Virtual bits go to the copy, others to the device, and only writable ones go anywhere.
    fn write_masked<D: Device + ?Sized>(
        &mut self,
        device: &D,
        register: ConfigRegister,
        value: u32,
        (virt, write): (u32, u32),
    ) -> Result<(), Errno> {
        let own = virt & write;
        if own != 0 {
            let kept = self.map.values.read(register) & !own;
            self.map.values.write(register, kept | value & own);
        }
        let through = write & !virt;
        if through != 0 {
            let kept = device.config_read(register)? & !through;
            device.config_write(register, kept | value & through)?;
        }
        Ok(())
    }

    fn write_header<D: Device + ?Sized>(
        &mut self,
        device: &D,
        register: ConfigRegister,
        value: u32,
        masks: (u32, u32),
    ) -> Result<Option<Effect>, Errno> {
        let at = register.offset();
        let switches = u32::from(command::MEMORY | command::IO);
        if at == header::COMMAND {
            let physical = device.config_read(ConfigRegister::word(header::COMMAND))?;
            let lost = value & u32::from(self.command()) & !physical & switches;
            if lost != 0 || self.bars_lost(device) {
                self.restore_bars(device)?;
            }
        }
        self.write_masked(device, register, value, masks)?;
        if at == header::COMMAND {
            let seen = self.map.values.get(at, 2) & !switches;
            self.map.values.set(at, 2, seen | value & switches);
        }
        self.fix_bars(device);
        let command = at == header::COMMAND || at == header::COMMAND + 1;
        Ok(command.then_some(Effect::Command))
    }

    /// Does what a BAR does by itself: address bits below the size read as zero, flags are fixed.
    fn fix_bars<D: Device + ?Sized>(&mut self, device: &D) {
        let values = &mut self.map.values;
        let mut upper = None;
        for (index, at) in (0..6).zip((header::BASE_ADDRESS_0..).step_by(4)) {
            let raw = values.get(at, 4);
            let fixed = match (upper.take(), device.bar(index)) {
                (Some(mask), _) => raw & mask,
                (None, None) => 0,
                (None, Some(spec)) => {
                    let mask = !(spec.size.wrapping_sub(1));
                    let prefetch = if spec.prefetchable {
                        bar::MEM_PREFETCH
                    } else {
                        0
                    };
                    let (keep, flags) = match spec.space {
                        BarSpace::Io => (!bar::IO_FLAGS, bar::SPACE_IO),
                        BarSpace::Memory32 => (!bar::MEM_FLAGS, prefetch),
                        BarSpace::Memory64 => (!bar::MEM_FLAGS, prefetch | bar::MEM_TYPE_64),
                    };
                    upper = (spec.space == BarSpace::Memory64).then_some((mask >> 32) as u32);
                    raw & mask as u32 & keep | flags
                }
            };
            values.set(at, 4, fixed);
        }
        values.set(header::ROM_ADDRESS, 4, 0);
    }

    /// The physical BARs are not what they were: the device was reset behind our back.
    fn bars_lost<D: Device + ?Sized>(&self, device: &D) -> bool {
        self.bar_registers()
            .any(|(register, value)| value != 0 && device.config_read(register) != Ok(value))
    }

    fn restore_bars<D: Device + ?Sized>(&self, device: &D) -> Result<(), Errno> {
        self.bar_registers()
            .try_for_each(|(register, value)| device.config_write(register, value))
    }

    fn bar_registers(&self) -> impl Iterator<Item = (ConfigRegister, u32)> {
        let registers = (header::BASE_ADDRESS_0..).step_by(4);
        registers.map(ConfigRegister::dword).zip(self.physical_bars)
    }

    /// MSI is enabled by setting triggers, with as many vectors as were set.
    fn fix_message<D: Device + ?Sized>(
        &mut self,
        device: &D,
        register: ConfigRegister,
        start: u16,
        state: MessageState,
    ) -> Result<Option<Effect>, Errno> {
        let flags_at = start + msi::FLAGS;
        if register.offset() > flags_at || register.offset() + register.width().bytes() < flags_at {
            return Ok(None);
        }
        let mut flags = self.map.values.get(flags_at, 2) as u16;
        if !state.enabled {
            flags &= !msi::FLAGS_ENABLE;
        }
        if (flags & msi::FLAGS_QSIZE) >> 4 > state.qmax {
            flags = flags & !msi::FLAGS_QSIZE | state.qmax << 4;
        }
        self.map.values.set(flags_at, 2, u32::from(flags));
        device.config_write(ConfigRegister::word(flags_at), u32::from(flags))?;
        Ok(None)
    }

    /// Reset, and the size of read requests: the user's choice, but no less than a payload.
    fn act_express<D: Device + ?Sized>(
        &mut self,
        device: &D,
        start: u16,
        before: u16,
    ) -> Result<Option<Effect>, Errno> {
        let at = start + exp::DEVCTL;
        let control = self.map.values.get(at, 2) as u16;
        let mut effect = None;
        if control & exp::DEVCTL_BCR_FLR != 0 {
            let seen = control & !exp::DEVCTL_BCR_FLR;
            self.map.values.set(at, 2, u32::from(seen));
            let capable = device.config_read(ConfigRegister::dword(start + exp::DEVCAP))?;
            effect = (capable & exp::DEVCAP_FLR != 0).then_some(Effect::Reset);
        }
        if (control ^ before) & exp::DEVCTL_READRQ != 0 {
            let physical = device.config_read(ConfigRegister::word(at))? as u16;
            let payload = (physical & exp::DEVCTL_PAYLOAD) >> 5;
            let request = ((control & exp::DEVCTL_READRQ) >> 12).max(payload);
            let new = physical & !exp::DEVCTL_READRQ | request << 12;
            device.config_write(ConfigRegister::word(at), u32::from(new))?;
        }
        Ok(effect)
    }

    fn act_advanced<D: Device + ?Sized>(
        &mut self,
        device: &D,
        start: u16,
    ) -> Result<Option<Effect>, Errno> {
        let control = self.map.values.get(start + af::CTRL, 1);
        let reset = u32::from(af::CTRL_FLR);
        if control & reset == 0 {
            return Ok(None);
        }
        self.map.values.set(start + af::CTRL, 1, control & !reset);
        let needed = u32::from(af::CAP_FLR | af::CAP_TP);
        let capable = device.config_read(ConfigRegister::byte(start + af::CAP))?;
        Ok((capable & needed == needed).then_some(Effect::Reset))
    }
}

impl Map {
    /// Gives the bytes of a capability to it, as far as they lie below `end`.
    fn add(&mut self, capability: Capability, len: u16, end: u16) {
        let range = capability.start..capability.start.saturating_add(len).min(end);
        self.capabilities.push(capability);
        let owner = self.capabilities.len() as u16;
        for at in range {
            if let Some(slot) = self.owners.get_mut(usize::from(at)) {
                *slot = owner;
            }
        }
    }

    fn owner(&self, at: u16) -> Option<&Capability> {
        let owner = self.owners.get(usize::from(at)).copied()?;
        self.capabilities.get(usize::from(owner).checked_sub(1)?)
    }
}

impl Capability {
    fn masks(&self, register: ConfigRegister) -> (u32, u32) {
        let offset = register.offset() - self.start;
        self.perms.at(offset, register.width().bytes())
    }
}

impl Values {
    /// `count` bytes (at most four) at `at`, little endian; bytes beyond the space read as zero.
    fn get(&self, at: u16, count: u16) -> u32 {
        let byte = |i: u16| self.0.get(usize::from(at + i)).copied().unwrap_or(0);
        (0..count).fold(0, |value, i| value | u32::from(byte(i)) << (8 * i))
    }

    fn set(&mut self, at: u16, count: u16, value: u32) {
        for (i, byte) in (0..count).zip(value.to_le_bytes()) {
            if let Some(slot) = self.0.get_mut(usize::from(at + i)) {
                *slot = byte;
            }
        }
    }

    fn read(&self, register: ConfigRegister) -> u32 {
        self.get(register.offset(), register.width().bytes())
    }

    fn write(&mut self, register: ConfigRegister, value: u32) {
        self.set(register.offset(), register.width().bytes(), value);
    }

    /// Copies `len` bytes from the device, by whole registers where they are aligned.
    fn fill<D: Device + ?Sized>(&mut self, device: &D, start: u16, len: u16) -> Result<(), Errno> {
        let end = start.saturating_add(len).min(CFG_SPACE_EXP_SIZE);
        let mut at = start;
        while at < end {
            let width = match end - at {
                4.. if at.is_multiple_of(4) => Width::Dword,
                2.. if at.is_multiple_of(2) => Width::Word,
                _ => Width::Byte,
            };
            let Some(register) = ConfigRegister::new(at, width) else {
                break;
            };
            let value = device.config_read(register)?;
            self.write(register, value);
            at += width.bytes();
        }
        Ok(())
    }
}

/// Where the device's own list has capability `cap_id`, whether the user sees it or not.
///
/// # Errors
/// What the device answers to a read.
pub(crate) fn find_physical<D: Device + ?Sized>(
    device: &D,
    cap_id: u8,
) -> Result<Option<u16>, Errno> {
    let byte = |at| {
        device
            .config_read(ConfigRegister::byte(at))
            .map(|b| b as u16)
    };
    if device.config_read(ConfigRegister::word(header::STATUS))?
        & u32::from(header::status::CAP_LIST)
        == 0
    {
        return Ok(None);
    }
    let mut pos = byte(header::CAPABILITY_LIST)? & !3;
    for _ in 0..(CFG_SPACE_SIZE - STD_HEADER_SIZEOF) / 4 {
        if pos < STD_HEADER_SIZEOF {
            return Ok(None);
        }
        if byte(pos)? == u16::from(cap_id) {
            return Ok(Some(pos));
        }
        pos = byte(pos + 1)? & !3;
    }
    Ok(None)
}

/// Where the device's own list has extended capability `cap_id`.
///
/// # Errors
/// What the device answers to a read.
pub(crate) fn find_extended<D: Device + ?Sized>(
    device: &D,
    cap_id: u16,
) -> Result<Option<u16>, Errno> {
    let mut pos = ext_cap::START;
    for _ in 0..(CFG_SPACE_EXP_SIZE - CFG_SPACE_SIZE) / 4 {
        let start = device.config_read(ConfigRegister::dword(pos))?;
        if pos < ext_cap::START || matches!(start, 0 | u32::MAX) {
            break;
        }
        if ext_cap::header_id(start) == cap_id {
            return Ok(Some(pos));
        }
        pos = ext_cap::header_next(start);
    }
    Ok(None)
}

/// The device says that it can be reset by itself.
pub(crate) fn can_reset<D: Device + ?Sized>(device: &D) -> bool {
    let Ok(Some(at)) = find_physical(device, id::EXP) else {
        return false;
    };
    let capable = device.config_read(ConfigRegister::dword(at + exp::DEVCAP));
    capable.is_ok_and(|bits| bits & exp::DEVCAP_FLR != 0)
}

/// The device has an Express capability.
pub(crate) fn is_express<D: Device + ?Sized>(device: &D) -> bool {
    matches!(find_physical(device, id::EXP), Ok(Some(_)))
}
