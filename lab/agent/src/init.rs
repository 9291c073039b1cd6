//! Duties of a machine's first process: mounts, modules, power-off.
//!
//! The initramfs is the root file system for as long as the machine lives; there is no
//! disk and no service manager. What can't be done is collected and told to the lab,
//! rather than being fatal: the lab decides.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

use crate::HANG;
use crate::wire::{BOOT_PLAN_PATH, BootPlan, ModuleFile, PORT_NAME, Share};

/// Mounts what every machine has, and carries the boot plan out.
///
/// Returns the plan and what went wrong on the way.
#[must_use]
pub fn bring_up() -> (BootPlan, Vec<String>) {
    let mut troubles = Vec::new();
    for (kind, target) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("debugfs", "/sys/kernel/debug"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
    ] {
        note(&mut troubles, mount_at(kind, target, kind, ""), || {
            format!("mount {target}")
        });
    }
    note(&mut troubles, install_busybox(), || {
        "busybox --install".to_owned()
    });
    let plan = match read_plan() {
        Ok(plan) => plan,
        Err(error) => {
            troubles.push(format!("{BOOT_PLAN_PATH}: {error}"));
            BootPlan::default()
        }
    };
    for module in &plan.modules {
        note(&mut troubles, load(module), || {
            format!("load {}", module.path)
        });
    }
    for share in &plan.shares {
        note(&mut troubles, mount_share(share), || {
            format!("mount share {}", share.tag)
        });
    }
    (plan, troubles)
}

/// Loads a module; one that is already there is fine.
///
/// # Errors
/// Error of the kernel, whose log usually says more.
pub fn load(module: &ModuleFile) -> io::Result<()> {
    let file = File::open(&module.path)?;
    let parameters = CString::new(module.parameters.as_str())?;
    match finit_module(file, &parameters, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Mounts a file system, creating the mount point; an empty `kind` is a recursive bind.
///
/// # Errors
/// Error of the system.
pub fn mount_at(source: &str, target: &str, kind: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = CString::new(options)?;
    if kind.is_empty() {
        rustix::mount::mount_bind_recursive(source, target)?;
    } else {
        let flags = if options
            .as_bytes()
            .split(|&c| c == b',')
            .any(|word| word == b"ro")
        {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        let options: Vec<u8> = options
            .as_bytes()
            .split(|&c| c == b',')
            .filter(|word| *word != b"ro")
            .collect::<Vec<_>>()
            .join(&b',');
        let options = CString::new(options)?;
        mount(source, target, kind, flags, options.as_c_str())?;
    }
    Ok(())
}

/// Opens the channel's port; waits for the port's device node up to [`HANG`].
///
/// # Errors
/// `NotFound` if no port of that name appears, else why it can't be opened.
pub fn open_port() -> io::Result<File> {
    let deadline = Instant::now() + HANG;
    loop {
        if let Some(node) = find_port() {
            return File::options().read(true).write(true).open(node);
        }
        if Instant::now() >= deadline {
            let message = format!("no virtio-serial port is called {PORT_NAME}");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Switches the machine off; returns only if the kernel refuses.
pub fn power_off() -> io::Error {
    rustix::fs::sync();
    match reboot(RebootCommand::PowerOff) {
        Ok(()) => io::Error::other("the kernel came back from power-off"),
        Err(errno) => errno.into(),
    }
}

/// Runs a shell on the console until the person leaves it.
///
/// # Errors
/// Reason why the shell can't be started.
pub fn shell() -> io::Result<()> {
    // The serial port by its own name: /dev/console can't be a controlling terminal.
    let active = fs::read_to_string("/sys/class/tty/console/active")?;
    let port = Path::new("/dev").join(active.split_whitespace().last().unwrap_or("console"));
    let open = || File::options().read(true).write(true).open(&port);
    Command::new("/bin/busybox")
        .args(["setsid", "-c", "/bin/sh", "-l"])
        .env("HOME", "/root")
        .env("TERM", "vt100")
        .stdin(open()?)
        .stdout(open()?)
        .stderr(open()?)
        .status()
        .map(|_| ())
}

fn find_port() -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports").ok()?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let node = Path::new("/dev").join(entry.file_name());
        if name.trim_end() == PORT_NAME && node.exists() {
            return Some(node);
        }
    }
    None
}

fn install_busybox() -> io::Result<()> {
    for directory in ["/bin", "/sbin", "/usr/bin", "/usr/sbin"] {
        fs::create_dir_all(directory)?;
    }
    let status = Command::new("/bin/busybox")
        .args(["--install", "-s"])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}

fn read_plan() -> io::Result<BootPlan> {
    let text = fs::read(BOOT_PLAN_PATH)?;
    Ok(serde_json::from_slice(&text)?)
}

fn mount_share(share: &Share) -> io::Result<()> {
    let options = "ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose";
    mount_at(&share.tag, &share.path, "9p", options)
}

/// Reads at most `limit` bytes of a file from `offset`, until its end.
///
/// # Errors
/// Error of the system.
pub fn read_part(path: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn note(troubles: &mut Vec<String>, result: io::Result<()>, what: impl FnOnce() -> String) {
    if let Err(error) = result {
        troubles.push(format!("{}: {error}", what()));
    }
}
