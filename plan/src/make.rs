//! Facts and a request -> a plan, or the constraint that stands against it.

use std::collections::BTreeMap;

use varia_facts::{self as facts, Arch, Bytes, EgmDevice, Facts, NodeId, PciFunction, Qemu};
use varia_spec::nvidia::chip::{Driver, Identity};

use crate::aperture::{aperture, window};
use crate::check;
use crate::distances::distances;
use crate::egm;
use crate::error::Error;
use crate::gpu::{CoherentMemory, Gpu, GuestNode, PlannedBar, Source, VirtualFunction};
use crate::limits::{ADDRESS_BITS, BUSES, MAX_NODES, SMALL_LINUX_NODES};
use crate::plan::{Accelerator, Backing, Firmware, Iommu, Plan, SCHEMA, Socket};
use crate::request::{IommuChoice, Request, What};
use crate::topology::Buses;
use crate::versions::{self, QEMU_TAKES_THE_HOSTS};

const MIB: u64 = 1 << 20;

/// Plans a VM for functions of the host that `facts` describes.
///
/// # Errors
/// An [`Error`] that names the constraint and what would satisfy it.
pub fn make(facts: &Facts, request: &Request) -> Result<Plan, Error> {
    check::name(&request.name)?;
    check::texts(request)?;
    if request.nodes_per_gpu == 0 {
        return Err(Error::NoNodes);
    }
    let functions = choose(facts, &request.gpus)?;
    let mut notes = check::functions(facts, &functions)?;
    check::disks(request.disks.len(), functions.len())?;
    let arch = facts.host.arch.unwrap_or(Arch::Aarch64);
    check::cpus(facts, arch, request.cpus)?;
    let host_sockets = host_sockets(&functions);
    let egm = match request.egm {
        true => egm::devices(facts, request, &functions, &host_sockets)?,
        false => Vec::new(),
    };
    if request.egm {
        notes.push(egm::note());
    }
    let sockets = sockets(facts, request, &host_sockets, &egm)?;
    let buses = Buses::with_disks(request.disks.len());
    let gpus = gpus(
        &functions,
        &host_sockets,
        arch,
        request.nodes_per_gpu,
        buses,
    )?;
    let bits = facts.kernel.kvm.ipa_bits.unwrap_or_else(|| {
        notes.push(format!(
            "the width of a guest's addresses is not known, because KVM could not be asked: \
             {ADDRESS_BITS} bits are assumed"
        ));
        ADDRESS_BITS
    });
    let aperture = aperture(arch, request.memory, &gpus, bits)?;
    let (iommu, note) = iommu(facts, request.iommu)?;
    notes.extend(note);
    if functions.iter().any(|function| function.driver.is_none()) {
        notes.push("not every GPU is bound to a driver: run varia bind".to_owned());
    }
    let host_nodes: Vec<_> = functions
        .iter()
        .map(|function| {
            function
                .numa_node
                .filter(|node| is_memory_only(facts, *node))
        })
        .collect();
    let mut plan = Plan {
        schema: SCHEMA.to_owned(),
        name: request.name.clone(),
        arch,
        accelerator: Accelerator::Kvm,
        distances: distances(&sockets, &gpus, &facts.host, &host_nodes),
        sockets,
        gpus,
        aperture,
        iommu,
        firmware: match (&request.firmware, arch) {
            (Some(file), _) => Firmware::File(file.clone()),
            (None, Arch::Aarch64) => Firmware::Uefi,
            (None, Arch::X86_64) => Firmware::Own,
        },
        kernel: request.kernel.clone(),
        disks: request.disks.clone(),
        notes,
    };
    note_nodes(&mut plan);
    Ok(plan)
}

/// The functions that are asked for, in the order of the request.
fn choose<'a>(facts: &'a Facts, wanted: &[What]) -> Result<Vec<&'a PciFunction>, Error> {
    let mut chosen: Vec<&PciFunction> = Vec::new();
    // those that are named are nobody else's, wherever they stand
    for what in wanted {
        let What::Function(bdf) = what else { continue };
        if chosen.iter().any(|function| function.bdf == *bdf) {
            return Err(Error::Twice { bdf: *bdf });
        }
        let function = facts
            .function(*bdf)
            .ok_or(Error::NoFunction { bdf: *bdf })?;
        check_layout(function)?;
        chosen.push(function);
    }
    let mut named = std::mem::take(&mut chosen).into_iter();
    let mut taken: Vec<_> = named.clone().map(|function| function.bdf).collect();
    for what in wanted {
        match what {
            What::Function(_) => chosen.extend(named.next()),
            What::OneSuperchip(count) => {
                let some = of_one_superchip(facts, *what, *count, &taken)?;
                taken.extend(some.iter().map(|function| function.bdf));
                chosen.extend(some);
            }
        }
    }
    if chosen.is_empty() {
        return Err(Error::NoGpu);
    }
    Ok(chosen)
}

