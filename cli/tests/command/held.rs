//! Descriptors, threads and memory that a running server holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{HANG, Serving};

/// Memory that the allocator may keep, in KiB.
const KEPT: u64 = 32 << 10;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Resident memory in KiB.
    pub(crate) memory: u64,
}

impl Held {
    /// What the server holds now.
    pub(crate) fn by(serving: &Serving) -> Self {
        let status = fs::read_to_string(proc(serving, "status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.unwrap().split_whitespace().next().unwrap();
        Self {
            descriptors: descriptors(serving).len(),
            threads: fs::read_dir(proc(serving, "task")).unwrap().count(),
            memory: resident.parse().unwrap(),
        }
    }

    /// Waits until the server, whose clients have left, holds no more than this. Nobody connects
    /// meanwhile, so that nothing is left to the next client.
    pub(crate) fn again(self, serving: &Serving) -> Self {
        let begin = Instant::now();
        loop {
            let now = Self::by(serving);
            if now.descriptors <= self.descriptors
                && now.threads <= self.threads
                && now.memory < self.memory + KEPT
            {
                return now;
            }
            assert!(begin.elapsed() < HANG, "{self:?} became {now:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Numbers of the server's descriptors.
pub(crate) fn descriptors(serving: &Serving) -> BTreeSet<usize> {
    let entries = fs::read_dir(proc(serving, "fd")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.parse().unwrap()).collect()
}

/// Number of memory mappings of files with this name.
pub(crate) fn mappings(serving: &Serving, file: &str) -> usize {
    let maps = fs::read_to_string(proc(serving, "maps")).unwrap();
    maps.lines().filter(|line| line.contains(file)).count()
}

fn proc(serving: &Serving, file: &str) -> PathBuf {
    format!("/proc/{}/{file}", serving.pid().as_raw_nonzero()).into()
}
