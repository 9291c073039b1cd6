//! Time of an inventory and of the choice of drivers: `cargo bench -p varia-linux`.
//!
//! Each figure is the processor time of this thread, on which other programs have little influence:
//! the median of several runs, with the fastest and the slowest. A figure above its limit fails the
//! run.

use std::process::ExitCode;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use varia_linux::Tree;
use varia_linux::capture::{self, Options};
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::matching::{Aliases, Modalias};
use varia_silicon::Machine;
use varia_silicon::machine::GH200_X4;

const TURNS: usize = 15;
/// Functions of the machine: four GPUs, their ports, and drives.
const FUNCTIONS: usize = 4096;
const INVENTORY: Duration = Duration::from_millis(100);
/// Limit for reading every function in full, which only `capture` and `list --facts` do.
const INVENTORY_OF_ALL: Duration = Duration::from_millis(500);
const MATCHING: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let machine = Machine {
        drives: FUNCTIONS as u32 - 8,
        ..GH200_X4
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    machine.write(folder.path()).expect("a machine's files");
    let archive = folder.path().join("host.tar");
    let tree = Tree::open(folder.path()).expect("a host");
    capture::capture(&tree, &archive, Options::default()).expect("a capture");

    let mut good = true;
    for (what, path, extent, limit) in [
        (
            "inventory, captured host in a folder",
            folder.path(),
            Extent::Served,
            INVENTORY,
        ),
        (
            "inventory, captured host in a file",
            &archive,
            Extent::Served,
            INVENTORY,
        ),
        (
            "inventory of every function, in a file",
            &archive,
            Extent::All,
            INVENTORY_OF_ALL,
        ),
    ] {
        good &= measure(what, limit, || {
            let tree = Tree::open(path).expect("a host");
            let inventory = Inventory::of(&tree, extent).expect("an inventory");
            assert_eq!(inventory.served().len(), 4);
        });
    }

    let text = aliases();
    let devices: Vec<Modalias> = (0..1000_u32).map(device).collect();
    let what = format!(
        "{} MB of modules.alias against 1,000 devices",
        text.len() / 1_000_000
    );
    good &= measure(&what, MATCHING, || {
        let mut all = Aliases::default();
        all.add(text.as_bytes());
        let chosen = devices.iter().map(|device| all.best(device).module);
        assert_eq!(chosen.filter(|module| module != "vfio-pci").count(), 100);
    });
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Prints the time of several runs; returns true if the limit holds.
fn measure(what: &str, limit: Duration, run: impl Fn()) -> bool {
    let mut times: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let begin = processor_time();
            run();
            processor_time() - begin
        })
        .collect();
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (fastest, median, slowest) = (times[0], times[TURNS / 2], times[TURNS - 1]);
    let good = median < limit;
    println!(
        "{what}: {:.1} ms ({:.1} to {:.1}), limit {:.0} ms{}",
        ms(median),
        ms(fastest),
        ms(slowest),
        ms(limit),
        if good { "" } else { ": TOO SLOW" }
    );
    good
}

/// Lines as in a distribution's kernel, one in a hundred for a VFIO driver.
fn aliases() -> String {
    let line = |index: u32| {
        let (vendor, device) = (0x1000 + index % 97, index);
        if index.is_multiple_of(100) {
            format!("alias vfio_pci:v{vendor:08X}d{device:08X}sv*sd*bc*sc*i* driver_{index}_vfio\n")
        } else {
            format!("alias pci:v{vendor:08X}d{device:08X}sv*sd*bc*sc*i* driver_{index}\n")
        }
    };
    (0..40_000).map(line).collect()
}

/// A device; every tenth has a VFIO driver.
fn device(index: u32) -> Modalias {
    let index = index * 10;
    let text = format!(
        "pci:v{:08X}d{index:08X}sv00001000sd00000001bc01sc08i02",
        0x1000 + index % 97
    );
    text.parse().expect("a modalias")
}
