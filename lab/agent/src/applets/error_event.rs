//! `error-event BDF ARMED`: opens a function, reads usemem, asks for an event when PCIe reports an
//! error of the function (`VFIO_PCI_ERR_IRQ_INDEX`) and makes the empty file `ARMED`. After the event
//! the file has the number of signals; once it is removed, usemem is read again.
//!
//! Prints a [`Signalled`], as JSON on one line.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use varia_spec::vfio::{IrqIndex, RegionIndex, irq_set};
use varia_sys::event::EventFd;
use varia_sys::vfio::position;

use super::{answer, vfio::OpenDevice};
use crate::HANG;

/// Effects of an error that the user of a device sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    /// Number of times that the event was signalled.
    pub times: u64,
    /// Number of bytes that a read of usemem returns afterwards, or the error number.
    pub read: Result<usize, i32>,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("error-event", wait(arguments))
}

fn wait(arguments: &[String]) -> Result<Signalled, String> {
    let [bdf, armed] = arguments else {
        return Err("usage: error-event BDF ARMED".into());
    };
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let read = || {
        let read = device.read_at(position(RegionIndex::BAR4.0, 0), &mut [0; 8]);
        read.map_err(|errno| errno.get())
    };
    // as a user who has the memory in use
    read().map_err(|errno| format!("{bdf}: read usemem: errno {errno}"))?;
    let event = EventFd::new().map_err(|error| format!("an eventfd: {error}"))?;
    let flags = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;
    device
        .set_irqs(
            flags,
            IrqIndex::ERR.0,
            0,
            1,
            &event.as_fd().as_raw_fd().to_ne_bytes(),
        )
        .map_err(|errno| format!("{bdf}: ask for error events: {errno}"))?;
    fs::write(armed, "").map_err(|error| format!("{armed}: {error}"))?;
    let waited = event.wait(Some(HANG)).and_then(|_| event.drain());
    let times = waited.map_err(|error| format!("wait for the event: {error}"))?;
    fs::write(armed, times.to_string()).map_err(|error| format!("{armed}: {error}"))?;
    let begin = Instant::now();
    while Path::new(armed).exists() {
        if begin.elapsed() > HANG {
            return Err(format!("{armed} is not removed"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(Signalled {
        times,
        read: read(),
    })
}
