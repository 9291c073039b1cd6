//! Definitions with one fault, made from good ones: exactly that fault is named, and the diff
//! makes a definition without faults of it.

mod command_lines;
mod domains;
pub(crate) mod extended_memory;

use std::collections::BTreeSet;

use varia_explain::Code;
use varia_facts::Facts;
use varia_plan::Plan;

use command_lines::{QEMU, QEMU_WITH_SMMU};
use domains::{LIBVIRT, LIBVIRT_WITH_SMMU};
use extended_memory::{LIBVIRT_WITH_EGM, QEMU_WITH_EGM, domain_with_egm};

use crate::text::{codes, command_line, examined, patched, two, two_with_egm, two_with_smmu, xml};

/// Change that breaks a good definition.
type Break = fn(&str) -> String;

/// A fault: the change that breaks a definition, and the code of the finding.
struct Fault {
    code: Code,
    breaks: Break,
    /// Only the author of the definition can correct it.
    is_left: bool,
}

const fn fault(code: Code, breaks: Break) -> Fault {
    Fault {
        code,
        breaks,
        is_left: false,
    }
}

const fn left(code: Code, breaks: Break) -> Fault {
    Fault {
        code,
        breaks,
        is_left: true,
    }
}
/// Checks that the fault is the only finding and is corrected.
///
/// # Errors
/// The check that fails, with the findings.
fn judge(fault: &Fault, good: &str, facts: &Facts) -> Result<(), String> {
    let broken = (fault.breaks)(good);
    let found = examined(&broken, facts);
    let findings: Vec<_> = found.findings.iter().map(|(finding, _)| finding).collect();
    let diff = found.diff("vm");
    let expect = |good: bool, what: &str| match good {
        true => Ok(()),
        false => Err(format!("{what}: {findings:#?}\n{diff}")),
    };
    expect(codes(&found) == [fault.code.name()], "named")?;
    for text in [&findings[0].what, &findings[0].why, &findings[0].remedy] {
        let is_filled = !text.contains(['{', '}']) && !text.contains("  ");
        expect(is_filled, "filled")?;
    }
    let line = findings[0].line;
    expect((1..=broken.lines().count()).contains(&line), "line")?;
    expect(found.findings[0].1 != fault.is_left, "said to be corrected")?;
    if fault.is_left {
        return expect(found.corrected == broken, "left");
    }
    expect(patched(&broken, &diff) == found.corrected, "applied")?;
    let again = examined(&found.corrected, facts);
    expect(again.findings.is_empty(), &format!("{:#?}", again.findings))
}

/// Judges all faults; returns the codes of the findings.
fn judged(
    name: &str,
    (facts, plan): (Facts, Plan),
    write: fn(&Plan) -> String,
    faults: &[Fault],
) -> BTreeSet<Code> {
    let good = write(&plan);
    assert_eq!(codes(&examined(&good, &facts)), [""; 0]);
    let amiss: Vec<_> = (0..)
        .zip(faults)
        .filter_map(|(index, fault): (u32, _)| {
            let error = judge(fault, &good, &facts).err()?;
            Some(format!("{name} {index}, {}: {error}", fault.code.name()))
        })
        .collect();
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
    faults.iter().map(|fault| fault.code).collect()
}

#[test]
fn command_lines() {
    let mut named = judged("qemu", two(), command_line, QEMU);
    named.extend(judged(
        "smmu",
        two_with_smmu(),
        command_line,
        QEMU_WITH_SMMU,
    ));
    assert!(named.len() > 20, "{named:?}");
}

#[test]
fn extended_gpu_memory() {
    let mut named = judged("egm", two_with_egm(), command_line, QEMU_WITH_EGM);
    let (facts, _) = two_with_egm();
    let (_, plan) = two();
    named.extend(judged(
        "egm of libvirt",
        (facts, plan),
        domain_with_egm,
        LIBVIRT_WITH_EGM,
    ));
    assert!(named.len() > 5, "{named:?}");
}

#[test]
fn domains() {
    let mut named = judged("libvirt", two(), xml, LIBVIRT);
    named.extend(judged("smmu", two_with_smmu(), xml, LIBVIRT_WITH_SMMU));
    assert!(named.len() > 20, "{named:?}");
}

#[test]
fn every_code_is_named_by_a_test() {
    let faults = [
        QEMU,
        QEMU_WITH_SMMU,
        QEMU_WITH_EGM,
        LIBVIRT,
        LIBVIRT_WITH_SMMU,
        LIBVIRT_WITH_EGM,
    ];
    let all: BTreeSet<Code> = faults
        .iter()
        .flat_map(|one| one.iter())
        .map(|one| one.code)
        .collect();
    let rest: Vec<_> = Code::ALL
        .iter()
        .filter(|code| !all.contains(code))
        .map(|code| code.name())
        .collect();
    // these have tests of their own
    assert_eq!(
        rest,
        [
            "nodes-over-limit",
            "machine-arch",
            "vmm-feature",
            "kernel-feature",
            "kernel-memory",
            "egm-partial",
            "egm-size",
            "memory-not-shared"
        ]
    );
}
