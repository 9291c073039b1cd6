//! Waits for readiness.

use super::*;

/// Time at which an operation finds the device ready or fails, from `start` on with one wait.
fn polled_from(
    gpu: &NvgraceGpu,
    wait: &mut Wait,
    start: u64,
    registers: impl Fn(u64) -> [u32; 2],
) -> (Result<(), Errno>, u64) {
    let mut now = start;
    loop {
        let sample = Sample {
            now: Monotonic(now),
            memory_enabled: true,
        };
        let generation = match gpu.ready_before(wait, sample) {
            Before::Ready => return (Ok(()), now),
            Before::Failed(errno) => return (Err(errno), now),
            Before::Poll { generation, .. } => generation,
        };
        match gpu.ready_after(wait, generation, registers(now), sample) {
            After::Ready => return (Ok(()), now),
            After::Failed(errno) => return (Err(errno), now),
            After::Sleep(Millis(ms)) => now += ms,
        }
    }
}

#[test]
fn a_wait_begins_anew_once_the_device_is_ready() {
    let cxl = |late: u64| {
        move |now| {
            let ready = status(true, true, 0);
            [if now < late { 0 } else { ready }, 0]
        }
    };
    let bar0 = |late: u64| move |now| if now < late { [0, 0] } else { [0xff, 0xff] };
    // One access that outlives the timeout: ready at 0 s, reset, polled again at 40 s.
    let (gpu, mut wait) = (gpu(96 * GIB, ABSENT), Wait::default());
    assert_eq!(polled_from(&gpu, &mut wait, 0, bar0(0)), (Ok(()), 0));
    gpu.event(Event::ResetDone);
    let late = polled_from(&gpu, &mut wait, 40_000, bar0(60_000));
    assert_eq!(late, (Ok(()), 60_000));
    gpu.event(Event::ResetDone);
    let never = polled_from(&gpu, &mut wait, 100_000, |_| [0, 0]);
    assert_eq!(never, (Err(Errno::ETIME), 131_000));
    // The same if another operation's poll has found it ready meanwhile.
    let mut wait = Wait::default();
    gpu.event(Event::ResetDone);
    let sample = |now| Sample {
        now: Monotonic(now),
        memory_enabled: true,
    };
    let first = gpu.ready_before(&mut wait, sample(0));
    assert!(matches!(first, Before::Poll { .. }), "{first:?}");
    assert_eq!(
        polled_from(&gpu, &mut Wait::default(), 0, bar0(0)).0,
        Ok(())
    );
    assert_eq!(gpu.ready_before(&mut wait, sample(20_000)), Before::Ready);
    gpu.event(Event::ResetDone);
    let late = polled_from(&gpu, &mut wait, 40_000, bar0(60_000));
    assert_eq!(late, (Ok(()), 60_000));

    let (gpu, mut wait) = (cxl_gpu(), Wait::default());
    assert_eq!(polled_from(&gpu, &mut wait, 0, cxl(0)), (Ok(()), 0));
    gpu.event(Event::ResetDone);
    let late = polled_from(&gpu, &mut wait, 40_000, cxl(41_000));
    assert_eq!(late, (Ok(()), 41_000));
}

#[test]
fn bar0_is_polled_for_30_s_and_not_after_the_last_sleep() {
    let (result, time, polls) = run(&gpu(96 * GIB, ABSENT), true, |_| [0xff, 0]);
    assert_eq!((result, time), (Err(Errno::ETIME), 31_000));
    assert_eq!(polls, (0..=30).collect::<Vec<_>>());
}

#[test]
fn both_bar0_registers_must_read_0xff() {
    for (values, expected) in [
        ([0xff, 0xff], Ok(())),
        ([0, 0xff], Err(Errno::ETIME)),
        ([0xff, 0xffff_ffff], Err(Errno::ETIME)),
        ([0x1ff, 0xff], Err(Errno::ETIME)),
    ] {
        assert_eq!(
            run(&gpu(96 * GIB, ABSENT), true, |_| values).0,
            expected,
            "{values:x?}"
        );
    }
}

#[test]
fn a_late_device_becomes_ready_and_stays_so_until_a_reset() {
    let gpu = gpu(96 * GIB, ABSENT);
    let late = |ms| if ms < 7500 { [0, 0] } else { [0xff, 0xff] };
    assert_eq!(run(&gpu, true, late).1, 8000);
    assert_eq!(
        run(&gpu, true, |_| [0, 0]),
        (Ok(()), 0, vec![]),
        "no poll without a reset"
    );
    gpu.event(Event::ResetDone);
    assert_eq!(run(&gpu, true, |_| [0, 0]).0, Err(Errno::ETIME));
    assert_eq!(
        run(&gpu, true, |_| [0, 0]).0,
        Err(Errno::ETIME),
        "a failed check keeps the request"
    );
}