/// `count` GPUs that are nearest to the same CPUs, of the first socket that has them.
fn of_one_superchip<'a>(
    facts: &'a Facts,
    what: What,
    count: u32,
    taken: &[facts::Bdf],
) -> Result<Vec<&'a PciFunction>, Error> {
    let mut superchips: BTreeMap<Option<NodeId>, Vec<&PciFunction>> = BTreeMap::new();
    let free = facts.functions.iter().filter(|function| {
        check_layout(function).is_ok()
            && function.open != Some(true)
            && !taken.contains(&function.bdf)
    });
    for function in free {
        superchips
            .entry(function.cpu_node)
            .or_default()
            .push(function);
    }
    let count = count as usize;
    let most = superchips.values().map(Vec::len).max().unwrap_or(0);
    superchips
        .into_values()
        .find(|functions| functions.len() >= count)
        .map(|mut functions| {
            functions.truncate(count);
            functions
        })
        .ok_or(Error::Superchip { what, most })
}

fn check_layout(function: &PciFunction) -> Result<(), Error> {
    if function.variant.is_none() {
        let (bdf, vendor, device) = (function.bdf, function.vendor, function.device);
        return Err(match Identity::of(vendor, device, function.class) {
            Identity::Known(chip, _) if chip.driver() == Driver::VfioPci => Error::Plain {
                bdf,
                chip: chip.name,
                window: window(&PlannedBar::physical(function))?,
            },
            Identity::Unknown => Error::UnknownChip {
                bdf,
                vendor,
                device,
            },
            Identity::Known(..) | Identity::Other => Error::NotCoherent {
                bdf,
                vendor,
                device,
            },
        });
    }
    if !function.virtual_bars.iter().any(|bar| bar.memory.is_some()) {
        return Err(Error::NoLayout {
            bdf: function.bdf,
            why: function
                .layout_note
                .clone()
                .unwrap_or_else(|| "its memory is not known".to_owned()),
        });
    }
    Ok(())
}

/// The host's nodes with CPUs that the GPUs are nearest to, each once, in the GPUs' order. A VM
/// on a host that does not say has one.
fn host_sockets(functions: &[&PciFunction]) -> Vec<Option<NodeId>> {
    let mut nodes = Vec::new();
    for function in functions {
        if !nodes.contains(&function.cpu_node) {
            nodes.push(function.cpu_node);
        }
    }
    nodes
}

/// A socket of the VM for each of the host's, with its share of CPUs and RAM.
fn sockets(
    facts: &Facts,
    request: &Request,
    host: &[Option<NodeId>],
    egm: &[&EgmDevice],
) -> Result<Vec<Socket>, Error> {
    let count = host.len();
    let (cpus, memory) = (request.cpus, request.memory.0);
    let each_cpus = cpus / count as u32;
    if cpus == 0 || !cpus.is_multiple_of(count as u32) {
        return Err(Error::Cpus {
            cpus,
            sockets: count,
        });
    }
    let unit = request.hugepages.map_or(MIB, |size| size.0.max(MIB));
    let all = unit.saturating_mul(count as u64);
    if memory == 0 || !memory.is_multiple_of(all) {
        return Err(Error::Memory {
            memory: request.memory,
            unit: Bytes(unit),
            sockets: count,
            all: Bytes(all),
        });
    }
    let mut first = 0;
    let mut sockets = Vec::new();
    for (node, host_node) in (0..).zip(host) {
        let vcpus = first..first + each_cpus;
        first = vcpus.end;
        let share = Bytes(memory / count as u64);
        let host = host_node.and_then(|id| facts.host.node(id));
        let egm = egm.get(node as usize);
        if let (None, Some(host)) = (egm, host) {
            check_ram(host, request.hugepages, share)?;
        }
        let pins = match host {
            Some(host) if request.pin => pins(host, vcpus.len() as u32)?,
            _ => Vec::new(),
        };
        sockets.push(Socket {
            node: GuestNode(node),
            vcpus,
            memory: share,
            backing: match egm {
                Some(device) => Backing::Egm(device.pxm),
                None => request.hugepages.map_or(Backing::Pages, Backing::HugePages),
            },
            host_node: host.map(|host| host.id),
            pins,
        });
    }
    Ok(sockets)
}

