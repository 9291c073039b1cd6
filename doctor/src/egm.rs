//! Extended GPU Memory (EGM): RAM of a socket that firmware reserves for VMs.

use std::collections::BTreeMap;

use varia_facts::{Bdf, Bytes, EgmDevice, Module, egm_path};
use varia_plan::{Backing, Error, egm_errors};

use crate::modules::EGM;
use crate::scene::Scene;
use crate::{Finding, bad, failure, not_applicable, ok, unknown};

pub(crate) fn devices(scene: &Scene<'_>) -> Vec<Finding> {
    let wanted = wanted(scene);
    let mut findings: Vec<_> = scene
        .facts
        .host
        .egm
        .iter()
        .map(|one| device(scene, one, wanted.get(&one.pxm).copied()))
        .collect();
    let without = wanted.keys().filter(|pxm| of(scene, **pxm).is_none());
    findings.extend(without.map(|pxm| {
        failure("the host has no such device, and the VM's RAM is to come from it")
            .advise("switch EGM on in the firmware's setup and load nvgrace-egm, or use other RAM")
            .about(egm_path(*pxm))
    }));
    // RAM that firmware took from the host and nobody offers
    let mut reserved = BTreeMap::new();
    for gpu in scene.gpus() {
        if let Some(egm) = gpu.egm.filter(|egm| of(scene, egm.pxm).is_none()) {
            reserved.insert(egm.pxm, egm.size);
        }
    }
    findings.extend(reserved.into_iter().map(|(pxm, size)| {
        let finding = bad(
            wanted.contains_key(&pxm),
            format!(
                "firmware reserves {} of EGM, and no driver offers it: neither the host nor a VM has \
                 this RAM",
                size.rounded()
            ),
        );
        let has_driver = scene.facts.kernel.modules.get(EGM);
        match has_driver.is_some_and(Module::usable) {
            true => finding.run("modprobe nvgrace-egm"),
            false => finding.advise(
                "a kernel with nvgrace-egm, as NVIDIA's are (Linux 7.3 has none), or EGM switched \
                 off in the firmware's setup",
            ),
        }
        .about(egm_path(pxm))
    }));
    if findings.is_empty() {
        findings.push(not_applicable("no GPU reports Extended GPU Memory"));
    }
    findings
}

fn of<'a>(scene: &Scene<'a>, pxm: u32) -> Option<&'a EgmDevice> {
    scene.facts.host.egm.iter().find(|device| device.pxm == pxm)
}

/// Proximity domains of the EGM that the plan or the definition uses, with the size if known.
fn wanted(scene: &Scene<'_>) -> BTreeMap<u32, Option<Bytes>> {
    let mut wanted: BTreeMap<u32, Option<Bytes>> = BTreeMap::new();
    let mut add = |pxm: u32, size: Option<Bytes>| {
        let sum = wanted.entry(pxm).or_insert(Some(Bytes(0)));
        *sum = sum
            .zip(size)
            .map(|(sum, size)| Bytes(sum.0.saturating_add(size.0)));
    };
    for socket in scene.plan.iter().flat_map(|plan| &plan.sockets) {
        if let Backing::Egm(pxm) = socket.backing {
            add(pxm, Some(socket.memory));
        }
    }
    for (pxm, size) in scene.definition.iter().flat_map(|one| &one.egm) {
        add(*pxm, *size);
    }
    wanted
}

/// GPUs of the plan or the definition.
fn gpus(scene: &Scene<'_>) -> Vec<Bdf> {
    let planned = scene.plan.into_iter().flat_map(Scene::devices_of);
    let definition = scene.definition.iter();
    let defined = definition.flat_map(|one| one.functions.iter().map(|one| one.bdf));
    planned.chain(defined).collect()
}

fn device(scene: &Scene<'_>, device: &EgmDevice, wanted: Option<Option<Bytes>>) -> Finding {
    let gpus_of_it: Vec<_> = device.gpus.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} for {}",
        device.size.map_or("EGM".to_owned(), |size| format!(
            "{} of EGM",
            size.rounded()
        )),
        gpus_of_it.join(", ")
    );
    let about = device.path();
    if device.has_node == Some(false) {
        return bad(
            wanted.is_some(),
            format!("{text}, and the device node does not exist"),
        )
        .advise("load nvgrace-egm again, or give the device node to this container")
        .about(about);
    }
    let Some(needed) = wanted else {
        return ok(text).about(about);
    };
    let errors = egm_errors(device, &gpus(scene), needed.unwrap_or_default());
    match (errors.first(), device.size, needed) {
        (Some(Error::EgmPartial { absent, .. }), ..) => failure(format!(
            "{text}, and the VM does not have {absent}, which could reach the VM's RAM"
        ))
        .advise("give all GPUs of the memory to the same VM, or use other RAM"),
        (Some(Error::EgmSize { wanted, .. }), ..) => {
            failure(format!("{text}, and the VM needs {}", wanted.rounded()))
                .advise("give the VM less RAM")
        }
        (_, None, _) => {
            unknown("the size of the memory is not known: egm_size can't be read in /sys/class/egm")
        }
        (_, _, None) => unknown(format!(
            "{text}, and the definition does not say how much of it the VM takes"
        )),
        _ => ok(text),
    }
    .about(about)
}
