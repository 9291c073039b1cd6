//! A chip as data.
//!
//! Each value says where it comes from: [`Mark::Sourced`] for what a public document, listing or
//! driver shows, [`Mark::Assumed`] for what is plausible and nothing more. No Grace hardware has
//! been looked at to write this.

mod gb200;
mod gh200;

use varia_core::{BarSpec, HostPhys};
use varia_spec::{nvidia, pci::ext_cap};

use crate::error::UnknownProfile;

/// Every profile, by age of the chip.
pub const ALL: [&Profile; 2] = [&gh200::PROFILE, &gb200::PROFILE];

/// Where a fact comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// A public source shows it.
    Sourced(&'static str),
    /// It is not public; why this value was taken.
    Assumed(&'static str),
}

/// A value and where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub mark: Mark,
}

impl<T> Fact<T> {
    const fn sourced(value: T, source: &'static str) -> Self {
        Self {
            value,
            mark: Mark::Sourced(source),
        }
    }

    const fn assumed(value: T, why: &'static str) -> Self {
        Self {
            value,
            mark: Mark::Assumed(why),
        }
    }
}

/// A chip, with the board and firmware around it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What it is asked for by, in lower case.
    pub name: &'static str,
    /// What it is called in full.
    pub title: &'static str,
    /// PCI device id, under NVIDIA's vendor id.
    pub device_id: Fact<u16>,
    /// PCI revision.
    pub revision: Fact<u8>,
    /// PCI class, 24 bits: class, subclass, programming interface.
    pub class: Fact<u32>,
    /// Subsystem id, under NVIDIA's vendor id.
    pub subsystem_id: Fact<u16>,
    /// Interrupt pin: 1 for INTA, 0 for none.
    pub interrupt_pin: Fact<u8>,
    /// The BARs, by rising index.
    pub bars: &'static [Fact<Bar>],
    /// The capabilities, conventional and extended, each list in its order.
    pub capabilities: &'static [Fact<Capability>],
    /// Coherent memory, in bytes, unless another size is asked for.
    pub memory: Fact<u64>,
    /// Where the coherent memory begins, unless another address is asked for.
    pub memory_base: Fact<HostPhys>,
    /// First proximity domain that firmware sets aside for the memory.
    pub pxm_start: Fact<u64>,
    /// How many proximity domains it sets aside.
    pub pxm_count: Fact<u64>,
}

/// A base address register and what is behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// 0 to 5; a 64-bit BAR takes the next as well.
    pub index: u8,
    /// What it decodes.
    pub spec: BarSpec,
    /// What answers.
    pub content: Content,
}

/// What is behind a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Registers: the readiness registers, the MSI-X table, and bytes that keep what is written
    /// until a reset.
    Registers,
    /// Bytes that keep what is written, and that can be mapped.
    Memory,
}

/// A capability and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Offset in configuration space; from 0x100 on it is an extended capability.
    pub offset: u16,
    /// What it says.
    pub body: Body,
}

/// What a capability says; what is not named here is in `config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Power management: D0 and D3hot, no soft reset between them, no events.
    Power,
    /// MSI, 64-bit and maskable.
    Message {
        /// Vectors asked for, a power of two.
        vectors: u16,
    },
    /// An endpoint with function-level reset.
    Express {
        /// Link speed as its code: 5 is 32 GT/s.
        speed: u8,
        /// Lanes.
        lanes: u8,
    },
    /// Vendor-specific, its body zero.
    Vendor {
        /// Bytes in all.
        len: u8,
    },
    /// MSI-X in BAR 0.
    MessageX {
        /// Vectors.
        vectors: u16,
        /// Offset of the table in BAR 0.
        table: u32,
        /// Offset of the pending bits in BAR 0.
        pending: u32,
    },
    /// Secondary PCI Express.
    SecondaryExpress {
        /// Lanes.
        lanes: u8,
    },
    /// Latency tolerance reporting.
    Latency,
    /// Resizable BAR, with one size to choose from.
    ResizableBar {
        /// Which BAR.
        bar: u8,
    },
    /// Advanced error reporting.
    Errors,
    /// Vendor-specific, extended, its body zero.
    ExtVendor {
        /// Vendor's id for it.
        id: u16,
        /// Its revision.
        revision: u8,
        /// Bytes in all.
        len: u16,
    },
    /// Power budgeting with empty data.
    PowerBudget,
    /// Device serial number.
    Serial(u64),
    /// NVIDIA's register DVSEC.
    NvidiaRegisters {
        /// The feature bits at +0xA.
        bitmap: u16,
    },
    /// The CXL Device DVSEC, whose range 1 tells when the memory is ready.
    CxlDevice {
        /// Memory_Active_Timeout, 0 to 4: 1, 4, 16, 64 or 256 s.
        timeout: u8,
    },
}

