//! Kernels that the lab builds from Debian's kernel source, and keeps.
//!
//! `lab/kernels/build.sh` does it, in the tools' root. The result lies in
//! `kernels/NAME-HASH` under the lab's cache, HASH being one over the source's version, the
//! configuration and the script.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use varia_debian::cache::Cache;
use varia_debian::chroot::Chroot;
use varia_debian::command;
use varia_debian::packages::{self, Set, Tree};
use varia_debian::progress::{Progress, Unit};
use varia_debian::{ArchNames, host_arch};
use varia_units::Arch;

use crate::agent_build::{compiler, workspace};
use crate::error::{LabError, Result};
use crate::flavour::Flavour;
use crate::kernel_source;
use crate::kernel_tree::{self, Files};

/// Number of lines, about, that make prints for a whole build: for showing progress.
const STEPS: u64 = 2_030;

/// A kernel that was built.
#[derive(Clone, Debug)]
pub struct Built {
    folder: PathBuf,
}

impl Built {
    /// The bootable image.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("Image")
    }

    /// The folder of its modules.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// A module that was built with the kernel, by the name of its file.
    ///
    /// # Errors
    /// [`LabError::Module`] if the kernel does not have it.
    pub fn module(&self, file: &str) -> Result<PathBuf> {
        let mut folders = vec![self.modules()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(LabError::file("read", &folder))? {
                let path = entry.map_err(LabError::file("read", &folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name == file) {
                    return Ok(path);
                }
            }
        }
        Err(LabError::Module {
            name: file.to_owned(),
            why: format!("{} has no such file", self.modules().display()),
        })
    }

    /// Headers that modules are built against.
    #[must_use]
    pub fn headers(&self) -> PathBuf {
        self.folder.join("headers")
    }
}

/// The kernel that `lab/kernels/NAME.config` describes, NAME being the flavour's, built if need be.
///
/// # Errors
/// [`LabError::Command`] with what make said, and those of fetching what it takes.
pub fn ensure(flavour: Flavour) -> Result<Built> {
    let name = flavour.name();
    let mut tools = packages::ensure(Set::Tools)?;
    let sources = match flavour.series() {
        None => tools.clone(),
        Some(series) => packages::ensure(Set::Headers(series))?,
    };
    let folder = workspace().join("lab/kernels");
    let fragment = folder.join(format!("{name}.config"));
    let (mut script, mut laid) = (folder.join("build.sh"), Files::new());
    if flavour.is_rust() {
        tools = packages::ensure(Set::KernelRust)?;
        script = folder.join("build-rust.sh");
        laid = kernel_tree::files(&kernel_tree::original()?)?;
    }
    let place = place(&sources, name, &script, &fragment, &laid)?;
    // A lock of their own: a build must not keep others from fetching packages.
    let cache = Cache::at(packages::cache_subfolder("kernels".as_ref())?)?;
    let there = cache.root().join(&place);
    if there.is_dir() {
        return Ok(Built { folder: there });
    }
    let lock = cache.lock()?;
    let folder = cache.fill(&lock, &place, |out| {
        if flavour.is_rust() {
            build_rust((&tools, &sources), &script, &fragment, &laid, out)
        } else {
            build((&tools, &sources), flavour, &script, &fragment, out)
        }
    })?;
    Ok(Built { folder })
}

fn place(
    sources: &Tree,
    name: &str,
    script: &Path,
    fragment: &Path,
    laid: &Files,
) -> Result<String> {
    let versions = sources.versions()?;
    let source = versions
        .lines()
        .find(|line| line.starts_with("linux-source-"))
        .unwrap_or_default();
    let mut seen = source.as_bytes().to_vec();
    for path in [script, fragment] {
        seen.extend(fs::read(path).map_err(LabError::file("read", path))?);
    }
    for text in laid.iter().flat_map(|(path, text)| [path, text]) {
        seen.extend(text.bytes());
    }
    Ok(format!("{name}-{:08x}", packages::fold_hash(&seen)))
}

fn build(
    (tools, sources): (&Tree, &Tree),
    flavour: Flavour,
    script: &Path,
    fragment: &Path,
    out: &Path,
) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let chroot = Chroot::new(tools)
        .bind(workspace())
        .bind(sources.path("/usr/src"))
        .bind(out)
        .env("ARCH", Arch::Aarch64.debian())
        .env("CROSS_COMPILE", format!("{}-", Arch::Aarch64.triplet()))
        .env("CC", compiler(tools, Arch::Aarch64)?)
        .env("HOSTCC", compiler(tools, host_arch()?)?)
        .env("JOBS", jobs.to_string());
    let source = sources.path(&kernel_source::archive(sources)?.to_string_lossy());
    let argv = [
        script.as_os_str(),
        source.as_os_str(),
        fragment.as_os_str(),
        out.as_os_str(),
    ];
    let what = format!("build the kernel {flavour} (about 8 minutes on two idle processors)");
    let mut progress = Progress::start(what, Unit::Items, STEPS);
    run_counting(chroot.prepared(argv)?, || progress.advance())?;
    progress.finish();
    Ok(())
}

/// Builds a kernel with Rust by LLVM, with `laid` over its source.
fn build_rust(
    (tools, sources): (&Tree, &Tree),
    script: &Path,
    fragment: &Path,
    laid: &Files,
    out: &Path,
) -> Result<()> {
    let folder = out.join("laid");
    for (path, text) in laid {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(LabError::file("create", parent))?;
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let chroot = Chroot::new(tools)
        .bind(workspace())
        .bind(sources.path("/usr/src"))
        .bind(out)
        .env("JOBS", jobs.to_string());
    let source = sources.path(&kernel_source::archive(sources)?.to_string_lossy());
    let position = workspace().join("lab/position");
    let argv = [&source, fragment, folder.as_path(), &position, out].map(Path::as_os_str);
    let what = "build a kernel with Rust (about 16 minutes on two idle processors)";
    let mut progress = Progress::start(what.to_owned(), Unit::Items, STEPS);
    let argv = [script.as_os_str()].into_iter().chain(argv);
    run_counting(chroot.prepared(argv)?, || progress.advance())?;
    progress.finish();
    Ok(())
}

/// Runs a command to its end, calling `tell` for each line that it prints.
fn run_counting(mut command: Command, mut tell: impl FnMut()) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| command::unstartable(&command, source))?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    // Read beside each other: a full pipe would stop the command.
    let errors = std::thread::spawn(move || {
        let mut said = Vec::new();
        // What can't be read any more is missing in the message, no more than that.
        let _ = errors.map(|mut errors| errors.read_to_end(&mut said));
        said
    });
    for line in output
        .into_iter()
        .flat_map(|output| BufReader::new(output).split(b'\n'))
    {
        line.map_err(LabError::io("read what make prints"))?;
        tell();
    }
    let status = child.wait().map_err(LabError::io("wait for make"))?;
    let said = errors.join().unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(command::failed(&command, &status.to_string(), &said).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_a_failure_shows_the_errors() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo why >&2; echo two; exit 3"]);
        let mut lines = 0;
        let error = run_counting(command, || lines += 1)
            .unwrap_err()
            .to_string();
        assert_eq!(lines, 2);
        assert!(
            error.contains("exit status: 3") && error.contains("why"),
            "{error}"
        );
    }
}
