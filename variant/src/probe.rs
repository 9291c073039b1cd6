//! Questions that a runtime answers before a device is served, and the outcome of a probe.

use core::array;

use varia_spec::Errno;
use varia_units::{BarIndex, PageShift};

use crate::composed::RootFunction;
use crate::presented::MemoryLayout;
use crate::reason::{Decline, Refusal};

/// Question of a variant to its runtime, with a number or an errno as [`Answer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// A firmware property (`_DSD`) of the function: an unsigned 64-bit integer.
    Property(&'static str),
    /// Configuration offset of a DVSEC; `ENOENT` if the device does not have it.
    DvsecOffset {
        /// The DVSEC's vendor.
        vendor: u16,
        /// The DVSEC's id.
        id: u16,
    },
    /// Little-endian u16 at an offset from the start of a DVSEC; `ENOENT` if the device does not
    /// have the DVSEC.
    DvsecWord {
        /// The DVSEC's vendor.
        vendor: u16,
        /// The DVSEC's id.
        id: u16,
        /// Bytes from the start of the capability.
        offset: u16,
    },
    /// Size of a physical BAR in bytes; `ENOENT` if the function does not have the BAR.
    BarSize(BarIndex),
    /// Little-endian u64 at an offset in the result of an administration command without data,
    /// which the function's owner receives for this function; bytes beyond the result are 0.
    CommandWord {
        /// The operation, as the device's specification numbers it.
        opcode: u16,
        /// Bytes from the start of the result.
        offset: u16,
    },
    /// Dword of the function's own configuration space.
    ConfigDword(u16),
    /// Little-endian u64 in the platform's memory, at an offset from the address that a dword of
    /// the function's configuration space holds; `EFAULT` if that memory can't be read.
    PointedWord {
        /// Configuration offset of the dword with the address.
        pointer: u16,
        /// Bytes from that address.
        offset: u16,
    },
    /// Dword of another function's configuration space; `ENODEV` if the function does not exist.
    RootDword {
        /// The function.
        function: RootFunction,
        /// Configuration offset.
        offset: u16,
    },
    /// Size of another function's configuration space in bytes; `ENODEV` if the function does not
    /// exist.
    RootConfigSize(RootFunction),
    /// Integer of 32 bits in a property of the platform's device tree. `ENODEV` if a node does not
    /// exist, `ENOENT` without the property or if the integer lies beyond the property's end, `EOVERFLOW`
    /// if the property has another size.
    TreeWord(TreePlace),
    /// Integer of 64 bits in a property of the platform's device tree; errors as
    /// [`Question::TreeWord`].
    TreeDoubleword(TreePlace),
    /// Bytes of the longest block that one store of the platform writes to a BAR; `ENODEV` on a
    /// platform without such stores.
    LongestStore,
}

/// Place of an integer in the platform's device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreePlace {
    /// Steps from the function's own node to the node.
    pub node: &'static [TreeStep],
    /// Name of the property.
    pub property: &'static str,
    /// Index of the integer in the property.
    pub index: u16,
    /// Number of integers that the property must have; `None` for any.
    pub count: Option<u16>,
}

/// Step from a node of the device tree to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeStep {
    /// To the node whose number is the first cell of this property.
    Phandle(&'static str),
    /// To the node of the host bridge above the function.
    HostBridge,
}

/// The most questions that a variant asks.
pub const MAX_QUESTIONS: usize = 13;

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

/// Properties of the whole host, and options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Environment {
    /// The base page size.
    pub page: PageShift,
    /// The option `honour_memory_enable`: reads and writes of a memory region fail with `EIO`
    /// while memory is disabled in the command register. Off, they reach the memory, because the
    /// hardware returns ~0 and drops writes by itself.
    pub honour_memory_enable: bool,
    /// The option `strict`: a device that would be declined is refused, so that a device without its
    /// memory is never taken for a whole one.
    pub strict: bool,
    /// The option `layout`.
    pub layout: MemoryLayout,
}

impl Environment {
    /// A host with this page size, and all options at their defaults.
    pub const fn new(page: PageShift) -> Self {
        Self {
            page,
            honour_memory_enable: false,
            strict: false,
            layout: MemoryLayout::Bar,
        }
    }
}

/// Outcome of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The variant serves the device.
    Serve,
    /// The base serves the device alone, for this reason.
    Decline(Decline),
    /// The probe fails.
    Fail(Refusal),
}

/// Outcome of a probe, with the state of a variant that serves the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan<T> {
    /// The variant serves the device, with this state.
    Serve(T),
    /// The base serves the device alone.
    Decline(Decline),
    /// The probe fails.
    Fail(Refusal),
}

impl<T> Plan<T> {
    /// The base serves the device alone, or the probe fails if the host's option `strict` is on.
    pub const fn declined(reason: Decline, environment: Environment) -> Self {
        if environment.strict {
            Self::Fail(Refusal::Strict(reason))
        } else {
            Self::Decline(reason)
        }
    }

    /// The outcome without the state.
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
