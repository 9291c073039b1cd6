//! Files behind the user's mappings: what the process holds for them, and what a device reaches.

use std::fs::{File, read_dir, read_link, read_to_string};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use varia_core::{Dma, DmaAccess, Errno};
use vm_memory::{Bytes, GuestAddress};

const BOTH: DmaAccess = DmaAccess {
    read: true,
    write: true,
};
const READ: DmaAccess = DmaAccess {
    read: true,
    write: false,
};

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// A memfd of `len` bytes. No other test has one of this name.
fn memory(name: &str, len: u64) -> File {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

fn lent(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

/// The same file, opened another time.
fn opened(file: &File, flags: OFlags) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Descriptors and memory mappings of this process that belong to the memfd `name`.
fn held(name: &str) -> (usize, usize) {
    let name = format!("memfd:{name} ");
    let ours = |path: &str| path.contains(&name);
    let links = read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| read_link(entry.ok()?.path()).ok());
    let descriptors = links.filter(|link| ours(&link.to_string_lossy())).count();
    let maps = read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| ours(line)).count())
}

fn read(dma: &Dma, iova: u64) -> Option<u64> {
    let mappings = dma.mappings();
    mappings.read_obj(GuestAddress(iova)).ok()
}

#[test]
fn the_most_mappings_of_one_file_take_one_descriptor_and_one_memory_mapping() {
    const COUNT: u64 = 65_535;
    let name = "most";
    let file = memory(name, 2 * COUNT * page());
    let dma = Dma::default();
    // every other page, in falling order: no two of them are adjacent anywhere
    let offset = |index: u64| 2 * (COUNT - 1 - index) * page();
    for index in 0..COUNT {
        let part = Some((lent(&file), offset(index)));
        dma.map(2 * index * page(), page(), BOTH, part).unwrap();
    }
    assert_eq!(held(name), (2, 1), "the test's own descriptor and Dma's");
    for index in [0, 1, COUNT / 2, COUNT - 1] {
        file.write_all_at(&index.to_ne_bytes(), offset(index))
            .unwrap();
        assert_eq!(read(&dma, 2 * index * page()), Some(index));
        assert_eq!(read(&dma, (2 * index + 1) * page()), None, "between two");
    }
    // one by one, up to the last
    for index in 0..COUNT - 1 {
        dma.unmap(2 * index * page(), page()).unwrap();
    }
    assert_eq!(read(&dma, 2 * (COUNT - 2) * page()), None);
    assert_eq!(read(&dma, 2 * (COUNT - 1) * page()), Some(COUNT - 1));
    assert_eq!(held(name), (2, 1));
    dma.unmap(2 * (COUNT - 1) * page(), page()).unwrap();
    assert_eq!(held(name), (1, 0));
}

#[test]
fn what_was_mapped_is_released_when_the_last_range_goes() {
    let name = "released";
    let file = memory(name, 3 * page());
    let dma = Dma::default();
    let map = |number: u64| {
        dma.map(
            number * page(),
            page(),
            BOTH,
            Some((lent(&file), number * page())),
        )
    };
    for number in 0..3 {
        map(number).unwrap();
    }
    dma.unmap(0, 2 * page()).unwrap();
    assert_eq!(held(name), (2, 1));
    assert_eq!(read(&dma, 2 * page()), Some(0));
    dma.unmap(2 * page(), page()).unwrap();
    assert_eq!(held(name), (1, 0));
    map(1).unwrap();
    assert_eq!(held(name), (2, 1));
    dma.clear();
    assert_eq!(held(name), (1, 0));
}

