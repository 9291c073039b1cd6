//! Table of NVIDIA's data-centre GPUs: PCI ids, coherent memory, physical BARs.
//!
//! This table is the only home of these facts: the variant table, the kernel module's list of ids,
//! the models of silicon, made-up hosts, inventory, checks and plans read it or are generated from
//! it. A chip that is not in the table is [`Identity::Unknown`], which every reader handles; no
//! fact of another chip stands in for it.
//!
//! Sources: Linux 7.2 `drivers/vfio/pci/nvgrace-gpu/main.c` for ids of chips with coherent memory;
//! pci.ids of 2026 for the other ids and the names; each [`Fact`] names its own.

use super::VENDOR_ID;
use crate::fact::Fact;

/// A GPU chip, with the board around it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chip {
    /// Name in messages.
    pub name: &'static str,
    /// Architecture of the GPU.
    pub family: Family,
    /// PCI device ids of the chip's products.
    pub skus: &'static [Sku],
    /// Memory that is coherent with the CPU; `None` for a chip whose memory is behind a BAR only.
    pub coherent: Option<Coherent>,
    /// Physical BARs by rising index, each 64-bit and prefetchable.
    pub bars: &'static [Fact<Bar>],
}

/// Architecture of a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Hopper.
    Hopper,
    /// Blackwell and Blackwell Ultra.
    Blackwell,
    /// Rubin.
    Rubin,
}

/// A product: one PCI device id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sku {
    /// PCI device id.
    pub device: Fact<u16>,
    /// Name in pci.ids, or the chip's name where pci.ids has no entry.
    pub name: &'static str,
    /// A released kernel's nvgrace-gpu driver lists the id. `false` for a chip without coherent
    /// memory, which that driver does not serve.
    pub released: bool,
}

/// Memory that is coherent with the CPU and outside every physical BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coherent {
    /// Presence of the MIG bug, which asks for an uncached part of the memory (resmem). `None`
    /// if it is not known: the device's register DVSEC has to be read.
    pub mig_bug: Option<Fact<bool>>,
    /// Largest number of GPUs on one superchip, which share a CPU.
    pub per_superchip: Fact<u32>,
    /// Method by which the memory's readiness shows.
    pub readiness: Fact<Readiness>,
}

/// Method by which the readiness of coherent memory shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Two registers in BAR0 ([`super::bar0`]).
    Bar0,
    /// The CXL Device DVSEC in configuration space.
    Cxl,
}

/// A physical BAR, 64-bit and prefetchable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Index of the BAR's first register: 0, 2 or 4.
    pub index: u8,
    /// Size in bytes, a power of two.
    pub size: u64,
}

/// Driver that gives a GPU to a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// The variant driver: a VM gets the coherent memory through it alone.
    NvgraceGpu,
    /// The generic driver: a VM gets the chip's BARs, which is all there is.
    VfioPci,
}

/// Answer to the question which chip a PCI function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A chip of the table, and the product.
    Known(&'static Chip, &'static Sku),
    /// A GPU of NVIDIA's that is not in the table: nothing is known of it before it is probed.
    Unknown,
    /// No data-centre GPU of NVIDIA's.
    Other,
}

const DRIVER: &str = "Linux 7.2 drivers/vfio/pci/nvgrace-gpu/main.c";
const PCI_IDS: &str = "pci.ids";
macro_rules! h100_listing {
    () => {
        "bare-metal lspci of an H100, github.com/NVIDIA/nvtrust issue 51"
    };
}
const H100_LISTING: &str = h100_listing!();
const H200_LISTING: &str = "lspci of an H200 SXM, in the passthrough profiles of Chutes' TEE tools";
const B200_LISTING: &str = "lspci of a B200, in the passthrough profiles of Chutes' TEE tools";
/// Reason for a value of the GH100 die that is assumed for GH200, which has that die.
pub const AS_H100: &str = concat!("as on the GH100 die: ", h100_listing!());
/// Reason for a value of the GH100 die that is assumed for a chip with another die.
pub const AS_GH100: &str = "as on the GH100 die: no public listing of this chip shows it";
const MESSAGES: &str = "messages of the driver's authors: region 2 of a GB200 is 256 GiB";
const MIG: &str = "message of the driver's authors that brings GB200: Hopper has the bug";
const NO_MIG: &str = "message of the driver's authors that brings GB200: Blackwell is without";
const ULTRA: &str = "as GB200: the same architecture";
const ONE: &str = "Grace Hopper: one CPU, one GPU";
const TWO: &str = "Grace Blackwell: one CPU, two GPUs";
const BAR0: &str = "the driver polls BAR0 where no CXL Device DVSEC is";

