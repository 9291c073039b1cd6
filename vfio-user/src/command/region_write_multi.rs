//! REGION_WRITE_MULTI: several short writes at once.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use varia_spec::errno::Errno;

use super::layout::{put, split};
use super::{Command, Served};
use crate::backend::{Backend, Progress};
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn, check_region};
use crate::wire::WireError;

/// The command's name in errors.
const NAME: &str = "REGION_WRITE_MULTI";

/// A write of a REGION_WRITE_MULTI message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MultiWrite {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// The region's index.
    pub region: u32,
    /// Bytes to write, at most 8.
    pub count: u32,
    /// The bytes, and what is behind them.
    pub bytes: [u8; 8],
}

impl MultiWrite {
    /// The bytes to write; `None` when there are said to be more than 8.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.bytes.get(..self.count as usize)
    }
}

/// REGION_WRITE_MULTI, request. The reply is the number of writes that were done, a u64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteMulti(pub Vec<MultiWrite>);

impl WriteMulti {
    /// Append the bytes of a request with these writes.
    pub fn encode(writes: &[MultiWrite], out: &mut Vec<u8>) {
        put(out, &(writes.len() as u64));
        out.extend_from_slice(writes.as_bytes());
    }
}

impl Served<'_> for WriteMulti {
    fn decode(payload: &[u8], _max_xfer: usize) -> Result<Self, WireError> {
        let (count, mut rest) = split::<u64>(NAME, payload)?;
        if count > (rest.len() / size_of::<MultiWrite>()) as u64 {
            let len = rest.len();
            return Err(WireError::CountMismatch {
                what: NAME,
                count,
                len,
            });
        }
        let mut writes = Vec::new();
        for _ in 0..count {
            let write;
            (write, rest) = split(NAME, rest)?;
            writes.push(write);
        }
        Ok(Self(writes))
    }

    /// Writes in order up to the first that fails; its error when it is the
    /// first of all, else how many were done.
    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let attempts = &mut *turn.attempts;
        for write in self.0.iter().skip(attempts.writes) {
            let result = write.data().ok_or(Errno::EINVAL).and_then(|data| {
                check_region(turn.backend, write.region)?;
                let wait = &mut attempts.wait;
                turn.backend
                    .region_write(write.region, write.offset, data, wait)
            });
            match result {
                Ok(Progress::Done(_)) => attempts.writes += 1,
                Ok(Progress::Wait(time)) => return Ok(Handled::Waits(time)),
                Err(e) if attempts.writes == 0 => return Err(e),
                Err(_) => break,
            }
        }
        let done = attempts.writes as u64;
        turn.out.encode(|bytes| put(bytes, &done));
        Ok(DONE)
    }
}

impl Client {
    /// REGION_WRITE_MULTI: how many of the writes were done.
    pub fn region_write_multi(&mut self, writes: &[MultiWrite]) -> Result<u64, ClientError> {
        let command = Command::REGION_WRITE_MULTI;
        let mut payload = Vec::new();
        WriteMulti::encode(writes, &mut payload);
        let reply = self.request(command, &payload, &[])?;
        match <[u8; 8]>::try_from(reply.payload.as_slice()) {
            Ok(count) => Ok(u64::from_ne_bytes(count)),
            Err(_) => {
                let what = format!("{} bytes long instead of 8", reply.payload.len());
                Err(ClientError::BadReply { command, what })
            }
        }
    }
}
