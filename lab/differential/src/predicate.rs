//! The differences that are meant, each by name and as narrow as its name.

use varia_spec::{
    pci::header::{self, bar},
    vfio::{RegionIndex, region_flags},
};

use crate::op::{Answer, Op, Shape};

/// One operation and its two answers.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The device.
    pub shape: &'a Shape,
    /// What was done.
    pub op: &'a Op,
    /// What the oracle answered.
    pub reference: &'a Answer,
    /// What ours answered.
    pub ours: &'a Answer,
}

/// A difference that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Predicate {
    /// The name under which the documentation explains it.
    pub name: &'static str,
    /// Whether this case is exactly that difference.
    pub explains: fn(&Case<'_>) -> bool,
}

/// resmem behaves as usemem does: the original returns only the bytes that reached memory and
/// does not advance the file position.
pub const RESMEM_COUNT: Predicate = Predicate {
    name: "resmem-count",
    explains: resmem_count,
};

/// Each byte of a configuration access goes where it belongs, and the whole count is returned.
pub const WHOLE_CONFIG_ACCESS: Predicate = Predicate {
    name: "whole-config-access",
    explains: whole_config_access,
};

/// A private writable mapping is refused: in the original, touching it is a kernel BUG.
pub const SHARED_ONLY: Predicate = Predicate {
    name: "shared-only",
    explains: shared_only,
};

/// Ours against the original driver.
pub const AGAINST_ORIGINAL: &[Predicate] = &[RESMEM_COUNT, WHOLE_CONFIG_ACCESS, SHARED_ONLY];

/// A vfio-user client maps the memory's file itself: clearing memory enable, or sleep, does not
/// take the mapping away, so a touch succeeds where the kernel's mapping faults.
pub const MAPPING_STAYS: Predicate = Predicate {
    name: "mapping-stays",
    explains: mapping_stays,
};

/// The user-space runtime, on the silicon itself, against the original in a VM.
pub const USER_SPACE: &[Predicate] = &[
    RESMEM_COUNT,
    WHOLE_CONFIG_ACCESS,
    MAPPING_STAYS,
    TRAPPED_BAR0,
    ERROR_REPORTING,
];

/// The kernel of the machine that owns the device has enabled PCIe error reporting (bits 3:0 of
/// device control); in user space nobody does.
pub const ERROR_REPORTING: Predicate = Predicate {
    name: "error-reporting",
    explains: error_reporting,
};

/// BAR0 holds registers that the silicon model has to see, so that a client can't map it.
pub const TRAPPED_BAR0: Predicate = Predicate {
    name: "trapped-bar0",
    explains: trapped_bar0,
};

