//! Cases: a definition with the facts about its GPUs.

use varia_facts::{Bdf, Facts, NodeId, PciFunction};

use crate::assignment::Assignment;
use crate::model::{Bus, BusKind, Definition, Function, Language};
use crate::scope::Unjudged;
use varia_plan::NODES_PER_GPU;
use varia_plan::window;
use varia_plan::{CoherentMemory, Gpu, GuestNode, PlannedBar, Source, VirtualFunction};

/// Base class of display controllers. Source: PCI Code and ID Assignment 1.17.
const DISPLAY: u32 = 0x03;

/// Facts about the devices of a definition.
#[derive(Clone, Debug, Default)]
pub struct Knowledge<'a> {
    /// Facts of the VM's host.
    pub facts: Option<&'a Facts>,
    /// GPUs by address on the host or by id in the VM, each as a host of its chip has it. Other devices
    /// are then not GPUs, unless they are in `facts`.
    pub named: Vec<(String, PciFunction)>,
    /// Nodes for each GPU; by default those that firmware reserves, or the driver's usual number.
    pub nodes_per_gpu: Option<u32>,
    /// Faults alone are found and corrected, no advice.
    pub faults_only: bool,
}

/// A GPU of a definition.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Place in the list of functions.
    pub(crate) function: usize,
    /// Id; empty if the GPU has none.
    pub(crate) id: String,
    pub(crate) host: Option<Bdf>,
    /// 64-bit prefetchable BARs; none if only the definition is known.
    pub(crate) bars: Option<Vec<PlannedBar>>,
    /// Nodes that the GPU needs.
    pub(crate) nodes: u32,
    /// Node of the host with the GPU's CPUs.
    pub(crate) cpu_node: Option<NodeId>,
}

impl Subject {
    /// Name in messages.
    pub(crate) fn label(&self) -> String {
        match (self.id.as_str(), self.host) {
            ("", Some(host)) => format!("the GPU {host}"),
            (id, Some(host)) => format!("{id} ({host})"),
            (id, None) => id.to_owned(),
        }
    }
}

/// Input of the rules.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) facts: Option<&'a Facts>,
    pub(crate) gpus: Vec<Subject>,
    /// Nodes of the GPUs.
    pub(crate) assignment: Assignment,
    /// The number of nodes for each GPU is given.
    pub(crate) is_count_told: bool,
    /// Functions that may be GPUs or not.
    pub(crate) unknown: Vec<&'a Function>,
    pub(crate) faults_only: bool,
}

impl<'a> Case<'a> {
    pub(crate) fn new(definition: &'a Definition, knowledge: &Knowledge<'a>) -> Self {
        let mut case = Self {
            definition,
            facts: knowledge.facts,
            is_count_told: knowledge.nodes_per_gpu.is_some(),
            gpus: Vec::new(),
            assignment: Assignment::default(),
            unknown: Vec::new(),
            faults_only: knowledge.faults_only,
        };
        for (index, function) in definition.functions.iter().enumerate() {
            let id = function.id.clone().unwrap_or_default();
            let is_named = |name: &String| {
                name.parse::<Bdf>()
                    .is_ok_and(|bdf| Some(bdf) == function.host)
                    || Some(name) == function.id.as_ref()
            };
            let named = knowledge.named.iter().find(|(name, _)| is_named(name));
            let on_host = function.host.and_then(|bdf| knowledge.facts?.function(bdf));
            let known = named.map(|(_, known)| known).or(on_host);
            let is_tied = definition
                .initiators
                .iter()
                .any(|one| one.device == id && !id.is_empty());
            let bars = match known {
                Some(known) if is_gpu(known) => Some(PlannedBar::of(known)),
                // a Generic Initiator names the function
                _ if is_tied => None,
                _ if function.open.is("host") => {
                    case.unknown.push(function);
                    continue;
                }
                Some(_) => continue,
                None if !knowledge.named.is_empty() => continue,
                None => {
                    case.unknown.push(function);
                    continue;
                }
            };
            let is_again =
                function.host.is_some() && case.gpus.iter().any(|gpu| gpu.host == function.host);
            let set_aside = known
                .and_then(|known| known.coherent_memory.as_ref()?.pxm_count)
                .filter(|count| *count > 0);
            case.gpus.push(Subject {
                function: index,
                id,
                host: function.host,
                bars: bars.filter(|bars| !bars.is_empty()),
                nodes: knowledge
                    .nodes_per_gpu
                    .or(set_aside)
                    .unwrap_or(NODES_PER_GPU),
                cpu_node: match named {
                    // the nodes of a chip's made-up host are not those of this host
                    Some(_) => None,
                    // one of two devices with the same function has a wrong address
                    None if is_again => None,
                    None => on_host.and_then(|function| function.cpu_node),
                },
            });
        }
        case.assignment = Assignment::new(definition, &case.gpus, case.is_count_told);
        case
    }

