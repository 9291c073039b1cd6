//! `./x kernel stats`: how much C, Rust and `unsafe` the kernel module is made of.
//!
//! A line counts if anything but a comment is on it. Tests don't count, and what is generated
//! counts for itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use varia_lab::agent_build::workspace;

use crate::Outcome;

/// The C that the adaptor and its descriptors may have, in lines.
const MOST_C: usize = 700;

/// The header that the tests of `kernel/rust` render.
const GENERATED: &str = "varia_abi.h";

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
        "\nspec, variant and variants, which the module links as they are, have {} lines",
        stats.decisions
    );
    stats.check()?;
    Ok(())
}

impl Stats {
    fn of(tree: &Path) -> Result<Self, std::io::Error> {
        let c = texts(&tree.join("kernel/adaptor"), &["c", "h"])?;
        let descriptors = texts(&tree.join("kernel/modules"), &["h"])?;
        let (generated, written): (Vec<_>, Vec<_>) = c
            .into_iter()
            .chain(descriptors)
            .partition(|(path, _)| path.ends_with(GENERATED));
        let lines = |files: &[(PathBuf, String)], count: fn(&str) -> usize| {
            files.iter().map(|(_, text)| count(text)).sum::<usize>()
        };
        let border = rust(&tree.join("kernel/rust/src"))?;
        let mut decisions = Vec::new();
        for folder in ["spec/src", "variant/src", "variants/src"] {
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
        writeln!(f, "| what | lines |\n|---|---|")?;
        for (what, lines) in [
            ("C: adaptor and descriptor", self.c),
            ("C: the header, rendered from Rust", self.generated),
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
    files.retain(|(path, _)| !path.ends_with("tests.rs") && !path.ends_with("header.rs"));
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
    fn the_adaptor_has_at_most_700_lines_of_c() {
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

    /// The names in the first column of the rows of a table, which begins after `header`.
    fn names(page: &str, header: &str) -> Vec<String> {
        let rows = page.lines().skip_while(|line| *line != header).skip(2);
        let name = |line: &str| Some(line.strip_prefix('|')?.split('`').nth(1)?.to_owned());
        rows.map_while(name).collect()
    }

    #[test]
    fn docs_list_every_named_difference_of_the_module() {
        let page = |name: &str| {
            let path = workspace().join("docs").join(name);
            fs::read_to_string(path).expect("the page")
        };
        let named = names(
            &page("nvgrace-gpu.md"),
            "| name | the original | Varia | tests |",
        );
        assert!(named.len() > 9, "not all were found: {named:?}");
        assert_eq!(names(&page("kernel.md"), "| name | tests |"), named);
    }
}
