//! A device that is plugged and unplugged in QEMU over QMP while the guest runs.

use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;
use varia_lab::{HANG, Result, Running, Vm};
use varia_serve::View;
use varia_silicon::profile::{self, Body};
use varia_silicon::{Options, Profile};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::qmp::Connection;

const GIB: u64 = 1 << 30;
/// usemem 512 MiB, resmem 1 GiB, each behind a BAR of its size.
const MEMORY: u64 = GIB + (512 << 20);
const IDS: [&str; 2] = ["0x10de", "0x2342"];

/// A port of a machine that can be plugged, and the machine's monitor.
pub(crate) struct Port {
    folder: TempDir,
}

impl Port {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn monitor(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    /// Gives a machine the port, with a window for the GPU's BARs, and a monitor.
    pub(crate) fn of(&self, vm: Vm) -> Vm {
        let qmp = format!("unix:{},server=on,wait=off", self.monitor().display());
        let port = "pcie-root-port,id=hot0,bus=pcie.0,chassis=9,pref64-reserve=8G";
        vm.qemu_args(["-qmp", &qmp, "-device", port])
    }

    /// Plugs and unplugs GPUs that are served. The guest lives, and sees the ids and the sizes of the
    /// BARs as long as a GPU is there; a server is free for the next client afterwards.
    ///
    /// QEMU up to 11.1 ends when a vfio-user device with MSI-X is unplugged
    /// (`memory_region_del_subregion`, of the PBA, once the BAR is gone). So the GPU that is
    /// unplugged has none.
    pub(crate) fn gpus_come_and_go(&self, vm: &Running) -> Result<()> {
        let gh200 = profile::find("gh200").expect("a profile of the catalogue");
        let mut without = gh200.clone();
        let is_msix = |body: &Body| matches!(body, Body::MessageX { .. });
        without.capabilities.retain(|one| !is_msix(&one.value.body));
        assert!(without.capabilities.len() < gh200.capabilities.len());

        let mut monitor = Connection::open(&self.monitor());
        let devices = vm.list("/sys/bus/pci/devices")?;
        let gpu = serve(&without);
        for _ in 0..2 {
            plug(vm, &mut monitor, &gpu, &devices)?;
            monitor
                .ask("device_del", &json!({ "id": "gpu" }))
                .expect("QEMU unplugs it");
            until(vm, |names| (names == devices).then_some(()))?;
            let begin = Instant::now();
            while is_there(&mut monitor) {
                assert!(begin.elapsed() < HANG, "QEMU keeps the device");
            }
        }
        let gpu = serve(gh200);
        plug(vm, &mut monitor, &gpu, &devices)?;
        // before the GPU ends
        assert_eq!(vm.sh("echo alive")?, "alive");
        Ok(())
    }
}

fn serve(profile: &Profile) -> Gpu {
    let options = Options {
        memory: Some(MEMORY),
        ..Options::default()
    };
    Gpu::serve(profile, View::Virtual, options).expect("a server")
}

/// Plugs a GPU into a guest that has these devices, and waits until the guest sees the GPU.
fn plug(vm: &Running, monitor: &mut Connection, gpu: &Gpu, devices: &[String]) -> Result<()> {
    let device = json!({
        "driver": "vfio-user-pci", "id": "gpu", "bus": "hot0",
        "socket": { "type": "unix", "path": gpu.socket() },
    });
    // QEMU keeps the connection of an unplugged device for a moment
    let begin = Instant::now();
    while let Err(why) = monitor.ask("device_add", &device) {
        assert!(why.contains("busy") && begin.elapsed() < HANG, "{why}");
    }
    let name = until(vm, |names| {
        let mut names = names.iter();
        names.find(|name| !devices.contains(name)).cloned()
    })?;
    let folder = format!("/sys/bus/pci/devices/{name}");
    let ids = vm.sh(&format!("cat {folder}/vendor {folder}/device"))?;
    assert_eq!(ids.split_whitespace().collect::<Vec<_>>(), IDS);
    let resources = vm.read_text(&format!("{folder}/resource"))?;
    let sizes: Vec<u64> = resources.lines().map(size).collect();
    assert_eq!((sizes[2], sizes[4]), (GIB, GIB / 2), "{resources}");
    Ok(())
}

/// Names of the guest's PCI functions, once `found` finds something in them.
fn until<T>(vm: &Running, found: impl Fn(&[String]) -> Option<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        let names = vm.list("/sys/bus/pci/devices")?;
        if let Some(found) = found(&names) {
            return Ok(found);
        }
        assert!(begin.elapsed() < HANG, "{names:?}");
    }
}

/// QEMU still has the device.
fn is_there(monitor: &mut Connection) -> bool {
    let path = json!({ "path": "/machine/peripheral" });
    let list = monitor.ask("qom-list", &path).expect("a list of devices");
    let mut devices = list.as_array().into_iter().flatten();
    devices.any(|device| device["name"] == "gpu")
}

/// Size of a line of `resource`: first address, last address, flags.
fn size(line: &str) -> u64 {
    let mut words = line.split(' ');
    let mut number = || {
        let word = words.next()?.strip_prefix("0x")?;
        u64::from_str_radix(word, 16).ok()
    };
    match (number(), number()) {
        (Some(0), Some(0)) | (None, _) | (_, None) => 0,
        (Some(first), Some(last)) => last - first + 1,
    }
}
