//! The agent's applets: what a test does inside the machine, by name.
//!
//! An applet is an ordinary program: arguments, standard input, standard output, exit
//! code. A file for each; this table finds them.

use std::fs;
use std::process::ExitCode;

use serde::Serialize;

pub mod bench;
pub mod bind;
mod differential;
pub mod dma_buf;
pub mod error_event;
pub mod first_touch;
mod hexcopy;
pub mod memory_enable;
pub mod opregion;
mod own_buffer;
pub mod pci_core;
mod pci_memory;
mod ping;
mod poison;
pub mod stress;
mod vfio;
pub mod vfio_info;
pub mod vfio_read;

/// An applet: it gets the arguments after its name.
pub type Applet = fn(&[String]) -> ExitCode;

/// Folder in which `bind` and `vfio-read` make a file, named for the function, right before the
/// operation that may wait.
pub const BEGUN: &str = "/tmp/begun";

/// Folder in which `vfio-read` makes a file, named for the function, once configuration writes have
/// ended beside its read.
pub const WRITTEN: &str = "/tmp/written";

/// Every applet with its name.
const TABLE: &[(&str, Applet)] = &[
    ("bench", bench::run),
    ("bind", bind::run),
    ("differential", differential::run),
    ("dma-buf", dma_buf::run),
    ("error-event", error_event::run),
    ("first-touch", first_touch::run),
    ("hexcopy", hexcopy::run),
    ("memory-enable", memory_enable::run),
    ("opregion", opregion::run),
    ("own-buffer", own_buffer::run),
    ("pci-core", pci_core::run),
    ("pci-memory", pci_memory::run),
    ("ping", ping::run),
    ("poison", poison::run),
    ("stress", stress::run),
    ("vfio-info", vfio_info::run),
    ("vfio-read", vfio_read::run),
];

/// The applet with this name.
#[must_use]
pub fn find(name: &str) -> Option<Applet> {
    TABLE
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, applet)| *applet)
}

/// The names of all applets.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// Makes the function's file in `folder`: [`BEGUN`] or [`WRITTEN`].
fn mark(folder: &str, bdf: &str) -> Result<(), String> {
    let file = format!("{folder}/{bdf}");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, ""))
        .map_err(|error| format!("{file}: {error}"))
}

/// Prints what an applet has found as JSON, or why it has not.
fn answer<T: Serialize>(name: &str, found: Result<T, String>) -> ExitCode {
    match found.and_then(|found| serde_json::to_string(&found).map_err(|error| error.to_string())) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
