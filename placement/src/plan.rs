//! Memory blocks for each node.

use varia_units::{Bytes, HostPhys};

use crate::domains::{Domains, MAX_NODES};
use crate::extent::{Memory, end};
use crate::refusal::Refusal;
use crate::split::Split;

/// A node of a device, as the kernel knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// Number of the node; negative if the kernel has none for the proximity domain.
    pub number: i32,
    /// The node has memory.
    pub has_memory: bool,
}

/// Memory that a node gets; whole blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Number of the node.
    pub node: u32,
    /// Memory of the node.
    pub memory: Memory,
}

/// Memory of every node, and what is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    shares: [Option<Share>; MAX_NODES],
    /// Bytes before the first whole block.
    pub head: Bytes,
    /// Bytes behind the last whole block.
    pub tail: Bytes,
}

impl Placement {
    /// Places the whole blocks of `memory` on the nodes of the device, of which the kernel supports
    /// `max`. `nodes` are in the order of `domains`. Blocks go to nodes in rising addresses, and, unless the
    /// split has an order of its own, in the rising order of the nodes' numbers.
    ///
    /// # Errors
    /// [`Refusal`]: every one that concerns blocks, nodes or the split.
    // A frame of its own: the stack of a kernel is small.
    #[inline(never)]
    pub fn plan(
        memory: Memory,
        block: Bytes,
        domains: &Domains,
        nodes: &[Node],
        max: u32,
        split: &Split,
    ) -> Result<Self, Refusal> {
        let whole = Whole::of(memory, block)?;
        let numbers = Numbers::of(domains, nodes, max)?;
        let mut placement = Self {
            shares: [None; MAX_NODES],
            head: whole.head,
            tail: whole.tail,
        };
        match split {
            Split::First => placement.fill(&whole, |index| {
                (index == 0).then_some((numbers.first(), whole.blocks))
            }),
            Split::Even => {
                let count = numbers.count as u64;
                let each = whole.blocks.checked_div(count).unwrap_or(0);
                let more = whole.blocks.checked_rem(count).unwrap_or(0);
                placement.fill(&whole, |index| {
                    let node = numbers.get(index)?;
                    let extra = u64::from((index as u64) < more);
                    Some((node, each.saturating_add(extra)))
                });
            }
            Split::Sizes(sizes) => {
                whole.check(sizes, &numbers)?;
                placement.fill(&whole, |index| {
                    let (node, size) = sizes.get(index).copied().flatten()?;
                    Some((node, size.0 >> whole.shift))
                });
            }
        }
        Ok(placement)
    }

    /// Shares in rising addresses, none of them empty.
    pub fn shares(&self) -> impl Iterator<Item = Share> + '_ {
        self.shares.iter().flatten().copied()
    }

    /// Gives the nodes their blocks, one node behind the other.
    fn fill(&mut self, whole: &Whole, of: impl Fn(usize) -> Option<(u32, u64)>) {
        let mut at = whole.start;
        let mut slots = self.shares.iter_mut();
        for index in 0..MAX_NODES {
            let Some((node, blocks)) = of(index).filter(|(_, blocks)| *blocks > 0) else {
                continue;
            };
            let size = Bytes(blocks << whole.shift);
            let base = HostPhys(at);
            at = at.wrapping_add(size.0);
            if let Some(slot) = slots.next() {
                let memory = Memory { base, size };
                *slot = Some(Share { node, memory });
            }
        }
    }
}

/// The whole blocks of a memory.
struct Whole {
    start: u64,
    blocks: u64,
    /// Log2 of the size of a block.
    shift: u32,
    head: Bytes,
    tail: Bytes,
}

impl Whole {
    fn of(memory: Memory, block: Bytes) -> Result<Self, Refusal> {
        let Memory { base, size } = memory;
        if !block.0.is_power_of_two() {
            return Err(Refusal::BadBlock { block });
        }
        let below = Refusal::BelowBlock { base, size, block };
        let end = end(memory)?;
        let start = base.0.checked_next_multiple_of(block.0).ok_or(below)?;
        let shift = block.0.trailing_zeros();
        let blocks = end.checked_sub(start).map_or(0, |bytes| bytes >> shift);
        if blocks == 0 {
            return Err(below);
        }
        Ok(Self {
            start,
            blocks,
            shift,
            head: Bytes(start.wrapping_sub(base.0)),
            tail: Bytes(end.wrapping_sub(start) & block.0.wrapping_sub(1)),
        })
    }

    fn size(&self) -> Bytes {
        Bytes(self.blocks << self.shift)
    }

    /// Checks the sizes of an option: nodes of the device, whole blocks, and the sum.
    fn check(
        &self,
        sizes: &[Option<(u32, Bytes)>; MAX_NODES],
        numbers: &Numbers,
    ) -> Result<(), Refusal> {
        let block = Bytes(1 << self.shift);
        let mut sum = Some(0_u64);
        for (node, size) in sizes.iter().flatten().copied() {
            if !numbers.as_slice().contains(&node) {
                let (first, last) = numbers.range();
                return Err(Refusal::SplitForeignNode { node, first, last });
            }
            if size.0 & block.0.wrapping_sub(1) != 0 {
                return Err(Refusal::SplitNotBlocks { node, size, block });
            }
            sum = sum.and_then(|sum| sum.checked_add(size.0));
        }
        let (sum, usable) = (sum.map(Bytes), self.size());
        if sum != Some(usable) {
            return Err(Refusal::SplitSum { sum, usable });
        }
        Ok(())
    }
}

/// Numbers of the nodes, in rising order: a kernel may number nodes in another order than domains.
struct Numbers {
    list: [u32; MAX_NODES],
    count: usize,
}

impl Numbers {
    fn of(domains: &Domains, nodes: &[Node], max: u32) -> Result<Self, Refusal> {
        let mut numbers = Self {
            list: [0; MAX_NODES],
            count: 0,
        };
        for (index, domain) in domains.as_slice().iter().copied().enumerate() {
            let missing = Refusal::NoNode { domain, max };
            let node = nodes.get(index).ok_or(missing)?;
            let number = u32::try_from(node.number).map_err(|_| missing)?;
            if number >= max {
                return Err(missing);
            }
            if numbers.as_slice().contains(&number) {
                return Err(Refusal::NodeTwice { node: number });
            }
            if node.has_memory {
                return Err(Refusal::NodeInUse {
                    node: number,
                    domain,
                });
            }
            let mut carried = number;
            for slot in numbers.list.iter_mut().take(numbers.count) {
                if *slot > carried {
                    core::mem::swap(slot, &mut carried);
                }
            }
            if let Some(slot) = numbers.list.get_mut(numbers.count) {
                *slot = carried;
            }
            numbers.count = numbers.count.saturating_add(1);
        }
        match numbers.count {
            0 => Err(Refusal::TooManyDomains { count: 0 }),
            _ => Ok(numbers),
        }
    }

    fn as_slice(&self) -> &[u32] {
        self.list.get(..self.count).unwrap_or_default()
    }

    fn get(&self, index: usize) -> Option<u32> {
        self.as_slice().get(index).copied()
    }

    fn first(&self) -> u32 {
        self.get(0).unwrap_or(0)
    }

    /// The lowest and the highest number.
    fn range(&self) -> (u32, u32) {
        let last = self.as_slice().last().copied();
        (self.first(), last.unwrap_or(0))
    }
}
