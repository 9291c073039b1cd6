//! Reproducers of reports in docs/upstream: each shows a fault of the original driver, and what ours
//! does instead.

use std::sync::Arc;
use std::time::Duration;

use varia_agent::applets::dma_buf::Shared;
use varia_agent::applets::vfio_read::Seen;
use varia_differential::op::Protection;
use varia_differential::{Answer, Op};
use varia_lab::GuestCommand;
use varia_silicon::{ManualClock, Options, Readiness};
use varia_spec::Errno;
use varia_spec::pci::header;
use varia_spec::vfio::RegionIndex;
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host};

use super::{KIB, MIB, RESMEM, USEMEM, share};

/// The GPU whose resmem has padding.
const PADDED: usize = 0;
/// The GPU of [`late`].
const LATE: usize = 2;
/// The GPU of [`every_second_poll`].
const FLICKERING: usize = 3;
const WARM_UP: Duration = Duration::from_secs(1);

/// A GPU that is ready once its clock has moved on after a reset, and the clock.
pub(super) fn late() -> (Options, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let options = Options {
        memory: Some(USEMEM + RESMEM),
        readiness: Readiness::After(WARM_UP),
        clock: Arc::clone(&clock) as Arc<_>,
        ..Options::default()
    };
    (options, clock)
}

/// A GPU on which a reset overtakes every user who polls twice.
pub(super) fn every_second_poll() -> Options {
    Options {
        memory: Some(32 * MIB),
        readiness: Readiness::EverySecondPoll,
        ..Options::default()
    }
}

/// Answers of a GPU's driver to operations.
fn answers(host: &Host, gpu: usize, ops: &[Op]) -> Result<Vec<Answer>> {
    let ops = serde_json::to_vec(ops).expect("operations are JSON");
    let command = GuestCommand::applet("differential", &[host.address(gpu), "listed"]).input(ops);
    let output = host.vm.run(&command)?.checked()?;
    let mut rest = output.stdout.as_slice();
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let (answer, behind) = postcard::take_from_bytes(rest).expect("answers");
        answers.push(answer);
        rest = behind;
    }
    Ok(answers)
}

/// {count or error number, bytes by which the file position advances}
fn counts(host: &Host, gpu: usize, op: Op) -> Result<(std::result::Result<u64, i32>, u64)> {
    let answers = answers(host, gpu, &[op])?;
    let [answer] = &answers[..] else {
        panic!("one answer: {answers:?}");
    };
    Ok((answer.result, answer.advance))
}

/// A read over the end of resmem's memory: the rest of the BAR reads as ones, in usemem too.
pub(super) fn resmem_count(host: &Host, driver: Driver) -> Result<()> {
    let read = |region: RegionIndex, offset| Op::Read {
        region: region.0,
        offset,
        len: 8,
    };
    let seen = counts(host, PADDED, read(RegionIndex::BAR2, RESMEM - 4))?;
    let expected = match driver {
        Driver::Original => (Ok(4), 0),
        _ => (Ok(8), 8),
    };
    assert_eq!(seen, expected, "{driver:?}, over the end");
    let seen = counts(host, PADDED, read(RegionIndex::BAR2, 0))?;
    let expected = match driver {
        Driver::Original => (Ok(8), 0),
        _ => (Ok(8), 8),
    };
    assert_eq!(seen, expected, "{driver:?}, at the beginning");
    // the same driver's usemem
    let seen = counts(host, PADDED, read(RegionIndex::BAR4, 0))?;
    assert_eq!(seen, (Ok(8), 8), "{driver:?}, usemem");
    Ok(())
}

/// A write over both fake BARs, and what each shows after it: the mask of its size, or what it held.
pub(super) fn config_write(host: &Host, driver: Driver) -> Result<()> {
    let [first, second] = [header::BASE_ADDRESS_2, header::BASE_ADDRESS_4];
    let write = |offset: u16, data: Vec<u8>| Op::Write {
        region: RegionIndex::CONFIG.0,
        offset: offset.into(),
        data,
    };
    let read = |offset: u16| Op::Read {
        region: RegionIndex::CONFIG.0,
        offset: offset.into(),
        len: 8,
    };
    let ops = [
        write(first, vec![0; 8]),
        write(second, vec![0; 8]),
        read(second),
        write(first, vec![0xff; 16]),
        read(first),
        read(second),
    ];
    let answers = answers(host, PADDED, &ops)?;
    let [_, _, old, both, in_first, in_second] = &answers[..] else {
        panic!("{driver:?}: {answers:?}");
    };
    let whole = match driver {
        Driver::Original => 8,
        _ => 16,
    };
    assert_eq!(
        (both.result, both.advance),
        (Ok(whole), whole),
        "{driver:?}"
    );
    let is_mask = |answer: &Answer| answer.data.ends_with(&[0xff; 4]);
    assert!(is_mask(in_first), "{driver:?}: {in_first:?}");
    match driver {
        Driver::Original => assert_eq!(in_second.data, old.data, "{driver:?}"),
        _ => assert!(is_mask(in_second), "{driver:?}: {in_second:?}"),
    }
    Ok(())
}

/// Private mappings. They are not touched: with the original, that is a BUG of the kernel.
pub(super) fn private_mapping(host: &Host, driver: Driver) -> Result<()> {
    for write in [false, true] {
        let map = Op::MapPrivate {
            region: RegionIndex::BAR4.0,
            offset: 0,
            protection: Protection {
                read: true,
                write,
                execute: false,
            },
        };
        let (result, _) = counts(host, PADDED, map)?;
        match driver {
            Driver::Original => assert!(result.is_ok(), "{driver:?}: {result:?}"),
            _ => assert_eq!(result, Err(Errno::EINVAL.get()), "{driver:?}, {write}"),
        }
    }
    Ok(())
}

/// A read that a reset overtakes.
pub(super) fn again(host: &Host, driver: Driver) -> Result<()> {
    assert_eq!(host.bind(FLICKERING, driver)?, Ok(()), "{driver:?}");
    let (region, offset) = (RegionIndex::BAR4.0.to_string(), 0.to_string());
    let task = host.start("vfio-read", &[host.address(FLICKERING), &region, &offset])?;
    let seen: Seen = host.answer(&task)?;
    let expected = match driver {
        Driver::Original => Some(Errno::EAGAIN.get()),
        _ => None,
    };
    assert_eq!(seen.errno, expected, "{driver:?}: {seen:?}");
    Ok(())
}

/// Right after a reset, an importer of a dma-buf gets memory that is not ready: vfio-pci-core gives
/// the dma-buf back before a variant driver can look. Ours can't change that.
pub(super) fn dma_buf_after_reset(host: &Host, driver: Driver, clock: &ManualClock) -> Result<()> {
    clock.advance(WARM_UP);
    assert_eq!(host.bind(LATE, driver)?, Ok(()), "{driver:?}");
    let silicon = host.silicon(LATE);
    let polls = silicon.readiness_polls();
    let seen = share(host, LATE, RegionIndex::BAR4.0, 0, 4 * KIB)?;
    let Shared::Exported { after_reset, .. } = &seen else {
        panic!("{driver:?}: {seen:?}");
    };
    assert!(after_reset.is_ok(), "{driver:?}: {seen:?}");
    assert!(!silicon.is_ready(), "{driver:?}: the reset is not seen");
    assert_eq!(silicon.readiness_polls(), polls, "{driver:?}: a check");
    Ok(())
}
