//! Vera Rubin: 278 GiB of coherent memory, readiness by CXL. No released kernel's driver lists it.

use varia_spec::nvidia::chip;

use super::gh100::{Product, profile};
use super::{Fact, Profile};

pub(super) fn vera_rubin() -> Profile {
    profile(Product {
        name: "vera-rubin",
        alias: None,
        title: "NVIDIA Vera Rubin",
        chip: &chip::VERA_RUBIN,
        sku: const { chip::VERA_RUBIN.skus[0] },
        subsystem_id: 0x2200,
        memory: Some(Fact::assumed(
            278 << 30,
            "sold as 288 GB, as the GPU of a GB300 is; how many bytes firmware says is not public",
        )),
        serial: 0x48b0_2d00_0000_3041,
    })
}
