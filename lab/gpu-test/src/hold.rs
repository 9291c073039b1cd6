//! Memory of a node that a process has while the node's memory is taken away.

use std::path::Path;
use std::thread;
use std::time::Duration;

use varia_sys::mapping::page_size;
use varia_sys::numa;
use varia_units::Bytes;

use crate::Failure;
use crate::gpu::Gpu;
use crate::pages::Pages;

const LENGTH: Bytes = Bytes(4 << 20);

/// Manner in which a process has memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The kernel may move it.
    Held,
    /// The kernel can't move its first page.
    Pinned,
    /// Its first page fails.
    Failed,
}

impl Manner {
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word {
            "hold" => Some(Self::Held),
            "pin" => Some(Self::Pinned),
            "fail" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Allocates on the GPU's first node, and says so; checks the bytes once the file exists. Of memory
/// whose first page fails, it checks the other pages, and uses the first one last: that ends it.
pub(crate) fn until(manner: Manner, file: &Path) -> Result<(), Failure> {
    let gpu = Gpu::find()?;
    let node = gpu.nodes.first().ok_or("no node")?;
    let pages = Pages::on(node.number, LENGTH)?;
    pages.check_place(node)?;
    pages.write_pattern(7)?;
    let pinned = match manner {
        Manner::Held | Manner::Failed => None,
        Manner::Pinned => {
            let pinned = numa::pin(&pages.memory, 0);
            Some(pinned.map_err(|errno| format!("vmsplice: {errno}"))?)
        }
    };
    let word = pinned.as_ref().map_or("held", |_| "pinned");
    let at = pages.physical(0)?;
    println!(
        "{LENGTH} on node {} are {word}, from {at:#x} on",
        node.number
    );
    while !file.exists() {
        thread::sleep(Duration::from_millis(50));
    }
    if manner == Manner::Failed {
        pages.check_pattern_from(page_size(), 7)?;
        println!("the other pages are as before");
        pages.read(0, &mut [0])?;
        return Err("the page that has failed can be read".to_owned());
    }
    pages.check_pattern(7)?;
    let now = numa::node_of(&pages.memory, 0);
    let now = now.map_err(|errno| format!("move_pages: {errno}"))?;
    println!("the bytes are as before, on node {now}");
    drop(pinned);
    Ok(())
}