#[test]
fn a_device_reaches_no_more_of_a_file_than_its_mapped_ranges() {
    let file = memory("ranges", 4 * page());
    let dma = Dma::default();
    dma.map(0x10_0000, page(), BOTH, Some((lent(&file), page())))
        .unwrap();
    let mappings = dma.mappings();
    let mut bytes = [0; 8];
    for at in [0x10_0000 - 1, 0x10_0000 + page() - 7, 0x10_0000 + page()] {
        let at = GuestAddress(at);
        assert!(mappings.read_slice(&mut bytes, at).is_err(), "{at:?}");
        assert!(mappings.write_slice(b"overflow", at).is_err(), "{at:?}");
    }
    let mut whole = vec![1; 4 * page() as usize];
    file.read_exact_at(&mut whole, 0).unwrap();
    let outside = whole[..page() as usize].iter();
    let outside = outside.chain(&whole[2 * page() as usize..]);
    assert!(outside.into_iter().all(|byte| *byte == 0));
}

#[test]
fn ranges_of_one_file_keep_their_own_access() {
    let name = "access";
    let file = memory(name, 2 * page());
    let dma = Dma::default();
    dma.map(0, page(), BOTH, Some((lent(&file), 0))).unwrap();
    dma.map(page(), page(), READ, Some((lent(&file), 0)))
        .unwrap();
    assert_eq!(held(name), (3, 2), "one for each access");
    let mappings = dma.mappings();
    assert!(mappings.write_obj(7_u64, GuestAddress(0)).is_ok());
    assert!(mappings.write_obj(8_u64, GuestAddress(page())).is_err());
    assert_eq!(mappings.read_obj::<u64>(GuestAddress(page())).unwrap(), 7);
}

#[test]
fn a_descriptor_gives_no_access_that_another_one_of_the_file_has() {
    let file = memory("modes", 2 * page());
    let dma = Dma::default();
    let map = |access, fd| dma.map(page(), page(), access, Some((fd, page())));
    for mapped in [false, true] {
        if mapped {
            for (iova, access) in [(0x10_0000, BOTH), (0x20_0000, READ)] {
                dma.map(iova, page(), access, Some((lent(&file), 0)))
                    .unwrap();
            }
        }
        for (access, flags) in [
            (BOTH, OFlags::RDONLY),
            (BOTH, OFlags::WRONLY),
            (READ, OFlags::WRONLY),
            (READ, OFlags::PATH),
        ] {
            let refused = map(access, opened(&file, flags));
            assert_eq!(refused, Err(Errno::EIO), "{access:?} with {flags:?}");
        }
    }
    map(READ, opened(&file, OFlags::RDONLY)).unwrap();
}

#[test]
fn a_file_that_has_grown_is_mapped_once_with_all_its_ranges() {
    let name = "grown";
    let file = memory(name, page());
    let dma = Dma::default();
    for number in 0..100 {
        file.set_len((number + 1) * page()).unwrap();
        file.write_all_at(&number.to_ne_bytes(), number * page())
            .unwrap();
        let part = Some((lent(&file), number * page()));
        dma.map(number * page(), page(), BOTH, part).unwrap();
        assert_eq!(held(name), (2, 1));
    }
    for number in 0..100 {
        assert_eq!(read(&dma, number * page()), Some(number));
    }
}

#[test]
fn a_file_longer_than_the_address_space_is_mapped_as_far_as_it_is_used() {
    let name = "sparse";
    let file = memory(name, 1 << 60);
    let dma = Dma::default();
    let far = 1 << 40;
    dma.map(page(), page(), BOTH, Some((lent(&file), far)))
        .unwrap();
    for (iova, offset) in [(2 * page(), far + (1 << 30)), (3 * page(), far - page())] {
        dma.map(iova, page(), BOTH, Some((lent(&file), offset)))
            .unwrap();
        file.write_all_at(&offset.to_ne_bytes(), offset).unwrap();
        assert_eq!(read(&dma, iova), Some(offset));
    }
    assert_eq!(held(name), (2, 1));
    let too_far = dma.map(4 * page(), page(), BOTH, Some((lent(&file), 1 << 59)));
    assert_eq!(too_far, Err(Errno::ENOMEM));
    assert_eq!(read(&dma, 2 * page()), Some(far + (1 << 30)));
    assert_eq!(held(name), (2, 1));
}
