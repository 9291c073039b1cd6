//! Each state of each check: one change of a host, or of a plan, where all is well.

use varia_facts::{
    BarKind, Bytes, GroupId, Kvm, Limit, Module, NodeId, PciFunction, PhysicalBar, Unread,
};
use varia_plan::{Backing, Firmware, Iommu, Kernel};

use crate::Severity::{self, Failure, NotApplicable, Ok, Unknown, Warning};

use super::{Case, GIB, NEIGHBOUR, VARIANT, bdf, function, gpu};

/// The vendor's driver has made the GPU's memory RAM of the host.
pub(super) fn online(case: &mut Case) {
    case.gpu().online = Some(varia_facts::OnlineMemory {
        nodes: vec![NodeId(2)],
        size: Bytes(95 * GIB),
    });
}

/// The check, whether there is a plan, what is changed, the severity that comes of it, and a part
/// of what is said or of what is to be done.
pub(super) type Row = (&'static str, bool, fn(&mut Case), Severity, &'static str);

// a row stays a row
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    ("files", false, |_| {}, Ok, "read and parsed"),
    ("files", false, |case| {
        case.facts.unread.push(Unread { path: "proc/meminfo".into(), why: "\"x\" is no list".into(), }) },
        Unknown, "is no list"),
    ("iommu", false, |_| {}, Ok, "smmu3.0x"),
    ("iommu", false, |case| case.facts.host.iommu.instances.clear(), Failure, "SMMU on"),
    ("iommu", false, |case| { case.x86(); case.facts.host.iommu.instances.clear(); },
        Failure, "intel_iommu=on"),
    ("smmu", false, |_| {}, Ok, "1 SMMUv3"),
    ("smmu", false, |case| case.facts.host.iommu.instances.clear(), NotApplicable, "no IOMMU"),
    ("smmu", false, Case::x86, NotApplicable, "x86_64"),
    ("smmu", false, |case| case.facts.host.iommu.instances.push("virtio".into()), Warning, "virtio"),
    ("nested-smmu", false, |_| {}, Ok, "/dev/iommu"),
    ("nested-smmu", false, Case::x86, NotApplicable, "x86_64"),
    ("nested-smmu", false, |case| case.facts.kernel.iommufd = None, Unknown, "/dev/iommu"),
    ("nested-smmu", false, |case| case.without_feature("arm-smmuv3.accel"), Warning, "accel"),
    ("nested-smmu", false, |case| case.without_feature("arm-smmuv3.ssidsize"), Warning, "ssidsize"),
    ("nested-smmu", true, |case| {
        case.plan().iommu = Iommu::Iommufd { smmu: true };
        case.config().remove("ARM_SMMU_V3_IOMMUFD");
    },
        Failure, "CONFIG_ARM_SMMU_V3_IOMMUFD"),
    ("command-line", false, |_| {}, Ok, "no word"),
    ("command-line", false, |case| { case.facts.kernel.cmdline = vec!["iommu.passthrough=1".into()]; },
        Ok, "iommu.passthrough=1"),
    ("command-line", false, |case| {
        case.x86();
        words(case, "iommu=pt intel_iommu=off", false);
    },
        Failure, "remove intel_iommu=off"),
    ("command-line", false, |case| { case.x86(); words(case, "iommu=noagp,off,pt", false); },
        Failure, "remove iommu=off"),
    ("command-line", false, |case| { case.x86(); words(case, "intel_iommu=on intel_iommu=sm_on,off", false); },
        Failure, "remove intel_iommu=off"),
    ("command-line", false, |case| { case.x86(); words(case, "intel_iommu=off intel_iommu=on,sm_on", false); },
        Ok, "intel_iommu=off intel_iommu=on,sm_on"),
    ("command-line", false, |case| { case.x86(); words(case, "amd_iommu=off iommu=pt,nopt", true); },
        Ok, "amd_iommu=off has no effect"),
    ("command-line", false, |case| { case.x86(); words(case, "iommu=nopt,pt", true); },
        Ok, "iommu=pt: the host's own"),
    ("command-line", false, |case| words(case, "intel_iommu=off", true), Ok, "no effect"),
    ("command-line", false, |case| words(case, "intel_iommu=off", false), Ok, "no effect"),
    ("unsafe-parameters", false, |_| {}, Ok, "no such parameter"),
    ("unsafe-parameters", false, |case| {
        let vfio = case.facts.kernel.modules.get_mut("vfio").expect("vfio");
        vfio.parameters.insert("enable_unsafe_noiommu_mode".into(), "Y".into());
    },
        Warning, "echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"),
    ("kernel-options", false, |_| {}, Ok, "/boot/config-6.17.9-64k"),
    ("kernel-options", false, |case| case.facts.kernel.config = None, Unknown, "/proc/config.gz"),
    ("kernel-options", false, |case| {
        case.config().retain(|name, _| name == "VFIO_PCI_DMABUF");
        case.facts.kernel.config_is_partial = true;
    },
        Unknown, "other options are not known"),
    ("kernel-options", false, |case| { case.config().remove("VFIO_DEVICE_CDEV"); },
        Warning, "CONFIG_VFIO_DEVICE_CDEV"),
    ("kernel-options", false, |case| { case.config().remove("ARM_SMMU_V3"); },
        Failure, "CONFIG_ARM_SMMU_V3"),
    ("kernel-options", false, |case| {
        case.config().remove("IOMMUFD");
        case.config().remove("VFIO_IOMMU_TYPE1");
    },
        Failure, "nothing maps"),
    ("kernel-options", false, Case::x86, Failure, "CONFIG_INTEL_IOMMU"),
    ("page-size", false, |_| {}, Ok, "64 KiB"),
    ("page-size", false, Case::x86, NotApplicable, "x86_64"),
    ("page-size", false, |case| case.facts.kernel.page_size = None, Unknown, "not read"),
    ("page-size", false, |case| case.facts.kernel.page_size = Some(Bytes(4096)), Warning, "4 KiB"),
    ("kvm", false, |_| {}, Ok, "512 CPUs"),
    ("kvm", false, |case| case.facts.kernel.kvm = Kvm::default(), Unknown, "/dev/kvm exists"),
    ("kvm", false, |case| case.facts.kernel.kvm.present = Some(false), Failure, "EL2"),
    ("kvm", false, |case| case.facts.kernel.kvm.error = Some("EACCES".into()), Failure, "EACCES"),
    ("cacheable-pfnmap", false, |_| {}, Ok, "KVM has it"),
    ("cacheable-pfnmap", false, Case::x86, NotApplicable, "x86_64"),
    ("cacheable-pfnmap", false, |case| { case.facts.kernel.kvm.present = Some(false); },
        NotApplicable, "no KVM on this CPU"),
    ("cacheable-pfnmap", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = None;
        case.facts.kernel.kvm.error = Some("EACCES".into());
    },
        Unknown, "EACCES"),
    ("cacheable-pfnmap", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = None;
        case.facts.kernel.release = Some("6.8.0-nvidia-64k".into());
    },
        Warning, "6.8.0-nvidia-64k"),
    ("cacheable-pfnmap", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = Some(false);
        case.facts.kernel.release = Some("6.16.3".into());
    },
        Failure, "Linux 6.17 or newer; this is 6.16.3"),
    ("cacheable-pfnmap", false, |case| { case.facts.kernel.kvm.cacheable_pfnmap = Some(false); },
        Failure, "CPU lacks"),
    ("cacheable-pfnmap", false, |case| { case.facts.kernel.kvm.cacheable_pfnmap = Some(false); },
        Failure, "which this CPU has: run varia doctor on the host itself"),
    ("cacheable-pfnmap", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = Some(false);
        case.facts.host.midr = Some(0x410f_d0c0);
    }, Failure, "use a host whose CPU has it"),
    ("stage-2-write-back", false, |_| {}, Ok, "KVM would not"),
    ("stage-2-write-back", false, |case| { case.facts.kernel.kvm.cacheable_pfnmap = Some(false); },
        Ok, "Neoverse V2"),
    ("stage-2-write-back", false, Case::x86, NotApplicable, "x86_64"),
    ("stage-2-write-back", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = None;
        case.facts.host.midr = Some(0x610f_d4f0);
    },
        Unknown, "0x610fd4f0"),
    ("stage-2-write-back", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = None;
        case.facts.host.midr = None;
    },
        Unknown, "dmesg"),
    ("stage-2-write-back", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = Some(false);
        case.facts.host.midr = Some(0x413f_d0c1);
    },
        Failure, "Neoverse N1"),
    ("stage-2-write-back", false, |case| {
        case.facts.kernel.kvm.cacheable_pfnmap = Some(false);
        case.facts.host.midr = Some(0x413f_d0c1);
        case.facts.functions.clear();
    },
        Warning, "Neoverse N1"),
    ("vfio-modules", false, |_| {}, Ok, "loaded or built in"),
    ("vfio-modules", false, |case| case.facts.kernel.modules.clear(), Unknown, "not known"),
    ("vfio-modules", false, |case| {
        case.facts.kernel.modules.get_mut("vfio_pci_core").expect("it") .loaded = false;
    },
        Warning, "modprobe vfio_pci_core"),
    ("vfio-modules", false, |case| { case.facts.kernel.modules.remove("vfio_pci_core"); },
        Failure, "not installed"),
    ("backend", false, |_| {}, Ok, "/dev/vfio/vfio and /dev/iommu"),
    ("backend", true, |_| {}, Ok, "/dev/vfio/vfio, which the plan uses"),
    ("backend", true, |case| case.plan().iommu = Iommu::None, NotApplicable, "no device"),
    ("backend", false, |case| case.facts.kernel.vfio_container = None, Unknown, "exist: run varia doctor"),
    ("backend", false, |case| { case.facts.kernel.vfio_container = Some(false); },
        Warning, "CONFIG_VFIO_PCI_DMABUF"),
    ("backend", true, |case| { case.facts.kernel.vfio_container = Some(false); },
        Failure, "modprobe -a vfio vfio_iommu_type1"),
    ("backend", true, |case| {
        case.plan().iommu = Iommu::Iommufd { smmu: false };
        case.facts.kernel.iommufd = Some(false);
    },
        Failure, "modprobe iommufd"),
    ("backend", false, |case| {
        case.facts.kernel.vfio_container = Some(false);
        case.facts.kernel.iommufd = Some(false);
    },
        Failure, "neither"),
    ("variant-driver", false, |_| {}, Ok, "the kernel's own"),
    ("variant-driver", false, |case| {
        let module = case.facts.kernel.modules.get_mut(VARIANT).expect("it");
        module.author = Some("The Varia developers".into());
        module.version = Some("0.1.0".into());
    },
        Ok, "Varia's, version 0.1.0"),
    ("variant-driver", false, |case| {
        let module = case.facts.kernel.modules.get_mut(VARIANT).expect("it");
        module.author = Some("Ankit Agrawal".into());
    },
        Ok, "the original, by Ankit Agrawal"),
    ("variant-driver", false, |case| {
        let egm = case.facts.kernel.modules.entry("nvgrace_egm".into()).or_default();
        egm.installed = true;
    },
        Ok, "the kernel's own"),
    ("variant-driver", false, |case| {
        let egm = case.facts.kernel.modules.entry("nvgrace_egm".into()).or_default();
        egm.installed = true;
        let module = case.facts.kernel.modules.get_mut(VARIANT).expect("it");
        module.author = Some("The Varia developers".into());
    },
        Warning, "which has EGM (nvgrace_egm)"),
    ("variant-driver", false, |case| {
        let egm = case.facts.kernel.modules.entry("nvgrace_egm".into()).or_default();
        egm.builtin = true;
        let module = case.facts.kernel.modules.get_mut(VARIANT).expect("it");
        module.taint = Some("OE".into());
    },
        Warning, "nvgrace-gpu-vfio-pci-dkms"),
    ("variant-driver", false, |case| case.facts.kernel.modules.clear(), Unknown, "not known"),
    ("variant-driver", false, |case| {
        case.facts.kernel.modules.get_mut(VARIANT).expect("it") .loaded = false;
    },
        Warning, "modprobe nvgrace-gpu-vfio-pci"),
    ("variant-driver", false, |case| {
        *case.facts.kernel.modules.get_mut(VARIANT).expect("it") = Module::default();
    },
        Failure, "./x kernel deb"),
    ("variant-driver", false, |case| {
        *case.facts.kernel.modules.get_mut(VARIANT).expect("it") = Module::default();
        case.facts.functions.clear();
    },
        NotApplicable, "not installed"),
    ("group", false, |_| {}, Ok, "group 1, alone"),
    ("group", false, |case| case.facts.functions.clear(), NotApplicable, "no device"),
    ("group", false, |case| case.facts.host.iommu.groups.clear(), Unknown, "group 1"),
    ("group", false, |case| case.gpu().iommu_group = None, Failure, "no IOMMU group"),
    ("group", false, |case| share(case, "snd_hda_intel"), Failure, "varia bind 0009:01:00.0 0009:01:00.1"),
    ("group", false, |case| { share(case, "nvme"); last(case).class = 0x01_08_02; },
        Failure, "may be on 0009:01:00.1"),
    ("group", false, |case| { share(case, "mlx5_core"); last(case).class = 0x02_00_00; },
        Failure, "may be on 0009:01:00.1"),
    ("group", false, |case| { share(case, "xhci_hcd"); last(case).open = Some(true); },
        Failure, "may be on 0009:01:00.1"),
    ("group", false, |case| { share(case, "xhci_hcd"); case.facts.functions.truncate(1); },
        Failure, "may be on 0009:01:00.1"),
    ("group", false, |case| share(case, "vfio-pci"), Ok, "with 1 other functions"),
    ("chip", false, |_| {}, Ok, "GH200, with coherent memory"),
    ("chip", false, |case| { plain(case); case.gpu().bars[0].address = None; }, Failure, "has no address"),
    ("variant-driver", false, |case| { plain(case); case.facts.kernel.modules.get_mut(VARIANT).expect("it").loaded = false; }, NotApplicable, "not loaded"),
    ("chip", false, plain, Ok, "H100, which has no coherent memory"),
    ("chip", false, |case| case.gpu().device = 0x2343, Unknown, "varia doctor --probe 0009:01:00.0"),
    ("chip", false, |case| case.gpu().class = 0x02_00_00, Ok, "GH200"),
    ("chip", false, |case| { case.gpu().device = 0x22a3; case.gpu().class = 0x06_80_00; }, NotApplicable, "not an NVIDIA data-centre GPU"),
    ("chip", false, |case| case.facts.functions.clear(), NotApplicable, "no device"),
    ("driver", false, |_| {}, Ok, "its best"),
    ("driver", false, plain, NotApplicable, "the best for a VM is vfio-pci"),
    ("driver", false, |case| case.gpu().best_driver = None, Ok, "its best"),
    ("driver", false, |case| {
        case.gpu().driver = Some("vfio-pci".into());
        case.gpu().best_driver = Some("vfio_pci".into());
    }, Failure, "the best is nvgrace_gpu_vfio_pci"),
    ("driver", false, |case| case.facts.functions.clear(), NotApplicable, "no device"),
    ("driver", false, |case| case.gpu().driver = Some("nvidia".into()), Warning, "varia bind 0009:01:00.0"),
    ("driver", false, |case| case.gpu().driver = None, Warning, "bound to no driver"),
    ("driver", true, |case| case.gpu().driver = Some("nvidia".into()), Failure, "nvidia; the best"),
    ("driver", false, |case| case.gpu().driver = Some("vfio-pci".into()), Failure, "no coherent memory"),
    ("kernel-options", false, |case| { case.config().remove("VFIO_PCI_DMABUF"); }, Ok, "without CONFIG_VFIO_PCI_DMABUF varia plan takes type1"),
    ("kernel-options", true, |case| {
        case.plan().iommu = Iommu::Iommufd { smmu: false };
        case.config().remove("VFIO_PCI_DMABUF");
    },
        Failure, "--iommu type1"),
    ("online-memory", false, |_| {}, Ok, "does not use"),
    ("online-memory", false, |case| case.facts.functions.clear(), NotApplicable, "no GPU"),
    ("online-memory", false, online, Warning, "95 GiB of its memory are online as RAM of the host, on node 2"),
    ("online-memory", true, online, Failure, "/sys/devices/system/node/node2/memory*/state"),
    ("firmware", false, |_| {}, Ok, "96 GiB at 0x400000000 (_DSD in SSDT1), 8 proximity domains"),
    ("firmware", false, |case| case.facts.functions.clear(), NotApplicable, "no GPU"),
    ("firmware", false, |case| { case.gpu().coherent_memory = None; case.gpu().acpi_path = None; },
        Unknown, "can't be seen from user space"),
    ("firmware", false, |case| {
        case.gpu().coherent_memory = None;
        let path = "sys/firmware/acpi/tables/DSDT".into();
        case.facts.unread.push(Unread { path, why: "Permission denied".into(), });
    },
        Unknown, "as root"),
    ("firmware", false, |case| case.gpu().coherent_memory = None, Failure, "nvidia,gpu-mem-base-pa"),
    ("firmware", false, |case| { case.gpu().coherent_memory.as_mut().expect("memory").size = Bytes(0); },
        Failure, "link to the CPU is down"),
    ("firmware", false, |case| {
        case.gpu().virtual_bars.clear();
        case.gpu().layout_note = Some("nothing usable".into());
    },
        Failure, "nothing usable"),
    ("firmware", false, |case| {
        case.gpu() .coherent_memory .as_mut().expect("memory") .pxm_start = None;
    },
        Warning, "pxm-start"),
    ("readiness", false, |_| {}, Ok, "is ready"),
    ("readiness", false, |case| case.gpu().ready = Some(false), Failure, "not ready"),
    ("readiness", false, |case| case.gpu().ready = None, NotApplicable, "varia doctor --probe 0009"),
    ("readiness", false, |case| {
        case.gpu().ready = None;
        case.gpu().unprobed = Some("it is in use by process 7".into());
    },
        Unknown, "process 7"),
    ("memory", false, |_| {}, Ok, "400 GiB of 480 GiB"),
    ("memory", false, |case| { case.facts.host.memory = None; case.facts.host.memory_available = None; },
        Unknown, "/proc/meminfo"),
    ("memory", true, |_| {}, NotApplicable, "hugepages"),
    ("memory", true, |case| on_pages(case, 400), Ok, "400 GiB of RAM free, and the plan needs 8 GiB"),
    ("memory", true, |case| on_pages(case, 7), Warning, "7 GiB of RAM free"),
    ("memory", true, |case| { on_pages(case, 0); case.facts.host.nodes[0].memory = Bytes(4 * GIB); },
        Failure, "has 4 GiB"),
    ("hugepages", false, |_| {}, Ok, "64 of 512 MiB, 64 free"),
    ("hugepages", false, |case| case.facts.host.nodes.clear(), Unknown, "/sys/devices/system/node"),
    ("hugepages", false, |case| case.facts.host.nodes[0].hugepages[0].total = 0,
        Warning, "echo 2 > /sys/kernel/mm/hugepages/hugepages-524288kB/nr_hugepages"),
    ("hugepages", false, |case| case.facts.host.nodes[0].hugepages.clear(), Warning, "CONFIG_HUGETLBFS"),
    ("hugepages", true, |_| {}, Ok, "the plan needs 16"),
    ("hugepages", true, |case| case.plan().sockets[0].backing = Backing::Pages,
        NotApplicable, "--hugepages"),
    ("hugepages", true, |case| case.facts.host.nodes[0].hugepages[0].free = 15,
        Failure, "echo 65 > /sys/devices/system/node/node0/hugepages/hugepages-524288kB/nr_hugepages"),
    ("hugepages", true, |case| {
        case.facts.host.nodes[0].hugepages[0].free = 0;
        case.plan().sockets[0].host_node = None;
    },
        Failure, "echo 80 > /sys/kernel/mm/hugepages/hugepages-524288kB/nr_hugepages"),
    ("hugepages", true, |case| case.facts.host.nodes[0].hugepages.clear(),
        Failure, "no hugepages of 512 MiB"),
    ("memlock", false, |_| {}, Ok, "no limit"),
    ("memlock", true, |case| limit(case, 8 * GIB), Ok, "8 GiB, enough"),
    ("memlock", false, |case| case.facts.host.memlock = None, Unknown, "not read"),
    ("memlock", false, |case| limit(case, 64 << 10), Warning, "ulimit -l unlimited"),
    ("memlock", true, |case| limit(case, 8 * GIB - 1), Failure, "the plan's RAM is 8 GiB"),
    ("numa", false, |_| {}, Ok, "node 0, CPUs 0-71"),
    ("numa", false, |case| case.gpu().numa_node = Some(NodeId(3)),
        Ok, "node 3 without CPUs; the nearest node with CPUs is 0"),
    ("numa", false, |case| case.facts.functions.clear(), NotApplicable, "no device"),
    ("numa", false, |case| case.gpu().numa_node = None, Warning, "names no node"),
    ("numa", false, |case| case.gpu().numa_node = Some(NodeId(99)), Warning, "node 99"),
    ("numa", false, |case| { case.gpu().numa_node = Some(NodeId(3)); case.gpu().cpu_node = None; },
        Warning, "no CPUs"),
    ("node-ids", false, |_| {}, Ok, "8 nodes with Generic Initiators"),
    ("node-ids", true, |_| {}, Ok, "9 nodes, and this kernel has room for 64"),
    ("node-ids", true, |case| { case.config().insert("NODES_SHIFT".into(), "3".into()); },
        Warning, "CONFIG_NODES_SHIFT=4"),
    ("node-ids", false, |case| case.facts.host.nodes.truncate(4),
        Warning, "sets 8 nodes aside for GPUs, and the kernel shows 3"),
    ("node-ids", false, |case| case.facts.host.nodes.truncate(4), Warning, "SRAT"),
    ("node-ids", false, |case| {
        case.facts.host.nodes.truncate(8);
        case.config().insert("NODES_SHIFT".into(), "3".into());
    },
        Warning, "CONFIG_NODES_SHIFT=4"),
    ("node-ids", false, |case| case.facts.host.nodes.clear(), Unknown, "/sys/devices/system/node"),
    ("node-ids", false, |case| case.facts.functions.clear(), NotApplicable, "no node"),
    ("aperture", false, |_| {}, Ok, "512 GiB for 1 GPU;"),
    ("aperture", false, |case| case.facts.functions.clear(), NotApplicable, "no GPU"),
    ("aperture", false, plain, Ok, "512 GiB for 1 GPU;"),
    ("aperture", false, |case| { plain(case); case.facts.kernel.kvm.ipa_bits = Some(38); }, Failure, "38 bits"),
    ("aperture", false, |case| case.gpu().virtual_bars.clear(), Unknown, "not known"),
    ("aperture", false, |case| case.facts.kernel.kvm.ipa_bits = None, Unknown, "width"),
    ("aperture", false, |case| case.facts.kernel.kvm.ipa_bits = Some(39), Failure, "39 bits"),
    ("aperture", true, |_| {}, Ok, "ends at 1 TiB"),
    ("aperture", true, |case| case.plan().gpus.clear(), NotApplicable, "no GPU"),
    ("aperture", true, |case| case.facts.kernel.kvm.ipa_bits = None, Unknown, "width"),
    ("aperture", true, |case| case.facts.kernel.kvm.ipa_bits = Some(39), Failure, "39 bits"),
    ("aperture", true, |case| case.plan().aperture = Bytes(128 * GIB), Failure, "plan again"),
    ("aperture", true, |case| {
        case.plan().aperture = Bytes(1024 * GIB);
        case.without_feature("virt.highmem-mmio-size");
    },
        Failure, "no highmem-mmio-size"),
    ("qemu", false, |_| {}, Ok, "11.1.2 (/usr/bin/qemu-system-aarch64)"),
    ("qemu", false, |case| case.facts.vmm.qemu = None, Unknown, "QEMU was not queried"),
    ("qemu", false, |case| without_qemu(case, "qemu"), Failure, "10.1 or newer"),
    ("qemu", false, |case| case.qemu().version = "8.2.2".into(), Failure, "8.2.2"),
    ("qemu", false, |case| case.qemu().version = "9.2.0".into(), Warning, "vfio-user-pci"),
    ("qemu", false, |case| case.qemu().version = "of today".into(), Unknown, "of today"),
    ("qemu-features", false, |_| {}, Ok, "acpi-generic-initiator"),
    ("qemu-features", true, |_| {}, Ok, "acpi-generic-initiator"),
    ("qemu-features", false, |case| case.facts.vmm.qemu = None, Unknown, "see qemu"),
    ("qemu-features", false, |case| {
        case.qemu().features.clear();
        case.facts .vmm .unknown.insert("qemu-features".into(), "no answer".into());
    },
        Unknown, "no answer"),
    ("qemu-features", false, |case| case.without_feature("iommufd"), Warning, "/dev/iommu"),
    ("qemu-features", false, |case| case.without_feature("acpi-generic-initiator"),
        Failure, "memory-less nodes"),
    ("qemu-features", true, |case| case.without_feature("vfio-pci"), Failure, "the plan uses it"),
    ("libvirt", false, |_| {}, Ok, "12.8.0"),
    ("libvirt", false, |case| case.facts.vmm.libvirt = None, Unknown, "libvirt was not queried"),
    ("libvirt", false, |case| without_qemu(case, "libvirt"), NotApplicable, "--vmm libvirt"),
    ("libvirt", false, |case| { case.facts.vmm.libvirt.as_mut().expect("it").version = "9.0.0".into(); },
        Warning, "older than 12.8"),
    ("libvirt", false, |case| { case.facts.vmm.libvirt.as_mut().expect("it").version = "new".into(); },
        Unknown, "new"),
    ("plan-devices", false, |_| {}, NotApplicable, "no plan"),
    ("plan-devices", true, |_| {}, Ok, "BARs of the plan"),
    ("plan-devices", true, |case| case.facts.functions.clear(), Failure, "no such function"),
    ("plan-devices", true, |case| case.gpu().open = Some(true), Failure, "in use by a process"),
    ("plan-devices", true, |case| {
        case.gpu().open = Some(true);
        case.gpu().user = Some("process 7 (qemu)".to_owned());
    }, Failure, "process 7"),
    ("plan-devices", true, |case| case.gpu().virtual_bars.clear(), Unknown, "not known"),
    ("plan-devices", true, |case| case.gpu().virtual_bars[1].size = Bytes(2 * GIB), Failure, "BAR2 2 GiB"),
    ("plan-cpus", false, |_| {}, NotApplicable, "no plan"),
    ("plan-cpus", true, |_| {}, Ok, "4 CPUs"),
    ("plan-cpus", true, |case| case.plan().sockets[0].pins.clear(), NotApplicable, "no CPU"),
    ("plan-cpus", true, |case| case.facts.host.cpus = "".parse().expect("none"), Unknown, "online"),
    ("plan-cpus", true, |case| case.facts.host.cpus = "0-2".parse().expect("three"),
        Failure, "for cpu in 3; do"),
    ("plan-cpus", true, |case| case.facts.kernel.kvm.max_vcpus = Some(3), Failure, "KVM takes 3"),
    ("plan-files", false, |_| {}, NotApplicable, "no plan"),
    ("plan-files", true, |_| {}, Ok, "exists"),
    ("plan-files", true, |case| case.files.clear(), Unknown, "was not checked"),
    ("plan-files", true, |case| { case.files.insert("/disk.qcow2".into(), false); },
        Failure, "qemu-efi-aarch64"),
    ("plan-files", true, |case| boot(case, "/absent", None), Failure, "/absent"),
    ("plan-files", true, |case| boot(case, "/disk.qcow2", Some("/absent")), Failure, "/absent"),
    ("plan-files", true, |case| { case.plan().firmware = Firmware::Own; case.plan().disks.clear(); },
        NotApplicable, "names no files"),
    ("aperture", false, |case| {
        let second = PciFunction { bdf: bdf("0019:01:00.0"), ..gpu() };
        case.facts.functions.push(second);
        case.facts.kernel.kvm.ipa_bits = Some(40);
    }, Warning, "at most 1 GPU"),
];

