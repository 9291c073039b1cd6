//! The state machine: what is handed out, and to whom.
//!
//! Every change goes to disk before it is carried out. The caller holds one lock around all calls,
//! and says what time it is; nothing here waits.

mod drivers;
mod judge;
mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use varia_allocate::{Device, Health, Pool};
use varia_facts::{Bdf, Facts, PciFunction};
use varia_linux::bind;
use varia_linux::error_counters::Uncorrectable;
use varia_linux::inventory::{Extent, Inventory, functions_folder};
use varia_linux::probe;
use varia_linux::users::users;

use crate::answer::answer;
use crate::device_plugin_api as api;
use crate::holds::{Holds, Pod};
use crate::machine::Machine;
use crate::metrics::Counts;
use crate::settings::Settings;
use crate::snapshot::{Snapshot, preferred};
use crate::status::topology_warning;
use drivers::{bind_request, locked, recover, restore};

/// Devices that pods have, by the kubelet.
pub type Listing = BTreeMap<Bdf, Pod>;

/// Readiness of a device before a container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The memory can be used.
    Ready,
    /// The memory can't be used yet.
    NotReady,
    /// The readiness can't be read, with the reason.
    Unknown(String),
}

/// A host whose devices are handed out.
pub struct Node<M> {
    machine: M,
    settings: Settings,
    facts: Facts,
    pool: Pool,
    holds: Holds,
    /// Last listing that names the pod of a hold; the first one of an unbroken series if none does.
    seen: BTreeMap<Bdf, Duration>,
    /// Counts of errors at which a device had none yet.
    baseline: BTreeMap<Bdf, Uncorrectable>,
    /// Facts of devices that could be bound when they were checked.
    checked: BTreeMap<Bdf, PciFunction>,
    /// Devices that were woken for a start.
    woken: BTreeSet<Bdf>,
    /// A change of the holds is not on disk yet.
    unsaved: bool,
    /// Failure of the last refresh.
    unread: Option<String>,
    counts: Arc<Counts>,
}

