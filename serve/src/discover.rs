//! Finds out what a variant asks of a device.

use varia_core::{ConfigRegister, Device, Width};
use varia_spec::{Errno, pci::header};
use varia_variant::{Answer, HostPhys, Question};
use varia_variants::table::{self, Entry};

/// The variant that serves a device, by its ids or its class; `None` if there is none.
///
/// # Errors
/// The errors of a configuration read.
pub fn variant(device: &dyn Device) -> Result<Option<&'static Entry>, Errno> {
    let id = device.config_read(ConfigRegister::dword(header::VENDOR_ID))?;
    let class = device.config_read(ConfigRegister::dword(header::CLASS_PROG))? >> 24;
    Ok(table::find_with_class(
        id as u16,
        (id >> 16) as u16,
        class as u8,
    ))
}

/// The answer to a question.
pub fn answer(device: &dyn Device, question: Question) -> Answer {
    match question {
        Question::Property(name) => device.property(name).ok_or(Errno::ENOENT),
        Question::BarSize(bar) => device
            .bar(bar.get())
            .map(|spec| spec.size)
            .ok_or(Errno::ENOENT),
        Question::CommandWord { opcode, offset } => {
            let mut result = vec![0; usize::from(offset) + 8];
            device.owner_command(opcode, &[], &mut result)?;
            let word = result.last_chunk().ok_or(Errno::EOVERFLOW)?;
            Ok(u64::from_le_bytes(*word))
        }
        Question::DvsecOffset { vendor, id } => dvsec(device, vendor, id).map(u64::from),
        Question::DvsecWord { vendor, id, offset } => {
            let at = dvsec(device, vendor, id)?;
            let at = at.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
            let register = ConfigRegister::new(at, Width::Word).ok_or(Errno::EINVAL)?;
            device.config_read(register).map(u64::from)
        }
        Question::ConfigDword(offset) => {
            let register = ConfigRegister::new(offset, Width::Dword).ok_or(Errno::EINVAL)?;
            device.config_read(register).map(u64::from)
        }
        Question::PointedWord { pointer, offset } => {
            let register = ConfigRegister::new(pointer, Width::Dword).ok_or(Errno::EINVAL)?;
            let base = u64::from(device.config_read(register)?);
            let mut word = [0; 8];
            device.platform_read(HostPhys(base + u64::from(offset)), &mut word)?;
            Ok(u64::from_le_bytes(word))
        }
        Question::RootDword { function, offset } => {
            let register = ConfigRegister::new(offset, Width::Dword).ok_or(Errno::EINVAL)?;
            let devfn = (function.device, function.function);
            device.root_config_read(devfn, register).map(u64::from)
        }
        Question::RootConfigSize(function) => {
            let devfn = (function.device, function.function);
            device.root_config_size(devfn).map(u64::from)
        }
    }
}

/// The offset of a DVSEC; `ENOENT` when the device does not have it.
fn dvsec(device: &dyn Device, vendor: u16, id: u16) -> Result<u16, Errno> {
    varia_core::find_dvsec(device, vendor, id)?.ok_or(Errno::ENOENT)
}
