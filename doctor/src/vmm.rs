//! QEMU and libvirt: versions and features.

use varia_plan::features::of_qemu;
use varia_plan::versions::{LIBVIRT_SEEN, QEMU_NEEDED, QEMU_WANTED};

use crate::scene::Scene;
use crate::{Finding, bad, not_applicable, ok, unknown, warning};

/// A feature, whether a VM with GPUs needs it, whether it is arm64's, and what for.
type Wanted = (&'static str, bool, bool, &'static str);

const FEATURES: [Wanted; 6] = [
    ("vfio-pci", true, false, "gives devices of the host to a VM"),
    (
        "acpi-generic-initiator",
        true,
        false,
        "ties a GPU to its memory-less nodes",
    ),
    (
        "virt.highmem-mmio-size",
        false,
        true,
        "makes room for more than one GPU's BARs",
    ),
    ("iommufd", false, false, "maps memory by /dev/iommu"),
    (
        "arm-smmuv3.accel",
        false,
        true,
        "gives a VM an SMMU that the host's SMMU accelerates",
    ),
    (
        "vfio-user-pci",
        false,
        false,
        "attaches emulated devices (varia serve)",
    ),
];

fn newer(wanted: (u32, u32)) -> String {
    format!(
        "QEMU {}.{} or newer, or name another with --qemu",
        wanted.0, wanted.1
    )
}

pub(crate) fn qemu(scene: &Scene<'_>) -> Vec<Finding> {
    let vmm = &scene.facts.vmm;
    let needed = scene.plan.is_some() || scene.has_gpus();
    let Some(qemu) = &vmm.qemu else {
        return vec![match vmm.unknown.get("qemu") {
            Some(why) => bad(needed, why.clone()).advise(newer(QEMU_WANTED)),
            None => unknown("QEMU was not queried: run varia doctor on the host"),
        }];
    };
    let text = format!("{} ({})", qemu.version, qemu.path);
    vec![match qemu.number() {
        None => unknown(format!("{text} has no version that can be read")),
        Some(number) if number < QEMU_NEEDED => bad(
            needed,
            format!("{text} can't tie a GPU to nodes (no acpi-generic-initiator)"),
        )
        .advise(newer(QEMU_WANTED)),
        Some(number) if number < QEMU_WANTED => {
            warning(format!("{text} has no vfio-user-pci: varia serve needs it"))
                .advise(newer(QEMU_WANTED))
        }
        Some(_) => ok(text),
    }]
}

pub(crate) fn features(scene: &Scene<'_>) -> Vec<Finding> {
    let vmm = &scene.facts.vmm;
    let Some(qemu) = &vmm.qemu else {
        return vec![unknown("QEMU could not be asked: see qemu")];
    };
    if qemu.features.is_empty() {
        let why = vmm.unknown.get("qemu-features").cloned();
        return vec![unknown(
            why.unwrap_or_else(|| "QEMU was not asked".to_owned()),
        )];
    }
    let mut findings = Vec::new();
    let wanted = match scene.plan {
        Some(plan) => of_qemu(plan)
            .into_iter()
            .map(|name| (name, "the plan uses it", true))
            .collect(),
        None => {
            let features = FEATURES
                .iter()
                .filter(|(_, _, arm, _)| scene.is_arm() || !arm);
            features
                .map(|(name, needed, _, purpose)| {
                    ((*name).to_owned(), *purpose, *needed && scene.has_gpus())
                })
                .collect::<Vec<_>>()
        }
    };
    let mut there = Vec::new();
    for (name, purpose, needed) in wanted {
        match qemu.has(&name) {
            Some(true) => there.push(name),
            Some(false) => findings.push(
                bad(needed, format!("{} does not have it: {purpose}", qemu.path))
                    .about(name)
                    .advise("a newer QEMU, or one that is built with it; --qemu names another"),
            ),
            // a plan's arguments have much that every QEMU has
            None if scene.plan.is_some() => {}
            None => findings.push(unknown("QEMU did not answer").about(name)),
        }
    }
    if !there.is_empty() {
        findings.insert(0, ok(there.join(", ")));
    }
    if findings.is_empty() {
        findings.push(ok("the plan uses features of every QEMU alone"));
    }
    findings
}

pub(crate) fn libvirt(scene: &Scene<'_>) -> Vec<Finding> {
    let vmm = &scene.facts.vmm;
    let Some(libvirt) = &vmm.libvirt else {
        return vec![match vmm.unknown.get("libvirt") {
            Some(why) => not_applicable(format!("{why}; only --vmm libvirt needs it")),
            None => unknown("libvirt was not queried: run varia doctor on the host"),
        }];
    };
    let text = match libvirt.source.as_str() {
        "" => libvirt.version.clone(),
        source => format!("{} ({source})", libvirt.version),
    };
    vec![match libvirt.number() {
        None => unknown(format!("{text} has no version that can be read")),
        Some(number) if number < LIBVIRT_SEEN => warning(format!(
            "{text} is older than {}.{}, which plans are tested with",
            LIBVIRT_SEEN.0, LIBVIRT_SEEN.1
        ))
        .advise("a newer libvirt, or --vmm qemu"),
        Some(_) => ok(text),
    }]
}
