//! Registers that a reset loses and that are put back after it.
//!
//! Source: what Linux 7.2 `drivers/pci/pci.c:pci_save_state` and `pci_restore_state` keep for an
//! endpoint: the header, the Express controls, MSI and MSI-X, error reporting, latencies.

use varia_spec::Errno;
use varia_spec::pci::cap::{exp, msi, msix};
use varia_spec::pci::ext_cap::{err, ltr};
use varia_spec::pci::header;

use super::{Kind, Layout};
use crate::device::{ConfigRegister, Device};

/// Values of registers, in the order in which they are written back.
#[derive(Clone, Debug, Default)]
pub(crate) struct SavedState(Vec<(ConfigRegister, u32)>);

impl SavedState {
    /// Reads the registers.
    ///
    /// # Errors
    /// The errors of a read of the device.
    pub(crate) fn save<D: Device + ?Sized>(layout: &Layout, device: &D) -> Result<Self, Errno> {
        let mut registers = Vec::new();
        if let Some(at) = layout.find(Kind::Express) {
            let controls = [exp::DEVCTL, exp::LNKCTL, exp::DEVCTL2, exp::LNKCTL2];
            registers.extend(controls.map(|c| ConfigRegister::word(at + c)));
        }
        // messages are put back while they are enabled, by whoever enabled them
        if let Some(at) = layout.find(Kind::Message) {
            let flags = device.config_read(ConfigRegister::word(at + msi::FLAGS))? as u16;
            if flags & msi::FLAGS_ENABLE != 0 {
                let wide = flags & msi::FLAGS_64BIT != 0;
                let data = if wide { msi::DATA_64 } else { msi::DATA_32 };
                registers.push(ConfigRegister::dword(at + msi::ADDRESS_LO));
                if wide {
                    registers.push(ConfigRegister::dword(at + msi::ADDRESS_HI));
                }
                registers.push(ConfigRegister::word(at + data));
                registers.push(ConfigRegister::word(at + msi::FLAGS));
            }
        }
        if let Some(at) = layout.find(Kind::MessageX) {
            let flags = ConfigRegister::word(at + msix::FLAGS);
            if device.config_read(flags)? & u32::from(msix::FLAGS_ENABLE) != 0 {
                registers.push(flags);
            }
        }
        if let Some(at) = layout.find(Kind::Errors) {
            let masks = [err::UNCOR_MASK, err::UNCOR_SEVER, err::COR_MASK, err::CAP];
            registers.extend(masks.map(|m| ConfigRegister::dword(at + m)));
        }
        if let Some(at) = layout.find(Kind::Latency) {
            registers.push(ConfigRegister::dword(at + ltr::MAX_SNOOP));
        }
        // the command register last, when every address is back
        let header = (0..header::STD_HEADER_SIZEOF).step_by(4).rev();
        registers.extend(header.map(ConfigRegister::dword));
        let read = |r: ConfigRegister| device.config_read(r).map(|value| (r, value));
        registers
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Writes the registers back.
    ///
    /// # Errors
    /// The errors of a write to the device.
    pub(crate) fn restore<D: Device + ?Sized>(&self, device: &D) -> Result<(), Errno> {
        self.0
            .iter()
            .try_for_each(|&(register, value)| device.config_write(register, value))
    }
}
