//! Checks before a device is bound, and the choice of its driver.

use varia_facts::{Bdf, GroupId};

use super::Request;
use super::machine::Host;
use super::memory::Lack;
use super::refusal::BindError;
use super::transition::State;
use crate::inventory::{Extent, Inventory, functions_folder};
use crate::matching::{Aliases, Modalias, VFIO_PCI, Why, is_installed, module_name, same_name};
use crate::tree::Tree;
use crate::users::users;

const DRIVERS: &str = "sys/bus/pci/drivers";
/// Drivers that may stay in a group of a VM, because they do no DMA of their own. VFIO drivers are
/// recognized by their aliases. Source: `driver_managed_dma` in Linux 7.2.
const HARMLESS: [&str; 3] = [VFIO_PCI, "pci-stub", "pcieport"];

/// A driver to bind to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Name of the driver or of its module, in either spelling.
    pub name: String,
}

impl Driver {
    /// The driver with the name `name`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }
}

/// A device and its chosen driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The device.
    pub bdf: Bdf,
    /// Current state of the device.
    pub before: State,
    /// The chosen driver.
    pub driver: Driver,
    /// True if the device is already bound to the driver.
    pub bound: bool,
    /// Reason for the choice of the driver.
    pub why: String,
    /// Lack of the device's memory in a VM.
    pub without_memory: Option<Lack>,
    /// IOMMU group of the device.
    pub group: GroupId,
    /// Other members of the group, with their drivers.
    pub members: Vec<(Bdf, Option<String>)>,
}

/// The devices without repetition, in order.
pub(super) fn distinct(devices: &[Bdf]) -> Vec<Bdf> {
    let mut distinct = Vec::new();
    for bdf in devices {
        if !distinct.contains(bdf) {
            distinct.push(*bdf);
        }
    }
    distinct
}

/// Checks all devices and their groups.
pub(super) fn bind(host: &dyn Host, request: &Request) -> Result<Vec<Chosen>, BindError> {
    let tree = host.tree();
    let release = tree.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let aliases = Aliases::of(tree, &release);
    let devices = distinct(&request.devices);
    let mut all = Vec::new();
    for &bdf in &devices {
        let (before, modalias) = current_state(tree, bdf)?;
        let (name, why) = match request.driver_of(bdf) {
            Some(name) => {
                check_name(name)?;
                let why = match request.drivers.contains_key(&bdf) {
                    true => "saved by --persist",
                    false => "requested with --driver",
                };
                (name.clone(), why.to_owned())
            }
            None => {
                let best = aliases.choose(&modalias);
                let is_missing = matches!(
                    best.why,
                    Why::Unreleased { .. }
                        | Why::Unlisted {
                            installed: false,
                            ..
                        }
                );
                if is_missing && registered(tree, &best.module).is_none() {
                    return Err(BindError::NoVariant {
                        bdf,
                        driver: best.module,
                        why: best.why.to_string(),
                    });
                }
                (best.module, best.why.to_string())
            }
        };
        let group = group_of(tree, bdf).ok_or(BindError::NoIommu { bdf })?;
        let members = members(tree, group, bdf);
        let foreign: Vec<_> = members
            .iter()
            .filter(|(member, driver)| {
                let harmless = |driver: &String| {
                    aliases.has_module(driver) || HARMLESS.iter().any(|h| same_name(h, driver))
                };
                !devices.contains(member) && !driver.as_ref().is_none_or(harmless)
            })
            .map(|(member, driver)| format!("{member} ({})", driver.as_deref().unwrap_or_default()))
            .collect();
        if !foreign.is_empty() {
            return Err(BindError::Group {
                bdf,
                group,
                others: foreign.join(", "),
            });
        }
        let bound = before
            .driver
            .as_ref()
            .is_some_and(|driver| same_name(driver, &name));
        if !bound {
            check_unused(tree, bdf, Some(group))?;
            check_offline(tree, bdf)?;
        }
        all.push(Chosen {
            bdf,
            before,
            driver: Driver { name },
            bound,
            why,
            without_memory: None,
            group,
            members,
        });
    }
    Ok(all)
}

/// Checks a device whose previous driver is to be restored; returns the device's state.
pub(super) fn unbind(host: &dyn Host, bdf: Bdf) -> Result<State, BindError> {
    let tree = host.tree();
    let (before, _) = current_state(tree, bdf)?;
    check_unused(tree, bdf, group_of(tree, bdf))?;
    Ok(before)
}

