//! `pci-core KERNEL OURS SEED COUNT`: the same random operations on two equal functions, one
//! behind the kernel's vfio-pci, one behind the user-space core.
//!
//! `KERNEL` is bound to vfio-pci, `OURS` has no driver. An [`Outcome`] goes to standard output,
//! encoded by postcard.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use varia_core::{Core, IrqData, Source, Trigger, View};
use varia_differential::pci::{Answer, Data, Op, Target, operations, places};
use varia_spec::Errno;
use varia_spec::vfio::{
    DeviceInfo, IrqAction, IrqIndex, IrqInfo, RegionIndex, irq_set, region_cap, region_flags,
};
use varia_sys::event::EventFd;
use varia_sys::vfio::position;

use super::vfio::OpenDevice;
use crate::sysfs::SysfsDevice;

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The raw configuration space that the operations were made from.
    pub raw: Vec<u8>,
    /// The sizes of the regions that they were made from.
    pub sizes: Vec<u64>,
    /// Answers of the kernel.
    pub kernel: Vec<Answer>,
    /// Answers of the user-space core.
    pub ours: Vec<Answer>,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match outcome(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pci-core: {error}");
            ExitCode::FAILURE
        }
    }
}

fn outcome(arguments: &[String]) -> Result<(), String> {
    let [kernel, ours, seed, count] = arguments else {
        return Err("usage: pci-core KERNEL OURS SEED COUNT".into());
    };
    let seed = seed.parse().map_err(|e| format!("seed {seed:?}: {e}"))?;
    let count = count.parse().map_err(|e| format!("count {count:?}: {e}"))?;
    let opened = OpenDevice::open(kernel)?;
    let device = Arc::new(SysfsDevice::open(ours)?);
    let raw = device.raw()?;
    let core = Core::new(device, View::Virtual).map_err(|e| format!("{ours}: {e}"))?;
    core.open()
        .map_err(|errno| format!("{ours}: open: {errno}"))?;
    let size = |index| core.region_info(RegionIndex(index)).map_or(0, |r| r.size);
    let sizes: Vec<u64> = (0..RegionIndex::COUNT).map(size).collect();
    let mut kernel = KernelCore {
        opened: &opened,
        events: BTreeMap::new(),
    };
    let mut ours = OurCore {
        core: &core,
        events: BTreeMap::new(),
    };
    let ops = operations(seed, count, &places(&raw), &sizes);
    let answers = ops.iter().map(|op| (kernel.run(op), ours.run(op)));
    let (kernel, ours) = answers.unzip();
    core.close();
    let outcome = Outcome {
        raw,
        sizes,
        kernel,
        ours,
    };
    let bytes = postcard::to_stdvec(&outcome).map_err(|e| e.to_string())?;
    io::stdout().write_all(&bytes).map_err(|e| e.to_string())
}

/// Signals since the last call, by index and vector.
type Events = BTreeMap<(u32, u32), Arc<EventFd>>;

fn counted(events: &Events, result: Result<u64, Errno>) -> Answer {
    match result {
        Err(errno) => Answer::failed(errno.get()),
        Ok(result) => {
            let drain = |event: &Arc<EventFd>| event.drain().unwrap_or(u64::MAX);
            let counts = events
                .iter()
                .flat_map(|((index, vector), event)| {
                    [u64::from(*index), u64::from(*vector), drain(event)]
                })
                .collect::<Vec<_>>();
            Answer {
                result: Ok(result),
                ..Answer::fields(counts)
            }
        }
    }
}

/// Bytes that were read or written, or an error.
fn moved(result: Result<usize, Errno>, data: Vec<u8>) -> Answer {
    match result {
        Ok(count) => {
            let mut data = data;
            data.truncate(count);
            Answer {
                result: Ok(count as u64),
                data,
            }
        }
        Err(errno) => Answer::failed(errno.get()),
    }
}

fn told(result: Result<Vec<u64>, Errno>) -> Answer {
    match result {
        Ok(fields) => Answer::fields(fields),
        Err(errno) => Answer::failed(errno.get()),
    }
}

fn bools(count: u32) -> Vec<bool> {
    (0..count).map(|i| i % 2 == 0).collect()
}

/// The kernel's.
struct KernelCore<'a> {
    opened: &'a OpenDevice,
    events: Events,
}

