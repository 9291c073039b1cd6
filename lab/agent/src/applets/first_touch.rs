//! `first-touch BDF REGION LENGTH HUGE`: how many page faults touching a mapped region takes.
//!
//! HUGE is how many bytes a huge page has. A block of that size is touched page by page in a
//! mapping whose addresses fit huge pages, and some pages of it in one whose addresses don't. Then words are
//! written through the mapping and read by system calls, and the other way round. Prints a
//! [`Touched`], as JSON on one line.

use std::fs;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use varia_sys::mapping::{Access, Mapping, page_size};
use varia_sys::vfio::{Device, position};

use super::{answer, vfio::OpenDevice};

/// Number of times that the kernel may choose another address.
const ATTEMPTS: u32 = 8;
/// Pages that are touched where no huge page fits.
const SMALL_PAGES: usize = 64;

/// Times of touching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Bytes of a page.
    pub page: u64,
    /// Pages touched where a huge page fits, and the faults that took.
    pub fitting: (u64, u64),
    /// Pages touched where none fits, and the faults that took.
    pub misaligned: (u64, u64),
    /// Words that were not read as they had been written.
    pub wrong: u64,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    answer("first-touch", touch(arguments))
}

fn touch(arguments: &[String]) -> Result<Touched, String> {
    let [bdf, region, length, huge] = arguments else {
        return Err("usage: first-touch BDF REGION LENGTH HUGE".into());
    };
    let number = |text: &String| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    let (length, huge) = (number(length)?, number(huge)?);
    let region = region.parse().map_err(|e| format!("{region:?}: {e}"))?;
    let opened = OpenDevice::open(bdf)?;
    let device = &opened.device;
    let page = page_size();

    let fitting = Window::open(device, region, length, huge, 0)?;
    let block = usize::try_from(huge).map_err(|e| format!("{huge:#x}: {e}"))?;
    let pages: Vec<_> = (0..block).step_by(page).collect();
    let faults = fitting.faults(&pages)?;
    let wrong = fitting.words(device, region, &pages)?;
    let fitting = (pages.len() as u64, faults);

    let misaligned = Window::open(device, region, length, huge, page as u64)?;
    let pages: Vec<_> = pages.into_iter().take(SMALL_PAGES).collect();
    let misaligned = (pages.len() as u64, misaligned.faults(&pages)?);
    Ok(Touched {
        page: page as u64,
        fitting,
        misaligned,
        wrong,
    })
}

/// A mapping of a whole region.
struct Window {
    mapping: Mapping,
    /// Mapping that keeps the address free; never touched.
    _spacer: Option<Mapping>,
}

impl Window {
    /// Maps the region at an address that is `shift` modulo `huge`. The kernel chooses addresses
    /// downwards, one mapping below the other, so another mapping moves this one.
    fn open(
        device: &Device,
        region: u32,
        length: u64,
        huge: u64,
        shift: u64,
    ) -> Result<Self, String> {
        let map = |length| {
            device
                .map(position(region, 0), length, Access::ReadWrite)
                .map_err(|errno| format!("map {length} bytes of region {region}: {errno}"))
        };
        let (mut spacer, mut distance) = (None, 0);
        let mut chosen = Vec::new();
        for _ in 0..ATTEMPTS {
            let mapping = map(length)?;
            let excess = (mapping.address() + huge - shift) % huge;
            if excess == 0 {
                return Ok(Self {
                    mapping,
                    _spacer: spacer,
                });
            }
            chosen.push(mapping.address());
            drop((mapping, spacer.take()));
            distance = (distance + excess) % huge;
            spacer = Some(map(distance)?);
        }
        Err(format!(
            "no mapping is at {shift:#x} modulo {huge:#x}: {chosen:#x?}"
        ))
    }

    /// Touches pages at these offsets: how many faults that took.
    fn faults(&self, offsets: &[usize]) -> Result<u64, String> {
        // What counting itself touches has been touched then.
        minor_faults()?;
        let before = minor_faults()?;
        let mut byte = [0];
        for offset in offsets {
            let touched = self.mapping.read(*offset, &mut byte);
            touched.map_err(|errno| format!("touch {offset:#x}: {errno}"))?;
        }
        Ok(minor_faults()? - before)
    }

    /// Writes a word into each page, half of them through the mapping, and reads it the other way: how
    /// many differ.
    fn words(&self, device: &Device, region: u32, offsets: &[usize]) -> Result<u64, String> {
        let mut wrong = 0;
        let step = offsets.len().div_ceil(SMALL_PAGES);
        for (number, offset) in offsets.iter().step_by(step).enumerate() {
            let word = (*offset as u64 ^ 0x5661_7269_6100_0001).to_le_bytes();
            let place = position(region, *offset as u64);
            let mut read = [0; 8];
            let through_mapping = number % 2 == 0;
            let result = if through_mapping {
                let written = self.mapping.write(*offset, &word);
                written.and_then(|()| device.read_at(place, &mut read))
            } else {
                let written = device.write_at(place, &word);
                written.and_then(|count| self.mapping.read(*offset, &mut read).map(|()| count))
            };
            let count = result.map_err(|errno| format!("a word at {offset:#x}: {errno}"))?;
            wrong += u64::from(count != read.len() || read != word);
        }
        Ok(wrong)
    }
}

/// Page faults of this process so far that needed no I/O (`proc_pid_stat(5)`, field 10).
fn minor_faults() -> Result<u64, String> {
    let path = "/proc/self/stat";
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    // The second field, a name in parentheses, may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields
        .split_whitespace()
        .nth(7)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| format!("{path}: {text:?}"))
}
