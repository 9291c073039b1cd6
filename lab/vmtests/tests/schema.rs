//! libvirt's schema takes plans as they are, with KVM, pins, nodes of a host and SMMUs, which the
//! daemon of the lab's host would refuse.

use std::path::Path;

use varia_facts::Bytes;
use varia_lab::agent_build::workspace;
use varia_lab::chroot::Chroot;
use varia_lab::{Arch, DebianError, Set, packages};
use varia_linux::Tree;
use varia_linux::inventory::{Extent, Inventory};
use varia_plan::{Kernel, Request, domain, make};
use varia_silicon::machine::GH200;
use varia_vmtests::Result;

/// Verdict of the schema on the domains in a folder.
fn judged(folder: &Path) -> Result<String> {
    let chroot = Chroot::new(&packages::ensure(Set::Libvirt(Arch::X86_64))?).bind(folder);
    let script = "xmllint --noout --relaxng /usr/share/libvirt/schemas/domain.rng *.xml 2>&1";
    match chroot.cwd(folder).run(["/bin/sh", "-c", script]) {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(DebianError::Command { output, .. }) => Ok(output),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn the_schema_takes_the_plans_that_are_kept() -> Result<()> {
    let kept = workspace().join("docs/plans");
    let said = judged(&kept)?;
    let files = std::fs::read_dir(&kept).expect("the plans that are kept");
    let names = files.map(|entry| entry.expect("a file").file_name().into_string());
    let names: Vec<_> = names.map(|name| name.expect("a name")).collect();
    let domains: Vec<_> = names.iter().filter(|name| name.ends_with(".xml")).collect();
    assert!(domains.len() >= 6, "{names:?}");
    for name in domains {
        assert!(
            said.contains(&format!("{name} validates\n")),
            "{name}: {said}"
        );
    }
    Ok(())
}

#[test]
fn the_schema_takes_all_that_a_request_can_have() -> Result<()> {
    let host = tempfile::tempdir().expect("a temporary folder");
    GH200.write(host.path()).expect("a host");
    let tree = Tree::open(host.path()).expect("a host");
    let facts = Inventory::of(&tree, Extent::Served)
        .expect("an inventory")
        .facts;
    let gpus = GH200.gpus();
    let request = Request {
        cpus: 8,
        hugepages: Some(Bytes(512 << 20)),
        firmware: Some("/usr/share/a b/QEMU_EFI.fd".into()),
        kernel: Some(Kernel {
            image: "/boot/vmlinuz & more".into(),
            initrd: Some("/boot/<initrd>".into()),
            append: "root=/dev/vda1 \"quoted\"".into(),
        }),
        disks: (0..27)
            .map(|disk| format!("/images/{disk}.qcow2"))
            .collect(),
        ..Request::new(gpus.iter().map(|gpu| gpu.parse().expect("a GPU")))
    };
    let plan = make(&facts, &request).expect("a plan");
    let xml = domain(&plan).expect("every GPU is a function of the host");
    for part in [
        "<cputune>",
        "<memnode",
        "<hugepages>",
        "type='kvm'",
        "dev='vdaa'",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, xml: &str| std::fs::write(folder.path().join(name), xml);
    write("all.xml", &xml).expect("a file");
    // what it must not take
    let relative = xml.replacen("'/images/3.qcow2'", "'3.qcow2'", 1);
    let unknown = xml.replacen("<cputune>", "<cputune speed='1'>", 1);
    write("relative.xml", &relative).expect("a file");
    write("unknown.xml", &unknown).expect("a file");
    let said = judged(folder.path())?;
    for line in [
        "all.xml validates",
        "relative.xml fails to validate",
        "unknown.xml fails to validate",
    ] {
        assert!(said.lines().any(|one| one == line), "{line}: {said}");
    }
    Ok(())
}
