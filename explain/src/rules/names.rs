//! Names of devices and objects, and that a function of the host is in the VM once.

use std::collections::BTreeSet;

use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    ids(case, out);
    let definition = case.definition;
    for gpu in case.gpus.iter().filter(|gpu| gpu.id.is_empty()) {
        // a name that initiators use and nothing has
        let mut tied = definition.initiators.iter().map(|one| &one.device);
        let is_free = |name: &&String| !definition.ids.iter().any(|one| one.id == **name);
        let id = tied
            .find(is_free)
            .cloned()
            .unwrap_or_else(|| definition.unused(&format!("gpu{}", gpu.function)));
        out.add(
            Code::IdMissing,
            case.line(gpu),
            format!("{} has no id", gpu.label()),
            format!("give it one: id={id}"),
            Fix::Id {
                function: gpu.function,
                id,
            },
        );
    }
    let mut seen = BTreeSet::new();
    for gpu in &case.gpus {
        let Some(host) = gpu.host.filter(|host| !seen.insert(*host)) else {
            continue;
        };
        out.add(
            Code::FunctionTwice,
            case.line(gpu),
            format!("{host} is in the VM twice: a function is in a VM once"),
            "take it away, with its port, or name the function that is meant",
            None,
        );
    }
}

fn ids(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let mut seen = BTreeSet::new();
    for (index, name) in definition.ids.iter().enumerate() {
        if name.id.is_empty() || seen.insert((name.is_object, name.id.as_str())) {
            continue;
        }
        // nothing refers to an initiator: it may have any name
        let is_initiator = definition
            .initiators
            .iter()
            .any(|one| one.place == name.place && name.is_object);
        let id = definition.unused(&name.id);
        out.add(
            Code::IdTwice,
            name.place.line,
            format!("the id {:?} is given twice", name.id),
            format!(
                "name one of them differently, {id:?} for instance, where it is referred to also"
            ),
            is_initiator.then_some(Fix::Rename { name: index, id }),
        );
    }
}
