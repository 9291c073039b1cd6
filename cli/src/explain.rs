//! `varia explain`: findings in a definition of a VM, and the diff that corrects them.

use std::process::ExitCode;

use serde_json::json;
use varia_explain::{Examination, Knowledge, Language, MOST_BYTES, examine};
use varia_facts::{Facts, Host, Kernel, Vmm};
use varia_linux::inventory::Extent;

use crate::{
    Failure,
    args::{ExplainArgs, KnownHostArgs},
    assume, files,
    output::{print, printable},
    plan::{function_of, known_facts, wrapped},
    status,
};

/// The version of the JSON.
const SCHEMA: &str = "varia-explain/1";

/// Prints the findings in a definition and the diff.
pub(crate) fn explain(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let name = match args.file.as_os_str() == files::INPUT {
        true => "definition".to_owned(),
        false => args.file.to_string_lossy().into_owned(),
    };
    // as much of it as says that it is none
    let bytes = files::read(&args.file, MOST_BYTES as u64 + 1)
        .map_err(|error| format!("can't read {}: {error}", args.file.display()))?;
    let facts = facts(args)?;
    let named = args
        .gpu
        .iter()
        .map(|gpu| Ok((gpu.name.clone(), function_of(&gpu.chip)?)));
    let knowledge = Knowledge {
        facts: facts.as_ref(),
        named: named.collect::<Result<_, Failure>>()?,
        nodes_per_gpu: args.nodes_per_gpu,
        faults_only: args.faults_only,
    };
    let found = examine(&bytes, &knowledge).map_err(|error| format!("{name}: {error}"))?;
    for gpu in &args.gpu {
        let is_there = found.functions.contains(&gpu.name);
        // the shell may put it there
        if !is_there && !found.has_open_functions {
            let functions = match found.functions.as_slice() {
                [] => "none".to_owned(),
                functions => functions.join(", "),
            };
            return Err(format!(
                "{name}: the definition has no function {}; its host functions: {functions}",
                gpu.name
            )
            .into());
        }
    }
    if let (true, Some(first)) = (found.gpus.is_empty(), found.unknown.first()) {
        return Err(format!(
            "{name}: {} is not a function of this host, so that its coherent memory is not known: \
             give the facts of its host (varia list --facts there, --facts FILE here), or the chip \
             (--gpu {first}=gh200)",
            found.unknown.join(", ")
        )
        .into());
    }
    if let Some(file) = &args.output {
        files::write(file, found.corrected.as_bytes())?;
    }
    print(&match args.json {
        true => serde_json::to_string_pretty(&as_json(&found, &name))? + "\n",
        false => as_text(&found, &name),
    })?;
    Ok(status::of(
        found.has_fault() || args.strict && !found.findings.is_empty(),
        !found.unjudged.is_empty(),
    ))
}

/// Facts of the host: the given ones, or those of this machine unless chips are named.
fn facts(args: &ExplainArgs) -> Result<Option<Facts>, Failure> {
    let KnownHostArgs {
        host,
        facts,
        assume: assumed,
    } = &args.known;
    if facts.is_none() && host.sysfs.is_none() && !args.gpu.is_empty() {
        if assumed.is_empty() {
            return Ok(None);
        }
        let mut facts = Facts::new(Host::default(), Kernel::default(), Vmm::default());
        assume::apply(&mut facts, assumed);
        return Ok(Some(facts));
    }
    known_facts(&args.known, Extent::All).map(Some)
}

fn language(found: &Examination) -> &'static str {
    match found.language {
        Language::Qemu => "a QEMU command line",
        Language::Libvirt => "a libvirt domain",
    }
}

fn as_json(found: &Examination, name: &str) -> serde_json::Value {
    let findings: Vec<_> = found
        .findings
        .iter()
        .map(|(finding, is_corrected)| {
            json!({
                "code": finding.code.name(),
                "weight": finding.code.weight(),
                "severity": finding.code.weight(),
                "line": finding.line,
                "what": finding.what,
                "why": finding.why,
                "remedy": finding.remedy,
                "corrected": is_corrected,
            })
        })
        .collect();
    json!({
        "schema": SCHEMA,
        "file": name,
        "language": found.language,
        "gpus": found.gpus,
        "unknown": found.unknown,
        "findings": findings,
        "not_judged": found.unjudged,
        "edits": found.edits,
        "notes": found.notes,
        "diff": found.diff(name),
    })
}

fn as_text(found: &Examination, name: &str) -> String {
    let mut text = match found.gpus.as_slice() {
        [] if found.has_open_functions => format!(
            "{name} is {}; which functions of the host it takes, a shell alone knows.\n",
            language(found)
        ),
        [] => format!(
            "{name} is {} without a GPU that has coherent memory.\n",
            language(found)
        ),
        gpus => format!("{name} is {} with {}.\n", language(found), gpus.join(", ")),
    };
    for (finding, is_corrected) in &found.findings {
        let weight = finding.code.weight().name();
        text += &format!(
            "\nline {}: {} ({weight})\n",
            finding.line,
            finding.code.name()
        );
        text += &wrapped(&format!("{}: {}.", finding.what, finding.why));
        let own = match is_corrected {
            true => "",
            false => " The diff does not contain this change.",
        };
        text += &wrapped(&format!("Remedy: {}.{own}", finding.remedy));
    }
    if !found.has_fault() && !found.gpus.is_empty() {
        text += match (found.findings.is_empty(), found.unjudged.is_empty()) {
            (true, true) => "Nothing is missing or wrong for its GPUs.\n",
            (false, true) => "\nThere is advice, and no fault.\n",
            (_, false) => "\nNo fault in what was judged; not everything was.\n",
        };
    }
    for part in &found.unjudged {
        let what = printable(&part.what);
        text += &wrapped(&format!(
            "\nline {}: not judged: {what}: {}.",
            part.line, part.why
        ));
    }
    for note in &found.notes {
        text += &format!("\n{}", wrapped(&format!("Note: {note}.")));
    }
    let diff = found.diff(name);
    if !diff.is_empty() {
        text += &format!("\n{diff}");
    }
    text
}
