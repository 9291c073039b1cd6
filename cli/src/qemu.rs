//! QEMU on this machine: search for it and its firmware, and its process.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use varia_facts::Arch;

/// The first version with `vfio-user-pci`.
const NEEDED: (u32, u32) = (10, 1);

/// Paths of UEFI firmware for arm64 guests on the known distributions.
pub(crate) const FIRMWARE: [&str; 5] = [
    "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    "/usr/share/AAVMF/AAVMF_CODE.fd",
    "/usr/share/edk2/aarch64/QEMU_EFI.fd",
    "/usr/share/qemu/edk2-aarch64-code.fd",
    "/usr/share/edk2-armvirt/aarch64/QEMU_EFI.fd",
];

/// Reason why QEMU can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("can't start {}: {error}: install QEMU {}.{} or newer, or name it with --qemu", path.display(), NEEDED.0, NEEDED.1)]
    Missing {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is QEMU {found}, and vfio-user needs {}.{}: install a newer QEMU (on Debian from backports), or name it with --qemu", path.display(), NEEDED.0, NEEDED.1)]
    TooOld { path: PathBuf, found: String },
    #[error("no UEFI firmware for aarch64 at {}: install it (on Debian, qemu-efi-aarch64), or name it with --bios", FIRMWARE.join(", "))]
    NoFirmware,
}

/// QEMU for an architecture, new enough.
pub(crate) fn find(arch: Arch, named: Option<&Path>) -> Result<PathBuf, Error> {
    let path = named.map_or_else(|| format!("qemu-system-{arch}").into(), Path::to_owned);
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .map_err(|error| Error::Missing {
            path: path.clone(),
            error,
        })?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(found) if found >= NEEDED => Ok(path),
        _ => Err(Error::TooOld {
            path,
            found: text.lines().next().unwrap_or("of no version").into(),
        }),
    }
}

/// The version in `QEMU emulator version 11.1.2 (Debian ...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split("version ").nth(1)?.split(['.', ' ', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Firmware for an arm64 guest.
pub(crate) fn firmware() -> Result<PathBuf, Error> {
    FIRMWARE
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or(Error::NoFirmware)
}

/// QEMU's process as the target of a signal to stop, which may come before the process is there.
#[derive(Default)]
pub(crate) struct Target {
    process: OnceLock<OwnedFd>,
    is_stopped: AtomicBool,
}

impl Target {
    /// Sets the process, and stops it if the signal was first.
    pub(crate) fn set(&self, child: &Child) -> io::Result<()> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let _ = self.process.set(process);
        if self.is_stopped.load(Ordering::SeqCst) {
            self.stop();
        }
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let Some(process) = self.process.get() else {
            return;
        };
        if let Err(error) = pidfd_send_signal(process, Signal::TERM) {
            log::error!("can't stop QEMU: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            version("QEMU emulator version 11.1.2 (Debian 1:11.1.2+ds-3)\n"),
            Some((11, 1))
        );
        assert_eq!(version("QEMU emulator version 10.0\n"), Some((10, 0)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn a_missing_qemu_is_named_with_the_remedy() {
        let error = find(Arch::Aarch64, Some(Path::new("/nonexistent/qemu"))).expect_err("missing");
        let text = error.to_string();
        assert!(
            text.contains("/nonexistent/qemu") && text.contains("10.1"),
            "{text}"
        );
    }
}