fn trapped_bar0(case: &Case<'_>) -> bool {
    const READ_WRITE: u32 = region_flags::READ | region_flags::WRITE;
    let field = |answer: &Answer, at: usize| {
        answer
            .data
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let (reference, ours) = (case.reference, case.ours);
    // Flags are at 4 of the packed structure, the index at 8, size and offset from 16.
    matches!(case.op, Op::RegionInfo { region: 0, .. })
        && reference.result == Ok(0)
        && ours.result == Ok(0)
        && field(reference, 4) == Some(READ_WRITE | region_flags::MMAP | region_flags::CAPS)
        && field(ours, 4) == Some(READ_WRITE)
        && [8, 16, 20, 24, 28]
            .iter()
            .all(|at| field(reference, *at) == field(ours, *at))
}

fn mapping_stays(case: &Case<'_>) -> bool {
    matches!(case.op, Op::Map { asleep: true, .. })
        && case.reference.result == Err(varia_spec::Errno::EFAULT.get())
        && case.ours.result == Ok(0)
}

fn resmem_count(case: &Case<'_>) -> bool {
    let (offset, len) = match case.op {
        Op::Read {
            region,
            offset,
            len,
        } if RegionIndex(*region) == RegionIndex::BAR2 => (*offset, u64::from(*len)),
        Op::Write {
            region,
            offset,
            data,
        } if RegionIndex(*region) == RegionIndex::BAR2 => (*offset, data.len() as u64),
        _ => return false,
    };
    let Some(memory) = case.shape.resmem else {
        return false;
    };
    if offset >= memory.length || len == 0 {
        return false;
    }
    let whole = len.min(memory.size - offset);
    let reached = whole.min(memory.length - offset);
    let (common, padding) = match case.op {
        Op::Read { .. } => {
            let Some(split) = case.ours.data.split_at_checked(reached as usize) else {
                return false;
            };
            split
        }
        _ => (case.ours.data.as_slice(), [].as_slice()),
    };
    case.reference.result == Ok(reached)
        && case.reference.advance == 0
        && case.ours.result == Ok(whole)
        && case.ours.advance == whole
        && case.reference.data == common
        && padding.iter().all(|byte| *byte == 0xff)
}

/// The windows of the fake BARs in configuration space, first to first beyond.
const RESMEM_WINDOW: (u64, u64) = (header::BASE_ADDRESS_2 as u64, header::BASE_ADDRESS_4 as u64);
const USEMEM_WINDOW: (u64, u64) = (header::BASE_ADDRESS_4 as u64, header::CARDBUS_CIS as u64);

fn overlap(offset: u64, len: u64, window: (u64, u64)) -> Option<(u64, u64)> {
    let (start, end) = (offset.max(window.0), (offset + len).min(window.1));
    (start < end).then_some((start, end))
}

fn whole_config_access(case: &Case<'_>) -> bool {
    match case.op {
        Op::Read {
            region,
            offset,
            len,
        } if RegionIndex(*region) == RegionIndex::CONFIG => {
            config_read(case, *offset, u64::from(*len))
        }
        Op::Write {
            region,
            offset,
            data,
        } if RegionIndex(*region) == RegionIndex::CONFIG => {
            config_write(case, *offset, data.len() as u64)
        }
        _ => false,
    }
}

/// A read that touches both windows shows the base's bytes in the second one.
fn config_read(case: &Case<'_>, offset: u64, len: u64) -> bool {
    touches_both(offset, len) && differs_only(case, offset, |at, _, ours| fake_bar4(case, at, ours))
}

fn touches_both(offset: u64, len: u64) -> bool {
    overlap(offset, len, RESMEM_WINDOW).is_some() && overlap(offset, len, USEMEM_WINDOW).is_some()
}

/// Whether a byte of ours can be one of a 64-bit prefetchable BAR of usemem's size: below the
/// size there are the flags and nothing else.
fn fake_bar4(case: &Case<'_>, at: u64, ours: u8) -> bool {
    let flags = u64::from(bar::MEM_TYPE_64 | bar::MEM_PREFETCH).to_le_bytes();
    let below = (case.shape.usemem.size - 1).to_le_bytes();
    let place = usize::try_from(at.wrapping_sub(USEMEM_WINDOW.0)).unwrap_or(usize::MAX);
    match (below.get(place), flags.get(place)) {
        (Some(below), Some(flags)) => ours & below == *flags,
        _ => false,
    }
}

/// Whether two reads from `offset` are equal but for bytes that `may` differ: their place, what
/// the reference has there, and what ours has.
fn differs_only(case: &Case<'_>, offset: u64, may: impl Fn(u64, u8, u8) -> bool) -> bool {
    let (reference, ours) = (case.reference, case.ours);
    reference.result == ours.result
        && reference.advance == ours.advance
        && reference.data.len() == ours.data.len()
        && (offset..)
            .zip(reference.data.iter().zip(&ours.data))
            .all(|(at, (a, b))| a == b || may(at, *a, *b))
}

/// Where the Express capability of the profiles under test has its device control register.
const DEVICE_CONTROL: u64 = 0x68;

fn error_reporting(case: &Case<'_>) -> bool {
    let Op::Read {
        region,
        offset,
        len,
    } = case.op
    else {
        return false;
    };
    let both = touches_both(*offset, u64::from(*len));
    RegionIndex(*region) == RegionIndex::CONFIG
        && differs_only(case, *offset, |at, reference, ours| {
            let reporting = at == DEVICE_CONTROL && reference == ours | 0x0f;
            reporting || (both && fake_bar4(case, at, ours))
        })
}

/// A write that is not inside one window keeps only the overlap and returns its count.
fn config_write(case: &Case<'_>, offset: u64, len: u64) -> bool {
    let window = if overlap(offset, len, RESMEM_WINDOW).is_some() {
        if case.shape.resmem.is_none() {
            return false;
        }
        RESMEM_WINDOW
    } else {
        USEMEM_WINDOW
    };
    let Some((start, end)) = overlap(offset, len, window) else {
        return false;
    };
    let kept = end - start;
    kept < len
        && case.reference.result == Ok(kept)
        && case.reference.advance == kept
        && case.ours.result == Ok(len)
        && case.ours.advance == len
}

fn shared_only(case: &Case<'_>) -> bool {
    let Op::MapPrivate { region, offset } = case.op else {
        return false;
    };
    let inside = case
        .shape
        .memory(*region)
        .is_some_and(|memory| offset + case.shape.page <= memory.length);
    inside
        && case.reference.result.is_ok()
        && case.ours.result == Err(varia_spec::Errno::EINVAL.get())
}
