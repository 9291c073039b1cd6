//! Plans of machines that play a host: bare GPUs of vfio-user servers, an IOMMU, coherent memory at
//! its own addresses, and firmware's description of that memory.
//!
//! On arm64 the coherent memory is BAR 2 of an `ivshmem-plain` at a function without a function 0 in
//! its slot. No operating system looks there, so that the device does not exist for the guest; a
//! program that firmware runs first (`varia_firmware::early_program`) gives the BAR its address.
//! docs/host.md compares this with other ways.
//!
//! Source: QEMU 11.1 `hw/arm/virt.c` (`extended_memmap`, `virt_set_high_memmap`) and
//! `hw/misc/ivshmem-pci.c` (BAR 2).

use std::path::PathBuf;

use varia_facts::{Arch, Bytes, Host, HostPhys};
use varia_firmware::{AcpiPath, DeviceProperties, Oem, RegisterWrite, ssdt};

use crate::aperture::{aperture_end, aperture_for, window};
use crate::distances::distances;
use crate::error::Error;
use crate::gpu::{CoherentMemory, Gpu, GuestNode, PlannedBar, Source, VirtualFunction};
use crate::limits::{MAX_NODES, SMALL_LINUX_NODES};
use crate::part::Part;
use crate::plan::{Accelerator, Backing, Firmware, Iommu, Plan, SCHEMA, Socket};
use crate::qemu::{Argument, arguments, size};
use crate::request::NODES_PER_GPU;
use crate::topology::Buses;

/// Most RAM with which QEMU leaves the configuration space of PCI at [`ECAM`].
const MOST_RAM: Bytes = Bytes(255 << 30);
/// Configuration space of PCI on the virt machine, above the room for 255 GiB of RAM.
const ECAM: u64 = 0x40_1000_0000;
/// Slot of the IOMMU, and the slot that has no function 0.
const IOMMU_SLOT: u8 = 0x1d;
const HIDDEN_SLOT: u8 = 0x1e;
/// Functions of a slot besides function 0.
const HIDDEN_FUNCTIONS: usize = 7;
/// Registers of a function: command, and BAR 2 with its upper half.
const COMMAND: u64 = 0x04;
const BAR2: u64 = 0x18;
const MEMORY_ENABLE: u32 = 2;

/// A request for a machine that plays a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BareHost {
    /// Name of the machine.
    pub name: String,
    /// Architecture.
    pub arch: Arch,
    /// Accelerator.
    pub accelerator: Accelerator,
    /// Sockets, each a node with its share of CPUs and RAM.
    pub sockets: u32,
    /// CPUs, a multiple of `sockets`.
    pub cpus: u32,
    /// RAM, without coherent memory; a multiple of `sockets` MiB.
    pub ram: Bytes,
    /// GPUs.
    pub gpus: Vec<BareGpu>,
    /// Memory-less nodes for each GPU; `None` for as many as firmware sets aside and Debian's kernels
    /// have room for.
    pub nodes_per_gpu: Option<u32>,
    /// Firmware.
    pub firmware: Firmware,
    /// Bits of a physical address.
    pub address_bits: u32,
}

/// A GPU of such a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BareGpu {
    /// Its socket, from 0.
    pub socket: u32,
    /// Socket of the vfio-user server.
    pub server: PathBuf,
    /// The function's own 64-bit prefetchable BARs.
    pub bars: Vec<PlannedBar>,
    /// Bytes of coherent memory; 0 for a chip without.
    pub memory: Bytes,
}

/// A planned machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BareHostPlan {
    /// Sockets, GPUs and nodes.
    pub plan: Plan,
    /// Coherent memory of each GPU that has any, in the order of the GPUs.
    pub memories: Vec<HiddenMemory>,
    /// SSDT with the GPUs' properties; empty without coherent memory.
    pub table: Vec<u8>,
}

/// Coherent memory of a GPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HiddenMemory {
    /// The GPU, by its place in the list.
    pub gpu: usize,
    /// First address.
    pub base: HostPhys,
    /// Bytes of the file behind it, a power of two and at least the GPU's memory.
    pub file_size: Bytes,
}

