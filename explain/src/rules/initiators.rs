//! What ties nodes to GPUs: each GPU to as many as it needs, each node to one GPU.

use std::collections::BTreeSet;

use super::{list, nodes as named};
use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};

/// Which nodes are tied to which GPU, and what is left over on both sides. A node or an initiator
/// that a finding speaks of is not left over.
#[derive(Debug)]
pub(super) struct Ties {
    /// Nodes that initiators tie and nobody defines.
    missing: BTreeSet<u32>,
    /// Empty nodes that nothing ties.
    orphans: BTreeSet<u32>,
    /// For each GPU its nodes, each once; those that another finding is about included.
    own: Vec<Vec<u32>>,
    /// How many more a GPU would have, were it not for what was found.
    promised: Vec<usize>,
}

impl Ties {
    pub(super) fn new(case: &Case<'_>, there: &BTreeSet<u32>) -> Self {
        let definition = case.definition;
        let tied: BTreeSet<u32> = definition.initiators.iter().map(|one| one.node).collect();
        let empty = definition.nodes.iter().filter(|node| node.is_empty());
        let own = case.gpus.iter().map(|gpu| {
            let its = definition
                .initiators
                .iter()
                .filter(|one| one.device == gpu.id);
            let mut nodes: Vec<u32> = its.map(|one| one.node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        });
        Self {
            missing: tied.difference(there).copied().collect(),
            orphans: empty
                .map(|node| node.id)
                .filter(|id| !tied.contains(id))
                .collect(),
            own: own.collect(),
            promised: vec![0; case.gpus.len()],
        }
    }

    /// Whether a node is tied and not defined.
    pub(super) fn is_missing(&self, node: u32) -> bool {
        self.missing.contains(&node)
    }

    /// Whether any node is.
    pub(super) fn misses(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Takes a node that is tied and not defined: somebody speaks of it.
    pub(super) fn take_missing(&mut self, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self.missing.iter().copied().find(|node| is_it(*node))?;
        self.missing.remove(&found);
        Some(found)
    }

    /// Takes an empty node behind this one that nothing ties, if this one is tied.
    pub(super) fn take_orphan_above(&mut self, node: u32) -> Option<u32> {
        if !self.is_missing(node) {
            return None;
        }
        let found = self.orphans.iter().copied().find(|orphan| *orphan > node)?;
        self.orphans.remove(&found);
        Some(found)
    }

    /// Takes the node that nothing ties and that is nearest to a GPU's others.
    fn take_orphan(&mut self, gpu: usize) -> Option<u32> {
        let own = self.own.get(gpu).cloned().unwrap_or_default();
        let far = |node: &u32| own.iter().map(|one| one.abs_diff(*node)).min().unwrap_or(0);
        let found = self
            .orphans
            .iter()
            .copied()
            .min_by_key(|node| (far(node), *node))?;
        self.orphans.remove(&found);
        Some(found)
    }

    /// A GPU's nodes, with one for another.
    fn with(&self, gpu: usize, away: &[u32], more: &[u32]) -> Vec<u32> {
        let own = self.own.get(gpu).cloned().unwrap_or_default();
        let mut nodes: Vec<u32> = own
            .into_iter()
            .filter(|node| !away.contains(node))
            .collect();
        nodes.extend(more);
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn missing_from(&self, case: &Case<'_>, gpu: usize) -> usize {
        let wanted = case.gpus.get(gpu).map_or(0, |gpu| gpu.nodes as usize);
        let own = self.own.get(gpu).map_or(0, Vec::len);
        let promised = self.promised.get(gpu).copied().unwrap_or(0);
        wanted.saturating_sub(own + promised)
    }

    pub(super) fn check(mut self, case: &Case<'_>, out: &mut Findings) {
        self.devices(case, out);
        self.undefined(case, out);
        self.not_empty(case, out);
        self.twice(case, out);
        self.shared(case, out);
        self.counts(case, out);
    }

    /// Initiators of devices that are none, or no GPUs.
    fn devices(&mut self, case: &Case<'_>, out: &mut Findings) {
        let definition = case.definition;
        let is_gpu = |name: &str| case.gpus.iter().any(|gpu| gpu.id == name);
        let mut names: Vec<&str> = Vec::new();
        for one in &definition.initiators {
            if !is_gpu(&one.device) && !names.contains(&one.device.as_str()) {
                names.push(&one.device);
            }
        }
        for name in names {
            let its: Vec<_> = definition
                .initiators
                .iter()
                .filter(|one| one.device == name)
                .collect();
            let mut nodes: Vec<u32> = its.iter().map(|one| one.node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            let lacking = (0..case.gpus.len())
                .filter(|gpu| self.missing_from(case, *gpu) > 0)
                .max_by_key(|gpu| self.missing_from(case, *gpu));
            let target = lacking.and_then(|gpu| Some((gpu, case.gpus.get(gpu)?)));
            if let Some((gpu, _)) = target
                && let Some(promised) = self.promised.get_mut(gpu)
            {
                *promised += nodes.len();
            }
            // names::check speaks of a GPU without one
            if target.is_some_and(|(_, gpu)| gpu.id.is_empty()) {
                continue;
            }
            let is_there = definition.ids.iter().any(|one| one.id == name);
            let what = if is_there {
                "no GPU"
            } else {
                "no device of the VM"
            };
            let (remedy, fix) = match target {
                Some((gpu, subject)) => (
                    format!("name {}, which lacks {}", subject.id, named(&nodes)),
                    Fix::Initiators {
                        device: subject.id.clone(),
                        nodes: self.with(gpu, &[], &nodes),
                    },
                ),
                None => {
                    let places = definition.initiators.iter().enumerate();
                    let its = places.filter(|(_, one)| one.device == name);
                    (
                        "take it away: every GPU has its nodes".to_owned(),
                        Fix::RemoveInitiators(its.map(|(place, _)| place).collect()),
                    )
                }
            };
            out.add(
                Code::InitiatorDevice,
                its.first().map_or(1, |one| one.place.line),
                format!(
                    "a Generic Initiator ties {} to {name:?}, which is {what}",
                    named(&nodes)
                ),
                remedy,
                fix,
            );
        }
    }

    /// Initiators of nodes that are not there.
    fn undefined(&mut self, case: &Case<'_>, out: &mut Findings) {
        let mut absent = Vec::new();
        for node in std::mem::take(&mut self.missing) {
            let Some((gpu, line)) = self.first_of(case, node) else {
                absent.push(node);
                continue;
            };
            match self.take_orphan(gpu) {
                Some(orphan) => {
                    self.tie_instead(case, gpu, (node, orphan), line, "which is not there", out)
                }
                None => absent.push(node),
            }
        }
        let Some(first) = absent.first() else {
            return;
        };
        let line = self.first_of(case, *first).map_or(1, |(_, line)| line);
        out.add(
            Code::NodeMissing,
            line,
            format!(
                "Generic Initiators tie {}, which nobody defines",
                named(&absent)
            ),
            "define it, without CPUs and without memory",
            Fix::AddNodes(absent),
        );
    }

    /// Initiators of nodes in which something is.
    fn not_empty(&mut self, case: &Case<'_>, out: &mut Findings) {
        for (at, node) in case.definition.nodes.iter().enumerate() {
            let Some((gpu, line)) = self.first_of(case, node.id).filter(|_| !node.is_empty())
            else {
                continue;
            };
            if node.cpus.is_none() {
                out.add(
                    Code::NodeHasMemory,
                    node.place.line,
                    format!("node {} is tied to a GPU and has RAM", node.id),
                    "take its RAM away: the guest's driver adds the GPU's memory to it",
                    Fix::EmptyNode(at),
                );
                continue;
            }
            let instead = self.take_orphan(gpu);
            match instead {
                Some(orphan) => {
                    self.tie_instead(case, gpu, (node.id, orphan), line, "which has CPUs", out);
                }
                None => {
                    let subject = case.gpus.get(gpu);
                    out.add(
                        Code::InitiatorNode,
                        line,
                        format!("a Generic Initiator ties node {}, which has CPUs", node.id),
                        "tie a node of the GPU's own, without CPUs and without memory",
                        subject.map(|subject| Fix::Initiators {
                            device: subject.id.clone(),
                            nodes: self.with(gpu, &[node.id], &[]),
                        }),
                    );
                }
            }
        }
    }

    fn tie_instead(
        &self,
        case: &Case<'_>,
        gpu: usize,
        (node, instead): (u32, u32),
        line: usize,
        why: &str,
        out: &mut Findings,
    ) {
        let Some(subject) = case.gpus.get(gpu) else {
            return;
        };
        out.add(
            Code::InitiatorNode,
            line,
            format!(
                "a Generic Initiator ties node {node} to {}, {why}; node {instead} is tied to nothing",
                subject.label()
            ),
            format!("tie node {instead} instead"),
            Fix::Initiators {
                device: subject.id.clone(),
                nodes: self.with(gpu, &[node], &[instead]),
            },
        );
    }

    /// Initiators that say the same.
    fn twice(&mut self, case: &Case<'_>, out: &mut Findings) {
        let mut seen = BTreeSet::new();
        for one in &case.definition.initiators {
            if seen.insert((one.device.as_str(), one.node)) {
                continue;
            }
            let Some((gpu, subject)) = case
                .gpus
                .iter()
                .enumerate()
                .find(|(_, gpu)| gpu.id == one.device)
            else {
                continue;
            };
            let instead = self.take_orphan(gpu);
            let remedy = match instead {
                Some(instead) => format!("tie node {instead} instead, which is tied to nothing"),
                None => "take one of them away".to_owned(),
            };
            out.add(
                Code::InitiatorTwice,
                one.place.line,
                format!(
                    "two Generic Initiators tie node {} to {}",
                    one.node,
                    subject.label()
                ),
                remedy,
                Fix::Initiators {
                    device: subject.id.clone(),
                    nodes: self.with(gpu, &[], instead.as_slice()),
                },
            );
            if let (Some(_), Some(promised)) = (instead, self.promised.get_mut(gpu)) {
                *promised += 1;
            }
        }
    }

    /// Nodes of two GPUs. They are those of the GPU whose other nodes are nearer.
    fn shared(&mut self, case: &Case<'_>, out: &mut Findings) {
        for one in 0..case.gpus.len() {
            for other in one + 1..case.gpus.len() {
                // two of one name have the same nodes, and a finding of their own
                let id = |gpu: usize| case.gpus.get(gpu).map(|gpu| &gpu.id);
                if id(one) == id(other) {
                    continue;
                }
                let nodes = |gpu: usize| self.own.get(gpu).cloned().unwrap_or_default();
                let (first, second) = (nodes(one), nodes(other));
                let both: Vec<u32> = first
                    .iter()
                    .copied()
                    .filter(|node| second.contains(node))
                    .collect();
                let Some(node) = both.first().copied() else {
                    continue;
                };
                let far = |own: &[u32]| {
                    let rest = own.iter().filter(|node| !both.contains(node));
                    rest.map(|one| one.abs_diff(node)).min().unwrap_or(u32::MAX)
                };
                let wrong = if far(&first) > far(&second) {
                    one
                } else {
                    other
                };
                let (Some(right), Some(subject)) = (
                    case.gpus.get(if wrong == one { other } else { one }),
                    case.gpus.get(wrong),
                ) else {
                    continue;
                };
                let instead: Vec<u32> = both
                    .iter()
                    .filter_map(|_| self.take_orphan(wrong))
                    .collect();
                let count = case
                    .definition
                    .nodes
                    .iter()
                    .map(|node| node.id + 1)
                    .max()
                    .unwrap_or(0);
                let (remedy, fix) = if instead.len() == both.len() {
                    let fix = Fix::Initiators {
                        device: subject.id.clone(),
                        nodes: self.with(wrong, &both, &instead),
                    };
                    (
                        format!("tie {} to {} instead", named(&instead), subject.id),
                        fix,
                    )
                } else {
                    let new: Vec<u32> = (count..).take(both.len() - instead.len()).collect();
                    (
                        format!(
                            "define {} and tie them to {} instead",
                            named(&new),
                            subject.id
                        ),
                        Fix::AddNodes(new),
                    )
                };
                let its = case
                    .definition
                    .initiators
                    .iter()
                    .find(|tie| tie.device == subject.id && both.contains(&tie.node));
                out.add(
                    Code::NodeShared,
                    its.map_or(1, |tie| tie.place.line),
                    format!(
                        "{} and {} are both tied to {}",
                        right.label(),
                        subject.label(),
                        named(&both)
                    ),
                    remedy,
                    fix,
                );
            }
        }
    }

    /// How many nodes each GPU has.
    fn counts(&mut self, case: &Case<'_>, out: &mut Findings) {
        let surplus = |ties: &Self, gpu: usize| {
            let wanted = case.gpus.get(gpu).map_or(0, |gpu| gpu.nodes as usize);
            ties.own.get(gpu).map_or(0, Vec::len).saturating_sub(wanted)
        };
        for (gpu, subject) in case.gpus.iter().enumerate() {
            let missing = self.missing_from(case, gpu);
            if missing == 0 {
                continue;
            }
            let giver = (0..case.gpus.len()).find(|other| surplus(self, *other) > 0);
            if let Some(giver) = giver {
                self.give(case, gpu, giver, missing.min(surplus(self, giver)), out);
                continue;
            }
            let orphans: Vec<u32> = (0..missing).map_while(|_| self.take_orphan(gpu)).collect();
            let own = self.own.get(gpu).map_or(0, Vec::len);
            if orphans.is_empty() {
                // one is enough where MIG is not used
                if own != 1 || case.is_count_told {
                    self.too_few(case, subject, own, out);
                }
                continue;
            }
            out.add(
                Code::InitiatorMissing,
                case.line(subject),
                format!(
                    "no Generic Initiator ties {} to {}",
                    named(&orphans),
                    subject.label()
                ),
                format!("tie {} to it", named(&orphans)),
                (!subject.id.is_empty()).then(|| Fix::Initiators {
                    device: subject.id.clone(),
                    nodes: self.with(gpu, &[], &orphans),
                }),
            );
        }
        for (gpu, subject) in case.gpus.iter().enumerate() {
            let more = surplus(self, gpu);
            if more > 0 && !out.has(&[Code::InitiatorWrongGpu, Code::NodeShared]) {
                let own = self.own.get(gpu).cloned().unwrap_or_default();
                let last: Vec<u32> = own.iter().rev().take(more).copied().collect();
                out.add(
                    Code::NodesTooMany,
                    case.line(subject),
                    format!(
                        "{} has {} nodes, and its driver uses {}",
                        subject.label(),
                        own.len(),
                        subject.nodes
                    ),
                    format!("take {more} of them away"),
                    Fix::RemoveNodes(last),
                );
            }
        }
    }

    fn too_few(&self, case: &Case<'_>, subject: &Subject, own: usize, out: &mut Findings) {
        let definition = case.definition;
        let more = subject.nodes.saturating_sub(own as u32);
        let first = definition
            .nodes
            .iter()
            .map(|node| node.id + 1)
            .max()
            .unwrap_or(0);
        let fix = if definition.nodes.is_empty() {
            Fix::FirstNode
        } else {
            Fix::AddNodes((first..).take(more as usize).collect())
        };
        let (code, what) = match own {
            0 => (
                Code::NodesMissing,
                format!("{} has no memory-less NUMA nodes", subject.label()),
            ),
            _ => (
                Code::NodesTooFew,
                format!(
                    "{} has {own} nodes, and MIG needs {}",
                    subject.label(),
                    subject.nodes
                ),
            ),
        };
        out.add(
            code,
            case.line(subject),
            what,
            format!(
                "define {more} nodes without CPUs and without memory, and tie each to it by a \
                 Generic Initiator"
            ),
            fix,
        );
    }

    /// Nodes of `gpu` that are tied to `giver`: those that are farthest from its others.
    fn give(
        &mut self,
        case: &Case<'_>,
        gpu: usize,
        giver: usize,
        count: usize,
        out: &mut Findings,
    ) {
        let (Some(subject), Some(other)) = (case.gpus.get(gpu), case.gpus.get(giver)) else {
            return;
        };
        let mut nodes = self.own.get(giver).cloned().unwrap_or_default();
        let own = self.own.get(gpu).cloned().unwrap_or_default();
        // its own are in a row: what is before or behind is not its
        let far = |node: &u32| {
            own.iter()
                .map(|one| one.abs_diff(*node))
                .min()
                .unwrap_or(*node)
        };
        nodes.sort_by_key(|node| (far(node), *node));
        nodes.truncate(count);
        nodes.sort_unstable();
        if let Some(own) = self.own.get_mut(giver) {
            own.retain(|node| !nodes.contains(node));
        }
        let its = case
            .definition
            .initiators
            .iter()
            .find(|tie| tie.device == other.id && nodes.contains(&tie.node));
        out.add(
            Code::InitiatorWrongGpu,
            its.map_or(1, |tie| tie.place.line),
            format!(
                "{} has {} more than {} nodes, and {} lacks as many",
                other.label(),
                nodes.len(),
                other.nodes,
                subject.label()
            ),
            format!("tie {} to {}", list(&nodes), subject.id),
            Fix::Initiators {
                device: subject.id.clone(),
                nodes: self.with(gpu, &[], &nodes),
            },
        );
    }

    /// The first GPU that a node is tied to, and the line that says so.
    fn first_of(&self, case: &Case<'_>, node: u32) -> Option<(usize, usize)> {
        case.definition.initiators.iter().find_map(|one| {
            let gpu = case.gpus.iter().position(|gpu| gpu.id == one.device)?;
            (one.node == node).then_some((gpu, one.place.line))
        })
    }
}
