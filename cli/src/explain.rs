//! `varia explain`: findings in a definition of a VM, and the diff that corrects them.

use std::process::ExitCode;

use serde_json::json;
use varia_explain::{Examination, Knowledge, Language, MOST_BYTES, examine};
use varia_facts::Facts;
use varia_linux::inventory::Extent;

use crate::{
    Failure,
    args::{ExplainArgs, KnownHostArgs},
    files,
    output::{complain, print},
    plan::{function_of, known_facts, wrapped},
};

/// The version of the JSON.
const SCHEMA: &str = "varia-explain/1";
/// Exit status if the definition can't be judged; 1 is that of findings.
const NOT_JUDGED: u8 = 2;

/// Prints the findings in a definition and the diff.
pub(crate) fn explain(args: &ExplainArgs) -> ExitCode {
    match explained(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(NOT_JUDGED)
        }
    }
}

/// True if nothing is missing or wrong.
fn explained(args: &ExplainArgs) -> Result<bool, Failure> {
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
    };
    let found = examine(&bytes, &knowledge).map_err(|error| format!("{name}: {error}"))?;
    for gpu in &args.gpu {
        let is_there = found.functions.contains(&gpu.name);
        if !is_there {
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
    Ok(found.findings.is_empty())
}

/// Facts of the host: the given ones, or those of this machine unless chips are named.
fn facts(args: &ExplainArgs) -> Result<Option<Facts>, Failure> {
    let KnownHostArgs { host, facts } = &args.known;
    if facts.is_none() && host.sysfs.is_none() && !args.gpu.is_empty() {
        return Ok(None);
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
        "notes": found.notes,
        "diff": found.diff(name),
    })
}

fn as_text(found: &Examination, name: &str) -> String {
    let mut text = match found.gpus.as_slice() {
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
    if found.findings.is_empty() && !found.gpus.is_empty() {
        text += "Nothing is missing or wrong for its GPUs.\n";
    }
    for note in &found.notes {
        text += &format!("\n{}", wrapped(&format!("Note: {note}.")));
    }
    if !found.unknown.is_empty() {
        text += &format!(
            "\n{}",
            wrapped(&format!(
                "Note: {} is not known and was not judged.",
                found.unknown.join(", ")
            ))
        );
    }
    let diff = found.diff(name);
    if !diff.is_empty() {
        text += &format!("\n{diff}");
    }
    text
}
