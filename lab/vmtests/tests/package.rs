//! The packages. That of the command is judged in [`of_varia`]. The DKMS package: the same bytes each
//! time, a Rust object that its own source gives again, a system with headers of several kernels that
//! installs it by Debian's own dkms, and a machine that installs it, uses the module, upgrades it, and
//! removes it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use varia_lab::agent_build::target_folder;
use varia_lab::chroot::Chroot;
use varia_lab::kernel_package::{self, VERSION};
use varia_lab::{
    Arch, ArchNames, DebianError, GuestCommand, Kernel, Series, Set, command, host_arch, packages,
};
use varia_silicon::{Options, profile};
use varia_vmtests::host::{Driver, HostPlan, Memory};
use varia_vmtests::page::{self, Place};
use varia_vmtests::report;

#[path = "package/of_varia.rs"]
mod of_varia;

const MIB: u64 = 1 << 20;
/// A version above any other.
const NEWER: &str = "1000.1";
const PACKAGE: &str = "nvgrace-gpu-vfio-pci-dkms";
/// Limit that only a hang reaches: compilers run under software emulation, beside other machines.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

type Outcome = Result<(), Box<dyn Error>>;

/// The package, made once by this program.
fn deb() -> Result<PathBuf, Box<dyn Error>> {
    static DEB: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut made = DEB.lock().map_err(|_| "making the package panicked")?;
    if made.is_none() {
        *made = Some(kernel_package::deb(&kernel_package::folder())?);
    }
    Ok(made.clone().ok_or("no package")?)
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

/// A copy of Debian's system with dkms, which a test may change, with the headers of the lab's kernel
/// and of others.
struct System {
    folder: TempDir,
    /// Folders outside the system that it refers to.
    outside: Vec<PathBuf>,
    /// Release of the lab's kernel.
    release: String,
}

impl System {
    fn new() -> Result<Self, Box<dyn Error>> {
        let arch = host_arch()?;
        let tree = packages::ensure(Set::Dkms(arch))?;
        let folder = tempfile::tempdir_in(target_folder())?;
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]);
        command::run(copy.arg(tree.root().join(".")).arg(folder.path()))?;
        let awk = folder.path().join("usr/bin/awk");
        if !awk.exists() {
            symlink("mawk", awk)?;
        }
        Ok(Self {
            folder,
            outside: vec![deb()?.parent().ok_or("no folder")?.to_path_buf()],
            release: tree.kernel_release(arch.debian()),
        })
    }

    /// Adds the headers of another series, as their package does, and gives its release.
    fn add(&mut self, series: Series) -> Result<String, Box<dyn Error>> {
        let arch = host_arch()?;
        let tree = packages::ensure(Set::Headers(series))?;
        let release = tree.kernel_release(arch.debian());
        let headers = tree.path(&format!("/usr/src/linux-headers-{release}"));
        let modules = self.modules(&release);
        fs::create_dir_all(&modules)?;
        symlink(&headers, modules.join("build"))?;
        self.outside.push(tree.root());
        // the headers name the compiler of their suite
        let variables = fs::read_to_string(headers.join(".kernelvariables"))?;
        let mut words = variables.split([' ', ')', '\n']);
        let compiler = words.find(|word| word.starts_with("gcc-"));
        let compiler = compiler.ok_or("the headers name no compiler")?;
        let prefix = format!("{}-", arch.triplet());
        let bin = self.folder.path().join("usr/bin");
        let named = bin.join(format!("{prefix}{compiler}"));
        if !named.exists() {
            symlink(format!("{prefix}gcc"), named)?;
        }
        Ok(release)
    }

    fn modules(&self, release: &str) -> PathBuf {
        self.folder.path().join("usr/lib/modules").join(release)
    }

    /// Makes a kernel one that ships NVIDIA's driver with EGM.
    fn ship_egm(&self, release: &str) -> Outcome {
        let folder = self.modules(release);
        let folder = folder.join("kernel/drivers/vfio/pci/nvgrace-gpu");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("nvgrace-egm.ko.zst"), "")?;
        Ok(())
    }

    /// Runs a script as root of the system: what it said, or what it said when it failed.
    fn sh(&self, script: &str) -> Result<Result<String, String>, Box<dyn Error>> {
        let mut system = Chroot::at(self.folder.path()).cwd("/tmp");
        for folder in &self.outside {
            system = system.bind(folder);
        }
        let script = format!("exec 2>&1; mkdir -p /run; {script}");
        match system.run(["/bin/sh", "-ec", &script]) {
            Ok(output) => Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned())),
            Err(DebianError::Command { output, .. }) => Ok(Err(output)),
            Err(error) => Err(error.into()),
        }
    }

    /// State of the package as dpkg has it, and of every other package that is not installed.
    fn status(&self) -> Result<String, Box<dyn Error>> {
        let form = "${Package} ${Status}\\n";
        let others = format!("grep -v -e '^{PACKAGE} ' -e 'install ok installed$' || true");
        Ok(self.sh(&format!(
            "dpkg-query -W -f='${{Status}}' {PACKAGE} 2>/dev/null || true
             dpkg-query -W -f='{form}' | {others}"
        ))??)
    }

    /// Kernels that dkms has installed the module for.
    fn installed(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let status = self.sh("dkms status")??;
        let mut kernels = Vec::new();
        for line in status.lines().filter(|line| !line.is_empty()) {
            // "nvgrace-gpu-vfio-pci/0.1.0, 7.2.12+deb14-amd64, x86_64: installed"
            let kernel = line.split(", ").nth(1).ok_or_else(|| status.clone())?;
            assert!(line.ends_with(": installed"), "{status}");
            kernels.push(kernel.to_owned());
        }
        kernels.sort();
        Ok(kernels)
    }
}

