//! GB200: 184 GiB of coherent memory.

use varia_spec::nvidia::chip;

use super::gh100::{Model, Product, profile};
use super::{Fact, Profile};

pub(super) fn gb200() -> Profile {
    profile(Product {
        name: "gb200",
        alias: None,
        title: "NVIDIA GB200",
        model: const { Model::of(&chip::GB200, 0x2941) },
        subsystem_id: 0x2046,
        memory: Fact::assumed(
            184 << 30,
            "sold as 186 GB; how many bytes firmware says is not public",
        ),
        serial: 0x48b0_2d00_0000_0201,
    })
}
