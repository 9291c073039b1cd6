//! Raw configuration space: register values, which bits of them can be written, and what a write
//! does beyond that.
//!
//! Source: PCI Express Base Specification 6.0, chapter 7, for the layouts; the values that a
//! profile does not name are the specification's defaults.

use varia_core::{BarSpace, ConfigRegister};
use varia_spec::nvidia;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;
use varia_spec::pci::cap::{exp, id, msi, msix, pm, vndr};
use varia_spec::pci::ext_cap::{self, cxl, dsn, dvsec, err, ltr, pwr, rebar};
use varia_spec::pci::header::{self, bar, command, status};

use crate::profile::{Body, Capability, Profile};

/// Bytes in the NVIDIA register DVSEC: up to the end of its bitmap.
const NVIDIA_DVSEC_LEN: u16 = nvidia::dvsec::BITMAP + 2;

/// What a write started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Nothing but new register values.
    None,
    /// A function-level reset.
    Reset,
}

/// The registers of one function.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    power_on: Vec<u8>,
    express: Option<u16>,
    power: Option<u16>,
    message: Option<u16>,
    message_x: Option<u16>,
}

impl ConfigSpace {
    pub(crate) fn new(profile: &Profile) -> Self {
        let space = usize::from(CFG_SPACE_EXP_SIZE);
        let mut config = Self {
            bytes: vec![0; space],
            writable: vec![0; space],
            power_on: Vec::new(),
            express: None,
            power: None,
            message: None,
            message_x: None,
        };
        config.header(profile);
        let capabilities = || profile.capabilities.iter().map(|c| c.value);
        let (ext, std): (Vec<_>, Vec<_>) = capabilities().partition(Capability::is_extended);
        for (i, capability) in std.iter().enumerate() {
            let next = std.get(i + 1).map_or(0, |c| c.offset);
            config.conventional(*capability, next);
        }
        for (i, capability) in ext.iter().enumerate() {
            let next = ext.get(i + 1).map_or(0, |c| c.offset);
            config.extended(profile, *capability, next);
        }
        config.power_on = config.bytes.clone();
        config
    }

    /// Power-on values again.
    pub(crate) fn reset(&mut self) {
        self.bytes.clone_from(&self.power_on);
    }

    pub(crate) fn read(&self, register: ConfigRegister) -> u32 {
        get(&self.bytes, register.offset(), register.width().bytes())
    }

    pub(crate) fn write(&mut self, register: ConfigRegister, value: u32) -> Effect {
        let (at, count) = (register.offset(), register.width().bytes());
        let writable = get(&self.writable, at, count);
        let old = get(&self.bytes, at, count);
        set(
            &mut self.bytes,
            at,
            count,
            old & !writable | value & writable,
        );
        if let Some(pm) = self.power {
            self.settle_power(pm, old, register);
        }
        if self.starts_reset(register, value) {
            Effect::Reset
        } else {
            Effect::None
        }
    }

    /// MSI or MSI-X is enabled.
    pub(crate) fn messages_enabled(&self) -> bool {
        let flag = |at: Option<u16>, bit: u16| {
            at.is_some_and(|at| get(&self.bytes, at + msi::FLAGS, 2) & u32::from(bit) != 0)
        };
        flag(self.message, msi::FLAGS_ENABLE) || flag(self.message_x, msix::FLAGS_ENABLE)
    }

    /// The bytes as they are.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// D1 and D2 are not supported: a write of either leaves the state as it was.
    fn settle_power(&mut self, pm: u16, old: u32, register: ConfigRegister) {
        let control = pm + pm::CTRL;
        let state = u32::from(pm::CTRL_STATE_MASK);
        if matches!(get(&self.bytes, control, 1) & state, 1 | 2)
            && let Some(shift) = control.checked_sub(register.offset())
        {
            let before = old >> (8 * u32::from(shift)) & state;
            let kept = get(&self.bytes, control, 1) & !state;
            set(&mut self.bytes, control, 1, kept | before);
        }
    }

    fn starts_reset(&self, register: ConfigRegister, value: u32) -> bool {
        // the bit is in the second byte of the register and never stored
        let Some(at) = self.express.map(|e| e + exp::DEVCTL + 1) else {
            return false;
        };
        let covers = register.offset() <= at && at < register.offset() + register.width().bytes();
        covers && value >> (8 * (at - register.offset())) & u32::from(exp::DEVCTL_BCR_FLR >> 8) != 0
    }

