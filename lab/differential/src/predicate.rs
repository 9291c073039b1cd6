//! The differences that are meant, each by name and as narrow as its name.

use varia_spec::{
    pci::header::{self, bar},
    vfio::{RegionIndex, region_flags},
};

use crate::op::{Answer, Op, Pointer, Shape};

/// Operation with its two answers.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The device.
    pub shape: &'a Shape,
    /// Operation.
    pub op: &'a Op,
    /// Answer of the oracle.
    pub reference: &'a Answer,
    /// Answer of our driver.
    pub ours: &'a Answer,
}

/// A difference that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Predicate {
    /// The name under which the documentation explains it.
    pub name: &'static str,
    /// Returns true if a case is exactly this difference.
    pub explains: fn(&Case<'_>) -> bool,
    /// Of a thousand operations, how many it may explain at most: one that explains more hides
    /// something.
    pub per_mille: usize,
    /// The first kernel series (major, minor) whose original driver does not differ any more; `None`
    /// if all known ones differ.
    pub gone_in: Option<(u16, u16)>,
}

impl Predicate {
    /// True if the difference shows on a kernel of this series.
    #[must_use]
    pub fn holds_on(&self, series: (u16, u16)) -> bool {
        self.gone_in.is_none_or(|gone| series < gone)
    }
}

/// resmem behaves as usemem does: the original returns only the bytes that reached memory and
/// does not advance the file position.
pub const RESMEM_COUNT: Predicate = Predicate {
    name: "resmem-count",
    explains: resmem_count,
    per_mille: 120,
    gone_in: None,
};

/// Each byte of a configuration access goes where it belongs, and the whole count is returned.
pub const WHOLE_CONFIG_ACCESS: Predicate = Predicate {
    name: "whole-config-access",
    explains: whole_config_access,
    per_mille: 100,
    gone_in: None,
};

/// A private writable mapping is refused: in the original, touching it is a kernel BUG.
pub const SHARED_ONLY: Predicate = Predicate {
    name: "shared-only",
    explains: shared_only,
    per_mille: 20,
    gone_in: None,
};

/// A device that has been declined can be opened again. The original registers an empty page range
/// as everything, never takes it back, and meets it when it registers again; that of Linux 7.3 has an
/// open of its own for such a device, which registers nothing.
pub const NO_EMPTY_RANGE: Predicate = Predicate {
    name: "no-empty-range",
    explains: no_empty_range,
    per_mille: 1,
    gone_in: Some((7, 3)),
};

/// Ours against the original driver, with everything that a user of the kernel does.
pub const AGAINST_ORIGINAL: &[Predicate] = &[
    RESMEM_COUNT,
    WHOLE_CONFIG_ACCESS,
    SHARED_ONLY,
    NO_EMPTY_RANGE,
];

/// Differences that only the kernel of one architecture shows.
///
/// On arm64 none: page sizes (4, 16 and 64 KiB), the orders of page-table entries that a fault tries
/// and the way to map memory as write-combining are the kernel's, and both drivers run on the same
/// kernel in the same boot.
pub const ON_ARM64: &[Predicate] = &[];

/// The same on amd64: none. It has entries of 1 GiB for page frames, which arm64 has not, and no
/// memory type for resmem that a touch could tell from another; neither shows in an answer. BAR 2 is
/// smaller in its machine, for both drivers.
pub const ON_AMD64: &[Predicate] = &[];

