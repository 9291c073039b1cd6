//! Bill of materials of the command: the crates that are linked into it or expanded in it, as
//! CycloneDX 1.5. Cargo's tree says which they are, and cargo's metadata, which are those of the whole
//! workspace, describe them. What else is linked are [`Library`]s of Debian.
//!
//! Source of the form: <https://cyclonedx.org/docs/1.5/json/>. It has no date and no serial number,
//! so that the same source gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use varia_debian::command;
use varia_units::Arch;

use crate::agent_build::{host_cargo, workspace};
use crate::error::{LabError, Result};

/// A library of Debian that is linked into the command.
#[derive(Clone, Debug)]
pub struct Library {
    /// Package.
    pub package: String,
    /// Version of the package.
    pub version: String,
    /// License, as SPDX expression.
    pub license: &'static str,
}

/// The bill of materials for a target.
///
/// # Errors
/// [`LabError::Command`] with what cargo said; [`LabError::Missing`] for metadata that can't be
/// understood.
pub fn text(arch: Arch, target: &str, libraries: &[Library]) -> Result<String> {
    let mut cargo = host_cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    let metadata = command::text(cargo.args(["--filter-platform", target]))?;
    let mut cargo = host_cargo();
    cargo.args([
        "tree",
        "--locked",
        "--package",
        "varia",
        "--edges",
        "normal",
    ]);
    cargo.args(["--prefix", "none", "--format", "{p}", "--target", target]);
    let tree = command::text(&mut cargo)?;
    let lock = workspace().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).map_err(LabError::file("read", &lock))?;
    let bill = bill(&metadata, &tree, &lock, arch, libraries).ok_or_else(|| {
        LabError::missing(
            "cargo's metadata have another form than expected",
            "use the version of cargo that the workspace names",
        )
    })?;
    let mut text = serde_json::to_string_pretty(&bill).unwrap_or_default();
    text.push('\n');
    Ok(text)
}

/// The bill of materials from cargo's metadata, cargo's tree and `Cargo.lock`.
fn bill(
    metadata: &str,
    tree: &str,
    lock: &str,
    arch: Arch,
    libraries: &[Library],
) -> Option<Value> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let packages = metadata["packages"].as_array()?;
    let by_id = packages
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)));
    let by_id: BTreeMap<_, _> = by_id.collect();
    let own = packages.iter().find(|package| package["name"] == "varia")?;
    let nodes = metadata["resolve"]["nodes"].as_array()?.iter();
    let nodes: BTreeMap<_, _> = nodes
        .filter_map(|node| Some((node["id"].as_str()?, linked(node)?)))
        .collect();
    let root = own["id"].as_str()?;
    // "serde v1.0.229", with the path of a crate of the workspace or "(*)" behind
    let linked = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?.strip_prefix('v')?))
    });
    let linked: BTreeSet<_> = linked.collect();
    let is_linked = |package: &Value| {
        let key = package["name"].as_str().zip(package["version"].as_str());
        key.is_some_and(|key| linked.contains(&key))
    };
    let found = by_id.iter().filter(|(_, package)| is_linked(package));
    let found: BTreeSet<_> = found.map(|(id, _)| *id).collect();
    if found.len() != linked.len() || !found.contains(root) {
        return None;
    }
    let checksums = checksums(lock);
    let mut components = Vec::new();
    for id in found.iter().filter(|id| **id != root) {
        components.push(component(by_id.get(id)?, &checksums)?);
    }
    let mut dependencies = Vec::new();
    for id in &found {
        let on = nodes.get(id)?.iter().filter(|id| found.contains(*id));
        let on = on.map(|id| reference(by_id.get(id)?));
        let mut on = on.collect::<Option<BTreeSet<_>>>()?;
        if *id == root {
            on.extend(libraries.iter().map(Library::reference));
        }
        dependencies.push(json!({ "ref": reference(by_id.get(id)?)?, "dependsOn": on }));
    }
    for library in libraries {
        components.push(library.component());
        dependencies.push(json!({ "ref": library.reference(), "dependsOn": [] }));
    }
    let sorted = |values: &mut Vec<Value>, key: &str| {
        values.sort_by_key(|value| value[key].as_str().unwrap_or_default().to_owned());
    };
    sorted(&mut components, "bom-ref");
    sorted(&mut dependencies, "ref");
    let mut own = component(own, &checksums)?;
    own["type"] = json!("application");
    own["properties"] = json!([{ "name": "varia:architecture", "value": arch.name() }]);
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": own },
        "components": components,
        "dependencies": dependencies,
    }))
}

