//! MMIO aperture: room for the GPUs' BARs in a guest's address space.

use varia_facts::{Arch, Bytes, PciFunction};
use varia_plan::limits::VIRT_APERTURE;
use varia_plan::{Plan, PlannedBar, aperture_end, aperture_for, size, window};

use crate::scene::Scene;
use crate::{Finding, failure, not_applicable, ok, unknown, warning};

const HIGHMEM: &str = "virt.highmem-mmio-size";

pub(crate) fn fits(scene: &Scene<'_>) -> Vec<Finding> {
    let host = &scene.facts.host;
    // a guest of KVM has no more bits than its host's CPU
    let bits = scene.facts.kernel.kvm.ipa_bits.or(host.address_bits);
    vec![match scene.plan {
        Some(plan) => of_plan(scene, plan, bits),
        None => of_host(scene, bits),
    }]
}

fn of_plan(scene: &Scene<'_>, plan: &Plan, bits: Option<u32>) -> Finding {
    if plan.gpus.is_empty() {
        return not_applicable("the plan has no GPU");
    }
    let needed = aperture_for(plan.arch, plan.gpus.iter().map(|gpu| gpu.window));
    if needed > u128::from(plan.aperture.0) {
        return failure(format!(
            "the plan's aperture is {}, and the windows of its root ports need {}",
            plan.aperture,
            size(needed)
        ))
        .advise("plan again: varia plan sums the windows");
    }
    let qemu = scene.facts.vmm.qemu.as_ref();
    let large = plan.arch == Arch::Aarch64 && plan.aperture.0 > VIRT_APERTURE;
    if large && qemu.and_then(|qemu| qemu.has(HIGHMEM)) == Some(false) {
        return failure(format!(
            "the plan's aperture is {}, and this QEMU's virt machine has {} and no \
             highmem-mmio-size",
            plan.aperture,
            Bytes(VIRT_APERTURE)
        ))
        .advise("a QEMU whose virt machine has highmem-mmio-size");
    }
    let end = aperture_end(plan.ram(), plan.aperture.0.into());
    let text = format!("{}, which ends at {}", plan.aperture, varia_plan::size(end));
    match bits {
        None => unknown(format!(
            "{text}; the width of a guest's addresses is not known"
        ))
        .advise("run varia doctor where /dev/kvm can be opened"),
        Some(bits) if end > 1 << bits.min(64) => {
            failure(format!("{text}, and a guest's addresses have {bits} bits"))
                .advise("plan with fewer GPUs, or less --memory")
        }
        Some(bits) => ok(format!("{text}; a guest's addresses have {bits} bits")),
    }
}

/// Number of the selected GPUs that fit into one guest.
fn of_host(scene: &Scene<'_>, bits: Option<u32>) -> Finding {
    let arch = if scene.is_x86() {
        Arch::X86_64
    } else {
        Arch::Aarch64
    };
    let coherent = scene.gpus().filter_map(of_function);
    let plain = scene.plain_gpus().map(PlannedBar::physical);
    let plain = plain.filter_map(|bars| window(&bars).ok());
    let windows: Vec<_> = coherent.chain(plain).collect();
    if !scene.has_gpus() && scene.plain_gpus().next().is_none() {
        return not_applicable("no GPU with coherent memory or large BARs was selected");
    }
    if windows.is_empty() {
        return unknown("the GPUs' BARs in a VM are not known: see firmware");
    }
    let end = |count: usize| {
        let needed = aperture_for(arch, windows.iter().take(count).copied());
        (needed, aperture_end(Bytes(0), needed))
    };
    let all = windows.len();
    let Some(bits) = bits else {
        return unknown(format!(
            "{} for {}; the width of a guest's addresses is not known",
            size(end(all).0),
            gpus(all)
        ))
        .advise("run varia doctor where /dev/kvm can be opened");
    };
    let fit = (1..=all)
        .rev()
        .find(|count| end(*count).1 <= 1 << bits.min(64));
    match fit {
        Some(count) if count == all => ok(format!(
            "{} for {}; a guest's addresses have {bits} bits",
            size(end(all).0),
            gpus(all)
        )),
        Some(count) => warning(format!(
            "{all} GPUs in one VM need {}, which ends beyond the {bits} bits of a guest's \
             addresses: {count} fit",
            size(end(all).0)
        ))
        .advise(format!("give a VM at most {}", gpus(count))),
        None => failure(format!(
            "one GPU needs {}, which ends beyond the {bits} bits of a guest's addresses",
            size(end(1).0)
        ))
        .advise("a host whose CPU has wider addresses"),
    }
}

/// `1 GPU`, `2 GPUs`.
fn gpus(count: usize) -> String {
    format!("{count} GPU{}", if count == 1 { "" } else { "s" })
}

fn of_function(function: &PciFunction) -> Option<Bytes> {
    let window = window(&PlannedBar::of(function));
    window.ok().filter(|window| window.0 > 0)
}
