//! RAM of the VM: size, hugepages and the limit of locked memory.

use varia_facts::{Bytes, Facts, HugePages, Limit, NodeId, NumaNode};
use varia_plan::{Backing, Socket};

use crate::definition::Definition;
use crate::scene::Scene;
use crate::{Finding, failure, not_applicable, ok, unknown, warning};

/// Hugepages that a remedy without a plan reserves: this size, and at most this share of the
/// available memory.
const EXAMPLE: u64 = 1 << 30;
const SHARE: u64 = 8;

pub(crate) fn ram(scene: &Scene<'_>) -> Vec<Finding> {
    let host = &scene.facts.host;
    let Some(plan) = scene.plan else {
        return vec![match (host.memory_available, host.memory) {
            (Some(free), Some(all)) => ok(format!(
                "{} of {} can be used",
                free.rounded(),
                all.rounded()
            )),
            (None, Some(all)) => ok(all.rounded().to_string()),
            (_, None) => unknown("/proc/meminfo does not have the size of RAM"),
        }];
    };
    let sockets = plan.sockets.iter();
    let ordinary: Vec<_> = sockets
        .filter(|one| one.backing == Backing::Pages)
        .collect();
    if ordinary.is_empty() {
        return vec![not_applicable(
            "the plan's RAM comes from hugepages or Extended GPU Memory",
        )];
    }
    let look = |socket: &&Socket| {
        let wanted = socket.memory;
        let (whose, free, all) = match socket.host_node {
            None => ("the host".to_owned(), host.memory_available, host.memory),
            Some(id) => {
                let node = host.node(id);
                let free = node.map(|node| node.memory_free);
                (format!("node {id}"), free, node.map(|node| node.memory))
            }
        };
        let finding = match (free, all) {
            (_, Some(all)) if all < wanted => failure(format!(
                "{whose} has {} of RAM, and the plan needs {}",
                all.rounded(),
                wanted.rounded()
            ))
            .advise("plan with less --memory"),
            (Some(free), _) if free < wanted => warning(format!(
                "{whose} has {} of RAM free, and the plan needs {}",
                free.rounded(),
                wanted.rounded()
            ))
            .run("echo 3 > /proc/sys/vm/drop_caches")
            .advise("end processes that use the memory, or plan with less --memory"),
            (Some(free), _) => ok(format!(
                "{whose} has {} of RAM free, and the plan needs {}",
                free.rounded(),
                wanted.rounded()
            )),
            (None, _) => unknown(format!("the size of RAM of {whose} is not known"))
                .advise("run varia doctor on the host"),
        };
        finding.about(format!("RAM of the VM's node {}", socket.node))
    };
    ordinary.iter().map(look).collect()
}

pub(crate) fn hugepages(scene: &Scene<'_>) -> Vec<Finding> {
    let nodes = &scene.facts.host.nodes;
    let Some(plan) = scene.plan else {
        return vec![without_plan(scene, nodes)];
    };
    let mut findings = Vec::new();
    for socket in &plan.sockets {
        if let Backing::HugePages(page) = socket.backing {
            let finding = enough(nodes, socket, page);
            findings.push(finding.about(format!("RAM of the VM's node {}", socket.node)));
        }
    }
    if findings.is_empty() {
        findings.push(not_applicable("the plan uses no hugepages (--hugepages)"));
    }
    findings
}

fn enough(nodes: &[NumaNode], socket: &Socket, page: Bytes) -> Finding {
    let kib = page.0 >> 10;
    let wanted = socket.memory.0 / page.0.max(1);
    let on = |id: Option<NodeId>| {
        nodes
            .iter()
            .filter(move |node| id.is_none_or(|id| node.id == id))
    };
    let pools: Vec<&HugePages> = on(socket.host_node)
        .flat_map(|node| &node.hugepages)
        .filter(|pool| pool.size == page)
        .collect();
    let (folder, place) = match socket.host_node {
        Some(id) => (
            format!("/sys/devices/system/node/node{id}/hugepages"),
            format!("node {id}"),
        ),
        None => ("/sys/kernel/mm/hugepages".to_owned(), "the host".to_owned()),
    };
    if pools.is_empty() {
        return failure(format!("{place} has no hugepages of {}", page.rounded()))
            .advise(
                "plan with --hugepages of a size that the kernel has: ls /sys/kernel/mm/hugepages",
            )
            .advise("or boot it with hugepagesz= of this size on its command line");
    }
    let sum = |count: fn(&HugePages) -> u64| {
        let counts = pools.iter().map(|pool| count(pool));
        counts.fold(0, u64::saturating_add)
    };
    let free = sum(|pool| pool.free);
    let total = sum(|pool| pool.total);
    if free >= wanted {
        return ok(format!(
            "{free} hugepages of {} are free on {place}, and the plan needs {wanted}",
            page.rounded()
        ));
    }
    let set = total.saturating_add(wanted - free);
    failure(format!(
        "{free} hugepages of {} are free on {place}, and the plan needs {wanted}",
        page.rounded()
    ))
    .run(format!(
        "echo {set} > {folder}/hugepages-{kib}kB/nr_hugepages"
    ))
    .advise(format!(
        "for every boot, add hugepagesz={kib}K hugepages={set} to the kernel's command line: \
         memory that is fragmented later has no such pages"
    ))
}

