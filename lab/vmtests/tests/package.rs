//! The DKMS package: the same bytes each time, a Rust object that its own source gives again, and
//! a machine that installs it, uses the module, upgrades it, and removes it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use varia_lab::chroot::Chroot;
use varia_lab::kernel_package::{self, VERSION};
use varia_lab::{Arch, ArchNames, GuestCommand, Kernel, Set, command, packages};
use varia_silicon::{Options, profile};
use varia_vmtests::host::{Driver, HostPlan, Memory};
use varia_vmtests::page::{self, Place};
use varia_vmtests::report;

const MIB: u64 = 1 << 20;
/// A version above any other.
const NEWER: &str = "1000.1";
const PACKAGE: &str = "nvgrace-gpu-vfio-pci-dkms";
/// Limit that only a hang reaches: compilers run under software emulation, beside other machines.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

type Outcome = Result<(), Box<dyn Error>>;

fn deb() -> varia_lab::Result<PathBuf> {
    kernel_package::deb(&kernel_package::folder())
}

/// Output of `dpkg-deb`.
fn dpkg_deb(option: &str, package: &Path) -> Result<String, varia_lab::DebianError> {
    command::text(Command::new("dpkg-deb").arg(option).arg(package))
}

/// A folder with what is in the package, its control files in `DEBIAN`.
fn unpacked(package: &Path) -> Result<TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut unpack = Command::new("dpkg-deb");
    command::run(unpack.arg("--raw-extract").arg(package).arg(folder.path()))?;
    Ok(folder)
}

fn source_in(root: &Path) -> PathBuf {
    root.join(format!("usr/src/nvgrace-gpu-vfio-pci-{VERSION}"))
}

#[test]
fn the_package_has_the_same_bytes_each_time() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (here, there) = (
        deb()?,
        kernel_package::deb(&folder.path().join("else where"))?,
    );
    assert!(
        fs::read(here)? == fs::read(there)?,
        "two packages of one source differ"
    );
    Ok(())
}

#[test]
fn the_package_is_as_debian_wants_it() -> Outcome {
    let package = deb()?;
    let folder = unpacked(&package)?;
    let root = folder.path();
    let fields = dpkg_deb("--field", &package)?;
    for field in [
        "Package",
        "Version",
        "Architecture",
        "Maintainer",
        "Installed-Size",
        "Depends",
        "Section",
        "Priority",
        "Description",
    ] {
        let found = fields
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field}: ")));
        assert!(
            found.is_some_and(|value| !value.contains('@') || field == "Maintainer"),
            "{field} in {fields}"
        );
    }
    for script in ["postinst", "prerm"] {
        let path = root.join("DEBIAN").join(script);
        assert_eq!(
            fs::metadata(&path)?.permissions().mode() & 0o777,
            0o755,
            "{script}"
        );
        let text = fs::read_to_string(&path)?;
        assert!(
            text.starts_with("#!/bin/sh\nset -e\n") && !text.contains('@'),
            "{text}"
        );
        command::run(Command::new("sh").arg("-n").arg(&path))?;
    }
    let documents = root.join("usr/share/doc").join(PACKAGE);
    for name in ["copyright", "changelog.gz", "README.Debian"] {
        assert!(documents.join(name).is_file(), "no {name}");
    }
    // "drwxr-xr-x root/root 0 2026-01-01 00:00 ./usr/"
    let list = dpkg_deb("--contents", &package)?;
    for line in list.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[5]);
        assert_eq!(owner, "root/root", "{line}");
        assert!(
            matches!(mode, "drwxr-xr-x" | "-rw-r--r--" | "-rwxr-xr-x"),
            "{line}"
        );
        let known = ["./usr/src/", "./usr/share/doc/"];
        assert!(
            known
                .iter()
                .any(|known| path.starts_with(known) || known.starts_with(path)),
            "{line}"
        );
    }
    // Every file has its sum, and every sum its file.
    let sums = fs::read_to_string(root.join("DEBIAN/md5sums"))?;
    let summed: BTreeSet<_> = sums
        .lines()
        .filter_map(|line| line.split("  ").nth(1))
        .collect();
    let files: BTreeSet<_> = list
        .lines()
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_once("./").map(|(_, path)| path))
        .collect();
    assert_eq!(summed, files);
    command::run(
        Command::new("md5sum")
            .args(["--check", "--quiet", "DEBIAN/md5sums"])
            .current_dir(root),
    )?;
    Ok(())
}

