//! Plans as libvirt takes them: its schema accepts the XML, and what its daemon would start is
//! what our own arguments start, but for the differences that are named here.

use std::collections::{BTreeMap, BTreeSet};

use varia_explain::{Knowledge, examine};
use varia_facts::{Bdf, Bytes, Facts, PciFunction};
use varia_lab::{Arch, GuestCommand, Set, packages};
use varia_linux::Tree;
use varia_linux::inventory::{Extent, Inventory};
use varia_plan::limits::VIRT_APERTURE;
use varia_plan::{
    Accelerator, Iommu, Kernel, Plan, Request, VirtualFunction, What, arguments, domain, make,
};
use varia_serve::View;
use varia_silicon::machine::{GB200_NVL4, GB300_NVL4, GH200, GH200_X4, Machine};
use varia_silicon::{Options, profile};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::{Result, definition, libvirt_daemon};

const TRANSLATE: &str = r#"
for file in /tmp/*.xml; do
    xmllint --noout --relaxng /usr/share/libvirt/schemas/domain.rng $file 2>$file.schema
    echo $? >> $file.schema
    virsh -c qemu:///system domxml-to-native qemu-argv $file >$file.argv 2>$file.error
    echo $? >> $file.error
done
"#;

#[test]
fn libvirt_starts_what_we_start() -> Result<()> {
    let tree = packages::ensure(Set::Libvirt(Arch::X86_64))?;
    let gh200 = profile::find("gh200").expect("a profile");
    let mut plan = HostPlan::new(Arch::X86_64, "libvirt").kernel_memory(2048);
    for _ in 0..4 {
        plan = plan.gpu(gh200, Options::default(), Memory::Absent);
    }
    let host = plan
        .with(|vm| {
            vm.share(tree.root(), "libvirt")
                .module_later("overlay")
                .module_later("tun")
        })
        .boot()?;
    host.load(Driver::VfioPci)?;
    for gpu in 0..4 {
        host.bind(gpu, Driver::VfioPci)?
            .expect("vfio-pci takes any device");
    }
    let root = host.vm.userland("libvirt")?;
    let started = started(&host);
    for (name, xml, _) in &started {
        host.vm.write(&format!("{root}/tmp/{name}.xml"), xml)?;
    }
    let plans = plans(&host);
    let mut domains = Vec::new();
    for (name, plan) in &plans {
        let xml = domain(plan).expect("every GPU is a function of the host");
        // emulated CPUs take long over each, and longest over large ones
        if ["gh200", "gb200-x2"].contains(name) {
            domains.push((format!("{name}-corrected"), plan, corrected(plan, &xml)));
        }
        domains.push((name.to_string(), plan, xml));
    }
    for (name, _, xml) in &domains {
        host.vm.write(&format!("{root}/tmp/{name}.xml"), xml)?;
    }
    // libvirt makes the end of a domain's network even where it only translates
    host.vm.modprobe("tun", "")?;
    libvirt_daemon::start(&host.vm, &root)?;
    let command = GuestCommand::new(["/bin/sh", "-c", TRANSLATE]).in_root(&root);
    host.vm.run(&command)?.checked()?;
    let translated = |name: &str| -> Result<String> {
        let read = |what: &str| host.vm.read_text(&format!("{root}/tmp/{name}.xml.{what}"));
        let schema = read("schema")?;
        assert!(
            schema.contains("validates") && schema.ends_with('0'),
            "{name}: {schema}"
        );
        let error = read("error")?;
        assert_eq!(
            error,
            "0",
            "{name}: {}",
            host.vm
                .read_text(&format!("{root}{}", libvirt_daemon::LOG))?
        );
        Ok(read("argv")?)
    };
    for (name, plan, _) in &domains {
        let ours = arguments(plan)
            .into_iter()
            .map(|one| (one.option.to_owned(), one.value));
        let argv = translated(name)?;
        // Debian's firmware descriptions put the one with Secure Boot and keys first
        assert!(argv.contains("/AAVMF_CODE.no-secboot.fd"), "{name}: {argv}");
        // what libvirt starts is explained as well: software runs it here, and its ports reserve
        // nothing
        let found = examine(argv.as_bytes(), &knowledge(plan)).expect("a definition");
        let mut codes: Vec<_> = found
            .findings
            .iter()
            .map(|(one, _)| one.code.name())
            .collect();
        codes.dedup();
        assert_eq!(codes, ["accelerator", "root-port-window"], "{name}: {argv}");
        let argv = shell_words::split(&argv).expect("a command line");
        let theirs = options(&argv);
        assert_eq!(
            said(ours),
            said(theirs),
            "{name}: ours left, libvirt's right"
        );
    }
    let started: Result<Vec<_>> = started
        .into_iter()
        .map(|(name, _, disks)| Ok((translated(&name)?, name, disks)))
        .collect();
    let started = started?;
    host.vm.power_off()?;
    for (argv, name, disks) in started {
        let gpu = Gpu::serve(gh200, View::Virtual, Options::default())?;
        let found = definition::started(&name, &argv, std::slice::from_ref(&gpu))?;
        definition::check(&name, &found, 1, disks);
    }
    Ok(())
}

/// Domains that are started as libvirt translates them, with the number of their disks: what libvirt
/// adds to a domain takes slots and bus numbers, too.
fn started(host: &Host) -> Vec<(String, String, usize)> {
    let facts = facts(&GH200, host);
    let gpu = &functions(host)[..1];
    let of_disks = |count: usize| {
        let request = Request {
            disks: (0..count).map(|disk| format!("/disk{disk}.raw")).collect(),
            ..Request::new(gpu.to_vec())
        };
        let mut plan = make(&facts, &request).expect("a plan");
        in_software(&mut plan);
        let xml = domain(&plan).expect("the GPU is a function of the host");
        (format!("disks-{count}"), xml, count)
    };
    let mut started = vec![("ports-14".to_owned(), ports(host), 1)];
    // the last is the most that the first root bus has slots for
    started.extend([1, 8, 26].map(of_disks));
    started
}

/// A domain with fourteen ports, put right, for this host.
fn ports(host: &Host) -> String {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../cli/tests/cases/fourteen-default-ports.xml"
    );
    let text = std::fs::read_to_string(file).expect("a definition");
    let facts = facts_of(&GH200);
    let knowledge = Knowledge {
        facts: Some(&facts),
        ..Knowledge::default()
    };
    let found = examine(text.as_bytes(), &knowledge).expect("a definition");
    assert!(!found.findings.is_empty(), "nothing to correct");
    let own: Bdf = host.address(0).parse().expect("an address");
    let address = format!(
        "<address domain='{:#06x}' bus='{:#04x}' slot='{:#04x}' function='{:#x}'/>",
        own.domain,
        own.bus,
        own.device(),
        own.function()
    );
    let mut text = found.corrected;
    for (from, to) in [
        ("<domain type='kvm'>", "<domain type='qemu'>"),
        ("mode='host-passthrough'", "mode='maximum'"),
        (
            "<address domain='0x0009' bus='0x01' slot='0x00' function='0x0'/>",
            &address,
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
        println!("ports-14: {from} -> {to}");
        text = text.replace(from, to);
    }
    text
}

/// A plan for this host: it can run arm64 in software alone, and has one node, where a plan's has up
/// to four.
fn in_software(plan: &mut Plan) {
    plan.accelerator = Accelerator::Tcg;
    for socket in &mut plan.sockets {
        socket.host_node = None;
        socket.pins.clear();
    }
}

/// A plan's GPUs, by what the domain calls them.
fn knowledge(plan: &Plan) -> Knowledge<'static> {
    let functions = [GH200, GB200_NVL4, GB300_NVL4]
        .into_iter()
        .flat_map(|machine| facts_of(&machine).functions);
    let known: Vec<_> = functions
        .filter(|one| one.coherent_memory.is_some())
        .collect();
    let named = plan.gpus.iter().map(|gpu| {
        let VirtualFunction { id, bars } = &gpu.memory.device;
        let has_its_bars = |one: &&PciFunction| {
            let sizes = one.virtual_bars.iter().filter(|bar| bar.prefetchable);
            sizes
                .map(|bar| bar.size)
                .eq(bars.iter().map(|bar| bar.size))
        };
        let chip = known.iter().find(has_its_bars).expect("a chip");
        (format!("ua-{id}"), chip.clone())
    });
    Knowledge {
        named: named.collect(),
        ..Knowledge::default()
    }
}

/// The domain, broken and put right.
fn corrected(plan: &Plan, xml: &str) -> String {
    // what the machine has by itself would not be missed
    let aperture = match plan.aperture.0 > 512 << 30 {
        true => "<pcihole64",
        false => "<node>",
    };
    let gone = ["<acpi nodeset=", aperture, "<node>", "<sibling id='3'"];
    let mut broken: String = xml
        .lines()
        .filter(|line| !gone.iter().any(|part| line.contains(part)))
        .map(|line| format!("{line}\n"))
        .collect();
    // the last node
    let begin = broken.rfind("      <cell id=").expect("a cell");
    let end = broken.rfind("    </numa>").expect("the end of cells");
    broken.replace_range(begin..end, "");
    let found = examine(broken.as_bytes(), &knowledge(plan)).expect("a definition");
    assert!(found.findings.len() >= 4, "{:?}", found.findings);
    // this host can run it in software alone
    found
        .corrected
        .replace("<domain type='kvm'", "<domain type='qemu'")
}

/// The options of a command line with their values, without the environment and the program.
fn options(argv: &[String]) -> Vec<(String, String)> {
    let mut options: Vec<(String, String)> = Vec::new();
    for word in argv.iter().skip_while(|word| !word.starts_with('-')) {
        match options.last_mut() {
            Some((_, value)) if !word.starts_with('-') => value.clone_from(word),
            _ => options.push((word.clone(), String::new())),
        }
    }
    options
}

/// Options that libvirt adds to the plan, and the reason why they are no difference.
const LIBVIRTS_OWN: &[(&str, &str, &str)] = &[
    ("-name", "", "a process's title"),
    ("-S", "", "libvirt starts the CPUs itself"),
    ("-object", "secret", "a key for its own secrets"),
    (
        "-object",
        "thread-context",
        "which CPUs fill memory at the start",
    ),
    ("-object", "monitor-qmp", "its connection to QEMU"),
    ("-chardev", "", "its connection to QEMU"),
    (
        "-blockdev",
        "",
        "UEFI in two pieces of flash; the plan's -bios has both in one file",
    ),
    ("-bios", "", "the same"),
    ("-overcommit", "mem-lock=off", "QEMU's default"),
    ("-uuid", "", "made up for each VM"),
    (
        "-display",
        "none",
        "QEMU's arguments leave that to their user",
    ),
    ("-no-user-config", "", "the same"),
    ("-nodefaults", "", "the same"),
    ("-rtc", "base=utc", "QEMU's default"),
    ("-no-shutdown", "", "libvirt ends QEMU itself"),
    ("-boot", "strict=on", "only what is marked boots"),
    ("-audiodev", "", "no audio"),
    (
        "-serial",
        "chardev:",
        "the console, which QEMU makes unasked",
    ),
    ("-sandbox", "", "system calls that QEMU does not need"),
    ("-msg", "", "how messages look"),
];

/// Options of a VM, each in a form that is the same for libvirt and for the plan.
fn said(options: impl IntoIterator<Item = (String, String)>) -> BTreeSet<String> {
    let options: Vec<(String, String)> = options.into_iter().collect();
    // each has its own names for root buses
    let buses = options.iter().map(|(_, value)| fields(value));
    let buses: BTreeMap<_, _> = buses
        .filter_map(|bus| Some((bus.get("id")?.clone(), bus.get("bus_nr")?.clone())))
        .collect();
    let mut said = BTreeSet::new();
    for (option, value) in options {
        let fields = fields(&value);
        let get = |name: &str| fields.get(name).map_or("", String::as_str);
        let kind = ["driver", "qom-type", ""].map(get);
        let kind = kind.into_iter().find(|kind| !kind.is_empty()).unwrap_or("");
        let id = get("id").trim_start_matches("ua-");
        let what = match (option.as_str(), kind) {
            ("-machine", kind) => format!(
                "machine {} gic {} aperture {}",
                kind.split('-').next().unwrap_or_default(),
                get("gic-version"),
                aperture(get("highmem-mmio-size"))
            ),
            ("-accel" | "-cpu", kind) => {
                // which pointer authentication software emulates is a matter of speed alone
                format!("{option} {kind}")
            }
            ("-smp", kind) => format!("{kind} CPUs in {} sockets", get("sockets")),
            ("-m", kind) => {
                let size = if kind.is_empty() { get("size") } else { kind };
                format!("RAM {}", bytes(size))
            }
            ("-object", "memory-backend-memfd") => format!(
                "memory {} shared {}",
                bytes(get("size")),
                ["on", "true"].contains(&get("share"))
            ),
            ("-numa", "node") => format!("node {} CPUs {}", get("nodeid"), get("cpus")),
            ("-numa", "dist") if get("src") == get("dst") => continue,
            ("-numa", "dist") => {
                let mut ends = [get("src"), get("dst")].map(|end| end.parse::<u32>().expect(end));
                ends.sort_unstable();
                format!("{ends:?} are {} apart", get("val"))
            }
            ("-object", "acpi-generic-initiator") => {
                let function = get("pci-dev").trim_start_matches("ua-");
                format!("{function} initiates for node {}", get("node"))
            }
            ("-kernel" | "-initrd" | "-append", _) => format!("{option} {value}"),
            ("-device", "pxb-pcie") => {
                format!("root bus {} of node {}", get("bus_nr"), get("numa_node"))
            }
            // the plan's also reserves a window, which libvirt can't say
            ("-device", "pcie-root-port") => format!("port with chassis {}", get("chassis")),
            ("-device", "vfio-pci") => {
                let rom = ["0", "off"].contains(&get("rombar"));
                // for iommufd libvirt opens the function itself when it starts the VM
                let host = match get("iommufd") {
                    "" => get("host"),
                    iommufd => iommufd,
                };
                format!("{id} is {host} without a ROM: {rom}")
            }
            ("-object", "iommufd") => "iommufd".to_owned(),
            ("-device", "arm-smmuv3") => {
                let bus = buses.get(get("primary-bus")).expect("a root bus");
                let on = |name| ["on", "true"].contains(&get(name));
                let ssidsize = get("ssidsize");
                let (accel, ats) = (on("accel"), on("ats"));
                format!("SMMU of bus {bus}: accel {accel}, ATS {ats}, PASIDs of {ssidsize} bits")
            }
            _ => {
                let known = LIBVIRTS_OWN.iter().any(|(name, start, _)| {
                    *name == option && kind_or(kind, &value).starts_with(start)
                });
                assert!(known, "{option} {value} has no counterpart and no reason");
                continue;
            }
        };
        said.insert(what);
    }
    said
}

fn kind_or<'a>(kind: &'a str, value: &'a str) -> &'a str {
    if kind.is_empty() { value } else { kind }
}

/// The fields of a value, JSON or QEMU's own form, in which the first may have no name.
fn fields(value: &str) -> BTreeMap<String, String> {
    if let Ok(serde_json::Value::Object(object)) = serde_json::from_str(value) {
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        return object
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect();
    }
    let pair = |field: &str| match field.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (String::new(), field.to_owned()),
    };
    value.split(',').map(pair).collect()
}

/// The machine's aperture, in bytes; its own where no option names one.
fn aperture(size: &str) -> u64 {
    match size {
        "" => VIRT_APERTURE,
        size => bytes(size),
    }
}

/// A size in bytes; a number without a unit is one of bytes.
fn bytes(size: &str) -> u64 {
    size.parse::<Bytes>().expect(size).0
}

/// The topologies that the documentation shows, with the functions of `host`.
fn plans(host: &Host) -> Vec<(&'static str, Plan)> {
    let all = functions(host);
    let two = all[..2].to_vec();
    [
        ("gh200", GH200, all[..1].to_vec()),
        ("gh200-x4", GH200_X4, all.clone()),
        ("gb200", GB200_NVL4, all[..1].to_vec()),
        ("gb200-x2", GB200_NVL4, two.clone()),
        ("gb200-x2-smmu", GB200_NVL4, two),
        ("gb300", GB300_NVL4, all[..1].to_vec()),
    ]
    .map(|(name, machine, gpus)| {
        let mut facts = facts(&machine, host);
        if name.ends_with("-smmu") {
            let config = facts.kernel.config.as_mut().expect("options");
            for option in ["VFIO_PCI_DMABUF", "ARM_SMMU_V3_IOMMUFD"] {
                config.insert(option.to_owned(), "y".to_owned());
            }
        }
        let request = Request {
            cpus: 8,
            kernel: Some(Kernel {
                image: "/boot/vmlinuz".into(),
                initrd: Some("/boot/initrd".into()),
                append: "root=/dev/vda1".into(),
            }),
            ..Request::new(gpus)
        };
        let mut plan = make(&facts, &request).expect("a plan");
        let smmu = Iommu::Iommufd { smmu: true };
        assert_eq!(plan.iommu == smmu, name.ends_with("-smmu"), "{name}");
        in_software(&mut plan);
        (name, plan)
    })
    .into()
}

fn functions(host: &Host) -> Vec<What> {
    (0..4)
        .map(|gpu| What::Function(host.address(gpu).parse().expect("an address")))
        .collect()
}

/// Facts of a machine.
fn facts_of(machine: &Machine) -> Facts {
    let folder = tempfile::tempdir().expect("a temporary folder");
    machine.write(folder.path()).expect("its files");
    let tree = Tree::open(folder.path()).expect("a host");
    let found = Inventory::of(&tree, Extent::Served).expect("an inventory");
    found.facts
}

/// Facts of a machine whose GPUs have the addresses of the GPUs of `host`.
fn facts(machine: &Machine, host: &Host) -> Facts {
    let mut facts = facts_of(machine);
    for (index, function) in machine.gpus().iter().enumerate() {
        let bdf: Bdf = function.parse().expect("an address");
        for function in &mut facts.functions {
            if function.bdf == bdf {
                function.bdf = host.address(index).parse().expect("an address");
            }
        }
    }
    facts
}
