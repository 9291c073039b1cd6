//! Threads that take the device's memory away: by the command register, by the power state, by
//! resets. And threads that write the BARs and read configuration space.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use varia_spec::Errno;
use varia_spec::pci::cap::{self, pm};
use varia_spec::pci::header;
use varia_spec::vfio::{RegionIndex, device_feature};
use varia_sys::mapping::{Access, page_size};
use varia_sys::vfio::position;

use super::actor::Actor;
use super::target::Target;

/// Errors that configuration space may answer while a device comes out of low power.
const CONFIG: [Errno; 1] = [Errno::EIO];

/// Bytes of configuration space.
const CONFIG_LEN: u16 = 4096;

const fn config(offset: u16) -> u64 {
    position(RegionIndex::CONFIG.0, offset as u64)
}

/// Switches memory off, looks whether a mapping still shows it, and switches it on.
pub(super) fn switch_memory(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        let off = || target.switch_memory(false);
        if actor.attempt("memory off", &CONFIG, off).is_some() {
            // Others touch these all the time: what comes back comes soon.
            for _ in 0..3 {
                if let Some(lasting) = target.visible() {
                    let region = lasting.region;
                    actor.violated(&format!("region {region} is mapped with memory off"));
                }
            }
            // It must be on again: who else would do it?
            while actor
                .attempt("memory on", &CONFIG, || target.switch_memory(true))
                .is_none()
            {
                thread::yield_now();
            }
        }
        actor.rest(Duration::from_millis(20));
    }
}

/// Writes the BAR registers, in every width and at every offset, and reads them.
pub(super) fn write_bars(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        let offset = actor.rng.u16(header::BASE_ADDRESS_2..0x28);
        let len = actor.rng.u16(1..=0x28 - offset);
        let bytes: Vec<u8> = (0..len).map(|_| actor.rng.u8(..)).collect();
        let write = || target.device().write_at(config(offset), &bytes);
        let wrote = actor.attempt("a BAR write", &CONFIG, write);
        if let Some(count) = wrote.filter(|count| *count != bytes.len()) {
            actor.violated(&format!("{count} of {len} bytes of BARs were written"));
        }
        let mut bars = [0; 0x18];
        let read = || {
            target
                .device()
                .read_at(config(header::BASE_ADDRESS_0), &mut bars)
        };
        if actor.attempt("a BAR read", &CONFIG, read).is_some() {
            for memory in &target.memory {
                let at = memory.region as usize * 4;
                let low = bars.get(at..).and_then(|rest| rest.first_chunk().copied());
                let low = u32::from_le_bytes(low.unwrap_or_default());
                // Where the writers of one byte each raced, the address is torn; not these bits.
                let fixed = (memory.size - 1) as u32;
                if low & fixed != header::bar::MEM_TYPE_64 | header::bar::MEM_PREFETCH {
                    actor.violated(&format!("BAR {} reads {low:#x}", memory.region));
                }
            }
        }
        actor.rest(Duration::from_millis(2));
    }
}

/// Reads configuration space, in every width, where the answers are the device's own and where they
/// are not. A device that goes answers with all ones then, in revision and class for one.
pub(super) fn read_config(actor: &mut Actor, target: &Target) {
    let (mut known, mut class) = (None, [0; 4]);
    while actor.goes_on() {
        let len = 1 << actor.rng.u16(0..3);
        let offset = actor.rng.u16(0..CONFIG_LEN / len) * len;
        let mut bytes = vec![0; len.into()];
        let read = || target.device().read_at(config(offset), &mut bytes);
        let got = actor.attempt("a configuration read", &CONFIG, read);
        if let Some(count) = got.filter(|count| *count != usize::from(len)) {
            actor.violated(&format!("{count} of {len} bytes at {offset:#x} were read"));
        }
        let read = || {
            let at = config(header::REVISION_ID);
            target.device().read_at(at, &mut class)
        };
        if actor
            .attempt("a read of the class", &CONFIG, read)
            .is_some()
        {
            let gone = target.goes && class == [0xff; 4];
            if *known.get_or_insert(class) != class && !gone {
                actor.violated(&format!("the class was {known:x?} and is {class:x?}"));
            }
        }
        actor.rest(Duration::from_millis(4));
    }
    if target.goes && class != [0xff; 4] {
        actor.violated(&format!("the class of a device that is gone is {class:x?}"));
    }
}

