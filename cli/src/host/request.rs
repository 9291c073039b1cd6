//! From a command line to the request for a plan: accelerator, firmware, GPUs.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use varia_core::BarSpace;
use varia_facts::{Arch, Bytes};
use varia_plan::{Accelerator, BareGpu, BareHost, BareHostPlan, Firmware, PlannedBar};
use varia_silicon::Profile;

use super::topology::Topology;
use crate::{
    Failure,
    args::{AcceleratorArg, BareHostArgs},
    device::known_profile,
    qemu,
};

/// Bits of a physical address in software emulation, and where KVM does not say.
const ADDRESS_BITS: u32 = 48;

/// Accelerator of a host.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) accelerator: Accelerator,
    /// Bits of a physical address.
    bits: u32,
    /// Reason for which KVM was not chosen.
    no_kvm: Option<String>,
}

impl Chosen {
    /// Text for a person.
    pub(crate) fn text(&self) -> String {
        let why = self.no_kvm.as_ref();
        let why = why.map_or_else(|| "as asked for".to_owned(), |why| format!("no KVM: {why}"));
        match self.accelerator {
            Accelerator::Kvm => "KVM".to_owned(),
            Accelerator::Tcg => {
                format!("TCG ({why}), software emulation that boots a distribution in minutes")
            }
        }
    }
}

/// Request for a host, but for the directory of its sockets.
pub(crate) struct Request<'a> {
    pub(crate) args: &'a BareHostArgs,
    pub(crate) topology: Topology,
    pub(crate) profile: &'static Profile,
    pub(crate) chosen: Chosen,
    firmware: Firmware,
}

impl<'a> Request<'a> {
    /// Checks the arguments.
    pub(crate) fn new(args: &'a BareHostArgs, topology: Topology) -> Result<Self, Failure> {
        check_ram(args.ram)?;
        if args.disk.to_str().is_none() {
            let text = format!(
                "the name of the image {} is not UTF-8, as QEMU wants it: rename it",
                args.disk.display()
            );
            return Err(text.into());
        }
        if let Some(memory) = args.memory.filter(|size| size.0 == 0 || size.0 % 4096 != 0) {
            let text = format!(
                "a GPU can't have {memory} of memory: give a multiple of 4 KiB, as in --memory 1G"
            );
            return Err(text.into());
        }
        Ok(Self {
            args,
            topology,
            profile: known_profile(topology.profile)?,
            chosen: accelerator(args.accel, topology.arch)?,
            firmware: firmware(args, topology.arch)?,
        })
    }

    /// The plan, with the servers' sockets in this directory.
    pub(crate) fn plan(&self, directory: &Path) -> Result<BareHostPlan, varia_plan::Error> {
        let Self { args, topology, .. } = self;
        let memory = self.profile.coherent.map(|memory| memory.size.value);
        let memory = args.memory.or(memory.map(Bytes)).unwrap_or(Bytes(0));
        let bars = self.profile.bars.iter().map(|bar| bar.value);
        let bars = bars.filter(|bar| bar.spec.prefetchable && bar.spec.space == BarSpace::Memory64);
        let bars = bars.map(|bar| PlannedBar {
            index: bar.index,
            size: Bytes(bar.spec.size),
        });
        let bars: Vec<_> = bars.collect();
        let gpu = |(index, socket): (u32, u32)| BareGpu {
            socket,
            server: directory.join(format!("gpu{index}.sock")),
            bars: bars.clone(),
            memory,
        };
        BareHost {
            name: topology.name.to_owned(),
            arch: topology.arch,
            accelerator: self.chosen.accelerator,
            sockets: topology.sockets,
            cpus: args.cpus.unwrap_or(topology.sockets.max(2)),
            ram: args.ram,
            gpus: (0..).zip(topology.gpu_sockets()).map(gpu).collect(),
            nodes_per_gpu: args.nodes_per_gpu,
            firmware: self.firmware.clone(),
            address_bits: self.chosen.bits,
        }
        .plan()
    }
}

/// Firmware of the host.
fn firmware(args: &BareHostArgs, arch: Arch) -> Result<Firmware, Failure> {
    let file = |path: &Path| Firmware::File(path.to_string_lossy().into_owned());
    match (&args.bios, arch) {
        (Some(bios), _) if !bios.is_file() => Err(format!(
            "the firmware {} is no file: name one with --bios",
            bios.display()
        )
        .into()),
        (Some(bios), _) => Ok(file(bios)),
        (None, Arch::X86_64) => Ok(Firmware::Own),
        (None, Arch::Aarch64) => match qemu::firmware() {
            // where there is none, a dry run says where it would be
            Err(_) if args.dry_run => Ok(file(Path::new(qemu::FIRMWARE[0]))),
            found => Ok(file(&found?)),
        },
    }
}

/// Accelerator that was asked for, or the best one.
fn accelerator(wanted: AcceleratorArg, arch: Arch) -> Result<Chosen, Failure> {
    let chosen = |accelerator, bits, no_kvm| Chosen {
        accelerator,
        bits,
        no_kvm,
    };
    if wanted == AcceleratorArg::Tcg {
        return Ok(chosen(Accelerator::Tcg, ADDRESS_BITS, None));
    }
    let own = std::env::consts::ARCH;
    let why = if arch.name() != own {
        format!("this machine is {own}, and the host {arch}")
    } else {
        match varia_sys::kvm::capabilities() {
            Ok(kvm) => {
                let bits = kvm.ipa_bits.unwrap_or(ADDRESS_BITS);
                return Ok(chosen(Accelerator::Kvm, bits, None));
            }
            Err(errno) => format!("/dev/kvm can't be used ({errno})"),
        }
    };
    match wanted {
        AcceleratorArg::Kvm => {
            Err(format!("KVM can't run the host, because {why}: use --accel tcg").into())
        }
        AcceleratorArg::Auto | AcceleratorArg::Tcg => {
            Ok(chosen(Accelerator::Tcg, ADDRESS_BITS, Some(why)))
        }
    }
}

/// Refuses more RAM than this machine has free.
fn check_ram(ram: Bytes) -> Result<(), Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    match kib.map(|kib| Bytes(kib << 10)) {
        Some(free) if ram.0 > free.0 => Err(format!(
            "the host is to have {ram} of RAM, and this machine has {free} available: give less, as \
             in --ram 2G"
        )
        .into()),
        _ => Ok(()),
    }
}

/// The port if nobody listens there; a free one for 0.
pub(crate) fn free_port(port: u16) -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        format!("the port {port} of 127.0.0.1 can't be used: {error}: give another --ssh, or 0 for a free one")
    })?;
    Ok(listener.local_addr()?.port())
}
