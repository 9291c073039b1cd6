//! Assignment of memory-less NUMA nodes to GPUs: each GPU gets as many nodes as it needs, each
//! node belongs to one GPU.
//!
//! It is computed once for a definition and changes as little of it as possible. Rules report its
//! [`Difference`]s from the definition; a correction writes all of it at once.

use std::collections::BTreeSet;

use varia_plan::limits::MAX_NODES;

use crate::case::Subject;
use crate::edit::fix::Fix;
use crate::model::Definition;

/// Nodes and their GPUs, as they should be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Assignment {
    /// Nodes of each GPU, in the order of the case's GPUs.
    pub(crate) nodes: Vec<BTreeSet<u32>>,
    /// Nodes to define.
    pub(crate) define: BTreeSet<u32>,
    /// Differences from the definition, each with one cause.
    pub(crate) differences: Vec<Difference>,
    /// Defined nodes that no GPU needs.
    remove: BTreeSet<u32>,
    /// Defined nodes, by their place in the list, that get another number; without one they go.
    numbers: Vec<(usize, Option<u32>)>,
}

/// A difference of the definition from the assignment. GPUs are places in the case's list, lines
/// are those of the definition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Difference {
    /// A node, by its place in the list, with the number of another one.
    NumberTwice { place: usize, free: Option<u32> },
    /// A number that is tied and not defined, and a node, by its place, that is not tied.
    Astray { hole: u32, node: u32, place: usize },
    /// Numbers that are left out; other numbers for the nodes behind them, if no node is added.
    Gap {
        last: u32,
        holes: Vec<u32>,
        pairs: Option<Vec<(u32, u32)>>,
    },
    /// Initiators of a device that is not a GPU, and the GPU that lacks their nodes.
    Device {
        device: String,
        nodes: Vec<u32>,
        line: usize,
        /// The GPU, and those of the nodes that it gets.
        gpu: Option<(usize, Vec<u32>)>,
    },
    /// Nodes that are tied and not defined.
    Undefined { nodes: Vec<u32>, line: usize },
    /// A node, by its place, that is tied and has memory.
    HasMemory { place: usize },
    /// A tied node that is not defined, or has CPUs; other nodes take its place.
    Unfit {
        gpu: usize,
        node: u32,
        has_cpus: bool,
        instead: Instead,
        line: usize,
    },
    /// Initiators with the same device and node.
    TiedTwice {
        gpu: usize,
        node: u32,
        instead: Option<u32>,
        line: usize,
    },
    /// Nodes of two GPUs, and others for the second one; some of those are to be defined.
    Shared {
        right: usize,
        gpu: usize,
        nodes: Vec<u32>,
        instead: Vec<u32>,
        is_new: bool,
        line: usize,
    },
    /// Nodes of a GPU that has too many, for one that has too few.
    WrongGpu {
        gpu: usize,
        giver: usize,
        nodes: Vec<u32>,
        line: usize,
    },
    /// Defined nodes that are tied to no GPU, for one that has too few.
    Untied { gpu: usize, nodes: Vec<u32> },
    /// A GPU that has too few nodes, and how many more it needs.
    TooFew { gpu: usize, own: usize, more: u32 },
    /// A GPU that has too many nodes, and those that go.
    TooMany {
        gpu: usize,
        own: usize,
        nodes: Vec<u32>,
    },
}

/// Nodes in the place of an unfit one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Instead {
    /// A defined node that was tied to no GPU.
    Untied(u32),
    /// Nodes to define.
    New(Vec<u32>),
    /// None: the GPU has enough without it.
    Nothing,
}

impl Assignment {
    /// Assigns the nodes of a definition. `is_count_fixed`: one node for a GPU is not enough.
    pub(crate) fn new(definition: &Definition, gpus: &[Subject], is_count_fixed: bool) -> Self {
        let mut search = Search::new(definition, gpus, is_count_fixed);
        search.numbers_twice();
        search.gaps();
        search.devices();
        search.undefined();
        search.unfit();
        search.tied_twice();
        search.shared();
        search.counts();
        search.out
    }

    /// The GPU that a node belongs to.
    pub(crate) fn owner(&self, node: u32) -> Option<usize> {
        self.nodes.iter().position(|nodes| nodes.contains(&node))
    }

    /// Correction that writes the assignment into a definition with these GPUs.
    pub(crate) fn fix(&self, gpus: &[Subject]) -> Fix {
        let named = gpus.iter().zip(&self.nodes);
        let named = named.filter(|(gpu, _)| !gpu.id.is_empty());
        Fix::Assign {
            numbers: self.numbers.clone(),
            define: self.define.iter().copied().collect(),
            remove: self.remove.iter().copied().collect(),
            ties: named
                .map(|(gpu, nodes)| (gpu.id.clone(), nodes.iter().copied().collect()))
                .collect(),
        }
    }
}

