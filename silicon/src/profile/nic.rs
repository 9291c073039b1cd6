//! A fictitious plain network card: what a PCI core has to handle and a GPU doesn't have.
//! I/O and 32-bit BARs, a ROM, vital product data, D1 and D2, a reset on the way from D3hot, a
//! function-level reset by the advanced features capability alone, MSI without masks, an MSI-X
//! table in a BAR that can be mapped.
//!
//! It sends and receives nothing. Its ids are QEMU's for things that have no others, so that no
//! driver takes it for its own.

use varia_core::{BarSpace, BarSpec};

use super::gh100::at;
use super::{BarModel, Body, Capability, Content, Fact, Profile};

const MADE_UP: &str = "made up: no such card is made";
/// Free in QEMU's part of the vendor's ids.
const IDS: &str = "made up: QEMU's vendor id, and a device id that no driver takes";

pub(super) fn nic() -> Profile {
    Profile {
        name: "nic",
        alias: None,
        title: "network card of no maker",
        chip: None,
        vendor_id: Fact::assumed(0x1234, IDS),
        device_id: Fact::assumed(0x0e1c, IDS),
        revision: Fact::assumed(3, MADE_UP),
        class: Fact::assumed(0x02_00_00, MADE_UP),
        subsystem_vendor_id: Fact::assumed(0x1234, IDS),
        subsystem_id: Fact::assumed(0x0001, IDS),
        interrupt_pin: Fact::assumed(1, MADE_UP),
        bars: [
            bar(0, 128 << 10, BarSpace::Memory32, false, Content::Registers),
            bar(1, 64 << 10, BarSpace::Memory32, true, Content::Memory),
            bar(2, 32, BarSpace::Io, false, Content::Registers),
            bar(3, 16 << 10, BarSpace::Memory32, false, Content::Memory),
            bar(4, 1 << 20, BarSpace::Memory64, true, Content::Memory),
        ]
        .map(|bar| Fact::assumed(bar, MADE_UP))
        .into(),
        rom: Some(Fact::assumed(64 << 10, MADE_UP)),
        capabilities: capabilities()
            .map(|capability| Fact::assumed(capability, MADE_UP))
            .into(),
        coherent: None,
        platform: None,
    }
}

fn capabilities() -> [Capability; 15] {
    let power = Body::Power {
        light_sleep: true,
        soft_reset: true,
    };
    let message = Body::Message {
        vectors: 4,
        maskable: false,
    };
    let message_x = Body::MessageX {
        vectors: 5,
        bar: 3,
        table: 0x1000,
        pending: 0x2000,
    };
    let express = Body::Express {
        speed: 1,
        lanes: 1,
        reset: false,
    };
    let vendor = Body::ExtVendor {
        id: 2,
        revision: 1,
        len: 0x18,
    };
    [
        at(0x40, power),
        at(0x48, Body::Vpd),
        at(0x50, message),
        at(0x60, express),
        at(0xa0, message_x),
        at(0xac, Body::Advanced),
        at(0xb4, Body::Vendor { len: 0x10 }),
        at(0x100, Body::Errors),
        at(0x148, Body::Serial(0x5254_00ff_fe12_3456)),
        at(0x158, Body::RoutingId),
        at(0x160, Body::Translation),
        at(0x168, Body::VirtualChannel),
        at(0x190, Body::SecondaryExpress { lanes: 1 }),
        at(0x1a0, Body::Latency),
        at(0x1b0, vendor),
    ]
}

fn bar(index: u8, size: u64, space: BarSpace, prefetchable: bool, content: Content) -> BarModel {
    BarModel {
        index,
        spec: BarSpec {
            size,
            space,
            prefetchable,
        },
        content,
    }
}
