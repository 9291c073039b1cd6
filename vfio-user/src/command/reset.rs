//! DEVICE_RESET.

use varia_spec::errno::Errno;

use super::{Command, Served};
use crate::backend::Backend;
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn};
use crate::wire::WireError;

/// DEVICE_RESET, which has no payload in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset;

impl Served<'_> for Reset {
    fn decode(_payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        Ok(Self)
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        turn.backend.reset()?;
        Ok(DONE)
    }
}

impl Client {
    /// DEVICE_RESET.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.request(Command::DEVICE_RESET, &[], &[]).map(drop)
    }
}
