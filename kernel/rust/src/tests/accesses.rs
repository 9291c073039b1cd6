// SPDX-License-Identifier: GPL-2.0-only
//! Failed pages, regions and accesses.

use super::*;

/// Reports a failed page of usemem as the kernel does for a process that maps it all.
fn fail_page(state: &State, page: u64) {
    let mut bytes = 0;
    let frame = (BASE >> 12) + page;
    assert_eq!(
        unsafe { varia_locate(state, frame, at(4, 0), 95 * GIB, &mut bytes) },
        0
    );
}

#[test]
fn poison_refused() {
    let state = probed(BASE, 96 * GIB);
    fail_page(&state, 3);
    let end = |direction, offset, count| {
        let (segments, end, done) = segments(&state, direction, at(4, offset), count);
        (segments, end, done)
    };
    let memory = |len, offset| (SEGMENT_MEMORY, len, offset);
    for direction in [READ, WRITE] {
        // The bytes before the page are served and counted; from the page on there is EIO.
        let before = end(direction, 0, 1 << 20);
        assert_eq!(before, (vec![memory(0x3000, 0)], 0, 0x3000));
        let across = end(direction, 0x2ffc, 8);
        assert_eq!(across, (vec![memory(4, 0x2ffc)], 0, 4));
        for offset in [0x3000, 0x3fff] {
            let (segments, end, done) = end(direction, offset, 1);
            assert_eq!((end, done), (negative(Errno::EIO), 0), "{offset:#x}");
            assert_eq!(
                segments,
                [(SEGMENT_CHECK, 0, offset)],
                "readiness comes first"
            );
        }
        let behind = end(direction, 0x4000, 64);
        assert_eq!(behind, (vec![memory(64, 0x4000)], 0, 64));
        let route = |offset, len| unsafe {
            varia_route(&state, direction, at(4, offset), len, &mut zero())
        };
        assert_eq!(
            (route(0, 0x3000), route(0, 0x3001)),
            (ROUTE_DIRECT, ROUTE_MEMORY)
        );
    }
    assert_eq!(count(&state, "accesses_failed"), 8);
    assert_eq!(count(&state, "accesses"), count(&state, "accesses_ended"));

    let fault =
        |order, address| unsafe { varia_fault(&state, address, order, 8 * GIB, 9 * GIB, at(4, 0)) };
    assert_eq!(fault(0, 8 * GIB + 0x3000), FAULT_FAILED_PAGE);
    assert_eq!(fault(9, 8 * GIB), FAULT_FALLBACK);
    assert_eq!(fault(0, 8 * GIB + 0x2000), (BASE >> 12) as i64 + 2);
    assert_eq!(fault(9, 8 * GIB + (2 << 20)), (BASE >> 12) as i64 + 512);
    assert_eq!(count(&state, "faults_failed"), 1);
}

#[test]
fn regions_are_described_in_bytes_and_pages() {
    let state = probed(BASE, 96 * GIB + 4096);
    let mut region: Region = zero();
    assert_eq!(
        unsafe { varia_region(&state, 2, &mut region) },
        REGION_MEMORY
    );
    let expected = Region {
        base: BASE + 95 * GIB,
        length: GIB + 4096,
        size: 2 * GIB,
        sparse: Sparse {
            id: 1,
            version: 1,
            next: 0,
            nr_areas: 1,
            reserved: 0,
            offset: 0,
            size: GIB + 4096,
        },
        first_frame: (BASE + 95 * GIB) >> 12,
        frames: (GIB >> 12) + 1,
        flags: 7,
        memory: MEMORY_WRITE_COMBINING,
    };
    assert_eq!(region, expected);
    assert_eq!(unsafe { varia_region(&state, 0, &mut region) }, REGION_BASE);
}

#[test]
fn an_access_is_clipped_and_cut_into_segments() {
    let state = probed(BASE, 96 * GIB);
    let end = 95 * GIB;
    let chunk = COPY_CHUNK as u64;
    assert_eq!(
        segments(&state, READ, at(4, end - 8), chunk + 10),
        (
            vec![
                (SEGMENT_MEMORY, 8, end - 8),
                (SEGMENT_ONES, chunk, end),
                (SEGMENT_ONES, 2, end + chunk),
            ],
            0,
            chunk + 10
        )
    );
    assert_eq!(
        segments(&state, WRITE, at(4, end - 8), 40 * GIB),
        (vec![(SEGMENT_MEMORY, 8, end - 8)], 0, 33 * GIB + 8),
        "what is dropped is counted"
    );
    assert_eq!(segments(&state, WRITE, at(4, end), 5), (vec![], 0, 5));
    // A segment that is not copied under the lock of the check is checked on its own.
    let padding = (SEGMENT_ONES, 5, end);
    assert_eq!(
        segments(&state, READ, at(4, end), 5).0,
        [(SEGMENT_CHECK, 0, end), padding]
    );
    assert_eq!(
        segments(&state, READ, at(2, 8), 8).0,
        [(SEGMENT_CHECK, 0, 8), (SEGMENT_MEMORY, 8, 8)]
    );
    let memory = |index, len| unsafe { varia_route(&state, READ, at(index, 0), len, &mut zero()) };
    assert_eq!((memory(0, 1), memory(7, 1)), (ROUTE_BASE, ROUTE_BASE));
    assert_eq!((memory(2, 1), memory(4, 0)), (ROUTE_MEMORY, ROUTE_MEMORY));
    assert_eq!(
        (memory(4, 2 << 20), memory(4, (2 << 20) + 1)),
        (ROUTE_DIRECT, ROUTE_MEMORY)
    );
    let none = (vec![(SEGMENT_CHECK, 0, 0)], 0, 0);
    assert_eq!(segments(&state, READ, at(2, 0), 0), none);
    assert_eq!(
        (count(&state, "accesses"), count(&state, "accesses_ended")),
        (6, 6)
    );

    let beyond = segments(&state, READ, at(4, 128 * GIB), 1);
    assert_eq!(beyond, (vec![], negative(Errno::EINVAL), 0));
    let base = segments(&state, READ, at(0, 0), 1);
    assert_eq!(base, (vec![], negative(Errno::ENXIO), 0));
    assert_eq!(
        (count(&state, "accesses"), count(&state, "accesses_refused")),
        (6, 2)
    );
}

