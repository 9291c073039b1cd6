//! Running the fetched tools in their own root, without privilege.
//!
//! `unshare` gives a user namespace in which the current user is root, and a mount
//! namespace of its own. In it a tmpfs becomes the root: the fetched `usr` is bound into
//! it, the machine's `/dev` and `/proc`, and the folders that the caller names, at the
//! paths they have outside. Nothing of this is seen by the rest of the machine, and the
//! fetched tree stays as it was.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::command;
use crate::error::{Error, Result};
use crate::packages::Tree;

/// Makes the root and goes into it. `$1` is the fetched root, `$2` the working folder,
/// then come the folders to bind, `--`, and the command.
const ENTER: &str = r#"
root=$1; cwd=$2; shift 2
new=$root/mnt
mount -t tmpfs varia "$new"
for name in usr etc var dev proc tmp; do mkdir "$new/$name"; done
for name in usr etc var; do
    if [ -d "$root/$name" ]; then mount --bind "$root/$name" "$new/$name"; fi
done
mount --rbind /dev "$new/dev"
mount --rbind /proc "$new/proc"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$new/$name"; done
while [ "$1" != -- ]; do
    mkdir -p "$new/$1"
    mount --rbind "$1" "$new/$1"
    shift
done
shift
mkdir -p "$new/$cwd"
exec chroot "$new" /usr/bin/env -C "$cwd" "$@"
"#;

/// A command to run in a fetched root.
#[derive(Clone, Debug)]
pub struct Chroot {
    root: PathBuf,
    binds: Vec<PathBuf>,
    cwd: PathBuf,
    env: Vec<(OsString, OsString)>,
}

impl Chroot {
    /// The root of this set, with nothing bound into it but `/dev` and `/proc`.
    #[must_use]
    pub fn new(tree: &Tree) -> Self {
        Self {
            root: tree.root(),
            binds: Vec::new(),
            cwd: PathBuf::from("/tmp"),
            env: Vec::new(),
        }
    }

    /// Makes a folder of this machine visible, writable, at its own (absolute) path.
    #[must_use]
    pub fn bind(mut self, folder: impl Into<PathBuf>) -> Self {
        self.binds.push(folder.into());
        self
    }

    /// Runs in this folder; `/tmp`, a private and empty one, by default.
    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = folder.into();
        self
    }

    /// Sets a variable. The environment holds nothing else but `PATH` and a C locale.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn command<S: Into<OsString>>(&self, argv: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("unshare");
        command
            .args([
                "--map-root-user",
                "--mount",
                "/bin/sh",
                "-euc",
                ENTER,
                "varia-chroot",
            ])
            .arg(&self.root)
            .arg(&self.cwd)
            .args(&self.binds)
            .arg("--")
            .args(argv.into_iter().map(Into::into))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/tmp")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`Error::UserNamespaces`] if this machine refuses them, [`Error::Command`]
    /// if the command fails, [`Error::Io`].
    pub fn run<S: Into<OsString>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Output> {
        command::run(&mut self.prepared(argv)?).map_err(explained)
    }

    /// The whole command, for a caller that runs it in its own way, with all that it needs
    /// in place.
    ///
    /// # Errors
    /// [`Error::Missing`] for a folder that can't be bound, [`Error::Io`].
    pub fn prepared<S: Into<OsString>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        self.prepare()?;
        Ok(self.command(argv))
    }

    /// Whether this machine lets the current user make the namespaces.
    ///
    /// # Errors
    /// [`Error::UserNamespaces`] with what was said.
    pub fn check() -> Result<()> {
        let mut command = Command::new("unshare");
        command
            .args(namespaces())
            .args(["/bin/sh", "-c", "mount -t tmpfs varia /mnt"]);
        match command::run(&mut command) {
            Err(Error::Command { output, .. }) => Err(Error::UserNamespaces {
                detail: output.trim().to_owned(),
            }),
            other => other.map(drop),
        }
    }

    /// Makes the mount point; it stays empty outside the namespace.
    fn prepare(&self) -> Result<()> {
        let point = self.root.join("mnt");
        std::fs::create_dir_all(&point).map_err(Error::file("create", &point))?;
        for folder in &self.binds {
            if !folder.is_absolute() || !folder.is_dir() {
                let what = format!("{} can't be bound into the root", folder.display());
                return Err(Error::missing(what, "give the absolute path of a folder"));
            }
        }
        Ok(())
    }
}

/// What `unshare` is asked for: an ordinary user becomes root in a namespace of its own;
/// root needs none, if it may mount at all.
fn namespaces() -> &'static [&'static str] {
    static CHOICE: OnceLock<&[&str]> = OnceLock::new();
    CHOICE.get_or_init(|| {
        let alone = ["--mount", "true"];
        if rustix::process::geteuid().is_root()
            && command::run(Command::new("unshare").args(alone)).is_ok()
        {
            &["--mount"]
        } else {
            &["--map-root-user", "--mount"]
        }
    })
}

/// Tells a refusal of namespaces from a failure of the command itself, by trying.
fn explained(error: Error) -> Error {
    match (&error, Chroot::check()) {
        (Error::Command { .. }, Err(refusal)) => refusal,
        _ => error,
    }
}
