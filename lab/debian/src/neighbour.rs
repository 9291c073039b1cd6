//! Debian's mirror and keys on a machine of another distribution that uses apt.
//!
//! The mirror is read from the templates of `python-apt`, or from `debootstrap`; the keys are in
//! the package `debian-archive-keyring`. What is not installed is downloaded from the machine's
//! own signed sources, as the current user, and unpacked into a folder of the lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::HOOKS;
use crate::command;
use crate::error::{Error, Result};
use crate::sources::stanzas;

/// Places of Debian's keyring, in its package.
const KEYRINGS: [&str; 2] = [
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A machine, and what its own archive gives.
#[derive(Debug)]
pub(crate) struct Neighbour {
    root: PathBuf,
    private: PathBuf,
}

impl Neighbour {
    /// The machine whose files are at `root`; `private` keeps what is downloaded.
    pub(crate) fn new(root: &Path, private: &Path) -> Self {
        Self {
            root: root.to_owned(),
            private: private.to_owned(),
        }
    }

    /// A path of the machine.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The URI of a Debian mirror, and the file that names it.
    ///
    /// # Errors
    /// [`Error::Missing`] if neither the machine nor its archive knows one.
    pub(crate) fn debian_mirror(&self) -> Result<(String, String)> {
        let mut failures = Vec::new();
        for package in [None, Some("python-apt-common"), Some("debootstrap")] {
            let root = match package.map(|package| self.downloaded(package)) {
                None => self.root.clone(),
                Some(Ok(root)) => root,
                Some(Err(error)) => {
                    failures.push(error.to_string());
                    continue;
                }
            };
            if let Some((uri, file)) = known_mirror(&root) {
                return Ok((uri, file.display().to_string()));
            }
        }
        Err(Error::missing(
            format!(
                "apt on this machine is configured with no Debian mirror, the lab's packages come \
                 from Debian, and no template of python-apt or debootstrap names a mirror:\n{}",
                failures.join("\n")
            ),
            "install the package python-apt-common, or set VARIA_MIRROR to the URI of a Debian \
             mirror (the part before `dists/`)",
        ))
    }

    /// The file of Debian's signing keys.
    ///
    /// # Errors
    /// [`Error::Missing`] if it is neither on the machine nor in its archive.
    pub(crate) fn debian_keyring(&self) -> Result<PathBuf> {
        let in_root = |root: &Path| {
            let mut paths = KEYRINGS.iter().map(|path| root.join(path));
            paths.find(|path| path.is_file())
        };
        if let Some(path) = in_root(&self.root) {
            return Ok(path);
        }
        let package = "debian-archive-keyring";
        let missing = |why: String| {
            Error::missing(
                format!("Debian's signing keys are not on this machine, and {why}"),
                format!("install the package {package}"),
            )
        };
        let root = self
            .downloaded(package)
            .map_err(|error| missing(error.to_string()))?;
        in_root(&root).ok_or_else(|| missing(format!("its package {package} has no keyring")))
    }

    /// The folder with the unpacked package, downloaded if need be.
    fn downloaded(&self, package: &str) -> Result<PathBuf> {
        let root = self.private.join(package);
        if root.is_dir() {
            return Ok(root);
        }
        let archives = self.private.join("archives");
        for folder in [archives.join("partial"), self.private.join("lists/partial")] {
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        }
        let configuration = self.private.join("apt.conf");
        let clear = HOOKS.map(|hook| format!("#clear {hook};\n")).concat();
        fs::write(&configuration, clear).map_err(Error::file("write", &configuration))?;
        let own_lists = self.private.join("lists/");
        // With the lists that the machine has, then with lists of our own: it may have none.
        let machine_lists = self.path("/var/lib/apt/lists/");
        let download = |lists: &Path| {
            let mut apt = self.apt(lists);
            apt.args(["-qq", "download", package])
                .current_dir(&archives);
            command::run(&mut apt)
        };
        if download(&machine_lists).is_err() {
            // Fails for any source that can't be read, be it one without the package.
            let mut update = self.apt(&own_lists);
            let updated = command::run(update.args(["-qq", "--error-on=any", "update"]));
            download(&own_lists).map_err(|error| match updated {
                Ok(_) => error,
                Err(update) => Error::missing(
                    format!("{error}\n{update}"),
                    "correct or remove the sources that can't be read",
                ),
            })?;
        }
        let entries = fs::read_dir(&archives).map_err(Error::file("read", &archives))?;
        let prefix = format!("{package}_");
        let deb = entries
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .ok_or_else(|| {
                let what = format!("apt-get left no {package} in {}", archives.display());
                Error::missing(what, "fetch again")
            })?;
        let unfinished = self.private.join(format!("{package}.new"));
        let _ = fs::remove_dir_all(&unfinished);
        command::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(deb.path())
                .arg(&unfinished),
        )?;
        fs::rename(&unfinished, &root).map_err(Error::file("rename to", &root))?;
        Ok(root)
    }

    /// `apt-get` with the machine's own sources and keys, and these package lists.
    fn apt(&self, lists: &Path) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("-c").arg(self.private.join("apt.conf"));
        for (name, value) in [
            ("Dir::Etc", self.path("/etc/apt")),
            ("Dir::State::Lists", lists.to_owned()),
            ("Dir::State::status", self.path("/var/lib/dpkg/status")),
            ("Dir::Cache", self.private.clone()),
            ("Dir::Cache::archives", self.private.join("archives/")),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        for setting in [
            "Debug::NoLocking=true",
            "APT::Sandbox::User=",
            "APT::Get::AllowUnauthenticated=false",
            "Acquire::AllowInsecureRepositories=false",
            "Acquire::Languages=none",
        ] {
            command.args(["-o", setting]);
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The mirror that files under `root` name, and the file.
fn known_mirror(root: &Path) -> Option<(String, PathBuf)> {
    let in_file = |path: &str, read: fn(&str) -> Option<String>| {
        let file = root.join(path);
        let text = fs::read_to_string(&file).ok()?;
        Some((read(&text)?, file))
    };
    in_file("usr/share/python-apt/templates/Debian.info", from_template)
        .or_else(|| in_file("usr/share/debootstrap/scripts/sid", from_debootstrap))
        .or_else(|| in_file("usr/sbin/debootstrap", from_debootstrap))
}

/// The first `BaseURI` of a template of `python-apt` whose stanza has Debian's main component.
/// Security updates have a stanza without one.
fn from_template(text: &str) -> Option<String> {
    let found = stanzas(text).into_iter().find(|stanza| {
        stanza.field("Component") == "main" && !stanza.field("BaseURI").is_empty()
    })?;
    Some(found.field("BaseURI").to_owned())
}

/// The default mirror of `debootstrap` or of one of its scripts, if it is Debian's: the program of
/// a derivative may name the derivative's own.
fn from_debootstrap(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let value = line
            .strip_prefix("default_mirror ")
            .or_else(|| line.strip_prefix("DEF_MIRROR="))?;
        let uri = value.trim().trim_matches('"');
        uri.trim_end_matches('/')
            .ends_with("/debian")
            .then(|| uri.to_owned())
    })
}
