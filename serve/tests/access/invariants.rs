//! Invariants of a device's registers, whatever its user did.

use varia_core::ConfigRegister;
use varia_silicon::profile::Body;
use varia_spec::pci::cap::{exp, msi, msix};
use varia_spec::pci::ext_cap;
use varia_spec::pci::header::{self, status};
use varia_spec::vfio::{RegionIndex, region_flags};

use super::User;

impl User<'_> {
    /// Registers that no user can change: identity and lists of capabilities.
    pub(super) fn constants(&self) -> Vec<u32> {
        let mut all = vec![
            self.virtual_dword(header::VENDOR_ID),
            self.virtual_dword(header::REVISION_ID),
            self.virtual_dword(header::SUBSYSTEM_VENDOR_ID),
            self.virtual_dword(header::COMMAND) >> 16 & u32::from(status::CAP_LIST),
            self.virtual_dword(header::LATENCY_TIMER & !3) >> 16 & 0xff,
        ];
        let mut at = self.virtual_dword(header::CAPABILITY_LIST) as u16 & 0xfc;
        while at != 0 {
            let start = self.virtual_dword(at) & 0xffff;
            all.push(u32::from(at) << 16 | start);
            at = (start >> 8) as u16 & 0xfc;
            assert!(all.len() < 64, "the list loops: {all:x?}");
        }
        at = ext_cap::START;
        while at != 0 {
            let start = self.virtual_dword(at);
            all.push(start);
            at = ext_cap::header_next(start);
            assert!(all.len() < 1200, "the list loops");
        }
        all
    }

    /// Checks of what has to hold after every write and reset.
    pub(super) fn check_registers(&self) {
        assert_eq!(self.constants(), self.constants, "identity and lists stay");
        if !self.asleep() {
            let raw = |register: ConfigRegister| self.raw(register.offset());
            let physical = address_registers().map(raw);
            assert_eq!(
                physical, self.physical,
                "the host's addresses are the host's"
            );
        }
        let set = |at: Option<u16>, offset: u16, bit: u16| {
            at.is_some_and(|at| self.raw(at + offset) & u32::from(bit) != 0)
        };
        let message = self.capability(|body| matches!(body, Body::Message { .. }));
        let message_x = self.capability(|body| matches!(body, Body::MessageX { .. }));
        let express = self.capability(|body| matches!(body, Body::Express { .. }));
        assert!(!set(message, msi::FLAGS, msi::FLAGS_ENABLE), "MSI");
        assert!(!set(message_x, msix::FLAGS, msix::FLAGS_ENABLE), "MSI-X");
        assert!(
            !set(express, exp::DEVCTL, exp::DEVCTL_PHANTOM),
            "phantom functions"
        );
        for index in (0..6).map(RegionIndex) {
            self.check_bar(index);
        }
    }

    /// A BAR shows the flags of what is behind it and address bits above its size, no other.
    fn check_bar(&self, index: RegionIndex) {
        let info = self.endpoint.region_info(index);
        let info = info.expect("a BAR's index");
        assert!(info.info.flags & region_flags::MMAP == 0 || info.file.is_some());
        let at = header::BASE_ADDRESS_0 + 4 * index.0 as u16;
        let value = self.virtual_dword(at);
        let mask = (info.info.size.wrapping_sub(1) & 0xffff_ffff) as u32;
        let is_upper = index.0 > 0 && {
            let lower = self.virtual_dword(at - 4);
            lower & header::bar::SPACE_IO == 0 && lower & header::bar::MEM_TYPE_64 != 0
        };
        if info.info.size == 0 {
            assert!(
                value == 0 || is_upper,
                "BAR {index:?} is not there: {value:#x}"
            );
        } else {
            let flags = if value & header::bar::SPACE_IO != 0 {
                header::bar::IO_FLAGS
            } else {
                header::bar::MEM_FLAGS
            };
            assert_eq!(value & mask & !flags, 0, "BAR {index:?} below its size");
        }
    }
}

pub(super) fn address_registers() -> [ConfigRegister; 7] {
    [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, header::ROM_ADDRESS].map(ConfigRegister::dword)
}
