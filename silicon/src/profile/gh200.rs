//! GH200: 96 GiB of coherent memory. The two superchips are named by the memory of their CPU.

use varia_spec::nvidia::chip;

use super::gh100::{Model, Product, profile};
use super::{Fact, Profile};

const SIZE: &str = "sold as 96 GB; how many bytes firmware says is not public";

pub(super) fn gh200_120gb() -> Profile {
    profile(Product {
        name: "gh200-120gb",
        alias: Some("gh200"),
        title: "NVIDIA GH200 120GB",
        model: const { Model::of(&chip::GH200, 0x2342) },
        subsystem_id: 0x1809,
        memory: Fact::assumed(96 << 30, SIZE),
        serial: 0x48b0_2d00_0000_0200,
    })
}

pub(super) fn gh200_480gb() -> Profile {
    profile(Product {
        name: "gh200-480gb",
        alias: None,
        title: "NVIDIA GH200 480GB",
        model: const { Model::of(&chip::GH200, 0x2345) },
        subsystem_id: 0x180a,
        memory: Fact::assumed(96 << 30, SIZE),
        serial: 0x48b0_2d00_0000_0480,
    })
}
