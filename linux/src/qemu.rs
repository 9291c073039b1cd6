//! Version and features of a QEMU, queried in one run.
//!
//! QEMU runs without a machine and is queried over QMP, which all versions have. Source: the QEMU
//! 11.1 QMP reference (`qom-list-types`, `device-list-properties`, `qom-list-properties`).

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use varia_facts::{Arch, Feature, Qemu, Vmm};

use crate::programs::{self, first_line};

/// Devices and objects to query, with properties of each.
const TYPES: [(&str, &[&str]); 9] = [
    ("acpi-egm-memory", &[]),
    ("acpi-generic-initiator", &[]),
    ("iommufd", &[]),
    ("vfio-pci", &["iommufd", "ats"]),
    ("vfio-user-pci", &[]),
    ("pxb-pcie", &[]),
    ("pcie-root-port", &["pref64-reserve"]),
    ("memory-backend-memfd", &["hugetlb", "prealloc"]),
    (
        "arm-smmuv3",
        &["accel", "ssidsize", "oas", "ats", "ril", "cmdqv"],
    ),
];
/// Machines with properties to query, and the names of the features.
const MACHINES: [(&str, &str, &[&str]); 1] = [("virt-machine", "virt", &["highmem-mmio-size"])];
const WITHOUT_MACHINE: [&str; 8] = [
    "-machine",
    "none",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-qmp",
    "stdio",
];

/// Finds QEMU and queries it.
pub(crate) fn ask(arch: Option<Arch>, named: Option<&Path>, vmm: &mut Vmm) {
    let mut unknown = |what: &str, why: String| {
        vmm.unknown.insert(what.to_owned(), why);
    };
    let name = match arch {
        Some(Arch::Aarch64) => "qemu-system-aarch64",
        Some(Arch::X86_64) => "qemu-system-x86_64",
        None => return unknown("qemu", "the machine's architecture is not known".to_owned()),
    };
    // Red Hat's QEMU is not in PATH
    let find = || programs::find(name).or_else(|| programs::find("qemu-kvm"));
    let Some(path) = named.map(Path::to_owned).or_else(find) else {
        return unknown("qemu", format!("{name} is not in PATH"));
    };
    let shown = path.display();
    let source = format!("{shown} --version");
    let told = match programs::ask(&path, &["--version"], "") {
        Ok(told) => told,
        Err(why) => return unknown("qemu", format!("{source}: {why}")),
    };
    let Some(version) = programs::version(&told) else {
        return unknown(
            "qemu",
            format!("{source} prints no version: {:?}", first_line(&told)),
        );
    };
    let features =
        programs::ask(&path, &WITHOUT_MACHINE, &requests()).and_then(|answers| features(&answers));
    let features = features.unwrap_or_else(|why| {
        let command = format!("{shown} {}", WITHOUT_MACHINE.join(" "));
        unknown("qemu-features", format!("{command}: {why}"));
        Vec::new()
    });
    vmm.qemu = Some(Qemu {
        path: shown.to_string(),
        version,
        source,
        features,
    });
}

/// All requests, one on each line, with the queried type as the request's id.
fn requests() -> String {
    let request = |command: &str, kind: Option<&str>| {
        let mut request = json!({ "execute": command, "id": kind.unwrap_or(command) });
        if let Some(kind) = kind {
            request["arguments"] = json!({ "typename": kind });
        }
        format!("{request}\n")
    };
    let mut text = request("qmp_capabilities", None) + &request("qom-list-types", None);
    for (kind, _) in TYPES
        .iter()
        .filter(|(_, properties)| !properties.is_empty())
    {
        // objects and devices have different requests for properties
        let command = match *kind {
            "memory-backend-memfd" => "qom-list-properties",
            _ => "device-list-properties",
        };
        text += &request(command, Some(kind));
    }
    for (kind, ..) in MACHINES {
        text += &request("qom-list-properties", Some(kind));
    }
    text + &request("quit", None)
}

