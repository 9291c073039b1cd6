// SPDX-License-Identifier: GPL-2.0-only
//! Rust half of `varia-coherent-memory.ko`: the decisions of `varia_placement` behind a C ABI.
//!
//! It decides and never acts; the C half beside it looks facts up, adds memory and takes it away. The
//! rules are those of `kernel/rust`: integers and structs of integers cross the border, no pointer is
//! kept, no kernel function is called, and no panic is reachable.
#![cfg_attr(not(test), no_std)]

#[path = "../../rust/src/abi.rs"]
pub mod abi;
#[cfg(target_os = "none")]
#[path = "../../rust/src/panic.rs"]
mod panic;
#[cfg(test)]
#[path = "../../rust/src/rendered.rs"]
mod rendered;
#[path = "../../rust/src/text.rs"]
mod text;

#[cfg(test)]
#[path = "border_tests.rs"]
mod tests;

use core::slice;

use abi::{c_constants, c_functions, c_structs};
use text::Text;
use varia_placement::{
    Domains, Extent, Function, MAX_NODES, Memory, Node, Placement, Refusal, Search, Share, Split,
};
use varia_spec::Errno;
use varia_spec::nvidia::property;
use varia_units::{Bytes, HostPhys, PageShift};

c_constants! {
    /// The most nodes of a device.
    MAX_SHARES: u32 = MAX_NODES as u32;
    /// Bytes of a line of the log, with its NUL.
    TEXT_LEN: usize = 256;
    /// Firmware states the memory: no search is needed.
    EXTENT_FIRMWARE: i32 = 0;
    /// The memory begins where BAR4 does, and its end is to be searched.
    EXTENT_BAR: i32 = 1;
    /// Index of the property that is the memory's address.
    PROPERTY_BASE: u32 = 0;
    /// Index of the property that is the memory's size.
    PROPERTY_SIZE: u32 = 1;
    /// Index of the property that is the first proximity domain.
    PROPERTY_PXM_START: u32 = 2;
    /// Index of the property that is the number of proximity domains.
    PROPERTY_PXM_COUNT: u32 = 3;
    /// The number of properties.
    PROPERTIES: u32 = 4;
    /// Bytes of a property's name, with its NUL.
    NAME_LEN: usize = 32;
}

c_structs! {
    /// Memory: address and number of bytes.
    coherent_memory RawMemory {
        /// Address of the first byte.
        base: u64,
        /// Number of bytes.
        size: u64,
    }

    /// Facts of a device and of the kernel.
    coherent_facts Facts {
        /// Values of the firmware's properties.
        property: [u64; 4],
        /// 0, or the error of a property's lookup as a positive number.
        property_errno: [u32; 4],
        /// BAR4; a size of 0 if it does not exist.
        bar4: RawMemory,
        /// BAR2; a size of 0 if it does not exist.
        bar2: RawMemory,
        /// Bytes of a memory block.
        block: u64,
        /// MAX_NUMNODES.
        max_nodes: u32,
        /// Log2 of the page size.
        page_shift: u32,
        /// PCI segment of the device.
        segment: u32,
        /// Bus in bits 8 to 15, device and function number below.
        bdf: u32,
    }

    /// A search for the end of the memory in BAR4; zeros begin it.
    coherent_search RawSearch {
        /// Pages that are memory.
        kept: u64,
        /// The first page that is not memory.
        lost: u64,
        /// Not 0 once the search has begun.
        begun: u64,
    }

    /// A node of a proximity domain.
    coherent_node RawNode {
        /// Negative if the kernel has none.
        number: i32,
        /// Not 0 if the node has memory.
        has_memory: u32,
    }

    /// Memory that a node gets; a size of 0 for no memory.
    coherent_share RawShare {
        /// Memory of the node.
        memory: RawMemory,
        /// Number of the node.
        node: u32,
        /// 0.
        reserved: u32,
    }

    /// Shares of all nodes.
    coherent_placement RawPlacement {
        /// Shares in rising addresses.
        share: [RawShare; 16],
        /// Bytes before the first memory block.
        head: u64,
        /// Bytes behind the last memory block.
        tail: u64,
        /// Number of shares.
        count: u32,
        /// 0.
        reserved: u32,
    }
}

impl From<RawMemory> for Memory {
    fn from(raw: RawMemory) -> Self {
        Self {
            base: HostPhys(raw.base),
            size: Bytes(raw.size),
        }
    }
}