/// An assignment while it is computed.
struct Search<'a> {
    definition: &'a Definition,
    gpus: &'a [Subject],
    is_count_fixed: bool,
    defined: BTreeSet<u32>,
    /// Nodes that initiators tie and the definition does not have.
    missing: BTreeSet<u32>,
    /// Empty nodes that no initiator ties.
    untied: BTreeSet<u32>,
    out: Assignment,
}

impl<'a> Search<'a> {
    fn new(definition: &'a Definition, gpus: &'a [Subject], is_count_fixed: bool) -> Self {
        let defined: BTreeSet<u32> = definition.nodes.iter().map(|node| node.id).collect();
        let tied: BTreeSet<u32> = definition.initiators.iter().map(|one| one.node).collect();
        let empty = definition.nodes.iter().filter(|node| node.is_empty());
        let own = |gpu: &Subject| {
            let ties = definition.initiators.iter();
            let own = ties.filter(|one| one.device == gpu.id);
            own.map(|one| one.node).collect()
        };
        Self {
            definition,
            gpus,
            is_count_fixed,
            missing: tied.difference(&defined).copied().collect(),
            untied: empty
                .map(|node| node.id)
                .filter(|id| !tied.contains(id))
                .collect(),
            defined,
            out: Assignment {
                nodes: gpus.iter().map(own).collect(),
                ..Assignment::default()
            },
        }
    }

    fn own(&self, gpu: usize) -> BTreeSet<u32> {
        self.out.nodes.get(gpu).cloned().unwrap_or_default()
    }

    fn count(&self, gpu: usize) -> usize {
        self.out.nodes.get(gpu).map_or(0, BTreeSet::len)
    }

    fn wanted(&self, gpu: usize) -> usize {
        self.gpus.get(gpu).map_or(0, |gpu| gpu.nodes as usize)
    }

    fn lack(&self, gpu: usize) -> usize {
        if self.is_enough(gpu) {
            return 0;
        }
        self.wanted(gpu).saturating_sub(self.count(gpu))
    }

    fn surplus(&self, gpu: usize) -> usize {
        self.count(gpu).saturating_sub(self.wanted(gpu))
    }

    /// Gives a GPU other nodes for some of its own.
    fn exchange(&mut self, gpu: usize, away: &[u32], more: &[u32]) {
        if let Some(own) = self.out.nodes.get_mut(gpu) {
            own.retain(|node| !away.contains(node));
            own.extend(more);
        }
    }

    fn differ(&mut self, difference: Difference) {
        self.out.differences.push(difference);
    }

    /// Line of the first initiator that ties one of these nodes to a GPU.
    fn line(&self, gpu: usize, nodes: &[u32]) -> usize {
        let id = self.gpus.get(gpu).map(|gpu| &gpu.id);
        let mut ties = self.definition.initiators.iter();
        let tie = ties.find(|one| Some(&one.device) == id && nodes.contains(&one.node));
        tie.map_or(1, |tie| tie.place.line)
    }

    /// Takes the untied node that is nearest to a GPU's others.
    fn take_untied(&mut self, gpu: usize) -> Option<u32> {
        let own = self.own(gpu);
        let far = |node: &u32| own.iter().map(|one| one.abs_diff(*node)).min().unwrap_or(0);
        let untied = self.untied.iter().copied();
        let found = untied.min_by_key(|node| (far(node), *node))?;
        self.untied.remove(&found);
        Some(found)
    }

    /// Takes numbers for nodes to define, behind the defined ones.
    fn take_new(&mut self, count: usize) -> Vec<u32> {
        let first = self.defined.last().map_or(0, |last| last.saturating_add(1));
        let free = |node: &u32| !self.defined.contains(node) && !self.out.define.contains(node);
        let all = (first..=u32::MAX).chain(0..first);
        let new: Vec<u32> = all.filter(free).take(count).collect();
        self.out.define.extend(&new);
        new
    }

    /// Nodes with the number of another one; one of them may be a node that is missing elsewhere.
    fn numbers_twice(&mut self) {
        let mut seen = BTreeSet::new();
        for (place, node) in self.definition.nodes.iter().enumerate() {
            if seen.insert(node.id) {
                continue;
            }
            let free = self
                .missing
                .pop_first()
                .or_else(|| (0..node.id).find(|id| !self.defined.contains(id)));
            self.defined.extend(free);
            self.out.numbers.push((place, free));
            self.differ(Difference::NumberTwice { place, free });
        }
    }

