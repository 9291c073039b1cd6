//! A private apt: packages without root, without touching the machine's own.
//!
//! apt runs as the current user with folders, source list and (empty) package state of
//! its own, under the lab's cache; only the mirror, its keys and settings such as a
//! proxy come from the machine. Signatures are checked as always; only the expiry date
//! of the lists is not, because a mirror may be a snapshot. Packages are downloaded and
//! unpacked, never installed: no maintainer script runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use varia_units::Arch;

use crate::arch::{ArchNames, host_arch};
use crate::command;
use crate::error::{Error, Result};
use crate::mirror::{Keys, Mirror};
use crate::progress::{Progress, Unit};
use crate::suite::Suite;

/// Package lists younger than this are used without asking the mirror again, so that
/// sets fetched on one day fit together.
const LISTS_FRESH: Duration = Duration::from_secs(12 * 3600);

/// A package file, as apt announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deb {
    /// The file's name: `name_version_arch.deb`, a colon written `%3a`.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
}

impl Deb {
    /// Name, version and architecture, for the record.
    #[must_use]
    pub fn record(&self) -> String {
        let stem = self.file.strip_suffix(".deb").unwrap_or(&self.file);
        stem.replace("%3a", ":").replace('_', " ")
    }
}

/// Packages of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Packages with what they depend on.
    pub whole: Vec<String>,
    /// Packages alone.
    pub alone: Vec<String>,
}

impl Wanted {
    /// Adds packages with their dependencies; names are separated by spaces.
    pub fn add_whole(&mut self, names: &str) {
        self.whole
            .extend(names.split_whitespace().map(str::to_owned));
    }

    /// Adds packages without dependencies; names are separated by spaces.
    pub fn add_alone(&mut self, names: &str) {
        self.alone
            .extend(names.split_whitespace().map(str::to_owned));
    }
}

/// Commands that the machine's configuration has apt run, as root, around its own work.
pub(crate) const HOOKS: [&str; 5] = [
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "DPkg::Post-Invoke",
    "DPkg::Pre-Install-Pkgs",
];

/// Settings of the machine that the private apt has its own values for, and indices of screenshots
/// and translations, which the lab does not read.
const REPLACED: [&str; 7] = [
    "APT::Architectures",
    "APT::Default-Release",
    "Acquire::IndexTargets::deb::DEP-11",
    "Acquire::IndexTargets::deb::DEP-11-icons",
    "Acquire::IndexTargets::deb::DEP-11-icons-small",
    "Acquire::IndexTargets::deb::DEP-11-icons-hidpi",
    "Acquire::IndexTargets::deb::Contents-deb",
];

/// The private apt, for one suite.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    suite: Suite,
    /// The machine that packages are resolved for, where it is not this one.
    machine: Option<Arch>,
    /// Architectures whose packages it knows, by Debian's names.
    architectures: Vec<&'static str>,
}

/// Architectures of the lab's machines.
const MACHINES: [&str; 2] = ["amd64", "arm64"];

impl Apt {
    /// Writes apt's configuration for `suite` under `cache` (the lab's folder).
    ///
    /// # Errors
    /// Those of [`Mirror::of_this_machine`]; [`Error::Missing`] for a machine that is
    /// neither x86-64 nor 64-bit Arm; [`Error::Io`].
    pub fn open(cache: &Path, suite: Suite) -> Result<Self> {
        let folder = cache.join("apt").join(suite.name());
        Self::in_folder(folder, cache, suite, MACHINES.to_vec())
    }

    /// The same for this machine's packages and those of an architecture that the lab's machines do
    /// not have, with package lists of its own.
    ///
    /// # Errors
    /// Those of [`Apt::open`].
    pub fn foreign(cache: &Path, suite: Suite, debian: &'static str) -> Result<Self> {
        let folder = cache.join("apt").join(format!("{}-{debian}", suite.name()));
        Self::in_folder(folder, cache, suite, vec![host_arch()?.debian(), debian])
    }

