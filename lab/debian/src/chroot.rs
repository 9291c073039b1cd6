//! Running the fetched tools in their own root, without privilege.
//!
//! `unshare` gives a user namespace in which the current user is root, and a mount
//! namespace of its own. In it a tmpfs becomes the root: the fetched `usr` is bound into
//! it, the machine's `/dev` and `/proc`, and the folders that the caller names, at the
//! paths they have outside. Nothing of this is seen by the rest of the machine, and the
//! fetched tree stays as it was.
//!
//! Where the machine refuses namespaces, `proot` (a set of its own) shows a command the same root
//! by rewriting its system calls. Each system call is then stopped twice, so builds take longer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::arch::{ArchNames, host_arch};
use crate::command;
use crate::error::{Error, Result};
use crate::packages::{self, Set, Tree};

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

/// [`ENTER`] with `proot`, which takes its options and the command from `$4` on. `$1` is its loader,
/// `$2` its libraries, `$3` the program. Its filter of system calls fails on some kernels, so all
/// are stopped.
const ENTER_PROOT: &str = r#"
loader=$1; libraries=$2; proot=$3; shift 3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PROOT_NO_SECCOMP=1
"$loader" --library-path "$libraries" "$proot" --kill-on-exit -0 -b "$tmp:/tmp" "$@"
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
        Self::at(tree.root())
    }

    /// A root of the caller's own, such as a copy of a set that a command may change.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
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

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`Error::Command`] if the command fails, those of fetching `proot` where it is needed,
    /// [`Error::Io`].
    pub fn run<S: Into<OsString>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Output> {
        command::run(&mut self.prepared(argv)?)
    }

    /// The whole command, for a caller that runs it in its own way, with all that it needs
    /// in place.
    ///
    /// # Errors
    /// [`Error::Missing`] for a folder that can't be bound, those of fetching `proot` where it is
    /// needed, [`Error::Io`].
    pub fn prepared<S: Into<OsString>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        self.prepare()?;
        let mut command = match refusal() {
            None => self.in_namespaces(),
            Some(_) => self.in_proot(&packages::ensure(Set::Proot)?)?,
        };
        command
            .args(argv.into_iter().map(Into::into))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", "/tmp")
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn in_namespaces(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(namespaces())
            .args(["/bin/sh", "-euc", ENTER, "varia-chroot"])
            .arg(&self.root)
            .arg(&self.cwd)
            .args(&self.binds)
            .arg("--");
        command
    }

    fn in_proot(&self, own: &Tree) -> Result<Command> {
        let host = host_arch()?;
        let libraries = own.path("/usr/lib").join(host.triplet());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-euc", ENTER_PROOT, "varia-proot"])
            .arg(libraries.join(host.loader()))
            .arg(libraries)
            .arg(own.path("/usr/bin/proot"))
            .arg("-r")
            .arg(&self.root)
            .args(["-b", "/dev", "-b", "/proc"]);
        for folder in &self.binds {
            command.arg("-b").arg(folder);
        }
        command.arg("-w").arg(&self.cwd);
        Ok(command)
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

/// Reason for which this machine refuses the namespaces, as `unshare` printed it; none if it allows
/// them. Asked once in each process.
#[must_use]
pub fn refusal() -> Option<&'static str> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| {
        let mut command = Command::new("unshare");
        command
            .args(namespaces())
            .args(["/bin/sh", "-c", "mount -t tmpfs varia /mnt"]);
        match command::run(&mut command) {
            Ok(_) => None,
            Err(Error::Command { output, .. }) => Some(output.trim().to_owned()),
            Err(error) => Some(error.to_string()),
        }
    });
    answer.as_deref()
}

/// Options of `unshare`: an ordinary user becomes root in a namespace of its own; root needs none,
/// if it may mount at all.
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