impl<M: Machine> Node<M> {
    /// A node with the holds of the last process of this boot. A change of drivers that was
    /// interrupted is undone or completed.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn new(mut machine: M, settings: Settings) -> Result<Self, String> {
        let holds = locked(&mut machine, &mut |host| {
            recover(host)?;
            Holds::load(host)
        })?;
        let inventory =
            Inventory::of(machine.tree(), Extent::Served).map_err(|error| error.to_string())?;
        for (bdf, hold) in &holds.devices {
            let pod = hold.pod.as_ref();
            let pod = pod.map_or_else(|| "not known yet".to_owned(), Pod::to_string);
            log::info!("event=restored device={bdf} pod={pod:?}");
        }
        if let Some(warning) = topology_warning(inventory.facts.host.nodes.len()) {
            log::warn!("event=topology found={warning:?}");
        }
        let mut node = Self {
            seen: BTreeMap::new(),
            machine,
            settings,
            facts: inventory.facts,
            pool: Pool::default(),
            holds,
            baseline: BTreeMap::new(),
            checked: BTreeMap::new(),
            woken: BTreeSet::new(),
            unsaved: false,
            unread: None,
            counts: Arc::default(),
        };
        node.judge();
        Ok(node)
    }

    /// Name of the pod that has a device; empty if no pod is known.
    fn pod(&self, bdf: Bdf) -> String {
        let hold = self.holds.devices.get(&bdf);
        let pod = hold.and_then(|hold| hold.pod.as_ref());
        pod.map(Pod::to_string).unwrap_or_default()
    }

    /// Names of the resources: one for each chip.
    #[must_use]
    pub fn resources(&self) -> BTreeSet<String> {
        let devices = self.pool.devices().iter();
        devices
            .map(|device| resource_name(&self.settings.domain, device.chip))
            .collect()
    }

    fn of_resource<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Device> {
        let devices = self.pool.devices().iter();
        devices.filter(move |one| resource_name(&self.settings.domain, one.chip) == resource)
    }

    /// Devices of a resource for the kubelet.
    #[must_use]
    pub fn devices(&self, resource: &str) -> Vec<api::Device> {
        let device = |device: &Device| {
            let node = device.cpu_node.map(|node| api::NumaNode {
                id: i64::from(node.0),
            });
            api::Device {
                id: device.bdf.to_string(),
                health: if self.is_offered(device) {
                    "Healthy"
                } else {
                    "Unhealthy"
                }
                .to_owned(),
                // the kubelet refuses a list of nodes that is empty
                topology: node.map(|node| api::TopologyInfo { nodes: vec![node] }),
            }
        };
        self.of_resource(resource).map(device).collect()
    }

    /// A device is offered if it is allocatable, and if no pod has another GPU of its IOMMU group
    /// without this one.
    fn is_offered(&self, device: &Device) -> bool {
        let held = |bdf: &Bdf| self.holds.devices.contains_key(bdf);
        let is_reserved =
            !held(&device.bdf) && self.pool.group_of(device.bdf).any(|other| held(&other.bdf));
        device.health.is_allocatable() && !is_reserved
    }

    /// The best set of devices, by address.
    ///
    /// # Errors
    /// The constraint that the request does not meet.
    pub fn preferred(
        &self,
        available: &[String],
        must: &[String],
        size: usize,
    ) -> Result<Vec<String>, String> {
        preferred(&self.pool, available, must, size)
    }

    /// Hands devices out to the containers of a pod: all, or none.
    ///
    /// # Errors
    /// A sentence with the constraint; nothing is handed out and nothing is bound.
    pub fn allocate(
        &mut self,
        resource: &str,
        containers: &[Vec<String>],
    ) -> Result<Vec<api::ContainerAllocateResponse>, String> {
        let result = self.try_allocate(resource, containers);
        self.counts.allocation(resource, result.is_ok());
        if let Err(why) = &result {
            log::error!("event=refused devices={containers:?} found={why:?}");
        }
        result
    }

    fn try_allocate(
        &mut self,
        resource: &str,
        containers: &[Vec<String>],
    ) -> Result<Vec<api::ContainerAllocateResponse>, String> {
        let containers: Vec<Vec<Bdf>> = containers
            .iter()
            .map(|devices| addresses(devices))
            .collect::<Result<_, _>>()?;
        // health may have changed since the last refresh
        self.refresh()?;
        let wanted: BTreeSet<Bdf> = containers.iter().flatten().copied().collect();
        for bdf in &wanted {
            let mut all = self.of_resource(resource);
            if self.pool.device(*bdf).is_some() && !all.any(|device| device.bdf == *bdf) {
                return Err(format!(
                    "{bdf} is not a device of {resource}: ask for its own resource"
                ));
            }
        }
        if let Some(unseen) = self.machine.unseen() {
            return Err(unseen);
        }
        let taken = self.taken(&wanted);
        let refused = |refusal: varia_allocate::Refusal| refusal.to_string();
        let mut allocations = self.pool.allocate(&containers, &taken).map_err(refused)?;
        let to_bind: BTreeSet<Bdf> = allocations
            .iter()
            .flat_map(|allocation| &allocation.to_bind)
            .copied()
            .collect();
        let before = self.holds.clone();
        for bdf in &wanted {
            let device = self.pool.device(*bdf);
            let together = device.map(|device| device.bound_together.as_slice());
            let together = together.unwrap_or_default().iter();
            let hold = self.holds.devices.entry(*bdf).or_default();
            hold.bound
                .extend(together.filter(|member| to_bind.contains(member)));
            hold.pod = None;
        }
        let made = self.bind_and_answer(resource, &to_bind, &containers, &mut allocations);
        match made {
            Ok(answers) => {
                self.seen.retain(|bdf, _| !wanted.contains(bdf));
                for allocation in &allocations {
                    log::info!(
                        "event=allocated devices={:?} egm={:?} bound={:?} why={:?}",
                        texts(&allocation.devices),
                        allocation.egm,
                        texts(&to_bind),
                        allocation.reasons.join("; ")
                    );
                }
                Ok(answers)
            }
            Err(why) => {
                self.take_back(before, &to_bind);
                Err(why)
            }
        }
    }

    /// Saves the holds, binds the devices and makes the answers.
    fn bind_and_answer(
        &mut self,
        resource: &str,
        to_bind: &BTreeSet<Bdf>,
        containers: &[Vec<Bdf>],
        allocations: &mut Vec<varia_allocate::Allocation>,
    ) -> Result<Vec<api::ContainerAllocateResponse>, String> {
        let holds = &self.holds;
        locked(&mut self.machine, &mut |host| {
            recover(host)?;
            holds.save(host)?;
            if to_bind.is_empty() {
                return Ok(());
            }
            let bound = bind::bind(host, &bind_request(to_bind));
            bound.map(|_| ()).map_err(|error| error.to_string())
        })?;
        if !to_bind.is_empty() {
            self.refresh()?;
            let checked = self.pool.allocate(containers, &BTreeMap::new());
            *allocations = checked.map_err(|refusal| refusal.to_string())?;
            let left = allocations.iter().any(|one| !one.to_bind.is_empty());
            if left {
                return Err(
                    "the driver that was bound is not the best one: see `varia list`".into(),
                );
            }
        }
        let tree = self.machine.tree();
        let access = self.settings.access;
        allocations
            .iter()
            .map(|allocation| answer(tree, &self.facts, allocation, access, resource))
            .collect()
    }

    /// Restores holds and drivers after an allocation that failed.
    fn take_back(&mut self, before: Holds, to_bind: &BTreeSet<Bdf>) {
        self.checked.clear();
        let bound: Vec<Bdf> = to_bind.iter().copied().collect();
        let restored = locked(&mut self.machine, &mut |host| {
            restore(host, &bound)?;
            before.save(host)
        });
        match restored {
            Ok(()) => self.holds = before,
            // the hold stays until a later release restores the drivers
            Err(why) => log::error!("event=kept devices={:?} found={why:?}", texts(&bound)),
        }
        // the failure of a refresh is told by the next one
        let _ = self.refresh();
    }

    /// Devices with a user: those that a process has open, and held devices that are not wanted.
    fn taken(&self, wanted: &BTreeSet<Bdf>) -> BTreeMap<Bdf, String> {
        let tree = self.machine.tree();
        let mut taken = BTreeMap::new();
        for (bdf, hold) in &self.holds.devices {
            if !wanted.contains(bdf) {
                let holder = match &hold.pod {
                    Some(pod) => format!("the pod {pod}"),
                    None => "a pod that is starting".to_owned(),
                };
                taken.insert(*bdf, holder);
            }
        }
        for bdf in wanted {
            let group = self.pool.device(*bdf).and_then(|device| device.group);
            if let Some(user) = users(tree, *bdf, group).first() {
                taken.insert(*bdf, user.to_string());
            }
        }
        taken
    }

    /// Prepares devices for the start of a container: binds drivers that were lost in a restart of
    /// the machine, and wakes the devices.
    ///
    /// # Errors
    /// A sentence with the device and the remedy.
    pub fn start(&mut self, resource: &str, devices: &[String]) -> Result<Vec<Bdf>, String> {
        let wanted = addresses(devices)?;
        self.refresh()?;
        let is_held = |bdf: &Bdf| self.holds.devices.contains_key(bdf);
        let is_bound = |bdf: &Bdf| {
            let device = self.pool.device(*bdf);
            device.is_some_and(|device| device.health == Health::Healthy)
        };
        if !wanted.iter().all(|bdf| is_held(bdf) && is_bound(bdf)) {
            self.try_allocate(resource, &[devices.to_vec()])?;
        }
        let woken = &mut self.woken;
        locked(&mut self.machine, &mut |host| {
            for bdf in &wanted {
                // a device that an operator keeps awake stays awake
                let path = power_control(*bdf);
                let may_sleep = host.tree().text(&path).is_some_and(|text| text == "auto");
                // where sysfs can't be written the readiness is not known, which is told later
                if may_sleep && host.write(&path, "on").is_ok() {
                    woken.insert(*bdf);
                }
            }
            Ok(())
        })?;
        Ok(wanted)
    }

    /// Lets devices sleep again that [`Node::start`] woke.
    pub fn started(&mut self, devices: &[Bdf]) {
        let woken: Vec<Bdf> = devices
            .iter()
            .copied()
            .filter(|bdf| self.woken.remove(bdf))
            .collect();
        if woken.is_empty() {
            return;
        }
        let slept = locked(&mut self.machine, &mut |host| {
            for bdf in &woken {
                let path = power_control(*bdf);
                host.write(&path, "auto").map_err(|error| {
                    format!("can't write /{path}: {error}: the device stays awake")
                })?;
            }
            Ok(())
        });
        if let Err(why) = slept {
            log::warn!("event=awake devices={:?} found={why:?}", texts(&woken));
        }
    }

    /// Readiness of a device that is about to be used.
    #[must_use]
    pub fn readiness(&self, bdf: Bdf) -> Readiness {
        let tree = self.machine.tree();
        let Some(mut function) = self.facts.function(bdf).cloned() else {
            return Readiness::Unknown(format!("{bdf} is gone"));
        };
        if let Some(unseen) = self.machine.unseen() {
            return Readiness::Unknown(unseen);
        }
        if let Some(user) = users(tree, bdf, function.iommu_group).first() {
            // its user may be resetting it
            return Readiness::Unknown(format!("{user} uses {bdf}"));
        }
        match probe::read_registers(tree, &mut function, self.facts.kernel.page_size) {
            Err(why) => Readiness::Unknown(why),
            Ok(()) => match function.ready {
                Some(true) => Readiness::Ready,
                Some(false) => Readiness::NotReady,
                None => Readiness::Unknown("the device has no registers of readiness".to_owned()),
            },
        }
    }

    /// Devices that are handed out.
    #[must_use]
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// The GPUs of the host.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Settings of the process.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The host.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Ends the state machine as the end of its process does.
    #[must_use]
    pub fn into_machine(self) -> M {
        self.machine
    }

    /// Counts since the process started.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// The state as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let resources = self.resources().into_iter();
        Snapshot {
            devices: resources
                .map(|resource| {
                    let devices = self.devices(&resource);
                    (resource, devices)
                })
                .collect(),
            pool: self.pool.clone(),
            holds: self.holds.clone(),
            unread: self.unread.clone(),
        }
    }

    /// Metrics as Prometheus text.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.counts
            .text(&self.settings.domain, &self.pool, &self.holds)
    }
}

/// Name of the resource of a chip: `varia.vfio/gh200`.
#[must_use]
pub fn resource_name(domain: &str, chip: &str) -> String {
    format!("{domain}/{}", chip.to_lowercase().replace(' ', "-"))
}

/// Addresses in a request of the kubelet.
pub(crate) fn addresses(ids: &[String]) -> Result<Vec<Bdf>, String> {
    let parse = |id: &String| {
        id.parse().map_err(|_| {
            format!(
                "{:?} is not an address of a GPU: the kubelet's records are of another plugin, or \
                 damaged",
                id.chars().take(80).collect::<String>()
            )
        })
    };
    ids.iter().map(parse).collect()
}

/// File that lets a device sleep, or not.
fn power_control(bdf: Bdf) -> String {
    format!("{}/power/control", functions_folder(bdf))
}

fn texts<'a>(devices: impl IntoIterator<Item = &'a Bdf>) -> Vec<String> {
    devices.into_iter().map(Bdf::to_string).collect()
}
