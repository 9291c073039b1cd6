//! Reads and writes of the memory regions, against the bytes that the host has.

use varia_spec::{Errno, vfio::RegionIndex};

use crate::machine::{Attached, BAR2, BAR4, CONFIG, Machine, SMALL, Wanted};

/// A GH200 whose two memory regions both end inside their BAR.
fn small() -> (Machine, Attached) {
    let machine = Machine::small();
    let client = machine.attach();
    (machine, client)
}

#[test]
fn a_write_of_any_length_and_alignment_reaches_the_hosts_memory() {
    let (machine, mut client) = small();
    for (index, base, _, _) in machine.memory_regions() {
        for start in 0..9 {
            for len in 1..=17_usize {
                let at = 4096 * (16 * len as u64 + start) + start;
                let data: Vec<u8> = (1..=len as u8).map(|i| i ^ (start as u8) << 4).collect();
                client.write(index, at, &data);
                let host: [u8; 40] = machine.host(base + at - 8);
                assert_eq!(host[..8], [0; 8], "before {at:#x}");
                assert_eq!(host[8..8 + len], data, "{len} bytes at {at:#x}");
                assert_eq!(host[8 + len..][..8], [0; 8], "behind {at:#x}");
                let mut back = vec![0; len];
                assert_eq!(client.region_read(index, at, &mut back).unwrap(), len);
                assert_eq!(back, data, "{len} bytes at {at:#x}");
            }
        }
    }
}

#[test]
fn a_long_access_is_whole() {
    let (machine, mut client) = small();
    let mut rng = fastrand::Rng::with_seed(7);
    let data: Vec<u8> = (0..(3 << 20) + 5).map(|_| rng.u8(..)).collect();
    for (index, base, _, _) in machine.memory_regions() {
        client.write(index, 12345, &data);
        let mut host = vec![0; data.len()];
        let memory = &machine.silicon.coherent_memory().unwrap().bytes;
        memory.read(base + 12345, &mut host).unwrap();
        assert!(host == data);
        let mut back = vec![0; data.len()];
        assert_eq!(
            client.region_read(index, 12345, &mut back).unwrap(),
            data.len()
        );
        assert!(back == data);
    }
}

