//! Firmware's description of GPUs, as an SSDT that a machine's kernel adds to its tables.
//!
//! The properties are those of the silicon: what a fault takes away is missing here as well.
//! Source of the form: ACPI 6.5 section 6.2.5 `_DSD`, UUID of device properties.

use std::fmt::Write;

use varia_core::Device;
use varia_silicon::Silicon;
use varia_spec::nvidia::property;

const PROPERTIES: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";
const NAMES: [&str; 4] = [
    property::MEM_BASE_PA,
    property::MEM_SIZE,
    property::MEM_PXM_START,
    property::MEM_PXM_COUNT,
];

/// ASL source with the properties of `gpus`, the n-th of which (from 0) is the function behind
/// the root port in slot n + 1 of the root bus; `None` is one that firmware does not describe.
#[must_use]
pub fn properties<'a>(gpus: impl IntoIterator<Item = Option<&'a Silicon>>) -> String {
    let mut asl = String::from("DefinitionBlock (\"\", \"SSDT\", 2, \"VARIA\", \"GPUS\", 1) {\n");
    for (gpu, slot) in gpus.into_iter().zip(1..) {
        let given: Vec<_> = NAMES
            .iter()
            .filter_map(|name| Some((*name, gpu?.property(name)?)))
            .collect();
        if given.is_empty() {
            continue;
        }
        // QEMU names a function S and its slot and function number as two hexadecimal digits.
        let path = format!("\\_SB.PCI0.S{:02X}.S00", slot * 8);
        // writing to a String can't fail
        let _ = writeln!(asl, "External ({path}, DeviceObj)\nScope ({path}) {{");
        let _ = writeln!(
            asl,
            "Name (_DSD, Package () {{ ToUUID (\"{PROPERTIES}\"), Package () {{"
        );
        for (name, value) in given {
            let _ = writeln!(asl, "Package () {{ \"{name}\", {value:#x} }},");
        }
        asl.push_str("} }) }\n");
    }
    asl.push_str("}\n");
    asl
}
