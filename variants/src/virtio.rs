//! Virtio network cards whose owner has the legacy administration commands: a modern function
//! that a VM sees as a transitional one, with a legacy interface in an I/O BAR0 without hardware.
//!
//! Source: the behaviour of Linux 7.2 `drivers/vfio/pci/virtio/legacy_io.c`. A deliberate
//! difference: there, I/O enable and BAR0 keep their values when another user opens a device that
//! can't be reset; here a new user starts with zeros.

pub mod registers;

use varia_spec::{
    pci::header::{self, command},
    vfio::RegionIndex,
    virtio::{self, admin, device_id},
};
use varia_variant::{
    Answers, BarIndex, ConfigOwner, ConfigSegment, Decline, Direction, Environment, Event, Outcome,
    Plan, Probe, Question, Ready, Region, Variant,
    config::{FakeBar, FixedRegister, StickyBits},
};

use registers::{LegacyInterface, Notify, SIZE};

/// Registers that make the function a transitional one. A write reaches the base as well, which
/// does not change them either.
const IDENTITY: [FixedRegister; 4] = [
    FixedRegister::word(header::DEVICE_ID as u64, device_id::TRANSITIONAL_NET),
    FixedRegister::byte(header::REVISION_ID as u64, virtio::ABI_VERSION),
    FixedRegister::word(header::SUBSYSTEM_VENDOR_ID as u64, virtio::VENDOR_ID),
    FixedRegister::word(header::SUBSYSTEM_ID as u64, virtio::ID_NET),
];

/// The variant's state: what probing decided, and what changes afterwards in atomics.
#[derive(Debug)]
pub struct Virtio {
    plan: Plan<Served>,
}

#[derive(Debug)]
struct Served {
    /// With I/O enable, which a function without I/O BARs does not keep.
    interface: LegacyInterface,
    bar0: FakeBar,
}

impl Served {
    fn new(notify: Notify) -> Self {
        let io = StickyBits::new(u64::from(header::COMMAND), command::IO);
        Self {
            interface: LegacyInterface { notify, io },
            bar0: FakeBar::io(u64::from(header::BASE_ADDRESS_0), SIZE),
        }
    }

    /// Windows of configuration space that the variant owns.
    fn windows(&self) -> impl Iterator<Item = (u64, u64)> {
        let own = [self.interface.io.window(), self.bar0.window()];
        IDENTITY.iter().map(FixedRegister::window).chain(own)
    }
}

/// Size of a BAR0 of the function's own.
const BAR0_SIZE: Question = Question::BarSize(BarIndex::BAR0);

/// Commands that the function's owner has, a bit for each.
const COMMANDS: Question = Question::CommandWord {
    opcode: admin::LIST_QUERY,
    offset: 0,
};

/// Flags and BAR of a notification place.
const fn notify_place(entry: u16) -> Question {
    Question::CommandWord {
        opcode: admin::LEGACY_NOTIFY_INFO,
        offset: entry * admin::NOTIFY_INFO_LEN,
    }
}

/// Offset of a notification place in its BAR.
const fn notify_offset(entry: u16) -> Question {
    Question::CommandWord {
        opcode: admin::LEGACY_NOTIFY_INFO,
        offset: entry * admin::NOTIFY_INFO_LEN + 8,
    }
}

/// First notification place in the function's own BARs.
fn notify(answers: &Answers) -> Option<Notify> {
    for entry in 0..admin::MAX_NOTIFY_INFO {
        let place = answers.to(notify_place(entry)).ok()?;
        let offset = answers.to(notify_offset(entry)).ok()?;
        let [flags, bar, ..] = place.to_le_bytes();
        match flags {
            admin::NOTIFY_INFO_END => return None,
            admin::NOTIFY_INFO_MEMBER => {
                let bar = BarIndex::new(bar)?;
                return Some(Notify { bar, offset });
            }
            _ => {}
        }
    }
    None
}

impl Probe for Virtio {
    const QUESTIONS: &'static [Question] = &[
        BAR0_SIZE,
        COMMANDS,
        notify_place(0),
        notify_offset(0),
        notify_place(1),
        notify_offset(1),
        notify_place(2),
        notify_offset(2),
        notify_place(3),
        notify_offset(3),
    ];

    fn probe(answers: &Answers, environment: Environment) -> Self {
        let commands = answers.to(COMMANDS).unwrap_or(0) & admin::LEGACY_BITMAP;
        let plan = match notify(answers) {
            _ if answers.to(BAR0_SIZE).is_ok() => {
                Plan::declined(Decline::BarTaken(BarIndex::BAR0), environment)
            }
            Some(notify) if commands == admin::LEGACY_BITMAP => Plan::Serve(Served::new(notify)),
            _ => Plan::declined(Decline::NoCommands, environment),
        };
        Self { plan }
    }
}

impl Variant for Virtio {
    fn outcome(&self) -> Outcome {
        self.plan.outcome()
    }

    fn region(&self, index: RegionIndex) -> Region<'_> {
        match (&self.plan, index) {
            (Plan::Serve(served), RegionIndex::BAR0) => Region::Registers(&served.interface),
            _ => Region::Base,
        }
    }

    fn config_segment(&self, _: Direction, offset: u64, len: u64) -> ConfigSegment {
        let windows = self.plan.served().into_iter().flat_map(Served::windows);
        ConfigSegment::split_all(offset, len, windows, ConfigOwner::Both)
    }

    fn config_load(&self, offset: u64, out: &mut [u8]) {
        if let Plan::Serve(served) = &self.plan {
            for register in &IDENTITY {
                register.load(offset, out);
            }
            served.interface.io.load(offset, out);
            served.bar0.load(offset, out);
        }
    }

    fn config_store(&self, offset: u64, data: &[u8]) {
        if let Plan::Serve(served) = &self.plan {
            served.interface.io.store(offset, data);
            served.bar0.store(offset, data);
        }
    }

    /// A reset clears I/O enable and keeps the address in BAR0.
    fn event(&self, event: Event) {
        let Plan::Serve(served) = &self.plan else {
            return;
        };
        match event {
            Event::Opened => {
                served.interface.io.clear();
                served.bar0.clear();
            }
            Event::ResetDone => served.interface.io.clear(),
            Event::ResetRequested => {}
        }
    }

    /// True for the BAR in which queues are notified.
    fn needs_bar(&self, bar: BarIndex) -> bool {
        matches!(&self.plan, Plan::Serve(served) if served.interface.notify.bar == bar)
    }
}

/// A card that answers commands is always ready.
impl Ready for Virtio {}

#[cfg(test)]
mod tests;
