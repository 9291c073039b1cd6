//! Parts of a definition that are not judged.
//!
//! Every part that may concern a GPU, its ports, root buses, SMMUs, memory, nodes or the aperture is
//! either read by `parse` and judged by `rules`, or listed here with its line. Parts that can't
//! concern them (network, disks, character devices, displays) are known by name.
//!
//! | module | what is in it |
//! |---|---|
//! | `qemu` | options, devices, objects and properties of QEMU |
//! | `libvirt` | elements and attributes of libvirt |
//! | `known` | names of QEMU that are known |
//! | `known_elements` | names of libvirt that are known |

pub(crate) mod known;
pub(crate) mod known_elements;
pub(crate) mod libvirt;
pub(crate) mod qemu;

use serde::Serialize;

/// Part of a definition that was not judged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Unjudged {
    /// Line of the definition, from 1.
    pub line: usize,
    /// The part, as the definition names it.
    pub what: String,
    /// Reason.
    pub why: String,
}

/// Parts of a definition as they are gathered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Parts that are not judged; those of a function with the function's place in the list.
    pub(crate) unjudged: Vec<(Unjudged, Option<usize>)>,
    /// Devices may come from somewhere else, so that a name that nothing has is no fault.
    pub(crate) has_more: bool,
    /// Options may come from somewhere else, so that one that is missing is no fault.
    pub(crate) has_open_options: bool,
    /// A node may come from somewhere else, so that the nodes of the VM are not known.
    pub(crate) has_open_nodes: bool,
    /// A Generic Initiator was not read, so that the nodes of GPUs are not known.
    pub(crate) has_open_ties: bool,
}

impl Scope {
    pub(crate) fn add(&mut self, line: usize, what: impl Into<String>, why: impl Into<String>) {
        let unjudged = Unjudged {
            line,
            what: what.into(),
            why: why.into(),
        };
        self.unjudged.push((unjudged, None));
    }
}
