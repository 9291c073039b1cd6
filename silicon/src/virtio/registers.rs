//! Registers of both interfaces, and accesses of any width to them.
//!
//! A register is got and set as a whole: bytes that a write does not touch keep their value.

use varia_spec::virtio::{common, legacy, net};

use super::State;

/// Value that a register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    DeviceHalf,
    DeviceFeatures,
    LegacyDeviceFeatures,
    DriverHalf,
    DriverFeatures,
    LegacyDriverFeatures,
    ConfigVector,
    Queues,
    Status,
    /// A read clears it.
    Isr,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueuePfn,
    QueueDescriptors,
    QueueAvailable,
    QueueUsed,
    Mac,
    LinkStatus,
}

/// A register: its offset in its structure and its length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Register {
    start: u64,
    len: u64,
    field: Field,
}

impl Register {
    pub(super) const fn new(start: u64, len: u64, field: Field) -> Self {
        Self { start, len, field }
    }
}

/// The modern interface's common registers.
pub(super) const COMMON: &[Register] = &[
    Register::new(common::DFSELECT, 4, Field::DeviceHalf),
    Register::new(common::DF, 4, Field::DeviceFeatures),
    Register::new(common::GFSELECT, 4, Field::DriverHalf),
    Register::new(common::GF, 4, Field::DriverFeatures),
    Register::new(common::MSIX, 2, Field::ConfigVector),
    Register::new(common::NUMQ, 2, Field::Queues),
    Register::new(common::STATUS, 1, Field::Status),
    Register::new(common::Q_SELECT, 2, Field::QueueSelect),
    Register::new(common::Q_SIZE, 2, Field::QueueSize),
    Register::new(common::Q_MSIX, 2, Field::QueueVector),
    Register::new(common::Q_ENABLE, 2, Field::QueueEnable),
    Register::new(common::Q_NOFF, 2, Field::QueueNotifyOffset),
    Register::new(common::Q_DESC, 8, Field::QueueDescriptors),
    Register::new(common::Q_AVAIL, 8, Field::QueueAvailable),
    Register::new(common::Q_USED, 8, Field::QueueUsed),
];

/// The legacy interface's common registers. Its queues' size can't be set, and its notification is
/// no register.
pub(super) const LEGACY: &[Register] = &[
    Register::new(legacy::HOST_FEATURES, 4, Field::LegacyDeviceFeatures),
    Register::new(legacy::GUEST_FEATURES, 4, Field::LegacyDriverFeatures),
    Register::new(legacy::QUEUE_PFN, 4, Field::QueuePfn),
    Register::new(legacy::QUEUE_NUM, 2, Field::QueueSize),
    Register::new(legacy::QUEUE_SEL, 2, Field::QueueSelect),
    Register::new(legacy::STATUS, 1, Field::Status),
    Register::new(legacy::ISR, 1, Field::Isr),
];

/// Registers that exist while MSI-X is enabled.
pub(super) const LEGACY_VECTORS: &[Register] = &[
    Register::new(legacy::CONFIG_VECTOR, 2, Field::ConfigVector),
    Register::new(legacy::QUEUE_VECTOR, 2, Field::QueueVector),
];

/// A network card's own registers.
pub(super) const DEVICE: &[Register] = &[
    Register::new(net::MAC, 6, Field::Mac),
    Register::new(net::STATUS, 2, Field::LinkStatus),
];

/// Reads the bytes of `data`, the first of which is at `offset`, that are those of registers of a
/// structure at `base`.
pub(super) fn read(
    state: &mut State,
    registers: &[Register],
    base: u64,
    offset: u64,
    data: &mut [u8],
) {
    for register in touched(registers, base, offset, data.len()) {
        let value = state.get(register.field).to_le_bytes();
        for (at, byte) in bytes(register, base).zip(value) {
            if let Some(slot) = index(at, offset).and_then(|index| data.get_mut(index)) {
                *slot = byte;
            }
        }
    }
}

/// Writes the bytes of `data`, the first of which is at `offset`, that are those of registers of a
/// structure at `base`.
pub(super) fn write(
    state: &mut State,
    registers: &[Register],
    base: u64,
    offset: u64,
    data: &[u8],
) {
    for register in touched(registers, base, offset, data.len()) {
        // a read has an effect there, and a write has none
        if register.field == Field::Isr {
            continue;
        }
        let mut value = state.get(register.field).to_le_bytes();
        for (at, slot) in bytes(register, base).zip(&mut value) {
            if let Some(byte) = index(at, offset).and_then(|index| data.get(index)) {
                *slot = *byte;
            }
        }
        state.set(register.field, u64::from_le_bytes(value));
    }
}

/// The registers that `len` bytes at `offset` touch.
fn touched(
    registers: &[Register],
    base: u64,
    offset: u64,
    len: usize,
) -> impl Iterator<Item = &Register> {
    let end = offset.saturating_add(len as u64);
    registers.iter().filter(move |register| {
        let start = base + register.start;
        start < end && start + register.len > offset
    })
}

/// Position of a register's bytes.
fn bytes(register: &Register, base: u64) -> impl Iterator<Item = u64> + use<> {
    let start = base + register.start;
    start..start + register.len
}

fn index(at: u64, offset: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(offset)?).ok()
}
