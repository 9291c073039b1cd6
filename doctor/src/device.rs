//! A device: IOMMU group, driver, firmware's properties, readiness.

use varia_facts::{Bdf, CoherentSource, PciFunction};
use varia_spec::nvidia::chip::{Driver, Identity};

use crate::iommu::GRUB;
use crate::modules::VARIANT;
use crate::scene::{NVGRACE, Scene, identity, is_gpu};
use crate::{Finding, Remedy, failure, not_applicable, ok, unknown, warning};

/// Base classes of functions that a host may need: mass storage, network.
const VITAL: [u32; 2] = [0x01, 0x02];

pub(crate) fn group(scene: &Scene<'_>) -> Vec<Finding> {
    scene.each(|function| {
        let Some(id) = function.iommu_group else {
            return failure("is in no IOMMU group: no IOMMU translates its accesses")
                .advise("switch the IOMMU on in the firmware's setup")
                .advise(format!("where the CPU is Intel's, intel_iommu=on {GRUB}"));
        };
        let groups = &scene.facts.host.iommu.groups;
        let Some(group) = groups.iter().find(|group| group.id == id) else {
            return unknown(format!("the members of its group {id} are not known"));
        };
        let others = group.members.iter().filter(|bdf| **bdf != function.bdf);
        let foreign: Vec<Bdf> = others
            .copied()
            .filter(|bdf| !scene.devices.contains(bdf) && !is_harmless(scene, *bdf))
            .collect();
        if foreign.is_empty() {
            let text = match group.members.len() {
                0 | 1 => "alone".to_owned(),
                count => format!("with {} other functions that a VM does not disturb", count - 1),
            };
            return ok(format!("group {id}, {text}"));
        }
        let named: Vec<_> = foreign
            .iter()
            .map(|bdf| {
                let driver = scene
                    .facts
                    .function(*bdf)
                    .and_then(|one| one.driver.as_deref());
                format!("{bdf} ({})", driver.unwrap_or("no driver"))
            })
            .collect();
        let finding = failure(format!(
            "shares group {id} with {}, which the host uses: a group is assigned as a whole",
            named.join(", ")
        ));
        let kept: Vec<_> = foreign
            .iter()
            .filter(|bdf| may_be_vital(scene, **bdf))
            .map(Bdf::to_string)
            .collect();
        let finding = if kept.is_empty() {
            let all = std::iter::once(function.bdf)
                .chain(foreign)
                .map(|bdf| bdf.to_string());
            finding.run(format!("varia bind {}", all.collect::<Vec<_>>().join(" ")))
        } else {
            finding.advise(format!(
                "the host's disk or network may be on {}, or a process has it open: assign it to a VM \
                 only if the host does not need it",
                kept.join(", ")
            ))
        };
        finding.advise("or put the device into a slot with ACS, which gives it a group of its own")
    })
}

/// The host may need the function: its class is storage or network, a process has it open, or the
/// function is not known.
fn may_be_vital(scene: &Scene<'_>, bdf: Bdf) -> bool {
    scene.facts.function(bdf).is_none_or(|function| {
        VITAL.contains(&(function.class >> 16)) || function.open == Some(true)
    })
}

fn is_harmless(scene: &Scene<'_>, bdf: Bdf) -> bool {
    scene
        .facts
        .function(bdf)
        .is_some_and(varia_plan::leaves_its_group)
}

/// Compares names of modules: `-` and `_` are the same.
fn same_name(one: &str, other: &str) -> bool {
    one.replace('-', "_") == other.replace('-', "_")
}

/// A GPU whose memory is behind a BAR: the host's firmware has to give the BAR an address.
fn plain(chip: &str, function: &PciFunction) -> Finding {
    let found = format!("{chip}, which has no coherent memory: vfio-pci gives a VM all of it");
    let mut bars = function.bars.iter();
    match bars.find(|bar| bar.address.is_none()) {
        Some(bar) => failure(format!(
            "{found}; BAR{} of {} has no address, because the host's firmware had no room for it",
            bar.index,
            bar.size.rounded()
        ))
        .advise(
            "switch Above 4G Decoding and Re-Size BAR on in the firmware's setup, or boot with \
             pci=realloc",
        ),
        None => ok(found),
    }
}

pub(crate) fn chip(scene: &Scene<'_>) -> Vec<Finding> {
    scene.each(|function| match identity(function) {
        Identity::Known(chip, _) if chip.driver() == Driver::VfioPci => plain(chip.name, function),
        Identity::Known(chip, _) => ok(format!("{}, with coherent memory", chip.name)),
        Identity::Unknown => unknown(format!(
            "{:04x}:{:04x} is an NVIDIA GPU that Varia's chip table does not have: its layout is not \
             known",
            function.vendor, function.device
        ))
        .run(format!("varia doctor --probe {}", function.bdf))
        .advise("or a newer version of Varia, which may know the chip"),
        Identity::Other => not_applicable("not an NVIDIA data-centre GPU"),
    })
}

