//! GH200: Grace and a Hopper GPU with 96 GiB of coherent memory, with the MIG bug. The two
//! superchips are named by the memory of their CPU.

use varia_spec::nvidia::device_id;

use super::gh100::{Chip, Die, bar2_of_h100, profile};
use super::{Fact, Profile};

const SIZE: &str = "sold as 96 GB; how many bytes firmware says is not public";

pub(super) fn gh200_120gb() -> Profile {
    profile(Chip {
        name: "gh200-120gb",
        alias: Some("gh200"),
        title: "NVIDIA GH200 120GB",
        die: Die::Gh100,
        device_id: device_id::GH200_120GB,
        subsystem_id: 0x1809,
        bar2: bar2_of_h100(),
        memory: Fact::assumed(96 << 30, SIZE),
        serial: 0x48b0_2d00_0000_0200,
    })
}

pub(super) fn gh200_480gb() -> Profile {
    profile(Chip {
        name: "gh200-480gb",
        alias: None,
        title: "NVIDIA GH200 480GB",
        die: Die::Gh100,
        device_id: device_id::GH200_480GB,
        subsystem_id: 0x180a,
        bar2: bar2_of_h100(),
        memory: Fact::assumed(96 << 30, SIZE),
        serial: 0x48b0_2d00_0000_0480,
    })
}
