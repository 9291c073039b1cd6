//! Direction of dependencies between the workspace's crates: cargo's metadata against the table
//! below, and this table against ARCHITECTURE.md, "Layers".

use std::collections::BTreeMap;
use std::path::Path;

/// A crate and the crates that it may use.
struct Layer {
    name: &'static str,
    may_use: &'static [&'static str],
}

const fn layer(name: &'static str, may_use: &'static [&'static str]) -> Layer {
    Layer { name, may_use }
}

/// Crates from the bottom up: a crate uses only crates above it in this table.
const LAYERS: &[Layer] = &[
    layer("varia-units", &[]),
    layer("varia-spec", &[]),
    layer("varia-variant", &["varia-units", "varia-spec"]),
    layer(
        "varia-variants",
        &["varia-units", "varia-spec", "varia-variant"],
    ),
    // the sentences of refusals
    layer(
        "varia-placement",
        &["varia-units", "varia-spec", "varia-variant"],
    ),
    // errno and the VFIO ABI
    layer("varia-sys", &["varia-units", "varia-spec"]),
    // memory of the user, which may go away
    layer("varia-core", &["varia-units", "varia-spec", "varia-sys"]),
    // messages, not variants
    layer(
        "varia-vfio-user",
        &["varia-units", "varia-spec", "varia-sys"],
    ),
    // any `Device`: which chip it is does not matter here
    layer(
        "varia-serve",
        &[
            "varia-spec",
            "varia-variant",
            "varia-variants",
            "varia-core",
            "varia-sys",
            "varia-vfio-user",
        ],
    ),
    // plain data: whoever knows something writes it, and planners read it
    layer("varia-facts", &["varia-units"]),
    // the names of NVIDIA's properties, and what a PCI function is called
    layer("varia-firmware", &["varia-spec", "varia-facts"]),
    // `core` defines the `Device` that a chip is, `sys` the memory that it shares; a made-up host is
    // facts, with the tables of its firmware
    layer(
        "varia-silicon",
        &[
            "varia-spec",
            "varia-core",
            "varia-sys",
            "varia-facts",
            "varia-firmware",
        ],
    ),
    // whom a variant serves and how it lays a device out; a captured host needs no system call
    layer(
        "varia-linux",
        &[
            "varia-spec",
            "varia-variant",
            "varia-variants",
            "varia-sys",
            "varia-facts",
        ],
    ),
    // pure; `spec` for the table of chips
    layer(
        "varia-plan",
        &["varia-spec", "varia-facts", "varia-firmware"],
    ),
    layer("varia-explain", &["varia-facts", "varia-plan"]),
    // the chip table
    layer("varia-doctor", &["varia-spec", "varia-facts", "varia-plan"]),
    // pure: the health of a device is a judgement of `doctor`
    layer(
        "varia-allocate",
        &["varia-spec", "varia-facts", "varia-plan", "varia-doctor"],
    ),
    layer(
        "varia-node",
        &["varia-facts", "varia-linux", "varia-allocate"],
    ),
    layer(
        "varia",
        &[
            "varia-spec",
            "varia-variant",
            "varia-core",
            "varia-sys",
            "varia-silicon",
            "varia-vfio-user",
            "varia-serve",
            "varia-facts",
            "varia-linux",
            "varia-firmware",
            "varia-plan",
            "varia-explain",
            "varia-doctor",
            "varia-allocate",
            "varia-node",
        ],
    ),
    // operations and their answers: a runtime is behind a trait of its own
    layer("varia-differential", &["varia-spec"]),
    // runs in a guest
    layer(
        "varia-agent",
        // `core`, which it runs in a machine beside the kernel's
        &[
            "varia-spec",
            "varia-core",
            "varia-sys",
            "varia-differential",
        ],
    ),
    // runs in a guest, and needs nothing of the lab
    layer(
        "varia-gpu-test",
        &["varia-units", "varia-spec", "varia-sys"],
    ),
    // packages, and programs run in their own root; knows no machine
    layer("varia-debian", &["varia-units"]),
    // boots machines, and knows no GPU
    layer(
        "varia-lab",
        &["varia-units", "varia-sys", "varia-agent", "varia-debian"],
    ),
    // builds copies of crates and links none
    layer("varia-mutants", &[]),
    // the commands of the project: what they show is `varia`'s, started as a program
    layer("xtask", &["varia-facts", "varia-lab", "varia-plan"]),
    // tests that boot machines may look at everything, and nothing uses them
    layer(
        "varia-vmtests",
        &[
            "varia-spec",
            "varia-variant",
            "varia-variants",
            "varia-core",
            "varia-sys",
            "varia-silicon",
            "varia-vfio-user",
            "varia-serve",
            "varia-differential",
            "varia-agent",
            "varia-facts",
            "varia-linux",
            "varia-plan",
            "varia-explain",
            "varia-doctor",
            "varia-firmware",
            "varia-lab",
        ],
    ),
];

/// The kernel's build compiles these as they are: they depend on nothing else, in tests neither.
const FREESTANDING: [&str; 5] = [
    "varia-units",
    "varia-spec",
    "varia-variant",
    "varia-variants",
    "varia-placement",
];

/// For each package its dependencies: {name, for tests only}.
fn dependencies() -> BTreeMap<String, Vec<(String, bool)>> {
    let packages = crate::packages().into_iter();
    packages
        .map(|package| (package.name, package.dependencies))
        .collect()
}

#[test]
fn each_crate_uses_only_what_its_layer_may() {
    let packages = dependencies();
    assert!(packages.len() >= 14, "{packages:?}");
    for (name, used) in &packages {
        let layer = LAYERS.iter().find(|layer| layer.name == name);
        let layer = layer.unwrap_or_else(|| panic!("{name} has no place among the layers"));
        for (used, for_tests) in used {
            let ours = packages.contains_key(used);
            let allowed = *for_tests || layer.may_use.contains(&used.as_str());
            assert!(!ours || allowed, "{name} may not use {used}");
        }
    }
}

#[test]
fn the_table_has_one_direction_and_no_crate_that_is_not_there() {
    let packages = dependencies();
    for (row, layer) in LAYERS.iter().enumerate() {
        assert!(packages.contains_key(layer.name), "{} is gone", layer.name);
        for used in layer.may_use {
            let above = LAYERS.iter().take(row).any(|other| other.name == *used);
            assert!(above, "{} uses {used}, which is not above it", layer.name);
        }
    }
}

#[test]
fn architecture_md_has_the_same_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let section = text.split_once("## Layers").unwrap().1;
    let section = section.split_once("\n## ").unwrap().0;
    let package = |folder: &str| match folder {
        "cli" => "varia".to_owned(),
        "xtask" => "xtask".to_owned(),
        folder => format!("varia-{folder}"),
    };
    // the lab's crates have one row together
    let of_the_lab = |name: &str| {
        root.join("lab")
            .join(name.trim_start_matches("varia-"))
            .is_dir()
    };
    let mut rows = Vec::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let name = package(cells[1].trim_matches('`'));
        let uses = cells[3].split(" (").next().unwrap();
        // the kernel's build is not cargo's
        if name != "varia-kernel" {
            let layer = LAYERS.iter().find(|layer| layer.name == name).unwrap();
            let may_use = layer.may_use.iter().map(|used| (*used).to_owned());
            let may_use: Vec<_> = may_use.filter(|used| !of_the_lab(used)).collect();
            if uses == "all above" {
                assert!(may_use.iter().all(|used| rows.contains(used)), "{name}");
            } else {
                let uses = uses.split(", ").filter(|used| !used.is_empty());
                assert_eq!(may_use, uses.map(package).collect::<Vec<_>>(), "{name}");
            }
            rows.push(name);
        }
    }
    for layer in LAYERS {
        let told = rows.iter().any(|row| row == layer.name) || of_the_lab(layer.name);
        assert!(told, "{} has no row in ARCHITECTURE.md", layer.name);
    }
}

#[test]
fn what_the_kernel_compiles_depends_on_nothing_else() {
    let packages = dependencies();
    for name in FREESTANDING {
        for (used, _) in &packages[name] {
            // an optional dependency, which the kernel's build leaves out
            let also =
                FREESTANDING.contains(&used.as_str()) || (name == "varia-units" && used == "serde");
            assert!(
                also,
                "{name} uses {used}, and the kernel's build has no crates"
            );
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let source = root
            .join(name.trim_start_matches("varia-"))
            .join("src/lib.rs");
        let source = std::fs::read_to_string(source).unwrap();
        assert!(source.contains("#![no_std]"), "{name} is no_std");
    }
}
