//! Which bits of a capability are virtual and which can be written.
//!
//! A bit that is *virtual* is read from and written to the core's copy; any other goes to the
//! device. A write changes only bits that are *writable*. Every capability virtualises the pointer
//! to the next one, so that a capability can be taken out of the list.
//!
//! Source: the tables in Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c:init_pci_cap_*_perm`.

use varia_spec::pci::cap::{af, exp, msi, pm};
use varia_spec::pci::ext_cap::{err, pwr};
use varia_spec::pci::header::{self, command, status};

/// Two bits for each bit of a capability.
#[derive(Clone, Debug)]
pub(crate) struct Perms {
    virt: Vec<u8>,
    write: Vec<u8>,
}

impl Perms {
    /// All readable, none virtual, none writable.
    fn none(len: u16) -> Self {
        let len = usize::from(len.next_multiple_of(4));
        Self {
            virt: vec![0; len],
            write: vec![0; len],
        }
    }

    /// A conventional capability that can only be read.
    pub(crate) fn read_only(len: u16) -> Self {
        Self::none(len).byte(0, 0xff, 0).byte(1, 0xff, 0)
    }

    /// An extended capability that can only be read.
    pub(crate) fn ext_read_only(len: u16) -> Self {
        Self::none(len).dword(0, u32::MAX, 0)
    }

    /// The masks (virtual, writable) of `count` bytes from `offset`; zero beyond the capability.
    pub(crate) fn at(&self, offset: u16, count: u16) -> (u32, u32) {
        let take = |bits: &[u8]| {
            let byte = |i: u16| bits.get(usize::from(offset + i)).copied().unwrap_or(0);
            (0..count).fold(0, |mask, i| mask | u32::from(byte(i)) << (8 * i))
        };
        (take(&self.virt), take(&self.write))
    }

    fn byte(mut self, offset: u16, virt: u8, write: u8) -> Self {
        let at = usize::from(offset);
        if let (Some(v), Some(w)) = (self.virt.get_mut(at), self.write.get_mut(at)) {
            *v = virt;
            *w = write;
        }
        self
    }

    fn word(self, offset: u16, virt: u16, write: u16) -> Self {
        let ([v0, v1], [w0, w1]) = (virt.to_le_bytes(), write.to_le_bytes());
        self.byte(offset, v0, w0).byte(offset + 1, v1, w1)
    }

    fn dword(self, offset: u16, virt: u32, write: u32) -> Self {
        self.word(offset, virt as u16, write as u16).word(
            offset + 2,
            (virt >> 16) as u16,
            (write >> 16) as u16,
        )
    }
}

/// The type 0 header.
pub(crate) fn basic() -> Perms {
    let mut perms = Perms::none(header::STD_HEADER_SIZEOF)
        .word(header::VENDOR_ID, 0xffff, 0)
        .word(header::DEVICE_ID, 0xffff, 0)
        .word(header::COMMAND, command::INTX_DISABLE, 0xffff)
        .word(header::STATUS, status::CAP_LIST, 0)
        .byte(header::CACHE_LINE_SIZE, 0, 0xff)
        .byte(header::LATENCY_TIMER, 0, 0xff)
        .byte(header::BIST, 0, 0xff)
        .dword(header::ROM_ADDRESS, u32::MAX, u32::MAX)
        .byte(header::CAPABILITY_LIST, 0xff, 0)
        .byte(header::INTERRUPT_LINE, 0xff, 0xff)
        .byte(header::INTERRUPT_PIN, 0xff, 0);
    for bar in 0..6 {
        perms = perms.dword(header::BASE_ADDRESS_0 + 4 * bar, u32::MAX, u32::MAX);
    }
    perms
}

/// Power management: the state bits are written by the core itself, PME is kept from the user.
pub(crate) fn power() -> Perms {
    let pme = u32::from(pm::CTRL_PME_ENABLE | pm::CTRL_PME_STATUS);
    Perms::read_only(pm::SIZEOF)
        .word(pm::PMC, pm::PMC_PME_MASK, 0)
        .dword(pm::CTRL, pme, !(pme | u32::from(pm::CTRL_STATE_MASK)))
}

/// Express: payload size belongs to the whole hierarchy, phantom functions and routing ids to the
/// IOMMU; reset and the read request size are acted on by the core.
pub(crate) fn express(len: u16) -> Perms {
    Perms::read_only(len)
        .word(
            exp::DEVCTL,
            exp::DEVCTL_BCR_FLR | exp::DEVCTL_PAYLOAD | exp::DEVCTL_READRQ,
            !exp::DEVCTL_PHANTOM,
        )
        .word(exp::DEVCTL2, 0, !exp::DEVCTL2_ARI)
}

/// MSI with the message control word `flags`: address and data are the user's own.
pub(crate) fn message(len: u16, flags: u16) -> Perms {
    let perms = Perms::read_only(len).byte(msi::FLAGS, 0xff, 0xff).dword(
        msi::ADDRESS_LO,
        u32::MAX,
        u32::MAX,
    );
    let (perms, mask, pending) = if flags & msi::FLAGS_64BIT != 0 {
        let perms =
            perms
                .dword(msi::ADDRESS_HI, u32::MAX, u32::MAX)
                .word(msi::DATA_64, 0xffff, 0xffff);
        (perms, msi::MASK_64, msi::PENDING_64)
    } else {
        let perms = perms.word(msi::DATA_32, 0xffff, 0xffff);
        (perms, msi::MASK_32, msi::PENDING_32)
    };
    if flags & msi::FLAGS_MASKBIT == 0 {
        return perms;
    }
    perms.dword(mask, 0, u32::MAX).dword(pending, 0, u32::MAX)
}

/// Advanced features: only the reset bit, which the core acts on.
pub(crate) fn advanced() -> Perms {
    Perms::read_only(af::SIZEOF).byte(af::CTRL, af::CTRL_FLR, af::CTRL_FLR)
}

/// Advanced error reporting: the defined errors and the checksum switches.
pub(crate) fn errors() -> Perms {
    let checksums = err::CAP_ECRC_GENE | err::CAP_ECRC_CHKE;
    [err::UNCOR_STATUS, err::UNCOR_MASK, err::UNCOR_SEVER]
        .into_iter()
        .fold(Perms::ext_read_only(err::ENDPOINT_LEN), |perms, at| {
            perms.dword(at, 0, err::UNCOR_BITS)
        })
        .dword(err::COR_STATUS, 0, err::COR_BITS)
        .dword(err::COR_MASK, 0, err::COR_BITS)
        .dword(err::CAP, 0, checksums)
}

/// Power budgeting: Linux opens the byte at the data register.
pub(crate) fn power_budget() -> Perms {
    Perms::ext_read_only(pwr::SIZEOF).byte(pwr::DATA, 0, 0xff)
}
