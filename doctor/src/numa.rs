//! NUMA: nodes of the GPUs, and room for them in the kernel.

use crate::scene::{Scene, is_gpu};
use crate::{Finding, not_applicable, ok, unknown, warning};

pub(crate) fn nodes(scene: &Scene<'_>) -> Vec<Finding> {
    let host = &scene.facts.host;
    scene.each(|function| {
        let Some(id) = function.numa_node else {
            return warning(
                "firmware names no node of the device, so that its nearest CPUs are not known",
            )
            .advise("newer firmware; plan with --no-pin");
        };
        let Some(node) = host.node(id) else {
            return warning(format!(
                "the device is in node {id}, which the kernel does not show"
            ))
            .advise("a kernel with CONFIG_NUMA and a larger CONFIG_NODES_SHIFT");
        };
        if !node.cpus.is_empty() {
            return ok(format!("node {id}, CPUs {}", node.cpus));
        }
        match function.cpu_node.and_then(|id| host.node(id)) {
            Some(nearest) => ok(format!(
                "node {id} without CPUs; the nearest node with CPUs is {}, CPUs {}",
                nearest.id, nearest.cpus
            )),
            None => warning(format!(
                "node {id} has no CPUs, and its nearest node with CPUs is not known"
            ))
            .advise("plan with --no-pin"),
        }
    })
}

pub(crate) fn ids(scene: &Scene<'_>) -> Vec<Finding> {
    let facts = scene.facts;
    let config = facts.kernel.config.as_ref();
    let shift = config.and_then(|config| config.get("NODES_SHIFT")?.parse::<u32>().ok());
    let room = shift.and_then(|shift| 1_u64.checked_shl(shift));
    let mut findings = Vec::new();
    if let (Some(plan), Some(room)) = (scene.plan, room) {
        let wanted = u64::from(plan.nodes());
        let text = format!("the plan has {wanted} nodes, and this kernel has room for {room}");
        findings.push(
            if wanted > room {
                warning(format!(
                    "{text}: a guest with such a kernel leaves GPUs without memory"
                ))
                .advise(format!(
                    "a guest's kernel with CONFIG_NODES_SHIFT={} or more, or plan with a \
                         smaller --nodes-per-gpu",
                    wanted.next_power_of_two().trailing_zeros()
                ))
            } else {
                ok(text)
            }
            .about("the guest"),
        );
    }
    // the host's nodes are those of all its GPUs, whichever are asked about
    let gpus = facts.functions.iter().filter(|one| is_gpu(one));
    let counts = gpus.filter_map(|gpu| gpu.coherent_memory.as_ref()?.pxm_count);
    let wanted: u64 = counts.map(u64::from).sum();
    let nodes = &facts.host.nodes;
    let there = nodes.iter().filter(|node| node.generic_initiator).count() as u64;
    let needed = nodes.len() as u64 - there + wanted;
    findings.push(if facts.host.nodes.is_empty() {
        unknown("/sys/devices/system/node has no nodes")
    } else if wanted == 0 {
        not_applicable("firmware sets no node aside for the host's GPUs")
    } else if there < wanted {
        let has_room = match room {
            Some(room) => format!(", and it has room for {room}"),
            None => String::new(),
        };
        warning(format!(
            "firmware sets {wanted} nodes aside for GPUs, and the kernel shows {there}{has_room}: \
             the host's own driver leaves GPUs without memory; a VM has nodes of its own"
        ))
        .advise(if room.is_some_and(|room| room < needed) {
            format!(
                "a kernel with CONFIG_NODES_SHIFT={} or more",
                needed.next_power_of_two().trailing_zeros()
            )
        } else {
            "firmware whose SRAT has a Generic Initiator for each of the nodes; dmesg shows how the \
             kernel read it"
                .to_owned()
        })
    } else {
        ok(format!(
            "{there} nodes with Generic Initiators, {wanted} of them for GPUs"
        ))
    });
    findings
}
