//! Metrics as Prometheus text. Source of the format: "Exposition formats", version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use varia_allocate::{Health, Pool};

use crate::holds::Holds;
use crate::node::resource_name;

/// Counts since the process started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    granted: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    registrations: BTreeMap<String, u64>,
    releases: u64,
    unlisted: u64,
    waits: u64,
    timeouts: u64,
    waited: Duration,
}

impl Counts {
    pub(crate) fn allocation(&mut self, resource: &str, granted: bool) {
        let counts = if granted {
            &mut self.granted
        } else {
            &mut self.refused
        };
        *counts.entry(resource.to_owned()).or_insert(0) += 1;
    }

    pub(crate) fn registered(&mut self, resource: &str) {
        *self.registrations.entry(resource.to_owned()).or_insert(0) += 1;
    }

    pub(crate) fn released(&mut self) {
        self.releases += 1;
    }

    pub(crate) fn unlisted(&mut self) {
        self.unlisted += 1;
    }

    pub(crate) fn waited(&mut self, time: Duration, is_ready: bool) {
        self.waits += 1;
        self.timeouts += u64::from(!is_ready);
        self.waited = self.waited.saturating_add(time);
    }

    /// All metrics.
    pub(crate) fn text(&self, domain: &str, pool: &Pool, holds: &Holds) -> String {
        let mut text = Text::default();
        let mut states: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for device in pool.devices() {
            let resource = resource_name(domain, device.chip);
            for state in ["healthy", "bindable", "unhealthy"] {
                let count = states.entry((resource.clone(), state)).or_insert(0);
                *count += u64::from(state == state_of(&device.health));
            }
        }
        text.metric("varia_node_devices", "gauge", "GPUs by state.");
        for ((resource, state), count) in &states {
            let labels = [("resource", resource.as_str()), ("state", state)];
            text.value("varia_node_devices", &labels, count);
        }
        let reasons = "varia_node_unhealthy";
        text.metric(
            reasons,
            "gauge",
            "1 for each reason why a GPU is not healthy, with the pod that has the GPU.",
        );
        for device in pool.devices() {
            let hold = holds.devices.get(&device.bdf);
            let pod = hold.and_then(|hold| hold.pod.as_ref());
            let bdf = device.bdf.to_string();
            for reason in device.health.reasons() {
                let labels = [
                    ("device", bdf.as_str()),
                    ("reason", reason.constraint.name()),
                    ("namespace", pod.map_or("", |pod| &pod.namespace)),
                    ("pod", pod.map_or("", |pod| &pod.name)),
                ];
                text.value(reasons, &labels, &1);
            }
        }
        let held = "varia_node_held";
        text.metric(held, "gauge", "1 for each GPU that is handed out.");
        for (bdf, hold) in &holds.devices {
            let bdf = bdf.to_string();
            let pod = hold.pod.as_ref();
            let labels = [
                ("device", bdf.as_str()),
                ("namespace", pod.map_or("", |pod| &pod.namespace)),
                ("pod", pod.map_or("", |pod| &pod.name)),
            ];
            text.value(held, &labels, &1);
        }
        let name = "varia_node_allocations_total";
        text.metric(name, "counter", "Requests of the kubelet by result.");
        for (result, counts) in [("granted", &self.granted), ("refused", &self.refused)] {
            for (resource, count) in counts {
                text.value(name, &[("resource", resource), ("result", result)], count);
            }
        }
        let name = "varia_node_registrations_total";
        text.metric(name, "counter", "Registrations at the kubelet.");
        for (resource, count) in &self.registrations {
            text.value(name, &[("resource", resource)], count);
        }
        let name = "varia_node_releases_total";
        text.metric(name, "counter", "GPUs that were released.");
        text.value(name, &[], &self.releases);
        let name = "varia_node_unlisted_total";
        text.metric(
            name,
            "counter",
            "Failed listings of the kubelet's pods, and restarts of its socket: each begins the delay of releases anew.",
        );
        text.value(name, &[], &self.unlisted);
        let name = "varia_node_readiness_wait_seconds";
        text.metric(name, "summary", "Waits for the memory of a GPU.");
        text.value(&format!("{name}_sum"), &[], &self.waited.as_secs_f64());
        text.value(&format!("{name}_count"), &[], &self.waits);
        let name = "varia_node_readiness_timeouts_total";
        text.metric(name, "counter", "Waits that ended without readiness.");
        text.value(name, &[], &self.timeouts);
        text.0
    }
}

fn state_of(health: &Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Bindable { .. } => "bindable",
        Health::Unhealthy(_) => "unhealthy",
    }
}

/// Text of metrics.
#[derive(Default)]
struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // writing to a string can't fail
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: &dyn std::fmt::Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// Value of a label.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}
