//! GB300: 278 GiB of coherent memory; and the same function with the CXL Device DVSEC, which is the
//! driver's newer readiness method. Which chip has that DVSEC is not public: the driver looks for it
//! on every one.

use varia_spec::nvidia::chip;

use super::gh100::{Model, Product, cxl, profile, with};
use super::{Fact, Profile};

pub(super) fn gb300() -> Profile {
    profile(Product {
        name: "gb300",
        alias: None,
        title: "NVIDIA GB300",
        model: const { Model::of(&chip::GB300, 0x31c2) },
        subsystem_id: 0x2047,
        memory: Fact::assumed(
            278 << 30,
            "sold as 279 GB; how many bytes firmware says is not public",
        ),
        serial: 0x48b0_2d00_0000_0300,
    })
}

pub(super) fn gb300_cxl() -> Profile {
    let gb300 = Profile {
        name: "gb300-cxl",
        alias: Some("cxl"),
        title: "NVIDIA GB300 with CXL readiness",
        ..gb300()
    };
    with(gb300, cxl())
}