const KUBEVIRT: &str = "lspci of a Vera Rubin NVL, github.com/kubevirt/kubevirt pull request 19070";

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn listed(device: u16, name: &'static str) -> Sku {
    Sku {
        device: Fact::sourced(device, DRIVER),
        name,
        released: true,
    }
}

const fn plain(device: u16, name: &'static str) -> Sku {
    Sku {
        device: Fact::sourced(device, PCI_IDS),
        name,
        released: false,
    }
}

const fn bar(index: u8, size: u64) -> Bar {
    Bar { index, size }
}

/// GH200: Grace and a Hopper GPU.
pub const GH200: Chip = Chip {
    name: "GH200",
    family: Family::Hopper,
    skus: &[
        listed(0x2342, "GH100 [GH200 120GB / 480GB]"),
        listed(0x2345, "GH100 [GH200 480GB]"),
        listed(0x2348, "GH100 [GH200 144G HBM3e]"),
    ],
    coherent: Some(Coherent {
        mig_bug: Some(Fact::sourced(true, MIG)),
        per_superchip: Fact::sourced(1, ONE),
        readiness: Fact::sourced(Readiness::Bar0, BAR0),
    }),
    bars: &[
        Fact::assumed(bar(0, 16 * MIB), AS_H100),
        Fact::assumed(bar(2, 128 * GIB), AS_H100),
        Fact::assumed(bar(4, 32 * MIB), AS_H100),
    ],
};

/// GB200: Grace and a Blackwell GPU.
pub const GB200: Chip = Chip {
    name: "GB200",
    family: Family::Blackwell,
    skus: &[listed(0x2941, "GB100 [HGX GB200]")],
    coherent: Some(Coherent {
        mig_bug: Some(Fact::sourced(false, NO_MIG)),
        per_superchip: Fact::sourced(2, TWO),
        readiness: Fact::sourced(Readiness::Bar0, BAR0),
    }),
    bars: &[
        Fact::assumed(bar(0, 16 * MIB), AS_GH100),
        Fact::sourced(bar(2, 256 * GIB), MESSAGES),
        Fact::assumed(bar(4, 32 * MIB), AS_GH100),
    ],
};

/// GB300: Grace and a Blackwell Ultra GPU.
pub const GB300: Chip = Chip {
    name: "GB300",
    family: Family::Blackwell,
    skus: &[listed(0x31c2, "GB110 [GB300]")],
    coherent: Some(Coherent {
        mig_bug: Some(Fact::assumed(false, ULTRA)),
        per_superchip: Fact::sourced(2, TWO),
        readiness: Fact::assumed(Readiness::Bar0, ULTRA),
    }),
    bars: &[
        Fact::assumed(bar(0, 16 * MIB), AS_GH100),
        Fact::assumed(
            bar(2, 512 * GIB),
            "the power of two that holds the memory, as on a GB200",
        ),
        Fact::assumed(bar(4, 32 * MIB), AS_GH100),
    ],
};

