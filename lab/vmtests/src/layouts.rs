//! The layouts of coherent memory that the differential test compares drivers on.
//!
//! Each is a device of one machine, so that a boot serves all of them.

use varia_differential::{MemoryShape, Shape};
use varia_lab::{Arch, Flavour};
use varia_silicon::profile::{self, Content, Profile};
use varia_silicon::{Faults, Options};

use crate::host::Memory;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;

/// A device and what is to be seen of it.
#[derive(Debug)]
pub struct Layout {
    /// Property that no other layout has.
    pub name: &'static str,
    /// The chip.
    pub profile: Profile,
    /// Shape of the device, for the generator.
    pub options: Options,
    /// Memory behind the coherent addresses.
    pub memory: Memory,
    /// Layouts of one lane share memory and are used one after the other.
    pub lane: usize,
    /// Outcome of a driver's probe.
    pub shape: Shape,
}

/// The layouts for a machine with this kernel. One, the last, is declined by the variant.
///
/// # Panics
/// If the catalogue lacks a profile.
#[must_use]
pub fn all(flavour: Flavour) -> Vec<Layout> {
    let (arch, page) = (flavour.arch(), flavour.page_size());
    let gh200 = find("gh200", arch);
    let gb200 = find("gb200", arch);
    let within = |shift| Memory::Within { gpu: 0, shift };
    let tail = 12 * KIB;
    let half = GIB / 2;
    let made = [
        // usemem 512 MiB of 1 GiB, resmem 1 GiB and 12 KiB of 2 GiB: both have padding.
        Made {
            name: "padded",
            profile: &gh200,
            size: GIB + half + tail,
            uncounted: 0,
            memory: Memory::Real,
            lane: 0,
            usemem: (half, GIB),
            resmem: Some((GIB + tail, 2 * GIB)),
        },
        Made {
            name: "exact",
            profile: &gh200,
            size: GIB + half,
            uncounted: 0,
            memory: within(0),
            lane: 0,
            usemem: (half, half),
            resmem: Some((GIB, GIB)),
        },
        // On a page, and on no boundary of 64 KiB or of a larger page-table entry.
        Made {
            name: "misaligned",
            profile: &gh200,
            size: GIB + half + 20 * KIB,
            uncounted: 0,
            memory: within(page),
            lane: 0,
            usemem: (half, GIB),
            resmem: Some((GIB + 20 * KIB, 2 * GIB)),
        },
        // Not a whole number of pages, nor of words.
        Made {
            name: "odd tail",
            profile: &gh200,
            size: GIB + half + 16 * KIB,
            uncounted: 0x7fd,
            memory: within(0),
            lane: 0,
            usemem: (half, GIB),
            resmem: Some((GIB + 16 * KIB - 0x7fd, 2 * GIB)),
        },
        Made {
            name: "without the bug",
            profile: &gb200,
            size: 48 * MIB + 28 * KIB,
            uncounted: 0,
            memory: Memory::Real,
            lane: 1,
            usemem: (48 * MIB + 28 * KIB, 64 * MIB),
            resmem: None,
        },
        // Not less than a page: the original's range of pages would be empty, and it would open no
        // other device afterwards.
        Made {
            name: "tiny",
            profile: &gb200,
            size: 3 * page,
            uncounted: page / 2,
            memory: Memory::Real,
            lane: 2,
            usemem: (page * 5 / 2, 4 * page),
            resmem: None,
        },
        Made {
            name: "cxl",
            profile: &find("cxl", arch),
            size: 32 * MIB,
            uncounted: 0,
            memory: Memory::Real,
            lane: 3,
            usemem: (32 * MIB, 32 * MIB),
            resmem: None,
        },
    ];
    let mut layouts: Vec<_> = made.iter().map(|made| made.layout(page)).collect();
    layouts.push(declined(&gh200, page));
    layouts
}

/// Differences between the layouts; pairs are bytes of memory and of the BAR.
struct Made<'a> {
    name: &'static str,
    profile: &'a Profile,
    size: u64,
    uncounted: u64,
    memory: Memory,
    lane: usize,
    usemem: (u64, u64),
    resmem: Option<(u64, u64)>,
}

impl Made<'_> {
    fn layout(&self, page: u64) -> Layout {
        let shape = |(length, size)| MemoryShape { length, size };
        Layout {
            name: self.name,
            profile: self.profile.clone(),
            options: Options {
                memory: Some(self.size),
                uncounted: self.uncounted,
                ..Options::default()
            },
            memory: self.memory,
            lane: self.lane,
            shape: Shape {
                usemem: Some(shape(self.usemem)),
                resmem: self.resmem.map(shape),
                bars: bars(self.profile),
                page,
            },
        }
    }
}

/// Firmware says nothing of the memory.
fn declined(profile: &Profile, page: u64) -> Layout {
    let faults = Faults {
        no_properties: true,
        ..Faults::default()
    };
    Layout {
        name: "declined",
        profile: profile.clone(),
        options: Options {
            memory: Some(64 * MIB),
            faults,
            ..Options::default()
        },
        memory: Memory::Absent,
        lane: 4,
        shape: Shape {
            usemem: None,
            resmem: None,
            bars: bars(profile),
            page,
        },
    }
}

fn bars(profile: &Profile) -> [u64; 6] {
    let size = |index| profile.bar(index).map_or(0, |bar| bar.spec.size);
    [0, 1, 2, 3, 4, 5].map(size)
}

/// A profile of the catalogue. An x86 machine under software emulation has an address space of
/// 1 TiB, where eight GPUs do not fit: there, BAR 2 is smaller.
fn find(name: &str, arch: Arch) -> Profile {
    let mut profile = profile::find(name)
        .expect("a profile of the catalogue")
        .clone();
    for bar in &mut profile.bars {
        let bar = &mut bar.value;
        if arch == Arch::X86_64 && bar.content == Content::Memory {
            bar.spec.size = bar.spec.size.min(GIB);
        }
    }
    profile
}
