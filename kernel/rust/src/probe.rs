// SPDX-License-Identifier: GPL-2.0-only
//! Questions, the state of the variant, and the outcome of the probe.

use core::slice;

use varia_module::Served;
use varia_spec::Errno;
use varia_variant::{self as variant, Answers, BarIndex, Bytes, Event, HostPhys, Probe, Variant};

use crate::{
    abi::c_functions,
    counters::Counter,
    show,
    state::{self, page_shift, read, result, value, write},
    text::Text,
    types::{
        Answer, Environment, MAX_QUESTIONS, NAME_LEN, OUTCOME_DECLINE, OUTCOME_SERVE,
        QUESTION_BAR_SIZE, QUESTION_COMMAND_WORD, QUESTION_DVSEC_OFFSET, QUESTION_DVSEC_WORD,
        QUESTION_PLATFORM, QUESTION_PROPERTY, Question, REGIONS, State,
    },
};

/// `VFIO_DEVICE_RESET` and `VFIO_DEVICE_IOEVENTFD`: `_IO(';', 100 + n)`. Source: Linux 7.2
/// `include/uapi/linux/vfio.h`.
const DEVICE_RESET: u32 = (b';' as u32) << 8 | (100 + 11);
const DEVICE_IOEVENTFD: u32 = (b';' as u32) << 8 | (100 + 16);

fn question(question: &variant::Question) -> Question {
    let mut name = [0; NAME_LEN];
    let (kind, vendor, id, offset) = match *question {
        variant::Question::Property(text) => {
            let room = NAME_LEN - 1;
            for (slot, byte) in name.iter_mut().take(room).zip(text.bytes()) {
                *slot = byte;
            }
            (QUESTION_PROPERTY, 0, 0, 0)
        }
        variant::Question::DvsecOffset { vendor, id } => (QUESTION_DVSEC_OFFSET, vendor, id, 0),
        variant::Question::DvsecWord { vendor, id, offset } => {
            (QUESTION_DVSEC_WORD, vendor, id, offset.into())
        }
        variant::Question::BarSize(bar) => (QUESTION_BAR_SIZE, 0, 0, bar.get().into()),
        variant::Question::CommandWord { opcode, offset } => {
            (QUESTION_COMMAND_WORD, 0, opcode, offset.into())
        }
        variant::Question::ConfigDword(_)
        | variant::Question::PointedWord { .. }
        | variant::Question::RootDword { .. }
        | variant::Question::RootConfigSize(_)
        | variant::Question::TreeWord(_)
        | variant::Question::TreeDoubleword(_)
        | variant::Question::LongestStore => (QUESTION_PLATFORM, 0, 0, 0),
    };
    Question {
        kind,
        vendor,
        id,
        offset,
        name,
    }
}

/// An answer from C; an unknown errno counts as `EIO`.
fn answer(answer: &Answer) -> variant::Answer {
    match i32::try_from(answer.errno) {
        Ok(0) => Ok(answer.value),
        Ok(errno) => Err(Errno::new(errno).unwrap_or(Errno::EIO)),
        Err(_) => Err(Errno::EIO),
    }
}

/// The first region whose memory the kernel uses as RAM, by a bit for each index.
fn in_ram(variant: &Served, ram: u32) -> Option<variant::Refusal> {
    let index = (ram != 0).then(|| ram.trailing_zeros())?;
    let region = state::memory(variant, index)?;
    Some(variant::Refusal::SystemRam {
        base: region.base(),
        length: Bytes(region.length()),
    })
}

/// The first region whose memory ends beyond the last address that the CPU can reach.
fn out_of_reach(variant: &Served, last: u64) -> Option<variant::Refusal> {
    (0..REGIONS as u32).find_map(|index| {
        let region = state::memory(variant, index)?;
        let (base, length) = (region.base(), region.length());
        let end = base.0.saturating_add(length.saturating_sub(1));
        (end > last).then_some(variant::Refusal::OutOfReach {
            base,
            length: Bytes(length),
            last: HostPhys(last),
        })
    })
}

/// Beginning of the log line of a probe that fails.
pub(crate) const NOT_SERVED: &str = "not served: ";

/// `OUTCOME_*` or the errno; the reason goes to `text`. `waited` is the error of the first wait.
fn outcome(
    variant: &Served,
    waited: Option<Errno>,
    ram: u32,
    last: u64,
    text: &mut Text<'_>,
) -> Result<i32, Errno> {
    let refused = match waited {
        Some(errno) => Some(variant::Refusal::NotReady { errno }),
        None if variant.outcome() == variant::Outcome::Serve => {
            out_of_reach(variant, last).or_else(|| in_ram(variant, ram))
        }
        None => None,
    };
    match refused.map_or_else(|| variant.outcome(), variant::Outcome::Fail) {
        variant::Outcome::Serve => Ok(OUTCOME_SERVE),
        variant::Outcome::Decline(reason) => {
            text.sentence(&reason.sentence());
            Ok(OUTCOME_DECLINE)
        }
        variant::Outcome::Fail(refusal) => {
            text.str(NOT_SERVED).sentence(&refusal.sentence());
            Err(refusal.errno())
        }
    }
}