const INSTALLED: &str = "install ok installed";
const SKIPPED: &str = "skipped: nvgrace-gpu-vfio-pci is not built for this kernel";
const LACKS: &str = "linux/memory-failure.h is not there: pfn address spaces are in";

/// Debian's dkms and its hooks, with the headers of a kernel that can't be served beside those of one
/// that can: the first is skipped with the reason, and dpkg is content. An older dkms, which would
/// take the skip for a failure, is refused by dpkg before anything is built.
#[test]
fn headers_of_a_foreign_kernel_leave_dpkg_content() -> Outcome {
    let mut system = System::new()?;
    let foreign = system.add(Series::Declined)?;
    let ours = system.release.clone();
    system.ship_egm(&ours)?;
    let package = deb()?;
    let install = format!("dpkg -i {}", package.display());

    let record = system.folder.path().join("var/lib/dpkg/status");
    let known = fs::read_to_string(&record)?;
    let older = with_version(&known, "dkms", "3.1.4-1").ok_or("dkms is not installed")?;
    fs::write(&record, older)?;
    let said = system.sh(&install)?.expect_err("dkms is too old");
    assert!(said.contains("depends on dkms (>= 3.1.5)"), "{said}");
    assert_eq!(system.installed()?, Vec::<String>::new());
    fs::write(&record, known)?;

    let said = system.sh(&install)??;
    println!("{said}");
    for part in [
        &format!("Linux {foreign}:\n{SKIPPED}\n"),
        LACKS,
        &format!("Linux {ours} has an nvgrace-gpu driver with EGM"),
    ] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!(said.matches("driver with EGM").count(), 1, "{said}");
    assert_eq!(said.matches(SKIPPED).count(), 1, "{said}");
    assert_eq!(system.status()?, INSTALLED);
    assert_eq!(system.installed()?, [ours.as_str()]);
    // as the package of the foreign kernel's headers runs it
    let hook =
        format!("run-parts --report --exit-on-error --arg={foreign} /etc/kernel/header_postinst.d");
    let said = system.sh(&hook)??;
    assert!(said.contains("was skipped for module(s)"), "{said}");
    assert_eq!(system.installed()?, [ours.as_str()]);

    system.sh(&format!("dpkg -r {PACKAGE}"))??;
    assert_eq!(system.status()?, "");
    assert_eq!(left(&system)?, "", "what the package left behind");
    Ok(())
}

/// dpkg's record with another version of a package.
fn with_version(record: &str, package: &str, version: &str) -> Option<String> {
    let begin = record.find(&format!("Package: {package}\n"))?;
    let (before, rest) = record.split_at(begin);
    let at = rest.find("\nVersion: ")? + "\nVersion: ".len();
    let end = at + rest[at..].find('\n')?;
    Some(format!("{before}{}{version}{}", &rest[..at], &rest[end..]))
}

/// Files of the module.
fn left(system: &System) -> Result<String, Box<dyn Error>> {
    Ok(system.sh(
        "find /usr/src /usr/lib/modules /var/lib/dkms -name '*nvgrace*' ! -path '*/kernel/drivers/*'",
    )??)
}

/// [`headers_of_a_foreign_kernel_leave_dpkg_content`] with one more kernel that is served, whose
/// headers come later, and an upgrade.
#[test]
#[ignore = "for ./x soak: builds the module five times"]
fn dkms_builds_for_two_kernels_skips_one_upgrades_and_removes() -> Outcome {
    let folder = tempfile::tempdir()?;
    let newer = kernel_package::deb_of(NEWER, folder.path())?;
    let mut system = System::new()?;
    let foreign = system.add(Series::Declined)?;
    let next = system.add(Series::Next)?;
    system.outside.push(folder.path().to_path_buf());
    let mut served = [system.release.clone(), next.clone()];
    served.sort();
    let said = system.sh(&format!("dpkg -i {}", deb()?.display()))??;
    assert_eq!(said.matches(SKIPPED).count(), 1, "{said}");
    assert_eq!(system.status()?, INSTALLED);
    assert_eq!(system.installed()?, served);

    // the headers of a kernel come, while those of the foreign one are there
    let hook = |release: &str| {
        system.sh(&format!(
            "run-parts --report --exit-on-error --arg={release} /etc/kernel/header_postinst.d"
        ))
    };
    system.sh(&format!(
        "dkms remove nvgrace-gpu-vfio-pci/{VERSION} -k {next}"
    ))??;
    assert_eq!(system.installed()?, [system.release.as_str()]);
    let said = hook(&next)??;
    assert_eq!(system.installed()?, served, "{said}");
    let said = hook(&foreign)??;
    assert!(said.contains("was skipped for module(s)"), "{said}");

    let said = system.sh(&format!("dpkg -i {}", newer.display()))??;
    assert_eq!(said.matches(SKIPPED).count(), 1, "{said}");
    assert_eq!(system.status()?, INSTALLED);
    assert_eq!(system.installed()?, served);
    let sources = system.sh("ls /usr/src | grep nvgrace")??;
    assert_eq!(sources.trim(), format!("nvgrace-gpu-vfio-pci-{NEWER}"));

    system.sh(&format!("dpkg -r {PACKAGE}"))??;
    assert_eq!(system.status()?, "");
    assert_eq!(left(&system)?, "", "what the package left behind");
    println!(
        "result: built for {}, skipped {foreign}",
        served.join(" and ")
    );
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