/// A vfio-user client maps the memory's file itself: clearing memory enable, or sleep, does not
/// take the mapping away, so a touch succeeds where the kernel's mapping faults.
pub const MAPPING_STAYS: Predicate = Predicate {
    name: "mapping-stays",
    explains: mapping_stays,
    per_mille: 30,
    gone_in: None,
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
/// device control); in user space no code does.
pub const ERROR_REPORTING: Predicate = Predicate {
    name: "error-reporting",
    explains: error_reporting,
    per_mille: 50,
    gone_in: None,
};

/// BAR0 holds registers that the silicon model has to see, so that a client can't map it.
pub const TRAPPED_BAR0: Predicate = Predicate {
    name: "trapped-bar0",
    explains: trapped_bar0,
    per_mille: 20,
    gone_in: None,
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
    let Some(access) = Access::of(case.op) else {
        return false;
    };
    let Some(memory) = case.shape.resmem else {
        return false;
    };
    let Access { offset, len, .. } = access;
    let is_resmem = RegionIndex(access.region) == RegionIndex::BAR2;
    if !is_resmem || offset >= memory.length || len == 0 {
        return false;
    }
    let whole = len.min(memory.size - offset);
    let reached = whole.min(memory.length - offset);
    if case.reference.result != Ok(reached) || case.reference.advance != 0 {
        return false;
    }
    // The original has not come to the bytes for which there is no room.
    let padding_faults = !access.is_write && (reached..whole).contains(&access.room);
    if padding_faults {
        return case.ours.result == Err(varia_spec::Errno::EFAULT.get()) && case.ours.advance == 0;
    }
    let (common, padding) = match access.is_write {
        false => {
            let Some(split) = case.ours.data.split_at_checked(reached as usize) else {
                return false;
            };
            split
        }
        true => (case.ours.data.as_slice(), [].as_slice()),
    };
    case.ours.result == Ok(whole)
        && case.ours.advance == whole
        && case.reference.data == common
        && padding.iter().all(|byte| *byte == 0xff)
}

/// A read or a write, with a good address or a bad one.
struct Access {
    region: u32,
    offset: u64,
    len: u64,
    is_write: bool,
    /// Bytes that can be accessed from the address on.
    room: u64,
}

impl Access {
    fn of(op: &Op) -> Option<Self> {
        let (region, offset, len, is_write, pointer) = match op {
            Op::Read {
                region,
                offset,
                len,
            } => (region, offset, u64::from(*len), false, Pointer::Good),
            Op::BadRead {
                region,
                offset,
                len,
                pointer,
            } => (region, offset, u64::from(*len), false, *pointer),
            Op::Write {
                region,
                offset,
                data,
            } => (region, offset, data.len() as u64, true, Pointer::Good),
            Op::BadWrite {
                region,
                offset,
                data,
                pointer,
            } => (region, offset, data.len() as u64, true, *pointer),
            _ => return None,
        };
        let room = match pointer {
            Pointer::Good => u64::MAX,
            Pointer::Cut(room) => room.into(),
            Pointer::ReadOnly if is_write => u64::MAX,
            Pointer::ReadOnly | Pointer::Null => 0,
        };
        Some(Self {
            region: *region,
            offset: *offset,
            len,
            is_write,
            room,
        })
    }
}

/// The windows of the fake BARs in configuration space, first to first beyond.
const RESMEM_WINDOW: (u64, u64) = (header::BASE_ADDRESS_2 as u64, header::BASE_ADDRESS_4 as u64);
const USEMEM_WINDOW: (u64, u64) = (header::BASE_ADDRESS_4 as u64, header::CARDBUS_CIS as u64);

fn overlap(offset: u64, len: u64, window: (u64, u64)) -> Option<(u64, u64)> {
    let (start, end) = (offset.max(window.0), (offset + len).min(window.1));
    (start < end).then_some((start, end))
}

fn whole_config_access(case: &Case<'_>) -> bool {
    match Access::of(case.op) {
        Some(access) if RegionIndex(access.region) != RegionIndex::CONFIG => false,
        Some(access) if access.is_write => config_write(case, &access),
        Some(access) => config_read(case, access.offset, access.len),
        None => false,
    }
}

/// A read that touches both windows shows the base's bytes in the second one.
fn config_read(case: &Case<'_>, offset: u64, len: u64) -> bool {
    touches_both(offset, len) && differs_only(case, offset, |at, _, ours| fake_bar4(case, at, ours))
}

fn touches_both(offset: u64, len: u64) -> bool {
    overlap(offset, len, RESMEM_WINDOW).is_some() && overlap(offset, len, USEMEM_WINDOW).is_some()
}

/// Returns true if a byte of ours can be in a 64-bit prefetchable BAR of usemem's size: below the
/// size there are the flags and nothing else.
fn fake_bar4(case: &Case<'_>, at: u64, ours: u8) -> bool {
    let flags = u64::from(bar::MEM_TYPE_64 | bar::MEM_PREFETCH).to_le_bytes();
    let Some(usemem) = case.shape.usemem else {
        return false;
    };
    let below = (usemem.size - 1).to_le_bytes();
    let place = usize::try_from(at.wrapping_sub(USEMEM_WINDOW.0)).unwrap_or(usize::MAX);
    match (below.get(place), flags.get(place)) {
        (Some(below), Some(flags)) => ours & below == *flags,
        _ => false,
    }
}

/// Returns true if two reads from `offset` are equal but for bytes that `may` differ: {offset, byte of
/// the reference, byte of ours}.
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

/// A write of the original handles the first window alone: it keeps the overlap and returns its
/// count; the base gets the whole write where that window is none of the variant's. Ours does piece
/// by piece, and an address that is not good for a piece ends it there. Both answers are foretold.
fn config_write(case: &Case<'_>, access: &Access) -> bool {
    if case.shape.is_declined() {
        return false;
    }
    let Access {
        offset, len, room, ..
    } = *access;
    let windows = [
        (RESMEM_WINDOW, case.shape.resmem.is_some()),
        (USEMEM_WINDOW, true),
    ];
    let touched = |(window, owned): ((u64, u64), bool)| {
        overlap(offset, len, window).map(|overlap| (overlap, owned))
    };
    let Some(((start, end), owned)) = windows.into_iter().find_map(touched) else {
        return false;
    };
    let original = match owned {
        true if room >= end - offset => Some(end - start),
        false if room >= len => Some(len),
        _ => None,
    };
    let mut ours = 0;
    let edges = windows.into_iter().filter(|(_, owned)| *owned);
    let edges = edges.flat_map(|((start, end), _)| [start, end]);
    for edge in edges.chain([offset + len]) {
        let done = edge.clamp(offset, offset + len) - offset;
        if done <= room {
            ours = ours.max(done);
        } else {
            break;
        }
    }
    let ours = (ours > 0).then_some(ours);
    let is = |answer: &Answer, count: Option<u64>| {
        let result = count.ok_or(varia_spec::Errno::EFAULT.get());
        answer.result == result && answer.advance == count.unwrap_or(0)
    };
    is(case.reference, original) && is(case.ours, ours)
}

fn shared_only(case: &Case<'_>) -> bool {
    let Op::MapPrivate { region, offset, .. } = case.op else {
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

fn no_empty_range(case: &Case<'_>) -> bool {
    matches!(case.op, Op::Reopen { .. })
        && case.shape.is_declined()
        && case.reference.result == Err(varia_spec::Errno::EBUSY.get())
        && case.ours.result == Ok(0)
}
