//! GB300: Grace and a Blackwell Ultra GPU with 278 GiB of coherent memory; and the same function
//! with the CXL Device DVSEC, by which the driver's newer readiness method goes. Which chip shows
//! that DVSEC is not public: the driver looks for it on every one.

use varia_spec::nvidia::device_id;

use super::gb200::registers;
use super::gh100::{Chip, Die, at, profile, with};
use super::{Body, Fact, Profile};

pub(super) fn gb300() -> Profile {
    with(profile(chip()), registers())
}

pub(super) fn gb300_cxl() -> Profile {
    let cxl = Profile {
        name: "gb300-cxl",
        alias: Some("cxl"),
        title: "NVIDIA GB300 with CXL readiness",
        ..gb300()
    };
    with(
        cxl,
        Fact::assumed(
            at(0x320, Body::CxlDevice { timeout: 1 }),
            "the driver reads it where it is; offset, timeout, and that this chip has it are assumed",
        ),
    )
}

fn chip() -> Chip {
    Chip {
        name: "gb300",
        alias: None,
        title: "NVIDIA GB300",
        die: Die::Blackwell,
        device_id: device_id::GB300,
        subsystem_id: 0x2047,
        bar2: Fact::assumed(
            512 << 30,
            "the power of two that holds the memory, as on a GB200",
        ),
        memory: Fact::assumed(
            278 << 30,
            "sold as 279 GB; how many bytes firmware says is not public",
        ),
        serial: 0x48b0_2d00_0000_0300,
    }
}
