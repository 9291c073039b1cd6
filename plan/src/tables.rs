//! ACPI tables of a plan, for VMMs without Generic Initiators.

use varia_facts::{Arch, Bdf, Host};
use varia_firmware::{Access, Distances, Domain, MemoryRange, Numa, Processor, ProximityDomain};

use crate::gpu::Gpu;
use crate::plan::Plan;

/// Address of RAM on QEMU's virt machine.
const VIRT_RAM: u64 = 1 << 30;
/// End of low RAM and begin of high RAM on q35.
const Q35_LOW: u64 = 2 << 30;
const Q35_HIGH: u64 = 4 << 30;

impl Gpu {
    /// Address of the function in the guest: behind the only port of its root bus, or behind the
    /// `place`-th port of the first root bus.
    #[must_use]
    pub fn guest_function(&self, place: u8) -> Option<Bdf> {
        let port = self.bus.unwrap_or(place);
        Bdf::new(0, port.checked_add(1)?, 0, 0)
    }
}

impl Plan {
    /// Proximity domains and their distances, with the layout of RAM and bus numbers of QEMU's
    /// machines.
    ///
    /// # Errors
    /// Anything that the tables can't describe.
    pub fn numa(&self) -> Result<Numa, varia_firmware::Error> {
        let mut ram = self.ram_ranges();
        let mut domains = Vec::new();
        for socket in &self.sockets {
            let processor = |cpu| match self.arch {
                Arch::Aarch64 => Processor::Gicc(cpu),
                Arch::X86_64 => Processor::Apic(cpu),
            };
            domains.push(Domain {
                processors: socket.vcpus.clone().map(processor).collect(),
                memory: take(&mut ram, socket.memory.0)?,
                initiators: Vec::new(),
            });
        }
        for (place, gpu) in (0..=u8::MAX).zip(&self.gpus) {
            let initiators: Vec<_> = gpu.guest_function(place).into_iter().collect();
            for _ in gpu.memory.nodes() {
                domains.push(Domain {
                    initiators: initiators.clone(),
                    ..Domain::default()
                });
            }
        }
        let mut distances = Distances::new(domains.len());
        for (from, row) in (0..).zip(&self.distances) {
            for (to, distance) in (0..).zip(row) {
                distances.set(ProximityDomain(from), ProximityDomain(to), *distance)?;
            }
        }
        Numa::new(domains, distances)
    }

    /// Latency and bandwidth of the accesses from the VM's processors to the VM's RAM, where the host
    /// states them for the backing node.
    #[must_use]
    pub fn accesses(&self, host: &Host) -> Vec<Access> {
        let pairs = self
            .sockets
            .iter()
            .flat_map(|from| self.sockets.iter().map(move |to| (from, to)));
        pairs
            .filter_map(|(from, to)| {
                let speed = host.node(to.host_node?)?.speed.as_ref()?;
                speed.from.contains(&from.host_node?).then_some(Access {
                    initiator: ProximityDomain(from.node.0),
                    target: ProximityDomain(to.node.0),
                    nanoseconds: speed.latency,
                    megabytes_per_second: speed.bandwidth,
                })
            })
            .collect()
    }

    /// RAM: first byte and length of each segment.
    fn ram_ranges(&self) -> Vec<(u64, u64)> {
        let ram = self.ram().0;
        match self.arch {
            Arch::Aarch64 => vec![(VIRT_RAM, ram)],
            Arch::X86_64 if ram <= Q35_LOW => vec![(0, ram)],
            Arch::X86_64 => vec![(0, Q35_LOW), (Q35_HIGH, ram - Q35_LOW)],
        }
    }
}

/// Takes `length` bytes from the front of `pieces`.
fn take(
    pieces: &mut Vec<(u64, u64)>,
    mut length: u64,
) -> Result<Vec<MemoryRange>, varia_firmware::Error> {
    let mut taken = Vec::new();
    while let Some((base, there)) = pieces.first_mut().filter(|_| length > 0) {
        let part = length.min(*there);
        taken.push(MemoryRange::new(*base, part)?);
        (*base, *there, length) = (*base + part, *there - part, length - part);
        if *there == 0 {
            pieces.remove(0);
        }
    }
    Ok(taken)
}
