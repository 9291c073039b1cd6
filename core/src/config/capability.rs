//! The registers that each capability declares.
//!
//! Bytes that a capability does not declare can be read and not written. Every capability
//! virtualises the pointer to the next one, so that one can be taken out of the list.
//!
//! Source: the tables in Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c:init_pci_cap_*_perm`.

use varia_spec::pci::cap::{af, exp, msi, pcix, pm, vpd};
use varia_spec::pci::ext_cap::{err, pwr};
use varia_spec::pci::header::{self, STD_HEADER_SIZEOF, command, status};

use super::registers::{Register, Role, tiles};
use crate::device::{ConfigRegister, Width};

/// Kind of a capability, as far as the core looks for it later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Header,
    Power,
    Vpd,
    Message,
    Express,
    MessageX,
    Advanced,
    Errors,
    Latency,
    Other,
}

/// A capability, or the header: where it is and what it declares.
#[derive(Clone, Debug)]
pub(crate) struct Capability {
    pub(crate) kind: Kind,
    pub(crate) start: u16,
    pub(crate) len: u16,
    /// Kind of the bytes that the capability does not declare.
    rest: Role,
    declared: Vec<Register>,
}

impl Capability {
    /// A conventional capability that can only be read.
    pub(crate) fn new(kind: Kind, start: u16, len: u16) -> Self {
        Self::bare(kind, start, len).byte(0, 0, 0).byte(1, 0xff, 0)
    }

    /// An extended capability that can only be read.
    pub(crate) fn extended(kind: Kind, start: u16, len: u16) -> Self {
        Self::bare(kind, start, len).dword(0, u32::MAX, 0)
    }

    /// Writes go to the device as they are.
    pub(crate) fn raw(mut self) -> Self {
        self.rest = Role::Raw;
        for register in &mut self.declared {
            register.role = Role::Raw;
        }
        self
    }

    /// Its registers, in rising order.
    pub(crate) fn registers(mut self) -> Vec<Register> {
        let end = self.start + self.len;
        self.declared.sort_by_key(|r| r.at.offset());
        let mut all = Vec::new();
        let mut at = self.start;
        let rest = |from, to| {
            tiles(from, to).map(|at| Register {
                at,
                virt: 0,
                write: 0,
                role: self.rest,
            })
        };
        for register in &self.declared {
            all.extend(rest(at, register.at.offset()));
            all.push(*register);
            at = register.at.offset() + register.at.width().bytes();
        }
        all.extend(rest(at, end));
        all
    }

    fn bare(kind: Kind, start: u16, len: u16) -> Self {
        Self {
            kind,
            start,
            len,
            rest: Role::Plain,
            declared: Vec::new(),
        }
    }

    /// Declares a register, unless the capability is too short for it.
    fn field(mut self, offset: u16, width: Width, virt: u32, write: u32, role: Role) -> Self {
        let fits = offset + width.bytes() <= self.len;
        let at = ConfigRegister::new(self.start + offset, width);
        if let (true, Some(at)) = (fits, at) {
            self.declared.push(Register {
                at,
                virt,
                write,
                role,
            });
        }
        self
    }

    fn byte(self, offset: u16, virt: u8, write: u8) -> Self {
        let (virt, write) = (u32::from(virt), u32::from(write));
        self.field(offset, Width::Byte, virt, write, Role::Plain)
    }

    fn word(self, offset: u16, virt: u16, write: u16) -> Self {
        self.word_as(offset, virt, write, Role::Plain)
    }

    fn word_as(self, offset: u16, virt: u16, write: u16, role: Role) -> Self {
        let (virt, write) = (u32::from(virt), u32::from(write));
        self.field(offset, Width::Word, virt, write, role)
    }

    fn dword(self, offset: u16, virt: u32, write: u32) -> Self {
        self.field(offset, Width::Dword, virt, write, Role::Plain)
    }
}

/// The type 0 header.
pub(crate) fn basic() -> Capability {
    let mut basic = Capability::bare(Kind::Header, 0, STD_HEADER_SIZEOF)
        .word(header::VENDOR_ID, 0xffff, 0)
        .word(header::DEVICE_ID, 0xffff, 0)
        .word_as(
            header::COMMAND,
            command::INTX_DISABLE,
            0xffff,
            Role::Command,
        )
        .word(header::STATUS, status::CAP_LIST, 0)
        .byte(header::CACHE_LINE_SIZE, 0, 0xff)
        .byte(header::LATENCY_TIMER, 0, 0xff)
        .byte(header::BIST, 0, 0xff)
        .field(
            header::ROM_ADDRESS,
            Width::Dword,
            u32::MAX,
            u32::MAX,
            Role::Rom,
        )
        .byte(header::CAPABILITY_LIST, 0xff, 0)
        .byte(header::INTERRUPT_LINE, 0xff, 0xff)
        .byte(header::INTERRUPT_PIN, 0xff, 0);
    for bar in 0..6 {
        let at = header::BASE_ADDRESS_0 + 4 * u16::from(bar);
        basic = basic.field(at, Width::Dword, u32::MAX, u32::MAX, Role::Bar(bar));
    }
    basic
}

