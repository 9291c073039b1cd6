//! REGION_WRITE: write bytes of a region.

use varia_spec::errno::Errno;

use super::{Command, REGION_ACCESS_LEN, RegionAccess, Served};
use crate::backend::{Backend, Progress};
use crate::client::{Client, ClientError};
use crate::dispatch::{DONE, Handled, Turn, check_region};
use crate::wire::WireError;

/// The command's name in errors.
const NAME: &str = "REGION_WRITE";

/// REGION_WRITE of at most `max_data_xfer_size` bytes. The reply is the structure alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionWrite<'a> {
    /// Place of the bytes.
    pub access: RegionAccess,
    /// The `count` bytes that the access says.
    pub data: &'a [u8],
}

impl<'a> Served<'a> for RegionWrite<'a> {
    fn decode(payload: &'a [u8], max_xfer: usize) -> Result<Self, WireError> {
        let (access, data) = RegionAccess::within(NAME, payload, max_xfer)?;
        let wanted = data.get(..access.count as usize);
        let data = wanted.ok_or(WireError::CountMismatch {
            what: NAME,
            count: access.count.into(),
            len: data.len(),
        })?;
        Ok(Self { access, data })
    }

    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
        let Self { access, data } = *self;
        check_region(turn.backend, access.region)?;
        let wait = &mut turn.attempts.wait;
        let written = turn
            .backend
            .region_write(access.region, access.offset, data, wait)?;
        let count = match written {
            Progress::Done(n) => n.min(data.len()) as u32,
            Progress::Wait(time) => return Ok(Handled::Waits(time)),
        };
        turn.out
            .encode(|bytes| RegionAccess { count, ..access }.encode(bytes));
        Ok(DONE)
    }
}

impl Client {
    /// REGION_WRITE: how many bytes were written. A long write is several
    /// messages, up to one that writes less than was asked for.
    pub fn region_write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, ClientError> {
        let command = Command::REGION_WRITE;
        let step = self.server().max_xfer();
        let mut done = 0;
        loop {
            let rest = data.get(done..).unwrap_or_default();
            let segment = rest.get(..step).unwrap_or(rest);
            let offset = offset.wrapping_add(done as u64);
            let payload = payload(region, offset, segment);
            let reply = match self.request(command, &payload, &[]) {
                Err(ClientError::Refused { .. }) if done > 0 => return Ok(done),
                other => other?,
            };
            let (answer, _) = RegionAccess::decode(NAME, &reply.payload)?;
            let written = answer.count as usize;
            if written > segment.len() {
                let what = format!("{written} bytes in place of {}", segment.len());
                return Err(ClientError::BadReply { command, what });
            }
            done += written;
            if written < segment.len() || done == data.len() {
                return Ok(done);
            }
        }
    }

    /// REGION_WRITE that wants no reply, as QEMU posts writes to trapped BARs.
    pub fn region_write_posted(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        self.post(Command::REGION_WRITE, &payload(region, offset, data))
    }
}

fn payload(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut payload = Vec::with_capacity(REGION_ACCESS_LEN + data.len());
    RegionAccess {
        offset,
        region,
        count,
    }
    .encode(&mut payload);
    payload.extend_from_slice(data);
    payload
}
