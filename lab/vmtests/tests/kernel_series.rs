//! The driver in the kernel's own Rust, as a series of mails: what is kept of it is what is generated,
//! it applies to the kernel's source, and its Rust is formatted as the kernel's is.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use varia_lab::agent_build::workspace;
use varia_lab::command;
use varia_lab::kernel_tree::{self, Files};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Table of the patches and their files; `VARIA_WRITE_SERIES=1` writes it anew.
const LIST: &str = "kernel/tree/series/list.txt";

const SENDER: &str = "A Sender <sender@example.org>";
const DATE: &str = "2026-01-01T00:00:00Z";

#[test]
fn the_list_of_the_series_is_the_one_that_is_kept() -> Result<()> {
    let list = kernel_tree::list(&kernel_tree::original()?)?;
    let path = workspace().join(LIST);
    if std::env::var_os("VARIA_WRITE_SERIES").is_some() {
        fs::write(&path, &list)?;
    }
    assert_eq!(
        fs::read_to_string(&path)?,
        list,
        "VARIA_WRITE_SERIES=1 writes {LIST}"
    );
    Ok(())
}

#[test]
fn the_mails_apply_to_the_kernels_source_and_give_what_is_laid_over_it() -> Result<()> {
    let original = kernel_tree::original()?;
    let scratch = tempfile::tempdir()?;
    let (mails, tree) = (scratch.path().join("mails"), scratch.path().join("tree"));
    fs::create_dir(&mails)?;
    let written = kernel_tree::mails(&original, SENDER, DATE, &mails)?;
    let patches = kernel_tree::patches()?;
    assert_eq!(written.len(), patches.len() + 1);

    let files = kernel_tree::files(&original)?;
    fs::create_dir(&tree)?;
    command::run(
        Command::new("git")
            .args(["init", "--quiet"])
            .current_dir(&tree),
    )?;
    let mut known = 0;
    for path in files.keys().filter(|path| original.join(path).is_file()) {
        let to = tree.join(path);
        fs::create_dir_all(to.parent().ok_or("a file is in a folder")?)?;
        fs::copy(original.join(path), to)?;
        known += 1;
    }
    assert!(known >= 7, "{known} files of the kernel are changed");
    for mail in &written[1..] {
        let mut apply = Command::new("git");
        apply
            .args(["apply", "--whitespace=error-all"])
            .arg(mail)
            .current_dir(&tree);
        command::run(&mut apply)?;
    }
    same(&tree, &files)
}

fn same(tree: &Path, files: &Files) -> Result<()> {
    for (path, text) in files {
        let expected = text.replace("@SENDER@", SENDER);
        assert_eq!(fs::read_to_string(tree.join(path))?, expected, "{path}");
    }
    Ok(())
}

#[test]
fn the_rust_is_formatted_and_the_driver_has_no_unsafe_code() -> Result<()> {
    let files = kernel_tree::files(&kernel_tree::original()?)?;
    let scratch = tempfile::tempdir()?;
    let mut roots = Vec::new();
    for (path, text) in &files {
        let file = scratch.path().join(path);
        fs::create_dir_all(file.parent().ok_or("a file is in a folder")?)?;
        fs::write(&file, text)?;
        let own = !path.starts_with("rust/") || path.contains("/vfio");
        if own && path.ends_with(".rs") {
            roots.push(file);
        }
    }
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args([
        "--check",
        "--edition",
        "2021",
        "--config",
        "newline_style=Unix",
    ]);
    command::run(rustfmt.args(&roots))?;

    let driver: Vec<_> = files
        .iter()
        .filter(|(path, _)| path.starts_with("drivers/"))
        .collect();
    assert!(driver.len() > 40, "{} files of the driver", driver.len());
    let root = &files["drivers/vfio/pci/nvgrace-gpu-rs/main.rs"];
    assert!(root.contains("\n#![forbid(unsafe_code)]\n"));
    for (path, text) in driver {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let unsafe_code = code.filter(|line| line.contains("unsafe ")).count();
        assert_eq!(unsafe_code, 0, "{path}");
    }
    Ok(())
}
