//! Values at an edge: exactly enough, and as many as are named.

use varia_facts::Bytes;
use varia_plan::Backing;

use super::{Case, GIB, MIB, plan};
use crate::memory::default_hugepage;
use crate::{Finding, Scene, Severity, examine_some};

/// What the check `name` finds.
fn found(case: &Case, name: &str) -> Vec<Finding> {
    let findings = case.examine();
    findings.into_iter().filter(|it| it.check == name).collect()
}

#[test]
fn the_usual_hugepage_is_the_named_one_or_that_of_the_page_size() {
    let mut case = Case::new(None);
    for (page, huge) in [
        (64 << 10, 512 * MIB),
        (16 << 10, 32 * MIB),
        (4 << 10, 2 * MIB),
    ] {
        case.facts.kernel.page_size = Some(Bytes(page));
        assert_eq!(default_hugepage(&case.facts), Some(Bytes(huge)), "{page}");
    }
    case.facts.kernel.cmdline = vec!["default_hugepagesz=1G".to_owned()];
    assert_eq!(default_hugepage(&case.facts), Some(Bytes(GIB)));
    case.facts.kernel.cmdline.clear();
    case.facts.kernel.page_size = None;
    assert_eq!(default_hugepage(&case.facts), None);
}

#[test]
fn no_more_iommus_are_counted_than_are_left_unnamed() {
    let mut case = Case::new(None);
    for (count, end) in [(4, "3"), (5, "3 and 1 more")] {
        let names = (0..count).map(|number| format!("smmu3.{number}"));
        case.facts.host.iommu.instances = names.collect();
        let text = &found(&case, "iommu")[0].found;
        assert!(text.ends_with(end), "{text}");
    }
}

#[test]
fn ram_that_is_just_enough_is_enough() {
    let mut case = Case::new(Some(plan()));
    for socket in &mut case.plan().sockets {
        socket.backing = Backing::Pages;
    }
    let wanted = case.plan().sockets[0].memory;
    let node = &mut case.facts.host.nodes[0];
    (node.memory, node.memory_free) = (wanted, wanted);
    let worst = |case: &Case, name: &str| found(case, name).iter().map(|it| it.severity).max();
    assert_eq!(worst(&case, "memory"), Some(Severity::Ok));
    case.facts.host.nodes[0].memory_free.0 -= 1;
    assert_eq!(worst(&case, "memory"), Some(Severity::Warning));
}

#[test]
fn a_plan_is_left_open_by_what_is_not_known_and_depended_on() {
    let depended = crate::CHECKS.iter().find(|check| check.is_depended);
    let other = crate::CHECKS.iter().find(|check| !check.is_depended);
    let (depended, other) = (depended.unwrap().name, other.unwrap().name);
    let is_open = |check, severity| Finding::new(check, severity, "x").leaves_plan_open();
    assert!(is_open(depended, Severity::Unknown));
    assert!(!is_open(depended, Severity::Failure));
    assert!(!is_open(other, Severity::Unknown));
    assert!(!is_open("no such check", Severity::Unknown));
}

#[test]
fn checks_are_run_by_name() {
    let case = Case::new(None);
    let scene = Scene {
        facts: &case.facts,
        devices: &[],
        plan: None,
        definition: None,
        files: &case.files,
    };
    let findings = examine_some(&scene, &["iommu"]);
    assert!(!findings.is_empty());
    assert!(
        findings.iter().all(|it| it.check == "iommu"),
        "{findings:?}"
    );
    let files = Scene::files_of(&plan());
    assert_eq!(files, ["/firmware.fd", "/disk.qcow2"]);
}
