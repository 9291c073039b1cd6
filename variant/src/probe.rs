//! Questions that a runtime answers before a device is served, and the outcome of a probe.

use core::{array, fmt};

use varia_spec::Errno;

use varia_units::{BarIndex, PageShift};

/// One thing that a runtime finds out. Its [`Answer`] is a number or an errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// A firmware property (`_DSD`) of the function: an unsigned 64-bit integer.
    Property(&'static str),
    /// The configuration offset of a DVSEC; `ENOENT` when absent.
    DvsecOffset {
        /// The DVSEC's vendor.
        vendor: u16,
        /// The DVSEC's id.
        id: u16,
    },
    /// A little-endian u16 at an offset from the start of a DVSEC; `ENOENT` when absent.
    DvsecWord {
        /// The DVSEC's vendor.
        vendor: u16,
        /// The DVSEC's id.
        id: u16,
        /// Bytes from the start of the capability.
        offset: u16,
    },
    /// The size of a physical BAR in bytes; `ENOENT` when the function does not have it.
    BarSize(BarIndex),
    /// A little-endian u64 at an offset in the result of an administration command without data,
    /// which the function's owner gets for this function; bytes beyond the result are 0.
    CommandWord {
        /// The operation, as the device's specification numbers it.
        opcode: u16,
        /// Bytes from the start of the result.
        offset: u16,
    },
}

/// The most questions that a variant asks.
pub const MAX_QUESTIONS: usize = 12;

/// Answer to a [`Question`].
pub type Answer = Result<u64, Errno>;

/// Answers of a runtime, found by their question.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    questions: &'static [Question],
    answers: [Answer; MAX_QUESTIONS],
}

impl Answers {
    /// Answers to `questions`, of which `answer` is asked in their order; at most
    /// [`MAX_QUESTIONS`].
    pub fn collect(
        questions: &'static [Question],
        mut answer: impl FnMut(Question) -> Answer,
    ) -> Self {
        let mut unanswered = questions.iter();
        Self {
            questions,
            answers: array::from_fn(|_| match unanswered.next() {
                Some(question) => answer(*question),
                None => Err(Errno::ENOENT),
            }),
        }
    }

    /// Answer to `question`; `ENOENT` if the question was not asked.
    pub fn to(&self, question: Question) -> Answer {
        let mut answered = self.questions.iter().zip(self.answers);
        answered
            .find(|(asked, _)| **asked == question)
            .map_or(Err(Errno::ENOENT), |(_, answer)| answer)
    }

    /// Value of a firmware property; without the property, the reason to decline the device.
    pub fn property(&self, name: &'static str) -> Result<u64, Decline> {
        let answer = self.to(Question::Property(name));
        answer.map_err(|errno| Decline::Property { name, errno })
    }
}

/// What holds for the whole host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Environment {
    /// The base page size.
    pub page: PageShift,
    /// The option `honour_memory_enable`: reads and writes of a memory region fail with `EIO`
    /// while memory is disabled in the command register. Off, they reach the memory, because the
    /// hardware answers ~0 and drops writes by itself.
    pub honour_memory_enable: bool,
}

/// Whether a device is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The variant serves it.
    Serve,
    /// The base serves it alone, for this reason.
    Decline(Decline),
    /// The probe fails.
    Fail(Refusal),
}

/// What probing came to: a variant's state if it serves the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan<T> {
    /// The variant serves it, with this state.
    Serve(T),
    /// The base serves it alone.
    Decline(Decline),
    /// The probe fails.
    Fail(Refusal),
}

impl<T> Plan<T> {
    /// Whether the device is served.
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Serve(_) => Outcome::Serve,
            Self::Decline(reason) => Outcome::Decline(*reason),
            Self::Fail(refusal) => Outcome::Fail(*refusal),
        }
    }

    /// The state, if the device is served.
    pub const fn served(&self) -> Option<&T> {
        match self {
            Self::Serve(state) => Some(state),
            Self::Decline(_) | Self::Fail(_) => None,
        }
    }
}

/// Why the base serves a device alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decline {
    /// A firmware property is missing or has the wrong type.
    Property {
        /// The property's name.
        name: &'static str,
        /// What the look-up gave.
        errno: Errno,
    },
    /// The memory's size is 0: its link to the CPU is down.
    LinkDown,
    /// The function's owner has no commands for it that would do.
    NoCommands,
    /// A physical BAR is where the variant would put its own.
    BarTaken(BarIndex),
}

