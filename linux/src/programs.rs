//! What programs of this machine say: QEMU, libvirt, modinfo.
//!
//! They are started and asked, and nothing is changed by that. A captured host has their answers
//! in a file.

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

/// Where a capture keeps the answers.
pub(crate) const PATH: &str = "varia/programs.json";
/// Modules that several drivers of one name could be.
const ASKED_MODULES: [&str; 1] = ["nvgrace_gpu_vfio_pci"];
/// Where programs for the administrator are that are not in everybody's PATH.
const ADMINISTRATORS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/libexec"];
/// libvirt's daemon, the modular one first, and its client, which may be of another version.
const LIBVIRT: [&str; 3] = ["virtqemud", "libvirtd", "virsh"];
/// How long a program may take to answer.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const LONGEST: u64 = 16 << 20;

/// The answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Programs {
    #[serde(default)]
    pub(crate) vmm: Vmm,
    /// By module.
    #[serde(default)]
    pub(crate) modules: BTreeMap<String, Modinfo>,
}

/// What modinfo says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Modinfo {
    pub(crate) file: Option<String>,
    pub(crate) author: Option<String>,
    pub(crate) version: Option<String>,
}

impl Programs {
    /// Those of a captured host; none are known of this machine before it is asked.
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

    /// Asks this machine's. `qemu` is used instead of the one in PATH.
    pub(crate) fn ask(arch: Option<Arch>, qemu: Option<&Path>) -> Self {
        let asked = ASKED_MODULES.into_iter();
        let modules = asked.filter_map(|name| Some((name.to_owned(), modinfo(name)?)));
        Self {
            vmm: vmm(arch, qemu),
            modules: modules.collect(),
        }
    }

    /// Adds what is known of modules to a kernel.
    pub(crate) fn apply(&self, kernel: &mut Kernel) {
        for (name, told) in &self.modules {
            let module = kernel.modules.entry(name.clone()).or_default();
            module.file.clone_from(&told.file);
            module.author.clone_from(&told.author);
            module.version = module.version.take().or_else(|| told.version.clone());
        }
    }
}

/// Asks this machine's QEMU for an architecture, and its libvirt. `qemu` is asked instead of the
/// QEMU in PATH. What is not known is told with the reason.
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
        .ok_or("neither virtqemud, libvirtd nor virsh is in PATH")?;
    let (name, path) = found;
    let source = format!("{name} --version");
    let told = ask(&path, &["--version"], "").map_err(|why| format!("{source}: {why}"))?;
    match version(&told) {
        Some(version) => Ok(Libvirt { version, source }),
        None => Err(format!("{source} says {:?}", first_line(&told))),
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

/// The first word that is a version: digits with dots between.
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

/// A program in PATH, or where those for the administrator are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// What a program prints when it gets `input`.
pub(crate) fn ask(program: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        // words, not their translations
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("can't be started: {error}"))?;
    let until = Instant::now() + LIMIT;
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_owned();
        // a program that reads nothing has said what it has to say
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
                return Err(format!("does not answer within {} s", LIMIT.as_secs()));
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

/// All that comes out of a pipe.
fn all(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // what came before an error is told
            let _ = pipe.take(LONGEST).read_to_end(&mut bytes);
        }
        // nobody waits any more for a program that took too long
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    from
}

/// It has closed its output: it ends, or is ended.
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
    // it may have ended meanwhile
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_first_word_that_looks_like_one() {
        let qemu = "QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)\nCopyright";
        assert_eq!(version(qemu).as_deref(), Some("11.1.2"));
        assert_eq!(
            version("libvirtd (libvirt) 12.8.0\n").as_deref(),
            Some("12.8.0")
        );
        assert_eq!(version("version eleven, 1. 2 and ..."), None);
    }

    #[test]
    fn a_program_is_asked_and_its_failure_told() {
        let shell = Path::new("/bin/sh");
        let told = ask(shell, &["-c", "read x; echo \"$x, $LC_ALL\""], "hello\n");
        assert_eq!(told.as_deref(), Ok("hello, C\n"));
        let why = ask(shell, &["-c", "echo broken >&2; exit 3"], "").unwrap_err();
        assert!(why.contains('3') && why.ends_with("broken"), "{why}");
        let why = ask(Path::new("/nonexistent/qemu"), &[], "").unwrap_err();
        assert!(why.starts_with("can't be started"), "{why}");
    }
}