#[test]
fn where_a_page_of_the_users_is_missing_the_bounce_buffer_brings_it_in() {
    let state = probed(BASE, 96 * GIB);
    let mut access = Access {
        position: at(4, 0),
        count: 4 << 20,
        ..zero()
    };
    let mut segment: Segment = zero();
    let mut seen = Vec::new();
    // {how many bytes of a segment are moved}
    for moved in [8192, 0, 4096, 262_144] {
        assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 1);
        seen.push((segment.offset, segment.len, segment.direct));
        access.result = moved;
    }
    assert_eq!(
        seen,
        [
            (0, 2 << 20, 1),
            (8192, 4096, 0),
            (8192, 4096, 0),
            (12_288, 2 << 20, 1),
        ]
    );
    // What was copied directly before is not copied again.
    (access, segment) = (zero(), zero());
    (access.position, access.count, access.done) = (at(4, 0), 2 << 20, 12_288);
    let mut seen = Vec::new();
    for _ in 0..2 {
        assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 1);
        seen.push((segment.offset, segment.len, segment.direct));
        access.result = segment.len as i32;
    }
    assert_eq!(seen, [(12_288, 4096, 0), (16_384, (2 << 20) - 16_384, 1)]);
    assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 0);
    assert_eq!(access.done, 2 << 20);
    // What is not cached always goes through the bounce buffer.
    (access, segment) = (zero(), zero());
    (access.position, access.count) = (at(2, 0), 8192);
    for _ in 0..2 {
        assert_eq!(unsafe { varia_next(&state, &mut access, &mut segment) }, 1);
    }
    assert_eq!((segment.len, segment.direct), (4096, 0));
}

#[test]
fn an_access_ends_with_the_segment_that_fails_and_with_a_kill() {
    let state = probed(BASE, 96 * GIB);
    for (result, killed, errno) in [
        (negative(Errno::EFAULT), 0, Errno::EFAULT),
        (0, 1, Errno::EINTR),
    ] {
        let mut access = Access {
            position: at(4, 0),
            count: 8192,
            ..zero()
        };
        let mut segment: Segment = zero();
        let mut next = |access: &mut Access| unsafe { varia_next(&state, access, &mut segment) };
        assert_eq!((next(&mut access), next(&mut access)), (1, 1));
        (access.result, access.killed) = (result, killed);
        assert_eq!(next(&mut access), negative(errno));
    }
    assert_eq!(
        (count(&state, "accesses"), count(&state, "accesses_ended")),
        (2, 2)
    );
}

#[test]
fn configuration_space_is_kept_in_the_two_windows() {
    let state = probed(BASE, 96 * GIB);
    let mut segment: ConfigSegment = zero();
    let mut segments = Vec::new();
    let mut offset = 0x10;
    while offset < 0x30 {
        unsafe { varia_config_segment(&state, WRITE, at(7, offset), 0x30 - offset, &mut segment) };
        segments.push((offset, segment.len, segment.owner));
        offset += segment.len;
    }
    let (base, keep) = (OWNER_BASE, OWNER_KEEP);
    assert_eq!(
        segments,
        [
            (0x10, 8, base),
            (0x18, 8, keep),
            (0x20, 8, keep),
            (0x28, 8, base)
        ]
    );

    let keeps = |direction| {
        if direction == READ {
            ROUTE_LOAD
        } else {
            ROUTE_STORE
        }
    };
    let route =
        |direction, at, len| unsafe { varia_route(&state, direction, at, len, &mut zero()) };
    for direction in [READ, WRITE] {
        for (offset, len, expected) in [
            (
                0x18,
                16,
                if direction == READ {
                    ROUTE_LOAD
                } else {
                    ROUTE_SPLIT
                },
            ),
            (0x1b, 2, keeps(direction)),
            (0x20, 8, keeps(direction)),
            (0x17, 2, ROUTE_SPLIT),
            (0x20, 9, ROUTE_SPLIT),
            (0, 256, ROUTE_SPLIT),
            (0x10, 8, ROUTE_BASE),
            (0x28, 4, ROUTE_BASE),
            (0x18, 0, ROUTE_BASE),
        ] {
            let found = route(direction, at(7, offset), len);
            assert_eq!(found, expected, "{len} bytes at {offset:#x}");
        }
    }
    assert_eq!(route(READ, at(0, 0x18), 4), ROUTE_BASE);
    assert_eq!(count(&state, "config_writes"), 9);

    unsafe { varia_config_store(&state, at(7, 0x20), [0xff; 8].as_ptr(), 8) };
    let mut shown = [0; 8];
    unsafe { varia_config_load(&state, at(7, 0x20), shown.as_mut_ptr(), 8) };
    assert_eq!(u64::from_le_bytes(shown), !(128 * GIB - 1) | 0xc);
    assert_eq!(unsafe { varia_ioctl(&state, 0x3b6f) }, 0);
    unsafe { varia_config_load(&state, at(7, 0x20), shown.as_mut_ptr(), 8) };
    assert_eq!(u64::from_le_bytes(shown), 0xc);
}
