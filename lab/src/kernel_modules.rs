//! Building kernel modules for the lab's kernels: Varia's own, and the original driver.
//!
//! The scripts in `kernel/` do it, in the tools' root, against the headers of any [`Flavour`]. A
//! build is done again only when something it is made of has changed; processes that want the
//! same build wait for one another.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use varia_debian::ArchNames;
use varia_debian::chroot::Chroot;
use varia_debian::packages::{self, Set, Tree};
use varia_units::Arch;

use crate::agent_build::{compiler, target_folder, workspace};
use crate::error::{LabError, Result};
use crate::flavour::Flavour;
use crate::kernel_build;
use crate::kernel_source;

/// The name of either driver's module.
const MODULE: &str = "nvgrace-gpu-vfio-pci";

/// The name of the module of the driver in the kernel's own Rust.
pub const IN_TREE: &str = "nvgrace_gpu_rs_vfio_pci";

/// The module of `lab/second`, and its folder.
const SECOND: &str = "varia-overlay-vfio-pci";

/// Sources of Varia's modules, in the workspace.
const SOURCES: [&str; 5] = [
    "kernel",
    "units/src",
    "spec/src",
    "variant/src",
    "variants/src",
];

/// Varia's `nvgrace-gpu-vfio-pci.ko`; on a kernel with Rust, the driver in the kernel's own Rust.
///
/// # Errors
/// [`LabError::Command`] with what the compiler said, and those of fetching it.
pub fn ours(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    let flavour = flavour.into();
    if flavour.is_rust() {
        return kernel_build::ensure(flavour)?.module(&format!("{IN_TREE}.ko"));
    }
    ours_with(flavour, &[])
}

/// `varia-overlay-vfio-pci.ko`: the same adaptor with a trivial variant, from `lab/second`.
///
/// # Errors
/// As for [`ours`].
pub fn second(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    let folder = format!("lab/second/{SECOND}");
    let module = workspace().join(&folder).display().to_string();
    let sources: Vec<_> = SOURCES.iter().copied().chain([folder.as_str()]).collect();
    let target = Target::find(flavour.into())?;
    lend_core(target.arch(), &target.folder("second")?)?;
    target.build_module("second", SECOND, &sources, vec![("MODULE", module)])
}

/// `varia-coherent-memory.ko`: the guest driver that uses a GPU's memory.
///
/// # Errors
/// As for [`ours`].
pub fn coherent_memory(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    const NAME: &str = "varia-coherent-memory";
    let module = workspace().join("kernel/modules").join(NAME);
    let sources: Vec<_> = SOURCES.iter().copied().chain(["placement/src"]).collect();
    let target = Target::find(flavour.into())?;
    lend_core(target.arch(), &target.folder("coherent")?)?;
    let variables = vec![("MODULE", module.display().to_string())];
    target.build_module("coherent", NAME, &sources, variables)
}

/// Puts the `core` that was compiled for [`ours`] into a folder where `kernel/rust/build.sh` is to
/// build another object for the architecture, unless a `core` is there: most of the time of a build
/// goes into it, and it depends on the compiler alone, which the script checks.
///
/// # Errors
/// As for [`ours`].
pub fn lend_core(arch: Arch, out: &Path) -> Result<()> {
    let from = ours(arch)?.with_file_name("rust");
    let to = out.join("rust");
    // The stamp comes last: it says that the rest is there.
    for name in ["libcore.rlib", "stamp"] {
        if !to.join("stamp").exists() {
            fs::create_dir_all(&to).map_err(LabError::file("create", &to))?;
            let file = from.join(name);
            fs::copy(&file, to.join(name)).map_err(LabError::file("copy", &file))?;
        }
    }
    Ok(())
}

/// [`ours`] with the PCI ids that no released kernel's driver lists.
///
/// # Errors
/// As for [`ours`].
pub fn with_unreleased_ids(arch: Arch) -> Result<PathBuf> {
    ours_by(arch, "ours-unreleased", ("UNRELEASED_IDS", "y"))
}

/// [`ours`] as for a kernel without an optional feature, named as the probes name it.
///
/// # Errors
/// As for [`ours`].
pub fn ours_without(arch: Arch, feature: &str) -> Result<PathBuf> {
    ours_by(
        arch,
        &format!("ours-without-{feature}"),
        ("ABSENT", feature),
    )
}

