//! Devices with injected faults, as a client of the server sees them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use varia_spec::Errno;
use varia_spec::vfio::region_flags;

use crate::process::{Attached, Folder, HANG, Serving};

const MIB: u64 = 1 << 20;
const CONFIG: u32 = 7;
/// Offset of revision and class; the core defines the ids, which stay.
const CLASS: u64 = 8;

fn serving(args: &[&str]) -> (Folder, Serving) {
    let folder = Folder::new();
    let serving = Serving::start(&folder, args);
    (folder, serving)
}

/// The word at an offset, or the error of reading it.
fn word(client: &mut Attached, index: u32, at: u64) -> Result<u32, Option<Errno>> {
    let mut bytes = [0; 4];
    match client.region_read(index, at, &mut bytes) {
        Ok(_) => Ok(u32::from_le_bytes(bytes)),
        Err(error) => Err(error.errno()),
    }
}

#[test]
fn readiness_that_is_lost_after_a_reset_is_a_timeout() {
    // two resets are the probe's, the third is that of open
    let fault = ["cxl", "--memory", "1G", "--fault", "lost-after-resets=4"];
    let (_folder, serving) = serving(&fault);
    let mut client = serving.client();
    assert_eq!(word(&mut client, 4, 0), Ok(0));
    client.reset().unwrap();
    assert_eq!(word(&mut client, 4, 0), Err(Some(Errno::ETIME)));
}

#[test]
fn a_poisoned_page_can_not_be_read_or_mapped_and_its_neighbours_can_be_read() {
    let fault = ["gb200", "--memory", "1G", "--fault", "poisoned-page=1M"];
    let (_folder, serving) = serving(&fault);
    let mut client = serving.client();
    assert_eq!(word(&mut client, 4, MIB - 4), Ok(0));
    assert_eq!(word(&mut client, 4, MIB), Err(Some(Errno::EIO)));
    assert_eq!(word(&mut client, 4, MIB + 4096), Ok(0));
    let region = client.region_info(4).unwrap();
    assert_eq!(region.info.flags & region_flags::MMAP, 0);
}

/// A device that disappears after some seconds, attached before; `None` if the machine was too
/// slow.
fn seen_in_time(seconds: u64) -> Option<(Folder, Serving, Attached)> {
    let begin = Instant::now();
    let fault = format!("gone-after={seconds}");
    let (folder, serving) = serving(&["gb200", "--memory", "1G", "--fault", &fault]);
    let mut client = serving.client();
    let seen = word(&mut client, 4, 0);
    if begin.elapsed() >= Duration::from_secs(seconds) {
        return None;
    }
    assert_eq!(seen, Ok(0), "gone before {seconds} s have passed");
    Some((folder, serving, client))
}

#[test]
fn a_device_that_goes_reads_as_ones() {
    let (_folder, _serving, mut client) = [4, 16, 64, 256, 1024]
        .into_iter()
        .find_map(seen_in_time)
        .expect("a server that answers within 1024 s");
    let deadline = Instant::now() + 2 * HANG;
    while word(&mut client, CONFIG, CLASS) != Ok(u32::MAX) {
        assert!(Instant::now() < deadline, "it stays");
        sleep(Duration::from_millis(50));
    }
    assert_eq!(word(&mut client, 0, 0x1498), Ok(u32::MAX));
    assert_eq!(word(&mut client, 4, 0), Err(Some(Errno::EIO)));
    assert!(client.reset().is_err());
    assert_eq!(
        word(&mut client, CONFIG, CLASS),
        Ok(u32::MAX),
        "it still serves"
    );
}

#[test]
fn a_size_of_zero_leaves_the_physical_bars() {
    let (_folder, serving) = serving(&["gh200", "--fault", "size-zero"]);
    assert_eq!(serving.client().region_info(4).unwrap().info.size, 32 * MIB);
}

#[test]
fn faults_of_memory_that_there_is_not() {
    use crate::process::{ended, varia};
    let refused = |args: &[&str], named: &[&str]| {
        let mut command = varia(["inspect"]);
        command.args(args);
        ended(command).refused(named);
    };
    refused(
        &["gb200", "--memory", "1G", "--fault", "poisoned-page=1G"],
        &["0x40000000", "smaller offset"],
    );
    refused(
        &["gb200", "--fault", "poisoned-page"],
        &["poisoned-page=OFFSET"],
    );
    refused(
        &["gb200", "--fault", "poisoned-page=here"],
        &["here", "offset"],
    );
    refused(
        &["gb200", "--fault", "gone-after=soon"],
        &["soon", "seconds"],
    );
    refused(&["nic", "--memory", "1G"], &["nic", "no coherent memory"]);
    refused(&["nic", "--svg", "/dev/null"], &["nic", "leave out --svg"]);
}

#[test]
fn a_network_card_is_served_by_the_core_alone() {
    let (_folder, serving) = serving(&["nic"]);
    let mut client = serving.client();
    assert_eq!(word(&mut client, CONFIG, 0), Ok(0x0e1c_1234));
    let sizes: Vec<_> = (0..6)
        .map(|bar| client.region_info(bar).unwrap().info.size)
        .collect();
    assert_eq!(sizes, [128 << 10, 64 << 10, 32, 16 << 10, MIB, 0]);
}
