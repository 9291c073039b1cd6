//! Table that selects a variant, and the enum that dispatches to it.

use core::fmt;

use varia_spec::{
    Errno, intel, nvidia, nvlink2,
    vfio::{OFFSET_SHIFT, RegionIndex},
    virtio, zpci,
};
use varia_variant::{
    After, Answer, Answers, BarIndex, Before, ConfigSegment, Describe, Direction, Environment,
    Event, Extended, Generation, Outcome, Probe, Question, Ready, Refusal, Region, Sample, Variant,
    Wait, WrongFact,
    ready::{Status, Values},
};

use crate::{
    Clique, Igd, Ism, NvgraceGpu, Nvlink2, Plain, Virtio, Zdev, igd,
    nvlink2::{gpu, link},
};

/// A variant that can be chosen.
#[derive(Debug)]
pub struct Entry {
    /// The variant's name.
    pub name: &'static str,
    /// Vendor and device ids.
    pub ids: &'static [(u16, u16)],
    /// Vendor, and question about the platform whose answer selects the entry for a device that no
    /// entry's ids select.
    pub fact: Option<(u16, Question)>,
    /// Vendor, and class byte of a device that neither ids nor facts select.
    pub class: Option<(u16, u8)>,
    /// Number of bits of a file position that hold the offset in a region: the region with an index
    /// begins at `index << offset_shift`.
    pub offset_shift: u32,
    /// Questions to answer before [`Entry::probe`].
    pub questions: &'static [Question],
    /// Builds the variant; see [`Probe::probe`].
    pub probe: fn(&Answers, Environment) -> AnyVariant,
}

/// The entry of [`NvgraceGpu`].
pub static NVGRACE_GPU: Entry = Entry {
    name: "nvgrace-gpu",
    ids: &nvidia::chip::COHERENT_IDS,
    fact: None,
    class: None,
    offset_shift: OFFSET_SHIFT,
    questions: NvgraceGpu::QUESTIONS,
    probe: |answers, environment| AnyVariant::NvgraceGpu(NvgraceGpu::probe(answers, environment)),
};

/// The entry of [`Virtio`].
pub static VIRTIO: Entry = Entry {
    name: "virtio",
    ids: &[(virtio::VENDOR_ID, virtio::device_id::MODERN_NET)],
    fact: None,
    class: None,
    offset_shift: OFFSET_SHIFT,
    questions: Virtio::QUESTIONS,
    probe: |answers, environment| AnyVariant::Virtio(Virtio::probe(answers, environment)),
};

/// The entry of [`Igd`].
pub static IGD: Entry = Entry {
    name: "igd",
    ids: &[],
    fact: None,
    class: Some((intel::VENDOR_ID, igd::BASE_CLASS)),
    offset_shift: OFFSET_SHIFT,
    questions: Igd::QUESTIONS,
    probe: |answers, environment| AnyVariant::Igd(Igd::probe(answers, environment)),
};

/// The entry of [`Nvlink2`] for GPUs.
pub static NVLINK2_GPU: Entry = Entry {
    name: "nvlink2-gpu",
    ids: &nvlink2::GPU_IDS,
    fact: Some((nvidia::VENDOR_ID, gpu::NPU)),
    class: None,
    offset_shift: OFFSET_SHIFT,
    questions: gpu::QUESTIONS,
    probe: |answers, environment| AnyVariant::Nvlink2(Nvlink2::gpu(answers, environment)),
};

/// The entry of [`Nvlink2`] for bridges.
pub static NVLINK2_BRIDGE: Entry = Entry {
    name: "nvlink2-bridge",
    ids: &nvlink2::BRIDGE_IDS,
    fact: Some((nvlink2::IBM, link::GPU_NUMBER)),
    class: None,
    offset_shift: OFFSET_SHIFT,
    questions: link::QUESTIONS,
    probe: |answers, environment| AnyVariant::Nvlink2(Nvlink2::bridge(answers, environment)),
};

/// The entry of [`Ism`].
pub static ISM: Entry = Entry {
    name: "ism",
    ids: &[zpci::ISM_ID],
    fact: None,
    class: None,
    offset_shift: zpci::ISM_OFFSET_SHIFT,
    questions: Ism::QUESTIONS,
    probe: |answers, environment| AnyVariant::Ism(Ism::probe(answers, environment)),
};

/// All variants.
pub static TABLE: &[&Entry] = &[
    &NVGRACE_GPU,
    &VIRTIO,
    &IGD,
    &NVLINK2_GPU,
    &NVLINK2_BRIDGE,
    &ISM,
];

/// A function, by what the table selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class byte.
    pub class: u8,
}

