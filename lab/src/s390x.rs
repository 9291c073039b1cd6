//! A machine of type s390x that runs a script and is switched off: it has no agent, since the lab
//! builds no programs for that architecture.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use varia_debian::packages::{self, Set, Tree};

use crate::error::{LabError, Result};
use crate::initramfs::Archive;
use crate::kernel::read_module;
use crate::qemu::Qemu;

/// Debian's name of the kernel.
const FLAVOUR: &str = "s390x";
/// Programs and libraries: their place in the packages, and in the machine.
const PROGRAMS: [(&str, &str); 6] = [
    ("/usr/bin/busybox", "bin/busybox"),
    ("/usr/bin/perl", "bin/perl"),
    ("/usr/lib/s390x-linux-gnu/ld64.so.1", "lib/ld64.so.1"),
    ("/usr/lib/s390x-linux-gnu/libc.so.6", "lib/libc.so.6"),
    ("/usr/lib/s390x-linux-gnu/libm.so.6", "lib/libm.so.6"),
    (
        "/usr/lib/s390x-linux-gnu/libcrypt.so.1",
        "lib/libcrypt.so.1",
    ),
];
/// Time between two looks at a machine that runs.
const POLL: Duration = Duration::from_millis(100);

/// A machine with 1 GiB of memory and one processor.
#[derive(Debug)]
pub struct Machine {
    tree: Tree,
    initramfs: Archive,
    arguments: Vec<String>,
}

impl Machine {
    /// A machine with busybox and Perl whose first process is the script `init`.
    ///
    /// # Errors
    /// Those of [`packages::ensure`], [`LabError::Io`].
    pub fn new(init: &str) -> Result<Self> {
        let tree = packages::ensure(Set::S390x)?;
        let mut initramfs = Archive::new();
        for (path, place) in PROGRAMS {
            let path = tree.path(path);
            let bytes = fs::read(&path).map_err(LabError::file("read", &path))?;
            initramfs.file(place, 0o755, &bytes);
        }
        for folder in ["dev", "proc", "sys"] {
            initramfs.folder(folder);
        }
        initramfs.symlink("bin/sh", "busybox");
        initramfs.file("init", 0o755, init.as_bytes());
        Ok(Self {
            tree,
            initramfs,
            arguments: Vec::new(),
        })
    }

    /// Adds a file.
    #[must_use]
    pub fn file(mut self, path: &str, contents: &str) -> Self {
        self.initramfs.file(path, 0o644, contents.as_bytes());
        self
    }

    /// Adds a module of the kernel as `NAME.ko` in the root folder. `path` is the module's below the
    /// kernel's folder, without its ending, such as `drivers/vfio/vfio`.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn module(mut self, path: &str) -> Result<Self> {
        let file = kernel(&self.tree, &format!("kernel/{path}.ko.xz"));
        let name = path.rsplit('/').next().unwrap_or(path);
        let bytes = read_module(&file)?;
        self.initramfs.file(&format!("{name}.ko"), 0o644, &bytes);
        Ok(self)
    }

    /// Adds a device, as QEMU's `-device`.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        self.arguments
            .extend(["-device", device].map(str::to_owned));
        self
    }

    /// Text of the console once the machine has switched itself off.
    ///
    /// # Errors
    /// [`LabError::Description`] with the console if QEMU fails or runs for longer than `limit`; errors
    /// of the file system.
    pub fn run(self, limit: Duration) -> Result<String> {
        let folder = tempfile::tempdir().map_err(LabError::io("make a temporary folder"))?;
        let initramfs = folder.path().join("initramfs");
        let archive = self.initramfs.finish();
        fs::write(&initramfs, archive).map_err(LabError::file("write", &initramfs))?;
        let console = folder.path().join("console");
        let program = self.tree.path("/usr/bin/qemu-system-s390x");
        let mut command = Qemu::fetched(program)?.command();
        command.args(["-machine", "s390-ccw-virtio", "-m", "1G", "-smp", "1"]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial"]);
        command.arg(format!("file:{}", console.display()));
        command.arg("-kernel").arg(kernel(&self.tree, "vmlinuz"));
        // only what ends the kernel: the console is for the script
        command.args(["-append", "loglevel=2"]);
        command.arg("-initrd").arg(&initramfs);
        command.args(&self.arguments).stderr(Stdio::piped());
        let mut qemu = command.spawn().map_err(LabError::io("start QEMU"))?;
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = qemu.try_wait().map_err(LabError::io("wait for QEMU"))? {
                break Some(status);
            }
            if started.elapsed() > limit {
                break None;
            }
            std::thread::sleep(POLL);
        };
        let text = fs::read(&console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        if ended.is_some_and(|status| status.success()) {
            return Ok(text);
        }
        // the machine's end is what is asked for, whatever it was
        let _ = qemu.kill();
        let mut said = String::new();
        if let Some(mut stderr) = qemu.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        let _ = qemu.wait();
        let end = ended.map_or_else(|| format!("ran for {limit:?}"), |status| status.to_string());
        Err(LabError::Description(format!(
            "a machine of type s390x: QEMU {end}: {said}\n{text}"
        )))
    }
}

/// A file of the kernel: the image, or one below the folder of modules.
fn kernel(tree: &Tree, name: &str) -> PathBuf {
    let release = tree.kernel_release(FLAVOUR);
    tree.path("/usr/lib/modules").join(release).join(name)
}
