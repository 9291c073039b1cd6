//! DMA of GPUs: iommufd and accelerated SMMUs. And the options of a device.

use std::collections::BTreeSet;

use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings, Value, optional};
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
                &[("gpu", &gpu.label())],
                Fix::Mapped(gpu.function),
            );
        }
        if function.has_rom && !function.open.is("rombar") {
            out.add(
                Code::RomShown,
                line,
                &[("gpu", &gpu.label())],
                Fix::NoRom(gpu.function),
            );
        }
        if function.driver.as_deref() == Some("vfio-pci") {
            out.add(
                Code::PlainDriver,
                line,
                &[("gpu", &gpu.label())],
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
    let mut absent = BTreeSet::new();
    for gpu in &case.gpus {
        let Some(function) = case.function(gpu).filter(|function| !function.is_served) else {
            continue;
        };
        if function.open.is("iommufd") {
            continue;
        }
        let line = function.place.line;
        let smmu = case.root_bus(gpu).filter(|(_, bus)| {
            let mut smmus = definition.smmus.iter();
            smmus.any(|smmu| smmu.is_accelerated && smmu.bus.as_deref() == Some(&bus.name))
        });
        match &function.iommufd {
            Some(id) => {
                let is_there = definition.iommufds.iter().any(|(name, _)| name == id);
                // one object for several GPUs: one finding
                if !is_there && !definition.scope.has_more && absent.insert(id) {
                    let taken = definition.ids.iter().find(|one| one.id == *id);
                    out.add(
                        Code::IommufdObject,
                        line,
                        &[
                            ("gpu", &gpu.label()),
                            ("iommufd", id),
                            ("taken", &optional(taken.map(|one| &one.id))),
                        ],
                        taken.is_none().then(|| Fix::AddIommufd(id.clone())),
                    );
                }
            }
            None if smmu.is_some() || !others.is_empty() || !definition.iommufds.is_empty() => {
                let own = definition.iommufds.iter().map(|(name, _)| name.clone());
                let id = own
                    .chain(others.clone())
                    .next()
                    .unwrap_or_else(|| "iommufd0".to_owned());
                // libvirt has one switch for all, and one for a function
                let is_alone = function.refuses_iommufd;
                let code = match smmu {
                    Some(_) => Code::IommufdMissing,
                    None => Code::IommufdMixed,
                };
                if !case.is_qemu() && !is_alone && out.has(&[code]) {
                    continue;
                }
                if is_alone && smmu.is_none() {
                    continue;
                }
                let refused = Some(gpu.label()).filter(|_| function.refuses_iommufd);
                let values: &[Value<'_>] = &[
                    ("gpu", &gpu.label()),
                    ("refused", &optional(refused)),
                    ("smmu", &optional(smmu.map(|(_, bus)| &bus.name))),
                    ("iommufd", &id.clone()),
                ];
                let fix = Fix::UseIommufd {
                    function: gpu.function,
                    id,
                };
                out.add(code, line, values, fix);
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
        if smmu.open.is("primary-bus") {
            continue;
        }
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
                &[
                    (
                        if is_other { "shared" } else { "bus" },
                        &format!("{name:?}"),
                    ),
                    ("root", &optional(own.map(|(_, (_, bus))| &bus.name))),
                    ("gpu", &optional(own.map(|(gpu, _)| gpu.label()))),
                ],
                own.map(|(_, (bus, _))| Fix::SmmuBus {
                    smmu: index,
                    bus: *bus,
                }),
            );
            continue;
        }
        if smmu.open.is("accel") {
            continue;
        }
        let gpu = buses.iter().find(|(_, (_, bus))| bus.name == name);
        let is_gpus = gpu.is_some_and(|(gpu, _)| is_hardware(case, gpu));
        if !smmu.is_accelerated && !is_gpus && !smmu.accelerated_only.is_empty() {
            let names = smmu.accelerated_only.clone();
            out.add(
                Code::SmmuOption,
                smmu.place.line,
                &[("bus", &name), ("options", &names.join(", "))],
                Fix::SmmuOptions { smmu: index, names },
            );
        }
        if let Some((gpu, _)) =
            gpu.filter(|(gpu, _)| !smmu.is_accelerated && is_hardware(case, gpu))
        {
            out.add(
                Code::SmmuNotAccelerated,
                smmu.place.line,
                &[("gpu", &gpu.label())],
                Fix::Accelerate(index),
            );
        }
    }
    let mut smmus = definition.smmus.iter();
    if seen.is_empty()
        || definition.scope.has_open_options
        || smmus.any(|smmu| smmu.open.is("primary-bus"))
    {
        return;
    }
    for (gpu, (bus, _)) in without
        .into_iter()
        .filter(|(gpu, _)| is_hardware(case, gpu))
    {
        out.add(
            Code::SmmuMissing,
            case.line(gpu),
            &[("gpu", &gpu.label())],
            Fix::AddSmmu { bus: *bus },
        );
    }
}

fn is_hardware(case: &Case<'_>, gpu: &Subject) -> bool {
    case.function(gpu)
        .is_some_and(|function| !function.is_served)
}
