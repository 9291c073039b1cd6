//! A virtio network card: the modern interface in a BAR, the legacy one by commands of the card's
//! owner, and a host at the other end of the wire that replies to pings.
//!
//! Not a network: a frame is answered when it is sent, during the access that notified the queue, so
//! that no thread is needed. Where the rings or a buffer lie in memory that is reached through the
//! user, the exchange goes on after the access, on the user's thread ([`Dma::later`]).
//!
//! Source: VIRTIO 1.3, sections 2.7, 2.12, 4.1 and 5.1.
//!
//! | module | contents |
//! |---|---|
//! | `registers` | which register is where, in both interfaces |
//! | `rings` | buffers: frames out of one queue, answers into the other |
//! | `echo` | what the other end answers to a frame |

pub mod echo;
mod registers;
mod rings;

use std::sync::{Arc, Mutex, PoisonError};

use varia_core::{Dma, Errno};
use varia_spec::virtio::{
    self, F_VERSION_1, ISR_QUEUE, NO_VECTOR, STATUS_FEATURES_OK, admin, common, legacy, net,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use registers::{COMMON, DEVICE, Field, LEGACY, LEGACY_VECTORS, Register};

/// Places of the structures of the modern interface in their BAR: common registers, interrupt
/// status, device registers, notification. Bytes in each.
pub(crate) const COMMON_AT: (u64, u64) = (0x0000, common::LEN);
pub(crate) const ISR_AT: (u64, u64) = (0x1000, 1);
pub(crate) const DEVICE_AT: (u64, u64) = (0x2000, net::CONFIG_LEN);
pub(crate) const NOTIFY_AT: (u64, u64) = (0x3000, 2);

/// Frames from the other end, and to it.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Descriptors in a queue.
const QUEUE_SIZE: u16 = 256;
const FEATURES: u64 = net::F_MAC | net::F_STATUS | F_VERSION_1;
/// Locally administered.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x76, 0x61, 0x72];

/// Configuration space of the card, as far as the card obeys it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switches {
    /// Bus master is enabled.
    pub(crate) master: bool,
    /// MSI-X is enabled.
    pub(crate) msix: bool,
}

/// Interrupts that the card asks for. They are signalled once the card's lock is free again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// A vector's message.
    Message(u16),
    /// The pin's level.
    Pin(bool),
}

/// The part of a function that makes it a network card.
#[derive(Debug)]
pub(crate) struct Card {
    /// The BAR with the modern interface.
    bar: u8,
    state: Mutex<State>,
    memory: Mutex<Option<Arc<Dma>>>,
}

#[derive(Debug)]
struct State {
    status: u8,
    isr: u8,
    mac: [u8; 6],
    /// Features that the driver accepts.
    driver_features: u64,
    /// Half of the features that the modern registers show.
    device_half: u32,
    driver_half: u32,
    config_vector: u16,
    selected: u16,
    rings: [Ring; 2],
    later: Later,
    /// Number of resets.
    resets: u64,
}

/// An exchange that goes on after the access which notified the queue.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Later {
    /// There is none.
    #[default]
    Idle,
    /// It is to be started.
    Wanted,
    /// It runs.
    Runs,
    /// It runs, and the queue was notified since.
    RunsAgain,
}

/// A queue and its registers.
#[derive(Debug)]
struct Ring {
    queue: Queue,
    vector: u16,
    /// The legacy address.
    pfn: u32,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Ring {
    fn new() -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            queue: Queue::new(QUEUE_SIZE)?,
            vector: NO_VECTOR,
            pfn: 0,
            descriptors: 0,
            available: 0,
            used: 0,
        })
    }

    fn reset(&mut self) {
        self.queue.reset();
        self.vector = NO_VECTOR;
        (self.pfn, self.descriptors, self.available, self.used) = (0, 0, 0, 0);
    }

    /// Starts with the addresses given; one that is not aligned starts nothing.
    fn start(&mut self) {
        let queue = &mut self.queue;
        let set = queue
            .try_set_desc_table_address(GuestAddress(self.descriptors))
            .and_then(|()| queue.try_set_avail_ring_address(GuestAddress(self.available)))
            .and_then(|()| queue.try_set_used_ring_address(GuestAddress(self.used)));
        queue.set_ready(set.is_ok());
    }

    /// The legacy layout: descriptors, the available ring behind them, the used ring on the next
    /// page (VIRTIO 1.3, 2.7.2).
    fn start_legacy(&mut self, pfn: u32) {
        let (size, page) = (
            u64::from(self.queue.max_size()),
            1 << legacy::QUEUE_ADDR_SHIFT,
        );
        self.queue.reset();
        self.pfn = pfn;
        if pfn == 0 {
            return;
        }
        self.descriptors = u64::from(pfn) << legacy::QUEUE_ADDR_SHIFT;
        self.available = self.descriptors + 16 * size;
        self.used = (self.available + 6 + 2 * size).next_multiple_of(page);
        self.start();
    }
}