/// How a driver learns that the memory can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadinessMethod {
    /// Two registers in BAR 0.
    Bar0,
    /// The CXL Device DVSEC at this offset of configuration space.
    Cxl(u16),
}

impl Profile {
    /// MIG fails with cached memory: the register DVSEC is absent or its bit 0 is clear.
    pub fn mig_bug(&self) -> bool {
        let fixed = nvidia::dvsec::MIG_SUPPORTED_WITH_CACHED_RESMEM;
        !self.capabilities.iter().any(|c| match c.value.body {
            Body::NvidiaRegisters { bitmap } => bitmap & fixed != 0,
            _ => false,
        })
    }

    /// How readiness shows.
    pub fn readiness(&self) -> ReadinessMethod {
        let cxl = |c: &&Fact<Capability>| matches!(c.value.body, Body::CxlDevice { .. });
        self.capabilities
            .iter()
            .find(cxl)
            .map_or(ReadinessMethod::Bar0, |c| {
                ReadinessMethod::Cxl(c.value.offset)
            })
    }

    /// The BAR that begins at register `index`.
    pub fn bar(&self, index: u8) -> Option<&Bar> {
        self.bars
            .iter()
            .map(|b| &b.value)
            .find(|b| b.index == index)
    }

    /// Each fact's name and origin, for documents and reports.
    pub fn marks(&self) -> Vec<(String, Mark)> {
        let mut marks = vec![
            ("device id".to_owned(), self.device_id.mark),
            ("revision".to_owned(), self.revision.mark),
            ("class".to_owned(), self.class.mark),
            ("subsystem id".to_owned(), self.subsystem_id.mark),
            ("interrupt pin".to_owned(), self.interrupt_pin.mark),
            ("memory size".to_owned(), self.memory.mark),
            ("memory address".to_owned(), self.memory_base.mark),
            ("first proximity domain".to_owned(), self.pxm_start.mark),
            ("proximity domains".to_owned(), self.pxm_count.mark),
        ];
        let bars = self.bars.iter();
        marks.extend(bars.map(|b| (format!("BAR {}", b.value.index), b.mark)));
        let capabilities = self.capabilities.iter();
        marks.extend(capabilities.map(|c| (format!("capability {:#x}", c.value.offset), c.mark)));
        marks
    }
}

impl Capability {
    /// It is in the extended list.
    pub fn is_extended(&self) -> bool {
        self.offset >= ext_cap::START
    }
}

/// The profile that is called `name`.
///
/// # Errors
/// [`UnknownProfile`] with the name that is spelled most like it.
pub fn find(name: &str) -> Result<&'static Profile, UnknownProfile> {
    if let Some(profile) = ALL.into_iter().find(|p| p.name == name) {
        return Ok(profile);
    }
    let distance = |p: &&Profile| strsim::damerau_levenshtein(p.name, &name.to_lowercase());
    let nearest = ALL
        .into_iter()
        .min_by_key(distance)
        .filter(|p| distance(p) <= 3);
    Err(UnknownProfile {
        name: name.to_owned(),
        nearest: nearest.map(|p| p.name),
    })
}
