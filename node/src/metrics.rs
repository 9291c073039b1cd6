//! Metrics as Prometheus text. Source of the format: "Exposition formats", version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use varia_allocate::{Health, Pool};

use crate::holds::Holds;
use crate::node::resource_name;

/// Counts since the process started, which are locked only while a number is read or changed.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    granted: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    registrations: BTreeMap<String, u64>,
    releases: u64,
    unlisted: u64,
    waiting: u64,
    waits: u64,
    timeouts: u64,
    waited: Duration,
}

/// A start that waits for memory, until it is dropped.
pub(crate) struct Waiting(Arc<Counts>);

impl Waiting {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        counts.numbers().waiting += 1;
        Self(counts)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut numbers = self.0.numbers();
        numbers.waiting = numbers.waiting.saturating_sub(1);
    }
}

impl Counts {
    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn allocation(&self, resource: &str, granted: bool) {
        let mut numbers = self.numbers();
        let counts = if granted {
            &mut numbers.granted
        } else {
            &mut numbers.refused
        };
        *counts.entry(resource.to_owned()).or_insert(0) += 1;
    }

    pub(crate) fn registered(&self, resource: &str) {
        let mut numbers = self.numbers();
        let count = numbers.registrations.entry(resource.to_owned());
        *count.or_insert(0) += 1;
    }

    pub(crate) fn released(&self) {
        self.numbers().releases += 1;
    }

    pub(crate) fn unlisted(&self) {
        self.numbers().unlisted += 1;
    }

    pub(crate) fn waited(&self, time: Duration, is_ready: bool) {
        let mut numbers = self.numbers();
        numbers.waits += 1;
        numbers.timeouts += u64::from(!is_ready);
        numbers.waited = numbers.waited.saturating_add(time);
    }

    /// All metrics.
    pub(crate) fn text(&self, domain: &str, pool: &Pool, holds: &Holds) -> String {
        let numbers = self.numbers();
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
        for (result, counts) in [("granted", &numbers.granted), ("refused", &numbers.refused)] {
            for (resource, count) in counts {
                text.value(name, &[("resource", resource), ("result", result)], count);
            }
        }
        let name = "varia_node_registrations_total";
        text.metric(name, "counter", "Registrations at the kubelet.");
        for (resource, count) in &numbers.registrations {
            text.value(name, &[("resource", resource)], count);
        }
        let name = "varia_node_releases_total";
        text.metric(name, "counter", "GPUs that were released.");
        text.value(name, &[], &numbers.releases);
        let name = "varia_node_unlisted_total";
        text.metric(
            name,
            "counter",
            "Failed listings of the kubelet's pods, and restarts of its socket: each begins the delay of releases anew.",
        );
        text.value(name, &[], &numbers.unlisted);
        let name = "varia_node_readiness_wait_seconds";
        text.metric(name, "summary", "Waits for the memory of a GPU.");
        text.value(&format!("{name}_sum"), &[], &numbers.waited.as_secs_f64());
        text.value(&format!("{name}_count"), &[], &numbers.waits);
        let name = "varia_node_readiness_waiting";
        text.metric(
            name,
            "gauge",
            "Starts that wait for the memory of a GPU now.",
        );
        text.value(name, &[], &numbers.waiting);
        let name = "varia_node_readiness_timeouts_total";
        text.metric(name, "counter", "Waits that ended without readiness.");
        text.value(name, &[], &numbers.timeouts);
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
        let help = help_text(help);
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

/// Help with its special characters escaped.
fn help_text(help: &str) -> String {
    help.replace('\\', "\\\\").replace('\n', "\\n")
}

/// Value of a label with its special characters escaped.
fn escaped(value: &str) -> String {
    help_text(value).replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_of_help_and_labels_are_escaped() {
        let mut text = Text::default();
        text.metric("one", "gauge", "a \\ and a \"line\"\nand another");
        text.value("one", &[("label", "a \\ and a \"line\"\nand another")], &1);
        let expected = "# HELP one a \\\\ and a \"line\"\\nand another\n# TYPE one gauge\n\
                        one{label=\"a \\\\ and a \\\"line\\\"\\nand another\"} 1\n";
        assert_eq!(text.0, expected);
    }

    #[test]
    fn a_start_waits_until_its_wait_is_dropped() {
        let counts = Arc::new(Counts::default());
        let text = |counts: &Counts| counts.text("", &Pool::default(), &Holds::default());
        let waiting = Waiting::new(counts.clone());
        assert!(text(&counts).contains("\nvaria_node_readiness_waiting 1\n"));
        drop(waiting);
        assert!(text(&counts).contains("\nvaria_node_readiness_waiting 0\n"));
    }
}
