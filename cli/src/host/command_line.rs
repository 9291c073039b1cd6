//! QEMU's command line for a host.

use std::path::{Path, PathBuf};

use varia_plan::BareHostPlan;

use super::image::Format;
use crate::args::BareHostArgs;

/// Time that QEMU waits for a reply of a GPU, in milliseconds: a busy machine may take long.
const REPLY_TIMEOUT: u32 = 60_000;

/// What QEMU's arguments need besides the plan.
pub(crate) struct Setup<'a> {
    pub(crate) args: &'a BareHostArgs,
    pub(crate) format: Format,
    pub(crate) port: Option<u16>,
    pub(crate) console: &'a Path,
    pub(crate) early: &'a Path,
}

impl Setup<'_> {
    /// All of QEMU's arguments.
    pub(crate) fn arguments(&self, planned: &BareHostPlan, files: &[PathBuf]) -> Vec<String> {
        let early = self.early.to_string_lossy();
        let mut words: Vec<_> = planned
            .arguments(files, &early)
            .into_iter()
            .flat_map(|argument| [argument.option.to_owned(), argument.value])
            .collect();
        let mut option = |name: &str, value: String| words.extend([format!("-{name}"), value]);
        // A comma in a file name is doubled in QEMU's options.
        let path = |path: &Path| path.to_string_lossy().replace(',', ",,");
        option("display", "none".to_owned());
        option(
            "global",
            format!("driver=vfio-user-pci,property=x-msg-timeout,value={REPLY_TIMEOUT}"),
        );
        let console = path(self.console);
        let chardev = match self.args.wait_ready {
            true => format!("file,id=console,path={console}"),
            // Ctrl-C ends QEMU, and this process with it
            false => format!("stdio,id=console,signal=on,logfile={console}"),
        };
        option("chardev", chardev);
        option("serial", "chardev:console".to_owned());
        let snapshot = if self.args.snapshot {
            ",snapshot=on"
        } else {
            ""
        };
        // "ubuntu:24.04.img" alone would name a protocol
        let disk = match self.args.disk.is_absolute() {
            true => self.args.disk.clone(),
            false => Path::new(".").join(&self.args.disk),
        };
        let (file, format) = (path(&disk), self.format.name());
        option(
            "drive",
            format!("if=none,id=disk,file={file},format={format}{snapshot}"),
        );
        option("device", "virtio-blk-pci,drive=disk,bus=pcie.0".to_owned());
        let forward = self
            .port
            .map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:22"));
        option(
            "netdev",
            format!("user,id=net{}", forward.unwrap_or_default()),
        );
        option(
            "device",
            "virtio-net-pci,netdev=net,bus=pcie.0,romfile=".to_owned(),
        );
        option("device", "virtio-rng-pci,bus=pcie.0".to_owned());
        words.push("-nodefaults".to_owned());
        words.extend(self.args.qemu_arg.iter().cloned());
        words
    }
}
