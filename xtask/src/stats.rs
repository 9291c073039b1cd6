//! `./x kernel stats`: how much C, Rust and `unsafe` the kernel module is made of.
//!
//! A line counts if anything but a comment is on it. Tests don't count, and what is generated
//! counts for itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use varia_lab::agent_build::workspace;

use crate::Outcome;

/// The most lines of C that the adaptor may have.
const MOST_C: usize = 800;

/// Headers that the tests of `kernel/rust` and `variants` render.
const GENERATED: [&str; 2] = ["varia_abi.h", "descriptor.h"];

/// The sizes.
#[derive(Debug, PartialEq, Eq)]
struct Stats {
    c: usize,
    generated: usize,
    border: usize,
    decisions: usize,
    unsafe_blocks: usize,
}

/// Prints the table of docs/kernel.md, and what changes too often to stand there.
pub(crate) fn run() -> Outcome {
    let stats = Stats::of(workspace())?;
    print!("{stats}");
    println!(
        "\nunits, spec, variant and variants, which the module links as they are, have {} lines",
        stats.decisions
    );
    stats.check()?;
    print!("\nIn the kernel's own Rust:\n{}", InTree::of(workspace())?);
    Ok(())
}

/// Sizes of the driver in the kernel's own Rust.
#[derive(Debug, PartialEq, Eq)]
struct InTree {
    c: usize,
    abstraction: usize,
    abstraction_unsafe: usize,
    driver: usize,
    driver_unsafe: usize,
}

impl InTree {
    fn of(tree: &Path) -> Result<Self, std::io::Error> {
        let sources = tree.join("kernel/tree/src");
        let c = texts(&sources.join("rust/helpers"), &["c"])?;
        let abstraction = rust(&sources.join("rust/kernel"))?;
        let driver = rust(&sources.join("drivers"))?;
        let sum = |files: &[(PathBuf, String)], count: fn(&str) -> usize| {
            files.iter().map(|(_, text)| count(text)).sum::<usize>()
        };
        Ok(Self {
            c: sum(&c, c_lines),
            abstraction: sum(&abstraction, rust_lines),
            abstraction_unsafe: sum(&abstraction, unsafe_blocks),
            driver: sum(&driver, rust_lines),
            driver_unsafe: sum(&driver, unsafe_blocks),
        })
    }
}

impl fmt::Display for InTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| part | lines | `unsafe` blocks |\n|---|---|---|")?;
        writeln!(f, "| C: helpers, `rust/helpers` | {} | |", self.c)?;
        for (what, lines, blocks) in [
            (
                "Rust: abstraction, `rust/kernel`",
                self.abstraction,
                self.abstraction_unsafe,
            ),
            ("Rust: driver", self.driver, self.driver_unsafe),
        ] {
            writeln!(f, "| {what} | {lines} | {blocks} |")?;
        }
        Ok(())
    }
}