fn check_ram(host: &facts::NumaNode, hugepages: Option<Bytes>, wanted: Bytes) -> Result<(), Error> {
    let Some(size) = hugepages else {
        if wanted > host.memory {
            return Err(Error::HostMemory {
                node: host.id,
                wanted,
                there: host.memory,
            });
        }
        return Ok(());
    };
    let Some(pool) = host.hugepages.iter().find(|pool| pool.size == size) else {
        return Err(Error::HugePageSize {
            node: host.id,
            size,
            there: match host.hugepages.as_slice() {
                [] => "none".to_owned(),
                pools => Error::sizes(pools.iter().map(|pool| pool.size)),
            },
        });
    };
    let (free, total) = (pool.free, pool.total);
    let pages = wanted.0.div_ceil(size.0.max(1));
    if pages > free {
        return Err(Error::HugePages {
            node: host.id,
            size,
            kib: size.0 >> 10,
            wanted: pages,
            free,
            reserve: total + (pages - free),
        });
    }
    Ok(())
}

/// Host CPU of the node for each virtual CPU.
///
/// # Errors
/// [`Error::Pins`] if the node has fewer.
pub fn pins(host: &facts::NumaNode, vcpus: u32) -> Result<Vec<u32>, Error> {
    let there = host.cpus.count();
    if u64::from(vcpus) > there {
        return Err(Error::Pins {
            node: host.id,
            wanted: vcpus,
            there,
        });
    }
    Ok(host.cpus.iter().take(vcpus as usize).collect())
}

fn gpus(
    functions: &[&PciFunction],
    sockets: &[Option<NodeId>],
    arch: Arch,
    nodes_each: u32,
    buses: Buses,
) -> Result<Vec<Gpu>, Error> {
    let mut devices = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let device = VirtualFunction {
            id: format!("gpu{index}"),
            bars: PlannedBar::of(function),
        };
        let socket = sockets.iter().position(|node| *node == function.cpu_node);
        let socket = GuestNode(socket.unwrap_or(0) as u32);
        devices.push(Attached {
            device,
            source: Source::Function(function.bdf),
            socket,
            // of another kind of IOMMU no VM has one of its own
            iommu: function
                .iommu
                .clone()
                .filter(|name| name.starts_with("smmu3.")),
        });
    }
    attach(devices, sockets.len() as u32, arch, nodes_each, buses)
}

/// A device that is to be attached.
pub(crate) struct Attached {
    pub(crate) device: VirtualFunction,
    pub(crate) source: Source,
    pub(crate) socket: GuestNode,
    /// IOMMU of the host that translates for the device, if known.
    pub(crate) iommu: Option<String>,
}

/// Gives each device its nodes, after those of `sockets`, and a place in the VM.
pub(crate) fn attach(
    devices: Vec<Attached>,
    sockets: u32,
    arch: Arch,
    nodes_each: u32,
    mut buses: Buses,
) -> Result<Vec<Gpu>, Error> {
    let count = devices.len();
    let wanted = u64::from(sockets) + count as u64 * u64::from(nodes_each);
    if wanted > u64::from(MAX_NODES) {
        return Err(Error::TooManyNodes { wanted });
    }
    let mut first = sockets;
    let mut gpus: Vec<Gpu> = Vec::new();
    // a root bus is on one node
    let place = |one: &Attached| Some((one.iommu.clone()?, one.socket));
    let places: Vec<_> = devices.iter().map(place).collect();
    for (index, attached) in devices.into_iter().enumerate() {
        let own = place(&attached);
        let Attached {
            device,
            source,
            socket,
            iommu: _,
        } = attached;
        let is_same = |other: &Option<(String, GuestNode)>| other.is_some() && *other == own;
        let before = places.iter().take(index).position(is_same);
        let on_it = places.iter().filter(|other| is_same(other)).count();
        let nodes = first..first + nodes_each;
        first = nodes.end;
        let shared = before.and_then(|before| gpus.get(before)?.bus);
        let bus = match (arch, shared) {
            // A root bus of its own puts a GPU into its socket's node, and behind an SMMU of
            // its own; GPUs behind one SMMU of the host share both.
            (Arch::Aarch64, None) => {
                let wanted = Buses::of(on_it.max(1));
                let number = buses
                    .free(wanted)
                    .ok_or(Error::TooManyGpus { gpus: count })?;
                buses.take(number.into(), wanted.max(BUSES.into()));
                Some(number)
            }
            (Arch::Aarch64, shared) => shared,
            (Arch::X86_64, _) => None,
        };
        gpus.push(Gpu {
            window: window(&device.bars)?,
            memory: CoherentMemory {
                device,
                source,
                nodes,
            },
            socket,
            bus,
        });
    }
    Ok(gpus)
}

