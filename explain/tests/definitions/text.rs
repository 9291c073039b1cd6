//! Definitions as text, changed by programs.

use std::process::{Command, Stdio};

use varia_explain::{Examination, Knowledge, examine};
use varia_facts::{Bytes, Facts};
use varia_plan::{Plan, arguments, domain, make};

use crate::host::{GIB, GPUS, facts, facts_with_egm, facts_with_iommufd, request};

/// A plan as a script has it.
pub(crate) fn command_line(plan: &Plan) -> String {
    let mut text = format!("qemu-system-{}", plan.arch);
    for one in arguments(plan) {
        text += &format!(" \\\n  {} {}", one.option, shell_words::quote(&one.value));
    }
    text + "\n"
}

/// Two GPUs on two sockets, with type1.
pub(crate) fn two() -> (Facts, Plan) {
    let facts = facts();
    let mut wanted = request(&[GPUS[0], GPUS[2]]);
    wanted.memory = Bytes(8 * GIB);
    let plan = make(&facts, &wanted).expect("a plan");
    (facts, plan)
}

/// The same with iommufd and an SMMU for each.
pub(crate) fn two_with_smmu() -> (Facts, Plan) {
    let mut facts = facts_with_iommufd();
    for (index, function) in facts.functions.iter_mut().enumerate() {
        function.iommu = Some(format!("smmu3.{index:#x}"));
    }
    let plan = make(&facts, &request(&[GPUS[0], GPUS[2]])).expect("a plan");
    (facts, plan)
}

/// The same with Extended GPU Memory as RAM.
pub(crate) fn two_with_egm() -> (Facts, Plan) {
    let facts = facts_with_egm();
    let mut wanted = request(&[GPUS[0], GPUS[2]]);
    wanted.egm = true;
    wanted.pin = false;
    let plan = make(&facts, &wanted).expect("a plan");
    (facts, plan)
}

/// Four GPUs, two on each socket.
pub(crate) fn four() -> (Facts, Plan) {
    let facts = facts();
    let plan = make(&facts, &request(&GPUS)).expect("a plan");
    (facts, plan)
}

pub(crate) fn xml(plan: &Plan) -> String {
    domain(plan).expect("every GPU is a function of the host")
}

pub(crate) fn examined(text: &str, facts: &Facts) -> Examination {
    let knowledge = Knowledge {
        facts: Some(facts),
        ..Knowledge::default()
    };
    let found =
        examine(text.as_bytes(), &knowledge).unwrap_or_else(|error| panic!("{error}: {text}"));
    for (finding, _) in &found.findings {
        let texts = [&finding.what, &finding.why, &finding.remedy];
        let is_complete = texts.iter().all(|text| !text.contains(['{', '}']));
        assert!(is_complete, "a value is not given: {finding:?}");
    }
    found
}

/// The codes of what was found.
pub(crate) fn codes(found: &Examination) -> Vec<&'static str> {
    let findings = found.findings.iter();
    findings.map(|(finding, _)| finding.code.name()).collect()
}

/// Puts one text in the place of another, which is there once.
pub(crate) fn swap(text: &str, from: &str, to: &str) -> String {
    assert_eq!(
        text.matches(from).count(),
        1,
        "{from:?} is there once: {text}"
    );
    text.replacen(from, to, 1)
}

/// Without the lines that have one of these texts; each has some.
pub(crate) fn without(text: &str, parts: &[&str]) -> String {
    for part in parts {
        assert!(text.contains(part), "{part:?} is nowhere in {text}");
    }
    let mut out: Vec<_> = text
        .lines()
        .filter(|line| !parts.iter().any(|part| line.contains(part)))
        .collect();
    // a command ends with a line without a backslash
    if let Some(last) = out.last_mut() {
        *last = last.trim_end_matches(" \\");
    }
    out.join("\n") + "\n"
}

/// What another program makes of a text and a diff of it.
pub(crate) fn patched(text: &str, diff: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("vm"), text).expect("a file");
    std::fs::write(folder.path().join("diff"), diff).expect("a file");
    let ended = Command::new("git")
        .args(["apply", "-p0", "--unidiff-zero", "diff"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("git runs");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}: {diff}");
    std::fs::read_to_string(folder.path().join("vm")).expect("a file")
}
