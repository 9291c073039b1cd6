//! Frames out of one queue, answers into the other.

use std::io::{Read, Write};

use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::echo;

/// The longest frame that is looked at: an IPv4 packet with its Ethernet header.
const MAX_FRAME: u64 = 14 + 65_535;
/// Buffers in a header of 12 bytes, little-endian, at this offset (VIRTIO 1.3, 5.1.6).
const BUFFERS_AT: usize = 10;

/// A driver that looks into its used ring by itself (VIRTIO 1.3, 2.7.6).
const NO_INTERRUPT: u16 = 1;

/// Queues whose drivers want to be told.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Tell {
    pub(super) receive: bool,
    pub(super) transmit: bool,
    /// The exchange has stopped before a buffer that lies out of reach: both queues are as if that
    /// buffer had not been looked at.
    pub(super) stopped: bool,
}

/// Takes every available frame out of `from`, and puts the other end's answer into `to`. An answer
/// without a buffer is lost, as on a wire. `header` is the number of bytes before a frame.
///
/// No more than a queue's size at a time: a driver that adds buffers meanwhile notifies again.
/// `missed` says, once, whether the memory has lain out of reach.
pub(super) fn exchange<M>(
    from: &mut Queue,
    to: &mut Queue,
    memory: &M,
    header: usize,
    missed: impl Fn() -> bool,
) -> Tell
where
    M: GuestMemory,
{
    let mut tell = Tell::default();
    let (mut sent, mut received) = (false, false);
    missed();
    if !from.is_valid(memory) {
        tell.stopped = missed();
        return tell;
    }
    for _ in 0..from.size() {
        let before = (from.state(), to.state());
        let Some(chain) = from.pop_descriptor_chain(memory) else {
            tell.stopped = missed();
            break;
        };
        let head = chain.head_index();
        let answer = take(chain, memory, header).and_then(echo::answer);
        let given = match &answer {
            Some(answer) if !missed_into(&missed, &mut tell) => give(to, memory, header, answer),
            _ => None,
        };
        if missed_into(&missed, &mut tell) {
            (*from, *to) = match (before.0.try_into(), before.1.try_into()) {
                (Ok(from), Ok(to)) => (from, to),
                _ => break,
            };
            break;
        }
        received |= given.is_some();
        if from.add_used(memory, head, 0).is_err() {
            break;
        }
        sent = true;
    }
    tell.receive = received && wants_interrupts(to, memory);
    tell.transmit = sent && wants_interrupts(from, memory);
    tell
}

/// True if the memory has lain out of reach, now or before.
fn missed_into(missed: impl Fn() -> bool, tell: &mut Tell) -> bool {
    tell.stopped |= missed();
    tell.stopped
}

/// The queue's driver has not asked for silence (`VIRTQ_AVAIL_F_NO_INTERRUPT`).
fn wants_interrupts<M>(queue: &Queue, memory: &M) -> bool
where
    M: GuestMemory,
{
    let flags: Result<u16, _> = memory.read_obj(GuestAddress(queue.avail_ring()));
    flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT == 0)
}

/// The frame in a buffer.
fn take<M>(chain: DescriptorChain<&M>, memory: &M, header: usize) -> Option<Vec<u8>>
where
    M: GuestMemory,
{
    let mut bytes = Vec::new();
    let reader = chain.reader(memory).ok()?;
    let limit = MAX_FRAME + header as u64 + 1;
    reader.take(limit).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 == limit {
        return None;
    }
    bytes.get(header..).map(<[u8]>::to_vec)
}

/// Puts a frame into the next buffer; `None` if there is none, or it is too small.
fn give<M>(queue: &mut Queue, memory: &M, header: usize, frame: &[u8]) -> Option<()>
where
    M: GuestMemory,
{
    if !queue.is_valid(memory) {
        return None;
    }
    let chain = queue.pop_descriptor_chain(memory)?;
    let head = chain.head_index();
    let mut bytes = vec![0; header];
    if let Some(buffers) = bytes.get_mut(BUFFERS_AT) {
        *buffers = 1;
    }
    bytes.extend(frame);
    let written = chain
        .writer(memory)
        .ok()
        .filter(|writer| writer.available_bytes() >= bytes.len())
        .and_then(|mut writer| writer.write_all(&bytes).ok());
    let len = written.map_or(0, |()| bytes.len() as u32);
    queue.add_used(memory, head, len).ok()?;
    written
}
