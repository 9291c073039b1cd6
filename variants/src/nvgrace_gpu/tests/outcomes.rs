//! Layouts and outcomes of a probe.

use super::*;

#[test]
fn layouts_around_every_rounding_edge() {
    let cases: &[(u64, Answer, Sizes)] = &[
        (96 * GIB, ABSENT, ((95 * GIB, 128 * GIB), Some((GIB, GIB)))),
        (
            96 * GIB + 300 * MIB,
            ABSENT,
            ((95 * GIB, 128 * GIB), Some((GIB + 300 * MIB, 2 * GIB))),
        ),
        (
            65 * GIB + 100 * MIB,
            ABSENT,
            ((64 * GIB, 128 * GIB), Some((GIB + 100 * MIB, 2 * GIB))),
        ),
        (65 * GIB, ABSENT, ((64 * GIB, 64 * GIB), Some((GIB, GIB)))),
        (
            65 * GIB - 4096,
            ABSENT,
            (
                (64 * GIB - 512 * MIB, 64 * GIB),
                Some((GIB + 512 * MIB - 4096, 2 * GIB)),
            ),
        ),
        (
            GIB + 512 * MIB,
            ABSENT,
            ((512 * MIB, 512 * MIB), Some((GIB, GIB))),
        ),
        (
            GIB + 512 * MIB + 4096,
            ABSENT,
            ((512 * MIB, GIB), Some((GIB + 4096, 2 * GIB))),
        ),
        (
            96 * GIB,
            Ok(0xfffe),
            ((95 * GIB, 128 * GIB), Some((GIB, GIB))),
        ),
        (184 * GIB, FIXED, ((184 * GIB, 256 * GIB), None)),
        (184 * GIB + 100, FIXED, ((184 * GIB + 100, 256 * GIB), None)),
        (128 * GIB, FIXED, ((128 * GIB, 128 * GIB), None)),
        (
            128 * GIB + 4096,
            FIXED,
            ((128 * GIB + 4096, 256 * GIB), None),
        ),
    ];
    for (size, bitmap, expected) in cases {
        let gpu = gpu(*size, *bitmap);
        assert_eq!(gpu.outcome(), Outcome::Serve, "size {size:#x}");
        assert_eq!(sizes(&gpu), *expected, "size {size:#x}");
    }
}

#[test]
fn resmem_follows_usemem_without_a_gap() {
    let gpu = gpu(96 * GIB + 300 * MIB, ABSENT);
    let layout = gpu.layout().expect("a served device");
    let resmem = layout.resmem.expect("resmem");
    assert_eq!(layout.usemem.base(), HostPhys(BASE));
    assert_eq!(resmem.base(), HostPhys(BASE + 95 * GIB));
    assert_eq!(layout.usemem.memory(), MemoryType::Cached);
    assert_eq!(resmem.memory(), MemoryType::WriteCombining);
}

