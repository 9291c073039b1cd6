//! A virtio network card whose owner has the legacy commands: a modern virtual function without a
//! BAR0, as the kernel's virtio variant driver wants it.
//!
//! The other end of the card's wire is in [`crate::virtio::echo`].

use varia_core::{BarSpace, BarSpec};
use varia_spec::virtio::{ID_NET, VENDOR_ID, cap, device_id};

use super::gh100::at;
use super::{BarModel, Body, Capability, Content, Fact, Profile};
use crate::virtio::{COMMON_AT, DEVICE_AT, ISR_AT, NOTIFY_AT, VECTORS};

const VIRTIO: &str = "VIRTIO 1.3, sections 4.1 and 5.1";
const CHOSEN: &str = "the specification leaves it open";

/// The BAR of the modern interface.
const INTERFACE: u8 = 4;
/// The BAR of the MSI-X table.
const VECTOR_TABLE: u8 = 2;

pub(super) fn virtio_net() -> Profile {
    Profile {
        name: "virtio-net",
        alias: None,
        title: "virtio network card with legacy commands",
        chip: None,
        vendor_id: Fact::sourced(VENDOR_ID, VIRTIO),
        device_id: Fact::sourced(device_id::MODERN_NET, VIRTIO),
        revision: Fact::sourced(1, VIRTIO),
        class: Fact::sourced(0x02_00_00, VIRTIO),
        subsystem_vendor_id: Fact::assumed(VENDOR_ID, CHOSEN),
        subsystem_id: Fact::assumed(0x1100 + ID_NET, CHOSEN),
        interrupt_pin: Fact::assumed(1, CHOSEN),
        bars: vec![
            Fact::assumed(bar(VECTOR_TABLE, 4 << 10, Content::Registers), CHOSEN),
            Fact::assumed(bar(INTERFACE, 16 << 10, Content::NetworkCard), CHOSEN),
        ],
        rom: None,
        capabilities: capabilities()
            .map(|capability| Fact::assumed(capability, CHOSEN))
            .into(),
        coherent: None,
        platform: None,
    }
}

fn bar(index: u8, size: u64, content: Content) -> BarModel {
    let (space, prefetchable) = (BarSpace::Memory64, false);
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

fn capabilities() -> [Capability; 7] {
    let power = Body::Power {
        light_sleep: false,
        soft_reset: false,
    };
    let express = Body::Express {
        speed: 1,
        lanes: 1,
        reset: true,
    };
    let message_x = Body::MessageX {
        vectors: VECTORS,
        bar: VECTOR_TABLE,
        table: 0,
        pending: 0x800,
    };
    let structure = |cfg_type, (offset, len): (u64, u64)| Body::Virtio {
        cfg_type,
        bar: INTERFACE,
        offset: offset as u32,
        len: len as u32,
    };
    [
        at(0x40, power),
        at(0x48, express),
        at(0x84, message_x),
        at(0x90, structure(cap::COMMON_CFG, COMMON_AT)),
        at(0xa0, structure(cap::ISR_CFG, ISR_AT)),
        at(0xb0, structure(cap::DEVICE_CFG, DEVICE_AT)),
        at(0xc0, structure(cap::NOTIFY_CFG, NOTIFY_AT)),
    ]
}
