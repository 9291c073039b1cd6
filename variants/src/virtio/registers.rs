//! The legacy interface: 32 bytes of I/O registers, served by commands of the function's owner.
//!
//! ```text
//! 0           16      18       20          24                32
//! | common... | notify | common | (vectors) | device ...       |   with MSI-X
//! | common... | notify | common | device ...                   |   without
//! ```
//!
//! Source: Linux 7.2 `drivers/vfio/pci/virtio/legacy_io.c:virtiovf_pci_bar0_rw` and
//! `virtiovf_issue_legacy_rw_cmd`.

use varia_spec::{
    Errno,
    virtio::{admin, legacy, net},
};
use varia_variant::{
    BarIndex, BarSize, Command, Direction, RegisterAccess, Registers, Target, config::StickyBits,
};

/// Bytes in the region: the common registers with their vectors, and a network card's up to its
/// link status.
const LEN: u64 = legacy::config_off(true) + net::CONFIG_LEN;

/// The size of BAR0, which the registers fill.
pub const SIZE: BarSize = match BarSize::covering(LEN) {
    Some(size) if size.get() == LEN => size,
    _ => panic!("the registers don't fill a BAR"),
};

/// Place at which a queue is notified: by the queue number, written as a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notify {
    /// The function's BAR.
    pub bar: BarIndex,
    /// Offset in it in bytes.
    pub offset: u64,
}

/// The legacy registers of one function.
#[derive(Debug)]
pub struct LegacyInterface {
    /// Place at which a queue is notified.
    pub notify: Notify,
    /// I/O enable, in the command register.
    pub io: StickyBits,
}

impl Registers for LegacyInterface {
    fn name(&self) -> &'static str {
        "legacy registers"
    }

    fn size(&self) -> BarSize {
        SIZE
    }

    /// `EIO` while I/O is disabled, `EINVAL` if the access reaches beyond the registers, or begins
    /// at the notification register and is not a word. Any other access goes to the part in which
    /// it begins, even if it ends in another part: the owner judges it.
    fn access(&self, access: RegisterAccess) -> Result<Target, Errno> {
        if !self.io.are_set() {
            return Err(Errno::EIO);
        }
        match access.offset.checked_add(access.len) {
            Some(end) if end <= LEN => {}
            _ => return Err(Errno::EINVAL),
        }
        if access.offset == legacy::QUEUE_NOTIFY {
            return match access.len {
                2 => Ok(Target::Bar {
                    bar: self.notify.bar,
                    offset: self.notify.offset,
                }),
                _ => Err(Errno::EINVAL),
            };
        }
        Ok(Target::Command(command(access)))
    }
}

/// The command that reads or writes registers, at their offset in the common or the device part.
fn command(access: RegisterAccess) -> Command {
    let device = legacy::config_off(access.msix);
    let (offset, common) = match access.offset.checked_sub(device) {
        Some(offset) => (offset, false),
        None => (access.offset, true),
    };
    let (opcode, len) = match (access.direction, common) {
        (Direction::Read, true) => (admin::LEGACY_COMMON_CFG_READ, admin::LEGACY_READ_HEADER),
        (Direction::Read, false) => (admin::LEGACY_DEV_CFG_READ, admin::LEGACY_READ_HEADER),
        (Direction::Write, true) => (admin::LEGACY_COMMON_CFG_WRITE, admin::LEGACY_WRITE_HEADER),
        (Direction::Write, false) => (admin::LEGACY_DEV_CFG_WRITE, admin::LEGACY_WRITE_HEADER),
    };
    // the offset is a byte, and all else in a header is reserved
    Command::new(opcode, offset.to_le_bytes(), len)
}