/// Makes the GPU an H100, which has no coherent memory.
fn plain(case: &mut Case) {
    let bar = |index, size| PhysicalBar {
        index,
        address: Some(varia_facts::HostPhys(u64::from(index) << 40)),
        size: Bytes(size),
        kind: BarKind::Memory64,
        prefetchable: true,
    };
    let gpu = case.gpu();
    gpu.device = 0x2330;
    gpu.driver = Some("nvidia".into());
    gpu.best_driver = Some("vfio-pci".into());
    (gpu.variant, gpu.coherent_memory) = (None, None);
    gpu.virtual_bars.clear();
    gpu.bars = vec![bar(0, 16 << 20), bar(2, 128 * GIB), bar(4, 32 << 20)];
}

/// Gives the GPU's group another member.
fn share(case: &mut Case, driver: &str) {
    case.facts.functions.push(PciFunction {
        driver: Some(driver.to_owned()),
        iommu_group: Some(GroupId(1)),
        ..function(NEIGHBOUR)
    });
    case.facts.host.iommu.groups[0].members.push(bdf(NEIGHBOUR));
}

/// The kernel's command line, and whether there is an IOMMU.
fn words(case: &mut Case, line: &str, has_iommu: bool) {
    case.facts.kernel.cmdline = line.split(' ').map(str::to_owned).collect();
    if !has_iommu {
        case.facts.host.iommu.instances.clear();
    }
}

/// Has the plan start a kernel from files, of which `/absent` is not there.
fn boot(case: &mut Case, image: &str, initrd: Option<&str>) {
    case.files.insert("/absent".to_owned(), false);
    case.plan().kernel = Some(Kernel {
        image: image.to_owned(),
        initrd: initrd.map(str::to_owned),
        append: String::new(),
    });
}

fn last(case: &mut Case) -> &mut PciFunction {
    case.facts.functions.last_mut().expect("a function")
}

/// The plan's RAM in ordinary pages, with so many GiB free.
fn on_pages(case: &mut Case, free: u64) {
    case.plan().sockets[0].backing = Backing::Pages;
    case.facts.host.nodes[0].memory_free = Bytes(free * GIB);
}

fn limit(case: &mut Case, bytes: u64) {
    case.facts.host.memlock = Some(Limit::Bytes(Bytes(bytes)));
}

fn without_qemu(case: &mut Case, what: &str) {
    case.facts.vmm.qemu = None;
    case.facts.vmm.libvirt = None;
    case.facts
        .vmm
        .unknown
        .insert(what.to_owned(), format!("{what} is not in PATH"));
}
