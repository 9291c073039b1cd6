//! Ids of GPUs and Generic Initiators, and functions of the host that are in the VM twice.

use std::collections::BTreeSet;

use crate::case::{Case, Subject};
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    ids(case, out);
    let definition = case.definition;
    let has_none = |gpu: &&Subject| {
        let function = case.function(gpu);
        gpu.id.is_empty() && function.is_some_and(|function| !function.open.is("id"))
    };
    for gpu in case.gpus.iter().filter(has_none) {
        // an id that initiators refer to and nothing has
        let mut tied = definition.initiators.iter().map(|one| &one.device);
        let is_free = |name: &&String| !definition.ids.iter().any(|one| one.id == **name);
        let id = tied
            .find(is_free)
            .cloned()
            .unwrap_or_else(|| definition.unused(&format!("gpu{}", gpu.function)));
        out.add(
            Code::IdMissing,
            case.line(gpu),
            &[("gpu", &gpu.label()), ("id", &id.clone())],
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
            &[("function", &host)],
            None,
        );
    }
}

/// Reports a Generic Initiator with the id of another object: nothing refers to the id, so that the
/// correction can rename the initiator. QEMU itself names any other id that is used twice.
fn ids(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let mut seen = BTreeSet::new();
    for (index, name) in definition.ids.iter().enumerate() {
        if !name.is_object || name.id.is_empty() || seen.insert(name.id.as_str()) {
            continue;
        }
        let mut initiators = definition.initiators.iter();
        if !initiators.any(|one| one.place == name.place) {
            continue;
        }
        let id = definition.unused(&name.id);
        out.add(
            Code::IdTwice,
            name.place.line,
            &[("id", &format!("{:?}", name.id)), ("new", &id.clone())],
            Fix::Rename { name: index, id },
        );
    }
}
