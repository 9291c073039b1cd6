//! GB200: Grace and a Blackwell GPU with 184 GiB of coherent memory, without the MIG bug.

use varia_spec::nvidia::{device_id, dvsec};

use super::gh100::{Chip, Die, at, profile, with};
use super::{Body, Capability, Fact, Profile};

pub(super) fn gb200() -> Profile {
    let chip = Chip {
        name: "gb200",
        alias: None,
        title: "NVIDIA GB200",
        die: Die::Blackwell,
        device_id: device_id::GB200,
        subsystem_id: 0x2046,
        bar2: Fact::sourced(
            256 << 30,
            "messages of the driver's authors: region 2 of a GB200 is 256 GiB",
        ),
        memory: Fact::assumed(
            184 << 30,
            "sold as 186 GB; how many bytes firmware says is not public",
        ),
        serial: 0x48b0_2d00_0000_0201,
    };
    with(profile(chip), registers())
}

/// NVIDIA's register DVSEC, which says that MIG works with cached memory.
pub(super) fn registers() -> Fact<Capability> {
    let body = Body::NvidiaRegisters {
        bitmap: dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM,
    };
    Fact::sourced(
        at(0x300, body),
        "the driver reads it; its offset is assumed",
    )
}
