//! IOMMU and SMMU: present, switched on, not weakened.

use varia_facts::Arch;

use crate::scene::Scene;
use crate::{Finding, bad, failure, not_applicable, ok, unknown, warning};

/// Place of a word of the kernel's command line.
pub(crate) const GRUB: &str =
    "in GRUB_CMDLINE_LINUX of /etc/default/grub, then update-grub and a reboot";
/// Instances that a finding names.
const NAMED: usize = 4;

pub(crate) fn present(scene: &Scene<'_>) -> Vec<Finding> {
    let instances = &scene.facts.host.iommu.instances;
    if !instances.is_empty() {
        let mut names = instances
            .iter()
            .take(NAMED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        if instances.len() > NAMED {
            names += &format!(" and {} more", instances.len() - NAMED);
        }
        return vec![ok(names)];
    }
    let finding = failure("/sys/class/iommu has no IOMMU: no device can be assigned to a VM");
    vec![match scene.facts.host.arch {
        Some(Arch::X86_64) => finding
            .advise("switch VT-d or AMD-Vi on in the firmware's setup")
            .advise(format!("where the CPU is Intel's, intel_iommu=on {GRUB}")),
        Some(Arch::Aarch64) => finding.advise(
            "switch the SMMU on in the firmware's setup; the kernel needs CONFIG_ARM_SMMU_V3",
        ),
        None => finding.advise("switch the IOMMU on in the firmware's setup"),
    }]
}

pub(crate) fn is_smmuv3(scene: &Scene<'_>) -> Vec<Finding> {
    let instances = &scene.facts.host.iommu.instances;
    vec![if scene.is_x86() {
        not_applicable("an x86_64 host has no SMMU")
    } else if instances.is_empty() {
        not_applicable("the host has no IOMMU")
    } else if instances.iter().all(|name| name.starts_with("smmu3.")) {
        ok(format!("{} SMMUv3", instances.len()))
    } else {
        let others: Vec<_> = instances
            .iter()
            .filter(|name| !name.starts_with("smmu3."))
            .map(String::as_str)
            .take(NAMED)
            .collect();
        warning(format!(
            "{} is not an SMMUv3: devices can be assigned to VMs, but no VM can have an SMMU",
            others.join(", ")
        ))
        .advise("on Grace, switch the SMMU on in the firmware's setup")
    }]
}

pub(crate) fn nested(scene: &Scene<'_>) -> Vec<Finding> {
    if scene.is_x86() {
        return vec![not_applicable("an x86_64 host has no SMMU")];
    }
    let kernel = &scene.facts.kernel;
    let option = "ARM_SMMU_V3_IOMMUFD";
    let features = ["arm-smmuv3.accel", "arm-smmuv3.ats", "arm-smmuv3.ssidsize"];
    let has_option = kernel.option(option);
    let qemu = scene.facts.vmm.qemu.as_ref();
    let has = features.map(|feature| qemu.and_then(|qemu| qemu.has(feature)));
    let has_features = match has {
        _ if has.contains(&Some(false)) => Some(false),
        _ if has.contains(&None) => None,
        _ => Some(true),
    };
    let parts = [
        ("/dev/iommu", kernel.iommufd),
        ("CONFIG_ARM_SMMU_V3_IOMMUFD", has_option),
        (
            "QEMU's arm-smmuv3 with accel, ats and ssidsize",
            has_features,
        ),
    ];
    let of = |state: Option<bool>| {
        let some = parts.iter().filter(|(_, has)| *has == state);
        some.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    };
    let (missing, open) = (of(Some(false)), of(None));
    let needed = scene.plans_smmu();
    vec![if !missing.is_empty() {
        let what = if needed {
            "and the plan's SMMUs need it"
        } else {
            "so that a VM has no SMMU; GPUs work without one"
        };
        bad(needed, format!("missing: {missing}, {what}")).advise(
            "a kernel with CONFIG_IOMMUFD and CONFIG_ARM_SMMU_V3_IOMMUFD, and QEMU 11.0 or newer; \
             or plan with --iommu type1",
        )
    } else if !open.is_empty() {
        unknown(format!("not known: {open}"))
    } else {
        ok(of(Some(true)))
    }]
}

pub(crate) fn command_line(scene: &Scene<'_>) -> Vec<Finding> {
    let words = &scene.facts.kernel.cmdline;
    let set = |options: &[&str], values: &[&str], others: &[&str]| {
        let all = options.iter().filter_map(|option| {
            let value = last(words, option, &[values, others].concat())?;
            values.contains(&value).then(|| format!("{option}={value}"))
        });
        all.collect::<Vec<_>>().join(" ")
    };
    let off = set(&["iommu", "intel_iommu", "amd_iommu"], &["off"], &["on"]);
    let passthrough = [
        set(&["iommu.passthrough"], &["1", "on"], &["0", "off"]),
        set(&["iommu"], &["pt"], &["nopt"]),
    ];
    let passthrough = passthrough.join(" ").trim().to_owned();
    // x86's words: an SMMU does not know them
    if !off.is_empty() && scene.facts.host.iommu.instances.is_empty() && !scene.is_arm() {
        return vec![
            failure(format!("{off} switches the IOMMU off")).advise(format!("remove {off} {GRUB}")),
        ];
    }
    let mut said = Vec::new();
    if !off.is_empty() {
        said.push(format!("{off} has no effect on this host"));
    }
    if !passthrough.is_empty() {
        said.push(format!(
            "{passthrough}: the host's own devices are not translated; devices of VMs are"
        ));
    }
    vec![if !said.is_empty() {
        ok(said.join("; "))
    } else if words.is_empty() {
        ok("no word about the IOMMU")
    } else {
        ok(words.join(" "))
    }]
}

/// Value of an option among `values`: its words may have several values, between commas, and the
/// last one counts.
fn last<'a>(words: &'a [String], option: &str, values: &[&str]) -> Option<&'a str> {
    let own = words.iter().filter_map(|word| {
        let (name, list) = word.split_once('=')?;
        (name == option).then_some(list)
    });
    own.flat_map(|list| list.split(','))
        .rfind(|value| values.contains(value))
}

pub(crate) fn parameters(scene: &Scene<'_>) -> Vec<Finding> {
    let dangers = [
        (
            "vfio",
            "enable_unsafe_noiommu_mode",
            "a device can be opened without an IOMMU and reach all memory",
        ),
        (
            "vfio_iommu_type1",
            "allow_unsafe_interrupts",
            "a VM can send interrupts to the host",
        ),
    ];
    let modules = &scene.facts.kernel.modules;
    let mut findings = Vec::new();
    for (module, name, what) in dangers {
        let value = modules
            .get(module)
            .and_then(|module| module.parameters.get(name));
        let Some(value) = value.filter(|value| value.starts_with('Y')) else {
            continue;
        };
        let finding = warning(format!("{value}: {what}")).about(format!("{module}.{name}"));
        findings.push(finding.run(format!("echo N > /sys/module/{module}/parameters/{name}")));
    }
    if findings.is_empty() {
        findings.push(ok("no such parameter is set"));
    }
    findings
}