/// Vera Rubin: a Vera CPU and Rubin GPUs.
pub const VERA_RUBIN: Chip = Chip {
    name: "Vera Rubin",
    family: Family::Rubin,
    skus: &[
        Sku {
            device: Fact::sourced(0x3041, KUBEVIRT),
            name: "Vera Rubin",
            released: false,
        },
        Sku {
            device: Fact::assumed(
                0x307f,
                "a second report: the physical function, whose virtual functions are 3041",
            ),
            name: "Vera Rubin (physical function)",
            released: false,
        },
    ],
    coherent: Some(Coherent {
        mig_bug: Some(Fact::assumed(
            false,
            "BARs of 512 GiB are reported; with the bug, a VM's BAR2 would have 1 or 2 GiB",
        )),
        per_superchip: Fact::sourced(2, "NVIDIA's announcement: one Vera CPU, two Rubin GPUs"),
        readiness: Fact::assumed(
            Readiness::Cxl,
            "the driver's newer method, which came for the chips after Grace Blackwell",
        ),
    }),
    bars: &[
        Fact::assumed(bar(0, 16 * MIB), AS_GH100),
        Fact::sourced(bar(2, 512 * GIB), KUBEVIRT),
        Fact::assumed(
            bar(4, 512 * GIB),
            "two BARs of 512 GiB are reported; the index of the second is not",
        ),
    ],
};

/// H100: a Hopper GPU without a Grace CPU.
pub const H100: Chip = Chip {
    name: "H100",
    family: Family::Hopper,
    skus: &[
        plain(0x2330, "GH100 [H100 SXM5 80GB]"),
        plain(0x2331, "GH100 [H100 PCIe]"),
        plain(0x2339, "GH100 [H100 SXM5 94GB]"),
        plain(0x2321, "GH100 [H100L 94GB]"),
    ],
    coherent: None,
    bars: &[
        Fact::sourced(bar(0, 16 * MIB), H100_LISTING),
        Fact::sourced(bar(2, 128 * GIB), H100_LISTING),
        Fact::sourced(bar(4, 32 * MIB), H100_LISTING),
    ],
};

/// H200: a Hopper GPU with more memory, without a Grace CPU.
pub const H200: Chip = Chip {
    name: "H200",
    family: Family::Hopper,
    skus: &[
        plain(0x2335, "GH100 [H200 SXM 141GB]"),
        plain(0x233b, "GH100 [H200 NVL]"),
    ],
    coherent: None,
    bars: &[
        Fact::sourced(bar(0, 16 * MIB), H200_LISTING),
        Fact::sourced(bar(2, 256 * GIB), H200_LISTING),
        Fact::sourced(bar(4, 32 * MIB), H200_LISTING),
    ],
};

/// B200: a Blackwell GPU without a Grace CPU.
pub const B200: Chip = Chip {
    name: "B200",
    family: Family::Blackwell,
    skus: &[plain(0x2901, "GB100 [B200]")],
    coherent: None,
    bars: &[
        Fact::assumed(bar(0, 16 * MIB), AS_GH100),
        Fact::sourced(bar(2, 256 * GIB), B200_LISTING),
        Fact::assumed(bar(4, 32 * MIB), AS_GH100),
    ],
};

/// Every chip: those with coherent memory by age, then the others by age.
pub const CHIPS: &[Chip] = &[GH200, GB200, GB300, VERA_RUBIN, H100, H200, B200];

/// Vendor and device ids of every chip with coherent memory, in the table's order.
pub const COHERENT_IDS: [(u16, u16); COHERENT] = coherent_ids();

const COHERENT: usize = {
    let (mut count, mut at) = (0, 0);
    while at < CHIPS.len() {
        if CHIPS[at].coherent.is_some() {
            count += CHIPS[at].skus.len();
        }
        at += 1;
    }
    count
};

// Evaluated by the compiler alone: an index that is out of range is an error of the build.
const fn coherent_ids() -> [(u16, u16); COHERENT] {
    let mut ids = [(VENDOR_ID, 0); COHERENT];
    let (mut next, mut at) = (0, 0);
    while at < CHIPS.len() {
        let chip = &CHIPS[at];
        let mut sku = 0;
        while chip.coherent.is_some() && sku < chip.skus.len() {
            ids[next].1 = chip.skus[sku].device.value;
            next += 1;
            sku += 1;
        }
        at += 1;
    }
    ids
}

impl Chip {
    /// Product with this PCI device id; `None` if the chip has no such product.
    pub const fn sku(&self, device: u16) -> Option<Sku> {
        let mut at = 0;
        while at < self.skus.len() {
            if self.skus[at].device.value == device {
                return Some(self.skus[at]);
            }
            at += 1;
        }
        None
    }

