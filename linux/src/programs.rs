//! Output of programs of this machine: QEMU, libvirt, modinfo.
//!
//! The programs are run for their output and change nothing. A captured host contains the output in
//! a file.

use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use varia_facts::{Arch, Kernel, Libvirt, Vmm};

use crate::inventory::Reading;
use crate::qemu;

/// Path of the output in a captured host.
pub(crate) const PATH: &str = "varia/programs.json";
/// Modules of which several implementations with one name exist.
const ASKED_MODULES: [&str; 1] = ["nvgrace_gpu_vfio_pci"];
/// Directories of administrators' programs, which are not in every user's PATH.
const ADMINISTRATORS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/libexec"];
/// libvirt's daemons, the modular daemon first, and its client, which may have another version.
const LIBVIRT: [&str; 3] = ["virtqemud", "libvirtd", "virsh"];
/// Timeout of a program.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest output that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// Output of the programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Programs {
    #[serde(default)]
    pub(crate) vmm: Vmm,
    /// Output of modinfo, by module.
    #[serde(default)]
    pub(crate) modules: BTreeMap<String, Modinfo>,
}

/// Output of modinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Modinfo {
    pub(crate) file: Option<String>,
    pub(crate) author: Option<String>,
    pub(crate) version: Option<String>,
}

impl Programs {
    /// Output that a captured host contains; empty for this machine.
    pub(crate) fn captured(reading: &Reading<'_>) -> Self {
        if reading.tree.is_live() {
            return Self::default();
        }
        let Some(text) = reading.text(PATH) else {
            return Self::default();
        };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            reading.note(PATH, error.to_string());
            Self::default()
        })
    }

    /// Runs this machine's programs. `qemu` replaces the QEMU in PATH.
    pub(crate) fn ask(arch: Option<Arch>, qemu: Option<&Path>) -> Self {
        let asked = ASKED_MODULES.into_iter();
        let modules = asked.filter_map(|name| Some((name.to_owned(), modinfo(name)?)));
        Self {
            vmm: vmm(arch, qemu),
            modules: modules.collect(),
        }
    }

    /// Adds the facts of modules to a kernel.
    pub(crate) fn apply(&self, kernel: &mut Kernel) {
        for (name, told) in &self.modules {
            let module = kernel.modules.entry(name.clone()).or_default();
            module.file.clone_from(&told.file);
            module.author.clone_from(&told.author);
            module.version = module.version.take().or_else(|| told.version.clone());
        }
    }
}

/// Queries this machine's QEMU for an architecture, and its libvirt. `qemu` replaces the QEMU in
/// PATH. The result has a reason for each fact that is not known.
#[must_use]
pub fn vmm(arch: Option<Arch>, qemu: Option<&Path>) -> Vmm {
    let mut vmm = Vmm::default();
    qemu::ask(arch, qemu, &mut vmm);
    match libvirt() {
        Ok(libvirt) => vmm.libvirt = Some(libvirt),
        Err(why) => {
            vmm.unknown.insert("libvirt".to_owned(), why);
        }
    }
    vmm
}

fn libvirt() -> Result<Libvirt, String> {
    let found = LIBVIRT
        .iter()
        .find_map(|name| Some((name, find(name)?)))
        .ok_or("virtqemud, libvirtd and virsh are not in PATH")?;
    let (name, path) = found;
    let source = format!("{name} --version");
    let told = ask(&path, &["--version"], "").map_err(|why| format!("{source}: {why}"))?;
    match version(&told) {
        Some(version) => Ok(Libvirt {
            version,
            source,
            features: Vec::new(),
        }),
        None => Err(format!(
            "{source} prints no version: {:?}",
            first_line(&told)
        )),
    }
}

fn modinfo(module: &str) -> Option<Modinfo> {
    let told = ask(&find("modinfo")?, &[module], "").ok()?;
    let field = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().to_owned()).filter(|value| !value.is_empty())
    };
    Some(Modinfo {
        file: field("filename:"),
        author: field("author:"),
        version: field("version:"),
    })
}

/// The first word in the format of a version: digits with dots between.
pub(crate) fn version(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    let is = |word: &&str| {
        let mut numbers = word.split('.');
        word.contains('.') && numbers.all(|number| number.parse::<u32>().is_ok())
    };
    words.find(is).map(str::to_owned)
}

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Path of a program in PATH, or in the administrators' directories.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Runs a program with `input`, and returns its output.
pub(crate) fn ask(program: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        // untranslated output
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("can't be started: {error}"))?;
    let until = Instant::now() + LIMIT;
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_owned();
        // a program may end without reading its input
        thread::spawn(move || drop(pipe.write_all(input.as_bytes())));
    }
    let answers = [all(child.stdout.take()), all(child.stderr.take())];
    let mut texts = Vec::new();
    for answer in answers {
        let left = until.saturating_duration_since(Instant::now());
        match answer.recv_timeout(left) {
            Ok(text) => texts.push(text),
            Err(RecvTimeoutError::Disconnected) => texts.push(String::new()),
            Err(RecvTimeoutError::Timeout) => {
                end(&mut child);
                return Err(format!("no output within {} s", LIMIT.as_secs()));
            }
        }
    }
    let status = ended(&mut child, until)?;
    let [out, complaint] = texts.try_into().unwrap_or_default();
    if status.success() {
        return Ok(out);
    }
    Err(format!("{status}: {}", first_line(complaint.trim())))
}

/// Reads a pipe to its end.
fn all(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // output before an error counts
            let _ = pipe.take(LONGEST).read_to_end(&mut bytes);
        }
        // the receiver is gone after a timeout
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    from
}

/// Waits for a program that has closed its output, and kills the program after the timeout.
fn ended(child: &mut Child, until: Instant) -> Result<ExitStatus, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                end(child);
                return Err(format!("does not end within {} s", LIMIT.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn end(child: &mut Child) {
    // the program may already have ended
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_word_of_digits_and_dots() {
        let qemu = "QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)\nCopyright";
        assert_eq!(version(qemu).as_deref(), Some("11.1.2"));
        assert_eq!(
            version("libvirtd (libvirt) 12.8.0\n").as_deref(),
            Some("12.8.0")
        );
        assert_eq!(version("version eleven, 1. 2 and ..."), None);
    }

    #[test]
    fn the_output_or_the_failure_of_a_program_is_returned() {
        let shell = Path::new("/bin/sh");
        let told = ask(shell, &["-c", "read x; echo \"$x, $LC_ALL\""], "hello\n");
        assert_eq!(told.as_deref(), Ok("hello, C\n"));
        let why = ask(shell, &["-c", "echo broken >&2; exit 3"], "").unwrap_err();
        assert!(why.contains('3') && why.ends_with("broken"), "{why}");
        let why = ask(Path::new("/nonexistent/qemu"), &[], "").unwrap_err();
        assert!(why.starts_with("can't be started"), "{why}");
    }
}