impl KernelCore<'_> {
    fn set_irqs(&mut self, op: (u32, u8, u32, u32, Data)) -> Result<u64, Errno> {
        let (index, action, start, count, data) = op;
        let action = match action {
            0 => irq_set::ACTION_MASK,
            1 => irq_set::ACTION_UNMASK,
            _ => irq_set::ACTION_TRIGGER,
        };
        let fresh = fresh(data, count)?;
        let (kind, bytes) = match data {
            Data::None => (irq_set::DATA_NONE, Vec::new()),
            Data::Bools => {
                let bytes = bools(count).into_iter().map(u8::from).collect();
                (irq_set::DATA_BOOL, bytes)
            }
            Data::Events => {
                let fds = fresh.iter().map(|event| event.as_fd().as_raw_fd());
                (
                    irq_set::DATA_EVENTFD,
                    fds.flat_map(i32::to_ne_bytes).collect(),
                )
            }
            Data::NoEvents => {
                let fds = (0..count).flat_map(|_| (-1_i32).to_ne_bytes());
                (irq_set::DATA_EVENTFD, fds.collect())
            }
        };
        let device = &self.opened.device;
        let result = device.set_irqs(kind | action, index, start, count, &bytes)?;
        if action == irq_set::ACTION_TRIGGER {
            self.events.extend(named(index, start, fresh));
        }
        Ok(result as u64)
    }

    fn region_info(&self, index: u32) -> Result<Vec<u64>, Errno> {
        let info = self.opened.device.region_info(index)?;
        let mut fields = vec![info.size, u64::from(info.flags)];
        // one header of eight bytes in the chain at most
        if info.flags & region_flags::CAPS != 0 {
            let id = info.caps.first_chunk().map(|id| u16::from_ne_bytes(*id));
            fields.push(id.map_or(u64::MAX, u64::from));
        }
        Ok(fields)
    }
}

impl Target for KernelCore<'_> {
    fn run(&mut self, op: &Op) -> Answer {
        let device = &self.opened.device;
        let read = |region, at, len: u8| {
            let mut data = vec![0; usize::from(len)];
            let result = device.read_at(position(region, at), &mut data);
            moved(result, data)
        };
        match op {
            Op::Read { at, len } => read(RegionIndex::CONFIG.0, u64::from(*at), *len),
            Op::Write { at, data } => {
                let at = position(RegionIndex::CONFIG.0, u64::from(*at));
                moved(device.write_at(at, data), Vec::new())
            }
            Op::RegionRead { region, at, len } => read(*region, *at, *len),
            Op::RegionWrite { region, at, data } => {
                moved(device.write_at(position(*region, *at), data), Vec::new())
            }
            Op::Info => told(device.info().map(device_fields)),
            Op::RegionInfo(index) => told(self.region_info(*index)),
            Op::IrqInfo(index) => told(device.irq_info(*index).map(irq_fields)),
            Op::SetIrqs {
                index,
                action,
                start,
                count,
                data,
            } => {
                let result = self.set_irqs((*index, *action, *start, *count, *data));
                counted(&self.events, result)
            }
            Op::Reset => told(device.reset().map(|()| Vec::new())),
            // bus and group differ, as the functions do
            Op::HotResetInfo => told(device.hot_reset_info(32).map(|functions| {
                let each = functions.iter();
                each.flat_map(|(_, segment, _, devfn)| [u64::from(*segment), u64::from(*devfn)])
                    .collect()
            })),
            Op::HotReset { owned } => {
                let groups: &[_] = if *owned { &[&self.opened.group] } else { &[] };
                told(device.hot_reset(groups).map(|()| Vec::new()))
            }
        }
    }
}

/// Ours.
struct OurCore<'a> {
    core: &'a Core<SysfsDevice>,
    events: Events,
}

struct Signal(Arc<EventFd>);

impl Trigger for Signal {
    fn signal(&self) {
        // a count that is missing shows in the comparison
        let _ = self.0.trigger();
    }
}

/// A source that never happens.
struct Silent;

impl Source for Silent {
    fn watch(self: Box<Self>, call: Box<dyn Fn() + Send>) -> Result<Box<dyn Send>, Errno> {
        Ok(Box::new(call))
    }
}

