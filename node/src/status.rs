//! Text about a host: what is offered, to whom it is handed out, and what the kubelet will refuse.

use std::fmt::Write as _;

use varia_allocate::{Device, Health, Pool};
use varia_facts::Facts;

use crate::holds::{Holds, Pod};
use crate::node::resource_name;

/// Largest number of NUMA nodes with which the kubelet's Topology Manager starts by default.
/// Source: `defaultMaxAllowableNUMANodes` in pkg/kubelet/cm/topologymanager of Kubernetes 1.34.
const TOPOLOGY_NODES: usize = 8;

/// State of the GPUs of a host, and the warning about its nodes.
#[must_use]
pub fn status(facts: &Facts, pool: &Pool, holds: &Holds, domain: &str) -> String {
    let mut text = String::new();
    for device in pool.devices() {
        text += &line(device, holds, domain);
    }
    if pool.devices().is_empty() {
        text += "no GPU of this host has a chip that Varia knows: nothing is offered\n";
    }
    if let Some(warning) = topology_warning(facts.host.nodes.len()) {
        // writing to a string can't fail
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

/// Warning about a host with more NUMA nodes than the kubelet takes by default.
pub(crate) fn topology_warning(nodes: usize) -> Option<String> {
    (nodes > TOPOLOGY_NODES).then(|| {
        format!(
            "this host has {nodes} NUMA nodes, and a kubelet whose Topology Manager has another \
             policy than none does not start with more than {TOPOLOGY_NODES}: set \
             topologyManagerPolicyOptions: {{max-allowable-numa-nodes: \"{nodes}\"}} (Kubernetes \
             1.31 or newer), or topologyManagerPolicy: none"
        )
    })
}

fn line(device: &Device, holds: &Holds, domain: &str) -> String {
    let mut text = format!("{} {}: ", device.bdf, resource_name(domain, device.chip));
    match &device.health {
        Health::Healthy => text += "healthy",
        Health::Bindable { text: found } => text += &format!("bound on demand ({found})"),
        Health::Unhealthy(_) => text += "unhealthy",
    }
    match device.cpu_node {
        Some(node) => text += &format!(", near the CPUs of node {node}"),
        None => text += ", without a hint, as no node with CPUs is known",
    }
    if let Some(hold) = holds.devices.get(&device.bdf) {
        let pod = hold.pod.as_ref().map(Pod::to_string);
        let pod = pod.unwrap_or_else(|| "a pod that is starting".to_owned());
        text += &format!(", handed out to {pod}");
    }
    text.push('\n');
    for reason in device.health.reasons() {
        // the line above names the device
        let found = reason.text.strip_prefix(&format!("{}: ", device.bdf));
        let found = found.unwrap_or(&reason.text);
        text += &format!("  {}: {found}\n", reason.constraint.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_eight_nodes_need_an_option_of_the_kubelet() {
        assert_eq!(topology_warning(8), None);
        let warning = topology_warning(34).unwrap();
        assert!(
            warning.contains("max-allowable-numa-nodes: \"34\""),
            "{warning}"
        );
    }
}
