//! Devices, CPUs and files of a plan.

use varia_facts::PciFunction;
use varia_plan::{Gpu, Plan, Source, arguments};

use crate::scene::Scene;
use crate::{Finding, failure, not_applicable, ok, unknown, warning};

const NO_PLAN: &str = "no plan was given";

/// The files that a plan names: firmware, kernel, disks, servers' sockets.
pub(crate) fn named_files(plan: &Plan) -> Vec<String> {
    let arguments = arguments(plan);
    let options = ["-bios", "-kernel", "-initrd"];
    let read = arguments.iter().filter(|one| options.contains(&one.option));
    let mut files: Vec<_> = read.map(|one| one.value.clone()).collect();
    files.extend(plan.disks.iter().cloned());
    for gpu in &plan.gpus {
        if let Source::VfioUser(socket) = &gpu.memory.source {
            files.push(socket.to_string_lossy().into_owned());
        }
    }
    files
}

pub(crate) fn devices(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(plan) = scene.plan else {
        return vec![not_applicable(NO_PLAN)];
    };
    let look = |gpu: &Gpu| match &gpu.memory.source {
        Source::VfioUser(socket) => {
            not_applicable(format!("a vfio-user server at {} has it", socket.display()))
                .about(&gpu.memory.device.id)
        }
        Source::Function(bdf) => match scene.facts.function(*bdf) {
            None => failure("this host has no such function")
                .advise("plan again on this host: varia plan --gpu BDF")
                .about(bdf),
            Some(function) => as_planned(gpu, function).about(bdf),
        },
    };
    let mut findings: Vec<_> = plan.gpus.iter().map(look).collect();
    if findings.is_empty() {
        findings.push(not_applicable("the plan has no GPU"));
    }
    findings
}

fn as_planned(gpu: &Gpu, function: &PciFunction) -> Finding {
    if function.open == Some(true) {
        let user = function.user.as_deref().unwrap_or("a process");
        return failure(format!("the function is in use by {user}"))
            .advise("end the VM or the process");
    }
    if function.virtual_bars.is_empty() {
        return unknown("its BARs in a VM are not known: see firmware");
    }
    let own = function.virtual_bars.iter().filter(|bar| bar.prefetchable);
    let own: Vec<_> = own.map(|bar| (bar.index, bar.size)).collect();
    let planned = gpu.memory.device.bars.iter();
    let planned: Vec<_> = planned.map(|bar| (bar.index, bar.size)).collect();
    if own == planned {
        return ok("the function has the BARs of the plan");
    }
    let text = |bars: &[(u8, varia_facts::Bytes)]| {
        let texts = bars
            .iter()
            .map(|(index, size)| format!("BAR{index} {}", size.rounded()));
        texts.collect::<Vec<_>>().join(", ")
    };
    failure(format!(
        "the function has {}, and the plan {}",
        text(&own),
        text(&planned)
    ))
    .advise("plan again on this host: varia plan --gpu BDF")
}

pub(crate) fn cpus(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(plan) = scene.plan else {
        return vec![not_applicable(NO_PLAN)];
    };
    let host = &scene.facts.host;
    let mut findings = Vec::new();
    let most = scene.facts.kernel.kvm.max_vcpus;
    if let Some(most) = most.filter(|most| plan.cpus() > *most) {
        findings.push(
            failure(format!(
                "the plan has {} CPUs, and KVM takes {most}",
                plan.cpus()
            ))
            .advise("plan with fewer --cpus"),
        );
    }
    let pins: Vec<u32> = plan
        .sockets
        .iter()
        .flat_map(|socket| socket.pins.clone())
        .collect();
    let gone: Vec<_> = pins
        .iter()
        .filter(|cpu| !host.cpus.contains(**cpu))
        .map(u32::to_string)
        .collect();
    findings.push(if pins.is_empty() {
        not_applicable("the plan pins to no CPU")
    } else if host.cpus.is_empty() {
        unknown("the online CPUs are not known")
    } else if gone.is_empty() {
        ok(format!(
            "the {} CPUs of the plan's pins are online",
            pins.len()
        ))
    } else {
        failure(format!("CPUs {} are not online", gone.join(", ")))
            .run(format!(
                "for cpu in {}; do echo 1 > /sys/devices/system/cpu/cpu$cpu/online; done",
                gone.join(" ")
            ))
            .advise("or plan again on this host")
    });
    findings
}

pub(crate) fn files(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(plan) = scene.plan else {
        return vec![not_applicable(NO_PLAN)];
    };
    let look = |file: &String| {
        match scene.files.get(file) {
            Some(true) => ok("exists"),
            Some(false) => failure("does not exist").advise(
                "install it (on Debian arm64's UEFI is in qemu-efi-aarch64), or plan with another",
            ),
            None => unknown(
                "was not checked: run varia doctor on the host, a captured host has no such files",
            ),
        }
        .about(file)
    };
    let mut findings: Vec<_> = named_files(plan).iter().map(look).collect();
    if findings.is_empty() {
        findings.push(not_applicable("the plan names no files"));
    }
    if plan.accelerator == varia_plan::Accelerator::Tcg {
        findings.push(
            warning("software runs the plan's VM: the checks of KVM do not apply to it")
                .about(&plan.name),
        );
    }
    findings
}
