//! Made-up hosts with the device nodes and registers that the plugin looks at.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use varia_facts::Bdf;
use varia_linux::Tree;
use varia_linux::bind::{Host, State};
use varia_node::{Machine, Node, Settings};
use varia_silicon::machine::Machine as Description;

use crate::played::Played;

/// Variant driver of the GPUs.
pub(crate) const VARIANT: &str = "nvgrace_gpu_vfio_pci";
/// Readiness registers in BAR0, and their value when the memory can be used.
const REGISTERS: [u64; 2] = [0x1498, 0x2_00bc];
const READY: u32 = 0xff;

/// A made-up host.
pub(crate) struct Made {
    pub(crate) played: Played,
    gpus: Vec<Bdf>,
    /// Reason why users of devices are not seen.
    pub(crate) unseen: Option<String>,
    pub(crate) gate: Arc<Gate>,
}

/// Gate before every change of drivers, open at first.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    waiting: usize,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.state.lock().unwrap().is_closed = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().is_closed = false;
        self.changed.notify_all();
    }

    /// Number of threads before the gate.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        let mut state = self
            .changed
            .wait_while(state, |state| state.is_closed)
            .unwrap();
        state.waiting -= 1;
    }
}

impl Machine for Made {
    fn tree(&self) -> &Tree {
        self.played.tree()
    }

    fn unseen(&self) -> Option<String> {
        let seen = varia_linux::users::unseen(self.tree());
        self.unseen.clone().or(seen)
    }

    fn locked(&mut self, act: &mut dyn FnMut(&mut dyn Host)) -> io::Result<()> {
        self.gate.pass();
        act(&mut self.played);
        Ok(())
    }
}

/// Files of a made-up host, which change while a plugin has the host.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) root: PathBuf,
}

impl Made {
    /// A host whose GPUs have the host's own driver.
    pub(crate) fn unbound(machine: &Description) -> Self {
        let mut played = Played::of(machine);
        let gpus: Vec<Bdf> = machine
            .gpus()
            .iter()
            .map(|bdf| bdf.parse().unwrap())
            .collect();
        let files = Files {
            root: played.root().to_owned(),
        };
        files.put("dev/vfio/vfio", "");
        for group in 0..4 * gpus.len() {
            files.put(&format!("dev/vfio/{group}"), "");
        }
        for bdf in &gpus {
            files.ready(*bdf, true);
            // the command register: memory enabled
            let config = files.function(*bdf).join("config");
            let mut bytes = fs::read(&config).unwrap();
            bytes[4] |= 2;
            fs::write(config, bytes).unwrap();
        }
        let variant = played.root().join("sys/bus/pci/drivers").join(VARIANT);
        fs::create_dir_all(variant).unwrap();
        played.kill_never();
        Self {
            played,
            gpus,
            unseen: None,
            gate: Arc::default(),
        }
    }

    /// A host whose GPUs are bound to the variant driver.
    pub(crate) fn bound(machine: &Description) -> Self {
        let mut made = Self::unbound(machine);
        for bdf in made.gpus() {
            made.played.set(bdf, Some(VARIANT), Some(VARIANT));
        }
        made
    }

    pub(crate) fn gpus(&self) -> Vec<Bdf> {
        self.gpus.clone()
    }

    pub(crate) fn files(&self) -> Files {
        Files {
            root: self.played.root().to_owned(),
        }
    }

    pub(crate) fn driver(&self, bdf: Bdf) -> Option<String> {
        State::of(self.played.tree(), bdf).and_then(|state| state.driver)
    }
}

impl Files {
    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn function(&self, bdf: Bdf) -> PathBuf {
        self.root.join(format!("sys/bus/pci/devices/{bdf}"))
    }

    /// Puts values into the readiness registers.
    pub(crate) fn ready(&self, bdf: Bdf, is_ready: bool) {
        use std::os::unix::fs::FileExt;

        let bar0 = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.function(bdf).join("resource0"))
            .unwrap();
        bar0.set_len(1 << 24).unwrap();
        let value: u32 = if is_ready { READY } else { 0 };
        for register in REGISTERS {
            bar0.write_all_at(&value.to_le_bytes(), register).unwrap();
        }
    }

    /// Takes a function out of the machine, or puts it back.
    pub(crate) fn is_there(&self, bdf: Bdf, is_there: bool) {
        let (link, kept) = (self.function(bdf), self.root.join(format!("kept-{bdf}")));
        let (from, to) = if is_there { (kept, link) } else { (link, kept) };
        let target = fs::read_link(&from).unwrap();
        fs::remove_file(from).unwrap();
        symlink(target, to).unwrap();
    }

    /// Binds a function to a driver.
    pub(crate) fn bind(&self, bdf: Bdf, driver: &str) {
        let link = self.function(bdf).join("driver");
        let _ = fs::remove_file(&link);
        symlink(format!("../../../../bus/pci/drivers/{driver}"), link).unwrap();
    }

    /// Lets a process open a file, or end.
    pub(crate) fn open(&self, path: Option<&str>) {
        self.use_by(4711, path);
    }

    /// Lets a process of this number open a file, or end.
    pub(crate) fn use_by(&self, pid: usize, path: Option<&str>) {
        let process = self.root.join(format!("proc/{pid}"));
        match path {
            None => fs::remove_dir_all(process).unwrap(),
            Some(path) => {
                fs::create_dir_all(process.join("fd")).unwrap();
                fs::write(process.join("comm"), "qemu\n").unwrap();
                symlink(path, process.join("fd/7")).unwrap();
            }
        }
    }
}

/// Settings of the tests: what takes time is told, and not waited for.
pub(crate) fn settings(binds: bool) -> Settings {
    Settings {
        binds,
        release_after: Duration::from_secs(30),
        ..Settings::default()
    }
}

pub(crate) fn node(made: Made, binds: bool) -> Node<Made> {
    Node::new(made, settings(binds)).unwrap()
}

/// Addresses as the kubelet has them.
pub(crate) fn ids(devices: &[Bdf]) -> Vec<String> {
    devices.iter().map(Bdf::to_string).collect()
}