/// From a folder of its own, with the shipped source and scripts alone: other paths than those
/// of the objects in the package.
#[test]
fn the_shipped_source_gives_the_shipped_objects_bit_for_bit() -> Outcome {
    let tools = packages::ensure(Set::Tools)?;
    let folder = unpacked(&deb()?)?;
    let source = source_in(folder.path());
    let built_with = fs::read_to_string(source.join("objects/built-with"))?;
    assert_eq!(built_with.lines().count(), 4, "{built_with}");
    for arch in Arch::ALL {
        let out = tempfile::tempdir()?;
        let rebuild = source.join("kernel/dkms/rebuild.sh");
        let argv = [
            rebuild.as_os_str(),
            arch.debian().as_ref(),
            out.path().as_os_str(),
        ];
        let chroot = Chroot::new(&tools).bind(folder.path()).bind(out.path());
        let said = chroot.run(argv)?;
        let said = String::from_utf8_lossy(&said.stdout);
        assert!(said.ends_with("the same bytes\n"), "{said}");
        if arch == Arch::X86_64 {
            // The comparison sees a difference: here a byte at the end.
            let object = source.join("objects/amd64/rust.o_shipped");
            let mut bytes = fs::read(&object)?;
            bytes.push(0);
            fs::write(&object, bytes)?;
            let refusal = chroot.run(argv).expect_err("the bytes differ").to_string();
            assert!(refusal.contains("the bytes differ"), "{refusal}");
        }
    }
    Ok(())
}

/// The line that docs/operator.md installs the package with.
fn install_line() -> Result<String, Box<dyn Error>> {
    let blocks = page::blocks("docs/operator.md")?;
    let lines = blocks
        .into_iter()
        .filter(|block| block.place == Place::Soak)
        .flat_map(|block| block.lines);
    let lines: Vec<_> = lines.collect();
    Ok(lines.join("\n"))
}

fn file_name(package: &Path) -> Result<String, Box<dyn Error>> {
    let name = package.file_name().ok_or("a package without a name")?;
    Ok(name.to_string_lossy().into_owned())
}

#[test]
fn the_operators_page_installs_this_package() -> Outcome {
    assert_eq!(install_line()?, format!("dpkg -i {}", file_name(&deb()?)?));
    Ok(())
}

