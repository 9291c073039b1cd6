// SPDX-License-Identifier: GPL-2.0-only

//! Files of a device in debugfs.

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    device,
    fmt,
    pci,
    prelude::*,
    str::CString,
    sync::Arc, //
};
use varia_variant::{
    Bytes,
    MemoryType,
    Outcome,
    Ready,
    Variant, //
};

use crate::{
    state::{
        Data,
        State, //
    },
    NAME, //
};

/// The files of a device, which are removed with this value.
pub(crate) struct Files {
    _files: [Pin<KBox<File<Arc<State>>>>; 4],
    _dir: Dir,
}

/// Text of the decisions, for the kernel's log.
pub(crate) struct Told<T>(pub(crate) T);

impl<T: core::fmt::Display> fmt::Display for Told<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes the files. A device without them works as well, so an error is not told.
pub(crate) fn create(pdev: &pci::Device<device::Core<'_>>, data: &Data) {
    let files = files(pdev, &data.state);
    *data.files.lock() = files.ok();
}

/// Removes the files.
pub(crate) fn remove(data: &Data) {
    let files = data.files.lock().take();
    drop(files);
}

fn files(pdev: &pci::Device<device::Core<'_>>, state: &Arc<State>) -> Result<Files> {
    let device: &device::Device<device::Core<'_>> = pdev.as_ref();
    let dir = Dir::new(&CString::try_from_fmt(fmt!("{}:{}", NAME, device.name()))?);
    let files = [
        KBox::pin_init(
            dir.read_callback_file(c"counters", Ok::<_, Error>(state.clone()), &counters),
            GFP_KERNEL,
        )?,
        KBox::pin_init(
            dir.read_callback_file(c"layout", Ok::<_, Error>(state.clone()), &layout),
            GFP_KERNEL,
        )?,
        KBox::pin_init(
            dir.read_callback_file(c"readiness", Ok::<_, Error>(state.clone()), &readiness),
            GFP_KERNEL,
        )?,
        KBox::pin_init(
            dir.read_callback_file(c"poison", Ok::<_, Error>(state.clone()), &poison),
            GFP_KERNEL,
        )?,
    ];
    Ok(Files {
        _files: files,
        _dir: dir,
    })
}

fn counters(state: &Arc<State>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let lines = (0..).map_while(|number| state.counters.line(number));
    for (name, count) in lines {
        writeln!(f, "{name} {count}")?;
    }
    Ok(())
}

fn layout(state: &Arc<State>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match state.variant.outcome() {
        Outcome::Serve => writeln!(f, "served")?,
        Outcome::Decline(reason) => writeln!(f, "declined: {reason}")?,
        Outcome::Fail(refusal) => writeln!(f, "refused: {refusal}")?,
    }
    writeln!(f, "page_size {}", Bytes(state.page.size()))?;
    for index in 0..6 {
        let Some(region) = state.memory(index) else {
            writeln!(f, "region {index} base")?;
            continue;
        };
        let memory = match region.memory() {
            MemoryType::Cached => "cached",
            MemoryType::WriteCombining | MemoryType::Registers => "write-combining",
        };
        writeln!(
            f,
            "region {index} {} {memory} address {:#x} length {} bar {}",
            region.name(),
            region.base().0,
            Bytes(region.length()),
            region.size(),
        )?;
    }
    Ok(())
}

fn readiness(state: &Arc<State>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(status) = state.variant.readiness() else {
        return writeln!(f, "method none");
    };
    writeln!(f, "method {}", status.method)?;
    writeln!(f, "reset_generation {}", status.reset.0)?;
    writeln!(f, "ready_generation {}", status.ready.0)
}

fn poison(state: &Arc<State>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let shift = state.page.get();
    let mut from = 0;
    while let Some((first, pages, next)) = state.poison.range(from) {
        let (index, offset) = (first.index(), first.number() << shift);
        let region = state.memory(index);
        let name = region.map_or("memory", |region| region.name());
        write!(
            f,
            "region {index} {name} offset {offset:#x} length {}",
            Bytes(pages << shift)
        )?;
        if let Some(region) = region {
            write!(f, " address {:#x}", region.base().0.wrapping_add(offset))?;
        }
        writeln!(f)?;
        from = next;
    }
    if let Some((lowest, highest)) = state.poison.overflow() {
        writeln!(
            f,
            "no room for pages from region {} offset {:#x} to region {} offset {:#x}: all of these \
             count as failed",
            lowest.index(),
            lowest.number() << shift,
            highest.index(),
            highest.number() << shift,
        )?;
    }
    Ok(())
}