    /// Numbers that no node has, below one that a node has.
    fn gaps(&mut self) {
        let Some(last) = self.defined.last().copied() else {
            return;
        };
        if !self.out.differences.is_empty() {
            return;
        }
        let mut holes = Vec::new();
        let absent = (0..last).filter(|id| !self.defined.contains(id));
        for hole in absent.take(MAX_NODES as usize).collect::<Vec<_>>() {
            if !self.missing.contains(&hole) {
                holes.push(hole);
                continue;
            }
            // a node that is tied as one number and defined as another
            let Some(node) = self.untied.range(hole..).next().copied() else {
                continue;
            };
            let mut nodes = self.definition.nodes.iter();
            if let Some(place) = nodes.position(|one| one.id == node) {
                self.untied.remove(&node);
                self.missing.remove(&hole);
                self.out.numbers.push((place, Some(hole)));
                self.differ(Difference::Astray { hole, node, place });
            }
        }
        if holes.is_empty() {
            return;
        }
        // with nodes that are added, numbers would be given twice
        let pairs = self.missing.is_empty().then(|| {
            let numbers = (0..).zip(self.defined.iter().copied());
            let pairs = numbers.map(|(to, from)| (from, to));
            pairs.filter(|(from, to)| from != to).collect()
        });
        self.differ(Difference::Gap { last, holes, pairs });
    }

    /// Initiators of devices that the VM does not have, or that are not GPUs.
    fn devices(&mut self) {
        let mut seen = BTreeSet::new();
        for one in &self.definition.initiators {
            let is_gpu = self.gpus.iter().any(|gpu| gpu.id == one.device);
            if is_gpu || !seen.insert(&one.device) {
                continue;
            }
            let ties = self.definition.initiators.iter();
            let nodes = ties.filter(|other| other.device == one.device);
            let nodes: BTreeSet<u32> = nodes.map(|other| other.node).collect();
            let nodes: Vec<u32> = nodes.into_iter().collect();
            let lacking = (0..self.gpus.len()).filter(|gpu| self.lack(*gpu) > 0);
            let gpu = lacking.max_by_key(|gpu| self.lack(*gpu));
            let mut given = None;
            if let Some(gpu) = gpu {
                let definition = self.definition;
                let has_cpus = |node: u32| {
                    let mut nodes = definition.nodes.iter();
                    nodes.any(|one| one.id == node && one.cpus.is_some())
                };
                let fit = |node: &u32| !has_cpus(*node) && self.out.owner(*node).is_none();
                let fit: Vec<u32> = nodes.iter().copied().filter(fit).collect();
                self.exchange(gpu, &[], &fit);
                given = Some((gpu, fit)).filter(|(_, fit)| !fit.is_empty());
            }
            // a GPU without an id has a finding of its own
            if gpu.is_some_and(|gpu| self.gpus.get(gpu).is_some_and(|gpu| gpu.id.is_empty())) {
                continue;
            }
            self.differ(Difference::Device {
                device: one.device.clone(),
                nodes,
                line: one.place.line,
                gpu: given,
            });
        }
    }

    /// Nodes of GPUs that the definition does not have.
    fn undefined(&mut self) {
        let mut absent = Vec::new();
        for node in std::mem::take(&mut self.missing) {
            let Some(gpu) = self.out.owner(node) else {
                continue;
            };
            let Some(untied) = self.take_untied(gpu) else {
                absent.push(node);
                continue;
            };
            let line = self.line(gpu, &[node]);
            self.exchange(gpu, &[node], &[untied]);
            self.differ(Difference::Unfit {
                gpu,
                node,
                has_cpus: false,
                instead: Instead::Untied(untied),
                line,
            });
        }
        let Some(first) = absent.first() else {
            return;
        };
        let line = self
            .out
            .owner(*first)
            .map_or(1, |gpu| self.line(gpu, &absent));
        self.out.define.extend(&absent);
        self.differ(Difference::Undefined {
            nodes: absent,
            line,
        });
    }

    /// Nodes of GPUs that have memory or CPUs.
    fn unfit(&mut self) {
        for (place, node) in self.definition.nodes.iter().enumerate() {
            let Some(gpu) = self.out.owner(node.id).filter(|_| !node.is_empty()) else {
                continue;
            };
            if node.cpus.is_none() {
                self.differ(Difference::HasMemory { place });
                continue;
            }
            let line = self.line(gpu, &[node.id]);
            self.exchange(gpu, &[node.id], &[]);
            let instead = match self.take_untied(gpu) {
                Some(untied) => {
                    self.exchange(gpu, &[], &[untied]);
                    Instead::Untied(untied)
                }
                None if self.lack(gpu) == 0 => Instead::Nothing,
                None => {
                    let new = self.take_new(self.lack(gpu));
                    self.exchange(gpu, &[], &new);
                    Instead::New(new)
                }
            };
            self.differ(Difference::Unfit {
                gpu,
                node: node.id,
                has_cpus: true,
                instead,
                line,
            });
        }
    }

