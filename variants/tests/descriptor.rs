//! `kernel/modules/nvgrace-gpu-vfio-pci/descriptor.h` is rendered from the table of chips.

use std::{env, fs, path::PathBuf};

use varia_spec::nvidia::chip::{self, Driver, Sku};

const HEAD: &str = "/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * nvgrace-gpu-vfio-pci: NVIDIA GPUs with CPU-coherent memory.
 *
 * The names are those of the kernel's own driver for these devices, which tools know. The ids are
 * those of spec/src/nvidia/chip.rs: rendered by a test of the crate in variants, do not edit.
 */
#define ADAPTOR_DESCRIPTION \"VFIO PCI driver for NVIDIA GPUs with CPU-coherent memory (Varia)\"
";

/// Entries of the id table, each on lines of its own, for the products that a released kernel lists
/// or does not list.
fn entries(released: bool) -> Vec<String> {
    let listed = chip::skus()
        .filter(|(chip, sku)| chip.driver() == Driver::NvgraceGpu && sku.released == released);
    let entry = |sku: &Sku| {
        format!(
            " \\\n\t/* {} */ \\\n\t{{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_NVIDIA, {:#06x}) }}",
            sku.name, sku.device.value
        )
    };
    listed.map(|(_, sku)| entry(sku)).collect()
}

fn render() -> String {
    let unreleased: String = entries(false)
        .iter()
        .map(|entry| format!(" \\\n\t,{entry}"))
        .collect();
    // the kernel replaces `-` in a module's name by `_`, as in the driver's name in sysfs
    let module = Driver::NvgraceGpu.name().replace('_', "-");
    format!(
        "{HEAD}\
         #define ADAPTOR_NAME \"{module}\"\n\n\
         /* Ids that no released kernel lists: built in with UNRELEASED_IDS=y (build.sh). */\n\
         #ifdef ADAPTOR_UNRELEASED_IDS\n\
         #define ADAPTOR_IDS_UNRELEASED{unreleased}\n\
         #else\n\
         #define ADAPTOR_IDS_UNRELEASED\n\
         #endif\n\n\
         #define ADAPTOR_IDS{} \\\n\tADAPTOR_IDS_UNRELEASED\n",
        entries(true).join(","),
    )
}

#[test]
fn the_descriptor_has_the_ids_of_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../kernel/modules/nvgrace-gpu-vfio-pci/descriptor.h");
    let rendered = render();
    if env::var_os("VARIA_WRITE_HEADER").is_some() {
        fs::write(&path, &rendered).expect("a writable checkout");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == rendered,
        "descriptor.h is out of date: run this test once with VARIA_WRITE_HEADER=1"
    );
}
