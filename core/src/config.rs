//! The virtual configuration space.
//!
//! Every byte belongs to one register of a capability or of the header, or to none; the register
//! says which of its bits are the core's, which can be written, and what a write does beyond that
//! (`registers`, `capability`). Bytes without an owner go to the device unchanged: some devices
//! hide registers there. An access that covers a part of a register, or several registers, is cut
//! up before it gets here, so that the code below sees whole registers with the bytes that were
//! touched.
//!
//! Not here: the action that a write requests. A write returns an [`Effect`], which the core
//! carries out.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c`.

mod capability;
mod layout;
mod product_data;
mod registers;
mod state;
mod values;
mod walk;

use std::sync::Arc;

use varia_spec::Errno;
use varia_spec::pci::cap::{af, exp, msi, pm, vpd};
use varia_spec::pci::header::{self, command};

use crate::device::{ConfigRegister, Device};
pub(crate) use capability::Kind;
pub(crate) use layout::{Layout, MsixTable};
use product_data::ProductData;
pub(crate) use registers::tiles;
use registers::{Access, Role};
pub(crate) use state::SavedState;
use values::Values;
pub use walk::find_dvsec;

/// The BARs and the ROM address.
const ADDRESS_REGISTERS: [u16; 7] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, header::ROM_ADDRESS];
/// The command register's bits that switch decoding on.
const SWITCHES: u32 = (command::MEMORY | command::IO) as u32;

/// Action that a configuration write requests of the core, after the registers have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Memory space or INTx were switched.
    Command,
    /// Bits 1:0 of the power management control register were written.
    Power(u8),
    /// A function-level reset.
    Reset,
}

/// Interrupt state that a write of the MSI capability needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageState {
    /// MSI is the interrupt mode that triggers were set for.
    pub(crate) enabled: bool,
    /// log2 of the vectors it was set up with.
    pub(crate) qmax: u16,
}

/// The virtual configuration space of an open device.
#[derive(Debug)]
pub(crate) struct Config {
    layout: Arc<Layout>,
    values: Values,
    product_data: Option<ProductData>,
    /// The physical BARs and the ROM address at open.
    physical: [u32; 7],
}

impl Config {
    /// Reads the device's registers.
    ///
    /// # Errors
    /// The errors of a read of the device.
    pub(crate) fn new<D: Device + ?Sized>(layout: Arc<Layout>, device: &D) -> Result<Self, Errno> {
        let mut values = Values::new();
        for (start, len) in layout.places() {
            values.fill(device, start, len)?;
        }
        let physical = ADDRESS_REGISTERS.map(|at| values.get(ConfigRegister::dword(at)));
        for patch in layout.patches() {
            values.patch(*patch);
        }
        let mut config = Self {
            product_data: layout.find(Kind::Vpd).map(ProductData::new),
            layout,
            values,
            physical,
        };
        config.hide_power_events();
        Ok(config)
    }

    /// Memory space is enabled in the virtual command register.
    pub(crate) fn memory_enabled(&self) -> bool {
        self.command() & u32::from(command::MEMORY) != 0
    }

    /// INTx is disabled in the virtual command register.
    pub(crate) fn intx_disabled(&self) -> bool {
        self.command() & u32::from(command::INTX_DISABLE) != 0
    }

    /// The virtual interrupt pin, 0 for none.
    pub(crate) fn interrupt_pin(&self) -> u8 {
        let pin = ConfigRegister::byte(header::INTERRUPT_PIN);
        self.values.get(pin) as u8
    }

