//! `error-event BDF ARMED`: opens a function, asks for an event when PCIe reports an error of it
//! (`VFIO_PCI_ERR_IRQ_INDEX`), makes the file `ARMED`, and waits for the event.
//!
//! Prints a [`Signalled`], as JSON on one line.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

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
    let mut bytes = [0; 8];
    let read = device.read_at(position(RegionIndex::BAR4.0, 0), &mut bytes);
    Ok(Signalled {
        times,
        read: read.map_err(|errno| errno.get()),
    })
}