/// The script that puts what a machine has of its kernel where an installed kernel has it: the
/// modules that VFIO takes, not all 4,000.
const KERNEL_FILES: &str = "set -e
folder=$1/usr/lib/modules/$(uname -r)
mkdir -p $folder/kernel
cp /lab/modules/*.ko $folder/kernel/
cp /lab/kernel/* $folder/
mkdir -p $1/root
cp /lab/package/*.deb $1/root/
rm -f $1/usr/bin/awk; ln -s mawk $1/usr/bin/awk
";

fn a_machine_installs_uses_upgrades_and_removes_it(arch: Arch) -> Outcome {
    let tree = packages::ensure(Set::Dkms(arch))?;
    let folder = tempfile::tempdir()?;
    let (package, newer) = (deb()?, kernel_package::deb_of(NEWER, folder.path())?);
    let (name, newer_name) = (file_name(&package)?, file_name(&newer)?);
    let gh200 = profile::find("gh200")?;
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let builtin = Kernel::of(arch)?.image.with_file_name("modules.builtin");
    let host = HostPlan::new(arch, &format!("dkms on {arch}"))
        .gpu(gh200, options, Memory::Real)
        .with(|vm| {
            vm.share(tree.root(), "root")
                .module_later("overlay")
                .host_file(format!("/lab/package/{name}"), &package)
                .host_file(format!("/lab/package/{newer_name}"), &newer)
                .host_file("/lab/kernel/modules.builtin", builtin)
                .file("/lab/kernel/modules.order", "")
        })
        .boot()?;
    let root = host.vm.userland("root")?;
    let prepare = GuestCommand::new(["/bin/sh", "-ec", KERNEL_FILES, "prepare", &root]);
    host.vm.run(&prepare)?.checked()?;
    let inside = |script: &str| -> varia_lab::Result<String> {
        let command = GuestCommand::new(["/bin/sh", "-ec", script])
            .in_root(&root)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .limit(LIMIT);
        Ok(host.vm.run(&command)?.checked()?.text())
    };

    // As when a kernel is installed: dkms refreshes only what is there.
    inside("depmod")?;

    let started = std::time::Instant::now();
    let line = install_line()?;
    let said = inside(&format!("cd /root; {line} 2>&1"))?;
    println!(
        "{said}\nresult: {arch}: {line} took {:.1} s",
        started.elapsed().as_secs_f32()
    );
    let uses = |version: &str| -> Outcome {
        let status = inside("dkms status")?;
        assert!(
            status.starts_with(&format!("nvgrace-gpu-vfio-pci/{version},"))
                && status.contains(": installed")
                && status.lines().count() == 1,
            "{status}"
        );
        let sources = inside("ls /usr/src | grep nvgrace")?;
        assert_eq!(sources, format!("nvgrace-gpu-vfio-pci-{version}"));
        inside("modprobe nvgrace_gpu_vfio_pci")?;
        let file = inside("modinfo -n nvgrace_gpu_vfio_pci")?;
        assert!(
            file.contains("/updates/dkms/nvgrace-gpu-vfio-pci.ko"),
            "{file}"
        );
        assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));
        let seen = report::of_kernel(&host, &[0])?;
        assert_eq!(seen[0].regions[4].size, 512 * MIB);
        assert_eq!(seen[0].regions[2].size, 1024 * MIB);
        Ok(())
    };
    uses(VERSION)?;

    // While the older module has the device, which it keeps until it is unloaded.
    let said = inside(&format!(
        "cd /root; touch before; dpkg -i {newer_name} 2>&1"
    ))?;
    println!("{said}");
    report::of_kernel(&host, &[0])?;
    host.unload()?;
    let modules = "find /usr/lib/modules -name 'nvgrace-gpu-vfio-pci.ko*' -path '*/updates/*'";
    let built = inside(&format!("{modules} -newer /root/before"))?;
    assert_eq!(built.lines().count(), 1, "built anew: {built:?}");
    assert_eq!(built, inside(modules)?, "an older one is left");
    uses(NEWER)?;

    host.unbind(0)?;
    inside("modprobe -r nvgrace_gpu_vfio_pci")?;
    inside("dpkg -r nvgrace-gpu-vfio-pci-dkms 2>&1")?;
    assert_eq!(inside("dkms status")?, "");
    let left = inside(
        "find /usr/src /usr/lib/modules /var/lib/dkms -name '*nvgrace*' ! -path '*/kernel/drivers/*'",
    )?;
    assert_eq!(left, "", "what the package left behind");
    let refused = inside("modprobe nvgrace_gpu_vfio_pci").expect_err("the module is gone");
    assert!(refused.to_string().contains("not found"), "{refused}");
    host.power_off()?;
    Ok(())
}

#[test]
#[ignore = "for ./x soak: a compiler under software emulation takes minutes"]
fn an_x86_machine_installs_uses_upgrades_and_removes_the_package() -> Outcome {
    a_machine_installs_uses_upgrades_and_removes_it(Arch::X86_64)
}

#[test]
#[ignore = "for ./x soak: a compiler under software emulation takes minutes"]
fn an_arm_machine_installs_uses_upgrades_and_removes_the_package() -> Outcome {
    a_machine_installs_uses_upgrades_and_removes_it(Arch::Aarch64)
}
