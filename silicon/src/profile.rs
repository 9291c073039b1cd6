//! A chip as data.
//!
//! Each value says where it comes from: [`Mark::Sourced`] for what a public document, listing or
//! driver shows, [`Mark::Assumed`] for what is plausible and nothing more. No Grace hardware has
//! been looked at to write this.

mod capability;
mod check;
mod gb200;
mod gb300;
mod gh100;
mod gh200;
mod igd;
mod ism;
mod nic;
mod nvlink;
mod vera_rubin;
mod virtio_net;

use std::sync::LazyLock;

use varia_core::{BarSpec, HostPhys};
use varia_facts::PlatformFacts;
use varia_spec::nvidia::{
    self,
    chip::{Chip, Sku},
};

pub use varia_spec::fact::{Fact, Mark};

pub use capability::{Body, Capability};
pub use check::BadProfile;

use crate::error::UnknownProfile;

/// Every profile of a device that sits in a common machine: the coherent GPUs by age of the chip, then the others.
pub static ALL: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    vec![
        gh200::gh200_120gb(),
        gh200::gh200_480gb(),
        gb200::gb200(),
        gb300::gb300(),
        gb300::gb300_cxl(),
        vera_rubin::vera_rubin(),
        nic::nic(),
        virtio_net::virtio_net(),
    ]
});

/// Profiles of devices that only one platform has, with the facts of that platform.
pub static OF_A_PLATFORM: LazyLock<Vec<Profile>> =
    LazyLock::new(|| vec![nvlink::v100(), nvlink::bridge(), ism::ism(), igd::igd()]);

/// All profiles.
pub fn every() -> impl Iterator<Item = &'static Profile> {
    ALL.iter().chain(OF_A_PLATFORM.iter())
}

/// A chip, with the board and firmware around it.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name in commands, in lower case.
    pub name: &'static str,
    /// The name of its family, which means this profile too.
    pub alias: Option<&'static str>,
    /// Full name of the product.
    pub title: &'static str,
    /// Chip of the table in `varia_spec`; `None` for a device that is no GPU of NVIDIA's.
    pub chip: Option<&'static Chip>,
    /// PCI vendor id.
    pub vendor_id: Fact<u16>,
    /// PCI device id.
    pub device_id: Fact<u16>,
    /// PCI revision.
    pub revision: Fact<u8>,
    /// PCI class, 24 bits: class, subclass, programming interface.
    pub class: Fact<u32>,
    /// Subsystem vendor id.
    pub subsystem_vendor_id: Fact<u16>,
    /// Subsystem id.
    pub subsystem_id: Fact<u16>,
    /// Interrupt pin: 1 for INTA, 0 for none.
    pub interrupt_pin: Fact<u8>,
    /// The BARs, by rising index.
    pub bars: Vec<Fact<BarModel>>,
    /// Bytes that the expansion ROM decodes, a power of two.
    pub rom: Option<Fact<u32>>,
    /// The capabilities, conventional and extended, each list in its order.
    pub capabilities: Vec<Fact<Capability>>,
    /// Memory outside every BAR.
    pub coherent: Option<Coherent>,
    /// Facts of the platform, for a device that only one platform has.
    pub platform: Option<PlatformFacts>,
}

/// Memory that is coherent with the CPU and outside every BAR, and what firmware says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coherent {
    /// Bytes, unless another size is asked for.
    pub size: Fact<u64>,
    /// Address of the memory, unless another address is asked for.
    pub base: Fact<HostPhys>,
    /// First proximity domain that firmware sets aside for the memory.
    pub pxm_start: Fact<u64>,
    /// Number of proximity domains that firmware sets aside.
    pub pxm_count: Fact<u64>,
}

/// A base address register and what is behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarModel {
    /// 0 to 5; a 64-bit BAR takes the next as well.
    pub index: u8,
    /// Size and kind of the BAR.
    pub spec: BarSpec,
    /// Content behind the BAR.
    pub content: Content,
}

