//! Plans as they are, unsubstituted: in an arm64 machine with four sockets that owns seven GPUs,
//! `varia plan` prints QEMU's command, a shell runs it, KVM runs the guest, and the guest uses the
//! GPUs' memory. One guest for each topology that the documentation shows; those of one GPU in
//! `./x soak` alone.

use std::collections::BTreeMap;
use std::time::Instant;

use varia_facts::Facts;
use varia_lab::{Arch, GuestCommand, HANG, NO_CIPHER_TESTS, Task, agent_build};
use varia_plan::{Plan, PlannedBar, What, affinity, arguments};
use varia_silicon::{Options, profile};
use varia_vmtests::host::{Driver, Host, HostPlan, Memory, shrink_bar2};
use varia_vmtests::inner_guest::{self, INITRAMFS, KERNEL, Report};
use varia_vmtests::{Error, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const USEMEM: u64 = 512 * MIB;
/// Part of the memory that GH200 keeps uncached.
const RESMEM: u64 = GIB;
/// Where the machine leaves a word for the guest, and where the guest leaves one.
const FROM_HOST: u64 = 0x1000;
const FROM_GUEST: u64 = 0x20_0000;
/// Sockets of the machine, each with a CPU.
const SOCKETS: u32 = 4;
/// RAM of each socket of a guest, in MiB: UEFI needs that much.
const RAM_MIB: u32 = 256;

/// The guests' RAM is made of these: a page is mapped for DMA in one piece.
const HUGE_PAGE: u64 = 2 * MIB;

/// Chip and socket of each GPU of the machine.
const GPUS: [(&str, u32); 7] = [
    ("gh200", 0),
    ("gh200", 1),
    ("gh200", 2),
    ("gh200", 3),
    ("gb200", 0),
    ("gb200", 0),
    ("gb300", 1),
];

/// Name, GPUs of the machine, sockets of the VM, and nodes for each GPU: as many as a kernel has
/// room for that knows 16 nodes.
type Topology = (&'static str, &'static [usize], u32, u32);

const TOPOLOGIES: [Topology; 2] = [
    ("gh200-x4", &[0, 1, 2, 3], 4, 3),
    ("gb200-x2", &[4, 5], 1, 7),
];
/// One GPU, a part of what [`TOPOLOGIES`] have: for `./x soak`.
const SINGLE: [Topology; 3] = [
    ("gh200", &[0], 1, 8),
    ("gb200", &[4], 1, 8),
    ("gb300", &[6], 1, 8),
];

const SCRIPT: &str = "
cd /sys/devices/system/node
for file in online has_cpu has_memory has_generic_initiator; do
    echo \"== $file\"
    cat $file
done
for node in node*; do
    echo \"== $node\"
    cat $node/distance
done
number=0
for bdf in $gpus; do
    echo \"== gpu$number\"
    cat /sys/bus/pci/devices/$bdf/device /sys/bus/pci/devices/$bdf/numa_node
    echo \"== gpu$number.bars\"
    cat /sys/bus/pci/devices/$bdf/resource
    echo \"== gpu$number.memory\"
    /agent pci-memory $bdf 4 <<EOF
r 1000 8
w 200000 677565737420303$number
r 200000 8
EOF
    number=$((number + 1))
done
";

/// True in `./x soak`.
fn soaks() -> bool {
    std::env::var_os("VARIA_COUNT").is_some()
}

fn host() -> Result<Host> {
    let varia = agent_build::program(Arch::Aarch64, "varia", "varia")?;
    let mut plan = HostPlan::new(Arch::Aarch64, "host of plans")
        .kernel_memory(4096)
        .sockets(SOCKETS);
    for (chip, socket) in GPUS {
        let mut chip = profile::find(chip)
            .expect("a profile of the catalogue")
            .clone();
        if !soaks() {
            // a chip's own takes minutes to be mapped for DMA: that is for ./x soak
            shrink_bar2(&mut chip.bars);
        }
        let resmem = if chip.mig_bug() { RESMEM } else { 0 };
        let options = Options {
            memory: Some(USEMEM + resmem),
            ..Options::default()
        };
        plan = plan.gpu_near(socket, &chip, options, Memory::Real);
    }
    let host = plan
        .try_with(|vm| {
            let vm = vm
                .cpus(SOCKETS)
                .machine("virtualization=on")
                .cpu("neoverse-v1")
                .host_file("/usr/bin/varia", &varia);
            inner_guest::equip(vm, SCRIPT)
        })?
        .boot()?;
    for socket in 0..SOCKETS {
        let node = format!("/sys/devices/system/node/node{socket}");
        let pool = format!("{node}/hugepages/hugepages-2048kB/nr_hugepages");
        let pages = u64::from(RAM_MIB) * MIB / HUGE_PAGE;
        host.vm.write(&pool, pages.to_string())?;
    }
    host.install_kernel()?;
    host.install(Driver::Ours)?;
    Ok(host)
}

/// Where the guest's console goes.
fn console(name: &str) -> String {
    format!("/tmp/{name}.console")
}

/// QEMU's arguments besides the plan's: a file for the console, and no network.
fn more(name: &str) -> String {
    format!("-display none -serial file:{} -nic none", console(name))
}

/// Command line of a guest's kernel.
fn append() -> String {
    format!("quiet panic=-1 {NO_CIPHER_TESTS}")
}

fn run(host: &Host, command: &str) -> Result<String> {
    let command = GuestCommand::sh(command);
    Ok(host.vm.run(&command)?.checked()?.text())
}

/// `varia plan` for a topology, in the machine: a shell's command and what it is made of.
fn planned(
    host: &Host,
    facts: &Facts,
    (name, gpus, sockets, nodes): Topology,
) -> Result<(String, Plan)> {
    let mut options = String::new();
    for gpu in gpus {
        options += &format!("--gpu {} ", host.address(*gpu));
    }
    let ram = RAM_MIB * sockets;
    options += &format!(
        "--name {name} --cpus {sockets} --memory {ram}M --hugepages 2M --nodes-per-gpu {nodes} \
         --iommu type1 \
         --kernel {KERNEL} --initrd {INITRAMFS} --append '{}' --disk /tmp/{name}.report",
        append()
    );
    let file = format!("/tmp/{name}.sh");
    for word in more(name).split_whitespace() {
        options += &format!(" --qemu-arg={word}");
    }
    run(host, &format!("varia plan {options} > {file}"))?;
    let gpus = gpus.iter().map(|gpu| host.address(*gpu).parse());
    let gpus = gpus.collect::<std::result::Result<Vec<What>, _>>();
    let request = varia_plan::Request {
        name: name.to_owned(),
        cpus: sockets,
        memory: varia_facts::Bytes(u64::from(ram) * MIB),
        hugepages: Some(varia_facts::Bytes(HUGE_PAGE)),
        nodes_per_gpu: nodes,
        iommu: varia_plan::IommuChoice::Type1,
        kernel: Some(varia_plan::Kernel {
            image: KERNEL.to_owned(),
            initrd: Some(INITRAMFS.to_owned()),
            append: append(),
        }),
        disks: vec![format!("/tmp/{name}.report")],
        ..varia_plan::Request::new(gpus.expect("addresses"))
    };
    Ok((file, varia_plan::make(facts, &request).expect("a plan")))
}

/// The QEMU that a task has become or started: the CPUs that it may use, and its command line.
fn running(host: &Host, name: &str, task: &Task) -> Result<(String, Vec<String>)> {
    let script = format!(
        "for try in $(seq 5000); do for process in /proc/[0-9]*; do \
         case \"$(readlink $process/exe)\" in */qemu-system-aarch64) \
         if tr '\\0' '\\n' < $process/cmdline | grep -qx {name}; then \
         sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' $process/status; cat $process/cmdline; \
         exit 0; fi;; esac; done; sleep 0.2; done; exit 1"
    );
    let output = host.vm.run(&GuestCommand::sh(&script))?;
    if !output.success() {
        let ended = host.vm.wait(task, HANG)?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        return Err(Error::Unexpected(format!("no QEMU runs: {said}")));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (cpus, words) = text.split_once('\n').expect("two parts");
    let words = words.split_terminator('\0').map(str::to_owned);
    Ok((cpus.to_owned(), words.collect()))
}

/// Starts a plan as it was printed, and gives what the guest reported.
fn start(host: &Host, name: &str, file: &str, plan: &Plan) -> Result<Report> {
    let report = format!("/tmp/{name}.report");
    run(host, &format!("truncate -s 64K {report}"))?;
    let task = host.vm.spawn(&GuestCommand::new(["/bin/sh", file]))?;
    let (cpus, argv) = running(host, name, &task)?;
    let pinned = affinity(plan).expect("pins");
    assert_eq!(cpus, pinned.to_string(), "{name}: where QEMU runs");
    let planned = arguments(plan)
        .into_iter()
        .flat_map(|argument| [argument.option.to_owned(), argument.value]);
    let more = shell_words::split(&more(name)).expect("words");
    let expected: Vec<_> = planned.chain(more).collect();
    assert_eq!(argv[1..], expected, "{name}: what runs is what was planned");
    let output = host.vm.wait(&task, HANG)?;
    let text = host.vm.read_text(&report)?;
    let text = text.trim_end_matches('\0').trim_end();
    if !output.success() || !text.ends_with("== end") {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Unexpected(format!(
            "{name}: the guest did not come to its end: {:?}, {said}\nits report:\n{text}\n\
             its console:\n{}",
            output.ending,
            host.vm.read_text(&console(name)).unwrap_or_default()
        )));
    }
    Ok(inner_guest::sections(text))
}

fn digits(bytes: [u8; 8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `0-3,5` as numbers.
fn numbers(list: &str) -> Vec<u32> {
    let ends = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        (first.parse().expect(list), last.parse().expect(list))
    };
    let parts = list.split(',').filter(|part| !part.is_empty());
    parts
        .map(ends)
        .flat_map(|(first, last): (u32, u32)| first..=last)
        .collect()
}

/// The sizes of BARs by their number, as the guest's kernel assigned them.
fn assigned(resources: &str) -> BTreeMap<u8, u64> {
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
    let mut sizes = BTreeMap::new();
    for (index, line) in (0..6).zip(resources.lines()) {
        let numbers = line.split_whitespace().map(number);
        let numbers: Vec<_> = numbers.collect::<std::result::Result<_, _>>().expect(line);
        if numbers[1] != 0 {
            sizes.insert(index, numbers[1] - numbers[0] + 1);
        }
    }
    sizes
}

/// The guest has the plan's nodes, distances, initiators and GPUs, and their memory.
fn compare(host: &Host, plan: &Plan, gpus: &[usize], report: &Report) {
    let name = &plan.name;
    let said = |section: &str| {
        let text = report.get(section).map(String::as_str);
        text.unwrap_or_else(|| panic!("{name}: no {section} in {report:#?}"))
    };
    let own: Vec<_> = plan.sockets.iter().map(|socket| socket.node.0).collect();
    let of_gpus = plan.gpus.iter().flat_map(|gpu| gpu.memory.nodes.clone());
    let of_gpus: Vec<_> = of_gpus.collect();
    assert_eq!(numbers(said("has_cpu")), own, "{name}");
    assert_eq!(numbers(said("has_memory")), own, "{name}");
    assert_eq!(numbers(said("has_generic_initiator")), of_gpus, "{name}");
    let online = numbers(said("online"));
    assert_eq!(online, [own, of_gpus].concat(), "{name}");
    let row = |node| {
        let words = said(&format!("node{node}")).split_whitespace();
        words
            .map(|word| word.parse().expect("a distance"))
            .collect()
    };
    let seen: Vec<Vec<u8>> = (0..plan.distances.len()).map(row).collect();
    assert!(
        are_the_same(&seen, &plan.distances, plan.sockets.len()),
        "{name}: {seen:?} are not the distances {:?}",
        plan.distances
    );
    for (number, (gpu, index)) in plan.gpus.iter().zip(gpus).enumerate() {
        let chip = profile::find(GPUS[*index].0).expect("a profile");
        let shown = format!("{:#06x}\n{}", chip.device_id.value, gpu.socket);
        assert_eq!(said(&format!("gpu{number}")), shown, "{name}");
        let bars = assigned(said(&format!("gpu{number}.bars")));
        for PlannedBar { index, size } in &gpu.memory.device.bars {
            assert_eq!(bars.get(index), Some(&size.0), "{name}: {bars:?}");
        }
        let (to_guest, to_host) = (word(b"machine", *index), word(b"guest 0", number));
        let expected = [digits(to_guest), digits(to_host)].join("\n");
        assert_eq!(said(&format!("gpu{number}.memory")), expected, "{name}");
        let mut held = [0; 8];
        let memory = host.memory(*index);
        memory
            .read(FROM_GUEST, &mut held)
            .expect("inside the memory");
        assert_eq!(held, to_host, "{name}: what the guest wrote to GPU {index}");
    }
}

/// Compares distances but for the numbers of the nodes behind the first `own`: Linux
/// counts nodes as SRAT names them first, and QEMU names a plan's initiators in no order.
fn are_the_same(seen: &[Vec<u8>], planned: &[Vec<u8>], own: usize) -> bool {
    let mut stands_for: Vec<usize> = Vec::new();
    for (node, row) in seen.iter().enumerate() {
        let fits = |candidate: &usize| {
            let known = stands_for.iter().copied().chain([*candidate]);
            known.enumerate().all(|(other, stands)| {
                row[other] == planned[*candidate][stands]
                    && seen[other][node] == planned[stands][*candidate]
            })
        };
        let mut candidates = if node < own {
            node..node + 1
        } else {
            own..planned.len()
        };
        let found = candidates.find(|node| !stands_for.contains(node) && fits(node));
        match found {
            Some(found) => stands_for.push(found),
            None => return false,
        }
    }
    seen.len() == planned.len()
}

#[test]
fn distances_are_compared_whatever_the_numbers_of_nodes() {
    let planned = [
        [10, 80, 80, 90],
        [80, 10, 20, 99],
        [80, 20, 10, 99],
        [90, 99, 99, 10],
    ];
    let planned = planned.map(Vec::from);
    let mut seen = [
        [10, 90, 80, 80],
        [90, 10, 99, 99],
        [80, 99, 10, 20],
        [80, 99, 20, 10],
    ];
    assert!(are_the_same(&seen.map(Vec::from), &planned, 1));
    seen[3][2] = 21;
    assert!(!are_the_same(&seen.map(Vec::from), &planned, 1));
    assert!(!are_the_same(&planned[..3], &planned, 1));
}

/// Seven letters and a digit.
fn word(letters: &[u8; 7], number: usize) -> [u8; 8] {
    let mut word = [b'0' + number as u8; 8];
    word[..7].copy_from_slice(letters);
    word
}

#[test]
fn every_topology_reaches_its_guest_as_it_is_planned() -> Result<()> {
    let begin = Instant::now();
    let host = host()?;
    println!("the machine is up after {:?}", begin.elapsed());
    let all = host.addresses().join(" ");
    println!("{}", run(&host, &format!("varia bind {all}"))?);
    for gpu in 0..GPUS.len() {
        host.memory(gpu)
            .write(FROM_HOST, &word(b"machine", gpu))
            .expect("inside the memory");
    }
    let facts = run(&host, "varia list --facts")?;
    let facts: Facts = serde_json::from_str(&facts).expect("facts");
    println!("bound after {:?}", begin.elapsed());
    let single = SINGLE.into_iter().filter(|_| soaks());
    for topology in TOPOLOGIES.into_iter().chain(single) {
        let (name, gpus, ..) = topology;
        let begin = Instant::now();
        let (file, plan) = planned(&host, &facts, topology)?;
        let made = begin.elapsed();
        let report = start(&host, name, &file, &plan)?;
        println!(
            "{name}: planned in {made:?}, ended after {:?}",
            begin.elapsed()
        );
        compare(&host, &plan, gpus, &report);
    }
    host.power_off()
}
