// SPDX-License-Identifier: GPL-2.0-only
//! Files of a device in debugfs, line by line. docs/kernel.md describes them.

use core::slice;

use varia_spec::{Errno, vfio::RegionIndex};
use varia_variant::{Bytes, MemoryType, Outcome, Ready, Region, Variant};

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
    /// Writes the line at a cursor, which begins at 0, and returns the cursor of the next; `None` at
    /// the end.
    fn line(self, instance: &Instance, cursor: u64, text: &mut Text<'_>) -> Option<u64> {
        match self {
            Self::Counters => {
                let (name, count) = instance.counters.line(cursor)?;
                text.str(name).str(" ").dec(count);
            }
            Self::Layout => layout(instance, cursor, text)?,
            Self::Readiness => readiness(instance, cursor, text)?,
            Self::Poison => match instance.poison.range(cursor) {
                Some((first, pages, next)) => {
                    poison(instance, first, pages, text);
                    return Some(next);
                }
                None => return beyond(instance, cursor, text),
            },
        }
        cursor.checked_add(1)
    }
}

/// Outcome of the probe, the page size, then a line for each region index.
fn layout(instance: &Instance, cursor: u64, text: &mut Text<'_>) -> Option<()> {
    let index = match cursor {
        0 => {
            outcome(&instance.variant.outcome(), text);
            return Some(());
        }
        1 => {
            text.str("page_size ").size(Bytes(instance.page.size()));
            return Some(());
        }
        other => other
            .checked_sub(2)
            .filter(|index| *index < REGIONS as u64)?,
    };
    let index = RegionIndex(u32::try_from(index).ok()?);
    text.str("region ").dec(index.0.into());
    let Region::Memory(region) = instance.variant.region(index) else {
        text.str(" base");
        return Some(());
    };
    text.str(" ").str(region.name()).str(match region.memory() {
        MemoryType::Cached => " cached",
        MemoryType::WriteCombining | MemoryType::Registers => " write-combining",
    });
    text.str(" address ").hex(region.base().0);
    text.str(" length ").size(Bytes(region.length()));
    text.str(" bar ").size(region.size());
    Some(())
}

/// Outcome of the probe.
fn outcome(outcome: &Outcome, text: &mut Text<'_>) {
    match outcome {
        Outcome::Serve => text.str("served"),
        Outcome::Decline(reason) => text.str("declined: ").sentence(&reason.sentence()),
        Outcome::Fail(refusal) => text.str("refused: ").sentence(&refusal.sentence()),
    };
}

/// The method and the two generations.
fn readiness(instance: &Instance, cursor: u64, text: &mut Text<'_>) -> Option<()> {
    match (instance.variant.readiness(), cursor) {
        (None, 0) => text.str("method none"),
        (Some(status), 0) => text.str("method ").str(status.method),
        (Some(status), 1) => text.str("reset_generation ").dec(status.reset.0),
        (Some(status), 2) => text.str("ready_generation ").dec(status.ready.0),
        _ => return None,
    };
    Some(())
}

/// A range of failed pages.
fn poison(instance: &Instance, first: Page, pages: u64, text: &mut Text<'_>) {
    let bytes = |pages: u64| pages << instance.page.get();
    let index = RegionIndex(first.index());
    let offset = bytes(first.number());
    let region = match instance.variant.region(index) {
        Region::Memory(region) => Some(region),
        Region::Base | Region::Absent | Region::Registers(_) | Region::Composed(_) => None,
    };
    let name = region.map_or("memory", |region| region.name());
    text.str("region ").dec(index.0.into()).str(" ").str(name);
    text.str(" offset ").hex(offset);
    text.str(" length ").size(Bytes(bytes(pages)));
    if let Some(region) = region {
        text.str(" address ")
            .hex(region.base().0.wrapping_add(offset));
    }
}

/// The last line of the list of failed pages: those for which the list has no room.
fn beyond(instance: &Instance, cursor: u64, text: &mut Text<'_>) -> Option<u64> {
    let (lowest, highest) = instance.poison.overflow()?;
    if cursor == u64::MAX {
        return None;
    }
    text.str("no room for pages");
    for (word, page) in [(" from region ", lowest), (" to region ", highest)] {
        text.str(word).dec(page.index().into()).str(" offset ");
        text.hex(page.number() << instance.page.get());
    }
    text.str(": all of these count as failed");
    Some(u64::MAX)
}

c_functions! {
    /// Name of debugfs file number `file`, with a NUL, or -ENOENT after the last.
    fn varia_file(file: u32, name: *mut u8, len: u32) -> i32 {
        result((|| {
            let file = usize::try_from(file).map_err(|_| Errno::ENOENT)?;
            let (text, _) = FILES.get(file).ok_or(Errno::ENOENT)?;
            // SAFETY: `name` by the contract of all functions.
            unsafe { writer(name, len) }?.str(text);
            Ok(())
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
            let (at, mut text) = unsafe { (read(cursor)?, writer(text, len)?) };
            let Some(next) = show.line(instance, at, &mut text) else {
                return Ok(0);
            };
            // SAFETY: by the contract of all functions.
            unsafe { write(cursor, next) }?;
            Ok(1)
        })())
    }
}

/// A text in `len` bytes of the caller's.
///
/// # Safety
/// `out` is null or names `len` bytes that are the caller's own and outlive `'a`.
pub(crate) unsafe fn writer<'a>(out: *mut u8, len: u32) -> Result<Text<'a>, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if out.is_null() || len == 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: not null, so it names `len` bytes, by the contract.
    Ok(Text::new(unsafe { slice::from_raw_parts_mut(out, len) }))
}