/// Reason for a selection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selected {
    /// The ids are an entry's.
    Ids {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// The platform has the fact that an entry asks for.
    Fact {
        /// Vendor id.
        vendor: u16,
        /// Name of the fact.
        fact: &'static str,
    },
    /// Vendor and class are an entry's.
    Class {
        /// Vendor id.
        vendor: u16,
        /// Class byte.
        class: u8,
    },
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids { vendor, device } => write!(f, "ids {vendor:04x}:{device:04x}"),
            Self::Fact { vendor, fact } => {
                write!(f, "vendor {vendor:04x} and the platform's {fact}")
            }
            Self::Class { vendor, class } => write!(f, "vendor {vendor:04x} and class {class:02x}"),
        }
    }
}

/// The entry that serves a device, by vendor and device id.
pub fn find(vendor: u16, device: u16) -> Option<&'static Entry> {
    let mut entries = TABLE.iter().copied();
    entries.find(|entry| entry.ids.contains(&(vendor, device)))
}

/// The entry that serves a function, and the reason: its ids, else a fact of the platform, else its
/// class. `answer` answers a question about the platform.
pub fn select(
    function: Function,
    mut answer: impl FnMut(Question) -> Answer,
) -> Option<(&'static Entry, Selected)> {
    let Function {
        vendor,
        device,
        class,
    } = function;
    if let Some(entry) = find(vendor, device) {
        return Some((entry, Selected::Ids { vendor, device }));
    }
    let entries = || TABLE.iter().copied();
    for entry in entries() {
        let fact = entry.fact.filter(|(of, _)| *of == vendor);
        if let Some((_, question)) = fact.filter(|(_, question)| answer(*question).is_ok()) {
            let fact = fact_name(question);
            return Some((entry, Selected::Fact { vendor, fact }));
        }
    }
    let entry = entries().find(|entry| entry.class == Some((vendor, class)))?;
    Some((entry, Selected::Class { vendor, class }))
}

/// Name of a fact that selects an entry.
const fn fact_name(question: Question) -> &'static str {
    match question {
        Question::TreeWord(place) | Question::TreeDoubleword(place) => place.property,
        Question::Property(name) => name,
        _ => "fact",
    }
}

/// Any of the variants.
#[derive(Debug)]
pub enum AnyVariant {
    /// NVIDIA GPUs with CPU-coherent memory.
    NvgraceGpu(NvgraceGpu),
    /// Virtio network cards with legacy commands.
    Virtio(Virtio),
    /// Intel's integrated graphics devices.
    Igd(Igd),
    /// GPUs and bridges of NVLink2.
    Nvlink2(Nvlink2),
    /// Internal shared memory of s390.
    Ism(Ism),
    /// A device without a variant of its own.
    Plain(Plain),
}

/// A variant, and the extensions over it.
pub type Chosen = Extended<Extended<AnyVariant, Option<Clique>>, Option<Zdev>>;

/// The extension [`Zdev`] for a function with these facts of the platform, `None` on a platform
/// without. The platform decides alone, unless the extension is `wanted`.
///
/// # Errors
/// `ENODEV` if the extension is wanted and the platform has no facts; a fact outside its range.
pub fn zdev(facts: Option<&zpci::Facts>, wanted: bool) -> Result<Option<Zdev>, Refusal> {
    match facts {
        Some(facts) => Zdev::new(facts).map(Some),
        None if wanted => Err(Refusal::Platform(WrongFact::Unreadable {
            fact: "zPCI facts of the function",
            errno: Errno::ENODEV,
            returns: Errno::ENODEV,
        })),
        None => Ok(None),
    }
}

impl AnyVariant {
    /// Condition for readiness, in words; `None` if the device is always ready.
    pub fn ready_when(&self) -> Option<impl fmt::Display> {
        match self {
            Self::NvgraceGpu(gpu) => Some(gpu.method()),
            Self::Virtio(_) | Self::Igd(_) | Self::Nvlink2(_) | Self::Ism(_) | Self::Plain(_) => {
                None
            }
        }
    }
}

macro_rules! dispatch {
    ($self:ident, $variant:ident => $call:expr) => {
        match $self {
            Self::NvgraceGpu($variant) => $call,
            Self::Virtio($variant) => $call,
            Self::Igd($variant) => $call,
            Self::Nvlink2($variant) => $call,
            Self::Ism($variant) => $call,
            Self::Plain($variant) => $call,
        }
    };
}

impl Variant for AnyVariant {
    fn outcome(&self) -> Outcome {
        dispatch!(self, v => v.outcome())
    }

    fn region(&self, index: RegionIndex) -> Region<'_> {
        dispatch!(self, v => v.region(index))
    }

    fn config_segment(&self, direction: Direction, offset: u64, len: u64) -> ConfigSegment {
        dispatch!(self, v => v.config_segment(direction, offset, len))
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        dispatch!(self, v => v.config_load(offset, out));
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        dispatch!(self, v => v.config_store(offset, data));
    }

    fn event(&self, event: Event) {
        dispatch!(self, v => v.event(event));
    }

    fn needs_bar(&self, bar: BarIndex) -> bool {
        dispatch!(self, v => v.needs_bar(bar))
    }
}