pub(crate) fn driver(scene: &Scene<'_>) -> Vec<Finding> {
    scene.each(|function| {
        let is_gpu = function.variant.as_deref() == Some(NVGRACE);
        let best = match (is_gpu, function.best_driver.as_deref()) {
            // what is installed is not what it needs
            (true, None | Some("vfio-pci" | "vfio_pci")) => VARIANT,
            (_, Some(best)) => best,
            (false, None) => "vfio-pci",
        };
        let needed = scene.plan.is_some();
        let remedied = |finding: Finding| finding.remedied(remedies(scene, function));
        let Some(driver) = &function.driver else {
            let finding = crate::bad(needed, format!("is bound to no driver; the best is {best}"));
            return remedied(finding);
        };
        if same_name(driver, best) {
            return ok(format!("{driver}, its best"));
        }
        if !is_gpu && !needed {
            return not_applicable(format!(
                "{driver}, which the host may keep; the best for a VM is {best}"
            ));
        }
        if is_gpu && same_name(driver, "vfio-pci") {
            return remedied(failure(format!(
                "vfio-pci, which gives a VM no coherent memory; the best is {best}"
            )));
        }
        let finding = crate::bad(needed, format!("{driver}; the best for a VM is {best}"));
        remedied(finding)
    })
}

/// What to do so that a device is bound to its best driver.
pub(crate) fn remedies(scene: &Scene<'_>, function: &PciFunction) -> Vec<Remedy> {
    let offline = function.online.is_some().then(|| {
        // binding is refused before
        Remedy::Advice("take its memory offline first: see online-memory".to_owned())
    });
    let bind = match bind(scene, function) {
        Some(command) => Remedy::Command(command),
        None => {
            Remedy::Advice("see group: the host may need other members of its group".to_owned())
        }
    };
    offline.into_iter().chain([bind]).collect()
}

/// Command that binds a device with the other members of its group, which are assigned as a whole;
/// `None` if the host may need a member.
fn bind(scene: &Scene<'_>, function: &PciFunction) -> Option<String> {
    let groups = &scene.facts.host.iommu.groups;
    let group = groups
        .iter()
        .find(|group| Some(group.id) == function.iommu_group);
    let members = group
        .map(|group| group.members.as_slice())
        .unwrap_or_default();
    let others = members
        .iter()
        .filter(|bdf| **bdf != function.bdf && !is_harmless(scene, **bdf));
    let mut all = vec![function.bdf];
    for other in others {
        if !scene.devices.contains(other) && may_be_vital(scene, *other) {
            return None;
        }
        all.push(*other);
    }
    if may_be_vital(scene, function.bdf) && !is_gpu(function) {
        return None;
    }
    let all: Vec<String> = all.iter().map(Bdf::to_string).collect();
    Some(format!("varia bind {}", all.join(" ")))
}

/// Reports memory of GPUs that the host uses as RAM.
pub(crate) fn online(scene: &Scene<'_>) -> Vec<Finding> {
    scene.each_gpu(|function| {
        let Some(online) = &function.online else {
            return ok("the host does not use its memory");
        };
        let finding = crate::bad(
            scene.is_for_a_vm(),
            format!(
                "{} of its memory are online as RAM of the host, on {}: no VM can have the GPU",
                online.size,
                online.place()
            ),
        );
        let finding = match online.offline() {
            Some(command) => finding.run(command),
            None => finding.advise("take the memory offline"),
        };
        finding.advise("then bind the GPU: see driver")
    })
}

pub(crate) fn firmware(scene: &Scene<'_>) -> Vec<Finding> {
    scene.each_gpu(|function| {
        let Some(memory) = &function.coherent_memory else {
            let tables = "sys/firmware/acpi/tables";
            let hidden = function.acpi_path.is_none()
                || scene
                    .facts
                    .unread
                    .iter()
                    .any(|unread| unread.path.starts_with(tables));
            return if hidden {
                unknown(
                    "the properties can't be seen from user space: ACPI tables are readable by root \
                     alone, or the function is not in ACPI",
                )
                .advise("run varia doctor as root; a bound variant driver shows them in debugfs")
            } else {
                failure(
                    "firmware has no nvidia,gpu-mem-base-pa and nvidia,gpu-mem-size for it: the \
                     variant driver falls back, and a VM gets no coherent memory",
                )
                .advise("firmware that has the properties; in a VM the function never has them")
            };
        };
        let source = match &memory.source {
            CoherentSource::AcpiDsd(table) => format!("_DSD in {table}"),
            CoherentSource::DeviceTree => "device tree".to_owned(),
        };
        if memory.size.0 == 0 {
            return failure(format!(
                "the size of its memory is 0 ({source}): the link to the CPU is down"
            ))
            .advise("power the machine off and on; if the size stays 0, replace the board");
        }
        if let (true, Some(note)) = (function.virtual_bars.is_empty(), &function.layout_note) {
            return failure(note.clone())
                .advise("update the firmware: its properties do not fit this chip");
        }
        let place = format!(
            "{} at {:#x} ({source})",
            memory.size.rounded(),
            memory.base.0
        );
        match (memory.pxm_start, memory.pxm_count) {
            (Some(start), Some(count)) => {
                ok(format!("{place}, {count} proximity domains from {start}"))
            }
            _ => warning(format!(
                "{place}, without nvidia,gpu-mem-pxm-start and -count: the host's own driver \
                 finds no nodes for the GPU; VMs are not affected"
            ))
            .advise("newer firmware, if the host's own driver is to use the memory"),
        }
    })
}

pub(crate) fn readiness(scene: &Scene<'_>) -> Vec<Finding> {
    scene.each_gpu(|function| match (function.ready, &function.unprobed) {
        (Some(true), _) => ok("its memory is ready"),
        (Some(false), _) => {
            failure("its memory is not ready: a VM that opens the GPU waits until a timeout")
                .advise(
                    "run varia doctor again after 30 seconds; then power the machine off and on",
                )
        }
        (None, Some(why)) => unknown(why.clone()),
        (None, None) => not_applicable(format!(
            "registers are read with --probe only (varia doctor --probe {})",
            function.bdf
        )),
    })
}
