//! The files that programs of a fetched set need to run elsewhere: themselves, their
//! dynamic loader, and the shared libraries that ELF names, all the way down.
//!
//! What a program opens by name while it runs (plug-ins, firmware) is not found here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use varia_units::Arch;

use crate::arch::ArchNames;
use crate::elf::Elf;
use crate::error::{Error, Result};
use crate::packages::Tree;

/// Paths in the machine with the files of this one, for `programs` (absolute paths in
/// the set) built for `arch`.
pub fn of(tree: &Tree, arch: Arch, programs: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut todo: Vec<String> = programs.iter().map(|&path| path.to_owned()).collect();
    let libraries = format!("/usr/lib/{}", arch.triplet());
    while let Some(path) = todo.pop() {
        if files.contains_key(&path) {
            continue;
        }
        let host = locate(tree, &path)?;
        let bytes = fs::read(&host).map_err(Error::file("read", &host))?;
        if let Some(elf) = Elf::parse(&bytes) {
            // Everything under /lib is under /usr/lib: the set has the merged layout.
            todo.extend(elf.interpreter().map(|loader| merged(&loader)));
            todo.extend(
                elf.needed()
                    .iter()
                    .map(|name| format!("{libraries}/{name}")),
            );
        }
        files.insert(path, host);
    }
    Ok(files)
}

/// The file behind a path in the set. Links that name absolute paths would lead out of
/// it, so they are followed here.
fn locate(tree: &Tree, path: &str) -> Result<PathBuf> {
    let mut host = tree.path(path);
    for _ in 0..8 {
        match fs::read_link(&host) {
            Ok(target) if target.is_absolute() => host = tree.path(&target.to_string_lossy()),
            Ok(target) => host = host.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    if host.is_file() {
        return Ok(host);
    }
    Err(Error::missing(
        format!("the set at {} has no {path}", tree.root().display()),
        "name a file of the set",
    ))
}

fn merged(path: &str) -> String {
    if path.starts_with("/lib") {
        format!("/usr{path}")
    } else {
        path.to_owned()
    }
}
