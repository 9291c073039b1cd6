//! Interrupt information and triggers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::fake::{MSI, MSIX, PM, Traits, open, read, write};
use varia_core::{Errno, IrqData, Source, Trigger};
use varia_spec::vfio::{IrqAction, IrqIndex, irq_flags};

/// Counts signals.
#[derive(Default)]
struct Count(AtomicU32);

impl Trigger for Count {
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

fn counters(n: usize) -> (Vec<Arc<Count>>, IrqData) {
    let counts: Vec<_> = (0..n).map(|_| Arc::new(Count::default())).collect();
    let triggers = counts
        .iter()
        .map(|c| Some(c.clone() as Arc<dyn Trigger>))
        .collect();
    (counts, IrqData::Triggers(triggers))
}

#[test]
fn counts_and_flags_are_those_of_the_kernel() {
    let (_, core) = open(Traits::default());
    let eventfd = irq_flags::EVENTFD;
    let info: Vec<_> = (0..5)
        .map(|i| core.irq_info(IrqIndex(i)).unwrap())
        .map(|info| (info.count, info.flags))
        .collect();
    let intx = eventfd | irq_flags::MASKABLE | irq_flags::AUTOMASKED;
    let fixed = eventfd | irq_flags::NORESIZE;
    assert_eq!(
        info,
        [(1, intx), (16, fixed), (4, eventfd), (1, fixed), (1, fixed)]
    );
    assert_eq!(core.irq_info(IrqIndex(5)), Err(Errno::EINVAL));
}

#[test]
fn messages_reach_their_trigger_only() {
    let (fake, core) = open(Traits::default());
    let (counts, data) = counters(4);
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 4, data)
        .unwrap();
    assert_eq!(
        fake.raw(MSIX + 2, 2) & 0xc000,
        0x8000,
        "enabled in the device"
    );
    fake.message(2);
    fake.message(4);
    fake.message(2);
    assert_eq!(
        counts.iter().map(|c| c.get()).collect::<Vec<_>>(),
        [0, 0, 2, 0]
    );
}

#[test]
fn disabling_messages_silences_the_device() {
    let (fake, core) = open(Traits::default());
    let (counts, data) = counters(1);
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 0, IrqData::None)
        .unwrap();
    fake.message(0);
    assert_eq!(counts[0].get(), 0);
    assert_eq!(fake.raw(MSIX + 2, 2) & 0x8000, 0);
}

#[test]
fn msi_enabled_by_triggers_can_be_seen_and_its_vectors_limited() {
    let (fake, core) = open(Traits::default());
    let (_, data) = counters(3);
    core.set_irqs(IrqIndex::MSI, IrqAction::Trigger, 0, 3, data)
        .unwrap();
    assert_eq!(fake.raw(MSI + 2, 2) & 0x71, 2 << 4 | 1);
    write(&core, u64::from(MSI) + 2, 2, 0x0188 | 4 << 4 | 1);
    assert_eq!(read(&core, u64::from(MSI) + 2, 2) & 0x71, 2 << 4 | 1);
}

