//! Work that a function does on the bus by itself: the exchanges of a network card, and the commands of
//! a copy engine.

use std::sync::Arc;

use varia_spec::copy_engine;
use varia_sys::memory::SharedMemory;

use super::{Silicon, lock};
use crate::engine::{Command, Engine, Failure};
use crate::profile::Content;
use crate::virtio::{Card, Switches};

impl Silicon {
    /// Configuration of the function, as the card obeys it.
    pub(super) fn switches(&self) -> Switches {
        let state = lock(&self.wires.state);
        Switches {
            master: state.config.masters(),
            msix: state.config.messages_enabled(),
        }
    }

    /// Goes on with what the card could not finish during an access.
    pub(super) fn go_on(&self, card: &Arc<Card>) {
        let Some(memory) = card.take_later() else {
            return;
        };
        let (switches, wires) = (self.switches(), self.wires.clone());
        let (running, of_job) = (Arc::clone(card), Arc::clone(&memory));
        let job = move || wires.signal(running.exchange_later(&of_job, switches));
        if memory.later(Box::new(job)).is_err() {
            card.fail_later();
        }
    }

    /// Runs a command of the copy engine; conditions of the device come before those of the bus.
    pub(super) fn run_engine(&self, engine: &Arc<Engine>, command: Command) {
        let (ending, wires) = (Arc::clone(engine), self.wires.clone());
        let ended = move |outcome| {
            if let Some(vector) = ending.end(&command, outcome) {
                wires.raise(vector);
            }
        };
        let (running, of_device) = (Arc::clone(engine), self.wires.clone());
        let still = move || match running.runs(&command) {
            true => of_device.allow(&command),
            // nobody is told
            false => Err(Failure {
                status: copy_engine::status::IDLE,
                fault: 0,
            }),
        };
        match self.engine_memory(&command) {
            Ok(own) => command.run(own, engine.memory(), still, ended),
            Err(failure) => ended(Err(failure)),
        }
    }

    /// The coherent memory for a command, if the command may run.
    fn engine_memory(&self, command: &Command) -> Result<SharedMemory, Failure> {
        let failure = |status, fault| Failure { status, fault };
        let memory = self.memory.as_ref();
        let memory = memory.ok_or(failure(copy_engine::status::BAD_RANGE, 0))?;
        for (offset, len) in command.own() {
            let end = offset.checked_add(len);
            if end.is_none_or(|end| end > memory.bytes.len()) {
                return Err(failure(copy_engine::status::BAD_RANGE, offset));
            }
            if !self.is_ready() {
                return Err(failure(copy_engine::status::NOT_READY, offset));
            }
        }
        self.wires.allow(command)?;
        let shared = memory.bytes.try_clone();
        shared.map_err(|_| failure(copy_engine::status::MEMORY_FAILED, 0))
    }

    /// The card, if it is behind this BAR.
    pub(super) fn card_behind(&self, bar: u8) -> Option<&Arc<Card>> {
        let content = self.profile.bar(bar)?.content;
        self.card
            .as_ref()
            .filter(|_| content == Content::NetworkCard)
    }
}
