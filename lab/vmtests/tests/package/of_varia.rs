//! The package of the command: judged by lintian, its units and its udev rule by systemd's own
//! programs; installed, used, upgraded, removed and purged in a system of Debian's; beside the DKMS
//! package. In `./x soak` the package that `./x deb` makes, whose program is static.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use varia_lab::agent_build::target_folder;
use varia_lab::chroot::Chroot;
use varia_lab::command_package::{self, Content};
use varia_lab::{Arch, ArchNames, Set, command, dist, host_arch, packages, sbom};
use varia_vmtests::command::varia;

use crate::{NEWER, Outcome, PACKAGE, System, VERSION, deb, dpkg_deb, file_name};

/// Link that enables the unit.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/varia-bind.service";
/// Tags of lintian that only the publisher of a package can avoid: an address that exists, and the
/// bug that asks for the package.
const OF_THE_PUBLISHER: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog,\
                                initial-upload-closes-no-bugs";
/// Tag of a package with the program of the tests, which is not static.
const NOT_STATIC: &str = "missing-dependency-on-libc";
const UNITS: [&str; 2] = ["varia-bind.service", "varia-bind@.service"];
const RULE: &str = "usr/lib/udev/rules.d/60-varia.rules";

/// A package, compressed quickly, of the program that the tests have built for this machine.
fn package_of(version: &str, folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let arch = host_arch()?;
    let program = folder.join("varia");
    let mut strip = Command::new("strip");
    command::run(strip.arg("-o").args([&program, &varia()?]))?;
    let bill = folder.join("varia.cdx.json");
    fs::write(&bill, sbom::text(arch, arch.rust_target(), &[])?)?;
    let content = Content {
        arch,
        files: dist::Files {
            program,
            sbom: bill,
        },
        version: version.to_owned(),
        compressor: Some("gzip"),
    };
    Ok(command_package::deb_of(&content, folder)?)
}

