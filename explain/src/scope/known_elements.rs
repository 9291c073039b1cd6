//! Names of libvirt's elements and attributes that are known.
//!
//! Source: libvirt 12.8 `docs/formatdomain`.

/// Elements of a domain that can't concern a GPU, with all that is in them.
pub(crate) const APART_OF_DOMAIN: &[&str] = &[
    "name",
    "uuid",
    "title",
    "description",
    "metadata",
    "genid",
    "hwuuid",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
    "pm",
    "seclabel",
    "sysinfo",
    "resource",
    "keywrap",
    "perf",
    "blkiotune",
    "idmap",
    "bootloader",
    "bootloader_args",
    "iothreads",
    "iothreadids",
    "defaultiothread",
    "currentMemory",
    "vcpus",
    "throttlegroups",
    "capabilities",
    "deprecation",
];

/// Elements of a domain whose numbers and names are read, with all that is in them.
pub(crate) const READ_OF_DOMAIN: &[&str] = &[
    "memory",
    "vcpu",
    "memoryBacking",
    "cputune",
    "os",
    "maxMemory",
];

/// Devices of a domain that can't concern a GPU, with all that is in them.
pub(crate) const APART_OF_DEVICES: &[&str] = &[
    "emulator",
    "disk",
    "interface",
    "graphics",
    "video",
    "console",
    "serial",
    "parallel",
    "channel",
    "input",
    "sound",
    "audio",
    "watchdog",
    "memballoon",
    "rng",
    "tpm",
    "vsock",
    "filesystem",
    "redirdev",
    "redirfilter",
    "hub",
    "smartcard",
    "panic",
    "lease",
    "crypto",
    "nvram",
    "shmem",
    "pstore",
];

/// Features of a domain's machine that are read, or that can't concern a GPU.
pub(crate) const FEATURES: &[&str] = &[
    "acpi",
    "gic",
    "ras",
    "apic",
    "pae",
    "hap",
    "viridian",
    "privnet",
    "hyperv",
    "kvm",
    "pvspinlock",
    "pmu",
    "vmport",
    "smm",
    "ioapic",
    "hpt",
    "vmcoreinfo",
    "htm",
    "nested-hv",
    "capabilities",
    "ccf-assist",
    "xen",
    "cfpc",
    "sbbc",
    "ibs",
    "tcg",
    "msrs",
    "async-teardown",
    "ps2",
    "aia",
];

/// Children of an element, and attributes of an element, that are read.
pub(crate) const ELEMENTS: &[(&str, &[&str])] = &[
    (
        "cpu",
        &[
            "model",
            "vendor",
            "topology",
            "cache",
            "feature",
            "maxphysaddr",
            "numa",
        ],
    ),
    ("numa", &["cell"]),
    ("cell", &["distances", "cache"]),
    ("numatune", &["memory", "memnode"]),
    (
        "controller",
        &["model", "target", "address", "alias", "pcihole64", "driver"],
    ),
    ("target", &["node", "size", "pciDev"]),
    ("iommu", &["driver", "address", "alias"]),
    (
        "hostdev",
        &[
            "driver", "source", "acpi", "rom", "address", "alias", "boot", "teaming",
        ],
    ),
    ("source", &["address", "path"]),
    ("egm", &["source", "target", "address", "alias"]),
];

/// Attributes that are read, or that can't concern a GPU, of the elements in which an unknown one
/// may.
pub(crate) const ATTRIBUTES: &[(&str, &[&str])] = &[
    (
        "cell",
        &["id", "cpus", "memory", "unit", "memAccess", "discard"],
    ),
    (
        "target",
        &[
            "chassis",
            "port",
            "busNr",
            "index",
            "hotplug",
            "chassisNr",
            "memReserve",
        ],
    ),
    ("iommufd", &["enabled", "fdgroup"]),
    ("acpi", &["nodeset", "index"]),
    ("rom", &["bar", "file", "enabled"]),
];

/// Attributes of an SMMU's driver.
pub(crate) const SMMU_DRIVER: &[&str] = &[
    "pciBus", "accel", "ats", "ril", "pasid", "ssidSize", "ssidsize", "oas", "cmdqv",
];

/// Attributes of a function's driver.
pub(crate) const FUNCTION_DRIVER: &[&str] = &["name", "model", "iommufd", "iommufdGroup"];
