//! Names of source files: two files of one target of a crate never share a name.
//!
//! A test may have the name of the file that it tests, so that `src`, `tests` and `benches` are
//! looked at one by one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::packages;

/// Names with a meaning for cargo and rustc, and unit tests beside the code.
const SHARED: [&str; 4] = ["lib.rs", "main.rs", "mod.rs", "tests.rs"];

/// Adds the Rust files below a folder by their names.
fn gather(folder: &Path, files: &mut BTreeMap<String, Vec<PathBuf>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            gather(&path, files);
        } else if name.ends_with(".rs") && !SHARED.contains(&name.as_str()) {
            files.entry(name).or_default().push(path);
        }
    }
}

/// Cargo finds no test by its file name in a package whose tests are one program.
#[test]
fn a_program_of_tests_has_every_file_as_a_module_or_as_a_program() {
    let mut count = 0;
    for package in packages() {
        let folder = package.folder.join("tests");
        let main = folder.join("main.rs");
        if !main.exists() {
            continue;
        }
        let main = fs::read_to_string(main).unwrap();
        let manifest = fs::read_to_string(package.folder.join("Cargo.toml")).unwrap();
        assert!(manifest.contains("autotests = false"), "{}", package.name);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let program = format!("name = \"{name}\"\n");
            let is_test = path.is_dir() || path.extension().is_some_and(|it| it == "rs");
            if is_test && name != "main" && !manifest.contains(&program) {
                let module = format!("\nmod {name};\n");
                assert!(main.contains(&module), "{}: {name}", package.name);
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} modules");
}

#[test]
fn files_of_a_target_have_different_names() {
    let mut count = 0;
    let mut same = Vec::new();
    for package in packages() {
        for target in ["src", "tests", "benches"] {
            let folder = package.folder.join(target);
            let mut files = BTreeMap::new();
            if folder.is_dir() {
                gather(&folder, &mut files);
            }
            count += files.len();
            same.extend(files.into_values().filter(|paths| paths.len() > 1));
        }
    }
    assert!(count > 200, "{count} names");
    assert!(same.is_empty(), "{same:#?}");
}