/// Why a probe fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The memory is smaller than what must be reserved (`EOVERFLOW`).
    BelowReserve {
        /// Bytes there are.
        size: u64,
        /// Bytes to reserve.
        reserve: u64,
    },
    /// Nothing is left once the reserve is taken and the rest rounded down (`EINVAL`).
    NothingUsable {
        /// Bytes there are.
        size: u64,
        /// Bytes that would do.
        least: u64,
    },
    /// The base is not a multiple of the page size (`EINVAL`).
    BaseNotPageAligned {
        /// The base in bytes.
        base: u64,
        /// The page size in bytes.
        page: u64,
    },
    /// The memory ends beyond 64 bits (`EOVERFLOW`).
    BeyondAddresses {
        /// The base in bytes.
        base: u64,
        /// Bytes there are.
        size: u64,
    },
    /// The memory ends beyond the addresses that the CPU can reach (`EOVERFLOW`).
    OutOfReach {
        /// The region's base in bytes.
        base: u64,
        /// Bytes in the region.
        length: u64,
        /// The last address that it can.
        last: u64,
    },
    /// A BAR that covers it would not fit a VFIO file position (`EOVERFLOW`).
    BarTooLarge {
        /// Bytes to cover.
        length: u64,
    },
    /// The kernel uses the addresses as its own memory (`EBUSY`).
    SystemRam {
        /// The region's base in bytes.
        base: u64,
        /// Bytes in the region.
        length: u64,
    },
    /// The physical BAR0 is too small for the registers that tell readiness (`ENXIO`), or there
    /// is none (`ENOMEM`).
    Bar0TooSmall {
        /// Bytes there are; 0 is none.
        size: u64,
        /// Bytes up to the end of the last register.
        least: u64,
    },
}

impl Refusal {
    /// The errno that the probe returns.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::BelowReserve { .. }
            | Self::BeyondAddresses { .. }
            | Self::OutOfReach { .. }
            | Self::BarTooLarge { .. } => Errno::EOVERFLOW,
            Self::NothingUsable { .. } | Self::BaseNotPageAligned { .. } => Errno::EINVAL,
            Self::SystemRam { .. } => Errno::EBUSY,
            // What the original's failed mapping gives.
            Self::Bar0TooSmall { size: 0, .. } => Errno::ENOMEM,
            Self::Bar0TooSmall { .. } => Errno::ENXIO,
        }
    }
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Property { name, errno } => write!(
                f,
                "firmware property {name} can't be read ({}): served as a plain PCI device without \
                 its coherent memory; check the host's ACPI tables",
                errno.name()
            ),
            Self::LinkDown => f.write_str(
                "firmware reports a memory size of 0, so the chip-to-chip link is down: served as \
                 a plain PCI device without its coherent memory; check the link and reset the host",
            ),
            Self::NoCommands => f.write_str(
                "the function's owner offers no legacy commands for it: served as it is, without a \
                 legacy interface; give it to a guest with a modern driver",
            ),
            Self::BarTaken(bar) => write!(
                f,
                "the function has a BAR{} of its own: served as it is, without a legacy \
                 interface; give it to a guest with a driver for it",
                bar.get()
            ),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowReserve { size, reserve } => {
                write!(
                    f,
                    "memory size {size:#x} is smaller than the {reserve:#x} bytes to \
                     reserve from it; the host's firmware has to give another memory size"
                )
            }
            Self::NothingUsable { size, least } => {
                write!(
                    f,
                    "memory size {size:#x} leaves nothing usable: at least {least:#x} bytes are \
                     needed; the host's firmware has to give another memory size"
                )
            }
            Self::BaseNotPageAligned { base, page } => {
                write!(
                    f,
                    "memory base {base:#x} is not a multiple of the page size {page:#x}; the \
                     host's firmware has to give another memory base"
                )
            }
            Self::BeyondAddresses { base, size } => {
                write!(
                    f,
                    "memory of {size:#x} bytes at {base:#x} ends beyond 64 bits; the host's \
                     firmware has to give another memory base"
                )
            }
            Self::OutOfReach { base, length, last } => write!(
                f,
                "memory of {length:#x} bytes at {base:#x} ends beyond {last:#x}, the last address \
                 that the CPU can reach; the host's firmware has to give another memory base"
            ),
            Self::BarTooLarge { length } => write!(
                f,
                "memory of {length:#x} bytes needs a BAR above 1 TiB, which VFIO can't \
                 address; the host's firmware has to give another memory size"
            ),
            Self::SystemRam { base, length } => write!(
                f,
                "memory of {length:#x} bytes at {base:#x} overlaps what the kernel uses as its \
                 own RAM; take it offline first, or have the host's firmware give another memory \
                 base"
            ),
            Self::Bar0TooSmall { size: 0, .. } => f.write_str(
                "it has no BAR0 with the registers that tell when it is ready; rescan the bus, or \
                 reset the host",
            ),
            Self::Bar0TooSmall { size, least } => write!(
                f,
                "BAR0 has {size:#x} bytes and its readiness registers end at {least:#x}; check \
                 that the function is a GPU of this driver"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn answers_are_found_by_question_and_absent_if_not_asked() {
        const BASE: Question = Question::Property("base");
        const SIZE: Question = Question::Property("size");
        const BAR0: Question = Question::BarSize(BarIndex::BAR0);
        let mut asked = Vec::new();
        let answers = Answers::collect(&[BASE, BAR0], |question| {
            asked.push(question);
            if question == BAR0 {
                Ok(16)
            } else {
                Err(Errno::EIO)
            }
        });
        assert_eq!(asked, [BASE, BAR0]);
        assert_eq!(answers.to(BAR0), Ok(16));
        assert_eq!(answers.to(BASE), Err(Errno::EIO));
        assert_eq!(answers.to(SIZE), Err(Errno::ENOENT));
    }
}
