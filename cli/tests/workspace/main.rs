//! Rules of the workspace's sources and manifests.

mod file_names;
mod language;
mod layers;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A package of the workspace.
struct Package {
    name: String,
    folder: PathBuf,
    /// Names of the dependencies, and whether only tests use them.
    dependencies: Vec<(String, bool)>,
    /// Lowest version of Rust that builds the package: `1.87`.
    rust_version: String,
}

/// Packages of the workspace, by cargo's metadata.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version=1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let manifest = text(&package["manifest_path"]);
            let used = package["dependencies"].as_array().unwrap().iter();
            Package {
                name: text(&package["name"]),
                folder: Path::new(&manifest).parent().unwrap().to_owned(),
                dependencies: used
                    .map(|used| (text(&used["name"]), used["kind"] == "dev"))
                    .collect(),
                rust_version: text(&package["rust_version"]),
            }
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Adds the Rust sources below `folder`, without build output.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}
