//! Mappings: what they share, their bounds, and faults that come back as errors.

use std::fs;

use varia_spec::errno::Errno;
use varia_sys::mapping::{Access, Mapping, Share};
use varia_sys::memory::SharedMemory;

fn memory(len: u64) -> SharedMemory {
    SharedMemory::anonymous("test", len).unwrap()
}

#[test]
fn a_shared_mapping_and_the_memory_see_each_others_bytes() {
    let m = memory(8192);
    let map = Mapping::new(&m, 4096, 4096, Access::ReadWrite, Share::Shared).unwrap();
    let data: Vec<u8> = (1..=100).collect();
    for offset in 0..16 {
        map.write(offset, &data).unwrap();
        let mut seen = vec![0; 100];
        m.read(4096 + offset as u64, &mut seen).unwrap();
        assert_eq!(seen, data, "offset {offset}");
        let mut seen = vec![0; 100];
        map.read(offset, &mut seen).unwrap();
        assert_eq!(seen, data, "offset {offset}");
        m.fill(0, 8192, 0).unwrap();
    }
}

#[test]
fn a_private_mapping_keeps_its_writes() {
    let m = memory(4096);
    let map = Mapping::new(&m, 0, 4096, Access::ReadWrite, Share::Private).unwrap();
    map.write(0, b"mine").unwrap();
    let mut b = [0; 4];
    m.read(0, &mut b).unwrap();
    assert_eq!(b, [0; 4]);
}

#[test]
fn accesses_outside_and_writes_to_a_read_only_mapping_are_refused() {
    let m = memory(4096);
    let map = Mapping::new(&m, 0, 4096, Access::ReadOnly, Share::Shared).unwrap();
    assert_eq!(map.read(4095, &mut [0; 2]), Err(Errno::EINVAL));
    assert_eq!(map.read(usize::MAX, &mut [0; 2]), Err(Errno::EINVAL));
    assert_eq!(map.touch(4096), Err(Errno::EINVAL));
    assert_eq!(map.peek(1, &mut [0; 4096]), Err(Errno::EINVAL));
    assert_eq!(map.write(0, &[1]), Err(Errno::EACCES));
    assert_eq!(map.poke(0, &[1]), Err(Errno::EACCES));
}

#[test]
fn an_empty_or_unaligned_or_absurd_mapping_is_refused() {
    let m = memory(8192);
    let map = |offset, len| Mapping::new(&m, offset, len, Access::ReadOnly, Share::Shared);
    assert_eq!(map(0, 0).unwrap_err(), Errno::EINVAL);
    assert_eq!(map(1, 4096).unwrap_err(), Errno::EINVAL);
    assert_eq!(map(0, u64::MAX).unwrap_err(), Errno::EINVAL);
}

#[test]
fn a_page_that_is_gone_gives_efault_and_no_signal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mem");
    let m = SharedMemory::create_file(&path, 12288).unwrap();
    let map = Mapping::new(&m, 0, 12288, Access::ReadWrite, Share::Shared).unwrap();
    m.fill(0, 12288, 7).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();

    assert_eq!(map.touch(4095), Ok(7));
    assert_eq!(map.touch(4096), Err(Errno::EFAULT));
    let mut buf = [0; 8192];
    assert_eq!(map.peek(0, &mut buf), Ok(4096));
    assert!(buf[..4096].iter().all(|b| *b == 7));
    assert_eq!(map.peek(4096, &mut buf), Err(Errno::EFAULT));
    assert_eq!(map.poke(0, &[9; 8192]), Ok(4096));
    assert_eq!(map.poke(4096, &[9]), Err(Errno::EFAULT));
    assert_eq!(map.touch(0), Ok(9));
}

#[test]
fn peek_and_poke_copy_more_than_a_pipe_holds() {
    let m = memory(1 << 20);
    let map = Mapping::new(&m, 0, 1 << 20, Access::ReadWrite, Share::Shared).unwrap();
    let data: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(map.poke(13, &data), Ok(data.len()));
    let mut seen = vec![0; data.len()];
    assert_eq!(map.peek(13, &mut seen), Ok(data.len()));
    assert!(seen == data);
}
