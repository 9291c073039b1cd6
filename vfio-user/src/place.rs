//! The one place that a device has for a client.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use varia_sys::socket::Stream;

use crate::server::Timeouts;

/// Interval between two polls of a client that may be gone.
const POLL: Duration = Duration::from_millis(2);

/// The place, taken by a client or free.
#[derive(Debug, Default)]
pub(crate) struct Place {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<Arc<Stream>>,
    is_stopped: bool,
}

/// Reason why the place can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Another client has it.
    Busy,
    /// The server stops.
    Stopped,
}

/// The place while a client has it.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Place);

impl Place {
    /// Takes the place for a new client. If the previous client seems to be about to leave, this
    /// waits for it.
    pub(crate) fn take(
        &self,
        stream: &Arc<Stream>,
        timeouts: &Timeouts,
    ) -> Result<Held<'_>, Taken> {
        let begin = Instant::now();
        let mut state = self.lock();
        loop {
            if state.is_stopped {
                return Err(Taken::Stopped);
            }
            let Some(holder) = &state.holder else {
                state.holder = Some(Arc::clone(stream));
                return Ok(Held(self));
            };
            if begin.elapsed() >= timeout(holder, timeouts) {
                return Err(Taken::Busy);
            }
            let waited = self.changed.wait_timeout(state, POLL);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// True if the client of `stream` has the place.
    pub(crate) fn is_held_by(&self, stream: &Arc<Stream>) -> bool {
        let state = self.lock();
        let holder = state.holder.as_ref();
        holder.is_some_and(|holder| Arc::ptr_eq(holder, stream))
    }

    /// The place is not given to any other client.
    pub(crate) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// The server stops.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().holder = None;
        self.0.changed.notify_all();
    }
}

/// Time for which a new client waits for `holder` to leave.
fn timeout(holder: &Stream, timeouts: &Timeouts) -> Duration {
    if holder.peer_gone() {
        // its thread ends as soon as the device has done what it is doing
        return timeouts.handshake;
    }
    let ending = holder.peer().ok().and_then(|peer| peer.is_ending());
    match ending {
        Some(false) => timeouts.overlap,
        Some(true) | None => timeouts.succession,
    }
}
