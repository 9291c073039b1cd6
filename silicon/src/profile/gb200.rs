//! GB200: Grace and a Blackwell GPU with 184 GiB of coherent memory, without the MIG bug.

use varia_core::HostPhys;
use varia_spec::nvidia::{device_id, dvsec};

use super::gh200::{BASE, DRIVER, HIDDEN, MESSAGE_X, PXM, at, bar};
use super::{Body, Capability, Content, Fact, Profile};

const LIKE_GH100: &str = "as on the GH100 die: no public listing of a GB200 shows it";

pub(super) static PROFILE: Profile = Profile {
    name: "gb200",
    title: "NVIDIA GB200",
    device_id: Fact::sourced(device_id::GB200, DRIVER),
    revision: Fact::assumed(0xa1, LIKE_GH100),
    class: Fact::assumed(0x03_02_00, LIKE_GH100),
    subsystem_id: Fact::assumed(0x2046, "no public listing of a GB200 shows it"),
    interrupt_pin: Fact::assumed(1, LIKE_GH100),
    bars: &[
        Fact::assumed(bar(0, 16 << 20, Content::Registers), LIKE_GH100),
        Fact::sourced(
            bar(2, 256 << 30, Content::Memory),
            "messages of the driver's authors: region 2 of a GB200 is 256 GiB",
        ),
        Fact::assumed(bar(4, 32 << 20, Content::Memory), LIKE_GH100),
    ],
    capabilities: &CAPABILITIES,
    memory: Fact::assumed(
        184 << 30,
        "sold as 186 GB; how many bytes firmware says is not public",
    ),
    memory_base: Fact::assumed(HostPhys(0x4200_0000_0000), BASE),
    pxm_start: Fact::sourced(16, PXM),
    pxm_count: Fact::sourced(8, PXM),
};

static CAPABILITIES: [Fact<Capability>; 13] = [
    Fact::assumed(at(0x40, Body::Power), LIKE_GH100),
    Fact::assumed(at(0x48, Body::Message { vectors: 16 }), LIKE_GH100),
    Fact::assumed(
        at(
            0x60,
            Body::Express {
                speed: 5,
                lanes: 16,
            },
        ),
        LIKE_GH100,
    ),
    Fact::assumed(at(0x9c, Body::Vendor { len: 0x14 }), LIKE_GH100),
    Fact::assumed(at(0xb0, MESSAGE_X), LIKE_GH100),
    Fact::assumed(at(0x100, Body::SecondaryExpress { lanes: 16 }), HIDDEN),
    Fact::assumed(at(0x12c, Body::Latency), LIKE_GH100),
    Fact::assumed(at(0x134, Body::ResizableBar { bar: 2 }), LIKE_GH100),
    Fact::assumed(at(0x1b8, Body::Errors), LIKE_GH100),
    Fact::assumed(
        at(
            0x2a4,
            Body::ExtVendor {
                id: 1,
                revision: 1,
                len: 0x14,
            },
        ),
        LIKE_GH100,
    ),
    Fact::assumed(at(0x2b8, Body::PowerBudget), LIKE_GH100),
    Fact::assumed(at(0x2f0, Body::Serial(0x48b0_2d00_0000_0201)), LIKE_GH100),
    Fact::sourced(
        at(0x300, REGISTERS),
        "the driver reads it; its offset is assumed",
    ),
];

const REGISTERS: Body = Body::NvidiaRegisters {
    bitmap: dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM,
};