    fn in_folder(
        folder: PathBuf,
        cache: &Path,
        suite: Suite,
        architectures: Vec<&'static str>,
    ) -> Result<Self> {
        let mirror = Mirror::of_this_machine(&cache.join("neighbour"))?;
        let host = host_arch()?;
        for name in ["lists/partial", "none/partial", "../archives/partial"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        }
        let apt = Self {
            folder,
            suite,
            machine: None,
            architectures,
        };
        apt.write("status", "")?;
        let signed_by = match &mirror.keys {
            Keys::Default => String::new(),
            Keys::Named(names) => format!(" signed-by={names}"),
            Keys::Inline(block) => {
                apt.write("mirror.asc", block)?;
                format!(" signed-by={}", apt.folder.join("mirror.asc").display())
            }
        };
        let arch = apt.architectures.join(",");
        let lines = suite
            .sources()
            .iter()
            .map(|name| format!("deb [arch={arch}{signed_by}] {} {name} main\n", mirror.uri));
        apt.write("sources.list", &lines.collect::<String>())?;
        apt.write("apt.conf", &apt.configuration(host))?;
        Ok(apt)
    }

    /// Resolves dependencies as on a machine of this architecture: its tools are of it too.
    #[must_use]
    pub fn on(mut self, arch: Arch) -> Self {
        self.machine = Some(arch);
        self
    }

