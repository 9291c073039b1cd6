//! `varia-gpu-test [MIB]`: a guest uses the memory of its GPU. `varia-gpu-test hold|pin|fail
//! FILE`: a process has memory of the GPU until a file exists.
//!
//! The guest driver (`varia_coherent_memory`) has added the memory to the GPU's NUMA nodes. This
//! program allocates on each of these nodes, writes and checks patterns, drives the GPU's copy engine
//! in both directions if the GPU has one, and compares accesses to each node with accesses to the
//! guest's own memory. It prints a table, and exits with 1 on any fault.
//!
//! | module | contents |
//! |---|---|
//! | `gpu` | the function, its nodes and its BARs, in sysfs |
//! | `pages` | memory on a node, with patterns |
//! | `engine` | the registers of the copy engine |
//! | `transfers` | copies, checksums and faults of the engine |
//! | `speed` | accesses to two memories, side by side |
//! | `hold` | memory of a node that a process has, pinned or not, while it is taken away or fails |

mod engine;
mod gpu;
mod hold;
mod pages;
mod speed;
mod transfers;

use std::process::ExitCode;

use gpu::Gpu;
use pages::Pages;
use varia_units::Bytes;

/// Error for people.
type Failure = String;

/// MiB that are allocated on each node, if no number is given.
const DEFAULT_MIB: u64 = 16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("varia-gpu-test: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if let Some(manner) = first.as_deref().and_then(hold::Manner::of) {
        let file = arguments.next();
        let file = file.ok_or("no file is named: usage: varia-gpu-test hold|pin|fail FILE")?;
        return hold::until(manner, file.as_ref());
    }
    let mib = match first {
        None => DEFAULT_MIB,
        Some(text) => text
            .parse()
            .ok()
            .filter(|mib| (1..1 << 20).contains(mib))
            .ok_or_else(|| {
                format!(
                    "{text:?} is not a number of MiB: usage: varia-gpu-test [MIB], or \
                     varia-gpu-test hold|pin|fail FILE"
                )
            })?,
    };
    let gpu = Gpu::find()?;
    println!("{} with memory on {} nodes", gpu.address, gpu.nodes.len());
    let length = Bytes(mib << 20);
    let ram = Pages::on(gpu.ram, length)?;
    ram.write_pattern(0)?;
    let mut engine = engine::Engine::open(&gpu)?;
    println!("node  memory       checked   GPU/RAM  copy engine");
    for node in &gpu.nodes {
        let pages = Pages::on(node.number, length)?;
        pages.check_place(node)?;
        pages.write_pattern(u64::from(node.number))?;
        pages.check_pattern(u64::from(node.number))?;
        let driven = match &mut engine {
            None => "none".to_owned(),
            Some(engine) => transfers::both_ways(engine, &gpu, &pages, &ram)?.to_string(),
        };
        let ratio = speed::compare(&pages, &ram)?;
        println!(
            "{:>4}  {:<12} {:<9} {ratio:<8.2} {driven}",
            node.number,
            node.size.rounded().to_string(),
            length.rounded().to_string(),
        );
    }
    if let Some(engine) = &mut engine {
        let address = transfers::fault(engine, &gpu, &ram)?;
        println!("DMA to {address:#x}, which is not mapped: an error, and nothing was written");
        println!(
            "{} commands, {} interrupts",
            engine.commands(),
            engine.interrupts()?
        );
    }
    println!("all of it as it should be");
    Ok(())
}