impl Stats {
    fn of(tree: &Path) -> Result<Self, std::io::Error> {
        let c = texts(&tree.join("kernel/adaptor"), &["c", "h"])?;
        // A module that is no variant has headers of its own.
        let mut descriptors = texts(&tree.join("kernel/modules"), &["h"])?;
        descriptors.retain(|(path, _)| path.ends_with("descriptor.h"));
        let (generated, written): (Vec<_>, Vec<_>) = c
            .into_iter()
            .chain(descriptors)
            .partition(|(path, _)| GENERATED.iter().any(|name| path.ends_with(name)));
        let lines = |files: &[(PathBuf, String)], count: fn(&str) -> usize| {
            files.iter().map(|(_, text)| count(text)).sum::<usize>()
        };
        let border = rust(&tree.join("kernel/rust/src"))?;
        let mut decisions = Vec::new();
        for folder in ["units/src", "spec/src", "variant/src", "variants/src"] {
            decisions.extend(rust(&tree.join(folder))?);
        }
        Ok(Self {
            c: lines(&written, c_lines),
            generated: lines(&generated, c_lines),
            border: lines(&border, rust_lines),
            decisions: lines(&decisions, rust_lines),
            unsafe_blocks: lines(&border, unsafe_blocks) + lines(&decisions, unsafe_blocks),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.c > MOST_C {
            return Err(format!(
                "the C adaptor has {} lines, and {MOST_C} is the most: move a decision into Rust",
                self.c
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| part | lines |\n|---|---|")?;
        for (what, lines) in [
            ("C: adaptor", self.c),
            ("C: headers, rendered from Rust", self.generated),
            ("Rust: the border, `kernel/rust`", self.border),
            (
                "`unsafe` blocks, all of them in the border",
                self.unsafe_blocks,
            ),
        ] {
            writeln!(f, "| {what} | {lines} |")?;
        }
        Ok(())
    }
}

/// The files of a folder and those below it with one of these extensions.
fn texts(folder: &Path, extensions: &[&str]) -> Result<Vec<(PathBuf, String)>, std::io::Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(texts(&path, extensions)?);
        } else if path
            .extension()
            .is_some_and(|known| extensions.iter().any(|extension| known == *extension))
        {
            found.push((path.clone(), fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}

/// Rust files that are not tests alone.
fn rust(folder: &Path) -> Result<Vec<(PathBuf, String)>, std::io::Error> {
    let mut files = texts(folder, &["rs"])?;
    let apart = ["tests.rs", "tests", "header.rs", "rendered.rs"];
    files.retain(|(path, _)| {
        !path
            .iter()
            .any(|part| apart.iter().any(|name| part == *name))
    });
    Ok(files)
}

fn c_lines(text: &str) -> usize {
    let mut code = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    code.push_str(rest);
    let code_of = |line: &str| line.split("//").next().unwrap_or("").trim().len();
    code.lines().filter(|line| code_of(line) > 0).count()
}

/// The lines of code before a module of tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
}

fn rust_lines(text: &str) -> usize {
    code(text).count()
}

fn unsafe_blocks(text: &str) -> usize {
    code(text)
        .map(|line| line.matches("unsafe {").count())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_tests_do_not_count() {
        let c = "// SPDX\n/*\n * text\n */\n#include <a.h>\n\nint a; /* b */\n\t/* c */\n// d\n";
        assert_eq!(c_lines(c), 2);
        let rust = "//! a\nuse b;\n\n    // SAFETY: c\n    unsafe { d() };\n#[cfg(test)]\nmod tests {\n unsafe {} }\n";
        assert_eq!((rust_lines(rust), unsafe_blocks(rust)), (2, 1));
    }

    #[test]
    fn the_adaptor_has_at_most_800_lines_of_c() {
        let mut stats = Stats::of(workspace()).expect("the sources");
        assert!(stats.c > 300, "not all of it was found: {stats:?}");
        stats.check().expect("few enough");
        stats.c = MOST_C + 1;
        assert!(stats.check().is_err(), "one too many is refused");
    }

    #[test]
    fn docs_show_the_sizes() {
        let stats = Stats::of(workspace()).expect("the sources").to_string();
        let page = fs::read_to_string(workspace().join("docs/kernel.md")).expect("the page");
        assert!(
            page.contains(&stats),
            "docs/kernel.md is out of date: put there what `./x kernel stats` prints:\n{stats}"
        );
    }

    #[test]
    fn docs_show_the_sizes_in_the_kernels_own_rust() {
        let sizes = InTree::of(workspace()).expect("the sources");
        assert!(sizes.driver > 500, "not all of it was found: {sizes:?}");
        assert_eq!(sizes.driver_unsafe, 0);
        let page = fs::read_to_string(workspace().join("docs/in-tree.md")).expect("the page");
        assert!(
            page.contains(&sizes.to_string()),
            "docs/in-tree.md is out of date: put there what `./x kernel stats` prints:\n{sizes}"
        );
    }

    /// Name and tests of the rows of a table, which begins after `header`: its first column and
    /// its last.
    fn rows(page: &str, header: &str) -> Vec<(String, String)> {
        let rows = page.lines().skip_while(|line| *line != header).skip(2);
        let row = |line: &str| {
            let cells = line.strip_prefix('|')?.strip_suffix('|')?;
            let name = cells.split('`').nth(1)?;
            Some((name.to_owned(), cells.rsplit('|').next()?.to_owned()))
        };
        rows.map_while(row).collect()
    }

    /// The rows of the two pages that list the named differences.
    fn differences() -> [Vec<(String, String)>; 2] {
        [
            ("nvgrace-gpu.md", "| name | the original | Varia | tests |"),
            ("kernel.md", "| name | tests |"),
        ]
        .map(|(name, header)| {
            let path = workspace().join("docs").join(name);
            rows(&fs::read_to_string(path).expect("the page"), header)
        })
    }

    #[test]
    fn docs_list_every_named_difference_of_the_module() {
        let names = |rows: &[(String, String)]| -> Vec<_> {
            rows.iter().map(|(name, _)| name.clone()).collect()
        };
        let [named, listed] = differences();
        assert!(named.len() > 9, "not all were found: {named:?}");
        assert_eq!(names(&listed), names(&named));
    }

    /// What stands between backticks.
    fn quoted(text: &str) -> Vec<&str> {
        text.split('`').skip(1).step_by(2).collect()
    }

    /// Whether a file has this test.
    fn has_test(text: &str, name: &str) -> bool {
        let head = format!("fn {name}(");
        text.match_indices(&head).any(|(at, _)| {
            let above = text[..at].trim_end().lines().rev();
            let mut attributes = above.take_while(|line| line.trim_start().starts_with('#'));
            attributes.any(|line| line.trim() == "#[test]")
        })
    }

    /// What is wrong with a cell such as "`variants`, `serve`: `a_test`; in a VM: `another`;
    /// differential": tests that are not in the folders which stand before them, or none at all.
    fn wrong(tests: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut count = 0;
        for clause in tests.split(';').map(str::trim) {
            let Some((places, names)) = clause.split_once(": ") else {
                if clause != "differential" {
                    found.push(format!("{clause:?} names no test"));
                }
                continue;
            };
            let mut folders = quoted(places);
            if places.starts_with("in a VM") {
                folders.push("lab/vmtests");
            }
            for folder in folders {
                let texts = texts(&workspace().join(folder), &["rs"]).unwrap_or_default();
                for name in quoted(names) {
                    count += 1;
                    if !texts.iter().any(|(_, text)| has_test(text, name)) {
                        found.push(format!("{folder} has no test {name}"));
                    }
                }
            }
        }
        if count == 0 {
            found.push(format!("{tests:?} names no test"));
        }
        found
    }

    #[test]
    fn every_named_difference_has_the_tests_that_the_docs_name() {
        for (name, tests) in differences().into_iter().flatten() {
            assert_eq!(wrong(&tests), Vec::<String>::new(), "{name}");
        }
        for (cell, complaint) in [
            ("by construction", "names no test"),
            ("differential", "names no test"),
            ("`variants`: `fallback_reasons`", "has no test"),
            ("`variants`: `run`", "has no test"),
            ("in a VM: `waits`", "has no test"),
            ("`nowhere`: `fallback_reason`", "has no test"),
        ] {
            let found = wrong(cell).join(", ");
            assert!(found.contains(complaint), "{cell}: {found:?}");
        }
    }
}
