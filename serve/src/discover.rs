//! Finds out what a variant asks of a device.

use varia_core::{ConfigRegister, Device, TreeNode, Width};
use varia_spec::{Errno, pci::header};
use varia_variant::{Answer, HostPhys, Question, TreePlace, TreeStep};
use varia_variants::table::{self, Entry, Function, Selected};

/// The variant that serves a device, and the reason for the selection; `None` without such a variant.
///
/// # Errors
/// The errors of a configuration read.
pub fn variant(device: &dyn Device) -> Result<Option<(&'static Entry, Selected)>, Errno> {
    let id = device.config_read(ConfigRegister::dword(header::VENDOR_ID))?;
    let class = device.config_read(ConfigRegister::dword(header::CLASS_PROG))? >> 24;
    let function = Function {
        vendor: id as u16,
        device: (id >> 16) as u16,
        class: class as u8,
    };
    Ok(table::select(function, |question| answer(device, question)))
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
        Question::TreeWord(place) => integer::<4>(device, place),
        Question::TreeDoubleword(place) => integer::<8>(device, place),
        Question::LongestStore => {
            let facts = device.zpci().ok_or(Errno::ENODEV)?;
            Ok(facts.imaxstbl)
        }
    }
}

/// Integer of `WIDTH` bytes in a property of the device tree.
fn integer<const WIDTH: usize>(device: &dyn Device, place: TreePlace) -> Answer {
    let mut node = TreeNode::Function;
    for step in place.node {
        node = match step {
            TreeStep::HostBridge => TreeNode::HostBridge,
            TreeStep::Phandle(property) => {
                let cells = device.tree_property(node, property)?;
                let cell = cells.first_chunk().ok_or(Errno::EOVERFLOW)?;
                TreeNode::Phandle(u32::from_be_bytes(*cell))
            }
        };
    }
    let bytes = device.tree_property(node, place.property)?;
    let integers = bytes.chunks_exact(WIDTH);
    let is_whole = integers.remainder().is_empty() && !bytes.is_empty();
    let count = place.count.map_or(integers.len(), usize::from);
    if !is_whole || integers.len() != count {
        return Err(Errno::EOVERFLOW);
    }
    let integer = bytes.chunks_exact(WIDTH).nth(place.index.into());
    let bytes = integer.ok_or(Errno::ENOENT)?.iter();
    Ok(bytes.fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The offset of a DVSEC; `ENOENT` when the device does not have it.
fn dvsec(device: &dyn Device, vendor: u16, id: u16) -> Result<u16, Errno> {
    varia_core::find_dvsec(device, vendor, id)?.ok_or(Errno::ENOENT)
}