    fn header(&mut self, profile: &Profile) {
        self.word(header::VENDOR_ID, nvidia::VENDOR_ID, 0);
        self.word(header::DEVICE_ID, profile.device_id.value, 0);
        let switches = command::MEMORY | command::MASTER | command::PARITY | command::SERR;
        self.word(header::COMMAND, 0, switches | command::INTX_DISABLE);
        self.word(header::STATUS, status::CAP_LIST, 0);
        let class = profile.class.value << 8 | u32::from(profile.revision.value);
        self.dword(header::REVISION_ID, class, 0);
        self.byte(header::CACHE_LINE_SIZE, 0, 0xff);
        for (i, spec) in (0..6).filter_map(|i| profile.bar(i).map(|b| (u16::from(i), b.spec))) {
            let at = header::BASE_ADDRESS_0 + 4 * i;
            let prefetch = if spec.prefetchable {
                bar::MEM_PREFETCH
            } else {
                0
            };
            let address = !(spec.size - 1);
            match spec.space {
                BarSpace::Io => self.dword(at, bar::SPACE_IO, address as u32 & !bar::IO_FLAGS),
                BarSpace::Memory32 => self.dword(at, prefetch, address as u32 & !bar::MEM_FLAGS),
                BarSpace::Memory64 => {
                    let flags = prefetch | bar::MEM_TYPE_64;
                    self.dword(at, flags, address as u32 & !bar::MEM_FLAGS);
                    self.dword(at + 4, 0, (address >> 32) as u32);
                }
            }
        }
        self.word(header::SUBSYSTEM_VENDOR_ID, nvidia::VENDOR_ID, 0);
        self.word(header::SUBSYSTEM_ID, profile.subsystem_id.value, 0);
        let first = profile
            .capabilities
            .iter()
            .map(|c| c.value)
            .find(|c| !c.is_extended());
        self.byte(
            header::CAPABILITY_LIST,
            first.map_or(0, |c| c.offset as u8),
            0,
        );
        self.byte(header::INTERRUPT_LINE, 0, 0xff);
        self.byte(header::INTERRUPT_PIN, profile.interrupt_pin.value, 0);
    }

    fn conventional(&mut self, capability: Capability, next: u16) {
        let at = capability.offset;
        let cap_id = match capability.body {
            Body::Power => {
                self.power = Some(at);
                self.word(at + pm::PMC, pm::PMC_VERSION_3, 0);
                self.word(at + pm::CTRL, pm::CTRL_NO_SOFT_RESET, pm::CTRL_STATE_MASK);
                id::PM
            }
            Body::Message { vectors } => {
                self.message = Some(at);
                let size = vectors.ilog2() as u16;
                let flags = size << 1 | msi::FLAGS_64BIT | msi::FLAGS_MASKBIT;
                self.word(at + msi::FLAGS, flags, msi::FLAGS_ENABLE | msi::FLAGS_QSIZE);
                self.dword(at + msi::ADDRESS_LO, 0, !3);
                self.dword(at + msi::ADDRESS_HI, 0, u32::MAX);
                self.word(at + msi::DATA_64, 0, u16::MAX);
                self.dword(
                    at + msi::MASK_64,
                    0,
                    (1u64 << vectors).wrapping_sub(1) as u32,
                );
                id::MSI
            }
            Body::Express { speed, lanes } => {
                self.express = Some(at);
                self.express(at, u16::from(speed), u16::from(lanes));
                id::EXP
            }
            Body::Vendor { len } => {
                self.byte(at + vndr::LEN, len, 0);
                id::VNDR
            }
            Body::MessageX {
                vectors,
                table,
                pending,
            } => {
                self.message_x = Some(at);
                let switches = msix::FLAGS_ENABLE | msix::FLAGS_MASKALL;
                self.word(at + msix::FLAGS, vectors - 1, switches);
                self.dword(at + msix::TABLE, table, 0);
                self.dword(at + msix::PBA, pending, 0);
                id::MSIX
            }
            // the others are extended: a profile that puts one here gets an empty place
            _ => 0,
        };
        self.byte(at, cap_id, 0);
        self.byte(at + 1, next as u8, 0);
    }

    /// Version 2, 256 byte payloads, extended tags, 10-bit tags, any link speed up to `speed`.
    fn express(&mut self, at: u16, speed: u16, lanes: u16) {
        self.word(at + exp::FLAGS, 2 | exp::TYPE_ENDPOINT << 4, 0);
        let (payload_256, extended_tag, role_based) = (1, 1 << 5, 1 << 15);
        let devcap = payload_256 | extended_tag | role_based | exp::DEVCAP_FLR;
        self.dword(at + exp::DEVCAP, devcap, 0);
        let (relaxed, tags, no_snoop, request_512) = (1 << 4, 1 << 8, 1 << 11, 2 << 12);
        let reserved = exp::DEVCTL_BCR_FLR | exp::DEVCTL_PHANTOM | 1 << 10;
        self.word(
            at + exp::DEVCTL,
            relaxed | tags | no_snoop | request_512,
            !reserved,
        );
        let (l0s_l1, optional_aspm) = (3 << 10, 1 << 22);
        let link = u32::from(speed | lanes << 4);
        self.dword(at + exp::LNKCAP, link | l0s_l1 | optional_aspm, 0);
        self.word(at + exp::LNKCTL, 0, 0x01cb);
        self.word(at + exp::LNKSTA, speed | lanes << 4 | 1 << 12, 0);
        let (timeouts, no_timeout, latency, ten_bit) = (0xf, 1 << 4, 1 << 11, 1 << 16);
        self.dword(
            at + exp::DEVCAP2,
            timeouts | no_timeout | latency | ten_bit,
            0,
        );
        self.word(at + exp::DEVCTL2, 0, 0x141f);
        self.dword(at + exp::LNKCAP2, (2 << speed) - 2, 0);
        self.word(at + exp::LNKCTL2, speed, 0xf);
        let equalised = 0x1e;
        self.word(at + exp::LNKSTA2, equalised, 0);
    }

