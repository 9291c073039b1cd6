//! Function of NVIDIA's data-centre GPUs: the GH100 die, as public listings of its PCI Express cards
//! show it.
//!
//! Ids, BARs, the MIG bug and readiness are those of the chip table (`varia_spec::nvidia::chip`).
//! All else is the same for every chip: sourced for Hopper, whose die the listings show, and
//! assumed for a later chip, of which no listing is public.

use varia_core::{BarSpace, BarSpec, HostPhys};
use varia_spec::nvidia::chip::{self, Chip, Family, Readiness, Sku};
use varia_spec::nvidia::{self, dvsec};

use super::{BarModel, Body, Capability, Coherent, Content, Fact, Mark, Profile};

/// `lspci` of an H100 PCIe on bare metal, NVIDIA/nvtrust issue 51.
const H100: &str = "bare-metal lspci of an H100, github.com/NVIDIA/nvtrust issue 51";
/// `lspci` of an H20 in a VM behind vfio-pci, NVIDIA/nvtrust issue 128.
const H20: &str = "lspci of an H20 in a VM, github.com/NVIDIA/nvtrust issue 128";
const MSIX: &str = "count: the H20 listing; offsets: older NVIDIA GPUs";
const BASE: &str = "an address that Grace firmware could choose: above RAM, in 48 bits";
const PXM: &str = "NVIDIA's edk2 for Grace: 16 + 8 * socket, eight each";
const HIDDEN: &str = "a VM sees an empty capability of vfio-pci's here; with 16 lanes this one ends where 0x12c begins";
const LATER: &str = "as on the GH100 die: no public listing of this chip shows it";
const REGISTERS: &str = "the driver reads it; its offset is assumed";
const CXL: &str =
    "the driver reads it where it is; offset, timeout, and that this chip has it are assumed";
const DRIVER: &str = "Linux 7.2 drivers/vfio/pci/nvgrace-gpu/main.c";

/// A product of a chip, with what the chip table does not have.
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) alias: Option<&'static str>,
    pub(super) title: &'static str,
    pub(super) chip: &'static Chip,
    pub(super) sku: Sku,
    pub(super) subsystem_id: u16,
    /// Bytes of coherent memory, for a chip that has some.
    pub(super) memory: Option<Fact<u64>>,
    pub(super) serial: u64,
}

/// Origin of a value that a listing of the GH100 die shows, for another chip as well.
fn mark(chip: &Chip, listing: &'static str) -> Mark {
    if chip.family == Family::Hopper {
        Mark::Sourced(listing)
    } else {
        Mark::Assumed(LATER)
    }
}

/// Profile of a product.
pub(super) fn profile(product: Product) -> Profile {
    let chip = product.chip;
    let h100 = mark(chip, H100);
    Profile {
        name: product.name,
        alias: product.alias,
        title: product.title,
        chip: Some(chip),
        vendor_id: Fact::sourced(nvidia::VENDOR_ID, DRIVER),
        device_id: product.sku.device,
        revision: fact(0xa1, h100),
        class: fact(0x03_02_00, h100),
        subsystem_vendor_id: fact(nvidia::VENDOR_ID, h100),
        subsystem_id: Fact::assumed(
            product.subsystem_id,
            "no public listing of this chip shows it",
        ),
        interrupt_pin: fact(1, h100),
        bars: chip.bars.iter().map(|one| bar(*one)).collect(),
        rom: None,
        capabilities: capabilities(chip, product.serial),
        coherent: product.memory.map(|size| Coherent {
            size,
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

/// The CXL Device DVSEC, with a Memory_Active_Timeout of 4 s.
pub(super) fn cxl() -> Fact<Capability> {
    Fact::assumed(at(0x320, Body::CxlDevice { timeout: 1 }), CXL)
}

/// The die's capabilities, with those by which a driver learns of the MIG bug and of readiness;
/// capabilities that vfio-pci hides from a VM are assumed.
fn capabilities(chip: &Chip, serial: u64) -> Vec<Fact<Capability>> {
    let (h100, h20, msix) = (mark(chip, H100), mark(chip, H20), mark(chip, MSIX));
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
    let registers = Body::NvidiaRegisters {
        bitmap: dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM,
    };
    let mut all = vec![
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
    ];
    if let Some(coherent) = &chip.coherent {
        if coherent.mig_bug.is_some_and(|bug| !bug.value) {
            all.push(Fact::sourced(at(0x300, registers), REGISTERS));
        }
        if coherent.readiness.value == Readiness::Cxl {
            all.push(cxl());
        }
    }
    all
}

fn fact<T>(value: T, mark: Mark) -> Fact<T> {
    Fact { value, mark }
}

fn bar(bar: Fact<chip::Bar>) -> Fact<BarModel> {
    let chip::Bar { index, size } = bar.value;
    let content = match index {
        0 => Content::Registers,
        _ => Content::Memory,
    };
    let spec = BarSpec {
        size,
        space: BarSpace::Memory64,
        prefetchable: true,
    };
    fact(
        BarModel {
            index,
            spec,
            content,
        },
        bar.mark,
    )
}
