//! QEMU's arguments for a VM with vfio-user GPUs.
//!
//! Source: the QEMU 10.1 and 11.1 manuals (`vfio-user-pci`, `acpi-generic-initiator`, the virt and
//! q35 machines).

use std::{fmt, str::FromStr};

use crate::coherent::{CoherentMemory, Error, aperture};

/// The aperture that the virt machine has by itself, in bytes.
const VIRT_DEFAULT_APERTURE: u64 = 512 << 30;

/// A guest architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    /// arm64: what a Grace host runs.
    Aarch64,
    /// x86-64.
    X86_64,
}

impl Arch {
    /// QEMU's name of it, as in `qemu-system-NAME`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aarch64 => "aarch64",
            Self::X86_64 => "x86_64",
        }
    }

    /// The console that a Linux guest has on QEMU's first serial port.
    pub const fn console(self) -> &'static str {
        match self {
            Self::Aarch64 => "ttyAMA0",
            Self::X86_64 => "ttyS0",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "aarch64" | "arm64" => Ok(Self::Aarch64),
            "x86_64" | "amd64" => Ok(Self::X86_64),
            other => Err(format!(
                "unknown architecture {other:?}: use aarch64 or x86_64"
            )),
        }
    }
}

/// A machine with GPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The guest's architecture.
    pub arch: Arch,
    /// Virtual CPUs, all on node 0.
    pub cpus: u32,
    /// RAM in MiB, all on node 0 and shared with the GPUs' servers.
    pub ram_mib: u64,
    /// The GPUs and their nodes.
    pub gpus: Vec<CoherentMemory>,
}

impl Machine {
    /// Machine type, CPUs, RAM, NUMA nodes, devices and Generic Initiators; no firmware, kernel,
    /// disk or console.
    pub fn arguments(&self) -> Result<Vec<String>, Error> {
        let mut args = Vec::new();
        let mut push = |option: &str, value: String| args.extend([format!("-{option}"), value]);
        match self.arch {
            Arch::Aarch64 => {
                let mmio = aperture(&self.gpus)?.max(VIRT_DEFAULT_APERTURE);
                push(
                    "machine",
                    format!("virt,gic-version=3,highmem-mmio-size={}G", mmio >> 30),
                );
                push("cpu", "max,pauth-impdef=on".into());
            }
            Arch::X86_64 => {
                push("machine", "q35".into());
                push("cpu", "max".into());
            }
        }
        push("smp", self.cpus.to_string());
        push("m", format!("{}M", self.ram_mib));
        push(
            "object",
            format!(
                "memory-backend-memfd,id=ram0,size={}M,share=on",
                self.ram_mib
            ),
        );
        push(
            "numa",
            format!("node,nodeid=0,cpus=0-{},memdev=ram0", self.cpus.max(1) - 1),
        );
        for node in self.gpus.iter().flat_map(|gpu| gpu.nodes.clone()) {
            push("numa", format!("node,nodeid={node}"));
        }
        for (slot, gpu) in self.gpus.iter().enumerate() {
            let id = &gpu.device.id;
            push(
                "device",
                format!("pcie-root-port,id={id}.port,chassis={}", slot + 1),
            );
            push("device", device(gpu));
            for initiator in initiators(gpu) {
                push("object", initiator);
            }
        }
        Ok(args)
    }
}

/// The Generic Initiator objects that tie a GPU's nodes to its PCI function, one for each node.
pub fn initiators(gpu: &CoherentMemory) -> impl Iterator<Item = String> {
    let id = &gpu.device.id;
    gpu.nodes.clone().map(move |node| {
        format!("acpi-generic-initiator,id={id}.gi{node},pci-dev={id},node={node}")
    })
}

/// The device in QEMU's JSON form, which is the only one that takes a socket.
fn device(gpu: &CoherentMemory) -> String {
    let id = &gpu.device.id;
    serde_json::json!({
        "driver": "vfio-user-pci",
        "id": id,
        "bus": format!("{id}.port"),
        "socket": { "type": "unix", "path": gpu.device.socket.to_string_lossy() },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coherent::{VfioUserGpu, assign};

    fn machine(arch: Arch, socket: &str) -> Machine {
        let bars = vec![1 << 30, 128 << 30];
        let gpu = VfioUserGpu {
            id: "gpu0".into(),
            socket: socket.into(),
            bars,
        };
        let gpus = assign(vec![gpu], 8).expect("nine nodes");
        Machine {
            arch,
            cpus: 2,
            ram_mib: 2048,
            gpus,
        }
    }

    fn count(args: &[String], what: &str) -> usize {
        args.iter().filter(|arg| arg.starts_with(what)).count()
    }

    #[test]
    fn a_gpu_comes_with_eight_nodes_and_as_many_initiators() {
        for arch in [Arch::Aarch64, Arch::X86_64] {
            let args = machine(arch, "/run/gpu0").arguments().expect("a plan");
            assert_eq!(count(&args, "node,nodeid="), 9);
            assert_eq!(count(&args, "acpi-generic-initiator,"), 8);
            assert!(
                args.contains(&"acpi-generic-initiator,id=gpu0.gi8,pci-dev=gpu0,node=8".into())
            );
        }
    }

    #[test]
    fn the_arm64_aperture_holds_bar4() {
        let args = machine(Arch::Aarch64, "/run/gpu0")
            .arguments()
            .expect("a plan");
        assert!(
            args.contains(&"virt,gic-version=3,highmem-mmio-size=512G".into()),
            "{args:?}"
        );
    }

    #[test]
    fn a_socket_path_is_quoted() {
        let args = machine(Arch::X86_64, "/tmp/a \"b\\\n")
            .arguments()
            .expect("a plan");
        let device = args
            .iter()
            .find(|arg| arg.contains("vfio-user-pci"))
            .expect("the device");
        assert!(device.contains(r#""path":"/tmp/a \"b\\\n""#), "{device}");
    }
}