    /// One node is enough for a GPU without MIG.
    fn is_enough(&self, gpu: usize) -> bool {
        self.count(gpu) == 1 && !self.is_count_fixed
    }

    /// Initiators with the device and the node of another one.
    fn tied_twice(&mut self) {
        let mut seen = BTreeSet::new();
        for one in &self.definition.initiators {
            if seen.insert((&one.device, one.node)) {
                continue;
            }
            let Some(gpu) = self.gpus.iter().position(|gpu| gpu.id == one.device) else {
                continue;
            };
            let instead = self.take_untied(gpu);
            self.exchange(gpu, &[], instead.as_slice());
            self.differ(Difference::TiedTwice {
                gpu,
                node: one.node,
                instead,
                line: one.place.line,
            });
        }
    }

    /// Nodes of two GPUs: they belong to the GPU whose other nodes are nearer.
    fn shared(&mut self) {
        for one in 0..self.gpus.len() {
            for other in one + 1..self.gpus.len() {
                // two GPUs with one id have the same nodes
                let id = |gpu: usize| self.gpus.get(gpu).map(|gpu| &gpu.id);
                if id(one) != id(other) {
                    self.divide(one, other);
                }
            }
        }
    }

    fn divide(&mut self, one: usize, other: usize) {
        let (first, second) = (self.own(one), self.own(other));
        let nodes: Vec<u32> = first.intersection(&second).copied().collect();
        let Some(node) = nodes.first() else {
            return;
        };
        let far = |own: &BTreeSet<u32>| {
            let rest = own.iter().filter(|one| !nodes.contains(one));
            rest.map(|one| one.abs_diff(*node))
                .min()
                .unwrap_or(u32::MAX)
        };
        let (right, gpu) = match far(&first) > far(&second) {
            true => (other, one),
            false => (one, other),
        };
        let line = self.line(gpu, &nodes);
        let mut instead: Vec<u32> = nodes.iter().map_while(|_| self.take_untied(gpu)).collect();
        let is_new = instead.len() < nodes.len();
        instead.extend(self.take_new(nodes.len() - instead.len()));
        self.exchange(gpu, &nodes, &instead);
        self.differ(Difference::Shared {
            right,
            gpu,
            nodes,
            instead,
            is_new,
            line,
        });
    }

    /// GPUs with too few and too many nodes.
    fn counts(&mut self) {
        for gpu in 0..self.gpus.len() {
            let lack = self.lack(gpu);
            if lack == 0 {
                continue;
            }
            if let Some(giver) = (0..self.gpus.len()).find(|other| self.surplus(*other) > 0) {
                self.give(gpu, giver, lack);
                continue;
            }
            let nodes: Vec<u32> = (0..lack).map_while(|_| self.take_untied(gpu)).collect();
            if !nodes.is_empty() {
                self.exchange(gpu, &[], &nodes);
                self.differ(Difference::Untied { gpu, nodes });
            } else {
                let own = self.count(gpu);
                let new = self.take_new(lack);
                self.exchange(gpu, &[], &new);
                let more = lack as u32;
                self.differ(Difference::TooFew { gpu, own, more });
            }
        }
        let is_settled = self
            .out
            .differences
            .iter()
            .any(|one| matches!(one, Difference::WrongGpu { .. } | Difference::Shared { .. }));
        for gpu in (0..self.gpus.len()).filter(|_| !is_settled) {
            let (own, more) = (self.count(gpu), self.surplus(gpu));
            if more > 0 {
                let nodes: Vec<u32> = self.own(gpu).into_iter().rev().take(more).collect();
                self.exchange(gpu, &nodes, &[]);
                self.out.remove.extend(&nodes);
                self.differ(Difference::TooMany { gpu, own, nodes });
            }
        }
    }

    /// Gives a GPU as many nodes of another as that has too many, the nearest ones first.
    fn give(&mut self, gpu: usize, giver: usize, lack: usize) {
        let own = self.own(gpu);
        let far = |node: &u32| {
            let far = own.iter().map(|one| one.abs_diff(*node));
            far.min().unwrap_or(*node)
        };
        let mut nodes: Vec<u32> = self.own(giver).into_iter().collect();
        nodes.sort_by_key(|node| (far(node), *node));
        nodes.truncate(lack.min(self.surplus(giver)));
        nodes.sort_unstable();
        let line = self.line(giver, &nodes);
        self.exchange(giver, &nodes, &[]);
        self.exchange(gpu, &[], &nodes);
        self.differ(Difference::WrongGpu {
            gpu,
            giver,
            nodes,
            line,
        });
    }
}
