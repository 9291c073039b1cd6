//! Polls of a socket without sleeping, as long as they pay.

use std::time::{Duration, Instant};

/// Most messages in a row that are waited for asleep before a poll is tried again.
const MOST_LEFT_OUT: u32 = 63;

/// Polls before a receiver sleeps.
///
/// A client whose messages come further apart than the polls last would take CPU time from the
/// machine and gain nothing. So each poll in vain doubles the number of messages that are then
/// waited for asleep, and one that finds a message starts anew.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    /// Duration of a poll; zero for none.
    time: Duration,
    /// Messages to wait for asleep after the last poll in vain.
    left_out: u32,
    /// Messages among them that are still to come.
    still: u32,
}

impl Spin {
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            time,
            ..Self::default()
        }
    }

    /// Calls `receive` until there is a result or the time is over, if a poll is due.
    pub(crate) fn poll<T, E>(
        &mut self,
        mut receive: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        if self.time.is_zero() {
            return Ok(None);
        }
        if self.still > 0 {
            self.still -= 1;
            return Ok(None);
        }
        let begin = Instant::now();
        loop {
            if let Some(received) = receive()? {
                self.left_out = 0;
                return Ok(Some(received));
            }
            if begin.elapsed() >= self.time {
                break;
            }
            std::hint::spin_loop();
        }
        self.left_out = (2 * self.left_out + 1).min(MOST_LEFT_OUT);
        self.still = self.left_out;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for `messages`, of which `comes` says whether a poll finds it; returns the number of
    /// polls.
    fn polls(spin: &mut Spin, messages: u32, comes: bool) -> u32 {
        let mut polls = 0;
        for _ in 0..messages {
            let mut polled = false;
            let found = spin.poll(|| {
                polled = true;
                Ok::<_, ()>(comes.then_some(()))
            });
            assert_eq!(found.unwrap().is_some(), polled && comes);
            polls += u32::from(polled);
        }
        polls
    }

    #[test]
    fn polls_in_vain_become_rare_and_one_that_pays_brings_them_back() {
        let mut spin = Spin::new(Duration::from_nanos(1));
        assert_eq!(polls(&mut spin, 100, true), 100);
        // at 0, 2, 6, 14, 30, 62, 126, and then each 64th
        assert_eq!(polls(&mut spin, 127, false), 7);
        assert_eq!(polls(&mut spin, 64 * 10, false), 10);
        // the next poll is 63 messages away
        assert_eq!(polls(&mut spin, 63 + 100, true), 100);
        assert_eq!(polls(&mut spin, 3, false), 2);
    }

    #[test]
    fn a_receiver_that_may_not_spin_never_polls() {
        let mut spin = Spin::default();
        assert_eq!(polls(&mut spin, 100, true), 0);
    }

    #[test]
    fn an_error_ends_a_poll() {
        let mut spin = Spin::new(Duration::from_secs(3600));
        assert_eq!(spin.poll(|| Err::<Option<()>, _>("closed")), Err("closed"));
    }
}