    /// The suite that packages come from.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// True if the package lists exist and were fetched within the last hours.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let written = fs::metadata(self.folder.join("updated")).and_then(|facts| facts.modified());
        let age = written
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_some_and(|age| age < LISTS_FRESH)
    }

    /// Fetches the package lists, unless they are fresh and `force` is not set.
    ///
    /// # Errors
    /// [`Error::Command`] with what apt said.
    pub fn update(&self, force: bool) -> Result<()> {
        if !force && self.is_fresh() {
            return Ok(());
        }
        let what = format!("package lists of Debian {}", self.suite.name());
        let progress = Progress::start(what, Unit::Bytes, 0);
        command::run(self.apt("apt-get").args(["--error-on=any", "update"]))?;
        progress.finish();
        self.write("updated", "")
    }

    /// The package lists of every architecture, as stanzas.
    ///
    /// # Errors
    /// [`Error::Command`].
    pub fn lists(&self) -> Result<String> {
        command::text(self.apt("apt-cache").arg("dumpavail"))
    }

    /// Every package file that `wanted` comes to.
    ///
    /// # Errors
    /// [`Error::Command`] if a package does not exist or dependencies can't be met.
    pub fn resolve(&self, wanted: &Wanted) -> Result<Vec<Deb>> {
        let mut debs = Vec::new();
        for (verb, names) in [("install", &wanted.whole), ("download", &wanted.alone)] {
            if names.is_empty() {
                continue;
            }
            let mut apt = self.apt("apt-get");
            apt.args(["-qq", "-y", "--no-install-recommends", "--print-uris", "-o"])
                .arg(format!(
                    "Dir::Cache::archives={}/",
                    self.folder.join("none").display()
                ))
                .arg(verb)
                .args(names)
                .current_dir(self.folder.join("none"));
            debs.extend(command::text(&mut apt)?.lines().filter_map(parse_uri_line));
        }
        debs.sort_by(|a, b| a.file.cmp(&b.file));
        debs.dedup();
        Ok(debs)
    }

    /// Downloads what `wanted` comes to (`debs`, from [`Apt::resolve`]), showing progress.
    ///
    /// # Errors
    /// [`Error::Command`] with what apt said, [`Error::Io`].
    pub fn download(&self, what: &str, wanted: &Wanted, debs: &[Deb]) -> Result<()> {
        let archives = self.archives();
        let missing: Vec<_> = debs
            .iter()
            .filter(|deb| {
                fs::metadata(archives.join(&deb.file)).map_or(true, |facts| facts.len() != deb.size)
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().map(|deb| deb.size).sum();
        let title = format!("fetch {what}: {} of {} packages", missing.len(), debs.len());
        let mut progress = Progress::start(title, Unit::Bytes, total);
        let before = self.downloaded();
        for (verb, names) in [("install", &wanted.whole), ("download", &wanted.alone)] {
            if names.is_empty() {
                continue;
            }
            let mut apt = self.apt("apt-get");
            apt.args(["-qq", "-y", "--no-install-recommends"]);
            if verb == "install" {
                apt.arg("--download-only");
            }
            apt.arg(verb).args(names).current_dir(&archives);
            self.run_watching(apt, |done| progress.set(done.saturating_sub(before)))?;
        }
        progress.finish();
        Ok(())
    }

    /// Unpacks downloaded packages into `root`, which gets Debian's merged `/usr` layout.
    ///
    /// # Errors
    /// [`Error::Command`] if a package is damaged, [`Error::Io`].
    pub fn unpack(&self, what: &str, debs: &[Deb], root: &Path) -> Result<()> {
        for name in ["bin", "sbin", "lib", "lib64"] {
            let folder = root.join("usr").join(name);
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
            let link = root.join(name);
            if !link.is_symlink() {
                std::os::unix::fs::symlink(format!("usr/{name}"), &link)
                    .map_err(Error::file("create", &link))?;
            }
        }
        let title = format!("unpack {what}: packages");
        let progress = Mutex::new(Progress::start(title, Unit::Items, debs.len() as u64));
        let queue = Mutex::new(debs.iter());
        let work = || -> Result<()> {
            // The queue is locked for the length of this statement only.
            while let Some(deb) = { lock(&queue).next() } {
                let file = self.archives().join(&deb.file);
                command::run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root))?;
                lock(&progress).advance();
            }
            Ok(())
        };
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        progress
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .finish();
        // The alternatives system would make this link; no maintainer script has run.
        if root.join("usr/bin/mawk").exists() && !root.join("usr/bin/awk").exists() {
            let link = root.join("usr/bin/awk");
            std::os::unix::fs::symlink("mawk", &link).map_err(Error::file("create", &link))?;
        }
        Ok(())
    }

    /// Writes dpkg's database into an unpacked root: `debs` are installed there. So dpkg in
    /// that root sees dependencies met; no maintainer script has run.
    ///
    /// # Errors
    /// [`Error::Command`] if a package is damaged, [`Error::Io`].
    pub fn write_database(&self, debs: &[Deb], root: &Path) -> Result<()> {
        let folder = root.join("var/lib/dpkg");
        for name in ["info", "updates", "triggers"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        }
        let mut status = String::new();
        for deb in debs {
            let file = self.archives().join(&deb.file);
            let fields = command::text(Command::new("dpkg-deb").arg("-f").arg(&file))?;
            let (first, rest) = fields.split_once('\n').unwrap_or((fields.as_str(), ""));
            status.push_str(&format!("{first}\nStatus: install ok installed\n{rest}\n"));
        }
        let path = folder.join("status");
        fs::write(&path, status).map_err(Error::file("write", &path))
    }

    /// Removes downloaded packages that are no longer needed.
    pub fn forget(&self, debs: &[Deb]) {
        for deb in debs {
            // One that stays costs space and nothing else.
            let _ = fs::remove_file(self.archives().join(&deb.file));
        }
    }

    fn archives(&self) -> PathBuf {
        self.folder.with_file_name("archives")
    }

    /// Bytes in the archive folder, unfinished downloads included.
    fn downloaded(&self) -> u64 {
        let archives = self.archives();
        [archives.join("partial"), archives]
            .iter()
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .map(|facts| facts.len())
            .sum()
    }

    /// Runs apt, telling `tell` now and then how many bytes there are.
    fn run_watching(&self, mut apt: Command, mut tell: impl FnMut(u64)) -> Result<()> {
        let log_path = self.folder.join("apt.log");
        let log = fs::File::create(&log_path).map_err(Error::file("create", &log_path))?;
        let errors = log.try_clone().map_err(Error::file("open", &log_path))?;
        apt.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = apt
            .spawn()
            .map_err(|source| command::unstartable(&apt, source))?;
        loop {
            let status = child.try_wait().map_err(Error::io("wait for apt-get"))?;
            tell(self.downloaded());
            match status {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    let said = fs::read_to_string(&log_path).unwrap_or_default();
                    return Err(command::failed(&apt, &status.to_string(), &said));
                }
                None => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// `apt-get` or `apt-cache` with the private configuration. It is read last (`-c`),
    /// after the machine's own, which it overrides.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.join("apt.conf"));
        if let Some(arch) = self.machine {
            command
                .arg("-o")
                .arg(format!("APT::Architecture={}", arch.debian()));
        }
        command
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn configuration(&self, host: Arch) -> String {
        let folder = self.folder.display();
        let mut text = String::new();
        for hook in HOOKS.iter().chain(&REPLACED) {
            text.push_str(&format!("#clear {hook};\n"));
        }
        for (name, value) in [
            ("Dir::State", folder.to_string()),
            ("Dir::State::Lists", format!("{folder}/lists/")),
            ("Dir::State::status", format!("{folder}/status")),
            ("Dir::Cache", folder.to_string()),
            (
                "Dir::Cache::archives",
                format!("{}/", self.archives().display()),
            ),
            ("Dir::Etc::SourceList", format!("{folder}/sources.list")),
            ("Dir::Etc::SourceParts", format!("{folder}/none/")),
            (
                "Dir::Etc::Preferences",
                format!("{folder}/none/preferences"),
            ),
            ("Dir::Etc::PreferencesParts", format!("{folder}/none/")),
            ("APT::Architecture", host.debian().to_owned()),
            ("APT::Default-Release", self.suite.preferred().to_owned()),
            // Empty: downloads run as the current user, who owns these folders.
            ("APT::Sandbox::User", String::new()),
            ("APT::Keep-Downloaded-Packages", "true".to_owned()),
            ("Debug::NoLocking", "true".to_owned()),
            ("Acquire::Check-Valid-Until", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::PDiffs", "false".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
        ] {
            text.push_str(&format!("{name} \"{value}\";\n"));
        }
        let names = self.architectures.iter();
        let names: String = names.map(|name| format!("\"{name}\"; ")).collect();
        text.push_str(&format!("APT::Architectures {{ {names}}};\n"));
        text
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits a name into text and numbers, so that 7.2.9 sorts before 7.2.12.
#[must_use]
pub fn natural_key(name: &str) -> Vec<(String, u64)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text_end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (text, after) = rest.split_at(text_end);
        let number_end = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        let (number, after) = after.split_at(number_end);
        key.push((text.to_owned(), number.parse().unwrap_or(0)));
        rest = after;
    }
    key
}

/// `'URI' FILE SIZE HASH`, as `--print-uris` prints it.
fn parse_uri_line(line: &str) -> Option<Deb> {
    let mut words = line.strip_prefix('\'')?.split_whitespace().skip(1);
    let file = words.next()?.to_owned();
    let size = words.next()?.parse().ok()?;
    // A file name that leads elsewhere would be a trick; apt itself prints none.
    (!file.contains('/')).then_some(Deb { file, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_line_gives_file_and_size() {
        let line = "'http://m/pool/main/b/busybox_1.38_arm64.deb' busybox_1%3a1.38-3+b1_arm64.deb \
                    887012 SHA256:00";
        let deb = parse_uri_line(line).unwrap();
        assert_eq!(
            (deb.file.as_str(), deb.size),
            ("busybox_1%3a1.38-3+b1_arm64.deb", 887_012)
        );
        assert_eq!(deb.record(), "busybox 1:1.38-3+b1 arm64");
        assert_eq!(parse_uri_line("Reading package lists..."), None);
        assert_eq!(parse_uri_line("'http://m/x' ../../x 1 SHA256:00"), None);
    }

    #[test]
    fn versions_sort_as_numbers() {
        let mut names = [
            "linux-7.2.12+deb14",
            "linux-7.2.9+deb14",
            "linux-7.10.1+deb14",
        ];
        names.sort_by_key(|name| natural_key(name));
        assert_eq!(
            names,
            [
                "linux-7.2.9+deb14",
                "linux-7.2.12+deb14",
                "linux-7.10.1+deb14"
            ]
        );
    }
}
