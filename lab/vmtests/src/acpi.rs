//! Firmware's description of GPUs, as an SSDT that a machine's kernel adds to its tables.
//!
//! The properties are those of the silicon: what a fault takes away is missing here as well.
//! Source of the form: ACPI 6.5 section 6.2.5 `_DSD`, UUID of device properties.

use std::fmt::Write;

use varia_core::Device;
use varia_lab::RootBus;
use varia_silicon::Silicon;
use varia_spec::nvidia::property;

const PROPERTIES: &str = "daffd814-6eba-4d8c-8a91-bc9bbf4aa301";
const NAMES: [&str; 4] = [
    property::MEM_BASE_PA,
    property::MEM_SIZE,
    property::MEM_PXM_START,
    property::MEM_PXM_COUNT,
];

/// Location of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// Behind the root port in a slot of the first root bus.
    Slot(usize),
    /// Behind the only root port of a root bus.
    RootBus(RootBus),
}

impl Seat {
    /// Text that opens the scope of the function, and number of braces that close the scope.
    fn scope(self) -> (String, usize) {
        match self {
            // QEMU names a function S and its slot and function number as two hexadecimal digits.
            Self::Slot(slot) => {
                let path = format!("\\_SB.PCI0.S{:02X}.S00", slot * 8);
                (
                    format!("External ({path}, DeviceObj)\nScope ({path}) {{"),
                    1,
                )
            }
            // QEMU describes nothing below such a bus.
            Self::RootBus(RootBus { number, .. }) => {
                let path = format!("\\_SB.PC{number:02X}");
                let device = "Device (S00) { Name (_ADR, Zero)";
                (
                    format!("External ({path}, DeviceObj)\nScope ({path}) {{ {device}\n{device}"),
                    3,
                )
            }
        }
    }
}

/// ASL source with the properties of `gpus`, each with its place; `None` is one that firmware does
/// not describe.
#[must_use]
pub fn properties<'a>(gpus: impl IntoIterator<Item = (Seat, Option<&'a Silicon>)>) -> String {
    let mut asl = String::from("DefinitionBlock (\"\", \"SSDT\", 2, \"VARIA\", \"GPUS\", 1) {\n");
    for (seat, gpu) in gpus {
        let given: Vec<_> = NAMES
            .iter()
            .filter_map(|name| Some((*name, gpu?.property(name)?)))
            .collect();
        if given.is_empty() {
            continue;
        }
        let (scope, depth) = seat.scope();
        // writing to a String can't fail
        let _ = writeln!(asl, "{scope}");
        let _ = writeln!(
            asl,
            "Name (_DSD, Package () {{ ToUUID (\"{PROPERTIES}\"), Package () {{"
        );
        for (name, value) in given {
            let _ = writeln!(asl, "Package () {{ \"{name}\", {value:#x} }},");
        }
        let _ = writeln!(asl, "}} }}) {}", "}".repeat(depth));
    }
    asl.push_str("}\n");
    asl
}
