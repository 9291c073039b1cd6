//! The command `varia` as one static program for each architecture, with its bill of materials and
//! checksums.
//!
//! Debian has Rust's standard library for glibc alone. The programs are linked with musl instead,
//! whose static programs need nothing of the machine at run time, so the standard library is built
//! from Debian's `rust-src` with them.
//!
//! All paths that a compiler could write into a program are replaced, and the tools are those of
//! [`Set::Tools`]: the same source gives the same bytes in every folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use varia_debian::chroot::Chroot;
use varia_debian::packages::{self, Set, Tree};
use varia_debian::{ArchNames, command, host_arch};
use varia_units::Arch;

use crate::agent_build::{cargo_home, compiler, host_cargo, target_folder, workspace};
use crate::error::{LabError, Result};
use crate::kernel_package::VERSION;
use crate::sbom::{self, Library};

/// Where Debian's `rust-src` has the standard library.
const LIBRARY: &str = "/usr/lib/rustlib/src/rust/library/sysroot/Cargo.toml";

/// Prepares `/tmp/link`, a linker of programs for the architecture `$1`, whose GNU triplet is `$2`,
/// with musl in the folder `$3` and GCC's libraries in `$4`; then comes the command.
///
/// GCC's unwinder, which was built for glibc, asks `_dl_find_object` for the table of a function.
/// musl has no such function; the answer here is "none", and the unwinder finds the table that
/// `crtbeginT.o` registers when a program starts.
const BUILD: &str = r#"
arch=$1 triplet=$2 musl=$3 gcc=$4; shift 4
case $arch in
aarch64) none='mov w0, #-1' ;;
x86_64) none='movl $-1, %eax' ;;
esac
mkdir /tmp/musl
cp "$musl"/*.a "$musl"/*.o /tmp/musl
cp "$gcc/libgcc_eh.a" /tmp/musl/libunwind.a
printf '.globl _dl_find_object\n_dl_find_object:\n%s\nret\n.section .note.GNU-stack,"",%%progbits\n' \
    "$none" | "$triplet-as" -o /tmp/musl/none.o -
cat >/tmp/link <<END
#!/bin/sh
exec $triplet-ld /tmp/musl/crt1.o /tmp/musl/crti.o $gcc/crtbeginT.o "\$@" \
    --start-group -lc $gcc/libgcc.a /tmp/musl/none.o --end-group $gcc/crtend.o /tmp/musl/crtn.o
END
chmod +x /tmp/link
exec "$@"
"#;

/// Files of one architecture.
#[derive(Clone, Debug)]
pub struct Files {
    /// The program.
    pub program: PathBuf,
    /// Bill of materials, CycloneDX as JSON.
    pub sbom: PathBuf,
}

/// Rust's name of the target.
fn target(arch: Arch) -> String {
    format!("{arch}-unknown-linux-musl")
}

/// Makes the program for `arch` in a folder for build results.
///
/// # Errors
/// [`LabError::Command`] with what the compiler said, and those of fetching the tools.
pub fn program(arch: Arch, target_folder: &Path) -> Result<PathBuf> {
    let tools = packages::ensure(Set::Tools)?;
    let musl = packages::ensure(Set::Musl)?;
    fs::create_dir_all(target_folder).map_err(LabError::file("create", target_folder))?;
    let target_folder = target_folder
        .canonicalize()
        .map_err(LabError::file("find", target_folder))?;
    // crates of the workspace, and those of the standard library
    command::run(host_cargo().args(["fetch", "--quiet", "--locked"]))?;
    let mut fetch = host_cargo();
    fetch
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fetch", "--quiet", "--locked", "--manifest-path"]);
    command::run(fetch.arg(tools.path(LIBRARY)))?;
    let (home, target) = (cargo_home()?, target(arch));
    let variable = |target: &str| {
        let name = target.to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{name}_LINKER")
    };
    let replaced = |path: &Path, by: &str| format!("--remap-path-prefix={}={by}", path.display());
    let flags = [
        "-Clinker-flavor=ld".to_owned(),
        "-Clink-self-contained=no".to_owned(),
        "-Crelocation-model=static".to_owned(),
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Cstrip=symbols".to_owned(),
        "-Lnative=/tmp/musl".to_owned(),
        "-Clink-arg=--build-id=none".to_owned(),
        replaced(workspace(), "/varia"),
        replaced(&home, "/cargo"),
        replaced(&target_folder, "/target"),
    ];
    let host = host_arch()?;
    let mut chroot = Chroot::new(&tools)
        .bind(workspace())
        .bind(&home)
        .bind(&target_folder)
        .bind(musl.root())
        .cwd(workspace())
        .env("CARGO_HOME", &home)
        .env("RUSTC_BOOTSTRAP", "1")
        .env(variable(host.rust_target()), compiler(&tools, host)?)
        .env(variable(&target), "/tmp/link")
        // one for each word: the name of a folder may have spaces
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    for (name, value) in env::vars_os() {
        let text = name.to_string_lossy();
        let told = ["CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"];
        if told.iter().any(|prefix| text.starts_with(prefix)) {
            chroot = chroot.env(name, value);
        }
    }
    let libraries = musl.path(&format!("/usr/lib/{arch}-linux-musl"));
    chroot.run([
        "/bin/sh",
        "-euc",
        BUILD,
        "varia-dist",
        arch.name(),
        arch.triplet(),
        &libraries.to_string_lossy(),
        &gcc_libraries(&tools, arch)?,
        "cargo",
        "build",
        "--quiet",
        "--offline",
        "--locked",
        "--release",
        "--package",
        "varia",
        "--bin",
        "varia",
        "--target",
        &target,
        "-Zbuild-std=std,panic_unwind",
        "--target-dir",
        &target_folder.to_string_lossy(),
    ])?;
    Ok(target_folder.join(target).join("release/varia"))
}

/// Folder of GCC's libraries for `arch` among the tools.
fn gcc_libraries(tools: &Tree, arch: Arch) -> Result<String> {
    let compiler = compiler(tools, arch)?;
    let version = compiler.rsplit('-').next().unwrap_or_default();
    let places = ["gcc", "gcc-cross"].map(|folder| {
        let triplet = arch.triplet();
        format!("/usr/lib/{folder}/{triplet}/{version}")
    });
    let found = places
        .iter()
        .find(|place| tools.path(&format!("{place}/libgcc_eh.a")).is_file());
    found.cloned().ok_or_else(|| {
        LabError::missing(
            format!("the tools have no libgcc_eh.a in {}", places.join(" or ")),
            "remove the set and fetch it again",
        )
    })
}

/// Libraries of Debian that the program for `arch` is linked with.
fn libraries(arch: Arch) -> Result<Vec<Library>> {
    let (tools, musl) = (packages::ensure(Set::Tools)?, packages::ensure(Set::Musl)?);
    let gcc = compiler(&tools, arch)?;
    let gcc = gcc.rsplit('-').next().unwrap_or_default();
    let gcc = match arch == host_arch()? {
        true => format!("libgcc-{gcc}-dev"),
        false => format!("libgcc-{gcc}-dev-{}-cross", arch.debian()),
    };
    let linked = [
        (&tools, "rust-src", "MIT OR Apache-2.0"),
        (
            &tools,
            gcc.as_str(),
            "GPL-3.0-or-later WITH GCC-exception-3.1",
        ),
        (&musl, "musl-dev", "MIT"),
    ];
    let mut libraries = Vec::new();
    for (tree, package, license) in linked {
        let versions = tree.versions()?;
        let version = versions.lines().find_map(|line| {
            let mut words = line.split(' ');
            (words.next()? == package).then_some(words.next()?)
        });
        let version = version.ok_or_else(|| {
            LabError::missing(
                format!("the set of packages has no {package}"),
                "remove the set and fetch it again",
            )
        })?;
        libraries.push(Library {
            package: package.to_owned(),
            version: version.to_owned(),
            license,
        });
    }
    Ok(libraries)
}

/// Makes the program and the bill of materials for `arch`, with the names under which they are
/// given to others.
///
/// # Errors
/// Those of [`program`], and of the file system.
pub fn files(arch: Arch, folder: &Path) -> Result<Files> {
    fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    let built = program(arch, &build_folder())?;
    let name = format!("varia-{VERSION}-{}", target(arch));
    let files = Files {
        program: folder.join(&name),
        sbom: folder.join(format!("{name}.cdx.json")),
    };
    fs::copy(&built, &files.program).map_err(LabError::file("copy", &built))?;
    let bill = sbom::text(arch, &target(arch), &libraries(arch)?)?;
    fs::write(&files.sbom, bill).map_err(LabError::file("write", &files.sbom))?;
    Ok(files)
}

/// Makes the files of all architectures, and `SHA256SUMS`. Returns their paths.
///
/// # Errors
/// Those of [`files`].
pub fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
    let mut paths = Vec::new();
    for arch in Arch::ALL {
        let Files { program, sbom } = files(arch, folder)?;
        paths.extend([program, sbom]);
    }
    let names = paths.iter().filter_map(|path| path.file_name());
    let mut sums = Command::new("sha256sum");
    let sums = command::text(sums.current_dir(folder).args(names))?;
    let path = folder.join("SHA256SUMS");
    fs::write(&path, sums).map_err(LabError::file("write", &path))?;
    paths.push(path);
    Ok(paths)
}

/// Folder of build results, for [`program`].
#[must_use]
pub fn build_folder() -> PathBuf {
    target_folder().join("dist")
}

/// Folder in which `./x dist` makes the files.
#[must_use]
pub fn folder() -> PathBuf {
    target_folder().join("dist/files")
}