/// Lets the device sleep, looks whether a mapping still shows its memory, and wakes it.
pub(super) fn sleep_and_wake(actor: &mut Actor, target: &Target) {
    let feature = |index| target.device().feature(device_feature::SET | index);
    while actor.goes_on() {
        let sleep = || feature(device_feature::LOW_POWER_ENTRY);
        if actor.attempt("low power", &[], sleep).is_some() {
            if let Some(lasting) = target.visible() {
                let region = lasting.region;
                actor.violated(&format!("region {region} is mapped in low power"));
            }
            actor.rest(Duration::from_millis(10));
            actor.attempt("full power", &[], || {
                feature(device_feature::LOW_POWER_EXIT)
            });
        }
        actor.rest(Duration::from_secs(1));
    }
}

/// Puts the device into D3hot and back.
pub(super) fn change_state(actor: &mut Actor, target: &Target) {
    let Some(at) = find_pm(target) else {
        actor.violated("the device has no power management capability");
        return;
    };
    let control = config(at + pm::CTRL);
    while actor.goes_on() {
        for state in [pm::CTRL_STATE_MASK, 0] {
            let write = || target.device().write_at(control, &state.to_le_bytes());
            actor.attempt("a power state", &CONFIG, write);
            actor.rest(Duration::from_millis(5));
        }
        actor.rest(Duration::from_secs(1));
    }
    // The last write was to D0, unless it failed.
    let write = || target.device().write_at(control, &0u16.to_le_bytes());
    actor.attempt("a power state", &CONFIG, write);
}

fn find_pm(target: &Target) -> Option<u16> {
    let mut at = [0];
    let mut place = header::CAPABILITY_LIST;
    // A list is not longer than there is room for.
    for _ in 0..64 {
        target.device().read_at(config(place), &mut at).ok()?;
        let [next] = at;
        let mut id = [0];
        target.device().read_at(config(next.into()), &mut id).ok()?;
        if id == [cap::id::PM] {
            return Some(next.into());
        }
        place = u16::from(next) + 1;
    }
    None
}

/// Resets the device and looks when its memory can be seen again.
pub(super) fn reset(actor: &mut Actor, target: &Target) {
    while actor.goes_on() {
        let before = Instant::now();
        // The kernel does not wait for who else resets or removes it.
        let reset = || target.device().reset();
        if actor.attempt("a reset", &[Errno::EAGAIN], reset).is_some() {
            let way = actor.rng.u8(0..8);
            let which = actor.lasting(target.lasting.len());
            let touched = [Errno::EFAULT];
            while actor.goes_on() {
                let seen = match way {
                    0 => actor.attempt("a read after a reset", &CONFIG, || read(target)),
                    1 => actor.attempt("a mapping after a reset", &touched, || touch(target)),
                    // Who inserts a page late, inserts it here: others touch these all the time.
                    _ => {
                        let mapping = &target.lasting[which].mapping;
                        let touch = || mapping.touch(0).map(drop);
                        actor.attempt("a touch after a reset", &touched, touch)
                    }
                };
                if seen.is_some() {
                    let took = super::millis(before);
                    if took < target.ready_ms {
                        actor.violated(&format!("memory was seen {took} ms after a reset began"));
                    }
                    break;
                }
                thread::yield_now();
            }
        }
        actor.rest(Duration::from_millis(target.pause_ms));
    }
}

fn read(target: &Target) -> Result<(), Errno> {
    let memory = target.memory.first().ok_or(Errno::EINVAL)?;
    let at = position(memory.region, 0);
    target.device().read_at(at, &mut [0; 8]).map(drop)
}

fn touch(target: &Target) -> Result<(), Errno> {
    let memory = target.memory.last().ok_or(Errno::EINVAL)?;
    let at = position(memory.region, 0);
    let mapping = target
        .device()
        .map(at, page_size() as u64, Access::ReadOnly)?;
    mapping.touch(0).map(drop)
}

/// Resets by sysfs, in turn by each of the ways that the actors are named for: the function's own
/// reset and that of its bus.
pub(super) fn reset_by_sysfs(ways: &mut [Actor], folder: &str) {
    while ways.iter().all(Actor::goes_on) {
        for actor in &mut *ways {
            reset_by(actor, folder);
        }
    }
}

fn reset_by(actor: &mut Actor, folder: &str) {
    actor.rest(Duration::from_secs(8));
    if actor.goes_on() {
        let method = actor.name;
        let write = |name: &str, text: &str| {
            let path = format!("{folder}/{name}");
            fs::write(path, text).map_err(|error| {
                error
                    .raw_os_error()
                    .and_then(Errno::new)
                    .unwrap_or(Errno::EIO)
            })
        };
        // Gone while it is being removed.
        let gone = [Errno::ENODEV, Errno::ENOENT];
        let reset = || {
            write("reset_method", method)?;
            write("reset", "1")
        };
        actor.attempt(method, &gone, reset);
    }
}
