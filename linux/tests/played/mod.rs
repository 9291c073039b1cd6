//! A machine with a simulated kernel: a directory with a sysfs, in which writes to `bind`, `unbind`
//! and `driver_override` have the kernel's effect.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use varia_facts::Bdf;
use varia_linux::Tree;
use varia_linux::bind::{Host, State};
use varia_silicon::Machine;
use varia_silicon::machine::GH200_X4;

/// Description of the simulated machine.
pub(crate) const MACHINE: Machine = Machine {
    sockets: 2,
    drives: 1,
    ..GH200_X4
};
const ETIMEDOUT: i32 = 110;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

/// Panic payload that ends a killed command.
pub(crate) struct Killed;

impl Killed {
    /// Result of a command; `None` if the command was killed.
    pub(crate) fn catch<T>(command: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(command)) {
            Ok(answer) => Some(answer),
            Err(payload) if payload.is::<Killed>() => None,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

/// The simulated machine.
pub(crate) struct Played {
    folder: TempDir,
    tree: Tree,
    refused: BTreeSet<(String, Bdf)>,
    installed: BTreeSet<String>,
    loaded: Vec<String>,
    writes: usize,
    steps: Cell<usize>,
    kill_at: Option<usize>,
    remove_after: Option<(usize, Bdf)>,
    is_full: bool,
    is_read_only: bool,
}

impl Played {
    /// Two GH200 and a drive, bound to `nvidia` and `nvme`.
    pub(crate) fn new() -> Self {
        Self::of(&MACHINE)
    }

    /// Another machine, with the drivers of its facts.
    pub(crate) fn of(machine: &Machine) -> Self {
        // memory is faster for many small files
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.unwrap();
        machine.write(folder.path()).unwrap();
        fs::create_dir(folder.path().join("saved")).unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let played = Self {
            tree,
            folder,
            refused: BTreeSet::new(),
            installed: ["nvgrace_gpu_vfio_pci", "vfio_pci"]
                .map(str::to_owned)
                .into(),
            loaded: Vec::new(),
            writes: 0,
            steps: Cell::new(0),
            kill_at: None,
            remove_after: None,
            is_full: false,
            is_read_only: false,
        };
        played.put("proc/sys/kernel/random/boot_id", "first\n");
        // no output for the kills
        std::panic::set_hook(Box::new(|info| {
            if !info.payload().is::<Killed>() {
                eprintln!("{info}");
            }
        }));
        played
    }

    /// Directory of the machine.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file anywhere.
    pub(crate) fn put(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Takes the properties of all devices out of the firmware's tables.
    pub(crate) fn forget_properties(&mut self) {
        let tables = self.root().join("sys/firmware/acpi/tables");
        let all = fs::read_dir(&tables).unwrap().map(|table| table.unwrap());
        let described: Vec<_> = all
            .filter(|table| table.file_name().to_string_lossy().starts_with("SSDT"))
            .collect();
        assert!(!described.is_empty());
        for table in described {
            fs::remove_file(table.path()).unwrap();
        }
    }

    /// Makes the machine a VM by its firmware.
    pub(crate) fn make_vm(&mut self) {
        self.put("sys/class/dmi/id/sys_vendor", "QEMU\n");
    }

    fn function(&self, bdf: Bdf) -> PathBuf {
        self.root().join(format!("sys/bus/pci/devices/{bdf}"))
    }

    pub(crate) fn state(&self, bdf: Bdf) -> State {
        State::of(&self.tree, bdf).unwrap()
    }

    pub(crate) fn set(&mut self, bdf: Bdf, driver: Option<&str>, wanted: Option<&str>) {
        self.file(bdf, "driver_override", wanted.unwrap_or("(null)"));
        let link = self.function(bdf).join("driver");
        let _ = fs::remove_file(&link);
        if let Some(driver) = driver {
            symlink(format!("../../../../bus/pci/drivers/{driver}"), link).unwrap();
        }
    }

    pub(crate) fn file(&mut self, bdf: Bdf, name: &str, text: &str) {
        fs::write(self.function(bdf).join(name), format!("{text}\n")).unwrap();
    }

    pub(crate) fn remove_file(&mut self, bdf: Bdf, name: &str) {
        fs::remove_file(self.function(bdf).join(name)).unwrap();
    }

    pub(crate) fn remove(&mut self, bdf: Bdf) {
        let place = fs::canonicalize(self.function(bdf)).unwrap();
        fs::remove_file(self.function(bdf)).unwrap();
        fs::remove_dir_all(place).unwrap();
    }

    /// Makes another function a member of this function's group.
    pub(crate) fn join_group(&mut self, bdf: Bdf, other: &str) {
        let group = self
            .tree
            .link_name(&format!("sys/bus/pci/devices/{bdf}/iommu_group"));
        let group = group.unwrap();
        let other_link = self
            .root()
            .join(format!("sys/bus/pci/devices/{other}/iommu_group"));
        fs::remove_file(&other_link).unwrap();
        symlink(format!("../../kernel/iommu_groups/{group}"), other_link).unwrap();
        let members = format!("sys/kernel/iommu_groups/{group}/devices/{other}");
        symlink(
            format!("../../../../bus/pci/devices/{other}"),
            self.root().join(members),
        )
        .unwrap();
    }

    /// Lets a process open a file.
    pub(crate) fn open(&mut self, path: &str) {
        self.put("proc/4711/comm", "qemu\n");
        fs::create_dir_all(self.root().join("proc/4711/fd")).unwrap();
        symlink(path, self.root().join("proc/4711/fd/7")).unwrap();
    }

    pub(crate) fn uninstall(&mut self, module: &str) {
        self.installed.remove(module);
    }

    pub(crate) fn refuse(&mut self, driver: &str, bdf: Bdf) {
        self.refused.insert((driver.to_owned(), bdf));
    }

    pub(crate) fn refuse_nothing(&mut self) {
        self.refused.clear();
    }

    pub(crate) fn loaded(&self) -> Vec<&str> {
        self.loaded.iter().map(String::as_str).collect()
    }

    /// Number of writes to sysfs so far.
    pub(crate) fn writes(&self) -> usize {
        self.writes
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn saved_folder(&self) -> PathBuf {
        self.root().join("saved")
    }

    pub(crate) fn saved_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.saved_folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    pub(crate) fn reboot(&mut self) {
        self.put("proc/sys/kernel/random/boot_id", "second\n");
        for bdf in MACHINE.gpus() {
            self.set(bdf.parse().unwrap(), Some("nvidia"), None);
        }
    }

    /// Kills the command before its next change, after `step` changes.
    pub(crate) fn kill_at(&mut self, step: usize) {
        self.steps.set(0);
        self.kill_at = Some(step);
    }

    pub(crate) fn kill_never(&mut self) {
        self.kill_at = None;
    }

    pub(crate) fn remove_after(&mut self, writes: usize, bdf: Bdf) {
        self.remove_after = Some((writes, bdf));
    }

    /// Lets the disk of the saved files be full, or not.
    #[allow(dead_code, reason = "the tests of `node` use it")]
    pub(crate) fn fill_disk(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Makes `/etc` read-only, or writable.
    #[allow(dead_code, reason = "the tests of `node` do not use it")]
    pub(crate) fn protect_configuration(&mut self, is_read_only: bool) {
        self.is_read_only = is_read_only;
    }

    fn is_killed_now(&self) -> bool {
        self.kill_at == Some(self.steps.get())
    }

    fn step(&self) {
        if self.is_killed_now() {
            panic_any(Killed);
        }
        self.steps.set(self.steps.get() + 1);
    }
}

impl Host for Played {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        self.step();
        let due = self
            .remove_after
            .filter(|(writes, _)| *writes == self.writes);
        if let Some((_, bdf)) = due {
            self.remove_after = None;
            self.remove(bdf);
        }
        self.writes += 1;
        let error = |errno| Err(io::Error::from_raw_os_error(errno));
        if let Some(folder) = path.strip_suffix("/driver_override") {
            let bdf: Bdf = folder.rsplit('/').next().unwrap().parse().unwrap();
            if !self.function(bdf).exists() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let text = text.trim();
            let text = if text.is_empty() { "(null)" } else { text };
            self.file(bdf, "driver_override", text);
            return Ok(());
        }
        if path.ends_with("/power/control") {
            return fs::write(self.root().join(path), text);
        }
        let bdf: Bdf = text.parse().unwrap();
        let (folder, verb) = path.rsplit_once('/').unwrap();
        let driver = folder.rsplit('/').next().unwrap().to_owned();
        if !self.root().join(folder).exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Some(now) = State::of(&self.tree, bdf) else {
            return error(ENODEV);
        };
        let wanted = now.driver_override.as_deref();
        match verb {
            "unbind" if now.driver.as_deref() == Some(&driver) => {
                self.set(bdf, None, wanted);
                Ok(())
            }
            "bind" if now.driver.is_some() => error(EBUSY),
            // only nvidia binds without driver_override
            "bind" if wanted.map_or(driver != "nvidia", |wanted| wanted != driver) => error(ENODEV),
            "bind" if self.refused.contains(&(driver.clone(), bdf)) => error(ETIMEDOUT),
            "bind" => {
                self.set(bdf, Some(&driver), wanted);
                Ok(())
            }
            _ => error(ENODEV),
        }
    }

    fn load(&mut self, module: &str) -> Result<(), String> {
        self.step();
        let module = module.replace('-', "_");
        if !self.installed.contains(&module) {
            return Err(format!("module {module} not found"));
        }
        let driver = if module == "vfio_pci" {
            "vfio-pci"
        } else {
            &module
        };
        let folder = self.root().join("sys/bus/pci/drivers").join(driver);
        fs::create_dir_all(folder).unwrap();
        self.loaded.push(module);
        Ok(())
    }

    fn saved(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.place(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.place(&format!("{name}.new"));
        if self.is_killed_now() {
            // in the middle of the write
            fs::write(&new, &bytes[..bytes.len() / 2]).unwrap();
        }
        self.step();
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        fs::write(&new, bytes)?;
        fs::rename(new, self.place(name))
    }

    fn forget(&mut self, name: &str) -> io::Result<()> {
        self.step();
        match fs::remove_file(self.place(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn configure(&mut self, path: &str, bytes: Option<&[u8]>) -> io::Result<()> {
        self.step();
        if self.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        match bytes {
            Some(bytes) => self.put(path, bytes),
            None => fs::remove_file(self.path(path))?,
        }
        Ok(())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.saved_folder().join(name)
    }
}
