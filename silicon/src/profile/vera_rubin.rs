//! Vera Rubin: 278 GiB of coherent memory, readiness by CXL. No released kernel's driver lists it.

use varia_spec::nvidia::chip;

use super::gh100::{Model, Product, profile};
use super::{Fact, Profile};

pub(super) fn vera_rubin() -> Profile {
    profile(Product {
        name: "vera-rubin",
        alias: None,
        title: "NVIDIA Vera Rubin",
        model: const { Model::of(&chip::VERA_RUBIN, 0x3041) },
        subsystem_id: 0x2200,
        memory: Fact::assumed(
            278 << 30,
            "sold as 288 GB, as the GPU of a GB300 is; how many bytes firmware says is not public",
        ),
        serial: 0x48b0_2d00_0000_3041,
    })
}