impl From<Memory> for RawMemory {
    fn from(memory: Memory) -> Self {
        Self {
            base: memory.base.0,
            size: memory.size.0,
        }
    }
}

impl Facts {
    /// Outcome of a property's lookup.
    fn property(&self, index: u32) -> Result<u64, Errno> {
        let index = index as usize;
        let errno = self.property_errno.get(index).copied().unwrap_or(1);
        match i32::try_from(errno) {
            Ok(0) => Ok(self.property.get(index).copied().unwrap_or(0)),
            Ok(errno) => Err(Errno::new(errno).unwrap_or(Errno::EIO)),
            Err(_) => Err(Errno::EIO),
        }
    }

    fn page(&self) -> PageShift {
        PageShift::new(self.page_shift).unwrap_or(PageShift::KIB_64)
    }
}

const EMPTY: RawShare = RawShare {
    memory: RawMemory { base: 0, size: 0 },
    node: 0,
    reserved: 0,
};

/// Writes a refusal's sentence, and returns its negative error number.
fn refuse(text: Option<&mut [u8]>, refusal: Refusal) -> i32 {
    if let Some(bytes) = text {
        Text::new(bytes).sentence(&refusal.sentence());
    }
    -refusal.errno().get()
}

const INVALID: i32 = -Errno::EINVAL.get();

/// Borrows `len` bytes of the caller.
///
/// # Safety
/// The pointer is null or names as many bytes, which only the caller uses during `'a`.
unsafe fn bytes<'a>(text: *mut u8, len: u32) -> Option<&'a mut [u8]> {
    // SAFETY: as this function's.
    (!text.is_null()).then(|| unsafe { slice::from_raw_parts_mut(text, len as usize) })
}

/// Borrows `count` values of the caller.
///
/// # Safety
/// The pointer is null or names as many values, which nothing writes during `'a`.
unsafe fn values<'a, T>(list: *const T, count: u32) -> Option<&'a [T]> {
    // SAFETY: as this function's.
    (!list.is_null()).then(|| unsafe { slice::from_raw_parts(list, count as usize) })
}