/// Features in the replies.
fn features(answers: &str) -> Result<Vec<Feature>, String> {
    let answers: Vec<Value> = answers
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let names = |id: &str| {
        let answer = answers.iter().find(|answer| answer["id"] == id)?;
        let names = answer["return"].as_array()?.iter();
        let names = names.filter_map(|one| one["name"].as_str());
        Some(names.collect::<BTreeSet<_>>())
    };
    let types = names("qom-list-types").ok_or("no reply to qom-list-types")?;
    let mut found = Vec::new();
    let mut add = |name: String, present: bool, source: String| {
        found.push(Feature {
            name,
            present,
            source,
        });
    };
    for (kind, properties) in TYPES {
        let there = types.contains(kind);
        add(kind.to_owned(), there, "QMP qom-list-types".to_owned());
        let has = names(kind);
        // an absent type has no properties
        if has.is_none() && there {
            continue;
        }
        let has = has.unwrap_or_default();
        for property in properties {
            let source = format!("QMP, properties of {kind}");
            add(format!("{kind}.{property}"), has.contains(property), source);
        }
    }
    for (kind, short, properties) in MACHINES {
        let Some(has) = names(kind) else { continue };
        for property in properties {
            let source = format!("QMP qom-list-properties {kind}");
            add(
                format!("{short}.{property}"),
                has.contains(property),
                source,
            );
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_a_line_of_json_and_the_last_is_quit() {
        let requests = requests();
        let lines: Vec<Value> = requests
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["execute"], "qmp_capabilities");
        assert_eq!(lines.last().unwrap()["execute"], "quit");
        let smmu = lines
            .iter()
            .find(|line| line["id"] == "arm-smmuv3")
            .unwrap();
        assert_eq!(smmu["execute"], "device-list-properties");
        assert_eq!(smmu["arguments"]["typename"], "arm-smmuv3");
    }

    #[test]
    fn replies_give_present_and_absent_features_and_a_failed_query_gives_none() {
        let answers = [
            json!({"QMP": {}}),
            json!({"id": "qmp_capabilities", "return": {}}),
            json!({"id": "qom-list-types", "return": [
                {"name": "vfio-pci"}, {"name": "arm-smmuv3"}, {"name": "pcie-root-port"},
            ]}),
            json!({"id": "vfio-pci", "return": [{"name": "host"}]}),
            json!({"id": "arm-smmuv3", "return": [{"name": "accel"}]}),
            json!({"id": "pcie-root-port", "error": {"class": "GenericError"}}),
            json!({"event": "SHUTDOWN"}),
        ];
        let lines: Vec<_> = answers.iter().map(ToString::to_string).collect();
        let qemu = Qemu {
            features: features(&lines.join("\r\n")).unwrap(),
            ..Qemu::default()
        };
        for (name, expected) in [
            ("vfio-pci", Some(true)),
            ("vfio-pci.iommufd", Some(false)),
            ("arm-smmuv3.accel", Some(true)),
            ("arm-smmuv3.ssidsize", Some(false)),
            ("iommufd", Some(false)),
            ("pcie-root-port.pref64-reserve", None),
            ("virt.highmem-mmio-size", None),
        ] {
            assert_eq!(qemu.has(name), expected, "{name}");
        }
    }

    #[test]
    fn a_program_without_qmp_is_an_error() {
        assert!(features("Usage: something else\n").is_err());
    }

    #[test]
    fn a_program_that_cannot_be_run_is_reported_with_its_path() {
        for path in ["/nonexistent/qemu", "/bin/false"] {
            let mut vmm = Vmm::default();
            ask(Some(Arch::Aarch64), Some(Path::new(path)), &mut vmm);
            assert_eq!(vmm.qemu, None);
            assert!(vmm.unknown["qemu"].starts_with(path), "{vmm:?}");
        }
    }
}
