//! A machine's files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use varia_core::{ConfigRegister, Device};
use varia_spec::{
    nvidia::{self, chip},
    pci::header,
};

use super::{Machine, aml, domain};
use crate::{Options, Silicon, profile};

/// A file's bytes, or where a symbolic link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(Vec<u8>),
    /// A symbolic link.
    Link(String),
    /// A folder that may be empty.
    Folder,
}

/// Entries by path, from the root and without a leading slash. Folders on the way are implied.
pub type Files = BTreeMap<String, Entry>;

/// The kernel that runs on these machines.
const RELEASE: &str = "6.17.9-64k";
/// Grace's root port.
const ROOT_PORT: (u16, u16, u32) = (nvidia::VENDOR_ID, 0x22b2, 0x06_04_00);
/// An NVMe drive.
const DRIVE: (u16, u16, u32) = (0x144d, 0xa80a, 0x01_08_02);
/// `IORESOURCE_MEM | PREFETCH | MEM_64`, and the bits that pci sets beside them.
const RESOURCE_FLAGS: u64 = 0x14_220c;
/// Other vendors in the host's pci.ids.
const VENDORS: &str = "144d  Samsung Electronics Co Ltd\n\ta80a  NVMe SSD Controller\n";
/// Memory-less nodes that firmware sets aside for each GPU.
const NODES_PER_GPU: u32 = 8;

/// A machine's files.
pub(super) fn of(machine: &Machine) -> io::Result<Files> {
    let mut tree = Builder {
        files: Files::new(),
        next_group: 0,
    };
    tree.system(machine);
    tree.nodes(machine);
    let mut ssdt = Vec::new();
    for gpu in 0..machine.sockets * machine.gpus {
        tree.gpu(machine, gpu, &mut ssdt)?;
    }
    for drive in 0..machine.drives {
        tree.drive(drive);
    }
    for driver in ["nvidia", "nvme", "pcieport"] {
        tree.folder(&format!("sys/bus/pci/drivers/{driver}"));
    }
    let tables = "sys/firmware/acpi/tables";
    tree.file(&format!("{tables}/DSDT"), aml::table(b"DSDT", &[]));
    if !ssdt.is_empty() {
        tree.file(&format!("{tables}/SSDT1"), aml::table(b"SSDT", &ssdt));
    }
    Ok(tree.files)
}

/// Writes files below a folder.
pub(super) fn write(files: &Files, root: &Path) -> io::Result<()> {
    for (path, entry) in files {
        let path = root.join(path);
        if let (Some(folder), true) = (path.parent(), *entry != Entry::Folder) {
            fs::create_dir_all(folder)?;
        }
        match entry {
            Entry::File(bytes) => fs::write(path, bytes)?,
            Entry::Link(target) => std::os::unix::fs::symlink(target, path)?,
            Entry::Folder => fs::create_dir_all(path)?,
        }
    }
    Ok(())
}

struct Builder {
    files: Files,
    next_group: u32,
}

/// A function as sysfs shows it.
struct Function<'a> {
    /// Folder names from the root bus down.
    path: &'a [String],
    id: (u16, u16, u32),
    subsystem: (u16, u16),
    revision: u8,
    driver: Option<&'a str>,
    node: i64,
    resource: String,
}