c_functions! {
    /// Name of a firmware property, which ends with a NUL; -EINVAL for an index beyond the last.
    fn coherent_property(index: u32, name: *mut u8, len: u32) -> i32 {
        let known = match index {
            PROPERTY_BASE => property::MEM_BASE_PA,
            PROPERTY_SIZE => property::MEM_SIZE,
            PROPERTY_PXM_START => property::MEM_PXM_START,
            PROPERTY_PXM_COUNT => property::MEM_PXM_COUNT,
            _ => return INVALID,
        };
        // SAFETY: as the contract says.
        match unsafe { bytes(name, len) } {
            Some(bytes) => {
                Text::new(bytes).str(known);
                0
            }
            None => INVALID,
        }
    }

    /// Place of the memory: VARIA_EXTENT_*, or a negative errno with its sentence.
    fn coherent_extent(
        facts: *const Facts,
        memory: *mut RawMemory,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        // SAFETY: as the contract says.
        let (facts, memory) = unsafe { (facts.as_ref(), memory.as_mut()) };
        let (Some(facts), Some(memory)) = (facts, memory) else {
            return INVALID;
        };
        let found = Extent::find(
            facts.property(PROPERTY_BASE),
            facts.property(PROPERTY_SIZE),
            facts.bar4.into(),
            Bytes(facts.block),
        );
        match found {
            Ok(Extent::Firmware(found)) => {
                *memory = found.into();
                EXTENT_FIRMWARE
            }
            Ok(Extent::Bar(found)) => {
                *memory = found.into();
                EXTENT_BAR
            }
            // SAFETY: as the contract says.
            Err(refusal) => refuse(unsafe { bytes(text, len) }, refusal),
        }
    }

    /// Offset of the word to try next in BAR4, after the outcome of the last one (ignored at
    /// the begin): 1 if there is one, 0 at the end of the search.
    fn coherent_search_next(
        facts: *const Facts,
        search: *mut RawSearch,
        keeps: u32,
        offset: *mut u64,
    ) -> i32 {
        // SAFETY: as the contract says.
        let (facts, raw) = unsafe { (facts.as_ref(), search.as_mut()) };
        // SAFETY: as the contract says.
        let (Some(facts), Some(raw), Some(offset)) = (facts, raw, unsafe { offset.as_mut() }) else {
            return INVALID;
        };
        let search = match raw.begun {
            0 => Search::new(Bytes(facts.bar4.size), facts.page()),
            _ => Search::resume(facts.page(), (raw.kept, raw.lost)).tried(keeps != 0),
        };
        (raw.kept, raw.lost) = search.state();
        raw.begun = 1;
        match search.next() {
            Some(next) => {
                *offset = next;
                1
            }
            None => 0,
        }
    }

    /// Memory that a search has found; a negative errno with its sentence if there is none.
    fn coherent_search_found(
        facts: *const Facts,
        search: *const RawSearch,
        memory: *mut RawMemory,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        // SAFETY: as the contract says.
        let (facts, raw) = unsafe { (facts.as_ref(), search.as_ref()) };
        // SAFETY: as the contract says.
        let (Some(facts), Some(raw), Some(memory)) = (facts, raw, unsafe { memory.as_mut() }) else {
            return INVALID;
        };
        let search = Search::resume(facts.page(), (raw.kept, raw.lost));
        match search.found(HostPhys(facts.bar4.base)) {
            Ok(found) => {
                *memory = found.into();
                0
            }
            // SAFETY: as the contract says.
            Err(refusal) => refuse(unsafe { bytes(text, len) }, refusal),
        }
    }

    /// Proximity domains of the device, from firmware's properties or from the SRAT (null if it does
    /// not exist): their number, at most VARIA_MAX_SHARES, or a negative errno with its sentence.
    fn coherent_domains(
        facts: *const Facts,
        srat: *const u8,
        srat_len: u32,
        domains: *mut u32,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        // SAFETY: as the contract says; `domains` names VARIA_MAX_SHARES values.
        let (facts, srat) = unsafe { (facts.as_ref(), values(srat, srat_len)) };
        let Some(facts) = facts.filter(|_| !domains.is_null()) else {
            return INVALID;
        };
        // SAFETY: checked above, and as the contract says.
        let list = unsafe { slice::from_raw_parts_mut(domains, MAX_NODES) };
        let start = facts.property(PROPERTY_PXM_START);
        let found = match (start, facts.property(PROPERTY_PXM_COUNT)) {
            (Ok(start), Ok(count)) => Domains::of_properties(start, count),
            _ => {
                let function = Function {
                    segment: facts.segment as u16,
                    bdf: facts.bdf as u16,
                };
                Domains::of_srat(srat, function)
            }
        };
        match found {
            Ok(found) => {
                let found = found.as_slice();
                list.iter_mut().zip(found).for_each(|(slot, domain)| *slot = *domain);
                found.len() as i32
            }
            // SAFETY: as the contract says.
            Err(refusal) => refuse(unsafe { bytes(text, len) }, refusal),
        }
    }

    /// Places the memory on the nodes, which are in the order of the domains: 0, or a negative errno
    /// with its sentence.
    fn coherent_place(
        facts: *const Facts,
        memory: *const RawMemory,
        domains: *const u32,
        nodes: *const RawNode,
        count: u32,
        split: *const u8,
        split_len: u32,
        placement: *mut RawPlacement,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        // SAFETY: as the contract says; lists have `count` values.
        let (facts, memory) = unsafe { (facts.as_ref(), memory.as_ref()) };
        // SAFETY: as above.
        let (domains, nodes) = unsafe { (values(domains, count), values(nodes, count)) };
        // SAFETY: as above.
        let (split, placement) = unsafe { (values(split, split_len), placement.as_mut()) };
        let (Some(facts), Some(memory), Some(placement)) = (facts, memory, placement) else {
            return INVALID;
        };
        let (Some(domains), Some(nodes)) = (domains, nodes) else {
            return INVALID;
        };
        match place(facts, *memory, domains, nodes, split.unwrap_or_default(), placement) {
            Ok(()) => 0,
            // SAFETY: as the contract says.
            Err(refusal) => refuse(unsafe { bytes(text, len) }, refusal),
        }
    }

    /// A line of the log about a placement, from 0 on; 0 beyond the last one, else 1.
    fn coherent_line(
        index: u32,
        facts: *const Facts,
        memory: *const RawMemory,
        placement: *const RawPlacement,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        // SAFETY: as the contract says.
        let (facts, memory) = unsafe { (facts.as_ref(), memory.as_ref()) };
        // SAFETY: as the contract says.
        let (placement, text) = unsafe { (placement.as_ref(), bytes(text, len)) };
        let (Some(facts), Some(memory), Some(placement)) = (facts, memory, placement) else {
            return 0;
        };
        let Some(text) = text else { return 0 };
        i32::from(line(index, facts, *memory, placement, &mut Text::new(text)))
    }

    /// Sentence about memory of a node that could not be taken away, for the errno of the kernel
    /// (negative).
    fn coherent_held(share: *const RawShare, errno: i32, text: *mut u8, len: u32) {
        // SAFETY: as the contract says.
        let (share, text) = unsafe { (share.as_ref(), bytes(text, len)) };
        let (Some(share), Some(text)) = (share, text) else {
            return;
        };
        held(share, errno, &mut Text::new(text));
    }
}

