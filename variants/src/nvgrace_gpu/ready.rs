//! Two methods to poll the readiness of the coherent memory.
//!
//! - BAR0: the chip-to-chip link and HBM training registers both read 0xFF. A poll each second,
//!   for 30 s, and none after the last sleep.
//! - CXL: `Memory_Info_Valid` within 1 s, then `Memory_Active` within the time that the device
//!   states (CXL 4.0, 8.1.3.8.2). One more poll follows after the deadline.
//!
//! Source: Linux 7.2 `nvgrace-gpu/main.c:nvgrace_gpu_wait_device_ready_legacy` and
//! `nvgrace_gpu_wait_device_ready_cxl`. Unlike there, no sleep happens under a lock
//! (unlocked-poll) and one deadline covers all retries of an operation (reset-generation).

use core::fmt;

use varia_spec::{Errno, nvidia::bar0, pci::ext_cap::cxl};
use varia_variant::{
    After, Before, Generation, Millis, Monotonic, Sample, Wait,
    ready::{Generations, MAX_REGISTERS, Register, Status, StatusRegisters, Values},
};

/// Time between two polls.
const POLL_QUANTUM: Millis = Millis(1000);

/// Timeout of the BAR0 method.
const POLL_TIMEOUT: Millis = Millis(30_000);

/// Timeout of the CXL method for `Memory_Info_Valid`.
const INFO_VALID_TIMEOUT: Millis = Millis(1000);

/// The largest encoding of `Memory_Active_Timeout` that is not reserved: 256 s.
const MAX_ACTIVE_ENCODING: u32 = 4;

/// Readiness method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Registers in BAR0.
    Bar0,
    /// The CXL Device DVSEC at this configuration offset.
    Cxl {
        /// Offset of the capability.
        dvsec: u16,
    },
}

impl Method {
    /// CXL where the device has its DVSEC, else BAR0.
    pub const fn choose(cxl_dvsec: Option<u16>) -> Self {
        match cxl_dvsec {
            Some(dvsec) => Self::Cxl { dvsec },
            None => Self::Bar0,
        }
    }

    /// Registers that a poll reads.
    const fn registers(self) -> StatusRegisters {
        match self {
            Self::Bar0 => [
                Some(Register::Bar0(bar0::C2C_LINK)),
                Some(Register::Bar0(bar0::HBM_TRAINING)),
            ],
            Self::Cxl { dvsec } => [
                Some(Register::Config(dvsec.saturating_add(cxl::RANGE1_SIZE_LOW))),
                None,
            ],
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar0 => write!(
                f,
                "BAR0 registers {:#x} and {:#x} read {:#x}",
                bar0::C2C_LINK,
                bar0::HBM_TRAINING,
                bar0::STATUS_READY
            ),
            Self::Cxl { dvsec } => {
                write!(
                    f,
                    "the CXL Device DVSEC at {dvsec:#x} says valid and active"
                )
            }
        }
    }
}

/// Readiness of one device.
#[derive(Debug)]
pub struct Readiness {
    method: Method,
    generations: Generations,
}

impl Readiness {
    /// Readiness of a device before its first poll.
    pub const fn new(method: Method) -> Self {
        Self {
            method,
            generations: Generations::new(),
        }
    }

    /// Readiness method.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Readiness for display.
    pub fn status(&self) -> Status {
        // In this order, so that the ready generation never exceeds the reset generation.
        let ready = self.generations.newest_ready();
        Status {
            method: match self.method {
                Method::Bar0 => "bar0",
                Method::Cxl { .. } => "cxl",
            },
            reset: self.generations.poll(),
            ready,
        }
    }

    /// A reset has finished.
    pub fn reset_done(&self) {
        self.generations.reset_done();
    }

    /// Decision before a poll: ready, registers to read, or an error.
    ///
    /// BAR0 can't be read while memory is disabled: `EIO`. With CXL, `ENODEV` and `ETIME` come
    /// before `EIO`, so memory enable is checked after the poll. A wait ends with the device ready:
    /// the next poll of the operation, after a newer reset, begins a new wait.
    pub fn before(&self, wait: &mut Wait, sample: Sample) -> Before {
        let generation = self.generations.poll();
        if self.generations.is_ready() {
            *wait = Wait::default();
            return Before::Ready;
        }
        if self.method == Method::Bar0 {
            if !sample.memory_enabled {
                return Before::Failed(Errno::EIO);
            }
            let deadline = *wait.deadline.get_or_insert(sample.now.after(POLL_TIMEOUT));
            if sample.now > deadline {
                return Before::Failed(Errno::ETIME);
            }
        }
        Before::Poll {
            generation,
            registers: self.method.registers(),
        }
    }

    /// Decision after a poll, from its values.
    pub fn after(
        &self,
        wait: &mut Wait,
        generation: Generation,
        values: Values,
        sample: Sample,
    ) -> After {
        let ready = match self.method {
            Method::Bar0 => values == [bar0::STATUS_READY; MAX_REGISTERS],
            Method::Cxl { .. } => {
                let [status, _] = values;
                if status == u32::MAX {
                    return After::Failed(Errno::ENODEV);
                }
                extend(wait, status, sample.now);
                status & (cxl::MEM_INFO_VALID | cxl::MEM_ACTIVE)
                    == cxl::MEM_INFO_VALID | cxl::MEM_ACTIVE
            }
        };
        let overdue = wait.deadline.is_some_and(|deadline| sample.now > deadline);
        if ready {
            if !sample.memory_enabled {
                return After::Failed(Errno::EIO);
            }
            self.generations.found_ready(generation);
            if self.generations.is_ready() {
                *wait = Wait::default();
                return After::Ready;
            }
            // A reset finished since the poll began: poll again, within the same deadline.
            return if overdue {
                After::Failed(Errno::ETIME)
            } else {
                After::Sleep(Millis(0))
            };
        }
        if overdue && self.method != Method::Bar0 {
            return After::Failed(Errno::ETIME);
        }
        After::Sleep(POLL_QUANTUM)
    }
}

/// Sets the first CXL deadline, and the second once `Memory_Info_Valid` has been seen.
fn extend(wait: &mut Wait, status: u32, now: Monotonic) {
    if wait.deadline.is_none() {
        wait.deadline = Some(now.after(INFO_VALID_TIMEOUT));
    }
    if !wait.extended && status & cxl::MEM_INFO_VALID != 0 {
        wait.extended = true;
        wait.deadline = Some(now.after(active_timeout(status)));
    }
}

/// 1, 4, 16, 64 or 256 s; reserved encodings count as the largest.
fn active_timeout(status: u32) -> Millis {
    let encoded = (status >> cxl::MEM_ACTIVE_TIMEOUT_SHIFT) & cxl::MEM_ACTIVE_TIMEOUT_MASK;
    Millis(1000 << (2 * encoded.min(MAX_ACTIVE_ENCODING)))
}
