//! Layout that a variant gives a device in a VM, from firmware's properties and, where it has been
//! read, the device's configuration space.

use varia_facts::{BarKind, Bytes, PciFunction, VirtualBar};
use varia_spec::Errno;
use varia_spec::nvidia::{self, chip::Identity, dvsec};
use varia_spec::vfio::RegionIndex;
use varia_variant::{Answer, Answers, Environment, Outcome, PageShift, Question, Region, Variant};
use varia_variants::table::{self, Selected};
use varia_variants::{AnyVariant, Entry};

/// Lays a device out: fills in the variant that serves the device, the BARs that a VM sees, and the
/// note on the assumed or unknown part of these BARs. `config` is the device's configuration space,
/// if it has been read; `page` is the host's page size.
///
/// Returns the variant, or `None` if no variant of Varia's serves the device or if a value that the
/// variant needs is not known.
pub fn lay_out(
    function: &mut PciFunction,
    config: Option<&[u8]>,
    page: Option<Bytes>,
) -> Option<AnyVariant> {
    function.virtual_bars.clear();
    function.layout_note = None;
    let identity = Identity::of(function.vendor, function.device, function.class);
    let Some((entry, reason)) = entry(function, identity, config) else {
        if identity == Identity::Unknown {
            function.layout_note = Some(unknown_chip(function));
        }
        return None;
    };
    function.variant = Some(entry.name.to_owned());
    function.variant_reason = Some(reason);
    let mut assumed = (identity == Identity::Unknown).then(|| {
        "the chip is not known: the layout is from the device's own registers, and no released \
         driver lists its id"
            .to_owned()
    });
    let mut is_known = true;
    let answers = Answers::collect(entry.questions, |question| {
        answer(question, function, config, &mut assumed).unwrap_or_else(|NotKnown| {
            is_known = false;
            Err(Errno::ENOENT)
        })
    });
    if !is_known {
        function.layout_note = Some(
            "presence of the MIG bug, which needs resmem, is not known: probe the chip \
             (varia list --probe)"
                .to_owned(),
        );
        return None;
    }
    let page = page.map(|page| page.0.max(1).ilog2());
    let environment = Environment::new(page.and_then(PageShift::new).unwrap_or(PageShift::KIB_64));
    let variant = (entry.probe)(&answers, environment);
    apply(function, &variant, assumed);
    Some(variant)
}

/// Entry of the variant that serves a device, and the reason. An unknown chip with coherent memory by firmware is
/// served according to its own registers, once they have been read.
fn entry(
    function: &PciFunction,
    identity: Identity,
    config: Option<&[u8]>,
) -> Option<(&'static Entry, String)> {
    let (vendor, device) = (function.vendor, function.device);
    if let Some(entry) = table::find(vendor, device) {
        return Some((entry, Selected::Ids { vendor, device }.to_string()));
    }
    let is_probed = config.is_some() && function.coherent_memory.is_some();
    (identity == Identity::Unknown && is_probed).then(|| {
        let reason = "firmware's coherent memory and the chip's registers".to_owned();
        (&table::NVGRACE_GPU, reason)
    })
}

fn unknown_chip(function: &PciFunction) -> String {
    let (vendor, device) = (function.vendor, function.device);
    match function.coherent_memory {
        Some(_) => format!(
            "the chip {vendor:04x}:{device:04x} is not known, and firmware gives it coherent \
             memory: probe the chip (varia list --probe)"
        ),
        None => format!(
            "the chip {vendor:04x}:{device:04x} is not known, and firmware gives it no coherent \
             memory in the files read here: vfio-pci gives a VM the chip's own BARs"
        ),
    }
}

/// Writes a variant's layout into the facts of the device.
fn apply(function: &mut PciFunction, variant: &AnyVariant, assumed: Option<String>) {
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
                size: memory.size(),
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
            (Region::Composed(_) | Region::Absent, _) | (Region::Base, None) => continue,
        };
        function.virtual_bars.push(bar);
    }
}

/// A value that a variant needs is not known.
struct NotKnown;

fn answer(
    question: Question,
    function: &PciFunction,
    config: Option<&[u8]>,
    assumed: &mut Option<String>,
) -> Result<Answer, NotKnown> {
    Ok(match question {
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
        // only the owner's driver, or a reader of the host's memory, can answer
        Question::CommandWord { .. }
        | Question::ConfigDword(_)
        | Question::PointedWord { .. }
        | Question::RootDword { .. }
        | Question::RootConfigSize(_)
        | Question::TreeWord(_)
        | Question::TreeDoubleword(_)
        | Question::LongestStore => Err(Errno::EOPNOTSUPP),
        Question::DvsecOffset { vendor, id } => config
            .and_then(|config| find_dvsec(config, vendor, id))
            .map(|at| at as u64)
            .ok_or(Errno::ENOENT),
        Question::DvsecWord { vendor, id, offset } => match config {
            Some(config) => find_dvsec(config, vendor, id)
                .and_then(|at| config.get(at + usize::from(offset)..)?.first_chunk())
                .map(|word| u64::from(u16::from_le_bytes(*word)))
                .ok_or(Errno::ENOENT),
            None => {
                let bug = mig_bug(function).ok_or(NotKnown)?;
                let has = if bug { "has" } else { "is without" };
                *assumed = Some(format!(
                    "by its id the chip {has} the MIG bug that needs resmem; the device itself was \
                     not read (--probe reads it)"
                ));
                Ok(u64::from(if bug {
                    0
                } else {
                    dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM
                }))
            }
        },
    })
}

/// Presence of the MIG bug in a chip of the table; `None` if that is not known.
fn mig_bug(function: &PciFunction) -> Option<bool> {
    let identity = Identity::of(function.vendor, function.device, function.class);
    let coherent = identity.chip()?.coherent?;
    coherent.mig_bug.map(|bug| bug.value)
}

/// Offset of a DVSEC in a configuration space.
pub(crate) fn find_dvsec(config: &[u8], vendor: u16, id: u16) -> Option<usize> {
    use varia_spec::pci::ext_cap;

    let word = |at: usize| {
        let bytes = config.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let mut at = usize::from(ext_cap::START);
    // each capability has at least 4 bytes, so a longer list is a loop
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