/// Backend by which devices reach the VM's memory: the requested one if the host has it. With type1
/// instead of iommufd also what is missing; with iommufd of a request what is assumed.
///
/// The memory of the GPUs is mapped for other devices too. It consists of page frames without
/// `struct page`, which iommufd takes only as a dma-buf of VFIO's.
fn iommu(facts: &Facts, choice: IommuChoice) -> Result<(Iommu, Option<String>), Error> {
    let kernel = &facts.kernel;
    let feature = |name: &str| versions::has(&facts.vmm, name);
    let option = |name: &str| kernel.option(name);
    let needed = [
        (kernel.iommufd, "/dev/iommu", "/dev/iommu is not there"),
        (
            option("VFIO_DEVICE_CDEV"),
            "CONFIG_VFIO_DEVICE_CDEV",
            "the kernel is not known to have CONFIG_VFIO_DEVICE_CDEV",
        ),
        (
            option("VFIO_PCI_DMABUF"),
            "CONFIG_VFIO_PCI_DMABUF",
            "the kernel is not known to have CONFIG_VFIO_PCI_DMABUF, so that it can't map BARs",
        ),
        (
            feature("iommufd"),
            "an iommufd object of QEMU",
            "QEMU is not known to have an iommufd object",
        ),
    ];
    let has = |name: &str| feature(name) == Some(true);
    let of_smmu = ["arm-smmuv3.accel", "arm-smmuv3.ats", "arm-smmuv3.ssidsize"];
    // Older ones do not take from the host what is not said (ril, oas), and Grace refuses theirs.
    let takes_the_hosts =
        facts.vmm.qemu.as_ref().and_then(Qemu::number) >= Some(QEMU_TAKES_THE_HOSTS);
    let iommufd = Iommu::Iommufd {
        smmu: option("ARM_SMMU_V3_IOMMUFD") == Some(true)
            && of_smmu.into_iter().all(has)
            && takes_the_hosts,
    };
    let missing = |is_it: fn(Option<bool>) -> bool| {
        let mut needed = needed.iter();
        needed.find(|(has, ..)| is_it(*has)).map(|(_, _, why)| *why)
    };
    match choice {
        IommuChoice::Type1 => Ok((Iommu::Type1, None)),
        IommuChoice::Iommufd => {
            if let Some(why) = missing(|has| has == Some(false)) {
                return Err(Error::Iommufd { why });
            }
            let assumed = needed.iter().filter(|(has, ..)| has.is_none());
            let assumed: Vec<_> = assumed.map(|(_, what, _)| *what).collect();
            let note = format!(
                "this host could not be asked for {}, which --iommu iommufd needs: that it has them \
                 is assumed (--assume names versions)",
                assumed.join(", ")
            );
            Ok((iommufd, (!assumed.is_empty()).then_some(note)))
        }
        IommuChoice::Auto => match missing(|has| has != Some(true)) {
            None => Ok((iommufd, None)),
            Some(_) if kernel.vfio_container == Some(false) => Err(Error::NoIommu),
            // where there is iommufd, type1 would be a surprise
            Some(why) => Ok((
                Iommu::Type1,
                (kernel.iommufd == Some(true))
                    .then(|| format!("VFIO type1 maps the VM's memory, because {why}")),
            )),
        },
    }
}

fn is_memory_only(facts: &Facts, node: NodeId) -> bool {
    facts
        .host
        .node(node)
        .is_some_and(|node| node.cpus.is_empty())
}

/// A guest whose kernel has room for fewer nodes leaves the last GPUs without memory.
pub(crate) fn note_nodes(plan: &mut Plan) {
    let nodes = plan.nodes();
    if nodes > SMALL_LINUX_NODES && plan.arch == Arch::Aarch64 {
        plan.notes.push(format!(
            "the VM has {nodes} NUMA nodes: its kernel needs CONFIG_NODES_SHIFT={} or more \
             (Debian's arm64 kernels have 4, room for {SMALL_LINUX_NODES} nodes), or give \
             --nodes-per-gpu a smaller number",
            nodes.next_power_of_two().trailing_zeros()
        ));
    }
}
