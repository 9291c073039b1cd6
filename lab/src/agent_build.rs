//! Building the guest agent, statically linked, for either architecture.
//!
//! For the machine's own architecture its own cargo does it. For the other one Debian's
//! compiler, library and linker do, in their own root: no target has to be added to
//! a toolchain. Crates are fetched by the machine's own cargo, whose configuration says
//! from where. cargo itself keeps the result; the agent is only rebuilt when it changed.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use varia_debian::chroot::Chroot;
use varia_debian::command;
use varia_debian::packages::{self, Set};
use varia_debian::{ArchNames, host_arch};
use varia_units::Arch;

use crate::error::{LabError, Result};

/// Compiler option for a static program.
const STATIC: &str = "-C target-feature=+crt-static";

/// Profile of the workspace for programs of guests.
const PROFILE: &str = "guest";

/// Agents that this process has built.
static BUILT: Mutex<BTreeMap<Arch, PathBuf>> = Mutex::new(BTreeMap::new());

/// The agent's binary for `arch`, built if need be (once in each process).
///
/// # Errors
/// [`LabError::Command`] with what the compiler said, and those of fetching it.
pub fn agent(arch: Arch) -> Result<PathBuf> {
    let mut built = BUILT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = built.get(&arch) {
        return Ok(path.clone());
    }
    let path = program(arch, "varia-agent", "varia-agent")?;
    built.insert(arch, path.clone());
    Ok(path)
}

/// Builds `binary` of the workspace's `package` as a static program for `arch`.
///
/// # Errors
/// As for [`agent`].
pub fn program(arch: Arch, package: &str, binary: &str) -> Result<PathBuf> {
    let target_folder = target_folder().join(format!("guest-{arch}"));
    std::fs::create_dir_all(&target_folder).map_err(LabError::file("create", &target_folder))?;
    let target = arch.rust_target();
    let arguments = [
        "build",
        "--quiet",
        "--profile",
        PROFILE,
        "--package",
        package,
        "--bin",
        binary,
        "--target",
        target,
    ];
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        target.to_uppercase().replace('-', "_")
    );
    if arch == host_arch()? {
        let mut cargo = host_cargo();
        cargo
            .args(arguments)
            .arg("--target-dir")
            .arg(&target_folder)
            .env(flags, STATIC);
        command::run(&mut cargo)?;
    } else {
        let tools = packages::ensure(Set::RustCross)?;
        command::run(host_cargo().args(["fetch", "--quiet"]))?;
        let home = cargo_home()?;
        let mut chroot = Chroot::new(&tools)
            .bind(workspace())
            .bind(&home)
            .bind(&target_folder)
            .cwd(workspace())
            .env("CARGO_HOME", &home)
            .env(flags, STATIC);
        for known in Arch::ALL {
            let linker = compiler(&tools, known)?;
            let name = known.rust_target().to_uppercase().replace('-', "_");
            chroot = chroot.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
        }
        for (name, value) in env::vars_os() {
            let text = name.to_string_lossy();
            let told = ["CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"];
            if told.iter().any(|prefix| text.starts_with(prefix)) {
                chroot = chroot.env(name, value);
            }
        }
        let mut argv: Vec<std::ffi::OsString> = vec!["cargo".into()];
        argv.extend(arguments.map(Into::into));
        argv.extend([
            "--offline".into(),
            "--target-dir".into(),
            target_folder.clone().into(),
        ]);
        chroot.run(argv)?;
    }
    Ok(target_folder.join(target).join(PROFILE).join(binary))
}

/// The root of the workspace that this library belongs to.
#[must_use]
pub fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Folder of build results: `CARGO_TARGET_DIR`, or `target` in the workspace.
#[must_use]
pub fn target_folder() -> PathBuf {
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// This machine's cargo, in the workspace, with a clean idea of what to build.
pub(crate) fn host_cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET");
    cargo
}

pub(crate) fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.filter(|path| path.is_absolute()).ok_or_else(|| {
        LabError::missing(
            "neither CARGO_HOME nor HOME is an absolute path",
            "set one of them",
        )
    })
}

/// The newest C compiler in the tools for `arch`. Its name is that of Rust's linker too.
pub fn compiler(tools: &packages::Tree, arch: Arch) -> Result<String> {
    let folder = tools.path("/usr/bin");
    let prefix = format!("{}-gcc-", arch.triplet());
    let entries = std::fs::read_dir(&folder).map_err(LabError::file("read", &folder))?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let numbered = names.filter_map(|name| {
        let number: u32 = name.strip_prefix(&prefix)?.parse().ok()?;
        Some((number, name))
    });
    numbered.max().map(|(_, name)| name).ok_or_else(|| {
        LabError::missing(
            format!("the tools have no {prefix}N"),
            "remove the set and fetch it again",
        )
    })
}