impl OurCore<'_> {
    fn set_irqs(&mut self, op: (u32, u8, u32, u32, Data)) -> Result<u64, Errno> {
        let (index, action, start, count, data) = op;
        let action = match action {
            0 => IrqAction::Mask,
            1 => IrqAction::Unmask,
            _ => IrqAction::Trigger,
        };
        let fresh = fresh(data, count)?;
        let unmask = action == IrqAction::Unmask;
        let data = match data {
            Data::None => IrqData::None,
            Data::Bools => IrqData::Bools(bools(count)),
            Data::Events if unmask => {
                let silent = || Some(Box::new(Silent) as Box<dyn Source>);
                IrqData::Sources((0..count).map(|_| silent()).collect())
            }
            Data::NoEvents if unmask => IrqData::Sources((0..count).map(|_| None).collect()),
            Data::Events => IrqData::Triggers(
                fresh
                    .iter()
                    .map(|event| Some(Arc::new(Signal(event.clone())) as Arc<dyn Trigger>))
                    .collect(),
            ),
            Data::NoEvents => IrqData::Triggers(vec![None; count as usize]),
        };
        self.core
            .set_irqs(IrqIndex(index), action, start, count, data)?;
        if action == IrqAction::Trigger {
            self.events.extend(named(index, start, fresh));
        }
        Ok(0)
    }

    fn region_info(&self, index: u32) -> Result<Vec<u64>, Errno> {
        let info = self.core.region_info(RegionIndex(index))?;
        let caps = [
            (info.region_type.is_some(), region_cap::TYPE),
            (!info.areas.is_empty(), region_cap::SPARSE_MMAP),
            (info.msix_mappable, region_cap::MSIX_MAPPABLE),
        ];
        let caps = caps
            .into_iter()
            .filter_map(|(there, id)| there.then_some(id));
        let caps: Vec<_> = caps.map(u64::from).collect();
        let flag = match caps.is_empty() {
            true => 0,
            false => region_flags::CAPS,
        };
        let mut fields = vec![info.size, u64::from(info.flags | flag)];
        fields.extend(caps);
        Ok(fields)
    }
}

impl Target for OurCore<'_> {
    fn run(&mut self, op: &Op) -> Answer {
        let core = self.core;
        let read = |region, at, len: u8| {
            let mut data = vec![0; usize::from(len)];
            let result = core.region_read(RegionIndex(region), at, &mut data);
            moved(result, data)
        };
        match op {
            Op::Read { at, len } => read(RegionIndex::CONFIG.0, u64::from(*at), *len),
            Op::Write { at, data } => moved(core.config_write(u64::from(*at), data), Vec::new()),
            Op::RegionRead { region, at, len } => read(*region, *at, *len),
            Op::RegionWrite { region, at, data } => moved(
                core.region_write(RegionIndex(*region), *at, data),
                Vec::new(),
            ),
            Op::Info => Answer::fields(device_fields(core.info())),
            Op::RegionInfo(index) => told(self.region_info(*index)),
            Op::IrqInfo(index) => told(core.irq_info(IrqIndex(*index)).map(irq_fields)),
            Op::SetIrqs {
                index,
                action,
                start,
                count,
                data,
            } => {
                let result = self.set_irqs((*index, *action, *start, *count, *data));
                counted(&self.events, result)
            }
            Op::Reset => told(core.reset().map(|()| Vec::new())),
            Op::HotResetInfo => told(core.hot_reset_info().map(|functions| {
                let each = functions.iter();
                each.flat_map(|f| [u64::from(f.segment), u64::from(f.devfn)])
                    .collect()
            })),
            Op::HotReset { owned } => {
                let functions = core.hot_reset_info().unwrap_or_default();
                let group = functions.first().map_or(0, |f| f.group);
                let groups: &[_] = if *owned { &[group] } else { &[] };
                told(core.hot_reset(groups).map(|()| Vec::new()))
            }
        }
    }
}

fn device_fields(info: DeviceInfo) -> Vec<u64> {
    [info.flags, info.num_regions, info.num_irqs]
        .map(u64::from)
        .to_vec()
}

fn irq_fields(info: IrqInfo) -> Vec<u64> {
    [info.flags, info.count].map(u64::from).to_vec()
}

/// An eventfd for each vector, if that is what goes with them.
fn fresh(data: Data, count: u32) -> Result<Vec<Arc<EventFd>>, Errno> {
    let event = || EventFd::new().map(Arc::new).map_err(|_| Errno::ENOMEM);
    match data {
        Data::Events => (0..count).map(|_| event()).collect(),
        _ => Ok(Vec::new()),
    }
}

/// The eventfds by index and vector, from a vector on.
fn named(
    index: u32,
    start: u32,
    events: Vec<Arc<EventFd>>,
) -> impl Iterator<Item = ((u32, u32), Arc<EventFd>)> {
    (start..).map(move |vector| (index, vector)).zip(events)
}