/// Size of the hugepages of a kernel where nothing names a size: that of `default_hugepagesz=`, or
/// what a level of the page tables maps at once.
pub(crate) fn default_hugepage(facts: &Facts) -> Option<Bytes> {
    let mut words = facts.kernel.cmdline.iter().rev();
    let named = words.find_map(|word| word.strip_prefix("default_hugepagesz="));
    if let Some(size) = named.and_then(|text| text.parse().ok()) {
        return Some(size);
    }
    facts.kernel.page_size.map(|size| match size {
        Bytes(0x1_0000) => Bytes(512 << 20),
        Bytes(0x4000) => Bytes(32 << 20),
        _ => Bytes(2 << 20),
    })
}

fn without_plan(scene: &Scene<'_>, nodes: &[NumaNode]) -> Finding {
    let pools = || {
        nodes
            .iter()
            .flat_map(|node| node.hugepages.iter().map(move |pool| (node.id, pool)))
    };
    if nodes.is_empty() {
        return unknown("/sys/devices/system/node has no nodes");
    }
    let reserved: Vec<_> = pools().filter(|(_, pool)| pool.total > 0).collect();
    if !reserved.is_empty() {
        let texts = reserved.iter().map(|(node, pool)| {
            format!(
                "node {node}: {} of {}, {} free",
                pool.total,
                pool.size.rounded(),
                pool.free
            )
        });
        return ok(texts.collect::<Vec<_>>().join("; "));
    }
    let usual = default_hugepage(scene.facts).unwrap_or(Bytes(2 << 20));
    let sizes = || pools().map(|(_, pool)| pool.size);
    let Some(page) = sizes()
        .find(|size| *size == usual)
        .or_else(|| sizes().next())
    else {
        return warning("this kernel has no hugepages").advise("a kernel with CONFIG_HUGETLBFS=y");
    };
    let kib = page.0 >> 10;
    let available = scene.facts.host.memory_available;
    let most = available.map_or(EXAMPLE, |free| EXAMPLE.min(free.0 / SHARE));
    let count = (most / page.0.max(1)).max(1);
    warning(
        "no hugepages are reserved: a VM on ordinary pages has more TLB misses",
    )
    .run(format!(
        "echo {count} > /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages"
    ))
    .advise(format!(
        "the command reserves {}; `varia doctor PLAN` counts the pages of a plan; for every boot, \
         add hugepagesz={kib}K hugepages=N to the kernel's command line",
        Bytes(count.saturating_mul(page.0))
    ))
}

pub(crate) fn memlock(scene: &Scene<'_>) -> Vec<Finding> {
    let host = &scene.facts.host;
    let limit = match host.memlock {
        None => {
            return vec![unknown(
                "the limit of this user (RLIMIT_MEMLOCK) was not read",
            )];
        }
        Some(Limit::Unlimited) => return vec![ok("no limit")],
        Some(Limit::Bytes(limit)) => limit,
    };
    let definition = scene.definition;
    if definition.is_some_and(|definition| definition.libvirt.is_some()) {
        return vec![ok(format!(
            "{}, which libvirt raises for the definition",
            limit.rounded()
        ))];
    }
    let planned = scene.plan.map(|plan| (plan.ram(), "the plan's RAM"));
    let defined = definition
        .and_then(Definition::all_ram)
        .map(|ram| (ram, "the definition's RAM"));
    let own = host.memory.map(|memory| (memory, "the host's RAM"));
    let (wanted, what) = match planned.or(defined).or(own) {
        Some(wanted) => wanted,
        None => {
            return vec![unknown(format!(
                "the limit is {}, and the size of RAM is not known",
                limit.rounded()
            ))];
        }
    };
    if limit >= wanted {
        return vec![ok(format!("{}, enough for {what}", limit.rounded()))];
    }
    let text = format!(
        "{}, and {what} is {}: a VMM of this user can't map its memory for a device",
        limit.rounded(),
        wanted.rounded()
    );
    vec![
        crate::bad(scene.is_for_a_vm(), text)
            .run("ulimit -l unlimited")
            .advise(
                "permanently: `USER - memlock unlimited` in /etc/security/limits.conf, or \
                 LimitMEMLOCK=infinity in the service's unit; libvirt raises the limit itself",
            ),
    ]
}