/// Output of a script, run in a folder in Debian's system with lintian and systemd.
fn judged(folder: &Path, script: &str) -> Result<String, varia_lab::DebianError> {
    let judges = packages::ensure(Set::Packaging)?;
    let script = format!("exec 2>&1; mkdir -p /run/systemd; {script}");
    let chroot = Chroot::new(&judges).bind(folder).cwd(folder);
    let output = chroot.run(["/bin/sh", "-euc", &script])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Checks that lintian finds nothing in a package but `known` tags.
fn lintian_finds_nothing(package: &Path, known: &str) -> Outcome {
    let folder = package.parent().ok_or("no folder")?;
    let name = file_name(package)?;
    let said = judged(
        folder,
        &format!(
            "lintian --profile debian --allow-root --suppress-tags {known} \
             --fail-on error,warning {name}"
        ),
    )?;
    assert_eq!(said, "", "{name}");
    Ok(())
}

#[test]
fn lintian_and_systemd_find_nothing_in_the_package() -> Outcome {
    let folder = tempfile::tempdir_in(target_folder())?;
    let package = package_of(VERSION, folder.path())?;
    let known = format!("{OF_THE_PUBLISHER},{NOT_STATIC}");
    lintian_finds_nothing(&package, &known)?;

    // a file where no package may have one, a wrong word in a unit and one in the rule are found
    let tree = folder.path().join("tree");
    let mut unpack = Command::new("dpkg-deb");
    command::run(unpack.arg("-R").arg(&package).arg(&tree))?;
    let verify = |unit: &str| {
        // the judges' system has no varia: another program stands for it
        format!(
            "sed s,/usr/bin/varia,/usr/bin/true, tree/usr/lib/systemd/system/{unit} >{unit}
             systemd-analyze verify --man=no ./{unit} || true"
        )
    };
    let rule = format!("udevadm verify --no-style tree/{RULE} || true");
    for unit in UNITS {
        assert_eq!(judged(folder.path(), &verify(unit))?, "");
    }
    let said = judged(folder.path(), &rule)?;
    assert!(said.contains("Success: 1"), "{said}");
    let systemd = tree.join("usr/lib/systemd/system");
    let units = UNITS.map(|unit| (systemd.join(unit), "Type=oneshot", "Type=oneshoot"));
    let wrong = units
        .into_iter()
        .chain([(tree.join(RULE), "TAG+=", "TUG+=")]);
    for (path, right, wrong) in wrong {
        let text = fs::read_to_string(&path)?;
        assert!(text.contains(right), "{text}");
        fs::write(&path, text.replace(right, wrong))?;
    }
    for unit in UNITS {
        let said = judged(folder.path(), &verify(unit))?;
        assert!(said.contains("oneshoot"), "{said}");
    }
    let said = judged(folder.path(), &rule)?;
    assert!(said.contains("Fail:    1"), "{said}");
    fs::create_dir_all(tree.join("usr/local"))?;
    fs::write(tree.join("usr/local/x"), "")?;
    let mut build = Command::new("dpkg-deb");
    command::run(
        build
            .args(["-Zgzip", "--root-owner-group", "-b"])
            .arg(&tree),
    )?;
    let refusal = lintian_finds_nothing(&folder.path().join("tree.deb"), &known);
    let refusal = refusal.expect_err("a fault was planted").to_string();
    assert!(refusal.contains("usr/local"), "{refusal}");
    Ok(())
}

/// Files of the command, and of dpkg's and systemd's records of the package.
fn left(system: &System) -> Result<String, Box<dyn std::error::Error>> {
    let records = "! -path '/var/log/*' ! -path '/var/lib/dpkg/*-old'";
    Ok(system.sh(&format!(
        "find /etc /usr /var {records} -name '*varia*' | sort"
    ))??)
}

#[test]
fn the_command_is_installed_used_upgraded_removed_and_purged() -> Outcome {
    let folder = tempfile::tempdir_in(target_folder())?;
    let package = package_of(VERSION, folder.path())?;
    let newer = package_of(NEWER, folder.path())?;
    know_each_other(&package, &deb()?)?;

    let mut system = System::new()?;
    system.outside.push(folder.path().to_path_buf());
    let before = left(&system)?;
    let install = |package: &Path| -> Outcome {
        system.sh(&format!("dpkg -i {}", package.display()))??;
        Ok(())
    };
    let is_enabled = || -> Result<bool, Box<dyn std::error::Error>> {
        Ok(system.sh(&format!("test -L {ENABLED}"))?.is_ok())
    };
    let version = "dpkg-query -W -f '${Status} ${Version}' varia";
    install(&package)?;
    assert_eq!(
        system.sh(version)??,
        format!("install ok installed {VERSION}")
    );
    assert!(is_enabled()?);
    // the program runs, and the texts beside it are its own
    let said = system.sh("varia --version
         varia completions bash | cmp - /usr/share/bash-completion/completions/varia
         varia completions fish | cmp - /usr/share/fish/vendor_completions.d/varia.fish
         varia completions zsh | cmp - /usr/share/zsh/vendor-completions/_varia
         for page in $(varia man --out /tmp/man); do
             zcat /usr/share/man/man1/${page##*/}.gz | cmp - $page
         done
         ls /tmp/man | wc -l; ls /usr/share/man/man1/varia* | wc -l
         cd /; md5sum --quiet -c /var/lib/dpkg/info/varia.md5sums")??;
    let lines: Vec<_> = said.lines().collect();
    let [first, made, installed] = lines[..] else {
        return Err(said.into());
    };
    assert_eq!(first, format!("varia {VERSION}"));
    assert!(
        made == installed && installed.parse::<u32>()? > 10,
        "{said}"
    );
    // the rule's command, for a device that was not saved
    let said = system.sh("varia bind --reserve 0009:01:00.0")??;
    assert_eq!(said, "0009:01:00.0 has no saved binding\n");

    // an administrator who disables the unit finds it disabled after an upgrade
    let saved = "/etc/varia/bind.d/0009:01:00.0.json";
    system.sh(&format!(
        "rm {ENABLED}; mkdir -p /etc/varia/bind.d; echo >{saved}"
    ))??;
    install(&newer)?;
    assert!(!is_enabled()?);
    assert_eq!(
        system.sh(version)??,
        format!("install ok installed {NEWER}")
    );

    // saved bindings outlast a removal, and not a purge
    system.sh("dpkg -r varia")??;
    assert!(system.sh(&format!("test -e {saved}"))?.is_ok());
    assert!(system.sh("test -e /usr/bin/varia")?.is_err());
    system.sh("mkdir -p /run/varia; echo >/run/varia/bound
         dpkg --purge varia
         test ! -e /run/varia")??;
    assert_eq!(left(&system)?, before, "what the package left behind");
    assert!(system.sh("test -e /etc/varia")?.is_err());
    Ok(())
}

/// Checks that the fields of either package name the other one, and that no file is in both.
fn know_each_other(ours: &Path, module: &Path) -> Outcome {
    let names = |package: &Path, field: &str, other: &str| -> Outcome {
        let mut query = Command::new("dpkg-deb");
        let value = command::text(query.arg("--field").arg(package).arg(field))?;
        let mut names = value.trim().split(", ");
        assert!(names.any(|name| name == other), "{field}: {value}");
        Ok(())
    };
    names(ours, "Suggests", PACKAGE)?;
    names(module, "Recommends", "varia")?;
    names(module, "Enhances", "varia")?;
    let files = |package: &Path| -> Result<BTreeSet<String>, varia_lab::DebianError> {
        let list = dpkg_deb("--contents", package)?;
        let files = list.lines().filter(|line| !line.ends_with('/'));
        let path = |line: &str| line.split_whitespace().nth(5).map(str::to_owned);
        Ok(files.filter_map(path).collect())
    };
    let (ours, module) = (files(ours)?, files(module)?);
    assert!(ours.contains("./usr/bin/varia"), "{ours:?}");
    assert!(ours.is_disjoint(&module), "{ours:?} and {module:?}");
    Ok(())
}

#[test]
#[ignore = "for ./x soak: compiles the standard library for both architectures, and once more"]
fn the_package_of_the_static_program_is_as_debian_wants_it() -> Outcome {
    for arch in Arch::ALL {
        let package = command_package::deb(arch, &command_package::folder())?;
        lintian_finds_nothing(&package, OF_THE_PUBLISHER)?;
        let program = dist::program(arch, &dist::build_folder())?;
        let said = command::text(Command::new("file").arg(&program))?;
        assert!(said.contains("statically linked"), "{said}");
        let size = fs::metadata(&program)?.len() >> 20;
        let packed = fs::metadata(&package)?.len() >> 20;
        println!(
            "result: {}: program of {size} MiB, package of {packed} MiB",
            arch.debian()
        );
    }
    // from another folder for build results
    let folder = tempfile::tempdir_in(target_folder())?;
    let here = dist::program(host_arch()?, &dist::build_folder())?;
    let there = dist::program(host_arch()?, folder.path())?;
    assert!(
        fs::read(here)? == fs::read(there)?,
        "two programs of one source differ"
    );
    Ok(())
}
