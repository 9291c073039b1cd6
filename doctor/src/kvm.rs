//! KVM, and whether a guest can have device memory as what it is: cacheable.

use varia_facts::Arch;

use varia_plan::versions::LINUX_CACHEABLE_PFNMAP;

use crate::scene::Scene;
use crate::{Finding, bad, failure, not_applicable, ok, unknown, warning};

/// Arm's own CPUs by part number (`MIDR_EL1` bits 15:4), and whether they have FEAT_S2FWB, which
/// Armv8.4 brings. Source: Arm's technical reference manuals of the CPUs.
const ARM_PARTS: [(u64, &str, bool); 8] = [
    (0xd4f, "Neoverse V2", true),
    (0xd40, "Neoverse V1", true),
    (0xd84, "Neoverse V3", true),
    (0xd49, "Neoverse N2", true),
    (0xd8e, "Neoverse N3", true),
    (0xd0c, "Neoverse N1", false),
    (0xd0b, "Cortex-A76", false),
    (0xd08, "Cortex-A72", false),
];
/// `MIDR_EL1` bits 31:24 of Arm's.
const IMPLEMENTER_ARM: u64 = 0x41;

pub(crate) fn present(scene: &Scene<'_>) -> Vec<Finding> {
    let kvm = &scene.facts.kernel.kvm;
    vec![match (kvm.present, &kvm.error) {
        (None, _) => {
            unknown("the facts don't say whether /dev/kvm exists: run varia doctor on the host")
        }
        (Some(false), _) => {
            let finding = failure("/dev/kvm does not exist: software would run the VMs");
            match scene.facts.host.arch {
                Some(Arch::X86_64) => finding
                    .advise("switch virtualisation on in the firmware's setup (VT-x, SVM)")
                    .run("modprobe kvm_intel || modprobe kvm_amd"),
                _ => finding.advise(
                    "a kernel with CONFIG_KVM that is entered at EL2; a VM needs nested \
                     virtualisation for it",
                ),
            }
        }
        (Some(true), Some(error)) => failure(format!("/dev/kvm can't be opened: {error}"))
            .advise("run varia doctor as root, or as a member of the group kvm"),
        (Some(true), None) => {
            let vcpus = kvm.max_vcpus.map(|most| format!(", at most {most} CPUs"));
            let bits = kvm
                .ipa_bits
                .map(|bits| format!(", {bits} bits of guest addresses"));
            ok(format!(
                "/dev/kvm{}{}",
                vcpus.unwrap_or_default(),
                bits.unwrap_or_default()
            ))
        }
    }]
}

pub(crate) fn cacheable(scene: &Scene<'_>) -> Vec<Finding> {
    let kernel = &scene.facts.kernel;
    if scene.is_x86() {
        return vec![not_applicable(
            "a capability of arm64's KVM: on x86_64 the guest's own choice of memory type holds",
        )];
    }
    if kernel.kvm.present == Some(false) {
        return vec![not_applicable("no KVM on this CPU or in this kernel")];
    }
    let version = kernel.version();
    vec![match kernel.kvm.cacheable_pfnmap {
        Some(true) => ok("KVM has it"),
        Some(false) => {
            let finding = bad(
                scene.has_gpus(),
                "KVM does not have it: a guest maps the GPU's memory as device memory, and programs on \
                 the GPU fail",
            );
            match version {
                Some(version) if version < LINUX_CACHEABLE_PFNMAP => finding.advise(format!(
                    "Linux {}.{} or newer; this is {}",
                    LINUX_CACHEABLE_PFNMAP.0,
                    LINUX_CACHEABLE_PFNMAP.1,
                    kernel.release.as_deref().unwrap_or_default()
                )),
                _ if cpu(scene).is_some_and(|(_, has_it)| has_it) => finding.advise(
                    "this kernel is new enough, so that KVM says that its CPU lacks stage-2 forced \
                     write-back, which this CPU has: run varia doctor on the host itself, not in a VM",
                ),
                _ => finding.advise(
                    "this kernel is new enough, so its CPU lacks stage-2 forced write-back: use a \
                     host whose CPU has it (Grace does)",
                ),
            }
        }
        None => {
            let why = match &kernel.kvm.error {
                Some(error) => format!("/dev/kvm could not be asked: {error}"),
                None => "/dev/kvm was not asked".to_owned(),
            };
            match version {
                Some(version) if version < LINUX_CACHEABLE_PFNMAP => warning(format!(
                    "{why}; Linux {} does not know it",
                    kernel.release.as_deref().unwrap_or_default()
                ))
                .advise(format!(
                    "Linux {}.{} or newer",
                    LINUX_CACHEABLE_PFNMAP.0, LINUX_CACHEABLE_PFNMAP.1
                )),
                _ => unknown(why).advise("run varia doctor as root"),
            }
        }
    }]
}

/// Name of the host's CPU, and `true` if the CPU has FEAT_S2FWB; `None` if it is not in the table.
fn cpu(scene: &Scene<'_>) -> Option<(&'static str, bool)> {
    let midr = scene.facts.host.midr?;
    let is_arm = midr >> 24 & 0xff == IMPLEMENTER_ARM;
    let mut parts = ARM_PARTS.iter().filter(|_| is_arm);
    let (_, name, has_it) = parts.find(|(number, ..)| *number == midr >> 4 & 0xfff)?;
    Some((name, *has_it))
}

/// Linux shows no register that tells it. KVM's capability implies it; else the kind of CPU does.
pub(crate) fn write_back(scene: &Scene<'_>) -> Vec<Finding> {
    if scene.is_x86() {
        return vec![not_applicable(
            "FEAT_S2FWB is arm64's, and this is an x86_64 host",
        )];
    }
    if scene.facts.kernel.kvm.cacheable_pfnmap == Some(true) {
        return vec![ok("KVM would not offer cacheable device memory without it")];
    }
    vec![match (cpu(scene), scene.facts.host.midr) {
        (Some((name, true)), _) => ok(format!("{name} has it")),
        (Some((name, false)), _) => bad(
            scene.has_gpus(),
            format!("{name} does not have it: QEMU exits when it maps a GPU's memory"),
        )
        .advise("a host with Armv8.4 or newer CPUs, such as Grace"),
        (None, Some(midr)) => unknown(format!(
            "the CPU with MIDR_EL1 {midr:#x} is not in the table, and Linux shows no register with \
             the feature"
        ))
        .run("dmesg | grep 'Stage-2 Force Write-Back'"),
        (None, None) => unknown("neither KVM's capability nor MIDR_EL1 is known")
            .run("dmesg | grep 'Stage-2 Force Write-Back'"),
    }]
}