#[test]
fn an_access_across_the_memorys_end_reaches_it_up_to_there_and_reads_ones_behind() {
    let (machine, mut client) = small();
    for (index, base, length, size) in machine.memory_regions() {
        assert!(length < size, "region {index} ends inside its BAR");
        client.write(index, length - 3, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(machine.host::<3>(base + length - 3), [1, 2, 3]);
        let read: [u8; 8] = client.read(index, length - 3);
        assert_eq!(read, [1, 2, 3, 0xff, 0xff, 0xff, 0xff, 0xff]);
    }
    // usemem ends where resmem begins, and what was dropped did not land there
    let usemem = machine.memory_regions()[1];
    assert_eq!(machine.host::<8>(usemem.2), [0; 8]);
}

#[test]
fn beyond_the_memory_reads_are_ones_and_writes_are_counted_and_dropped() {
    let (machine, mut client) = small();
    for (index, _, length, size) in machine.memory_regions() {
        for at in [length, length + 1, size - 16] {
            client.write(index, at, &[0x5a; 16]);
            assert_eq!(client.read(index, at), [0xff; 16], "{at:#x}");
        }
    }
    let usemem = machine.memory_regions()[1];
    assert_eq!(machine.host::<32>(usemem.2), [0; 32], "resmem's start");
    assert_eq!(machine.host::<16>(SMALL - 16), [0; 16], "resmem's end");
}

#[test]
fn an_access_across_the_bars_end_is_clipped_and_one_from_there_is_refused() {
    let (machine, mut client) = small();
    for (index, _, _, size) in machine.memory_regions() {
        let mut bytes = [0; 8];
        assert_eq!(client.region_read(index, size - 3, &mut bytes).unwrap(), 3);
        assert_eq!(client.try_write(index, size - 1, &[1; 8]), Ok(1));
        for at in [size, size + 1, 1 << 40, u64::MAX] {
            assert_eq!(client.try_read(index, at), Err(Errno::EINVAL), "{at:#x}");
            assert_eq!(client.try_write(index, at, &[1]), Err(Errno::EINVAL));
            // with nothing to transfer, too
            assert_eq!(client.try_write(index, at, &[]), Err(Errno::EINVAL));
        }
        assert_eq!(client.try_write(index, size - 1, &[]), Ok(0));
        assert_eq!(client.region_read(index, 0, &mut []).unwrap(), 0);
    }
}

#[test]
fn where_the_memory_fills_its_bar_nothing_lies_behind() {
    let machine = Wanted::of("gh200", 2 << 30).serve();
    let mut client = machine.attach();
    for (index, base, length, size) in machine.memory_regions() {
        assert_eq!(length, size);
        client.write(index, size - 4, &[9, 8, 7, 6]);
        assert_eq!(machine.host::<4>(base + size - 4), [9, 8, 7, 6]);
        assert_eq!(client.try_write(index, size - 2, &[1; 4]), Ok(2));
        assert_eq!(client.try_read(index, size), Err(Errno::EINVAL));
    }
}

#[test]
fn what_the_host_writes_is_read_through_the_bars() {
    let (machine, mut client) = small();
    let memory = &machine.silicon.coherent_memory().unwrap().bytes;
    for (index, base, length, _) in machine.memory_regions() {
        for at in [0, 4097, length - 4] {
            let word = (0xcafe_0000 | index).to_le_bytes();
            memory.write(base + at, &word).unwrap();
            assert_eq!(client.read(index, at), word);
        }
    }
}

#[test]
fn two_regions_do_not_share_a_byte() {
    let (machine, mut client) = small();
    client.write(BAR2, 0, &[2; 4]);
    client.write(BAR4, 0, &[4; 4]);
    assert_eq!(client.read(BAR2, 0), [2; 4]);
    assert_eq!(client.read(BAR4, 0), [4; 4]);
    let length = machine.memory_regions()[1].2;
    assert_eq!(machine.host::<4>(0), [4; 4]);
    assert_eq!(machine.host::<4>(length), [2; 4]);
}

/// A seeded run of accesses of both regions, beside a model of what the memory holds.
#[test]
fn random_accesses_agree_with_a_model() {
    const WINDOW: u64 = 64;
    let (machine, mut client) = small();
    let regions = machine.memory_regions();
    let mut rng = fastrand::Rng::with_seed(11);
    // for each region, the bytes around the memory's end and around the BAR's
    let mut model = vec![[0_u8; WINDOW as usize]; regions.len()];
    for _ in 0..4000 {
        let which = rng.usize(..regions.len());
        let (index, base, length, size) = regions[which];
        let from_end = if rng.bool() { length } else { size };
        let at = from_end - WINDOW + rng.u64(..WINDOW + 8);
        let mut data = vec![0; rng.usize(..24)];
        rng.fill(&mut data);
        let room = size.saturating_sub(at).min(data.len() as u64) as usize;
        let expected = if at >= size {
            Err(Errno::EINVAL)
        } else {
            Ok(room)
        };
        let in_memory = |i: usize| {
            let position = at + i as u64;
            (position < length).then(|| (position + WINDOW - length) as usize)
        };
        if rng.bool() {
            assert_eq!(client.try_write(index, at, &data), expected);
            for (i, byte) in data[..room.min(data.len())].iter().enumerate() {
                if let Some(slot) = in_memory(i) {
                    model[which][slot] = *byte;
                }
            }
        } else {
            let read = client.region_read(index, at, &mut data);
            assert_eq!(read.map_err(|e| e.errno().unwrap()), expected);
            for (i, byte) in data[..expected.unwrap_or(0)].iter().enumerate() {
                let known = in_memory(i).map_or(0xff, |slot| model[which][slot]);
                assert_eq!(*byte, known, "byte {i} of region {index} at {at:#x}");
            }
        }
        assert_eq!(machine.host(base + length - WINDOW), model[which]);
    }
}

#[test]
fn configuration_space_ends_at_4096() {
    let (_machine, mut client) = small();
    assert_eq!(client.try_read(CONFIG, 4092), Ok(4));
    for at in [4093, 4096, u64::MAX] {
        assert_eq!(client.try_read(CONFIG, at), Err(Errno::EFAULT), "{at:#x}");
        assert_eq!(client.try_write(CONFIG, at, &[0; 4]), Err(Errno::EFAULT));
    }
}

#[test]
fn poison_refused() {
    let failed = 0x3000;
    let mut wanted = Wanted::of("gb200", SMALL);
    wanted.silicon.faults.poisoned_page = Some(failed + 7);
    let machine = wanted.serve();
    let _client = machine.attach();
    let (index, eio) = (RegionIndex::BAR4, Err(Errno::EIO));
    let read = |at, len: usize| {
        let mut data = vec![0x55; len];
        let count = machine.endpoint.read(index, at, &mut data)?;
        Ok(data[..count].to_vec())
    };
    let write = |at, data: &[u8]| machine.endpoint.write(index, at, data);
    // The bytes before the page are served and counted; from the page on there is EIO.
    assert_eq!(write(failed - 4, &[1, 2, 3, 4, 5, 6, 7, 8]), Ok(4));
    assert_eq!(read(failed - 4, 8), Ok(vec![1, 2, 3, 4]));
    assert_eq!(read(0, 1 << 20).map(|data| data.len()), Ok(failed as usize));
    for at in [failed, failed + 4095] {
        assert_eq!(
            (read(at, 1), write(at, &[9]).map(|_| vec![])),
            (eio.clone(), eio.clone())
        );
    }
    assert_eq!(write(failed + 4096, &[9; 16]), Ok(16));
    assert_eq!(read(failed + 4096, 16), Ok(vec![9; 16]));
}