/// Power management: the state bits are written by the core itself, PME is kept from the user.
pub(crate) fn power(start: u16) -> Capability {
    let pme = pm::CTRL_PME_ENABLE | pm::CTRL_PME_STATUS;
    let write = !(pme | pm::CTRL_STATE_MASK);
    Capability::new(Kind::Power, start, pm::SIZEOF)
        .word(pm::PMC, pm::PMC_PME_MASK, 0)
        .word_as(pm::CTRL, pme, write, Role::PowerControl)
        .word(pm::CTRL + 2, 0, 0xffff)
}

/// Vital product data: the core moves the bytes itself.
pub(crate) fn product_data(start: u16) -> Capability {
    Capability::new(Kind::Vpd, start, vpd::SIZEOF)
        .word_as(vpd::ADDR, 0xffff, 0xffff, Role::VpdAddress)
        .dword(vpd::DATA, u32::MAX, u32::MAX)
}

/// PCI-X: its command, and error correction.
pub(crate) fn pci_x(start: u16, len: u16) -> Capability {
    Capability::new(Kind::Other, start, len)
        .word(pcix::CMD, 0, 0xffff)
        .dword(pcix::ECC_CSR, 0, u32::MAX)
}

/// Express: payload size belongs to the whole hierarchy, phantom functions and routing ids to the
/// IOMMU; reset and the read request size are acted on by the core.
pub(crate) fn express(start: u16, len: u16) -> Capability {
    let virt = exp::DEVCTL_BCR_FLR | exp::DEVCTL_PAYLOAD | exp::DEVCTL_READRQ;
    let write = !exp::DEVCTL_PHANTOM;
    Capability::new(Kind::Express, start, len)
        .word_as(exp::DEVCTL, virt, write, Role::DeviceControl)
        .word(exp::DEVCTL2, 0, !exp::DEVCTL2_ARI)
}

/// MSI with the message control word `flags`: address and data are the user's own.
pub(crate) fn message(start: u16, len: u16, flags: u16) -> Capability {
    let base = Capability::new(Kind::Message, start, len)
        .word_as(msi::FLAGS, 0xff, 0xff, Role::MessageControl)
        .dword(msi::ADDRESS_LO, u32::MAX, u32::MAX);
    let (base, mask, pending) = if flags & msi::FLAGS_64BIT != 0 {
        let base =
            base.dword(msi::ADDRESS_HI, u32::MAX, u32::MAX)
                .word(msi::DATA_64, 0xffff, 0xffff);
        (base, msi::MASK_64, msi::PENDING_64)
    } else {
        let base = base.word(msi::DATA_32, 0xffff, 0xffff);
        (base, msi::MASK_32, msi::PENDING_32)
    };
    if flags & msi::FLAGS_MASKBIT == 0 {
        return base;
    }
    base.dword(mask, 0, u32::MAX).dword(pending, 0, u32::MAX)
}

/// Advanced features: only the reset bit, which the core acts on.
pub(crate) fn advanced(start: u16) -> Capability {
    let reset = u32::from(af::CTRL_FLR);
    Capability::new(Kind::Advanced, start, af::SIZEOF).field(
        af::CTRL,
        Width::Byte,
        reset,
        reset,
        Role::AdvancedControl,
    )
}

/// Advanced error reporting: the defined errors and the checksum switches.
pub(crate) fn errors(start: u16) -> Capability {
    let checksums = err::CAP_ECRC_GENE | err::CAP_ECRC_CHKE;
    [err::UNCOR_STATUS, err::UNCOR_MASK, err::UNCOR_SEVER]
        .into_iter()
        .fold(
            Capability::extended(Kind::Errors, start, err::ENDPOINT_LEN),
            |errors, at| errors.dword(at, 0, err::UNCOR_BITS),
        )
        .dword(err::COR_STATUS, 0, err::COR_BITS)
        .dword(err::COR_MASK, 0, err::COR_BITS)
        .dword(err::CAP, 0, checksums)
}

/// Power budgeting: Linux opens the first byte of the data register.
pub(crate) fn power_budget(start: u16) -> Capability {
    Capability::extended(Kind::Other, start, pwr::SIZEOF).dword(pwr::DATA, 0, 0xff)
}
