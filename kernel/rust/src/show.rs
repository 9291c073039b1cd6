// SPDX-License-Identifier: GPL-2.0-only
//! Files of a device in debugfs, line by line. docs/kernel.md describes them.

use core::slice;

use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{MemoryType, Outcome, Ready, Region, Variant};

use crate::{
    abi::c_functions,
    poison::Page,
    state::{self, Instance, read, result, value, write},
    text::Text,
    types::{REGIONS, State},
};

/// The files, by number.
const FILES: &[(&str, Show)] = &[
    ("counters", Show::Counters),
    ("layout", Show::Layout),
    ("readiness", Show::Readiness),
    ("poison", Show::Poison),
];

#[derive(Clone, Copy)]
enum Show {
    Counters,
    Layout,
    Readiness,
    Poison,
}

impl Show {
    /// The line at a cursor, which begins at 0, and the cursor of the next; `None` at the end.
    fn line(self, instance: &Instance, cursor: u64) -> Option<(Text, u64)> {
        let text = match self {
            Self::Counters => {
                let (name, count) = instance.counters.line(cursor)?;
                Text::new().str(name).str(" ").dec(count)
            }
            Self::Layout => layout(instance, cursor)?,
            Self::Readiness => readiness(instance, cursor)?,
            Self::Poison => {
                let (first, pages, next) = instance.poison.range(cursor)?;
                return Some((poison(instance, first, pages), next));
            }
        };
        Some((text, cursor.checked_add(1)?))
    }
}

/// Outcome of the probe, the page size, then a line for each region index.
fn layout(instance: &Instance, cursor: u64) -> Option<Text> {
    let text = Text::new();
    let index = match cursor {
        0 => {
            return Some(match instance.variant.outcome() {
                Outcome::Serve => text.str("served"),
                Outcome::Decline(reason) => text.str("declined: ").sentence(&reason.sentence()),
                Outcome::Fail(refusal) => text.str("refused: ").sentence(&refusal.sentence()),
            });
        }
        1 => return Some(text.str("page_size ").hex(instance.page.size())),
        other => other
            .checked_sub(2)
            .filter(|index| *index < REGIONS as u64)?,
    };
    let index = RegionIndex(u32::try_from(index).ok()?);
    let Region::Memory(region) = instance.variant.region(index) else {
        return Some(text.str("region ").dec(index.0.into()).str(" base"));
    };
    let memory = match region.memory() {
        MemoryType::Cached => "cached",
        MemoryType::WriteCombining => "write-combining",
    };
    let text = text.str("region ").dec(index.0.into());
    let text = text.str(" ").str(region.name()).str(" ").str(memory);
    let text = text.str(" address ").hex(region.base().0);
    let text = text.str(" length ").hex(region.length());
    Some(text.str(" bar ").hex(region.size().get()))
}

/// The method and the two generations.
fn readiness(instance: &Instance, cursor: u64) -> Option<Text> {
    let text = Text::new();
    let Some(status) = instance.variant.readiness() else {
        return (cursor == 0).then(|| text.str("method none"));
    };
    Some(match cursor {
        0 => text.str("method ").str(status.method),
        1 => text.str("reset_generation ").dec(status.reset.0),
        2 => text.str("ready_generation ").dec(status.ready.0),
        _ => return None,
    })
}

/// A range of failed pages.
fn poison(instance: &Instance, first: Page, pages: u64) -> Text {
    let bytes = |pages: u64| pages << instance.page.get();
    let index = RegionIndex(first.index());
    let name = match instance.variant.region(index) {
        Region::Memory(region) => region.name(),
        Region::Base | Region::Registers(_) | Region::Composed(_) => "memory",
    };
    let offset = bytes(first.number());
    let text = Text::new().str("region ").dec(index.0.into());
    let text = text.str(" ").str(name).str(" offset ").hex(offset);
    let text = text.str(" length ").hex(bytes(pages));
    match instance.variant.region(index) {
        Region::Memory(region) => text
            .str(" address ")
            .hex(region.base().0.wrapping_add(offset)),
        Region::Base | Region::Registers(_) | Region::Composed(_) => text,
    }
}

c_functions! {
    /// Name of debugfs file number `file`, with a NUL, or -ENOENT after the last.
    fn varia_file(file: u32, name: *mut u8, len: u32) -> i32 {
        result((|| {
            let file = usize::try_from(file).map_err(|_| Errno::ENOENT)?;
            let (text, _) = FILES.get(file).ok_or(Errno::ENOENT)?;
            // SAFETY: `name` by the contract of all functions.
            unsafe { copy(Text::new().str(text), name, len) }
        })())
    }

    /// One line of a debugfs file, with a NUL: 1, or 0 after the last. `cursor` begins at 0 and is
    /// advanced.
    fn varia_line(
        state: *const State,
        file: u32,
        cursor: *mut u64,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            let file = usize::try_from(file).map_err(|_| Errno::ENOENT)?;
            let (_, show) = FILES.get(file).ok_or(Errno::ENOENT)?;
            // SAFETY: by the contract of all functions.
            let Some((line, next)) = show.line(instance, unsafe { read(cursor) }?) else {
                return Ok(0);
            };
            // SAFETY: by the contract of all functions.
            unsafe { write(cursor, next) }?;
            // SAFETY: by the contract of all functions.
            unsafe { copy(line, text, len) }?;
            Ok(1)
        })())
    }
}

/// Copies a text to `len` bytes of the caller's.
///
/// # Safety
/// `out` is null or names `len` bytes that are the caller's own.
pub(crate) unsafe fn copy(text: Text, out: *mut u8, len: u32) -> Result<(), Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if out.is_null() || len == 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not null, so it names `len` bytes, by the contract.
    text.copy_to(unsafe { slice::from_raw_parts_mut(out, len) });
    Ok(())
}
