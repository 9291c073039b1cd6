//! Raw configuration space: register values, which bits of them can be written, and what a write
//! does beyond that.
//!
//! Source: PCI Express Base Specification 6.0, chapter 7, for the layouts; the values that a
//! profile does not name are the specification's defaults.

mod layout;
mod vpd;

use varia_core::{ConfigRegister, HostPhys};
use varia_facts::ConfigDword;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;
use varia_spec::pci::cap::{af, exp, msi, msix, pm};
use varia_spec::pci::header::{self, command};

use crate::profile::{Capability, Profile};
use vpd::VitalData;

/// Effect of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Nothing but new register values.
    None,
    /// A reset of the function.
    Reset,
}

/// The registers of one function.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    power_on: Vec<u8>,
    /// Offsets of the capabilities whose writes have effects.
    express: Option<u16>,
    advanced: Option<u16>,
    power: Option<Power>,
    message: Option<u16>,
    message_x: Option<u16>,
    vital: Option<(u16, VitalData)>,
    /// Offsets of dwords that a reset keeps.
    kept: Vec<u16>,
}

/// A power management capability.
#[derive(Clone, Copy, Debug)]
struct Power {
    at: u16,
    light_sleep: bool,
    soft_reset: bool,
}

impl ConfigSpace {
    /// Power-on values. `range` is where the coherent memory is, {address, bytes}; `registers` are those
    /// that firmware writes, as scratch space of the device.
    pub(crate) fn new(
        profile: &Profile,
        range: Option<(HostPhys, u64)>,
        registers: &[ConfigDword],
    ) -> Self {
        let space = usize::from(CFG_SPACE_EXP_SIZE);
        let mut config = Self {
            bytes: vec![0; space],
            writable: vec![0; space],
            power_on: Vec::new(),
            express: None,
            advanced: None,
            power: None,
            message: None,
            message_x: None,
            vital: None,
            kept: Vec::new(),
        };
        config.header(profile);
        let capabilities = || profile.capabilities.iter().map(|c| c.value);
        let (ext, std): (Vec<_>, Vec<_>) = capabilities().partition(Capability::is_extended);
        for (i, capability) in std.iter().enumerate() {
            let next = std.get(i + 1).map_or(0, |c| c.offset);
            config.conventional(profile, *capability, next);
        }
        for (i, capability) in ext.iter().enumerate() {
            let next = ext.get(i + 1).map_or(0, |c| c.offset);
            config.extended(profile, *capability, next, range);
        }
        for register in registers {
            // the numbers were checked
            let (at, value) = (register.offset.0 as u16, register.value.0 as u32);
            config.dword(at, value, u32::MAX);
            config.kept.push(at);
        }
        config.power_on = config.bytes.clone();
        config
    }

    /// Power-on values again; the vital product data and firmware's scratch space stay. Plain vfio-pci
    /// resets a graphics device before it reads the OpRegion's address from that space.
    pub(crate) fn reset(&mut self) {
        let before = std::mem::replace(&mut self.bytes, self.power_on.clone());
        for at in &self.kept {
            set(&mut self.bytes, *at, 4, get(&before, *at, 4));
        }
    }

    pub(crate) fn read(&self, register: ConfigRegister) -> u32 {
        get(&self.bytes, register.offset(), register.width().bytes())
    }

    pub(crate) fn write(&mut self, register: ConfigRegister, value: u32) -> Effect {
        let (at, count) = (register.offset(), register.width().bytes());
        let before = self.power_state();
        let writable = get(&self.writable, at, count);
        let old = get(&self.bytes, at, count);
        set(
            &mut self.bytes,
            at,
            count,
            old & !writable | value & writable,
        );
        self.settle_power(before);
        self.transfer_vital(register);
        if self.starts_reset(register, value) || self.wakes_with_reset(before) {
            Effect::Reset
        } else {
            Effect::None
        }
    }

    /// The function may master the bus.
    pub(crate) fn masters(&self) -> bool {
        get(&self.bytes, header::COMMAND, 2) & u32::from(command::MASTER) != 0
    }

    /// MSI or MSI-X is enabled.
    pub(crate) fn messages_enabled(&self) -> bool {
        let flag = |at: Option<u16>, bit: u16| {
            at.is_some_and(|at| get(&self.bytes, at + msi::FLAGS, 2) & u32::from(bit) != 0)
        };
        flag(self.message, msi::FLAGS_ENABLE) || flag(self.message_x, msix::FLAGS_ENABLE)
    }

    /// The bytes as they are.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// 0 for D0, 3 for D3hot.
    fn power_state(&self) -> u32 {
        let state = u32::from(pm::CTRL_STATE_MASK);
        self.power
            .map_or(0, |power| get(&self.bytes, power.at + pm::CTRL, 1) & state)
    }

    /// A write of D1 or D2 leaves the state as it was where they are not supported.
    fn settle_power(&mut self, before: u32) {
        let Some(power) = self.power else { return };
        if matches!(self.power_state(), 1 | 2) && !power.light_sleep {
            let control = power.at + pm::CTRL;
            let kept = get(&self.bytes, control, 1) & !u32::from(pm::CTRL_STATE_MASK);
            set(&mut self.bytes, control, 1, kept | before);
        }
    }

    fn wakes_with_reset(&self, before: u32) -> bool {
        let resets = self.power.is_some_and(|power| power.soft_reset);
        resets && before == 3 && self.power_state() == 0
    }

    /// A write of the byte that holds the flag starts a transfer.
    fn transfer_vital(&mut self, register: ConfigRegister) {
        let Some((at, vital)) = &mut self.vital else {
            return;
        };
        if covers(register, vpd::flag_byte(*at)) {
            vital.transfer(&mut self.bytes, *at);
        }
    }

    /// The bits that start a reset are never stored.
    fn starts_reset(&self, register: ConfigRegister, value: u32) -> bool {
        let written = |at: u16, bit: u8| {
            let byte = |at: u16| value >> (8 * (at - register.offset()));
            covers(register, at) && byte(at) & u32::from(bit) != 0
        };
        let express = self
            .express
            .is_some_and(|e| written(e + exp::DEVCTL + 1, exp::DEVCTL_BCR_FLR.to_be_bytes()[0]));
        express
            || self
                .advanced
                .is_some_and(|a| written(a + af::CTRL, af::CTRL_FLR))
    }

    fn byte(&mut self, at: u16, value: u8, writable: u8) {
        set(&mut self.bytes, at, 1, u32::from(value));
        set(&mut self.writable, at, 1, u32::from(writable));
    }

    fn word(&mut self, at: u16, value: u16, writable: u16) {
        set(&mut self.bytes, at, 2, u32::from(value));
        set(&mut self.writable, at, 2, u32::from(writable));
    }

    fn dword(&mut self, at: u16, value: u32, writable: u32) {
        set(&mut self.bytes, at, 4, value);
        set(&mut self.writable, at, 4, writable);
    }
}

fn covers(register: ConfigRegister, at: u16) -> bool {
    (register.offset()..register.offset() + register.width().bytes()).contains(&at)
}

fn get(bytes: &[u8], at: u16, count: u16) -> u32 {
    let byte = |i: u16| bytes.get(usize::from(at + i)).copied().unwrap_or(0);
    (0..count).fold(0, |value, i| value | u32::from(byte(i)) << (8 * i))
}

fn set(bytes: &mut [u8], at: u16, count: u16, value: u32) {
    for (i, byte) in (0..count).zip(value.to_le_bytes()) {
        if let Some(slot) = bytes.get_mut(usize::from(at + i)) {
            *slot = byte;
        }
    }
}