#[test]
fn bar0_is_not_read_while_memory_is_disabled() {
    let gpu = gpu(96 * GIB, ABSENT);
    assert_eq!(
        run(&gpu, false, |_| [0xff, 0xff]),
        (Err(Errno::EIO), 0, vec![])
    );
    assert_eq!(run(&gpu, true, |_| [0xff, 0xff]).0, Ok(()));
    assert_eq!(
        run(&gpu, false, |_| [0, 0]).0,
        Ok(()),
        "checked only after a reset"
    );
}

#[test]
fn honour_memory_enable() {
    let environment = Environment {
        honour_memory_enable: true,
        ..ENVIRONMENT
    };
    let gpu = GH200.probe_in(environment);
    assert_eq!(run(&gpu, true, |_| [0xff, 0xff]).0, Ok(()));
    assert_eq!(run(&gpu, false, |_| [0xff, 0xff]).0, Err(Errno::EIO));
}

/// A CXL status with this timeout encoding.
const fn status(valid: bool, active: bool, timeout: u32) -> u32 {
    valid as u32 | (active as u32) << 1 | timeout << 13
}

#[test]
fn cxl_waits_1_s_for_valid_then_as_long_as_the_device_says() {
    for (encoded, seconds) in [
        (0, 1),
        (1, 4),
        (2, 16),
        (3, 64),
        (4, 256),
        (5, 256),
        (7, 256),
    ] {
        let (result, time, _) = run(&cxl_gpu(), true, |_| [status(true, false, encoded), 0]);
        assert_eq!(
            (result, time),
            (Err(Errno::ETIME), (seconds + 1) * 1000),
            "encoding {encoded}"
        );
    }
    let (result, time, polls) = run(&cxl_gpu(), true, |_| [status(false, true, 4), 0]);
    assert_eq!(
        (result, time, polls),
        (Err(Errno::ETIME), 2000, vec![0, 1, 2])
    );
    let late = |ms| {
        [
            if ms < 1000 {
                0
            } else {
                status(true, ms >= 3000, 1)
            },
            0,
        ]
    };
    assert_eq!(
        run(&cxl_gpu(), true, late),
        (Ok(()), 3000, vec![0, 1, 2, 3])
    );
}

#[test]
fn cxl_errors_come_before_the_memory_enable_check() {
    assert_eq!(
        run(&cxl_gpu(), false, |_| [u32::MAX, 0]).0,
        Err(Errno::ENODEV)
    );
    assert_eq!(run(&cxl_gpu(), false, |_| [0, 0]).0, Err(Errno::ETIME));
    assert_eq!(
        run(&cxl_gpu(), false, |_| [status(true, true, 0), 0]).0,
        Err(Errno::EIO)
    );
}

#[test]
fn a_look_reads_the_methods_registers() {
    let poll = |gpu: &NvgraceGpu| {
        let sample = Sample {
            now: Monotonic(0),
            memory_enabled: true,
        };
        match gpu.ready_before(&mut Wait::default(), sample) {
            Before::Poll { registers, .. } => registers,
            other => panic!("expected a poll, got {other:?}"),
        }
    };
    use varia_variant::Register::{Bar0, Config};
    assert_eq!(
        poll(&gpu(96 * GIB, ABSENT)),
        [Some(Bar0(0x1498)), Some(Bar0(0x200bc))]
    );
    assert_eq!(poll(&cxl_gpu()), [Some(Config(0x31c)), None]);
}

#[test]
fn reset_generation() {
    for gpu in [gpu(96 * GIB, ABSENT), cxl_gpu()] {
        let ready = if gpu.method() == Method::Bar0 {
            [0xff, 0xff]
        } else {
            [3, 0]
        };
        let resets = core::cell::Cell::new(0);
        // Each of the first five polls is raced by a reset; the sixth is not.
        let (result, time, polls) = run(&gpu, true, |_| {
            if resets.get() < 5 {
                resets.set(resets.get() + 1);
                gpu.event(Event::ResetDone);
            }
            ready
        });
        assert_eq!(
            (result, time, polls.len()),
            (Ok(()), 0, 6),
            "again at once, never EAGAIN"
        );
        assert!(matches!(
            gpu.ready_before(
                &mut Wait::default(),
                Sample {
                    now: Monotonic(0),
                    memory_enabled: true
                }
            ),
            Before::Ready
        ));
    }
}