impl State {
    fn new() -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            status: 0,
            isr: 0,
            mac: MAC,
            driver_features: 0,
            device_half: 0,
            driver_half: 0,
            config_vector: NO_VECTOR,
            selected: 0,
            rings: [Ring::new()?, Ring::new()?],
            later: Later::default(),
            resets: 0,
        })
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.rings.iter_mut().for_each(Ring::reset);
        (self.status, self.isr, self.mac) = (0, 0, MAC);
        (self.driver_features, self.device_half, self.driver_half) = (0, 0, 0);
        (self.config_vector, self.selected) = (NO_VECTOR, 0);
    }

    fn ring(&self) -> Option<&Ring> {
        self.rings.get(usize::from(self.selected))
    }

    fn get(&mut self, field: Field) -> u64 {
        let ring = self.ring();
        let of_ring = |get: fn(&Ring) -> u64| ring.map_or(0, get);
        let half = |features: u64, half: u32| match half {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        match field {
            Field::DeviceHalf => self.device_half.into(),
            Field::DeviceFeatures => half(FEATURES, self.device_half),
            Field::LegacyDeviceFeatures => FEATURES & 0xffff_ffff,
            Field::DriverHalf => self.driver_half.into(),
            Field::DriverFeatures => half(self.driver_features, self.driver_half),
            Field::LegacyDriverFeatures => self.driver_features & 0xffff_ffff,
            Field::ConfigVector => self.config_vector.into(),
            Field::Queues => self.rings.len() as u64,
            Field::Status => self.status.into(),
            Field::Isr => std::mem::take(&mut self.isr).into(),
            Field::QueueSelect => self.selected.into(),
            Field::QueueSize => of_ring(|ring| ring.queue.size().into()),
            Field::QueueVector => ring.map_or(NO_VECTOR, |ring| ring.vector).into(),
            Field::QueueEnable => of_ring(|ring| ring.queue.ready().into()),
            Field::QueueNotifyOffset => 0,
            Field::QueuePfn => of_ring(|ring| ring.pfn.into()),
            Field::QueueDescriptors => of_ring(|ring| ring.descriptors),
            Field::QueueAvailable => of_ring(|ring| ring.available),
            Field::QueueUsed => of_ring(|ring| ring.used),
            Field::Mac => {
                let [a, b, c, d, e, f] = self.mac;
                u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
            }
            Field::LinkStatus => net::S_LINK_UP.into(),
        }
    }

    fn set(&mut self, field: Field, value: u64) {
        let low = value & 0xffff_ffff;
        let high = value << 32;
        match field {
            Field::DeviceHalf => self.device_half = value as u32,
            Field::DriverHalf => self.driver_half = value as u32,
            Field::DriverFeatures => match self.driver_half {
                0 => self.driver_features = self.driver_features & !0xffff_ffff | low,
                1 => self.driver_features = self.driver_features & 0xffff_ffff | high,
                _ => {}
            },
            Field::LegacyDriverFeatures => self.driver_features = low,
            Field::ConfigVector => self.config_vector = vector(value),
            Field::Status if value == 0 => self.reset(),
            Field::Status => {
                // features that the card does not have are not agreed on
                let refused = self.driver_features & !FEATURES != 0;
                let mask = if refused { !STATUS_FEATURES_OK } else { 0xff };
                self.status = value as u8 & mask;
            }
            Field::QueueSelect => self.selected = value as u16,
            Field::Mac => {
                let [a, b, c, d, e, f, ..] = value.to_le_bytes();
                self.mac = [a, b, c, d, e, f];
            }
            _ => {
                if let Some(ring) = self.rings.get_mut(usize::from(self.selected)) {
                    set_ring(ring, field, value);
                }
            }
        }
    }

    /// Bytes before a frame in a buffer.
    fn header(&self) -> usize {
        if self.driver_features & F_VERSION_1 == 0 {
            10
        } else {
            12
        }
    }
}

fn set_ring(ring: &mut Ring, field: Field, value: u64) {
    match field {
        // a size that is none leaves the old one
        Field::QueueSize => drop(ring.queue.try_set_size(value as u16)),
        Field::QueueVector => ring.vector = vector(value),
        Field::QueueEnable if value == 1 => ring.start(),
        Field::QueuePfn => ring.start_legacy(value as u32),
        Field::QueueDescriptors => ring.descriptors = value,
        Field::QueueAvailable => ring.available = value,
        Field::QueueUsed => ring.used = value,
        _ => {}
    }
}