impl Builder {
    fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files
            .insert(path.to_owned(), Entry::File(bytes.into()));
    }

    fn text(&mut self, path: &str, text: impl std::fmt::Display) {
        self.file(path, format!("{text}\n"));
    }

    fn link(&mut self, path: &str, target: String) {
        self.files.insert(path.to_owned(), Entry::Link(target));
    }

    fn folder(&mut self, path: &str) {
        self.files.insert(path.to_owned(), Entry::Folder);
    }

    fn system(&mut self, machine: &Machine) {
        self.text("proc/sys/kernel/osrelease", RELEASE);
        self.text(
            "proc/cmdline",
            "BOOT_IMAGE=/vmlinuz root=UUID=0 iommu.passthrough=0 default_hugepagesz=512M",
        );
        // Neoverse V2
        self.text(
            "sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
            "0x00000000410fd4f0",
        );
        let total = u64::from(machine.sockets) * machine.memory / 1024;
        let available = total / 10 * 9;
        self.text(
            "proc/meminfo",
            format!("MemTotal: {total} kB\nMemAvailable: {available} kB"),
        );
        let last = machine.sockets * machine.cpus - 1;
        self.text("sys/devices/system/cpu/online", format!("0-{last}"));
        let (vendor, product) = machine.product;
        self.text("sys/class/dmi/id/sys_vendor", vendor);
        self.text("sys/class/dmi/id/product_name", product);
        self.text("sys/class/dmi/id/product_serial", "1234567890123");
        for socket in 0..machine.sockets {
            let address = 0x1100_0000_u64 + u64::from(socket) * 0x1000_0000_0000;
            self.folder(&format!("sys/class/iommu/smmu3.{address:#018x}"));
        }
        let modules = format!("lib/modules/{RELEASE}");
        let mut aliases = vec![
            "# Aliases extracted from modules themselves.".to_owned(),
            "alias pci:v000010DEd*sv*sd*bc03sc02i00* nvidia".to_owned(),
            "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci".to_owned(),
        ];
        let mut names = format!("{VENDORS}10de  NVIDIA Corporation\n\t22b2  Grace PCIe root port");
        for (chip, sku) in chip::skus() {
            let device = sku.device.value;
            if sku.released {
                aliases.push(format!(
                    "alias vfio_pci:v000010DEd{device:08X}sv*sd*bc*sc*i* {}",
                    chip.driver().name()
                ));
            }
            names += &format!("\n\t{device:04x}  {}", sku.name);
        }
        self.text(&format!("{modules}/modules.alias"), aliases.join("\n"));
        self.text("usr/share/misc/pci.ids", names);
        self.text(
            &format!("{modules}/modules.dep"),
            [
                "kernel/drivers/vfio/vfio.ko.zst:",
                "kernel/drivers/vfio/pci/vfio-pci.ko.zst: kernel/drivers/vfio/vfio.ko.zst",
                "kernel/drivers/vfio/pci/vfio-pci-core.ko.zst: kernel/drivers/vfio/vfio.ko.zst",
                "kernel/drivers/vfio/vfio_iommu_type1.ko.zst: kernel/drivers/vfio/vfio.ko.zst",
                "kernel/drivers/vfio/pci/nvgrace-gpu/nvgrace-gpu-vfio-pci.ko.zst:",
            ]
            .join("\n"),
        );
        self.text(
            &format!("boot/config-{RELEASE}"),
            "CONFIG_VFIO=m\nCONFIG_VFIO_PCI=m\nCONFIG_IOMMUFD=m\nCONFIG_ARM64_64K_PAGES=y\n\
             CONFIG_ARM_SMMU_V3=y\nCONFIG_KVM=y\nCONFIG_NVGRACE_GPU_VFIO_PCI=m\n\
             CONFIG_VFIO_IOMMU_TYPE1=m\nCONFIG_VFIO_DEVICE_CDEV=y\nCONFIG_HUGETLBFS=y\n\
             CONFIG_NUMA=y\nCONFIG_NODES_SHIFT=6",
        );
        let asked = format!(
            "{{\"arch\":\"aarch64\",\"page_size\":{},\"memlock\":\"unlimited\",\
             \"vfio_container\":true,\"iommufd\":true,\"kvm\":{{\"present\":true,\
             \"cacheable_pfnmap\":true,\"ipa_bits\":48,\"max_vcpus\":512}}}}",
            machine.page
        );
        self.text("varia/asked.json", asked);
        self.programs();
    }

    /// What QEMU and libvirt would say of themselves.
    fn programs(&mut self) {
        let has = |name: &str| format!("{{\"name\":\"{name}\",\"present\":true}}");
        let features = [
            "acpi-generic-initiator",
            "arm-smmuv3.accel",
            "arm-smmuv3.ats",
            "arm-smmuv3.ssidsize",
            "iommufd",
            "vfio-pci",
            "vfio-user-pci",
            "virt.highmem-mmio-size",
        ];
        let features: Vec<_> = features.map(has).into();
        let programs = format!(
            "{{\"vmm\":{{\"qemu\":{{\"path\":\"qemu-system-aarch64\",\"version\":\"11.1.2\",\
             \"features\":[{}]}},\"libvirt\":{{\"version\":\"12.8.0\"}}}}}}",
            features.join(",")
        );
        self.text("varia/programs.json", programs);
    }

    /// A node for each socket, then those of each GPU, without memory and without CPUs.
    fn nodes(&mut self, machine: &Machine) {
        let gpus = machine.sockets * machine.gpus;
        let all = machine.sockets + gpus * NODES_PER_GPU;
        let socket_of = |node: u32| match node.checked_sub(machine.sockets) {
            None => node,
            Some(below) => below / NODES_PER_GPU / machine.gpus.max(1),
        };
        for node in 0..all {
            let folder = format!("sys/devices/system/node/node{node}");
            let socket = node < machine.sockets;
            let cpus = match socket {
                true => format!("{}-{}", node * machine.cpus, (node + 1) * machine.cpus - 1),
                false => String::new(),
            };
            self.text(&format!("{folder}/cpulist"), cpus);
            let memory = if socket { machine.memory / 1024 } else { 0 };
            self.text(
                &format!("{folder}/meminfo"),
                format!(
                    "Node {node} MemTotal:       {memory} kB\nNode {node} MemFree:        {} kB",
                    memory / 10 * 9
                ),
            );
            let distances: Vec<_> = (0..all)
                .map(|other| match (node, other) {
                    (node, other) if node == other => "10",
                    (node, other) if socket_of(node) != socket_of(other) => "120",
                    (node, other) if node < machine.sockets || other < machine.sockets => "80",
                    _ => "100",
                })
                .collect();
            self.text(&format!("{folder}/distance"), distances.join(" "));
            if socket {
                // the sizes of a kernel with pages of 64 KiB
                for (kib, count) in [(2 << 10, 0), (512 << 10, 64), (16 << 20, 0)] {
                    let pool = format!("{folder}/hugepages/hugepages-{kib}kB");
                    self.text(&format!("{pool}/nr_hugepages"), count);
                    self.text(&format!("{pool}/free_hugepages"), count);
                }
            }
        }
        let initiators = match gpus {
            0 => String::new(),
            _ => format!("{}-{}", machine.sockets, all - 1),
        };
        self.text("sys/devices/system/node/has_generic_initiator", initiators);
    }

    fn gpu(&mut self, machine: &Machine, gpu: u32, ssdt: &mut Vec<u8>) -> io::Result<()> {
        let Some(chip) = machine.chip else {
            return Ok(());
        };
        let profile = profile::find(chip).map_err(io::Error::other)?;
        let domain = domain(gpu);
        let root = format!("pci{domain}:00");
        let port = format!("{domain}:00:00.0");
        let bdf = format!("{domain}:01:00.0");
        let socket = i64::from(gpu / machine.gpus.max(1));
        self.function(&Function {
            path: &[root.clone(), port.clone()],
            id: ROOT_PORT,
            subsystem: (0, 0),
            revision: 0,
            driver: Some("pcieport"),
            node: socket,
            resource: String::new(),
        });
        let mut resource = [(0_u64, 0_u64, 0_u64); 6];
        let mut address = 0x4_0000_0000_0000_u64 + u64::from(gpu) * 0x100_0000_0000;
        for bar in profile.bars.iter().map(|bar| bar.value) {
            let size = bar.spec.size;
            address = address.next_multiple_of(size);
            if let Some(line) = resource.get_mut(usize::from(bar.index)) {
                *line = (address, address + size - 1, RESOURCE_FLAGS);
            }
            address += size;
        }
        let first_node = machine.sockets + gpu * NODES_PER_GPU;
        let node = if machine.own_nodes {
            i64::from(first_node)
        } else {
            socket
        };
        let folder = self.function(&Function {
            path: &[root, port, bdf],
            id: (
                nvidia::VENDOR_ID,
                profile.device_id.value,
                profile.class.value,
            ),
            subsystem: (nvidia::VENDOR_ID, profile.subsystem_id.value),
            revision: profile.revision.value,
            driver: Some("nvidia"),
            node,
            resource: resource
                .iter()
                .map(|(first, last, flags)| format!("{first:#018x} {last:#018x} {flags:#018x}\n"))
                .collect(),
        });
        // enough for the configuration space; the memory is never touched
        let silicon = Silicon::new(profile, Options::default()).map_err(io::Error::other)?;
        let config: Vec<u8> = (header::VENDOR_ID..0x1000)
            .step_by(4)
            .flat_map(|at| {
                let register = ConfigRegister::dword(at);
                silicon
                    .config_read(register)
                    .unwrap_or(u32::MAX)
                    .to_le_bytes()
            })
            .collect();
        self.file(&format!("{folder}/config"), config);
        self.file(&format!("{folder}/vpd"), *b"SN1234567890123");
        let segment = format!("PC{gpu:02X}");
        self.text(
            &format!("{folder}/firmware_node/path"),
            format!("\\_SB_.{segment}.RP00.GPU0"),
        );
        let path = ["_SB_", &segment, "RP00", "GPU0"];
        if let Some(memory) = &profile.coherent {
            let base = memory.base.value.0 + u64::from(gpu) * 0x1000_0000_0000;
            let properties = [
                (nvidia::property::MEM_BASE_PA, base),
                (nvidia::property::MEM_SIZE, memory.size.value),
                (nvidia::property::MEM_PXM_START, u64::from(first_node)),
                (nvidia::property::MEM_PXM_COUNT, u64::from(NODES_PER_GPU)),
            ];
            ssdt.extend(aml::properties(&path, &properties));
        }
        Ok(())
    }

    fn drive(&mut self, drive: u32) {
        // 32 drives on a root bus, 255 root buses in a domain
        let domain = 0x1000 + drive / (32 * 255);
        let bus = drive / 32 % 255;
        let slot = drive % 32;
        self.function(&Function {
            path: &[
                format!("pci{domain:04x}:{bus:02x}"),
                format!("{domain:04x}:{bus:02x}:{slot:02x}.0"),
            ],
            id: DRIVE,
            subsystem: (0x144d, 0xa801),
            revision: 0,
            driver: Some("nvme"),
            node: -1,
            resource: String::new(),
        });
    }

    /// Adds a function; its folder.
    fn function(&mut self, function: &Function<'_>) -> String {
        let Some(bdf) = function.path.last() else {
            return String::new();
        };
        let place = function.path.join("/");
        let folder = format!("sys/devices/{place}");
        let up = "../".repeat(function.path.len());
        let (vendor, device, class) = function.id;
        let (subsystem_vendor, subsystem_device) = function.subsystem;
        let numbers = [
            ("vendor", format!("{vendor:#06x}")),
            ("device", format!("{device:#06x}")),
            ("subsystem_vendor", format!("{subsystem_vendor:#06x}")),
            ("subsystem_device", format!("{subsystem_device:#06x}")),
            ("class", format!("{class:#08x}")),
            ("revision", format!("{:#04x}", function.revision)),
            ("numa_node", function.node.to_string()),
            ("driver_override", "(null)".to_owned()),
            (
                "modalias",
                format!(
                    "pci:v{vendor:08X}d{device:08X}sv{subsystem_vendor:08X}\
                     sd{subsystem_device:08X}bc{:02X}sc{:02X}i{:02X}",
                    class >> 16,
                    class >> 8 & 0xff,
                    class & 0xff
                ),
            ),
        ];
        for (name, value) in numbers {
            self.text(&format!("{folder}/{name}"), value);
        }
        self.file(&format!("{folder}/resource"), function.resource.as_bytes());
        if let Some(driver) = function.driver {
            let target = format!("{up}../bus/pci/drivers/{driver}");
            self.link(&format!("{folder}/driver"), target);
        }
        let group = self.next_group;
        self.next_group += 1;
        let groups = format!("sys/kernel/iommu_groups/{group}");
        self.text(&format!("{groups}/type"), "DMA");
        self.link(
            &format!("{groups}/devices/{bdf}"),
            format!("../../../../devices/{place}"),
        );
        self.link(
            &format!("{folder}/iommu_group"),
            format!("{up}../kernel/iommu_groups/{group}"),
        );
        self.link(
            &format!("sys/bus/pci/devices/{bdf}"),
            format!("../../../devices/{place}"),
        );
        folder
    }
}
