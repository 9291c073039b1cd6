//! Vital product data: moves bytes between the user's window and the device's.
//!
//! The user's address register is the core's copy; a transfer that the user starts is made on the
//! device and is over when the write returns. A transfer that fails leaves the flag as the user
//! wrote it, so that the user runs into a timeout. The data ends where its tags say so; what lies
//! behind reads as zero and can't be written.
//!
//! Source: Linux 7.2 `drivers/vfio/pci/vfio_pci_config.c:vfio_vpd_config_write` and
//! `drivers/pci/vpd.c`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use varia_spec::Errno;
use varia_spec::pci::cap::vpd;

use crate::device::{ConfigRegister, Device};

/// Timeout of a transfer of four bytes.
const PATIENCE: Duration = Duration::from_millis(125);
/// The pauses between looks.
const PAUSE: Duration = Duration::from_micros(10);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The product data of a device whose capability is at `at`.
#[derive(Debug)]
pub(crate) struct ProductData {
    at: u16,
    /// Number of bytes: known after the first transfer; none where the tags make no
    /// sense.
    len: Option<Option<u32>>,
}

impl ProductData {
    pub(crate) fn new(at: u16) -> Self {
        Self { at, len: None }
    }

    /// Four bytes from `addr`, any address; those behind the end are zero.
    pub(crate) fn read<D: Device + ?Sized>(&mut self, device: &D, addr: u16) -> Result<u32, Errno> {
        let left = self.len(device)?.saturating_sub(u32::from(addr)).min(4);
        if left == 0 {
            return Ok(0);
        }
        let (first, skip) = (addr & !3, u32::from(addr & 3));
        let low = self.word(device, first)?;
        let high = if skip + left > 4 {
            self.word(device, first + 4)?
        } else {
            0
        };
        let bytes = u64::from(high) << 32 | u64::from(low);
        Ok((bytes >> (8 * skip)) as u32 & (u32::MAX >> (32 - 8 * left)))
    }

    /// Four bytes to `addr`, a multiple of four.
    pub(crate) fn write<D: Device + ?Sized>(
        &mut self,
        device: &D,
        addr: u16,
        data: u32,
    ) -> Result<(), Errno> {
        let end = self.len(device)?;
        if !addr.is_multiple_of(4) || u32::from(addr) + 4 > end {
            return Err(Errno::EINVAL);
        }
        device.config_write(ConfigRegister::dword(self.at + vpd::DATA), data)?;
        self.start(device, addr | vpd::ADDR_F)
    }

    fn len<D: Device + ?Sized>(&mut self, device: &D) -> Result<u32, Errno> {
        if self.len.is_none() {
            self.len = Some(self.measure(device));
        }
        self.len.flatten().ok_or(Errno::ENODEV)
    }

    /// Follows the tags to the end.
    fn measure<D: Device + ?Sized>(&self, device: &D) -> Option<u32> {
        let valid = |at: u32| (at != 0).then_some(at);
        let mut at = 0;
        while at < vpd::SPACE {
            let Ok(tag) = self.byte(device, at) else {
                return Some(at);
            };
            if at == 0 && matches!(tag, 0 | 0xff) {
                return None;
            }
            let (header, len) = if tag & vpd::TAG_LARGE != 0 {
                let low = self.byte(device, at + 1);
                let high = self.byte(device, at + 2);
                let (Ok(low), Ok(high)) = (low, high) else {
                    return valid(at);
                };
                (3, u32::from(u16::from_le_bytes([low, high])))
            } else {
                (1, u32::from(tag & vpd::TAG_SMALL_LEN))
            };
            if at + len > vpd::SPACE {
                return valid(at);
            }
            at += header + len;
            if tag & vpd::TAG_LARGE == 0 && tag >> 3 == vpd::TAG_END {
                break;
            }
        }
        Some(at)
    }

    /// A byte of the device; `EINVAL` beyond what can be addressed.
    fn byte<D: Device + ?Sized>(&self, device: &D, at: u32) -> Result<u8, Errno> {
        let addr = u16::try_from(at).map_err(|_| Errno::EINVAL)?;
        if addr > vpd::ADDR_MASK {
            return Err(Errno::EINVAL);
        }
        let word = self.word(device, addr & !3)?;
        Ok((word >> (8 * u32::from(addr & 3))) as u8)
    }

    fn word<D: Device + ?Sized>(&self, device: &D, addr: u16) -> Result<u32, Errno> {
        self.start(device, addr)?;
        device.config_read(ConfigRegister::dword(self.at + vpd::DATA))
    }

    /// Starts a transfer and waits until the device inverts the flag.
    fn start<D: Device + ?Sized>(&self, device: &D, addr: u16) -> Result<(), Errno> {
        let register = ConfigRegister::word(self.at + vpd::ADDR);
        device.config_write(register, u32::from(addr))?;
        let end = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let now = device.config_read(register)? as u16;
            if (now ^ addr) & vpd::ADDR_F != 0 {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Errno::ETIMEDOUT);
            }
            sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
