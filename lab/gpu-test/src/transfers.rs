//! Transfers by the copy engine, checked by the CPU.

use std::fmt;

use varia_spec::copy_engine::{CHECKSUM_START, checksum, command, status};
use varia_sys::mapping::page_size;
use varia_units::Bytes;

use crate::Failure;
use crate::engine::{Ended, Engine, FROM_GPU, TO_GPU};
use crate::gpu::Gpu;
use crate::pages::{Pages, pattern};

/// Pages of a node that the engine is tried on.
const TRIED: usize = 8;
/// An address that no guest's memory has, and that fits a CPU's.
const NOWHERE: u64 = 1 << 46;

/// Bytes that the engine has moved or read.
pub(crate) struct Moved(Bytes);

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} both ways", self.0)
    }
}

fn expect(what: &str, ended: Ended) -> Result<Ended, Failure> {
    match ended.status {
        status::DONE => Ok(ended),
        status => Err(format!("{what}: status {status:#x} at {:#x}", ended.fault)),
    }
}

/// Has the engine read, write and fill pages of a node, and copy them from and to the guest's memory.
pub(crate) fn both_ways(
    engine: &mut Engine,
    gpu: &Gpu,
    pages: &Pages,
    ram: &Pages,
) -> Result<Moved, Failure> {
    let size = page_size();
    let length = size as u64;
    let mut moved = 0;
    let mut seen = vec![0; size];
    let mut same = |pages: &Pages, offset: usize, bytes: &[u8], what: &str| {
        pages.read(offset, &mut seen)?;
        match seen == bytes {
            true => Ok(()),
            false => Err(format!("{what}: other bytes than were sent")),
        }
    };
    for (round, offset) in pages.offsets().take(TRIED).enumerate() {
        let own = pages.physical(offset)? - gpu.bar4.0;
        let bus = ram.physical(offset)?;
        // The CPU writes, the GPU reads.
        let bytes = pattern(round as u64 + 100, 0, size);
        pages.write(offset, &bytes)?;
        let ended = engine.run(command::CHECKSUM, own, 0, length)?;
        let sum = expect("checksum of a page of the node", ended)?.result;
        if sum != checksum(CHECKSUM_START, &bytes) {
            return Err(format!(
                "the GPU computes {sum:#x} of a page that the CPU wrote"
            ));
        }
        // From the guest's memory into the GPU's.
        let bytes = pattern(round as u64 + 110, 0, size);
        ram.write(offset, &bytes)?;
        expect("copy to the GPU", engine.run(TO_GPU, bus, own, length)?)?;
        same(pages, offset, &bytes, "copy to the GPU")?;
        // A fill by the GPU, and from its memory into the guest's.
        let word = 0x5661_7269_6100_0000 + round as u64;
        engine.fill_with(word)?;
        expect("fill", engine.run(command::FILL, 0, own, length)?)?;
        let bytes: Vec<_> = word.to_le_bytes().into_iter().cycle().take(size).collect();
        same(pages, offset, &bytes, "fill")?;
        expect("copy from the GPU", engine.run(FROM_GPU, own, bus, length)?)?;
        same(ram, offset, &bytes, "copy from the GPU")?;
        if ram.physical(offset)? != bus || pages.physical(offset)? - gpu.bar4.0 != own {
            return Err(
                "the kernel has moved a page while the engine used it: run the program again"
                    .to_owned(),
            );
        }
        moved += 4 * length;
    }
    Ok(Moved(Bytes(moved)))
}

/// Has the engine read and write where no memory is mapped: an error, and nothing changes. The address.
pub(crate) fn fault(engine: &mut Engine, gpu: &Gpu, ram: &Pages) -> Result<u64, Failure> {
    let length = page_size() as u64;
    let node = gpu.nodes.first().ok_or("no node")?;
    let pages = Pages::on(node.number, Bytes(length))?;
    pages.write_pattern(42)?;
    let own = pages.physical(0)? - gpu.bar4.0;
    ram.write_pattern(43)?;
    for (operation, source, destination) in [(TO_GPU, NOWHERE, own), (FROM_GPU, own, NOWHERE)] {
        let ended = engine.run(operation, source, destination, length)?;
        if (ended.status, ended.fault) != (status::NOT_MAPPED, NOWHERE) {
            return Err(format!(
                "DMA to {NOWHERE:#x} ends with status {:#x} at {:#x}, not with an error",
                ended.status, ended.fault
            ));
        }
    }
    pages.check_pattern(42)?;
    ram.check_pattern(43)?;
    Ok(NOWHERE)
}
