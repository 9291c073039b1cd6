//! A profile's header and capabilities, written into configuration space.

use varia_core::{BarSpace, HostPhys};
use varia_spec::nvidia;
use varia_spec::pci::cap::{af, exp, id, msi, msix, pm, vndr, vpd};
use varia_spec::pci::ext_cap::{self, ats, cxl, dsn, dvsec, err, ltr, pwr, rebar, vc};
use varia_spec::pci::header::{self, bar, command, status};
use varia_spec::virtio;

use super::vpd::VitalData;
use super::{ConfigSpace, Power};
use crate::profile::{Body, Capability, Profile};

impl ConfigSpace {
    pub(super) fn header(&mut self, profile: &Profile) {
        self.word(header::VENDOR_ID, profile.vendor_id.value, 0);
        self.word(header::DEVICE_ID, profile.device_id.value, 0);
        let spaces = profile.bars.iter().map(|b| match b.value.spec.space {
            BarSpace::Io => command::IO,
            BarSpace::Memory32 | BarSpace::Memory64 => command::MEMORY,
        });
        let switches = command::MASTER | command::PARITY | command::SERR | command::INTX_DISABLE;
        let switches = spaces.fold(switches, |all, space| all | space);
        self.word(header::COMMAND, 0, switches);
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
        let vendor = profile.subsystem_vendor_id.value;
        self.word(header::SUBSYSTEM_VENDOR_ID, vendor, 0);
        self.word(header::SUBSYSTEM_ID, profile.subsystem_id.value, 0);
        if let Some(rom) = profile.rom {
            let address = !(rom.value - 1);
            self.dword(header::ROM_ADDRESS, 0, address | header::rom::ENABLE);
        }
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

    pub(super) fn conventional(&mut self, profile: &Profile, capability: Capability, next: u16) {
        let at = capability.offset;
        let cap_id = match capability.body {
            Body::Power {
                light_sleep,
                soft_reset,
            } => {
                self.power = Some(Power {
                    at,
                    light_sleep,
                    soft_reset,
                });
                let light = pm::PMC_D1 | pm::PMC_D2;
                let states = if light_sleep { light } else { 0 };
                self.word(at + pm::PMC, pm::PMC_VERSION_3 | states, 0);
                let keeps = if soft_reset {
                    0
                } else {
                    pm::CTRL_NO_SOFT_RESET
                };
                self.word(at + pm::CTRL, keeps, pm::CTRL_STATE_MASK);
                id::PM
            }
            Body::Vpd => {
                let serial = format!("{:08X}", u32::from(profile.device_id.value));
                self.vital = Some((at, VitalData::new(profile.title, &serial)));
                self.word(at + vpd::ADDR, 0, u16::MAX);
                self.dword(at + vpd::DATA, 0, u32::MAX);
                id::VPD
            }
            Body::Message { vectors, maskable } => {
                self.message = Some(at);
                self.message(at, vectors, maskable);
                id::MSI
            }
            Body::Express {
                speed,
                lanes,
                reset,
            } => {
                self.express = reset.then_some(at);
                self.express(at, u16::from(speed), u16::from(lanes), reset);
                id::EXP
            }
            Body::Advanced => {
                self.advanced = Some(at);
                self.byte(at + af::LEN, af::SIZEOF as u8, 0);
                self.byte(at + af::CAP, af::CAP_TP | af::CAP_FLR, 0);
                id::AF
            }
            Body::Vendor { len } => {
                self.byte(at + vndr::LEN, len, 0);
                id::VNDR
            }
            Body::Virtio {
                cfg_type,
                bar,
                offset,
                len,
            } => {
                self.byte(at + vndr::LEN, capability.body.bytes() as u8, 0);
                self.byte(at + virtio::cap::CFG_TYPE, cfg_type, 0);
                self.byte(at + virtio::cap::BAR, bar, 0);
                self.dword(at + virtio::cap::OFFSET, offset, 0);
                self.dword(at + virtio::cap::LENGTH, len, 0);
                id::VNDR
            }
            Body::MessageX {
                vectors,
                bar,
                table,
                pending,
            } => {
                self.message_x = Some(at);
                let switches = msix::FLAGS_ENABLE | msix::FLAGS_MASKALL;
                self.word(at + msix::FLAGS, vectors - 1, switches);
                self.dword(at + msix::TABLE, table | u32::from(bar), 0);
                self.dword(at + msix::PBA, pending | u32::from(bar), 0);
                id::MSIX
            }
            // the others are extended, and the profile was checked
            _ => 0,
        };
        self.byte(at, cap_id, 0);
        self.byte(at + 1, next as u8, 0);
    }

    /// 64-bit addresses.
    fn message(&mut self, at: u16, vectors: u16, maskable: bool) {
        let size = vectors.ilog2() as u16;
        let masks = if maskable { msi::FLAGS_MASKBIT } else { 0 };
        let flags = size << 1 | msi::FLAGS_64BIT | masks;
        self.word(at + msi::FLAGS, flags, msi::FLAGS_ENABLE | msi::FLAGS_QSIZE);
        self.dword(at + msi::ADDRESS_LO, 0, !3);
        self.dword(at + msi::ADDRESS_HI, 0, u32::MAX);
        self.word(at + msi::DATA_64, 0, u16::MAX);
        if maskable {
            let each = (1u64 << vectors).wrapping_sub(1) as u32;
            self.dword(at + msi::MASK_64, 0, each);
        }
    }

    /// Version 2, 256 byte payloads, extended tags, any link speed up to `speed`; from 16 GT/s on
    /// 10-bit tags too.
    fn express(&mut self, at: u16, speed: u16, lanes: u16, reset: bool) {
        self.word(at + exp::FLAGS, 2 | exp::TYPE_ENDPOINT << 4, 0);
        let (payload_256, extended_tag, role_based) = (1, 1 << 5, 1 << 15);
        let flr = if reset { exp::DEVCAP_FLR } else { 0 };
        let devcap = payload_256 | extended_tag | role_based | flr;
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
        let (timeouts, no_timeout, latency) = (0xf, 1 << 4, 1 << 11);
        let ten_bit = if speed >= 4 { 1 << 16 } else { 0 };
        self.dword(
            at + exp::DEVCAP2,
            timeouts | no_timeout | latency | ten_bit,
            0,
        );
        self.word(at + exp::DEVCTL2, 0, 0x141f);
        self.dword(at + exp::LNKCAP2, (2 << speed) - 2, 0);
        self.word(at + exp::LNKCTL2, speed, 0xf);
        let equalised = if speed >= 3 { 0x1e } else { 0 };
        self.word(at + exp::LNKSTA2, equalised, 0);
    }

    pub(super) fn extended(
        &mut self,
        profile: &Profile,
        capability: Capability,
        next: u16,
        range: Option<(HostPhys, u64)>,
    ) {
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
            Body::RoutingId => (ext_cap::id::ARI, 1),
            Body::Translation => {
                self.word(at + ats::CTRL, 0, ats::CTRL_BITS);
                (ext_cap::id::ATS, 1)
            }
            Body::VirtualChannel => {
                let all = vc::CTRL_CLASSES | 1;
                let control = vc::CTRL_ENABLE | all;
                self.dword(at + vc::VC0_CTRL, control, vc::CTRL_CLASSES);
                (ext_cap::id::VC, 1)
            }
            Body::NvidiaRegisters { bitmap } => {
                let start = dvsec::header1(nvidia::VENDOR_ID, 0, capability.body.bytes());
                self.dword(at + dvsec::HEADER1, start, 0);
                self.word(at + dvsec::HEADER2, nvidia::dvsec::ID, 0);
                self.word(at + nvidia::dvsec::BITMAP, bitmap, 0);
                (ext_cap::id::DVSEC, 1)
            }
            Body::CxlDevice { timeout } => {
                self.cxl_device(at, timeout, range);
                (ext_cap::id::DVSEC, 1)
            }
            // the others are conventional, and the profile was checked
            _ => (0, 0),
        };
        self.dword(at, ext_cap::header(cap_id, version, next), 0);
    }

    /// Range 1 is the coherent memory.
    fn cxl_device(&mut self, at: u16, timeout: u8, range: Option<(HostPhys, u64)>) {
        let start = dvsec::header1(cxl::VENDOR_ID, 3, cxl::DEVICE_LEN);
        self.dword(at + dvsec::HEADER1, start, 0);
        self.word(at + dvsec::HEADER2, cxl::DEVICE, 0);
        let one_range = 1 << cxl::CAP_RANGES_SHIFT;
        self.word(at + cxl::CAP, cxl::CAP_MEM | one_range, 0);
        let (base, size) = range.unwrap_or((HostPhys(0), 0));
        let wait = u32::from(timeout) << cxl::MEM_ACTIVE_TIMEOUT_SHIFT;
        let low = |number: u64| number as u32 & cxl::RANGE_LOW_BITS;
        self.dword(at + cxl::RANGE1_SIZE_HIGH, (size >> 32) as u32, 0);
        self.dword(at + cxl::RANGE1_SIZE_LOW, low(size) | wait, 0);
        self.dword(at + cxl::RANGE1_BASE_HIGH, (base.0 >> 32) as u32, 0);
        self.dword(at + cxl::RANGE1_BASE_LOW, low(base.0), 0);
    }
}