/// Outside its caller, and apart from the conversions of its result: the kernel's stack is small.
#[inline(never)]
fn place(
    facts: &Facts,
    memory: RawMemory,
    domains: &[u32],
    nodes: &[RawNode],
    split: &[u8],
    to: &mut RawPlacement,
) -> Result<(), Refusal> {
    let domains = Domains::of_list(domains)?;
    let mut list = [Node {
        number: -1,
        has_memory: false,
    }; MAX_NODES];
    for (slot, node) in list.iter_mut().zip(nodes) {
        *slot = Node {
            number: node.number,
            has_memory: node.has_memory != 0,
        };
    }
    let split = Split::parse(split)?;
    let placed = Placement::plan(
        memory.into(),
        Bytes(facts.block),
        &domains,
        &list,
        facts.max_nodes,
        &split,
    )?;
    to.head = placed.head.0;
    to.tail = placed.tail.0;
    to.count = 0;
    let mut shares = placed.shares();
    for slot in &mut to.share {
        *slot = match shares.next() {
            Some(Share { node, memory }) => {
                to.count = to.count.wrapping_add(1);
                RawShare {
                    memory: memory.into(),
                    node,
                    reserved: 0,
                }
            }
            None => EMPTY,
        };
    }
    Ok(())
}

/// The lines: the whole, each node, and what is left out.
fn line(
    index: u32,
    facts: &Facts,
    memory: RawMemory,
    placement: &RawPlacement,
    text: &mut Text<'_>,
) -> bool {
    let count = placement.count;
    if index == 0 {
        text.str("usemem: ")
            .size(Bytes(memory.size))
            .str(" at ")
            .hex(memory.base);
        if facts.bar2.size > 0 {
            text.str("; resmem, which stays the device's: BAR2, ")
                .size(Bytes(facts.bar2.size))
                .str(" at ")
                .hex(facts.bar2.base);
        }
        return true;
    }
    let share = placement.share.get(index.wrapping_sub(1) as usize);
    if let Some(share) = share.filter(|_| index <= count) {
        text.str("node ")
            .dec(share.node.into())
            .str(" gets ")
            .size(Bytes(share.memory.size))
            .str(" at ")
            .hex(share.memory.base);
        return true;
    }
    if index != count.wrapping_add(1) || (placement.head == 0 && placement.tail == 0) {
        return false;
    }
    text.str("left out, because memory comes in blocks of ")
        .size(Bytes(facts.block))
        .str(": ")
        .size(Bytes(placement.head))
        .str(" at the start, ")
        .size(Bytes(placement.tail))
        .str(" at the end");
    true
}

fn held(share: &RawShare, errno: i32, text: &mut Text<'_>) {
    text.str("node ")
        .dec(share.node.into())
        .str(" keeps ")
        .size(Bytes(share.memory.size))
        .str(" at ")
        .hex(share.memory.base)
        .str(": ");
    let known = errno.checked_neg().and_then(Errno::new);
    match known {
        Some(Errno::EINTR) => text.str(
            "pages in use could not be moved in time: end the processes that /proc/PID/numa_maps \
             shows on the node, and those that have pinned its memory, then bind and unbind again",
        ),
        Some(Errno::EBUSY) => text.str(
            "pages in use can't be moved, because the kernel or a device holds them: end what uses \
             the node (/proc/PID/numa_maps), then bind and unbind again",
        ),
        Some(errno) => text
            .str("the kernel does not take the memory away (")
            .str(errno.name())
            .str("): see the kernel's log, then bind and unbind again"),
        None => text.str("the kernel does not take the memory away: see the kernel's log"),
    };
}
