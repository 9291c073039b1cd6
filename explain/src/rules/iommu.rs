//! How GPUs reach the VM's memory: iommufd, and SMMUs that the host's carries out. And what VFIO
//! is told of a device.

use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};
use crate::model::BusKind;

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    devices(case, out);
    iommufd(case, out);
    smmus(case, out);
}

fn devices(case: &Case<'_>, out: &mut Findings) {
    for gpu in &case.gpus {
        let Some(function) = case.function(gpu) else {
            continue;
        };
        let line = function.place.line;
        if function.is_unmapped {
            out.add(
                Code::BarsNotMapped,
                line,
                format!("the BARs of {} are not mapped (x-no-mmap)", gpu.label()),
                "take x-no-mmap away",
                Fix::Mapped(gpu.function),
            );
        }
        if function.has_rom {
            out.add(
                Code::RomShown,
                line,
                format!("the expansion ROM of {} is shown", gpu.label()),
                "leave it out: rombar=0, or <rom bar='off'/>",
                Fix::NoRom(gpu.function),
            );
        }
        if function.driver.as_deref() == Some("vfio-pci") {
            out.add(
                Code::PlainDriver,
                line,
                format!("{} is to be bound to plain vfio-pci", gpu.label()),
                "let libvirt choose the driver, or bind it with varia bind",
                Fix::BestDriver(gpu.function),
            );
        }
    }
}

fn iommufd(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let others: Vec<_> = case
        .gpus
        .iter()
        .filter_map(|gpu| case.function(gpu)?.iommufd.clone())
        .collect();
    for gpu in &case.gpus {
        let Some(function) = case.function(gpu).filter(|function| !function.is_served) else {
            continue;
        };
        let line = function.place.line;
        let has_smmu = case.root_bus(gpu).is_some_and(|(_, bus)| {
            let mut smmus = definition.smmus.iter();
            smmus.any(|smmu| smmu.is_accelerated && smmu.bus.as_deref() == Some(&bus.name))
        });
        match &function.iommufd {
            Some(id)
                if !definition.iommufds.iter().any(|(name, _)| name == id)
                // one object for several: one finding
                && !out
                    .0
                    .iter()
                    .any(|found| found.fix == Some(Fix::AddIommufd(id.clone()))) =>
            {
                out.add(
                    Code::IommufdObject,
                    line,
                    format!(
                        "{} uses the iommufd {id:?}, which is not there",
                        gpu.label()
                    ),
                    format!("add the object: iommufd,id={id}"),
                    Fix::AddIommufd(id.clone()),
                );
            }
            Some(_) => {}
            None if has_smmu || !others.is_empty() || !definition.iommufds.is_empty() => {
                let own = definition.iommufds.iter().map(|(name, _)| name.clone());
                let id = own
                    .chain(others.clone())
                    .next()
                    .unwrap_or_else(|| "iommufd0".to_owned());
                let why = if has_smmu {
                    "while its SMMU is carried out by the host's"
                } else {
                    "while there is one"
                };
                // libvirt has one switch for all
                let is_said = !case.is_qemu() && out.has(&[Code::IommufdMissing]);
                if !is_said {
                    out.add(
                        Code::IommufdMissing,
                        line,
                        format!("{} does not use iommufd, {why}", gpu.label()),
                        format!("let it use it: iommufd={id}"),
                        Fix::UseIommufd {
                            function: gpu.function,
                            id,
                        },
                    );
                }
            }
            None => {}
        }
    }
}

fn smmus(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    // root buses of GPUs, and what is wrong with the SMMUs that might be theirs
    let buses: Vec<_> = case
        .gpus
        .iter()
        .filter_map(|gpu| Some((gpu, case.root_bus(gpu)?)))
        .collect();
    let has_one = |name: &str| {
        let mut smmus = definition.smmus.iter();
        smmus.any(|smmu| smmu.bus.as_deref() == Some(name))
    };
    let mut without: Vec<_> = buses
        .iter()
        .filter(|(_, (_, bus))| !has_one(&bus.name))
        .collect();
    let mut seen = Vec::new();
    for (index, smmu) in definition.smmus.iter().enumerate() {
        let place = smmu.bus.as_deref().and_then(|name| case.bus(name));
        let kind = place
            .and_then(|at| definition.buses.get(at))
            .map(|bus| &bus.kind);
        let is_root = matches!(kind, Some(BusKind::Root | BusKind::Expander { .. }));
        let name = smmu.bus.as_deref().unwrap_or_default();
        let is_other = seen.contains(&name);
        seen.push(name);
        if !is_root || is_other {
            // rules of buses speak of one that ports are on and nothing makes
            if place.is_none()
                && definition
                    .buses
                    .iter()
                    .any(|bus| bus.parent.as_deref() == Some(name))
            {
                continue;
            }
            let own = if without.is_empty() {
                None
            } else {
                Some(without.remove(0))
            };
            out.add(
                Code::SmmuBus,
                smmu.place.line,
                match is_other {
                    true => format!("an SMMU is on the bus {name:?}, which has another"),
                    false => format!("an SMMU is on {name:?}, which is no root bus"),
                },
                match own {
                    Some((gpu, (_, bus))) => format!("put it on {:?}, {}'s", bus.name, gpu.label()),
                    None => "take it away".to_owned(),
                },
                own.map(|(_, (bus, _))| Fix::SmmuBus {
                    smmu: index,
                    bus: *bus,
                }),
            );
            continue;
        }
        let gpu = buses.iter().find(|(_, (_, bus))| bus.name == name);
        if let Some((gpu, _)) =
            gpu.filter(|(gpu, _)| !smmu.is_accelerated && is_hardware(case, gpu))
        {
            out.add(
                Code::SmmuNotAccelerated,
                smmu.place.line,
                format!("the SMMU of {} is emulated", gpu.label()),
                "let the host's SMMU carry it out: accel=on",
                Fix::Accelerate(index),
            );
        }
    }
    if seen.is_empty() {
        return;
    }
    for (gpu, (bus, _)) in without
        .into_iter()
        .filter(|(gpu, _)| is_hardware(case, gpu))
    {
        out.add(
            Code::SmmuMissing,
            case.line(gpu),
            format!("{} has no SMMU, while other GPUs have one", gpu.label()),
            "add an arm-smmuv3 with accel=on to its root bus",
            Fix::AddSmmu { bus: *bus },
        );
    }
}

fn is_hardware(case: &Case<'_>, gpu: &crate::case::Subject) -> bool {
    case.function(gpu)
        .is_some_and(|function| !function.is_served)
}
