//! Manifests for Kubernetes and systemd: they can be parsed, ask for no more than they explain, and
//! start `varia` with options that it has.

use std::fs;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};
use varia_spec::nvidia::chip;

use crate::process::{ended, varia};

fn deploy(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.join("../node/deploy").join(name)
}

/// Documents of a manifest.
fn documents(text: &str) -> Vec<Yaml<'_>> {
    let documents = Yaml::load_from_str(text).unwrap();
    for document in &documents {
        for key in ["apiVersion", "kind"] {
            assert!(document[key].as_str().is_some(), "{key} of {document:?}");
        }
        assert!(
            document["metadata"]["name"].as_str().is_some(),
            "{document:?}"
        );
    }
    documents
}

/// Lists of a manifest's value.
fn list<'a>(value: &'a Yaml<'a>) -> &'a [Yaml<'a>] {
    value
        .as_vec()
        .unwrap_or_else(|| panic!("{value:?} is no list"))
}

fn texts<'a>(value: &'a Yaml<'a>) -> Vec<&'a str> {
    list(value)
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap()
}

/// `varia` accepts the arguments: with --help it does nothing else.
fn accepts(arguments: &[&str]) {
    let mut command = varia(arguments);
    command.arg("--help");
    ended(command).success();
}

#[test]
fn the_daemon_set_has_the_privileges_that_it_explains_and_no_others() {
    let text = read("daemonset.yaml");
    let documents = documents(&text);
    let kinds: Vec<_> = documents
        .iter()
        .map(|one| one["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["Namespace", "ServiceAccount", "DaemonSet"]);
    assert_eq!(
        documents[1]["automountServiceAccountToken"].as_bool(),
        Some(false)
    );
    let set = &documents[2]["spec"];
    let (selector, template) = (&set["selector"]["matchLabels"], &set["template"]);
    assert_eq!(
        selector["app"].as_str(),
        template["metadata"]["labels"]["app"].as_str()
    );
    let pod = &template["spec"];
    assert_eq!(
        pod["serviceAccountName"].as_str(),
        documents[1]["metadata"]["name"].as_str()
    );
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    let containers = list(&pod["containers"]);
    assert_eq!(containers.len(), 1);
    let security = &containers[0]["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(security["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert!(!text.contains("privileged"), "nor asked for elsewhere");
    assert_eq!(texts(&security["capabilities"]["drop"]), ["ALL"]);
    for capability in texts(&security["capabilities"]["add"]) {
        assert!(
            text.contains(&format!("# {capability}: "))
                || text.contains(&format!(" {capability}: ")),
            "{capability} is not explained"
        );
    }
    // each mount has a volume and a reason in the line above, and two are written
    let volumes = list(&pod["volumes"]);
    let mounts = list(&containers[0]["volumeMounts"]);
    assert_eq!(mounts.len(), volumes.len());
    let mut written = Vec::new();
    for mount in mounts {
        let (name, place) = (
            mount["name"].as_str().unwrap(),
            mount["mountPath"].as_str().unwrap(),
        );
        let volume = volumes
            .iter()
            .find(|volume| volume["name"].as_str() == Some(name));
        // runtimes mask /sys/firmware in a container
        let source = match name {
            "acpi" => "/sys/firmware/acpi/tables",
            _ => place,
        };
        assert_eq!(volume.unwrap()["hostPath"]["path"].as_str(), Some(source));
        assert!(!place.starts_with("/sys/firmware"), "{place} is hidden");
        let is_read = mount.as_mapping_get("readOnly").and_then(Yaml::as_bool) == Some(true);
        if !is_read {
            written.push(place);
        }
        let (before, _) = text
            .split_once(&format!("            - name: {name}\n"))
            .unwrap();
        let reason = before.lines().last().unwrap().trim();
        let expected = if is_read { "# read: " } else { "# written: " };
        assert!(reason.starts_with(expected), "{reason:?} of {name}");
    }
    assert_eq!(written, ["/var/lib/kubelet/device-plugins", "/run/varia"]);
    let args = texts(&containers[0]["args"]);
    accepts(&args);
    let acpi = args.iter().position(|arg| *arg == "--acpi").unwrap();
    let mount = mounts
        .iter()
        .find(|one| one["name"].as_str() == Some("acpi"));
    assert_eq!(mount.unwrap()["mountPath"].as_str(), Some(args[acpi + 1]));
    assert_eq!(
        security["appArmorProfile"]["type"].as_str(),
        Some("Unconfined")
    );
}

#[test]
fn the_examples_ask_for_resources_that_the_plugin_offers() {
    let names: Vec<_> = chip::skus()
        .map(|(chip, sku)| {
            (
                sku.device.value,
                varia_node::resource_name("varia.vfio", chip.name),
            )
        })
        .collect();
    let is_offered = |name: &str| names.iter().any(|(_, known)| known == name);
    let text = read("pod.yaml");
    let pod = &documents(&text)[0];
    let resources = &list(&pod["spec"]["containers"])[0]["resources"];
    assert_eq!(
        resources["requests"], resources["limits"],
        "a guaranteed pod"
    );
    assert!(is_offered("varia.vfio/gb200"));
    assert_eq!(resources["limits"]["varia.vfio/gb200"].as_str(), Some("2"));
    let text = read("kubevirt.yaml");
    let documents = documents(&text);
    let devices = &documents[0]["spec"]["configuration"]["permittedHostDevices"];
    let permitted = &list(&devices["pciHostDevices"])[0];
    assert_eq!(permitted["externalResourceProvider"].as_bool(), Some(true));
    let resource = permitted["resourceName"].as_str().unwrap();
    let selector = permitted["pciVendorSelector"].as_str().unwrap();
    let (vendor, device) = selector.split_once(':').unwrap();
    assert_eq!(
        u16::from_str_radix(vendor, 16).unwrap(),
        varia_spec::nvidia::VENDOR_ID
    );
    let device = u16::from_str_radix(device, 16).unwrap();
    assert!(
        names.contains(&(device, resource.to_owned())),
        "{selector} {resource}"
    );
    let domain = &documents[1]["spec"]["template"]["spec"]["domain"];
    let gpu = &list(&domain["devices"]["gpus"])[0];
    assert_eq!(gpu["deviceName"].as_str(), Some(resource));
}

#[test]
fn the_unit_starts_varia_with_options_that_it_has() {
    let unit = read("varia-node.service");
    let value = |key: &str| {
        let mut lines = unit.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("there is no {key}"))
    };
    let words: Vec<_> = value("ExecStart").split(' ').collect();
    assert_eq!(words[0], "/usr/bin/varia");
    accepts(&words[1..]);
    // the directory of the state is the one that it uses by default
    let state = Path::new("/run").join(value("RuntimeDirectory"));
    assert_eq!(state, Path::new(varia_linux::bind::Live::STATE));
    assert_eq!(
        value("RuntimeDirectoryPreserve"),
        "yes",
        "it outlives the process"
    );
    // the directory of the sockets can be written where the kubelet has not made it yet
    let plugins = Path::new("/var/lib").join(value("StateDirectory"));
    assert_eq!(plugins, varia_node::Settings::default().plugins);
    assert_eq!(value("NoNewPrivileges"), "yes");
}

#[test]
fn a_unit_that_removes_its_directory_at_its_end_has_one_beside_the_state() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut services = 0;
    for folder in ["systemd", "../node/deploy"] {
        for entry in fs::read_dir(own.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_none_or(|extension| extension != "service")
            {
                continue;
            }
            services += 1;
            let unit = fs::read_to_string(&path).unwrap();
            let values = |key: &str| {
                let values = unit.lines().filter_map(|line| line.strip_prefix(key));
                values.flat_map(str::split_whitespace).collect::<Vec<_>>()
            };
            let is_kept = values("RuntimeDirectoryPreserve=") == ["yes"];
            let state = Path::new(varia_linux::bind::Live::STATE);
            for directory in values("RuntimeDirectory=") {
                let directory = Path::new("/run").join(directory);
                let is_state = state.starts_with(&directory) || directory.starts_with(state);
                assert!(
                    is_kept || !is_state,
                    "the end of {} removes {}",
                    path.display(),
                    directory.display()
                );
            }
        }
    }
    assert_eq!(services, 4);
    // what the service's command uses is the directory that systemd makes
    let unit = fs::read_to_string(own.join("systemd/varia.service")).unwrap();
    assert!(unit.contains("--directory /run/varia-serve\n"));
    assert!(unit.contains("\nRuntimeDirectory=varia-serve\n"));
}
