//! State of a function and the sink of its interrupts, shared with the jobs that the function runs by
//! itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use varia_core::Interrupts;
use varia_spec::copy_engine::status;

use crate::clock::Clock;
use crate::engine::{Command, Failure};
use crate::fault::Faults;
use crate::memory::PAGE;
use crate::silicon::{State, lock};
use crate::virtio::Signal;

/// Handle on the part of a function that sends interrupts.
#[derive(Clone)]
pub(crate) struct Wires {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) interrupts: Arc<Mutex<Option<Arc<dyn Interrupts>>>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) power_on: Duration,
    faults: Arc<Mutex<Faults>>,
}

impl Wires {
    pub(crate) fn new(state: State, clock: Arc<dyn Clock>, faults: Faults) -> Self {
        Self {
            power_on: clock.now(),
            state: Arc::new(Mutex::new(state)),
            interrupts: Arc::default(),
            clock,
            faults: Arc::new(Mutex::new(faults)),
        }
    }

    /// The faults that are injected now.
    pub(crate) fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    /// The function has fallen off the bus.
    pub(crate) fn is_gone(&self) -> bool {
        let age = self.clock.now().saturating_sub(self.power_on);
        self.faults().gone_after.is_some_and(|after| age >= after)
    }

    /// The first of `len` bytes of coherent memory that is in a poisoned page, as an offset.
    pub(crate) fn poisoned(&self, offset: u64, len: u64) -> Option<u64> {
        let at = self.faults().poisoned_page?;
        let page = at - at % PAGE;
        (len != 0 && offset < page + PAGE && page < offset + len).then(|| page.max(offset))
    }

    /// Bytes of coherent memory answer.
    pub(crate) fn answers(&self, offset: u64, len: u64) -> bool {
        let poisoned = self.poisoned(offset, len).is_some();
        !(poisoned || self.faults().c2c_down || self.is_gone())
    }

    /// What may change while a command of the copy engine runs: its memory answers, and it may use the
    /// bus.
    pub(crate) fn allow(&self, command: &Command) -> Result<(), Failure> {
        for (offset, len) in command.own() {
            if !self.answers(offset, len) {
                return Err(Failure {
                    status: status::MEMORY_FAILED,
                    fault: self.poisoned(offset, len).unwrap_or(offset),
                });
            }
        }
        match command.masters() && !lock(&self.state).config.masters() {
            true => Err(Failure {
                status: status::NO_MASTER,
                fault: 0,
            }),
            false => Ok(()),
        }
    }

    /// Sends the message of `vector`, if messages are enabled.
    pub(crate) fn raise(&self, vector: u16) {
        let enabled = lock(&self.state).config.messages_enabled() && !self.is_gone();
        let sink = lock(&self.interrupts).clone().filter(|_| enabled);
        if let Some(sink) = sink {
            sink.message(vector);
        }
    }

    /// Does what the card asks for, while no lock is held.
    pub(crate) fn signal(&self, signals: impl IntoIterator<Item = Signal>) {
        for signal in signals {
            match signal {
                Signal::Message(vector) => self.raise(vector),
                Signal::Pin(asserted) => {
                    let sink = lock(&self.interrupts).clone();
                    if let Some(sink) = sink {
                        sink.intx(asserted);
                    }
                }
            }
        }
    }
}