    /// Functions with an address that may be GPUs or not.
    pub(crate) fn named_unknown(&self) -> impl Iterator<Item = &'a Function> {
        let unknown = self.unknown.iter().copied();
        unknown.filter(|function| !function.open.is("host"))
    }

    /// Parts that are not judged, without those of functions that are not GPUs.
    pub(crate) fn unjudged(&self) -> Vec<Unjudged> {
        let scope = &self.definition.scope;
        let is_ours = |place: usize| {
            let functions = &self.definition.functions;
            let is_unknown = |function: &&Function| {
                let own = functions.get(place).map(|own| own.place);
                own == Some(function.place)
            };
            self.gpus.iter().any(|gpu| gpu.function == place) || self.unknown.iter().any(is_unknown)
        };
        let parts = scope.unjudged.iter();
        let mut all: Vec<Unjudged> = parts
            .filter(|(_, place)| place.is_none_or(is_ours))
            .map(|(part, _)| part.clone())
            .collect();
        if self.gpus.is_empty() && self.unknown.is_empty() && !scope.has_more {
            all.clear();
        }
        // an address that only a shell knows is a part that the scope has
        let named = self.named_unknown();
        all.extend(named.map(|function| {
            Unjudged {
                line: function.place.line,
                what: function.label(),
                why: match self.facts.is_some_and(|facts| !facts.functions.is_empty()) {
                    true => {
                        "this host has no such function: correct the address, or give the facts \
                             of its host (--facts)"
                    }
                    false => {
                        "it is not known whether it is a GPU: give the facts of its host \
                              (--facts), or its chip (--gpu)"
                    }
                }
                .to_owned(),
            }
        }));
        all.extend(self.plain_gpus());
        let without = self.gpus.iter().filter(|gpu| gpu.bars.is_none());
        all.extend(without.map(|gpu| {
            let name = gpu.host.map_or(gpu.id.clone(), |host| host.to_string());
            Unjudged {
                line: self.line(gpu),
                what: format!("BARs of {}", gpu.label()),
                why: format!(
                    "they are not known, so that aperture and windows were not judged: give the \
                     facts of its host (--facts), or its chip (--gpu {name}=gh200)"
                ),
            }
        }));
        all.extend(self.sharing());
        all.extend(crate::rules::egm_unjudged(self));
        all.sort();
        all.dedup();
        all
    }

    pub(crate) fn function(&self, gpu: &Subject) -> Option<&'a Function> {
        self.definition.functions.get(gpu.function)
    }

    /// A node of a GPU, if it has one.
    pub(crate) fn first_node(&self, gpu: &Subject) -> Option<u32> {
        let place = self
            .gpus
            .iter()
            .position(|one| one.function == gpu.function)?;
        self.assignment.nodes.get(place)?.first().copied()
    }

    /// The line of a GPU.
    pub(crate) fn line(&self, gpu: &Subject) -> usize {
        self.function(gpu).map_or(1, |function| function.place.line)
    }

    /// True if the IOMMU of the host that translates for a GPU is also that of the first GPU behind
    /// a root bus; `None` if the host's IOMMUs are not known.
    pub(crate) fn shares_smmu(&self, gpu: &Subject, root: usize) -> Option<bool> {
        let iommu = |gpu: &Subject| self.facts?.function(gpu.host?)?.iommu.as_deref();
        let mut gpus = self.gpus.iter();
        let first = gpus.find(|other| self.above(other).1 == Some(root))?;
        Some(iommu(first)? == iommu(gpu)?)
    }

    /// GPUs of the host without coherent memory, which the rules do not judge.
    fn plain_gpus(&self) -> Vec<Unjudged> {
        let functions = self.definition.functions.iter();
        let plain = functions.filter_map(|function| {
            let known = self.facts?.function(function.host?)?;
            let is_display = known.class >> 16 == DISPLAY;
            (is_display && !is_gpu(known)).then_some((function, known))
        });
        let needs = |known: &PciFunction| match window(&PlannedBar::physical(known)) {
            Ok(size) if size.0 > 0 => format!(
                ", behind a root port that leaves room for a 64-bit window of {size}, inside of the \
                 guest's address width"
            ),
            _ => String::new(),
        };
        plain
            .map(|(function, known)| Unjudged {
                line: function.place.line,
                what: function.label(),
                why: format!(
                    "it is a GPU without coherent memory, and Varia judges those with such memory: \
                     plain vfio-pci is right for it{}",
                    needs(known)
                ),
            })
            .collect()
    }

    /// GPUs behind a root bus with an SMMU, whose SMMUs on the host are not known.
    fn sharing(&self) -> Vec<Unjudged> {
        let mut all = Vec::new();
        let mut roots = Vec::new();
        for gpu in self
            .gpus
            .iter()
            .filter(|_| !self.definition.smmus.is_empty())
        {
            let Some(root) = self.root_bus(gpu).map(|(root, _)| root) else {
                continue;
            };
            if roots.contains(&root) && self.shares_smmu(gpu, root).is_none() {
                all.push(Unjudged {
                    line: self.line(gpu),
                    what: format!("root bus of {}", gpu.label()),
                    why: "another GPU shares it and its SMMU, which works if one SMMU of the host \
                          serves both: give the facts of the host (--facts)"
                        .to_owned(),
                });
            }
            roots.push(root);
        }
        all
    }

    /// The root port above a GPU, and the root bus above that, by their places in the list.
    pub(crate) fn above(&self, gpu: &Subject) -> (Option<usize>, Option<usize>) {
        let mut name = self
            .function(gpu)
            .and_then(|function| function.bus.as_deref());
        let (mut port, mut steps) = (None, 0);
        while let Some(at) = self.bus(name.unwrap_or(self.definition.root())) {
            let Some(bus) = self.definition.buses.get(at) else {
                break;
            };
            match bus.kind {
                BusKind::Root | BusKind::Expander { .. } => return (port, Some(at)),
                BusKind::Port { .. } => port = port.or(Some(at)),
                BusKind::Bridge => {}
            }
            name = bus.parent.as_deref();
            steps += 1;
            // buses that are below each other
            if steps > self.definition.buses.len() {
                break;
            }
        }
        (port, None)
    }

    /// No device or object has this id.
    pub(crate) fn is_free(&self, id: &str) -> bool {
        !self.definition.ids.iter().any(|one| one.id == id)
    }

    pub(crate) fn bus(&self, name: &str) -> Option<usize> {
        self.definition
            .buses
            .iter()
            .position(|bus| bus.name == name)
    }

    /// The root bus of a GPU, if it is one beside the machine's.
    pub(crate) fn root_bus(&self, gpu: &Subject) -> Option<(usize, &'a Bus)> {
        let (_, root) = self.above(gpu);
        let bus = self.definition.buses.get(root?)?;
        matches!(bus.kind, BusKind::Expander { .. }).then_some((root?, bus))
    }

    /// The node of the CPUs that a GPU is attached to, as its root bus says.
    pub(crate) fn socket(&self, gpu: &Subject) -> Option<u32> {
        match self.root_bus(gpu)?.1.kind {
            BusKind::Expander { node, .. } => node,
            _ => None,
        }
    }

    /// Nodes with CPUs, in their order.
    pub(crate) fn sockets(&self) -> Vec<u32> {
        let nodes = self.definition.nodes.iter();
        let mut sockets: Vec<_> = nodes
            .filter(|node| node.cpus.is_some())
            .map(|node| node.id)
            .collect();
        sockets.sort_unstable();
        sockets.dedup();
        sockets
    }

    /// The node of the VM whose RAM is on a GPU's socket of the host, if one is.
    pub(crate) fn socket_on_host(&self, gpu: &Subject) -> Option<u32> {
        let wanted = gpu.cpu_node?;
        let mut nodes = self
            .definition
            .nodes
            .iter()
            .filter(|node| node.cpus.is_some());
        let is_on = |node: &&crate::model::Node| {
            let host = node
                .backing
                .as_ref()
                .and_then(|backing| backing.host_nodes.as_deref());
            host.and_then(|text| text.parse().ok()) == Some(wanted.0)
        };
        nodes.find(is_on).map(|node| node.id)
    }

    /// The GPUs whose BARs are known, as a plan has them.
    pub(crate) fn planned(&self) -> Vec<Gpu> {
        let known = self
            .gpus
            .iter()
            .filter_map(|gpu| Some((gpu, gpu.bars.clone()?)));
        known
            .filter_map(|(gpu, bars)| {
                Some(Gpu {
                    window: window(&bars).ok()?,
                    memory: CoherentMemory {
                        device: VirtualFunction {
                            id: gpu.id.clone(),
                            bars,
                        },
                        source: match gpu.host {
                            Some(host) => Source::Function(host),
                            None => Source::VfioUser(gpu.id.clone().into()),
                        },
                        nodes: 0..0,
                    },
                    socket: GuestNode(0),
                    bus: None,
                })
            })
            .collect()
    }

    pub(crate) fn is_qemu(&self) -> bool {
        self.definition.language == Language::Qemu
    }

    /// A GPU of the host is in it.
    pub(crate) fn has_hardware(&self) -> bool {
        let mut functions = self.gpus.iter().filter_map(|gpu| self.function(gpu));
        functions.any(|function| !function.is_served)
    }
}

fn is_gpu(function: &PciFunction) -> bool {
    function.coherent_memory.is_some()
        || function.virtual_bars.iter().any(|bar| bar.memory.is_some())
}
