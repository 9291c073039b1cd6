//! What a variant makes of a device for a VM, from firmware's properties and, where somebody
//! looked, the device's own registers.

use varia_facts::{BarKind, Bytes, PciFunction, VirtualBar};
use varia_spec::Errno;
use varia_spec::nvidia::{self, device_id, dvsec};
use varia_spec::vfio::RegionIndex;
use varia_variant::{Answer, Answers, Environment, Outcome, PageShift, Question, Region, Variant};
use varia_variants::{AnyVariant, table};

/// The variant of a device, its name, and what of its answer is assumed; none if no variant of
/// ours serves the device. `config` is its configuration space, if somebody read it.
pub(crate) fn variant(
    function: &PciFunction,
    config: Option<&[u8]>,
    page: Option<Bytes>,
) -> Option<(&'static str, AnyVariant, Option<String>)> {
    let entry = table::find(function.vendor, function.device)?;
    let mut assumed = None;
    let answers = Answers::collect(entry.questions, |question| {
        answer(question, function, config, &mut assumed)
    });
    let page = page.map(|page| page.0.max(1).ilog2());
    let environment = Environment {
        page: page.and_then(PageShift::new).unwrap_or(PageShift::KIB_64),
        honour_memory_enable: false,
    };
    let variant = (entry.probe)(&answers, environment);
    Some((entry.name, variant, assumed))
}

/// Writes a variant's layout into what is known of the device.
pub(crate) fn apply(function: &mut PciFunction, variant: &AnyVariant, assumed: Option<String>) {
    function.virtual_bars.clear();
    function.layout_note = match variant.outcome() {
        Outcome::Serve => assumed,
        Outcome::Decline(reason) => Some(reason.to_string()),
        Outcome::Fail(refusal) => Some(refusal.to_string()),
    };
    if variant.outcome() != Outcome::Serve {
        return;
    }
    for index in 0..6_u8 {
        let region = RegionIndex(u32::from(index));
        let physical = function.bars.iter().find(|bar| bar.index == index);
        let bar = match (variant.region(region), physical) {
            (Region::Memory(memory), _) => VirtualBar {
                index,
                size: Bytes(memory.size().get()),
                length: Bytes(memory.length()),
                prefetchable: true,
                memory: Some(memory.name().to_owned()),
            },
            (Region::Registers(registers), _) => VirtualBar {
                index,
                size: Bytes(registers.size().get()),
                length: Bytes(registers.size().get()),
                prefetchable: false,
                memory: None,
            },
            (Region::Base, Some(bar)) => VirtualBar {
                index,
                size: bar.size,
                length: bar.size,
                prefetchable: bar.prefetchable,
                memory: None,
            },
            (Region::Base, None) => continue,
        };
        function.virtual_bars.push(bar);
    }
}

fn answer(
    question: Question,
    function: &PciFunction,
    config: Option<&[u8]>,
    assumed: &mut Option<String>,
) -> Answer {
    match question {
        Question::Property(name) => {
            let memory = function.coherent_memory.as_ref();
            let value = memory.and_then(|memory| match name {
                nvidia::property::MEM_BASE_PA => Some(memory.base.0),
                nvidia::property::MEM_SIZE => Some(memory.size.0),
                _ => None,
            });
            value.ok_or(Errno::ENOENT)
        }
        Question::BarSize(index) => {
            let mut bars = function.bars.iter();
            let bar = bars.find(|bar| bar.index == index.get() && bar.kind != BarKind::Io);
            bar.map(|bar| bar.size.0).ok_or(Errno::ENOENT)
        }
        // only the owner's driver can ask
        Question::CommandWord { .. } => Err(Errno::EOPNOTSUPP),
        Question::DvsecOffset { vendor, id } => {
            let config = config.ok_or(Errno::ENOENT)?;
            find_dvsec(config, vendor, id)
                .map(|at| at as u64)
                .ok_or(Errno::ENOENT)
        }
        Question::DvsecWord { vendor, id, offset } => match config {
            Some(config) => find_dvsec(config, vendor, id)
                .and_then(|at| config.get(at + usize::from(offset)..)?.first_chunk())
                .map(|word| u64::from(u16::from_le_bytes(*word)))
                .ok_or(Errno::ENOENT),
            None => {
                let fixed = without_mig_bug(function.device);
                let has = if fixed { "is without" } else { "has" };
                *assumed = Some(format!(
                    "by its id the chip {has} the MIG bug that needs resmem; nobody asked the \
                     device itself (--probe does)"
                ));
                Ok(u64::from(if fixed {
                    dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM
                } else {
                    0
                }))
            }
        },
    }
}

/// Whether a chip is without the MIG bug, judged by its id: Hopper has it, Blackwell not.
/// Source: the driver's authors in the message that brings GB200 to it.
fn without_mig_bug(device: u16) -> bool {
    matches!(device, device_id::GB200 | device_id::GB300)
}

/// The offset of a DVSEC in a configuration space.
pub(crate) fn find_dvsec(config: &[u8], vendor: u16, id: u16) -> Option<usize> {
    use varia_spec::pci::ext_cap;

    let word = |at: usize| {
        let bytes = config.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let mut at = usize::from(ext_cap::START);
    // each capability has 4 bytes at least, so a longer list is a loop
    for _ in 0..config.len() / 4 {
        let header = word(at)?;
        let is = ext_cap::header_id(header) == ext_cap::id::DVSEC
            && word(at + 4)? as u16 == vendor
            && word(at + 8)? as u16 == id;
        if is {
            return Some(at);
        }
        at = usize::from(ext_cap::header_next(header));
        if at < usize::from(ext_cap::START) {
            return None;
        }
    }
    None
}
