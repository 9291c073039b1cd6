//! REGION_READ: read bytes of a region.

use varia_spec::errno::Errno;

use super::{Command, REGION_ACCESS_LEN, RegionAccess, Served};
use crate::backend::{Backend, Progress};
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn, check_region};
use crate::wire::WireError;

/// The command's name in errors.
const NAME: &str = "REGION_READ";

/// REGION_READ of at most `max_data_xfer_size` bytes. The reply has the data behind the structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionRead(pub RegionAccess);

impl Served<'_> for RegionRead {
    fn decode(payload: &[u8], max_xfer: usize) -> Result<Self, WireError> {
        let (access, _) = RegionAccess::within(NAME, payload, max_xfer)?;
        Ok(Self(access))
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let access = self.0;
        check_region(turn.backend, access.region)?;
        let asked = access.count as usize;
        turn.out.room(REGION_ACCESS_LEN);
        // the device's bytes go straight into the reply
        let data = turn.out.room(asked);
        let wait = &mut turn.attempts.wait;
        let read = turn
            .backend
            .region_read(access.region, access.offset, data, wait)?;
        let count = match read {
            Progress::Done(n) => n.min(asked),
            Progress::Wait(time) => return Ok(Handled::Waits(time)),
        };
        let reply = RegionAccess {
            count: count as u32,
            ..access
        };
        turn.out.write(0, reply.bytes());
        turn.out.truncate(REGION_ACCESS_LEN + count);
        Ok(DONE)
    }
}

impl Client {
    /// REGION_READ: how many bytes were read. A long read is several messages,
    /// up to one that brings less than was asked for.
    pub fn region_read(
        &mut self,
        region: u32,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, ClientError> {
        let command = Command::REGION_READ;
        let step = self.server().max_xfer();
        let mut done = 0;
        loop {
            let rest = buf.get_mut(done..).unwrap_or_default();
            let asked = rest.len().min(step);
            let access = RegionAccess {
                offset: offset.wrapping_add(done as u64),
                region,
                count: asked as u32,
            };
            let reply = match self.request(command, access.bytes(), &[]) {
                Err(ClientError::Refused { .. }) if done > 0 => return Ok(done),
                other => other?,
            };
            let (answer, data) = RegionAccess::decode(NAME, &reply.payload)?;
            match rest.get_mut(..data.len()) {
                Some(part) if data.len() <= asked && answer.count as usize == data.len() => {
                    part.copy_from_slice(data);
                }
                _ => {
                    let what = format!("{} bytes in place of {asked}", data.len());
                    return Err(ClientError::BadReply { command, what });
                }
            }
            done += data.len();
            if data.len() < asked || done == buf.len() {
                return Ok(done);
            }
        }
    }
}