#[test]
fn sizes_that_leave_nothing_fail_with_their_errno() {
    let refused = |base, size, bitmap, page, named: &str| {
        let environment = Environment {
            page,
            ..ENVIRONMENT
        };
        let device = Device {
            base: Ok(base),
            size: Ok(size),
            bitmap,
            ..GH200
        };
        match device.probe_in(environment).outcome() {
            Outcome::Fail(refusal) => {
                let text = format!("{refusal}");
                assert!(
                    text.contains(named),
                    "the message names the value {named}: {text}"
                );
                refusal.errno()
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    };
    let (four, sixty_four) = (PageShift::KIB_4, PageShift::KIB_64);
    let below_reserve = "memory size 1023 MiB + 1023 KiB + 1023 bytes is smaller";
    let below_block = "memory size 1 GiB + 511 MiB + 1023 KiB + 1023 bytes leaves";
    for (base, size, bitmap, page, errno, named) in [
        (BASE, GIB - 1, ABSENT, four, Errno::EOVERFLOW, below_reserve),
        (
            BASE,
            GIB,
            ABSENT,
            four,
            Errno::EINVAL,
            "memory size 1 GiB leaves",
        ),
        (
            BASE,
            GIB + 512 * MIB - 1,
            ABSENT,
            four,
            Errno::EINVAL,
            below_block,
        ),
        (
            BASE,
            (1 << 40) + 4096,
            FIXED,
            four,
            Errno::EOVERFLOW,
            "1 TiB + 4 KiB",
        ),
        (
            BASE,
            u64::MAX,
            FIXED,
            four,
            Errno::EOVERFLOW,
            "memory of 16777215 TiB + ",
        ),
        (
            BASE + 2048,
            96 * GIB,
            FIXED,
            four,
            Errno::EINVAL,
            "base 0x4200000800 ",
        ),
        (
            BASE + 4096,
            96 * GIB,
            FIXED,
            sixty_four,
            Errno::EINVAL,
            "base 0x4200001000 ",
        ),
    ] {
        assert_eq!(refused(base, size, bitmap, page, named), errno, "{named}");
    }
}

#[test]
fn fallback_reason() {
    let probe = |base, size| {
        Device {
            base,
            size,
            ..GH200
        }
        .probe()
    };
    let name = nvidia::property::MEM_BASE_PA;
    let declined = probe(Err(Errno::EINVAL), Ok(GIB));
    let reason = Decline::Property {
        name,
        errno: Errno::EINVAL,
    };
    assert_eq!(declined.outcome(), Outcome::Decline(reason));
    assert!(format!("{reason}").contains("nvidia,gpu-mem-base-pa can't be read (EINVAL)"));

    let name = nvidia::property::MEM_SIZE;
    let declined = probe(Ok(BASE), Err(Errno::EOVERFLOW));
    let reason = Decline::Property {
        name,
        errno: Errno::EOVERFLOW,
    };
    assert_eq!(declined.outcome(), Outcome::Decline(reason));

    assert_eq!(
        probe(Ok(BASE), Ok(0)).outcome(),
        Outcome::Decline(Decline::LinkDown)
    );
}

#[test]
fn strict_refuses_what_would_be_declined() {
    let environment = Environment {
        strict: true,
        ..ENVIRONMENT
    };
    let whole = GH200.probe_in(environment);
    assert_eq!(whole.outcome(), Outcome::Serve);
    for (device, reason) in [
        (
            Device {
                base: ABSENT,
                ..GH200
            },
            Decline::Property {
                name: nvidia::property::MEM_BASE_PA,
                errno: Errno::ENOENT,
            },
        ),
        (
            Device {
                size: Ok(0),
                ..GH200
            },
            Decline::LinkDown,
        ),
    ] {
        assert_eq!(device.probe().outcome(), Outcome::Decline(reason));
        let strict = device.probe_in(environment);
        let refusal = Refusal::Strict(reason);
        assert_eq!(strict.outcome(), Outcome::Fail(refusal));
        assert_eq!(refusal.errno(), Errno::ENODEV);
        assert_eq!(run(&strict, true, |_| [0, 0]).1, 0, "nothing to wait for");
    }
}

#[test]
fn base_page_aligned() {
    let probe = |base| {
        Device {
            base: Ok(base),
            ..GH200
        }
        .probe()
    };
    let refusal = Refusal::BaseNotPageAligned {
        base: HostPhys(BASE + 2048),
        page: Bytes(4096),
    };
    assert_eq!(probe(BASE + 2048).outcome(), Outcome::Fail(refusal));
    assert_eq!(probe(BASE + 4096).outcome(), Outcome::Serve);
}

#[test]
fn bar_within_1_tib() {
    let refused = |size| match gpu(size, FIXED).outcome() {
        Outcome::Fail(refusal) => Some(refusal),
        _ => None,
    };
    assert_eq!(refused(1 << 40), None);
    let size = (1 << 40) + 4096;
    let length = Bytes(size);
    assert_eq!(refused(size), Some(Refusal::BarTooLarge { length }));
}

#[test]
fn bar0_holds_registers() {
    let outcome = |cxl_dvsec, bar0| {
        Device {
            cxl_dvsec,
            bar0,
            ..GH200
        }
        .probe()
        .outcome()
    };
    let refused = |bar0| match outcome(ABSENT, bar0) {
        Outcome::Fail(refusal) => Some((format!("{refusal}"), refusal.errno())),
        _ => None,
    };
    let (text, errno) = refused(ABSENT).expect("BAR0 is wanted");
    assert_eq!(errno, Errno::ENOMEM);
    assert!(text.contains("no BAR0"), "{text}");
    let (text, errno) = refused(Ok(0x2_0000)).expect("a register lies outside");
    assert_eq!(errno, Errno::ENXIO);
    assert!(
        text.contains("128 KiB") && text.contains("0x200c0"),
        "{text}"
    );
    assert_eq!(refused(Ok(0x200c0)), None);
    assert_eq!(
        outcome(Ok(0x300), ABSENT),
        Outcome::Serve,
        "CXL does not poll BAR0"
    );
    let refused = gpu(GIB, ABSENT);
    assert_eq!(run(&refused, true, |_| [0, 0]).1, 0, "nothing to wait for");
}
