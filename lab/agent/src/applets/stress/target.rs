//! The open device, and the places in its memory that the threads share.

use varia_spec::Errno;
use varia_spec::vfio::RegionIndex;
use varia_sys::mapping::{Access, Mapping, page_size};
use varia_sys::vfio::{Device, position};

use super::{End, Memory, Plan, pattern};
use crate::applets::vfio::OpenDevice;

/// Bytes at the start of each region where everybody writes the pattern.
pub(super) const COMMON: u64 = 4 << 20;
/// Bytes at the end of each region's memory where everybody does.
pub(super) const TAIL: u64 = 64 << 10;
/// Where the places begin that have one writer each.
pub(super) const OWN: u64 = 8 << 20;
/// Distance from one to the next.
pub(super) const OWN_STRIDE: u64 = 1 << 20;
/// Bytes of a write when the pattern is written first.
const CHUNK: u64 = 256 << 10;

/// The device.
pub(super) struct Target {
    opened: OpenDevice,
    pub(super) memory: Vec<Memory>,
    /// Mappings that stay, of places where the pattern is.
    pub(super) lasting: Vec<Lasting>,
    pub(super) ready_ms: u64,
    pub(super) pause_ms: u64,
    /// True if the device goes from the bus while it is used.
    pub(super) goes: bool,
}

/// A mapping that stays.
pub(super) struct Lasting {
    pub(super) region: u32,
    pub(super) offset: u64,
    pub(super) mapping: Mapping,
}

impl Target {
    /// Opens the device, switches its memory on, and writes the pattern.
    pub(super) fn open(bdf: &str, plan: &Plan) -> Result<Self, String> {
        let opened = OpenDevice::open(bdf)?;
        let mut target = Self {
            opened,
            memory: plan.memory.clone(),
            lasting: Vec::new(),
            ready_ms: plan.ready_ms,
            pause_ms: plan.pause_ms,
            goes: plan.end == End::Gone,
        };
        target
            .prepare()
            .map_err(|errno| format!("the beginning: {errno}"))?;
        Ok(target)
    }

    fn prepare(&mut self) -> Result<(), Errno> {
        self.switch_memory(true)?;
        for memory in self.memory.clone() {
            for (start, end) in [(0, COMMON), (memory.length - TAIL, memory.length)] {
                let mut at = start;
                while at < end {
                    let mut bytes = vec![0; (end - at).min(CHUNK) as usize];
                    pattern::fill(memory.region, at, 0, &mut bytes);
                    self.device()
                        .write_at(position(memory.region, at), &bytes)?;
                    at += bytes.len() as u64;
                }
            }
            let page = page_size() as u64;
            for (offset, len) in [(0, page), (0, COMMON), (memory.length - page, page)] {
                let at = position(memory.region, offset);
                self.lasting.push(Lasting {
                    region: memory.region,
                    offset,
                    mapping: self.device().map(at, len, Access::ReadWrite)?,
                });
            }
        }
        Ok(())
    }

    pub(super) fn device(&self) -> &Device {
        &self.opened.device
    }

    /// Errors of an access in the check after a reset: `EIO` while memory is switched off, and
    /// `ENODEV` if a wait finds that the device is gone.
    pub(super) fn unready(&self) -> &'static [Errno] {
        if self.goes {
            &[Errno::EIO, Errno::ENODEV]
        } else {
            &[Errno::EIO]
        }
    }

    /// Sets or clears memory enable in the command register.
    pub(super) fn switch_memory(&self, on: bool) -> Result<(), Errno> {
        use varia_spec::pci::header::{COMMAND, command};
        let bits = if on {
            command::MEMORY | command::MASTER
        } else {
            0
        };
        let at = position(RegionIndex::CONFIG.0, COMMAND.into());
        self.device().write_at(at, &bits.to_le_bytes()).map(drop)
    }

    /// A mapping that stays and still shows its memory.
    pub(super) fn visible(&self) -> Option<&Lasting> {
        self.lasting
            .iter()
            .find(|lasting| lasting.mapping.touch(0) != Err(Errno::EFAULT))
    }
}
