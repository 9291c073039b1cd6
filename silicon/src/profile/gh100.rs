//! Function of NVIDIA's data-centre GPUs: the GH100 die, as public listings of its PCI Express cards
//! show it.
//!
//! Ids, BARs, the MIG bug and readiness are those of the chip table (`varia_spec::nvidia::chip`).
//! All else is that of the GH100 die, and assumed for every chip: no listing of a GPU with coherent
//! memory is public.

use varia_core::{BarSpace, BarSpec, HostPhys};
use varia_spec::nvidia::chip::{self, AS_GH100, AS_H100, Chip, Family, Readiness, Sku};
use varia_spec::nvidia::{self, dvsec};

use super::{BarModel, Body, Capability, Coherent, Content, Fact, Mark, Profile};

/// `lspci` of an H20 in a VM behind vfio-pci.
const H20: &str =
    "as on the GH100 die: lspci of an H20 in a VM, github.com/NVIDIA/nvtrust issue 128";
const MSIX: &str =
    "as on the GH100 die: the count of the H20 listing, the offsets of older NVIDIA GPUs";
const BASE: &str = "an address that Grace firmware could choose: above RAM, in 48 bits";
const PXM: &str = "NVIDIA's edk2 for Grace: 16 + 8 * socket, eight each";
const AS_GRACE: &str = "as on Grace: no firmware of this chip's CPU is public";
const HIDDEN: &str = "a VM sees an empty capability of vfio-pci's here; with 16 lanes this one ends where 0x12c begins";
const CXL: &str =
    "the driver reads it where it is; offset, timeout, and that this chip has it are assumed";

/// A product of a chip, with what the chip table does not have.
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) alias: Option<&'static str>,
    pub(super) title: &'static str,
    pub(super) model: Model,
    pub(super) subsystem_id: u16,
    /// Bytes of coherent memory.
    pub(super) memory: Fact<u64>,
    pub(super) serial: u64,
}

/// Facts of the chip table that a profile needs.
pub(super) struct Model {
    chip: &'static Chip,
    sku: Sku,
    mig_bug: Fact<bool>,
    readiness: Fact<Readiness>,
}

impl Model {
    /// Facts of the product of `chip` with this PCI device id.
    ///
    /// For constants alone: an id that the chip does not have, and a fact that the table does not
    /// state, is an error of the build, so that no default stands in for it.
    pub(super) const fn of(chip: &'static Chip, device: u16) -> Self {
        let sku = chip.sku(device).expect("the chip has the device id");
        let coherent = chip.coherent.expect("the chip has coherent memory");
        let mig_bug = coherent.mig_bug.expect("the table states the MIG bug");
        Self {
            chip,
            sku,
            mig_bug,
            readiness: coherent.readiness,
        }
    }

    /// Origin of a value that a listing of the GH100 die shows.
    fn mark(&self, listing: &'static str) -> Mark {
        Mark::Assumed(match self.chip.family {
            Family::Hopper => listing,
            Family::Blackwell | Family::Rubin => AS_GH100,
        })
    }
}

/// Profile of a product.
pub(super) fn profile(product: Product) -> Profile {
    let Model { chip, sku, .. } = product.model;
    let h100 = product.model.mark(AS_H100);
    let pxm = match chip.family {
        Family::Hopper | Family::Blackwell => Mark::Sourced(PXM),
        Family::Rubin => Mark::Assumed(AS_GRACE),
    };
    Profile {
        name: product.name,
        alias: product.alias,
        title: product.title,
        chip: Some(chip),
        vendor_id: fact(nvidia::VENDOR_ID, sku.device.mark),
        device_id: sku.device,
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
        capabilities: capabilities(&product.model, product.serial),
        coherent: Some(Coherent {
            size: product.memory,
            base: Fact::assumed(HostPhys(0x4200_0000_0000), BASE),
            pxm_start: fact(16, pxm),
            pxm_count: fact(8, pxm),
        }),
        platform: None,
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
fn capabilities(model: &Model, serial: u64) -> Vec<Fact<Capability>> {
    let [h100, h20, msix] = [AS_H100, H20, MSIX].map(|listing| model.mark(listing));
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
    if !model.mig_bug.value {
        // the origin is that of the bug's absence, which this DVSEC states; the offset is assumed
        all.push(fact(at(0x300, registers), model.mig_bug.mark));
    }
    if model.readiness.value == Readiness::Cxl {
        all.push(cxl());
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