impl Library {
    /// Name within the bill, which is the package URL too.
    fn reference(&self) -> String {
        // the only character of a Debian version that a package URL must not have
        let version = self.version.replace('+', "%2B");
        format!("pkg:deb/debian/{}@{version}", self.package)
    }

    fn component(&self) -> Value {
        json!({
            "type": "library",
            "bom-ref": self.reference(),
            "purl": self.reference(),
            "name": self.package,
            "version": self.version,
            "licenses": [{ "expression": self.license }],
        })
    }
}

/// Ids of the packages that a package links: its normal dependencies.
fn linked(node: &Value) -> Option<Vec<&str>> {
    let normal = |dependency: &&Value| {
        let kinds = dependency["dep_kinds"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    let linked = node["deps"].as_array()?.iter().filter(normal);
    linked
        .map(|dependency| dependency["pkg"].as_str())
        .collect()
}

/// Name of a package within the bill, which is its package URL too.
fn reference(package: &Value) -> Option<String> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    Some(format!("pkg:cargo/{name}@{version}"))
}

fn component(package: &Value, checksums: &BTreeMap<(&str, &str), &str>) -> Option<Value> {
    let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
    let reference = reference(package)?;
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "purl": reference,
        "name": name,
        "version": version,
    });
    if let Some(license) = package["license"].as_str() {
        // an older form separates alternatives by a slash
        let expression = license.replace('/', " OR ").replace("  ", " ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(checksum) = checksums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    Some(component)
}

/// Checksums of `Cargo.lock` by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let mut lines = package.lines();
            lines.find_map(|line| {
                line.strip_prefix(key)?
                    .strip_prefix(" = \"")?
                    .strip_suffix('"')
            })
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each component is reached from the command, has a license, and a checksum unless it is of the
    /// workspace or of Debian. A crate that only other members of the workspace have is not listed.
    #[test]
    fn the_bill_has_what_the_command_is_made_of() {
        for arch in Arch::ALL {
            let target = format!("{arch}-unknown-linux-musl");
            let libraries = [Library {
                package: "musl-dev".to_owned(),
                version: "1.2.6+really-1".to_owned(),
                license: "MIT",
            }];
            let bill = text(arch, &target, &libraries).unwrap();
            let bill: Value = serde_json::from_str(&bill).unwrap();
            let musl = "pkg:deb/debian/musl-dev@1.2.6%2Breally-1";
            let components = bill["components"].as_array().unwrap();
            let mut edges = BTreeMap::new();
            for dependency in bill["dependencies"].as_array().unwrap() {
                let on = dependency["dependsOn"].as_array().unwrap().clone();
                edges.insert(dependency["ref"].to_string(), on);
            }
            let root = bill["metadata"]["component"]["bom-ref"].to_string();
            let (mut reached, mut open) = (BTreeSet::new(), vec![root.clone()]);
            while let Some(one) = open.pop() {
                if reached.insert(one.clone()) {
                    open.extend(edges[&one].iter().map(Value::to_string));
                }
            }
            reached.remove(&root);
            let listed = components.iter().map(|one| one["bom-ref"].to_string());
            assert_eq!(listed.collect::<BTreeSet<_>>(), reached);
            let names = components.iter().map(|one| one["name"].as_str().unwrap());
            let names: BTreeSet<_> = names.collect();
            for name in ["varia-core", "clap", "serde", "libc", "tonic", "musl-dev"] {
                assert!(names.contains(name), "{name}");
            }
            for name in ["varia-lab", "varia-agent", "regex", "xtask", "criterion"] {
                assert!(!names.contains(name), "{name}");
            }
            for one in components {
                let is_own = one["name"].as_str().unwrap().starts_with("varia-");
                let is_debian = one["purl"] == musl;
                assert_eq!(one["hashes"].is_null(), is_own || is_debian, "{one}");
                assert!(!one["licenses"].is_null(), "{one}");
            }
        }
    }
}