c_functions! {
    /// Question number `number` of the variant, or -ENOENT after the last.
    fn varia_question(number: u32, out: *mut Question) -> i32 {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let asked = if cfg!(feature = "plant-panic") {
            Ok(&Served::QUESTIONS[number])
        } else {
            Served::QUESTIONS.get(number).ok_or(Errno::ENOENT)
        };
        // SAFETY: `out` by the contract of all functions.
        result(asked.and_then(|asked| unsafe { write(out, question(asked)) }))
    }

    /// Builds the state of the variant from the answers to questions 0 to count - 1.
    fn varia_probe(
        answers: *const Answer,
        count: u32,
        environment: *const Environment,
        out: *mut State,
    ) -> i32 {
        result((|| {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if answers.is_null() || count > MAX_QUESTIONS {
                return Err(Errno::EINVAL);
            }
            // SAFETY: not null, and `count` answers by the contract of all functions.
            let given = unsafe { slice::from_raw_parts(answers, count) };
            let mut given = given.iter();
            let answers = Answers::collect(Served::QUESTIONS, |_| {
                given.next().map_or(Err(Errno::ENOENT), answer)
            });
            // SAFETY: `environment` by the contract of all functions.
            let environment = unsafe { read(environment) }?;
            let page = page_shift(environment.page_shift)?;
            let built = Served::probe(&answers, variant::Environment {
                page,
                honour_memory_enable: environment.honour_memory_enable != 0,
                strict: environment.strict != 0,
                layout: variant::MemoryLayout::Bar,
            });
            // SAFETY: `out` by the contract of all functions; no other code reads the state yet.
            unsafe { state::store(out, built, page) }
        })())
    }

    /// Outcome of the probe: VARIA_OUTCOME_*, or a negative errno with which the probe fails.
    /// `waited` is the result of the first wait for readiness: 0 or a negative errno. `ram` has a
    /// bit for each region index whose memory the kernel uses as RAM; `last` is the last
    /// host-physical address that the CPU can reach. If the device is not served, `text` gets the
    /// reason and the remedy, in `len` bytes with a NUL.
    fn varia_outcome(
        state: *const State,
        waited: i32,
        ram: u32,
        last: u64,
        text: *mut u8,
        len: u32,
    ) -> i32 {
        value((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let waited = waited.checked_neg().and_then(Errno::new);
            // SAFETY: `text` by the contract of all functions.
            outcome(variant, waited, ram, last, &mut unsafe { show::writer(text, len) }?)
        })())
    }

    /// 1 if open fails unless BAR0 can be mapped, else 0.
    fn varia_needs_bar0(state: *const State) -> i32 {
        // SAFETY: by the contract of all functions.
        i32::from(unsafe { state::variant(state) }.is_ok_and(|variant| variant.needs_bar(BarIndex::BAR0)))
    }

    /// An ioctl of the device: 0 if vfio-pci-core shall carry it out, or a negative errno.
    fn varia_ioctl(state: *const State, request: u32) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let instance = unsafe { state::instance(state) }?;
            match request {
                DEVICE_IOEVENTFD => state::ioeventfd(&instance.variant),
                DEVICE_RESET => {
                    instance.counters.add(Counter::ResetsRequested);
                    instance.variant.event(Event::ResetRequested);
                    Ok(())
                }
                _ => Ok(()),
            }
        })())
    }

    /// The device was opened.
    fn varia_opened(state: *const State) {
        // SAFETY: by the contract of all functions.
        if let Ok(instance) = unsafe { state::instance(state) } {
            instance.counters.add(Counter::Opens);
            instance.variant.event(Event::Opened);
        }
    }

    /// Reason why an open fails whose memory of region `index` another part of the kernel has
    /// claimed: a negative errno, and the reason and the remedy in `len` bytes with a NUL.
    fn varia_claimed(state: *const State, index: u32, text: *mut u8, len: u32) -> i32 {
        result((|| {
            // SAFETY: by the contract of all functions.
            let variant = unsafe { state::variant(state) }?;
            let region = state::memory(variant, index).ok_or(Errno::EINVAL)?;
            let refusal = variant::Refusal::Claimed {
                name: region.name(),
                base: region.base(),
                length: Bytes(region.length()),
            };
            // SAFETY: `text` by the contract of all functions.
            unsafe { show::writer(text, len) }?.sentence(&refusal.sentence());
            Err(refusal.errno())
        })())
    }

    /// The device has recovered from an error on its link, in which the link may have been reset
    /// without a word to the driver: its memory has to be checked anew.
    fn varia_recovered(state: *const State) {
        // SAFETY: by the contract of all functions.
        if let Ok(instance) = unsafe { state::instance(state) } {
            instance.counters.add(Counter::Recoveries);
            instance.variant.event(Event::ResetDone);
        }
    }

    /// The device has been reset, by whatever means.
    fn varia_reset_done(state: *const State) {
        // SAFETY: by the contract of all functions.
        if let Ok(instance) = unsafe { state::instance(state) } {
            instance.counters.add(Counter::Resets);
            instance.variant.event(Event::ResetDone);
        }
    }
}
