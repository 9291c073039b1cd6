//! Reasons why memory is not given to the operating system.

use core::fmt;

use varia_spec::Errno;
use varia_units::{Bytes, HostPhys};
use varia_variant::{
    Sentence,
    TextSegment::{Decimal, Hexadecimal, Size, Text},
};

use crate::domains::{Function, MAX_NODES};

/// Reason why no memory of a device goes to the operating system. Nothing was changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Firmware gives no address, and BAR4 does not exist (`ENODEV`).
    NoMemory,
    /// Firmware gives a base and no size, or a size and no base (`EINVAL`).
    HalfAProperty {
        /// Name of the property that is missing.
        missing: &'static str,
    },
    /// Firmware gives the memory a size of 0: the link to the CPU is down (`ENODEV`).
    LinkDown,
    /// The memory ends beyond 64 bits (`EOVERFLOW`).
    BeyondAddresses {
        /// Address of the first byte.
        base: HostPhys,
        /// Size of the memory.
        size: Bytes,
    },
    /// BAR4 is smaller than a memory block (`ENOSPC`).
    BarBelowBlock {
        /// Size of BAR4.
        bar: Bytes,
        /// Size of a memory block.
        block: Bytes,
    },
    /// No memory responds at the start of BAR4 (`ENXIO`).
    Silent {
        /// Address of BAR4.
        base: HostPhys,
    },
    /// The memory has no whole memory block (`ENOSPC`).
    BelowBlock {
        /// Address of the first byte.
        base: HostPhys,
        /// Size of the memory.
        size: Bytes,
        /// Size of a memory block.
        block: Bytes,
    },
    /// The size of a memory block is not a power of two (`EINVAL`).
    BadBlock {
        /// Size of a memory block.
        block: Bytes,
    },
    /// The SRAT does not exist (`ENODEV`).
    NoSrat,
    /// The SRAT can't be read (`EINVAL`).
    BadSrat {
        /// Offset of the entry.
        offset: u64,
    },
    /// No Generic Initiator of the SRAT names the function (`ENODEV`).
    NoInitiator {
        /// The function.
        function: Function,
        /// Number of Generic Initiators of other functions.
        others: u32,
    },
    /// A proximity domain belongs to two functions (`EBUSY`).
    SharedDomain {
        /// The proximity domain.
        domain: u32,
        /// The other function.
        other: Function,
    },
    /// The function has no proximity domain, or more than are supported (`E2BIG`).
    TooManyDomains {
        /// Number of proximity domains.
        count: u64,
    },
    /// The kernel has no node for a proximity domain (`ENXIO`).
    NoNode {
        /// The proximity domain.
        domain: u32,
        /// Nodes that the kernel supports (`MAX_NUMNODES`).
        max: u32,
    },
    /// A node has memory already (`EBUSY`).
    NodeInUse {
        /// The node.
        node: u32,
        /// Proximity domain of the node.
        domain: u32,
    },
    /// Two proximity domains of the function are one node (`EINVAL`).
    NodeTwice {
        /// The node.
        node: u32,
    },
    /// The option `split=` can't be read (`EINVAL`).
    BadSplit {
        /// Position of the first character that can't be read, from 1.
        position: u64,
    },
    /// The option `split=` names a node twice (`EINVAL`).
    SplitTwice {
        /// The node.
        node: u32,
    },
    /// The option `split=` names a node that is not the device's (`EINVAL`).
    SplitForeignNode {
        /// The node.
        node: u32,
        /// The first node of the device.
        first: u32,
        /// The last node of the device.
        last: u32,
    },
    /// A size of the option `split=` is not whole memory blocks (`EINVAL`).
    SplitNotBlocks {
        /// The node.
        node: u32,
        /// Size that the option gives the node.
        size: Bytes,
        /// Size of a memory block.
        block: Bytes,
    },
    /// The sizes of the option `split=` are not the size of the memory (`EINVAL`).
    SplitSum {
        /// Sum of the sizes; `None` beyond 64 bits.
        sum: Option<Bytes>,
        /// Size of the whole memory blocks.
        usable: Bytes,
    },
}

