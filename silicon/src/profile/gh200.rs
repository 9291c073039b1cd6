//! GH200: 96 GiB of coherent memory. The two superchips are named by the memory of their CPU.

use varia_spec::nvidia::chip;

use super::gh100::{Product, profile};
use super::{Fact, Profile};

const SIZE: &str = "sold as 96 GB; how many bytes firmware says is not public";

pub(super) fn gh200_120gb() -> Profile {
    profile(Product {
        name: "gh200-120gb",
        alias: Some("gh200"),
        title: "NVIDIA GH200 120GB",
        chip: &chip::GH200,
        sku: const { chip::GH200.skus[0] },
        subsystem_id: 0x1809,
        memory: Some(Fact::assumed(96 << 30, SIZE)),
        serial: 0x48b0_2d00_0000_0200,
    })
}

pub(super) fn gh200_480gb() -> Profile {
    profile(Product {
        name: "gh200-480gb",
        alias: None,
        title: "NVIDIA GH200 480GB",
        chip: &chip::GH200,
        sku: const { chip::GH200.skus[1] },
        subsystem_id: 0x180a,
        memory: Some(Fact::assumed(96 << 30, SIZE)),
        serial: 0x48b0_2d00_0000_0480,
    })
}