    fn extended(&mut self, profile: &Profile, capability: Capability, next: u16) {
        let at = capability.offset;
        let (cap_id, version) = match capability.body {
            Body::SecondaryExpress { .. } => (ext_cap::id::SECPCI, 1),
            Body::Latency => {
                self.word(at + ltr::MAX_SNOOP, 0, ltr::LATENCY_BITS);
                self.word(at + ltr::MAX_NOSNOOP, 0, ltr::LATENCY_BITS);
                (ext_cap::id::LTR, 1)
            }
            Body::ResizableBar { bar } => {
                let size = profile.bar(bar).map_or(1 << 20, |b| b.spec.size);
                let code = size.ilog2().saturating_sub(20);
                self.dword(at + rebar::CAP, 1 << (4 + code), 0);
                let one = 1 << rebar::CTRL_NBAR_SHIFT;
                let control = u32::from(bar) | one | code << rebar::CTRL_SIZE_SHIFT;
                self.dword(at + rebar::CTRL, control, 0);
                (ext_cap::id::REBAR, 1)
            }
            Body::Errors => {
                self.dword(at + err::UNCOR_MASK, 0, err::UNCOR_BITS);
                self.dword(at + err::UNCOR_SEVER, 0x0046_2030, err::UNCOR_BITS);
                self.dword(at + err::COR_MASK, 1 << 13, err::COR_BITS);
                let able = 1 << 5 | 1 << 7;
                self.dword(at + err::CAP, able, err::CAP_ECRC_GENE | err::CAP_ECRC_CHKE);
                (ext_cap::id::ERR, 2)
            }
            Body::ExtVendor { id, revision, len } => {
                let start = u32::from(id) | u32::from(revision) << 16 | u32::from(len) << 20;
                self.dword(at + ext_cap::vndr::HEADER, start, 0);
                (ext_cap::id::VNDR, 1)
            }
            Body::PowerBudget => {
                self.byte(at + pwr::SELECT, 0, 0xff);
                (ext_cap::id::PWR, 1)
            }
            Body::Serial(serial) => {
                self.dword(at + dsn::SERIAL, serial as u32, 0);
                self.dword(at + dsn::SERIAL + 4, (serial >> 32) as u32, 0);
                (ext_cap::id::DSN, 1)
            }
            Body::NvidiaRegisters { bitmap } => {
                let start = dvsec::header1(nvidia::VENDOR_ID, 0, NVIDIA_DVSEC_LEN);
                self.dword(at + dvsec::HEADER1, start, 0);
                self.word(at + dvsec::HEADER2, nvidia::dvsec::ID, 0);
                self.word(at + nvidia::dvsec::BITMAP, bitmap, 0);
                (ext_cap::id::DVSEC, 1)
            }
            Body::CxlDevice { timeout } => {
                let start = dvsec::header1(cxl::VENDOR_ID, 3, cxl::DEVICE_LEN);
                self.dword(at + dvsec::HEADER1, start, 0);
                self.word(at + dvsec::HEADER2, cxl::DEVICE, 0);
                let wait = u32::from(timeout) << cxl::MEM_ACTIVE_TIMEOUT_SHIFT;
                self.dword(at + cxl::RANGE1_SIZE_LOW, wait, 0);
                (ext_cap::id::DVSEC, 1)
            }
            // the others are conventional: a profile that puts one here gets an empty place
            _ => (0, 0),
        };
        self.dword(at, ext_cap::header(cap_id, version, next), 0);
    }

    fn byte(&mut self, at: u16, value: u8, writable: u8) {
        set(&mut self.bytes, at, 1, u32::from(value));
        set(&mut self.writable, at, 1, u32::from(writable));
    }

    fn word(&mut self, at: u16, value: u16, writable: u16) {
        set(&mut self.bytes, at, 2, u32::from(value));
        set(&mut self.writable, at, 2, u32::from(writable));
    }

    fn dword(&mut self, at: u16, value: u32, writable: u32) {
        set(&mut self.bytes, at, 4, value);
        set(&mut self.writable, at, 4, writable);
    }
}

fn get(bytes: &[u8], at: u16, count: u16) -> u32 {
    let byte = |i: u16| bytes.get(usize::from(at + i)).copied().unwrap_or(0);
    (0..count).fold(0, |value, i| value | u32::from(byte(i)) << (8 * i))
}

fn set(bytes: &mut [u8], at: u16, count: u16, value: u32) {
    for (i, byte) in (0..count).zip(value.to_le_bytes()) {
        if let Some(slot) = bytes.get_mut(usize::from(at + i)) {
            *slot = byte;
        }
    }
}