/// Content behind a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Registers: bytes that keep what is written until a reset, and that can't be mapped. In
    /// BAR 0 of a chip with coherent memory the readiness registers are among them.
    Registers,
    /// Bytes that keep what is written, and that can be mapped.
    Memory,
    /// A virtio network card's modern interface.
    NetworkCard,
}

/// Method by which a driver learns that the memory can be used.
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

    /// Method by which readiness shows; `None` for a chip that has no memory to wait for.
    pub fn readiness(&self) -> Option<ReadinessMethod> {
        self.coherent?;
        let cxl = |c: &&Fact<Capability>| matches!(c.value.body, Body::CxlDevice { .. });
        let found = self.capabilities.iter().find(cxl);
        Some(found.map_or(ReadinessMethod::Bar0, |c| {
            ReadinessMethod::Cxl(c.value.offset)
        }))
    }

    /// The BAR that begins at register `index`.
    pub fn bar(&self, index: u8) -> Option<&BarModel> {
        self.bars
            .iter()
            .map(|b| &b.value)
            .find(|b| b.index == index)
    }

    /// Largest number of such GPUs on one superchip; 1 for a device that is not on one.
    pub fn per_superchip(&self) -> u32 {
        let coherent = self.chip.and_then(|chip| chip.coherent);
        coherent.map_or(1, |coherent| coherent.per_superchip.value)
    }

    /// The product of the table of chips.
    pub fn sku(&self) -> Option<&'static Sku> {
        let skus = self.chip?.skus.iter();
        let mut skus = skus.filter(|sku| sku.device.value == self.device_id.value);
        skus.next()
    }

    /// The name and the alias.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.name), self.alias].into_iter().flatten()
    }

    /// Nothing in it contradicts the rest.
    ///
    /// # Errors
    /// [`BadProfile`] for the first thing that no device can have.
    pub fn check(&self) -> Result<(), BadProfile> {
        check::check(self)
    }

    /// Each fact's name and origin, for documents and reports.
    pub fn marks(&self) -> Vec<(String, Mark)> {
        let mut marks = vec![
            ("vendor id".to_owned(), self.vendor_id.mark),
            ("device id".to_owned(), self.device_id.mark),
            ("revision".to_owned(), self.revision.mark),
            ("class".to_owned(), self.class.mark),
            (
                "subsystem vendor id".to_owned(),
                self.subsystem_vendor_id.mark,
            ),
            ("subsystem id".to_owned(), self.subsystem_id.mark),
            ("interrupt pin".to_owned(), self.interrupt_pin.mark),
        ];
        if let Some(memory) = &self.coherent {
            marks.extend([
                ("memory size".to_owned(), memory.size.mark),
                ("memory address".to_owned(), memory.base.mark),
                ("first proximity domain".to_owned(), memory.pxm_start.mark),
                ("proximity domains".to_owned(), memory.pxm_count.mark),
            ]);
        }
        let bars = self.bars.iter();
        marks.extend(bars.map(|b| (format!("BAR {}", b.value.index), b.mark)));
        marks.extend(self.rom.map(|rom| ("ROM".to_owned(), rom.mark)));
        let capabilities = self.capabilities.iter();
        marks.extend(capabilities.map(|c| (format!("capability {:#x}", c.value.offset), c.mark)));
        marks
    }
}

/// The profile that is called `name`, by its own name or its alias.
///
/// # Errors
/// [`UnknownProfile`] with the name that is spelled most like it.
pub fn find(name: &str) -> Result<&'static Profile, UnknownProfile> {
    if let Some(profile) = every().find(|p| p.names().any(|n| n == name)) {
        return Ok(profile);
    }
    let distance = |n: &&str| strsim::damerau_levenshtein(n, &name.to_lowercase());
    let names = every().flat_map(Profile::names);
    let nearest = names.min_by_key(distance).filter(|n| distance(n) <= 3);
    Err(UnknownProfile {
        name: name.to_owned(),
        nearest,
    })
}
