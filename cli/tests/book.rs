//! Documentation: every page is in the book, and every link has a target.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Files that are checked beside the book's pages.
const OTHERS: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "kernel/README.md",
    "lab/vmtests/performance.md",
];
/// The book's table of contents, which is not a page of the book.
const SUMMARY: &str = "docs/SUMMARY.md";

fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("the workspace")
}

/// Headings of a page as anchors, and targets of its links and pictures.
#[derive(Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

fn read(path: &str) -> Page {
    let text = fs::read_to_string(workspace().join(path)).expect(path);
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                page.anchors
                    .extend(heading.take().map(|text| anchor(&text)));
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

/// Anchor that renderers make of a heading.
fn anchor(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || "-_".contains(c) => Some(c),
        _ => None,
    });
    kept.collect()
}

/// A path without `.` and `..`, relative to the workspace.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                assert!(plain.pop(), "{} leaves the project", path.display());
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Every page below a directory.
fn below(folder: &str) -> Vec<String> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(workspace().join(folder)).expect(folder) {
        let entry = entry.expect(folder);
        let path = format!("{folder}/{}", entry.file_name().to_str().expect("UTF-8"));
        if entry.file_type().expect(&path).is_dir() {
            pages.extend(below(&path));
        } else if path.ends_with(".md") && path != SUMMARY {
            pages.push(path);
        }
    }
    pages
}

#[test]
fn every_page_is_in_the_book_once() {
    let listed: Vec<_> = read(SUMMARY)
        .links
        .into_iter()
        .map(|link| format!("docs/{link}"))
        .collect();
    let set: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(set.len(), listed.len(), "{listed:?}");
    assert_eq!(set, below("docs").into_iter().collect());
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut pages = BTreeMap::new();
    for path in below("docs").into_iter().chain(OTHERS.map(str::to_owned)) {
        pages.insert(PathBuf::from(&path), read(&path));
    }
    let mut broken = Vec::new();
    let mut followed = 0;
    for (path, page) in &pages {
        for link in &page.links {
            if link.contains("://") {
                continue;
            }
            followed += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = path.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() {
                path.clone()
            } else {
                plain(&folder.join(file))
            };
            let has = |page: &Page| page.anchors.contains(anchor);
            let there = workspace().join(&target).exists()
                && (anchor.is_empty() || pages.get(&target).is_some_and(has));
            if !there {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(followed > 40, "{followed} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Words between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Faults of the original that have a report, by the names of the differences.
const REPORTED: [&str; 6] = [
    "poison-refused",
    "aer-resume",
    "reset-generation",
    "resmem-count",
    "whole-config-access",
    "shared-only",
];

/// A report's reproducer is a function of a test program that calls the function, on the original.
#[test]
fn every_report_names_a_reproducer_that_a_test_runs() {
    let text = |path: &str| fs::read_to_string(workspace().join(path)).expect(path);
    let index = text("docs/upstream/README.md");
    let differences = text("docs/nvgrace-gpu.md");
    for name in REPORTED {
        let cell = format!("`{name}`");
        assert!(
            index.contains(&cell) && differences.contains(&cell),
            "{name}"
        );
    }
    let reports = below("docs/upstream").into_iter();
    let reports: Vec<_> = reports
        .filter(|path| !path.ends_with("README.md"))
        .collect();
    assert!(reports.len() >= REPORTED.len(), "{reports:?}");
    for path in reports {
        let report = text(&path);
        let file = path.rsplit('/').next().expect("a file");
        assert!(
            index.contains(&format!("({file})")),
            "{path}: not in the index"
        );
        let part = |title: &str| {
            let begin = report.find(&format!("**{title}.**"));
            let begin = begin.unwrap_or_else(|| panic!("{path}: no {title}"));
            report[begin..]
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        for title in ["Symptom", "Kernels", "Proposal"] {
            part(title);
        }
        let told = part("Reproducer");
        let told = quoted(&told);
        let source = told
            .iter()
            .find(|word| word.starts_with("lab/vmtests/tests/"));
        let source = source.unwrap_or_else(|| panic!("{path}: no test"));
        let program = source.trim_start_matches("lab/vmtests/tests/");
        let program = program.split(['/', '.']).next().unwrap_or_default();
        let run = format!("`cargo test -p varia-vmtests --test {program}`");
        assert!(report.contains(&run), "{path}: {run}");
        let code = text(source);
        assert!(
            code.contains("Driver::Original"),
            "{source}: the original is not run"
        );
        let all = format!("{code}{}", text(&format!("lab/vmtests/tests/{program}.rs")));
        let known = |word: &&&str| code.contains(&format!("fn {word}("));
        let functions: Vec<_> = told.iter().filter(known).collect();
        assert!(!functions.is_empty(), "{path}: no function of {source}");
        for name in functions {
            let called = all.matches(&format!("{name}(&host")).count();
            assert!(called > 0, "{path}: {program} does not call {name}");
        }
    }
}

#[test]
fn a_heading_becomes_an_anchor() {
    assert_eq!(
        anchor("What `./x soak` runs, and why"),
        "what-x-soak-runs-and-why"
    );
}