    /// Reads as much of `data`, from `pos`, as lies in one register. Answers how many bytes;
    /// 0 beyond the space and for no bytes.
    pub(crate) fn read<D: Device + ?Sized>(
        &self,
        device: &D,
        pos: u16,
        data: &mut [u8],
    ) -> Result<usize, Errno> {
        let Some(access) = self.layout.access(pos, data.len()) else {
            return Ok(0);
        };
        let value = access.take(self.read_register(device, access)?);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()).take(access.len()) {
            *to = from;
        }
        Ok(access.len())
    }

    /// Writes as much of `data`, from `pos`, as lies in one register. Answers how many bytes, 0 as
    /// [`read`](Self::read), and what is to be done.
    pub(crate) fn write<D: Device + ?Sized>(
        &mut self,
        device: &D,
        pos: u16,
        data: &[u8],
        message: MessageState,
    ) -> Result<(usize, Option<Effect>), Errno> {
        let Some(access) = self.layout.access(pos, data.len()) else {
            return Ok((0, None));
        };
        let bytes = data.iter().take(access.len()).rev();
        let value = access.place(bytes.fold(0, |value, byte| value << 8 | u32::from(*byte)));
        let effect = self.write_register(device, access, value, message)?;
        Ok((access.len(), effect))
    }

    /// The register's value, its touched bytes at least.
    fn read_register<D: Device + ?Sized>(&self, device: &D, access: Access) -> Result<u32, Errno> {
        let register = access.register();
        let own = self.values.get(register.at);
        let sizing = match register.role {
            Role::Bar(index) => self.layout.bar(index),
            Role::Rom => self.layout.rom(),
            _ if access.mask() & !register.virt == 0 => return Ok(own),
            _ => {
                let physical = read_device(device, access)?;
                return Ok(physical & !register.virt | own & register.virt);
            }
        };
        // as a BAR does: address bits below the size read as zero, flags are fixed
        Ok(own & sizing.mask | sizing.flags)
    }

    fn write_register<D: Device + ?Sized>(
        &mut self,
        device: &D,
        access: Access,
        value: u32,
        message: MessageState,
    ) -> Result<Option<Effect>, Errno> {
        let register = access.register();
        match register.role {
            Role::Raw => write_device(device, access, value).and(Ok(None)),
            Role::Plain | Role::Bar(_) | Role::Rom => {
                self.write_masked(device, access, value).and(Ok(None))
            }
            Role::Command => self.write_command(device, access, value),
            Role::PowerControl => {
                self.write_masked(device, access, value)?;
                let state = u32::from(pm::CTRL_STATE_MASK);
                let hit = access.mask() & state != 0;
                Ok(hit.then_some(Effect::Power((value & state) as u8)))
            }
            Role::VpdAddress => {
                self.write_masked(device, access, value)?;
                if access.mask() & u32::from(vpd::ADDR_F) != 0 {
                    self.move_product_data(device, register.at);
                }
                Ok(None)
            }
            Role::MessageControl => {
                self.write_masked(device, access, value)?;
                self.settle_message(device, access, message).and(Ok(None))
            }
            Role::DeviceControl => {
                let before = self.values.get(register.at);
                self.write_masked(device, access, value)?;
                self.act_express(device, register.at, before)
            }
            Role::AdvancedControl => {
                self.write_masked(device, access, value)?;
                self.act_advanced(device, register.at)
            }
        }
    }

    fn command(&self) -> u32 {
        self.values.get(ConfigRegister::word(header::COMMAND))
    }

    /// The user can't be told of a power management event, so its bits read as zero.
    fn hide_power_events(&mut self) {
        let Some(at) = self.layout.find(Kind::Power) else {
            return;
        };
        let events = pm::CTRL_PME_ENABLE | pm::CTRL_PME_STATUS;
        for (offset, bits) in [(pm::PMC, pm::PMC_PME_MASK), (pm::CTRL, events)] {
            let register = ConfigRegister::word(at + offset);
            let kept = self.values.get(register) & !u32::from(bits);
            self.values.set(register, kept);
        }
    }

    /// Virtual bits go to the copy, others to the device, and only writable ones go anywhere.
    fn write_masked<D: Device + ?Sized>(
        &mut self,
        device: &D,
        access: Access,
        value: u32,
    ) -> Result<(), Errno> {
        let register = access.register();
        let write = register.write & access.mask();
        self.values.merge(register, write & register.virt, value);
        let through = write & !register.virt;
        if through == 0 {
            return Ok(());
        }
        let kept = read_device(device, access)? & !through;
        write_device(device, access, kept | value & through)
    }

    fn write_command<D: Device + ?Sized>(
        &mut self,
        device: &D,
        access: Access,
        value: u32,
    ) -> Result<Option<Effect>, Errno> {
        let register = access.register();
        let switched = access.mask() & SWITCHES != 0;
        if switched {
            let physical = device.config_read(register.at)?;
            let lost = value & self.command() & !physical & SWITCHES;
            if lost != 0 || self.addresses_lost(device) {
                self.restore_addresses(device)?;
            }
        }
        self.write_masked(device, access, value)?;
        if switched {
            self.values.merge(register, SWITCHES, value);
        }
        Ok(Some(Effect::Command))
    }

    /// The physical BARs are not what they were: the device was reset behind our back.
    fn addresses_lost<D: Device + ?Sized>(&self, device: &D) -> bool {
        let mut bars = self.address_registers().take(6);
        bars.any(|(at, value)| value != 0 && device.config_read(at) != Ok(value))
    }

    fn restore_addresses<D: Device + ?Sized>(&self, device: &D) -> Result<(), Errno> {
        self.address_registers()
            .try_for_each(|(at, value)| device.config_write(at, value))
    }

    fn address_registers(&self) -> impl Iterator<Item = (ConfigRegister, u32)> {
        let registers = ADDRESS_REGISTERS.into_iter().map(ConfigRegister::dword);
        registers.zip(self.physical)
    }

    /// A transfer between the window's data and the device. The flag is inverted when it is over;
    /// one that fails leaves it.
    fn move_product_data<D: Device + ?Sized>(&mut self, device: &D, address: ConfigRegister) {
        let data = ConfigRegister::dword(address.offset() - vpd::ADDR + vpd::DATA);
        let wanted = self.values.get(address) as u16;
        let Some(product_data) = &mut self.product_data else {
            return;
        };
        let moved = if wanted & vpd::ADDR_F != 0 {
            let value = self.values.get(data);
            product_data.write(device, wanted & vpd::ADDR_MASK, value)
        } else {
            let value = product_data.read(device, wanted);
            value.map(|value| self.values.set(data, value))
        };
        if moved.is_ok() {
            self.values.set(address, u32::from(wanted ^ vpd::ADDR_F));
        }
    }

    /// MSI is enabled by setting triggers, with as many vectors as were set.
    fn settle_message<D: Device + ?Sized>(
        &mut self,
        device: &D,
        access: Access,
        state: MessageState,
    ) -> Result<(), Errno> {
        let register = access.register();
        if access.mask() & register.write == 0 {
            return Ok(());
        }
        let mut flags = self.values.get(register.at) as u16;
        if !state.enabled {
            flags &= !msi::FLAGS_ENABLE;
        }
        if (flags & msi::FLAGS_QSIZE) >> 4 > state.qmax {
            flags = flags & !msi::FLAGS_QSIZE | state.qmax << 4;
        }
        self.values.set(register.at, u32::from(flags));
        device.config_write(register.at, u32::from(flags))
    }

    /// Reset, and the size of read requests: the user's choice, but no less than a payload.
    fn act_express<D: Device + ?Sized>(
        &mut self,
        device: &D,
        register: ConfigRegister,
        before: u32,
    ) -> Result<Option<Effect>, Errno> {
        let control = self.values.get(register) as u16;
        let mut effect = None;
        if control & exp::DEVCTL_BCR_FLR != 0 {
            let seen = control & !exp::DEVCTL_BCR_FLR;
            self.values.set(register, u32::from(seen));
            let at = register.offset() - exp::DEVCTL + exp::DEVCAP;
            let capable = device.config_read(ConfigRegister::dword(at))?;
            effect = (capable & exp::DEVCAP_FLR != 0).then_some(Effect::Reset);
        }
        if (control ^ before as u16) & exp::DEVCTL_READRQ != 0 {
            let physical = device.config_read(register)? as u16;
            let payload = (physical & exp::DEVCTL_PAYLOAD) >> 5;
            let request = ((control & exp::DEVCTL_READRQ) >> 12).max(payload);
            // 4096 bytes are the most; Linux writes nothing for a code beyond
            if request <= exp::DEVCTL_READRQ_4096B {
                let new = physical & !exp::DEVCTL_READRQ | request << 12;
                device.config_write(register, u32::from(new))?;
            }
        }
        Ok(effect)
    }

    fn act_advanced<D: Device + ?Sized>(
        &mut self,
        device: &D,
        register: ConfigRegister,
    ) -> Result<Option<Effect>, Errno> {
        let control = self.values.get(register);
        let reset = u32::from(af::CTRL_FLR);
        if control & reset == 0 {
            return Ok(None);
        }
        self.values.set(register, control & !reset);
        let needed = u32::from(af::CAP_FLR | af::CAP_TP);
        let at = register.offset() - af::CTRL + af::CAP;
        let capable = device.config_read(ConfigRegister::byte(at))?;
        Ok((capable & needed == needed).then_some(Effect::Reset))
    }
}

/// The bytes of the access, in the register's place.
fn read_device<D: Device + ?Sized>(device: &D, access: Access) -> Result<u32, Errno> {
    access.on_device().try_fold(0, |value, (at, shift)| {
        Ok(value | device.config_read(at)? << shift)
    })
}

fn write_device<D: Device + ?Sized>(device: &D, access: Access, value: u32) -> Result<(), Errno> {
    access
        .on_device()
        .try_for_each(|(at, shift)| device.config_write(at, value >> shift & at.width().mask()))
}