impl BareHost {
    /// Plans it.
    ///
    /// # Errors
    /// [`Error::Shares`], [`Error::HostRam`], [`Error::TooManyNodes`], [`Error::TooManyGpus`],
    /// [`Error::Aperture`], [`Error::NoHiddenMemory`].
    pub fn plan(self) -> Result<BareHostPlan, Error> {
        self.check()?;
        let nodes_each = self.nodes_per_gpu();
        let sockets = self.socket_list();
        let gpus = self.gpu_list(nodes_each)?;
        let (aperture, memories) = self.lay_out(&gpus)?;
        let mut notes = Vec::new();
        let has_memory = !memories.is_empty();
        if has_memory && self.nodes_per_gpu.is_none() && nodes_each < NODES_PER_GPU {
            notes.push(format!(
                "firmware sets {NODES_PER_GPU} nodes aside for each GPU; this machine has \
                 {nodes_each}, because Debian's kernels have room for {SMALL_LINUX_NODES} nodes"
            ));
        }
        let nodes = self.sockets + self.gpus.len() as u32 * nodes_each;
        if has_memory && nodes > SMALL_LINUX_NODES {
            notes.push(format!(
                "this machine has {nodes} nodes, and Debian's kernels have room for \
                 {SMALL_LINUX_NODES}: those behind are left out"
            ));
        }
        let plan = Plan {
            schema: SCHEMA.to_owned(),
            name: self.name.clone(),
            arch: self.arch,
            accelerator: self.accelerator,
            distances: distances(&sockets, &gpus, &Host::default(), &[]),
            aperture,
            sockets,
            gpus,
            iommu: Iommu::None,
            firmware: self.firmware.clone(),
            kernel: None,
            disks: Vec::new(),
            notes,
        };
        let table = match has_memory {
            true => properties(&plan, &memories, &self.gpus),
            false => Vec::new(),
        };
        Ok(BareHostPlan {
            plan,
            memories,
            table,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let Self {
            sockets, cpus, ram, ..
        } = *self;
        let each = u64::from(sockets.max(1));
        let is_shared = cpus > 0
            && u64::from(cpus).is_multiple_of(each)
            && ram.0 > 0
            && ram.0.is_multiple_of(each << 20);
        if !is_shared {
            return Err(Error::Shares { sockets, cpus, ram });
        }
        if ram.0 > MOST_RAM.0 {
            let most = MOST_RAM;
            return Err(Error::HostRam { ram, most });
        }
        let with_memory = self.gpus.iter().filter(|gpu| gpu.memory.0 > 0).count();
        let is_possible = self.arch == Arch::Aarch64 && with_memory <= HIDDEN_FUNCTIONS;
        if with_memory > 0 && !is_possible {
            return Err(Error::NoHiddenMemory {
                arch: self.arch,
                gpus: with_memory,
                most: HIDDEN_FUNCTIONS,
            });
        }
        Ok(())
    }

    fn nodes_per_gpu(&self) -> u32 {
        let with_memory = self.gpus.iter().filter(|gpu| gpu.memory.0 > 0).count();
        let count = u32::try_from(with_memory).unwrap_or(u32::MAX);
        let room = SMALL_LINUX_NODES.saturating_sub(self.sockets);
        let fitting = || room.checked_div(count).unwrap_or(0).min(NODES_PER_GPU);
        self.nodes_per_gpu.unwrap_or_else(fitting)
    }

    fn socket_list(&self) -> Vec<Socket> {
        let each = self.cpus / self.sockets.max(1);
        let memory = Bytes(self.ram.0 / u64::from(self.sockets.max(1)));
        (0..self.sockets)
            .map(|node| Socket {
                node: GuestNode(node),
                vcpus: node * each..(node + 1) * each,
                memory,
                backing: Backing::Pages,
                host_node: None,
                pins: Vec::new(),
            })
            .collect()
    }

    fn gpu_list(&self, nodes_each: u32) -> Result<Vec<Gpu>, Error> {
        let mut first = self.sockets;
        let mut buses = Buses::new(0);
        let mut gpus = Vec::new();
        for (index, gpu) in self.gpus.iter().enumerate() {
            let nodes_of_gpu = if gpu.memory.0 > 0 { nodes_each } else { 0 };
            let nodes = first..first.saturating_add(nodes_of_gpu);
            first = nodes.end;
            if first > MAX_NODES {
                let wanted =
                    u64::from(self.sockets) + u64::from(nodes_each) * self.gpus.len() as u64;
                return Err(Error::TooManyNodes { wanted });
            }
            let count = Buses::of(1);
            let bus = buses.free(count).ok_or(Error::TooManyGpus {
                gpus: self.gpus.len(),
            })?;
            buses.take(bus.into(), count);
            gpus.push(Gpu {
                window: window(&gpu.bars)?,
                memory: CoherentMemory {
                    device: VirtualFunction {
                        id: format!("gpu{index}"),
                        bars: gpu.bars.clone(),
                    },
                    source: Source::VfioUser(gpu.server.clone()),
                    nodes,
                },
                socket: GuestNode(gpu.socket),
                bus: Some(bus),
            });
        }
        Ok(gpus)
    }

    /// The aperture, and the coherent memory at its end: firmware gives addresses to BARs from the
    /// aperture's beginning on.
    fn lay_out(&self, gpus: &[Gpu]) -> Result<(Bytes, Vec<HiddenMemory>), Error> {
        let with_memory = self.gpus.iter().enumerate();
        let mut files: Vec<_> = with_memory
            .filter(|(_, gpu)| gpu.memory.0 > 0)
            .map(|(index, gpu)| (index, u128::from(gpu.memory.0).next_power_of_two()))
            .collect();
        let windows = gpus.iter().map(|gpu| gpu.window);
        let hidden: u128 = files.iter().map(|(_, size)| size).sum();
        // The windows stay in the lower half, whatever gaps firmware leaves between them.
        let half = aperture_for(self.arch, windows).max(hidden);
        let aperture = (2 * half).next_power_of_two();
        let end = aperture_end(self.ram, aperture);
        let too_large = || Error::Aperture {
            bars: Error::sizes(gpus.iter().flat_map(|gpu| {
                let bars = gpu.memory.device.bars.iter();
                bars.map(|bar| bar.size)
            })),
            aperture,
            end,
            bits: self.address_bits,
        };
        if end > 1 << self.address_bits.min(63) {
            return Err(too_large());
        }
        // Powers of two at their own alignment, largest first, leave no gaps.
        files.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let mut top = end;
        let mut memories = Vec::new();
        for (gpu, size) in files {
            top -= size;
            let narrow = |number: u128| u64::try_from(number).map_err(|_| too_large());
            memories.push(HiddenMemory {
                gpu,
                base: HostPhys(narrow(top)?),
                file_size: Bytes(narrow(size)?),
            });
        }
        memories.sort_by_key(|memory| memory.gpu);
        let aperture = u64::try_from(aperture).map_err(|_| too_large())?;
        Ok((Bytes(aperture), memories))
    }
}

/// Firmware's properties of the GPUs with coherent memory.
fn properties(plan: &Plan, memories: &[HiddenMemory], gpus: &[BareGpu]) -> Vec<u8> {
    let one = |memory: &HiddenMemory| {
        let gpu = plan.gpus.get(memory.gpu)?;
        // QEMU names a root bus PC and its number.
        let path = format!("\\_SB.PC{:02X}", gpu.bus?);
        let path: AcpiPath = path.parse().ok()?;
        let (base, size) = (memory.base.0, gpus.get(memory.gpu)?.memory.0);
        let nodes = gpu.memory.nodes.clone();
        Some(DeviceProperties::coherent_memory(path, base, size, nodes).behind_root_port())
    };
    let all: Vec<_> = memories.iter().filter_map(one).collect();
    ssdt(&all, Oem::VARIA)
}

impl BareHostPlan {
    /// Writes that give the coherent memory its addresses, for the program that firmware runs first.
    #[must_use]
    pub fn writes(&self) -> Vec<RegisterWrite> {
        let of_memory = |(function, memory): (u64, &HiddenMemory)| {
            let registers = ECAM + (u64::from(HIDDEN_SLOT) << 15) + (function << 12);
            let write = |at, value| RegisterWrite {
                address: registers + at,
                value,
            };
            [
                write(BAR2, memory.base.0 as u32),
                write(BAR2 + 4, (memory.base.0 >> 32) as u32),
                write(COMMAND, MEMORY_ENABLE),
            ]
        };
        (1..).zip(&self.memories).flat_map(of_memory).collect()
    }

    /// QEMU's arguments, without the program's name. `files` has the file behind each of `memories`,
    /// `early` the file of the program that firmware runs first.
    #[must_use]
    pub fn arguments(&self, files: &[PathBuf], early: &str) -> Vec<Argument> {
        let mut out = Vec::new();
        let mut add = |part, option, value: String| {
            out.push(Argument {
                part,
                option,
                value,
            });
        };
        // The IOMMU comes before the devices that it serves. Disk and network are on the machine's
        // own root bus, outside the IOMMU: distributions have its driver as a module.
        let iommu = match self.plan.arch {
            Arch::Aarch64 => format!("virtio-iommu-pci,bus=pcie.0,addr={IOMMU_SLOT:#x}"),
            Arch::X86_64 => "intel-iommu,caching-mode=on".to_owned(),
        };
        add(Part::Iommu, "-device", iommu);
        let bypass = "default-bus-bypass-iommu=on".to_owned();
        add(Part::Iommu, "-machine", bypass);
        if (self.plan.arch, self.plan.accelerator) == (Arch::Aarch64, Accelerator::Tcg) {
            // KVM in the machine
            add(Part::Cpus, "-machine", "virtualization=on".to_owned());
        }
        for (function, (memory, file)) in (1..).zip(self.memories.iter().zip(files)) {
            let id = format!("memory{}", memory.gpu);
            // A comma in a file name is doubled in QEMU's options.
            let path = file.to_string_lossy().replace(',', ",,");
            let bytes = size(memory.file_size);
            let backend =
                format!("memory-backend-file,id={id},size={bytes},share=on,mem-path={path}");
            add(Part::Memory, "-object", backend);
            let device =
                format!("ivshmem-plain,memdev={id},bus=pcie.0,addr={HIDDEN_SLOT:#x}.{function}");
            add(Part::Memory, "-device", device);
        }
        if !self.memories.is_empty() {
            add(Part::Firmware, "-kernel", early.to_owned());
        }
        let mut all = arguments(&self.plan);
        all.extend(out);
        // QEMU merges the options of several -machine, and makes devices in their order.
        all.sort_by_key(|argument| argument.part != Part::Iommu);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn host(arch: Arch, memories: &[u64]) -> BareHost {
        let gpu = |(index, memory): (u32, &u64)| BareGpu {
            socket: index,
            server: format!("/run/gpu{index}").into(),
            bars: vec![PlannedBar {
                index: 2,
                size: Bytes(128 * GIB),
            }],
            memory: Bytes(*memory),
        };
        let sockets = u32::try_from(memories.len()).expect("few");
        BareHost {
            name: "host".to_owned(),
            arch,
            accelerator: Accelerator::Tcg,
            sockets,
            cpus: sockets,
            ram: Bytes(u64::from(sockets) * GIB),
            gpus: (0..).zip(memories).map(gpu).collect(),
            nodes_per_gpu: None,
            firmware: Firmware::Own,
            address_bits: 48,
        }
    }

    #[test]
    fn coherent_memory_lies_at_the_end_of_the_aperture_apart_from_all_windows() {
        for memories in [
            &[96 * GIB][..],
            &[184 * GIB, 184 * GIB],
            &[GIB, 278 * GIB, 4096, 96 * GIB],
        ] {
            let planned = host(Arch::Aarch64, memories).plan().expect("a plan");
            let aperture = planned.plan.aperture.0;
            let windows: u64 = planned.plan.gpus.iter().map(|gpu| gpu.window.0).sum();
            let mut ranges = Vec::new();
            for memory in &planned.memories {
                let (base, size) = (memory.base.0, memory.file_size.0);
                assert!(size >= memories[memory.gpu] && base.is_multiple_of(size));
                assert!(
                    base >= aperture + 2 * windows.min(aperture / 2),
                    "{memories:?}"
                );
                ranges.push((base, base + size));
            }
            ranges.sort_unstable();
            assert!(
                ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0),
                "{ranges:x?}"
            );
            assert_eq!(ranges.last().map(|range| range.1), Some(2 * aperture));
        }
    }

    #[test]
    fn a_bar_gets_its_address_in_two_halves_before_it_is_enabled() {
        let planned = host(Arch::Aarch64, &[GIB, GIB]).plan().expect("a plan");
        let base = planned.memories[1].base.0;
        // function 2 of slot 0x1e on bus 0
        let registers = ECAM + 0xf_2000;
        let expected = [(0x18, base & 0xffff_ffff), (0x1c, base >> 32), (0x04, 2)];
        let seen: Vec<_> = planned.writes()[3..]
            .iter()
            .map(|write| (write.address - registers, u64::from(write.value)))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn nodes_are_as_many_as_a_small_kernel_has_room_for() {
        for (gpus, each) in [(1, 8), (2, 7), (3, 4), (4, 3)] {
            let planned = host(Arch::Aarch64, &vec![GIB; gpus])
                .plan()
                .expect("a plan");
            let nodes = planned.plan.gpus.iter().map(|gpu| gpu.memory.nodes.len());
            assert_eq!(nodes.collect::<Vec<_>>(), vec![each; gpus]);
            assert_eq!(planned.plan.notes.is_empty(), each == 8);
        }
    }

    #[test]
    fn a_machine_that_can_not_be_is_refused() {
        let mut odd = host(Arch::Aarch64, &[GIB, GIB]);
        odd.cpus = 3;
        assert!(matches!(odd.plan(), Err(Error::Shares { .. })));
        let mut large = host(Arch::Aarch64, &[GIB]);
        large.ram = Bytes(256 * GIB);
        assert!(matches!(large.plan(), Err(Error::HostRam { .. })));
        let mut narrow = host(Arch::Aarch64, &[GIB]);
        narrow.address_bits = 40;
        assert!(matches!(narrow.plan(), Err(Error::Aperture { .. })));
        let other = host(Arch::X86_64, &[GIB]);
        assert!(matches!(other.plan(), Err(Error::NoHiddenMemory { .. })));
        let many = host(Arch::Aarch64, &[GIB; 8]);
        assert!(matches!(many.plan(), Err(Error::NoHiddenMemory { .. })));
    }
}