#[test]
fn one_mode_at_a_time() {
    let (_, core) = open(Traits::default());
    let (_, data) = counters(1);
    core.set_irqs(IrqIndex::MSI, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    for index in [IrqIndex::INTX, IrqIndex::MSIX] {
        let (_, data) = counters(1);
        assert_eq!(
            core.set_irqs(index, IrqAction::Trigger, 0, 1, data),
            Err(Errno::EINVAL)
        );
    }
}

#[test]
fn intx_is_masked_when_signalled_and_comes_again_after_unmask() {
    let (fake, core) = open(Traits::default());
    let (counts, data) = counters(1);
    core.set_irqs(IrqIndex::INTX, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    fake.pin(true);
    fake.pin(true);
    assert_eq!(counts[0].get(), 1);
    core.set_irqs(IrqIndex::INTX, IrqAction::Unmask, 0, 1, IrqData::None)
        .unwrap();
    assert_eq!(counts[0].get(), 2, "still asserted");
    fake.pin(false);
    core.set_irqs(IrqIndex::INTX, IrqAction::Unmask, 0, 1, IrqData::None)
        .unwrap();
    assert_eq!(counts[0].get(), 2);
}

#[test]
fn intx_disable_in_the_command_register_holds_it_back() {
    let (fake, core) = open(Traits::default());
    let (counts, data) = counters(1);
    core.set_irqs(IrqIndex::INTX, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    write(&core, 4, 2, 0x402);
    fake.pin(true);
    assert_eq!(counts[0].get(), 0);
    write(&core, 4, 2, 0x002);
    assert_eq!(counts[0].get(), 1);
}

#[test]
fn error_and_request_have_one_trigger_each() {
    let (_, core) = open(Traits::default());
    let (errors, data) = counters(1);
    core.set_irqs(IrqIndex::ERR, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    let (requests, data) = counters(1);
    core.set_irqs(IrqIndex::REQ, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    core.report_error();
    core.request_device();
    core.request_device();
    assert_eq!((errors[0].get(), requests[0].get()), (1, 2));
    core.set_irqs(IrqIndex::REQ, IrqAction::Trigger, 0, 0, IrqData::None)
        .unwrap();
    core.request_device();
    assert_eq!(requests[0].get(), 2);
}

#[test]
fn triggers_can_be_signalled_by_hand() {
    let (_, core) = open(Traits::default());
    let (counts, data) = counters(3);
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 3, data)
        .unwrap();
    let some = IrqData::Bools(vec![false, true]);
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 1, 2, some)
        .unwrap();
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 2, IrqData::None)
        .unwrap();
    assert_eq!(
        counts.iter().map(|c| c.get()).collect::<Vec<_>>(),
        [1, 1, 1]
    );
}

#[test]
fn messages_are_enabled_in_d0_alone() {
    let (_, core) = open(Traits::default());
    for index in [IrqIndex::MSI, IrqIndex::MSIX] {
        let enable = || {
            let (_, data) = counters(1);
            core.set_irqs(index, IrqAction::Trigger, 0, 1, data)
        };
        write(&core, u64::from(PM) + 4, 2, 3);
        assert_eq!(enable(), Err(Errno::EINVAL), "{index:?} in D3hot");
        write(&core, u64::from(PM) + 4, 2, 0);
        assert_eq!(enable(), Ok(()), "{index:?} in D0");
        // what is enabled already may get another trigger
        write(&core, u64::from(PM) + 4, 2, 3);
        assert_eq!(enable(), Ok(()), "{index:?} in D3hot");
        write(&core, u64::from(PM) + 4, 2, 0);
        core.set_irqs(index, IrqAction::Trigger, 0, 0, IrqData::None)
            .unwrap();
    }
}

#[test]
fn vectors_beyond_the_last_are_refused_with_all_that_they_need() {
    let (_, core) = open(Traits::default());
    let (_, data) = counters(4);
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 4, data)
        .unwrap();
    let (counts, data) = counters(2);
    let refused = core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 3, 2, data);
    assert_eq!(refused, Err(Errno::EINVAL));
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 3, 1, IrqData::None)
        .unwrap();
    assert_eq!(counts[0].get(), 0, "the third vector is who it was");
}

#[test]
fn vectors_that_are_not_there_and_actions_that_are_not_there_are_refused() {
    let (_, core) = open(Traits::default());
    let set =
        |index, action, start, count| core.set_irqs(index, action, start, count, IrqData::None);
    assert_eq!(
        set(IrqIndex::MSIX, IrqAction::Trigger, 4, 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        set(IrqIndex::MSIX, IrqAction::Trigger, 3, 2),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        set(IrqIndex::MSIX, IrqAction::Trigger, u32::MAX, 2),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        set(IrqIndex(7), IrqAction::Trigger, 0, 1),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        set(IrqIndex::MSIX, IrqAction::Mask, 0, 1),
        Err(Errno::ENOTTY)
    );
    assert_eq!(
        set(IrqIndex::MSIX, IrqAction::Trigger, 0, 0),
        Err(Errno::EINVAL),
        "not enabled"
    );
}

#[test]
fn close_forgets_the_triggers() {
    let (fake, core) = open(Traits::default());
    let (counts, data) = counters(1);
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    core.close();
    fake.message(0);
    assert_eq!(counts[0].get(), 0);
    assert_eq!(fake.raw(MSIX + 2, 2) & 0x8000, 0);
}

/// A source that a test makes happen.
#[derive(Clone, Default)]
struct Lever(Arc<Mutex<Option<Call>>>);

type Call = Box<dyn Fn() + Send>;

impl Source for Lever {
    fn watch(self: Box<Self>, call: Box<dyn Fn() + Send>) -> Result<Box<dyn Send>, Errno> {
        *self.0.lock().unwrap() = Some(call);
        Ok(Box::new(()))
    }
}

impl Lever {
    fn pull(&self) {
        self.0.lock().unwrap().as_ref().unwrap()();
    }

    fn data(&self) -> IrqData {
        IrqData::Sources(vec![Some(Box::new(self.clone()))])
    }
}

#[test]
fn a_source_unmasks_intx_until_it_is_taken_away() {
    let (fake, core) = open(Traits::default());
    let (counts, data) = counters(1);
    let set = |action, data| core.set_irqs(IrqIndex::INTX, action, 0, 1, data);
    let lever = Lever::default();
    assert_eq!(
        set(IrqAction::Unmask, lever.data()),
        Err(Errno::EINVAL),
        "not enabled"
    );
    set(IrqAction::Trigger, data).unwrap();
    set(IrqAction::Unmask, lever.data()).unwrap();
    assert_eq!(set(IrqAction::Unmask, lever.data()), Err(Errno::EBUSY));
    assert_eq!(set(IrqAction::Mask, lever.data()), Err(Errno::ENOTTY));
    fake.pin(true);
    lever.pull();
    lever.pull();
    assert_eq!(counts[0].get(), 3, "asserted all the time");
    set(IrqAction::Unmask, IrqData::Sources(vec![None])).unwrap();
    lever.pull();
    assert_eq!(counts[0].get(), 3, "taken away");
}
