//! Extended GPU Memory (EGM): RAM of a socket that firmware reserves for VMs.

use std::collections::BTreeMap;

use varia_facts::{Bytes, EgmDevice, egm_path};
use varia_plan::Backing;

use crate::scene::Scene;
use crate::{Finding, bad, failure, not_applicable, ok, unknown};

pub(crate) fn devices(scene: &Scene<'_>) -> Vec<Finding> {
    let wanted = wanted(scene);
    let mut findings: Vec<_> = scene
        .facts
        .host
        .egm
        .iter()
        .map(|one| device(one, &wanted))
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
        bad(
            wanted.contains_key(&pxm),
            format!(
                "firmware reserves {} of EGM, and no driver offers it: neither the host nor a VM has \
                 this RAM",
                size.rounded()
            ),
        )
        .run("modprobe nvgrace-egm")
        .advise(
            "a kernel with nvgrace-egm, as NVIDIA's are (Linux 7.3 has none), or EGM switched off in \
             the firmware's setup",
        )
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
fn wanted(scene: &Scene<'_>) -> BTreeMap<u32, Bytes> {
    let mut wanted: BTreeMap<u32, Bytes> = BTreeMap::new();
    let mut add = |pxm: u32, size: Bytes| {
        let sum = wanted.entry(pxm).or_default();
        sum.0 = sum.0.saturating_add(size.0);
    };
    for socket in scene.plan.iter().flat_map(|plan| &plan.sockets) {
        if let Backing::Egm(pxm) = socket.backing {
            add(pxm, socket.memory);
        }
    }
    for (pxm, size) in scene.definition.iter().flat_map(|one| &one.egm) {
        add(*pxm, size.unwrap_or_default());
    }
    wanted
}

fn device(device: &EgmDevice, wanted: &BTreeMap<u32, Bytes>) -> Finding {
    let needed = wanted.get(&device.pxm);
    let gpus: Vec<_> = device.gpus.iter().map(ToString::to_string).collect();
    let text = format!(
        "{} for {}",
        device.size.map_or("EGM".to_owned(), |size| format!(
            "{} of EGM",
            size.rounded()
        )),
        gpus.join(", ")
    );
    let finding = match (device.size, needed) {
        _ if device.has_node == Some(false) => bad(
            needed.is_some(),
            format!("{text}, and the device node does not exist"),
        )
        .run("udevadm trigger"),
        (None, Some(_)) => unknown("the size of the memory is not known (egm_size)")
            .advise("run varia doctor on the host"),
        (Some(there), Some(needed)) if there < *needed => {
            failure(format!("{text}, and the VM needs {}", needed.rounded()))
                .advise("give the VM less RAM")
        }
        _ => ok(text),
    };
    finding.about(device.path())
}