/// A vector that the card does not have reads back as none.
fn vector(value: u64) -> u16 {
    let vector = value as u16;
    if vector < VECTORS { vector } else { NO_VECTOR }
}

/// MSI-X vectors: the queues' and the configuration's.
pub(crate) const VECTORS: u16 = 3;

impl Card {
    /// A card whose modern interface is in this BAR.
    ///
    /// # Errors
    /// For a queue size that is none.
    pub(crate) fn new(bar: u8) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            bar,
            state: Mutex::new(State::new()?),
            memory: Mutex::default(),
        })
    }

    /// State at power-on.
    pub(crate) fn reset(&self) -> Signal {
        lock(&self.state).reset();
        Signal::Pin(false)
    }

    /// The memory that it masters the bus for.
    pub(crate) fn attach(&self, memory: Option<Arc<Dma>>) {
        *lock(&self.memory) = memory;
    }

    /// Reads the BAR; what is no register reads as zeros.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) -> Option<Signal> {
        data.fill(0);
        let mut state = lock(&self.state);
        let before = state.isr;
        for (start, registers) in BAR {
            registers::read(&mut state, registers, *start, offset, data);
        }
        (before != state.isr).then_some(Signal::Pin(false))
    }

    /// Writes the BAR.
    pub(crate) fn write(&self, offset: u64, data: &[u8], switches: Switches) -> Vec<Signal> {
        let notify = NOTIFY_AT.0;
        if let (true, [low, high, ..]) = (offset == notify, data) {
            let queue = u16::from_le_bytes([*low, *high]);
            return self.notify(queue, switches);
        }
        let mut state = lock(&self.state);
        let before = state.isr;
        for (start, registers) in BAR {
            registers::write(&mut state, registers, *start, offset, data);
        }
        let pin = (before != state.isr).then_some(Signal::Pin(false));
        pin.into_iter().collect()
    }

    /// A command about this card that its owner has got.
    ///
    /// # Errors
    /// `EINVAL` for an unknown operation and for data that does not fit the operation.
    pub(crate) fn command(
        &self,
        opcode: u16,
        data: &[u8],
        result: &mut [u8],
        switches: Switches,
    ) -> Result<Option<Signal>, Errno> {
        result.fill(0);
        let mut state = lock(&self.state);
        let before = state.isr;
        match (opcode, data) {
            (admin::LIST_QUERY, []) => fill(result, &(1 | admin::LEGACY_BITMAP).to_le_bytes()),
            (admin::LEGACY_NOTIFY_INFO, []) => {
                let place = [admin::NOTIFY_INFO_MEMBER, self.bar, 0, 0, 0, 0, 0, 0];
                fill(result, &[place, NOTIFY_AT.0.to_le_bytes()].concat());
            }
            (admin::LEGACY_COMMON_CFG_READ | admin::LEGACY_DEV_CFG_READ, [offset]) => {
                let device = opcode == admin::LEGACY_DEV_CFG_READ;
                let (offset, len) = (u64::from(*offset), result.len());
                for map in legacy_part(device, offset, len, switches)? {
                    registers::read(&mut state, map, 0, offset, result);
                }
            }
            (
                admin::LEGACY_COMMON_CFG_WRITE | admin::LEGACY_DEV_CFG_WRITE,
                [offset, _, _, _, _, _, _, _, bytes @ ..],
            ) => {
                let device = opcode == admin::LEGACY_DEV_CFG_WRITE;
                let offset = u64::from(*offset);
                for map in legacy_part(device, offset, bytes.len(), switches)? {
                    registers::write(&mut state, map, 0, offset, bytes);
                }
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok((before != state.isr).then_some(Signal::Pin(false)))
    }

    /// The driver has put buffers into a queue.
    fn notify(&self, queue: u16, switches: Switches) -> Vec<Signal> {
        let memory = lock(&self.memory).clone();
        let (Some(memory), true) = (memory, switches.master) else {
            return Vec::new();
        };
        let mut state = lock(&self.state);
        // answers that found no buffer are gone, so that there is nothing to do for a new one
        if usize::from(queue) != TRANSMIT || state.status & virtio::STATUS_DRIVER_OK == 0 {
            return Vec::new();
        }
        if matches!(state.later, Later::Runs | Later::RunsAgain) {
            state.later = Later::RunsAgain;
            return Vec::new();
        }
        let header = state.header();
        let [receive, transmit] = &mut state.rings;
        let (to, from) = (&mut receive.queue, &mut transmit.queue);
        let mappings = memory.mappings();
        let tell = rings::exchange(from, to, &*mappings, header, || mappings.missed());
        if tell.stopped {
            state.later = Later::Wanted;
        }
        if mappings.is_lost() {
            // VIRTIO 1.3, 2.1.2: an error that the device can't recover from
            state.status |= virtio::STATUS_NEEDS_RESET;
            return Vec::new();
        }
        state.tell(tell, switches)
    }

    /// The memory of an exchange that is to go on after the access, with
    /// [`exchange_later`](Self::exchange_later).
    pub(crate) fn take_later(&self) -> Option<Arc<Dma>> {
        let mut state = lock(&self.state);
        if state.later != Later::Wanted {
            return None;
        }
        state.later = Later::Runs;
        let memory = lock(&self.memory).clone();
        if memory.is_none() {
            state.later = Later::Idle;
        }
        memory
    }

    /// The exchange can't go on: an error that the device can't recover from (VIRTIO 1.3, 2.1.2).
    pub(crate) fn fail_later(&self) {
        let mut state = lock(&self.state);
        state.later = Later::Idle;
        state.status |= virtio::STATUS_NEEDS_RESET;
    }

    /// Goes on with an exchange, with all of the user's memory. The card's lock is free meanwhile:
    /// the user may read a register before it gives its memory.
    pub(crate) fn exchange_later(&self, memory: &Dma, switches: Switches) -> Vec<Signal> {
        let mut signals = Vec::new();
        loop {
            let mut state = lock(&self.state);
            state.later = Later::Runs;
            let header = state.header();
            let [receive, transmit] = &state.rings;
            let queues = (transmit.queue.state(), receive.queue.state());
            let resets = state.resets;
            drop(state);
            let (Ok(mut from), Ok(mut to)) = (Queue::try_from(queues.0), Queue::try_from(queues.1))
            else {
                self.fail_later();
                return signals;
            };
            let Some(transaction) = memory.transaction() else {
                self.fail_later();
                return signals;
            };
            let tell = rings::exchange(&mut from, &mut to, &transaction, header, || false);
            match transaction.commit() {
                Ok(()) => {}
                // the mappings change: the rings are where they were
                Err(Errno::EINTR) => continue,
                Err(_) => {
                    self.fail_later();
                    return signals;
                }
            }
            let mut state = lock(&self.state);
            // a reset meanwhile has made other queues
            if resets == state.resets {
                let [receive, transmit] = &mut state.rings;
                (transmit.queue, receive.queue) = (from, to);
                signals.extend(state.tell(tell, switches));
            }
            if state.later != Later::RunsAgain {
                state.later = Later::Idle;
                return signals;
            }
        }
    }
}

impl State {
    /// Interrupts for the queues whose drivers want to be told.
    fn tell(&mut self, tell: rings::Tell, switches: Switches) -> Vec<Signal> {
        let mut signals = Vec::new();
        for (index, told) in [(RECEIVE, tell.receive), (TRANSMIT, tell.transmit)] {
            let vector = self.rings.get(index).map_or(NO_VECTOR, |ring| ring.vector);
            match (told, switches.msix) {
                (false, _) => {}
                (true, true) if vector == NO_VECTOR => {}
                (true, true) => signals.push(Signal::Message(vector)),
                (true, false) => {
                    self.isr |= ISR_QUEUE;
                    signals.push(Signal::Pin(true));
                }
            }
        }
        signals
    }
}

/// The registers in the BAR, by where their structure begins.
const BAR: &[(u64, &[Register])] = &[
    (COMMON_AT.0, COMMON),
    (ISR_AT.0, &[Register::new(0, 1, Field::Isr)]),
    (DEVICE_AT.0, DEVICE),
];

/// The registers of a part of the legacy interface, if it has the bytes.
fn legacy_part(
    device: bool,
    offset: u64,
    len: usize,
    switches: Switches,
) -> Result<Vec<&'static [Register]>, Errno> {
    let (maps, end) = match (device, switches.msix) {
        (true, _) => (vec![DEVICE], legacy_device_len()),
        (false, msix) => {
            let vectors = msix.then_some(LEGACY_VECTORS);
            let maps = [LEGACY].into_iter().chain(vectors).collect();
            (maps, legacy::config_off(msix))
        }
    };
    if offset + len as u64 <= end {
        Ok(maps)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Bytes of device registers that a legacy driver can reach: more than there are while it has no
/// MSI-X, because its region keeps its size.
const fn legacy_device_len() -> u64 {
    legacy::config_off(true) + net::CONFIG_LEN - legacy::config_off(false)
}

/// Copies as much of `bytes` as there is room for.
fn fill(result: &mut [u8], bytes: &[u8]) {
    result
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
}

/// A lock that a panic left behind guards values that are each valid by themselves.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
