//! Power states and resets, as Linux 7.2 brings them about.
//!
//! Source: `drivers/vfio/pci/vfio_pci_core.c:vfio_pci_set_power_state`, `vfio_pci_core_enable` and
//! `drivers/pci/pci.c:pci_set_power_state`, `pci_try_reset_function`.

use varia_spec::Errno;
use varia_spec::pci::cap::pm;
use varia_spec::pci::header::{self, command};

use crate::config::{Kind, SavedState};
use crate::core::{Core, Lines, Open, PowerState, lock};
use crate::device::{BarSpace, ConfigRegister, Device};

impl<D: Device + ?Sized> Core<D> {
    /// Takes memory enable and power state from the device.
    pub(crate) fn follow_physical(&self, lines: &mut Lines) -> Result<(), Errno> {
        lines.memory = self.physical_memory()?;
        lines.power = self.physical_power()?;
        Ok(())
    }

    pub(crate) fn physical_memory(&self) -> Result<bool, Errno> {
        let value = self
            .device()
            .config_read(ConfigRegister::word(header::COMMAND))?;
        Ok(value & u32::from(command::MEMORY) != 0)
    }

    pub(crate) fn physical_power(&self) -> Result<PowerState, Errno> {
        let device = &**self.device();
        let Some(at) = self.layout().find(Kind::Power) else {
            return Ok(PowerState::D0);
        };
        let control = device.config_read(ConfigRegister::word(at + pm::CTRL))?;
        Ok(match control & u32::from(pm::CTRL_STATE_MASK) {
            0 => PowerState::D0,
            1 => PowerState::D1,
            2 => PowerState::D2,
            _ => PowerState::D3hot,
        })
    }

    pub(crate) fn set_physical_power(&self, state: PowerState) -> Result<(), Errno> {
        let device = &**self.device();
        let Some(at) = self.layout().find(Kind::Power) else {
            return Ok(());
        };
        let register = ConfigRegister::word(at + pm::CTRL);
        let control = device.config_read(register)? & !u32::from(pm::CTRL_STATE_MASK);
        device.config_write(register, control | state as u32)
    }

    /// Brings the device to `state`, with its registers kept if it would lose them.
    ///
    /// As Linux 7.2 `vfio_pci_set_power_state` and `pci_set_power_state` do.
    pub(crate) fn set_power(
        &self,
        open: &mut Open,
        lines: &mut Lines,
        state: PowerState,
    ) -> Result<(), Errno> {
        let device = &**self.device();
        let Some(at) = self.layout().find(Kind::Power) else {
            return Ok(());
        };
        if state == lines.power {
            return Ok(());
        }
        let able = device.config_read(ConfigRegister::word(at + pm::PMC))? as u16;
        let possible = match state {
            PowerState::D0 => true,
            PowerState::D1 => able & pm::PMC_D1 != 0 && lines.power < state,
            PowerState::D2 => able & pm::PMC_D2 != 0 && lines.power < state,
            PowerState::D3hot => true,
        };
        if !possible {
            return Err(Errno::EIO);
        }
        let control = device.config_read(ConfigRegister::word(at + pm::CTRL))? as u16;
        let loses = control & pm::CTRL_NO_SOFT_RESET == 0;
        if loses && state == PowerState::D3hot {
            open.asleep = Some(SavedState::save(self.layout(), device)?);
        }
        let before = device.reset_count();
        self.set_physical_power(state)?;
        if let (PowerState::D3hot, Some(saved)) = (
            lines.power,
            open.asleep.take_if(|_| state == PowerState::D0),
        ) {
            saved.restore(device)?;
            self.irqs().mask_again(self.layout(), device);
        }
        lines.power = state;
        if device.reset_count() != before {
            self.tell_reset();
        }
        Ok(())
    }

    /// Resets the function with its registers kept, as Linux `pci_try_reset_function` does.
    pub(crate) fn function_reset(&self, lines: &mut Lines) -> Result<(), Errno> {
        self.reset_keeping(lines, || self.device().reset())
    }

    /// Resets the bus with the function's registers kept, as Linux `pci_reset_bus` does.
    pub(crate) fn bus_reset(&self, lines: &mut Lines) -> Result<(), Errno> {
        self.reset_keeping(lines, || self.device().bus_reset())
    }

    fn reset_keeping(
        &self,
        lines: &mut Lines,
        reset: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let device = &**self.device();
        if lines.power != PowerState::D0 {
            self.set_physical_power(PowerState::D0)?;
            lines.power = PowerState::D0;
        }
        let saved = SavedState::save(self.layout(), device)?;
        let before = device.reset_count();
        let done = reset();
        if device.reset_count() != before {
            self.tell_reset();
        }
        // whatever became of the reset, the registers are put back
        saved.restore(device)?;
        self.irqs().mask_again(self.layout(), device);
        done
    }

    pub(crate) fn reset_only(&self) -> Result<(), Errno> {
        self.device().reset()?;
        self.tell_reset();
        Ok(())
    }

    pub(crate) fn tell_reset(&self) {
        let hook = lock(&self.hook).clone();
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Wakes the device and lets it decode its BARs, without bus mastering.
    pub(crate) fn enable(&self, lines: &mut Lines) -> Result<(), Errno> {
        self.set_physical_power(PowerState::D0)?;
        lines.power = PowerState::D0;
        let register = ConfigRegister::word(header::COMMAND);
        let mut value = self.device().config_read(register)? & !u32::from(command::MASTER);
        for spec in (0..6).filter_map(|bar| self.device().bar(bar)) {
            value |= u32::from(match spec.space {
                BarSpace::Io => command::IO,
                BarSpace::Memory32 | BarSpace::Memory64 => command::MEMORY,
            });
        }
        self.device().config_write(register, value)
    }
}