impl Refusal {
    /// Error number for the caller of the driver's probe.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoMemory | Self::LinkDown | Self::NoSrat | Self::NoInitiator { .. } => {
                Errno::ENODEV
            }
            Self::BeyondAddresses { .. } => Errno::EOVERFLOW,
            Self::BarBelowBlock { .. } | Self::BelowBlock { .. } => Errno::ENOSPC,
            Self::Silent { .. } | Self::NoNode { .. } => Errno::ENXIO,
            Self::SharedDomain { .. } | Self::NodeInUse { .. } => Errno::EBUSY,
            Self::TooManyDomains { .. } => Errno::E2BIG,
            Self::HalfAProperty { .. }
            | Self::BadBlock { .. }
            | Self::BadSrat { .. }
            | Self::NodeTwice { .. }
            | Self::BadSplit { .. }
            | Self::SplitTwice { .. }
            | Self::SplitForeignNode { .. }
            | Self::SplitNotBlocks { .. }
            | Self::SplitSum { .. } => Errno::EINVAL,
        }
    }

    /// Sentence with the values and the remedy.
    pub fn sentence(self) -> Sentence {
        match self {
            Self::NoMemory => Sentence::new([Text(
                "the function has no BAR4 and no firmware property nvidia,gpu-mem-base-pa: bind a GPU with coherent memory",
            )]),
            Self::HalfAProperty { missing } => Sentence::new([
                Text("firmware has one of the memory's properties but not "),
                Text(missing),
                Text(": give both or none"),
            ]),
            Self::LinkDown => Sentence::new([Text(
                "firmware gives the memory a size of 0, so its link to the CPU is down: check the firmware's log",
            )]),
            Self::BeyondAddresses { base, size } => Sentence::new([
                Size(size),
                Text(" at "),
                Hexadecimal(base.0),
                Text(" end beyond 64 bits: correct the firmware's properties"),
            ]),
            Self::BarBelowBlock { bar, block } => Sentence::new([
                Text("BAR4 has "),
                Size(bar),
                Text(", a memory block of this kernel has "),
                Size(block),
                Text(": give the device at least one block of memory"),
            ]),
            Self::Silent { base } => Sentence::new([
                Text("BAR4 at "),
                Hexadecimal(base.0),
                Text(
                    " keeps no byte that is written: wait until the memory is ready, and bind again",
                ),
            ]),
            Self::BelowBlock { base, size, block } => Sentence::new([
                Size(size),
                Text(" at "),
                Hexadecimal(base.0),
                Text(" contain no whole memory block of "),
                Size(block),
                Text(": give the device more memory"),
            ]),
            Self::BadBlock { block } => Sentence::new([
                Text("a memory block of "),
                Size(block),
                Text(" is not a power of two: this kernel can't take the memory"),
            ]),
            Self::NoSrat => Sentence::new([Text(
                "firmware has no SRAT, so the device has no nodes: give each node an acpi-generic-initiator",
            )]),
            Self::BadSrat { offset } => Sentence::new([
                Text("the SRAT's entry at offset "),
                Decimal(offset),
                Text(" does not fit its table: correct the firmware"),
            ]),
            Self::NoInitiator { function, others } => Sentence::new([
                Text("no Generic Initiator of the SRAT names bus "),
                Decimal(function.bus().into()),
                Text(" device "),
                Decimal(function.device().into()),
                Text(" ("),
                Decimal(others.into()),
                Text(
                    " name other functions): give each node an acpi-generic-initiator with this device",
                ),
            ]),
            Self::SharedDomain { domain, other } => Sentence::new([
                Text("proximity domain "),
                Decimal(domain.into()),
                Text(" also belongs to the function on bus "),
                Decimal(other.bus().into()),
                Text(" device "),
                Decimal(other.device().into()),
                Text(": give each GPU nodes of its own"),
            ]),
            Self::TooManyDomains { count } => Sentence::new([
                Text("the function has "),
                Decimal(count),
                Text(" proximity domains: give it 1 to "),
                Decimal(MAX_NODES as u64),
            ]),
            Self::NoNode { domain, max } => Sentence::new([
                Text("proximity domain "),
                Decimal(domain.into()),
                Text(" has no node among the "),
                Decimal(max.into()),
                Text(
                    " that this kernel supports (CONFIG_NODES_SHIFT): give the GPUs fewer nodes, or take another kernel",
                ),
            ]),
            Self::NodeInUse { node, domain } => Sentence::new([
                Text("node "),
                Decimal(node.into()),
                Text(" (proximity domain "),
                Decimal(domain.into()),
                Text(") has memory already: give each GPU nodes of its own, without memory"),
            ]),
            Self::NodeTwice { node } => Sentence::new([
                Text("two proximity domains of the function are node "),
                Decimal(node.into()),
                Text(": correct the SRAT"),
            ]),
            Self::BadSplit { position } => Sentence::new([
                Text("split= can't be read at character "),
                Decimal(position),
                Text(": write first, even, or sizes such as 1:2G,2:512M"),
            ]),
            Self::SplitTwice { node } => Sentence::new([
                Text("split= names node "),
                Decimal(node.into()),
                Text(" twice: name each node once"),
            ]),
            Self::SplitForeignNode { node, first, last } => Sentence::new([
                Text("split= names node "),
                Decimal(node.into()),
                Text(", and the device's nodes are "),
                Decimal(first.into()),
                Text(" to "),
                Decimal(last.into()),
                Text(": name nodes of the device"),
            ]),
            Self::SplitNotBlocks { node, size, block } => Sentence::new([
                Text("split= gives node "),
                Decimal(node.into()),
                Text(" "),
                Size(size),
                Text(", which is not a multiple of a memory block: write multiples of "),
                Size(block),
            ]),
            Self::SplitSum { sum, usable } => Sentence::new([
                Text("split= adds up to "),
                sum.map_or(Text("more than 64 bits hold"), Size),
                Text(": write sizes with the sum "),
                Size(usable),
            ]),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence().fmt(f)
    }
}

impl core::error::Error for Refusal {}