/// IOMMU group of a device.
pub(super) fn group_of(tree: &Tree, bdf: Bdf) -> Option<GroupId> {
    let name = tree.link_name(&format!("{}/iommu_group", functions_folder(bdf)))?;
    name.parse().ok().map(GroupId)
}

/// State and identity of a device that is no bridge.
pub(super) fn current_state(tree: &Tree, bdf: Bdf) -> Result<(State, Modalias), BindError> {
    let folder = functions_folder(bdf);
    let modalias = tree
        .text(&format!("{folder}/modalias"))
        .and_then(|text| text.parse::<Modalias>().ok());
    let (Some(state), Some(modalias)) = (State::of(tree, bdf), modalias) else {
        return Err(BindError::NoFunction { bdf });
    };
    // class 06, subclass 04: PCI-to-PCI bridge
    if modalias.class() >> 8 == 0x0604 {
        return Err(BindError::Bridge { bdf });
    }
    Ok((state, modalias))
}

fn members(tree: &Tree, group: GroupId, own: Bdf) -> Vec<(Bdf, Option<String>)> {
    let folder = format!("sys/kernel/iommu_groups/{group}/devices");
    let names = tree.list(&folder).unwrap_or_default();
    names
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|bdf| *bdf != own)
        .map(|bdf| {
            let driver = tree.link_name(&format!("{}/driver", functions_folder(bdf)));
            (bdf, driver)
        })
        .collect()
}

fn check_unused(tree: &Tree, bdf: Bdf, group: Option<GroupId>) -> Result<(), BindError> {
    match users(tree, bdf, group).first() {
        None => Ok(()),
        Some(user) => Err(BindError::InUse {
            bdf,
            user: user.to_string(),
            remedy: user.remedy(),
        }),
    }
}

/// Checks that no memory of a GPU is online as RAM of the host.
fn check_offline(tree: &Tree, bdf: Bdf) -> Result<(), BindError> {
    let Ok(inventory) = Inventory::of(tree, Extent::Served) else {
        return Ok(());
    };
    let function = inventory.facts.function(bdf);
    match function.and_then(|function| function.online.as_ref()) {
        None => Ok(()),
        Some(online) => Err(BindError::Online {
            bdf,
            size: online.size,
            place: online.place(),
            command: online
                .offline()
                .unwrap_or_else(|| "daxctl offline-memory".to_owned()),
        }),
    }
}

/// Checks that the driver of a dry run exists, as far as sysfs and the lists of modules say.
pub(super) fn check_driver(tree: &Tree, driver: &Driver) -> Result<(), BindError> {
    let release = tree.text("proc/sys/kernel/osrelease").unwrap_or_default();
    let is_known = registered(tree, &driver.name).is_some();
    if is_known || is_installed(tree, &release, &driver.name) != Some(false) {
        return Ok(());
    }
    Err(BindError::NoDriver {
        driver: driver.name.clone(),
        why: format!("neither sysfs nor /lib/modules/{release}/modules.dep has it"),
    })
}

/// Checks that a name can be a driver's name; modprobe checks that the driver exists.
pub(super) fn check_name(name: &str) -> Result<(), BindError> {
    let may_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(may_name) {
        return Err(BindError::NoDriver {
            driver: name.escape_debug().to_string(),
            why: "the name can't be a module's name".to_owned(),
        });
    }
    Ok(())
}

/// Loads a driver if needed; returns the driver's name as sysfs spells it.
pub(super) fn load(host: &mut dyn Host, driver: &Driver) -> Result<String, BindError> {
    if let Some(name) = registered(host.tree(), &driver.name) {
        return Ok(name);
    }
    let loaded = host.load(&driver.name);
    registered(host.tree(), &driver.name).ok_or_else(|| BindError::NoDriver {
        driver: driver.name.clone(),
        why: match loaded {
            Ok(()) => "the module is loaded and has no PCI driver of this name".to_owned(),
            Err(why) => why,
        },
    })
}

/// The PCI driver with a name, or the PCI driver of the module with the name.
fn registered(tree: &Tree, name: &str) -> Option<String> {
    let drivers = tree.list(DRIVERS).unwrap_or_default();
    if let Some(driver) = drivers.into_iter().find(|driver| same_name(driver, name)) {
        return Some(driver);
    }
    let of_module = format!("sys/module/{}/drivers", module_name(name));
    let drivers = tree.list(&of_module).unwrap_or_default();
    drivers
        .iter()
        .find_map(|driver| driver.strip_prefix("pci:").map(str::to_owned))
}
