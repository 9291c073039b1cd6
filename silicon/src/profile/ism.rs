//! Internal shared memory of s390, with facts of a made-up machine. BAR0 has 256 TiB, of which only
//! the bytes that are written take memory.
//!
//! The messages that the device makes of stores are not modelled: its registers keep what is
//! written.

use varia_core::{BarSpace, BarSpec};
use varia_facts::{HexBytes, Number, PlatformFacts, ZpciFacts};
use varia_spec::zpci;

use super::gh100::at;
use super::{BarModel, Body, Content, Fact, Profile};

const DRIVER: &str = "Linux drivers/s390/net/ism_drv.c";
const MADE_UP: &str = "made up: no listing was looked at";

pub(super) fn ism() -> Profile {
    let (vendor, device) = zpci::ISM_ID;
    let capabilities = [
        at(
            0x40,
            Body::Power {
                light_sleep: false,
                soft_reset: false,
            },
        ),
        at(
            0x48,
            Body::Express {
                speed: 3,
                lanes: 16,
                reset: true,
            },
        ),
        at(
            0x88,
            Body::Message {
                vectors: 1,
                maskable: true,
            },
        ),
    ];
    Profile {
        name: "ism",
        alias: None,
        title: "internal shared memory of s390",
        chip: None,
        vendor_id: Fact::sourced(vendor, DRIVER),
        device_id: Fact::sourced(device, DRIVER),
        revision: Fact::assumed(0, MADE_UP),
        class: Fact::assumed(0xff_ff_ff, MADE_UP),
        subsystem_vendor_id: Fact::assumed(vendor, MADE_UP),
        subsystem_id: Fact::assumed(device, MADE_UP),
        interrupt_pin: Fact::assumed(0, MADE_UP),
        bars: vec![
            Fact::assumed(bar(0, 1 << 48), "the driver writes at offsets of 48 bits"),
            Fact::assumed(bar(2, 64 << 10), "the driver maps its control registers"),
        ],
        rom: None,
        capabilities: capabilities
            .map(|capability| Fact::assumed(capability, MADE_UP))
            .into(),
        coherent: None,
        platform: Some(PlatformFacts {
            zpci: Some(facts()),
            ..PlatformFacts::new()
        }),
    }
}

fn bar(index: u8, size: u64) -> BarModel {
    BarModel {
        index,
        spec: BarSpec {
            size,
            space: BarSpace::Memory64,
            prefetchable: false,
        },
        content: Content::Registers,
    }
}

fn facts() -> ZpciFacts {
    // "ISM" in EBCDIC, filled up with spaces
    let mut string = vec![0xc9, 0xe2, 0xd4];
    string.resize(zpci::UTIL_LEN, 0x40);
    ZpciFacts {
        start_dma: Number(1 << 32),
        end_dma: Number((1 << 48) - 1),
        pchid: Number(0x7c0),
        vfn: Number(1),
        fmb_length: Number(0),
        pft: Number(5),
        gid: Number(0x10),
        fh: Number(0x8000_0010),
        dasm: Number(0),
        msi_addr: Number(0xfee0_0000),
        mui: Number(0),
        noi: Number(2),
        maxstbl: Number(128),
        imaxstbl: Number(4096),
        version: Number(1),
        pfip: [0, 0, 7, 0xc0],
        util_string: Some(HexBytes(string)),
        ccdf_err_length: None,
        errors: Vec::new(),
    }
}