/// [`ours`] with a variable of its build, in a folder of this name.
fn ours_by(arch: Arch, name: &str, (variable, value): (&'static str, &str)) -> Result<PathBuf> {
    let object = rust_object(arch, &[])?;
    let mut target = Target::find(arch.into())?;
    target.bound.extend(object.parent().map(Path::to_path_buf));
    let variables = vec![
        ("RUST_OBJECT", object.display().to_string()),
        (variable, value.to_owned()),
    ];
    target.build_module(name, MODULE, &SOURCES, variables)
}

/// [`ours`] with features of the crate in `kernel/rust`, in a folder of their own.
///
/// # Errors
/// As for [`ours`].
pub fn ours_with(flavour: impl Into<Flavour>, features: &[&str]) -> Result<PathBuf> {
    let flavour = flavour.into();
    let mut target = Target::find(flavour)?;
    let mut variables = vec![("FEATURES", features.join(" "))];
    if flavour != Flavour::Debian(flavour.arch()) {
        // The Rust object is one for all kernels of an architecture.
        let object = rust_object(flavour.arch(), features)?;
        variables.push(("RUST_OBJECT", object.display().to_string()));
        target.bound.extend(object.parent().map(Path::to_path_buf));
    }
    let mut name = "ours".to_owned();
    for feature in features {
        name.push('-');
        name.push_str(feature);
    }
    target.build_module(&name, MODULE, &SOURCES, variables)
}

/// The Rust object that [`ours_with`] links, for every kernel of the architecture.
///
/// # Errors
/// As for [`ours`].
pub fn rust_object(arch: Arch, features: &[&str]) -> Result<PathBuf> {
    let module = ours_with(arch, features)?;
    let object = module.with_file_name("rust.o_shipped");
    object
        .canonicalize()
        .map_err(LabError::file("find", &object))
}

/// The original driver of the same kernel version, from Debian's source package.
///
/// # Errors
/// As for [`ours`].
pub fn original(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    let flavour = flavour.into();
    if flavour.is_rust() {
        return kernel_build::ensure(flavour)?.module(&format!("{MODULE}.ko"));
    }
    let mut target = Target::find(flavour)?;
    let source = match target.flavour.series() {
        None => kernel_source::parts(&target.tools, &target.tools)?,
        Some(series) => {
            kernel_source::parts(&target.tools, &packages::ensure(Set::Headers(series))?)?
        }
    };
    target.bound.push(source.clone());
    let script = workspace().join("kernel/original.sh");
    target.build(
        "original",
        &format!("{MODULE}.ko"),
        &["kernel/original.sh"],
        |out| {
            let argv = [
                script.into_os_string(),
                target.arch().debian().into(),
                target.headers.clone().into(),
                source.into(),
                out.into(),
            ];
            (argv.to_vec(), Vec::new())
        },
    )
}

/// `varia_position.ko`, which shows a test the file positions that a driver leaves behind.
///
/// # Errors
/// As for [`ours`].
pub fn position(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    test_module(flavour, "position")
}

/// `varia_poison.ko`, which makes pages fail.
///
/// # Errors
/// As for [`ours`].
pub fn poison(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    test_module(flavour, "poison")
}

/// `varia_importer.ko`, which imports dma-bufs.
///
/// # Errors
/// As for [`ours`].
pub fn importer(flavour: impl Into<Flavour>) -> Result<PathBuf> {
    test_module(flavour, "importer")
}

/// `varia_NAME.ko` from the folder `lab/NAME`.
fn test_module(flavour: impl Into<Flavour>, name: &str) -> Result<PathBuf> {
    let flavour = flavour.into();
    let file = format!("varia_{name}.ko");
    if flavour.is_rust() {
        return kernel_build::ensure(flavour)?.module(&file);
    }
    let target = Target::find(flavour)?;
    let folder = format!("lab/{name}");
    let source = workspace().join(&folder);
    target.build(name, &file, &[&folder], |out| {
        let script = "cp \"$1\"/* \"$2\" && exec make -s -C \"$3\" M=\"$2\" ARCH=\"$4\" \
                      CROSS_COMPILE=\"$5\" ${CC:+\"CC=$CC\"} modules";
        let prefix = match target.arch() {
            Arch::Aarch64 => "aarch64-linux-gnu-",
            Arch::X86_64 => "",
        };
        let argv = vec![
            "sh".into(),
            "-ec".into(),
            script.into(),
            name.into(),
            source.into(),
            out.into(),
            target.headers.clone().into(),
            target.arch().debian().into(),
            prefix.into(),
        ];
        (argv, Vec::new())
    })
}

/// The headers of Debian's kernels, as the tools' root has them. `flavour` is Debian's name.
#[must_use]
pub fn headers(tools: &Tree, flavour: &str) -> PathBuf {
    Path::new("/usr/src").join(format!("linux-headers-{}", tools.kernel_release(flavour)))
}

/// Kernel and tools of a build.
pub(crate) struct Target {
    flavour: Flavour,
    pub(crate) tools: Tree,
    /// The headers, as the tools' root sees them.
    headers: PathBuf,
    /// Identity of the headers: another identity means another build.
    kernel: String,
    /// Folders outside the tools' root that the build reads.
    pub(crate) bound: Vec<PathBuf>,
    /// The C compiler: the headers may name that of another suite than the tools', or none.
    compiler: String,
}

impl Target {
    pub(crate) fn find(flavour: Flavour) -> Result<Self> {
        let tools = packages::ensure(Set::Tools)?;
        if flavour.is_debug() {
            let headers = kernel_build::ensure(flavour)?.headers();
            return Ok(Self {
                flavour,
                kernel: headers.display().to_string(),
                bound: vec![headers.clone()],
                compiler: compiler(&tools, flavour.arch())?,
                headers,
                tools,
            });
        }
        if let Some(series) = flavour.series() {
            let tree = packages::ensure(Set::Headers(series))?;
            return Ok(Self {
                flavour,
                headers: tree.path(&headers(&tree, flavour.name()).to_string_lossy()),
                kernel: tree.kernel_release(flavour.name()),
                bound: vec![tree.root()],
                compiler: compiler(&tools, flavour.arch())?,
                tools,
            });
        }
        Ok(Self {
            flavour,
            headers: headers(&tools, flavour.name()),
            kernel: tools.kernel_release(flavour.name()),
            bound: Vec::new(),
            compiler: compiler(&tools, flavour.arch())?,
            tools,
        })
    }

    fn arch(&self) -> Arch {
        self.flavour.arch()
    }

    /// Builds a module of Varia's with `kernel/build.sh`.
    fn build_module(
        &self,
        folder: &str,
        module: &str,
        sources: &[&str],
        variables: Vec<(&'static str, String)>,
    ) -> Result<PathBuf> {
        let script = workspace().join("kernel/build.sh");
        self.build(folder, &format!("{module}.ko"), sources, |out| {
            let argv = [
                script.into_os_string(),
                self.arch().debian().into(),
                self.headers.clone().into(),
                out.into(),
            ];
            (argv.to_vec(), variables)
        })
    }

    /// The folder of a build of this name, made if it is missing.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.flavour.folder();
        let out = target_folder().join("kernel").join(folder).join(name);
        fs::create_dir_all(&out).map_err(LabError::file("create", &out))?;
        out.canonicalize().map_err(LabError::file("find", &out))
    }

    /// Runs a build script in the tools' root unless its result is there and up to date.
    /// `call` gives the command line and variables for a folder to build in.
    pub(crate) fn build(
        &self,
        name: &str,
        file: &str,
        sources: &[&str],
        call: impl FnOnce(&Path) -> (Vec<OsString>, Vec<(&'static str, String)>),
    ) -> Result<PathBuf> {
        let out = self.folder(name)?;
        let _lock = lock(&out)?;

        let mut seen = format!("{} {}", self.tools.root().display(), self.kernel);
        for source in sources {
            digest(&workspace().join(source), &mut seen)?;
        }
        let (module, stamp) = (out.join(file), out.join("stamp"));
        if module.is_file() && fs::read_to_string(&stamp).is_ok_and(|known| known == seen) {
            return Ok(module);
        }
        let (argv, variables) = call(&out);
        let mut chroot = Chroot::new(&self.tools)
            .bind(workspace())
            .bind(&out)
            .cwd(&out)
            .env("CC", &self.compiler);
        for folder in &self.bound {
            chroot = chroot.bind(folder);
        }
        for (name, value) in variables {
            chroot = chroot.env(name, value);
        }
        chroot.run(argv)?;
        fs::write(&stamp, seen).map_err(LabError::file("write", &stamp))?;
        Ok(module)
    }
}

/// Waits until no other process builds in a folder.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let lock = File::create(&path).map_err(LabError::file("open", &path))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|errno| LabError::file("lock", &path)(errno.into()))?;
    Ok(lock)
}

/// Appends the names of all files under `path`, with a hash of what they hold.
fn digest(path: &Path, to: &mut String) -> Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(LabError::file("read", path))?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        return paths.iter().try_for_each(|path| digest(path, to));
    }
    let bytes = fs::read(path).map_err(LabError::file("read", path))?;
    let hash = packages::fold_hash(&bytes);
    to.push_str(&format!("\n{} {} {hash:08x}", path.display(), bytes.len()));
    Ok(())
}
