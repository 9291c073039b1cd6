//! Table that selects a variant, and the enum that dispatches to it.

use core::fmt;

use varia_spec::{Errno, intel, nvidia, vfio::RegionIndex, virtio, zpci};
use varia_variant::{
    After, Answers, BarIndex, Before, ConfigSegment, Describe, Direction, Environment, Event,
    Extended, Generation, Outcome, Probe, Question, Ready, Refusal, Region, Sample, Variant, Wait,
    WrongFact,
    ready::{Status, Values},
};

use crate::{Igd, NvgraceGpu, Plain, Virtio, Zdev, igd};

/// A variant that can be chosen.
#[derive(Debug)]
pub struct Entry {
    /// The variant's name.
    pub name: &'static str,
    /// Vendor and device ids.
    pub ids: &'static [(u16, u16)],
    /// Vendor, and class byte of a device that no other entry's ids select.
    pub class: Option<(u16, u8)>,
    /// Questions to answer before [`Entry::probe`].
    pub questions: &'static [Question],
    /// Builds the variant; see [`Probe::probe`].
    pub probe: fn(&Answers, Environment) -> AnyVariant,
}

/// The entry of [`NvgraceGpu`].
pub static NVGRACE_GPU: Entry = Entry {
    name: "nvgrace-gpu",
    ids: &nvidia::chip::COHERENT_IDS,
    class: None,
    questions: NvgraceGpu::QUESTIONS,
    probe: |answers, environment| AnyVariant::NvgraceGpu(NvgraceGpu::probe(answers, environment)),
};

/// The entry of [`Virtio`].
pub static VIRTIO: Entry = Entry {
    name: "virtio",
    ids: &[(virtio::VENDOR_ID, virtio::device_id::MODERN_NET)],
    class: None,
    questions: Virtio::QUESTIONS,
    probe: |answers, environment| AnyVariant::Virtio(Virtio::probe(answers, environment)),
};

/// The entry of [`Igd`].
pub static IGD: Entry = Entry {
    name: "igd",
    ids: &[],
    class: Some((intel::VENDOR_ID, igd::BASE_CLASS)),
    questions: Igd::QUESTIONS,
    probe: |answers, environment| AnyVariant::Igd(Igd::probe(answers, environment)),
};

/// All variants.
pub static TABLE: &[&Entry] = &[&NVGRACE_GPU, &VIRTIO, &IGD];

/// The entry that serves a device, by vendor and device id.
pub fn find(vendor: u16, device: u16) -> Option<&'static Entry> {
    TABLE
        .iter()
        .copied()
        .find(|entry| entry.ids.contains(&(vendor, device)))
}

/// The entry that serves a device: by its ids, else by its vendor and class byte.
pub fn find_with_class(vendor: u16, device: u16, class: u8) -> Option<&'static Entry> {
    let mut entries = TABLE.iter().copied();
    find(vendor, device).or_else(|| entries.find(|entry| entry.class == Some((vendor, class))))
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
    /// A device without a variant of its own.
    Plain(Plain),
}

/// A variant, and the extensions over it.
pub type Chosen = Extended<AnyVariant, Option<Zdev>>;

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
            Self::Virtio(_) | Self::Igd(_) | Self::Plain(_) => None,
        }
    }
}

macro_rules! dispatch {
    ($self:ident, $variant:ident => $call:expr) => {
        match $self {
            Self::NvgraceGpu($variant) => $call,
            Self::Virtio($variant) => $call,
            Self::Igd($variant) => $call,
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

/// No variant adds to the device's description.
impl Describe for AnyVariant {}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_display_controller_of_intel_selects_igd_and_no_other_device_does() {
        let name =
            |vendor, device, class| find_with_class(vendor, device, class).map(|entry| entry.name);
        assert_eq!(name(0x8086, 0x3e9b, 0x03), Some("igd"));
        assert_eq!(name(0x8086, 0x3e9b, 0x02), None);
        assert_eq!(name(0x1002, 0x3e9b, 0x03), None);
        assert_eq!(name(0x10de, 0x2342, 0x03), Some("nvgrace-gpu"));
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
