//! Names of texts that are no definition, but make one or are a part of one.

use super::expansion::Word;

/// Name of a form, and what to give instead.
pub(crate) type Form = (&'static str, &'static str);

const RUNNING: &str = "the command of the running VM (/proc/PID/cmdline on its host)";
const MADE: &str = "libvirt's XML of the VM (virsh dumpxml), or its QEMU command line";
const SHOWN: &str = "the QEMU command of the VM: qm showcmd VMID";

/// Begins of lines that only one form has.
const LINES: &[(&[&str], Form)] = &[
    (
        &["[device", "[machine]", "[object"],
        (
            "a configuration file of QEMU (-readconfig)",
            "the same options as a command line, or libvirt's XML",
        ),
    ),
    (
        &["raw.qemu", "gputype:", "security.secureboot:"],
        ("a configuration of Incus or LXD", RUNNING),
    ),
    (
        &["hostpci", "scsihw:"],
        ("a configuration of Proxmox VE", SHOWN),
    ),
    (
        &["resource \"", "provider \"", "terraform {"],
        ("a Terraform configuration", MADE),
    ),
    (&["source \"qemu\""], ("a Packer template", RUNNING)),
    (
        &["- hosts:", "hosts:", "ansible.builtin.", "- ansible."],
        ("an Ansible playbook", MADE),
    ),
    (&["community.libvirt."], ("an Ansible playbook", MADE)),
    (&["#cloud-config"], ("a configuration of cloud-init", MADE)),
    (&["Vagrant.configure"], ("a Vagrantfile", MADE)),
    (&["virtualisation."], ("a NixOS configuration", RUNNING)),
    (&["guest_os="], ("a configuration of quickemu", RUNNING)),
    (&["vmType:"], ("a configuration of Lima", RUNNING)),
    (
        &["[pci]", "[libvirt]", "[compute]"],
        ("a configuration of OpenStack Nova", MADE),
    ),
    (
        &["device_add ", "object_add "],
        ("a command of QEMU's monitor", RUNNING),
    ),
    (&["ENTRYPOINT", "CMD [", "FROM "], ("a Dockerfile", RUNNING)),
    (&["[Container]"], ("a Quadlet of Podman", RUNNING)),
    (
        &["import ", "from ", "def ", "package main"],
        ("the source of a program", RUNNING),
    ),
];

/// Programs that make definitions or start VMs.
const PROGRAMS: &[(&[&str], Form)] = &[
    (
        &["virt-install"],
        (
            "a virt-install command",
            "the XML that it makes: add --print-xml --dry-run",
        ),
    ),
    (&["qm"], ("a qm command", SHOWN)),
    (&["pvesh"], ("a pvesh command", SHOWN)),
    (
        &[
            "cloud-hypervisor",
            "crosvm",
            "firecracker",
            "kvmtool",
            "lkvm",
        ],
        (
            "a command of another VMM than QEMU",
            "libvirt's XML or a QEMU command line",
        ),
    ),
    (&["incus", "lxc"], ("a command of Incus or LXD", RUNNING)),
    (&["openstack", "nova"], ("a command of OpenStack", MADE)),
    (
        &["virsh", "virt-xml", "virt-clone"],
        (
            "a command of libvirt",
            "libvirt's XML of the VM (virsh dumpxml)",
        ),
    ),
    (
        &["kubectl", "virtctl", "oc"],
        (
            "a command of Kubernetes",
            "libvirt's XML (virsh dumpxml in the pod of the VM)",
        ),
    ),
    (
        &["vagrant", "limactl", "multipass", "quickemu"],
        ("a command that makes a VM of its own file", RUNNING),
    ),
];

/// Form of a text that is not read whatever else it has.
pub(crate) fn other_form(text: &str) -> Option<Form> {
    let key = |name: &str| {
        text.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(':'))
        })
    };
    if key("apiVersion") && key("kind") {
        return Some((
            "a Kubernetes object (YAML)",
            "the command of the running VM (/proc/PID/cmdline on its node), or libvirt's XML \
             (virsh dumpxml in the pod)",
        ));
    }
    let parts = ["image:", "build:", "command:", "entrypoint:"];
    if key("services") && parts.iter().any(|part| text.contains(part)) {
        return Some(("a file of docker compose (YAML)", RUNNING));
    }
    let is_json = text.trim_start().starts_with(['{', '[']) && {
        let value: Result<serde_json::Value, _> = serde_json::from_str(text);
        value.is_ok()
    };
    is_json.then_some(("JSON", MADE))
}

/// Form of a text in which no QEMU command was found.
pub(crate) fn other_file(text: &str) -> Option<Form> {
    if text.contains("<domain ") || text.contains("<domain>") {
        return Some((
            "a text around libvirt's XML",
            "the XML alone, from <domain to </domain>",
        ));
    }
    let begins = |starts: &[&str]| {
        let mut lines = text.lines().map(str::trim_start);
        lines.any(|line| starts.iter().any(|start| line.starts_with(start)))
    };
    let mut forms = LINES.iter().filter(|(starts, _)| begins(starts));
    forms.next().map(|(_, form)| *form)
}

/// Form of a text with these commands, by its first known program.
pub(crate) fn other_program(all: &[Vec<Word>]) -> Option<Form> {
    let name = |word: &Word| word.text.rsplit('/').next().unwrap_or_default().to_owned();
    let mut words = all.iter().flatten().map(name);
    words.find_map(|word| {
        let mut programs = PROGRAMS.iter();
        let (_, form) = programs.find(|(names, _)| names.contains(&word.as_str()))?;
        Some(*form)
    })
}