impl Ready for AnyVariant {
    fn ready_before(&self, wait: &mut Wait, sample: Sample) -> Before {
        dispatch!(self, v => v.ready_before(wait, sample))
    }

    fn ready_after(
        &self,
        wait: &mut Wait,
        generation: Generation,
        values: Values,
        sample: Sample,
    ) -> After {
        dispatch!(self, v => v.ready_after(wait, generation, values, sample))
    }

    fn readiness(&self) -> Option<Status> {
        dispatch!(self, v => v.readiness())
    }
}

/// No variant adds to the device's description: extensions do.
impl Describe for AnyVariant {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn the_ids_of_the_linux_driver_select_nvgrace_gpu() {
        for device in [0x2342, 0x2345, 0x2348, 0x2941, 0x31c2] {
            assert_eq!(
                find(0x10de, device).map(|entry| entry.name),
                Some("nvgrace-gpu")
            );
        }
        assert!(find(0x10de, 0x2330).is_none());
        assert!(find(0x1af4, 0x2342).is_none());
    }

    #[test]
    fn a_modern_network_card_selects_virtio_and_a_transitional_one_nothing() {
        assert_eq!(find(0x1af4, 0x1041).map(|entry| entry.name), Some("virtio"));
        assert!(find(0x1af4, 0x1000).is_none());
        assert!(find(0x1af4, 0x1042).is_none());
    }

    /// Name of the entry and reason for a function, on a platform whose device tree has these
    /// properties in the function's node.
    fn selected(
        vendor: u16,
        device: u16,
        class: u8,
        tree: &[&str],
    ) -> Option<(&'static str, String)> {
        let function = Function {
            vendor,
            device,
            class,
        };
        let answer = |question| match question {
            Question::TreeWord(place)
                if place.node.is_empty() && tree.contains(&place.property) =>
            {
                Ok(7)
            }
            _ => Err(Errno::ENOENT),
        };
        let (entry, reason) = select(function, answer)?;
        Some((entry.name, reason.to_string()))
    }

    #[test]
    fn ids_come_before_facts_of_the_platform_and_these_before_the_class() {
        let npu = "ibm,npu";
        for (vendor, device, class, tree, expected) in [
            (
                0x8086,
                0x3e9b,
                0x03,
                [].as_slice(),
                "igd: vendor 8086 and class 03",
            ),
            (0x8086, 0x3e9b, 0x02, &[], ""),
            (0x1002, 0x3e9b, 0x03, &[], ""),
            (0x10de, 0x2342, 0x03, &[npu], "nvgrace-gpu: ids 10de:2342"),
            (0x1af4, 0x1041, 0x02, &[npu], "virtio: ids 1af4:1041"),
            (0x10de, 0x1db1, 0x03, &[], "nvlink2-gpu: ids 10de:1db1"),
            (
                0x10de,
                0x1eb8,
                0x03,
                &[npu],
                "nvlink2-gpu: vendor 10de and the platform's ibm,npu",
            ),
            (0x10de, 0x1eb8, 0x03, &["ibm,gpu"], ""),
            (0x1014, 0x04ea, 0x06, &[], "nvlink2-bridge: ids 1014:04ea"),
            (
                0x1014,
                0x04eb,
                0x06,
                &["ibm,gpu"],
                "nvlink2-bridge: vendor 1014 and the platform's ibm,gpu",
            ),
            (0x1014, 0x04ed, 0xff, &["ibm,gpu"], "ism: ids 1014:04ed"),
            (0x1014, 0x04eb, 0x06, &[npu], ""),
            (
                0x8086,
                0x3e9b,
                0x03,
                &[npu],
                "igd: vendor 8086 and class 03",
            ),
        ] {
            let found = selected(vendor, device, class, tree);
            let found = found.map(|(name, reason)| std::format!("{name}: {reason}"));
            let found = found.unwrap_or_default();
            assert_eq!(found, expected, "{vendor:x}:{device:x} {class:x} {tree:?}");
        }
        assert!(find(0x8086, 0x3e9b).is_none());
    }

    #[test]
    fn no_device_is_in_two_entries_and_no_entry_asks_too_much() {
        let ids = || TABLE.iter().flat_map(|entry| entry.ids);
        for id in ids() {
            assert_eq!(ids().filter(|other| *other == id).count(), 1, "{id:x?}");
        }
        for entry in TABLE {
            assert!(entry.questions.len() <= varia_variant::probe::MAX_QUESTIONS);
        }
    }
}
