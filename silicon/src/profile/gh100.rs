//! What Grace Hopper and Grace Blackwell have in common: the function of the GH100 die, as public
//! listings of its PCI Express cards show it.
//!
//! GH200 is that die. Of Blackwell no listing is public; that it looks the same is assumed, and a
//! caller says so by the marks that it passes.

use varia_core::{BarSpace, BarSpec, HostPhys};
use varia_spec::nvidia;

use super::{Bar, Body, Capability, Coherent, Content, Fact, Mark, Profile};

/// `lspci` of an H100 PCIe on bare metal, NVIDIA/nvtrust issue 51.
const H100: &str = "bare-metal lspci of an H100, github.com/NVIDIA/nvtrust issue 51";
/// `lspci` of an H20 in a VM behind vfio-pci, NVIDIA/nvtrust issue 128.
const H20: &str = "lspci of an H20 in a VM, github.com/NVIDIA/nvtrust issue 128";
const MSIX: &str = "count: the H20 listing; offsets: older NVIDIA GPUs";
const BASE: &str = "an address that Grace firmware could choose: above RAM, in 48 bits";
const PXM: &str = "NVIDIA's edk2 for Grace: 16 + 8 * socket, eight each";
const HIDDEN: &str = "a VM sees an empty capability of vfio-pci's here; with 16 lanes this one ends where 0x12c begins";
const BLACKWELL: &str = "as on the GH100 die: no public listing of Grace Blackwell shows it";

/// The driver.
const DRIVER: &str = "Linux 7.2 drivers/vfio/pci/nvgrace-gpu/main.c";

/// Which die a listing is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Die {
    /// The one that the listings show.
    Gh100,
    /// A later one, assumed to look like it.
    Blackwell,
}

/// What tells one chip of the family from another.
pub(super) struct Chip {
    pub(super) name: &'static str,
    pub(super) alias: Option<&'static str>,
    pub(super) title: &'static str,
    pub(super) die: Die,
    pub(super) device_id: u16,
    pub(super) subsystem_id: u16,
    /// Region 2 of the physical function.
    pub(super) bar2: Fact<u64>,
    pub(super) memory: Fact<u64>,
    pub(super) serial: u64,
}

impl Die {
    fn mark(self, listing: &'static str) -> Mark {
        match self {
            Self::Gh100 => Mark::Sourced(listing),
            Self::Blackwell => Mark::Assumed(BLACKWELL),
        }
    }
}

/// A chip of the family, without what its own generation adds.
pub(super) fn profile(chip: Chip) -> Profile {
    let die = chip.die;
    let h100 = die.mark(H100);
    Profile {
        name: chip.name,
        alias: chip.alias,
        title: chip.title,
        vendor_id: Fact::sourced(nvidia::VENDOR_ID, DRIVER),
        device_id: Fact::sourced(chip.device_id, DRIVER),
        revision: fact(0xa1, h100),
        class: fact(0x03_02_00, h100),
        subsystem_vendor_id: fact(nvidia::VENDOR_ID, h100),
        subsystem_id: Fact::assumed(chip.subsystem_id, "no public listing of this chip shows it"),
        interrupt_pin: fact(1, h100),
        bars: vec![
            fact(bar(0, 16 << 20, Content::Registers), h100),
            Fact {
                value: bar(2, chip.bar2.value, Content::Memory),
                mark: chip.bar2.mark,
            },
            fact(bar(4, 32 << 20, Content::Memory), h100),
        ],
        rom: None,
        capabilities: capabilities(die, chip.serial),
        coherent: Some(Coherent {
            size: chip.memory,
            base: Fact::assumed(HostPhys(0x4200_0000_0000), BASE),
            pxm_start: Fact::sourced(16, PXM),
            pxm_count: Fact::sourced(8, PXM),
        }),
    }
}

/// Adds a capability behind the others.
pub(super) fn with(mut profile: Profile, capability: Fact<Capability>) -> Profile {
    profile.capabilities.push(capability);
    profile
}

pub(super) fn at(offset: u16, body: Body) -> Capability {
    Capability { offset, body }
}

/// The die's capabilities; what vfio-pci keeps from a VM is assumed.
fn capabilities(die: Die, serial: u64) -> Vec<Fact<Capability>> {
    let (h100, h20, msix) = (die.mark(H100), die.mark(H20), die.mark(MSIX));
    let power = Body::Power {
        light_sleep: false,
        soft_reset: false,
    };
    let message = Body::Message {
        vectors: 16,
        maskable: true,
    };
    let express = Body::Express {
        speed: 5,
        lanes: 16,
        reset: true,
    };
    let message_x = Body::MessageX {
        vectors: 9,
        bar: 0,
        table: 0xb9_0000,
        pending: 0xba_0000,
    };
    let vendor = Body::ExtVendor {
        id: 1,
        revision: 1,
        len: 0x14,
    };
    vec![
        fact(at(0x40, power), h100),
        fact(at(0x48, message), h100),
        fact(at(0x60, express), h100),
        fact(at(0x9c, Body::Vendor { len: 0x14 }), h20),
        fact(at(0xb0, message_x), msix),
        Fact::assumed(at(0x100, Body::SecondaryExpress { lanes: 16 }), HIDDEN),
        fact(at(0x12c, Body::Latency), h20),
        fact(at(0x134, Body::ResizableBar { bar: 2 }), h20),
        fact(at(0x1b8, Body::Errors), h20),
        fact(at(0x2a4, vendor), h20),
        fact(at(0x2b8, Body::PowerBudget), h20),
        fact(at(0x2f0, Body::Serial(serial)), h20),
    ]
}

fn fact<T>(value: T, mark: Mark) -> Fact<T> {
    Fact { value, mark }
}

fn bar(index: u8, size: u64, content: Content) -> Bar {
    let spec = BarSpec {
        size,
        space: BarSpace::Memory64,
        prefetchable: true,
    };
    Bar {
        index,
        spec,
        content,
    }
}

/// Where the listing of region 2 comes from on the die itself.
pub(super) fn bar2_of_h100() -> Fact<u64> {
    Fact::sourced(128 << 30, H100)
}
