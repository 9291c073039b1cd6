//! Intel's UHD Graphics 630, with the OpRegion and the bridges of a made-up desktop machine.
//!
//! BARs and capabilities are at the places that public listings of the chip show; the Express capability
//! is an endpoint's, not one of a root complex. Registers behind BAR0 keep
//! what is written; no image is drawn.

use varia_core::{BarSpace, BarSpec};
use varia_facts::{ConfigDword, HexBytes, Number, PlatformFacts, PlatformMemory, RootFunction};
use varia_spec::intel::{self, class, opregion};

use super::gh100::at;
use super::{BarModel, Body, Content, Fact, Profile};

const IDS: &str = "the PCI ID database, and drivers/gpu/drm/i915 of Linux";
const LISTING: &str = "lspci of desktop machines with this graphics device";
const BOARD: &str = "made up: each board's maker has an id";

/// Address of the OpRegion: below 4 GiB, in memory that firmware reserves.
const OPREGION: u64 = 0x7b00_0000;
/// Offset of the VBT's mailbox in the OpRegion.
const VBT_MAILBOX: usize = 0x400;
/// Bytes of the extended VBT, which follows the mailboxes.
const VBT_LEN: usize = 0x1c00;

pub(super) fn igd() -> Profile {
    let express = Body::Express {
        speed: 3,
        lanes: 16,
        reset: true,
    };
    let message = Body::Message {
        vectors: 1,
        maskable: false,
    };
    let power = Body::Power {
        light_sleep: false,
        soft_reset: false,
    };
    let capabilities = [
        at(0x40, Body::Vendor { len: 0x0c }),
        at(0x70, express),
        at(0xac, message),
        at(0xd0, power),
    ];
    Profile {
        name: "igd",
        alias: None,
        title: "Intel UHD Graphics 630",
        chip: None,
        vendor_id: Fact::sourced(intel::VENDOR_ID, IDS),
        device_id: Fact::sourced(0x3e92, IDS),
        revision: Fact::assumed(0, LISTING),
        class: Fact::assumed(0x03_00_00, LISTING),
        subsystem_vendor_id: Fact::assumed(intel::VENDOR_ID, BOARD),
        subsystem_id: Fact::assumed(0x2212, BOARD),
        interrupt_pin: Fact::assumed(1, LISTING),
        bars: [
            bar(0, 16 << 20, BarSpace::Memory64, false, Content::Registers),
            bar(2, 256 << 20, BarSpace::Memory64, true, Content::Memory),
            bar(4, 64, BarSpace::Io, false, Content::Registers),
        ]
        .map(|bar| Fact::assumed(bar, LISTING))
        .into(),
        rom: None,
        capabilities: capabilities
            .map(|capability| Fact::assumed(capability, LISTING))
            .into(),
        coherent: None,
        platform: Some(platform()),
    }
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

/// An OpRegion of version 2.1 with an extended VBT right behind it, and both bridges.
fn platform() -> PlatformFacts {
    let asls = ConfigDword {
        offset: Number(intel::ASLS.into()),
        value: Number(OPREGION),
    };
    let bytes = opregion();
    let memory = PlatformMemory {
        base: Number(OPREGION),
        size: Number(bytes.len() as u64),
        bytes: HexBytes(bytes),
    };
    PlatformFacts {
        memory: vec![memory],
        root_functions: vec![
            bridge(0, 0x3ec2, class::HOST_BRIDGE, 4096),
            bridge(0x1f, 0xa304, class::LPC_BRIDGE, 256),
        ],
        config: vec![asls],
        ..PlatformFacts::new()
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (slot, byte) in bytes.iter_mut().skip(at).zip(value) {
        *slot = *byte;
    }
}

/// Header, mailboxes and extended VBT, each byte of which tells where it is.
fn opregion() -> Vec<u8> {
    let mailboxes = opregion::LEN as usize;
    let mut bytes: Vec<u8> = (0..mailboxes + VBT_LEN)
        .map(|at| (at >> 8) as u8 ^ at as u8)
        .collect();
    for (index, word) in opregion::SIGNATURE.iter().enumerate() {
        put(&mut bytes, 8 * index, &word.to_le_bytes());
    }
    put(&mut bytes, opregion::SIZE.into(), &8_u32.to_le_bytes());
    let version = opregion::VERSION_2_1;
    put(&mut bytes, opregion::VERSION.into(), &version.to_le_bytes());
    put(&mut bytes, VBT_MAILBOX, b"$VBT UHD 630");
    put(
        &mut bytes,
        opregion::RVDA.into(),
        &opregion::LEN.to_le_bytes(),
    );
    let len = VBT_LEN as u32;
    put(&mut bytes, opregion::RVDS.into(), &len.to_le_bytes());
    put(&mut bytes, mailboxes, b"$VBT UHD 630");
    bytes
}

fn bridge(device: u64, id: u16, class: u32, size: u64) -> RootFunction {
    let mut bytes = vec![0; 64];
    put(&mut bytes, 0, &intel::VENDOR_ID.to_le_bytes());
    put(&mut bytes, 2, &id.to_le_bytes());
    put(&mut bytes, 8, &(class << 8 | 0x10).to_le_bytes());
    put(&mut bytes, 0x2c, &intel::VENDOR_ID.to_le_bytes());
    put(&mut bytes, 0x2e, &0x7270_u16.to_le_bytes());
    RootFunction {
        device: Number(device),
        function: Number(0),
        size: Number(size),
        bytes: HexBytes(bytes),
    }
}