    /// Driver that gives the chip to a VM.
    pub const fn driver(&self) -> Driver {
        match self.coherent {
            Some(_) => Driver::NvgraceGpu,
            None => Driver::VfioPci,
        }
    }
}

impl Driver {
    /// Name of the driver in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NvgraceGpu => "nvgrace_gpu_vfio_pci",
            Self::VfioPci => "vfio-pci",
        }
    }
}

impl Identity {
    /// Chip of the PCI function with these ids and this class code of 24 bits.
    ///
    /// A function of NVIDIA's that is a 3D controller (class 0302, a GPU without a display, as all
    /// data-centre GPUs are) and not in the table is [`Identity::Unknown`].
    pub fn of(vendor: u16, device: u16, class: u32) -> Self {
        const CONTROLLER_3D: u32 = 0x03_02;

        if vendor != VENDOR_ID {
            return Self::Other;
        }
        if let Some((chip, sku)) = skus().find(|(_, sku)| sku.device.value == device) {
            return Self::Known(chip, sku);
        }
        if class >> 8 == CONTROLLER_3D {
            Self::Unknown
        } else {
            Self::Other
        }
    }

    /// The chip, if it is known.
    pub const fn chip(self) -> Option<&'static Chip> {
        match self {
            Self::Known(chip, _) => Some(chip),
            Self::Unknown | Self::Other => None,
        }
    }
}

/// Every product and its chip, in the table's order.
pub fn skus() -> impl Iterator<Item = (&'static Chip, &'static Sku)> {
    let chips = CHIPS.iter();
    chips.flat_map(|chip| chip.skus.iter().map(move |sku| (chip, sku)))
}

/// The chip with this name, in capitals or small letters.
pub fn named(name: &str) -> Option<&'static Chip> {
    CHIPS
        .iter()
        .find(|chip| chip.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_device_id_names_one_chip_and_a_name_one_chip() {
        for (chip, sku) in skus() {
            let id = sku.device.value;
            let same = skus().filter(|(_, other)| other.device.value == id);
            assert_eq!(same.count(), 1, "{id:04x}");
            let identity = Identity::of(VENDOR_ID, id, 0x03_02_00);
            assert_eq!(identity, Identity::Known(chip, sku));
            assert_eq!(named(&chip.name.to_ascii_lowercase()), Some(chip));
            assert_eq!(chip.sku(id), Some(*sku));
        }
    }

    #[test]
    fn a_gpu_that_is_not_in_the_table_is_unknown_and_no_other_chip() {
        let of = |vendor, device, class| Identity::of(vendor, device, class);
        // a GH100 of pci.ids that the driver does not list
        assert_eq!(of(VENDOR_ID, 0x2343, 0x03_02_00), Identity::Unknown);
        assert_eq!(of(VENDOR_ID, 0x2684, 0x03_00_00), Identity::Other);
        assert_eq!(of(VENDOR_ID, 0x22b2, 0x06_04_00), Identity::Other);
        assert_eq!(of(0x1af4, 0x2342, 0x03_02_00), Identity::Other);
    }

    #[test]
    fn bars_are_powers_of_two_at_even_indices() {
        for chip in CHIPS {
            let bars: Vec<_> = chip.bars.iter().map(|bar| bar.value).collect();
            assert!(bars.is_sorted_by_key(|bar| bar.index), "{}", chip.name);
            for bar in bars {
                assert!(bar.size.is_power_of_two(), "{} {bar:?}", chip.name);
                assert!(bar.index % 2 == 0 && bar.index < 6, "{bar:?}");
            }
        }
    }

    #[test]
    fn coherent_ids_are_those_of_the_chips_with_coherent_memory() {
        let coherent = skus().filter(|(chip, _)| chip.driver() == Driver::NvgraceGpu);
        let ids: Vec<_> = coherent
            .map(|(_, sku)| (VENDOR_ID, sku.device.value))
            .collect();
        assert_eq!(ids, COHERENT_IDS);
        assert!(skus().all(|(chip, sku)| chip.coherent.is_some() || !sku.released));
    }
}
