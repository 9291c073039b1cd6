//! The user's memory as a device reaches it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use varia_core::{Dma, DmaAccess, Errno, MAX_MAPPINGS};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

const BOTH: DmaAccess = DmaAccess {
    read: true,
    write: true,
};

fn page() -> u64 {
    rustix::param::page_size() as u64
}

fn file(pages: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(pages * page()).unwrap();
    file
}

fn lent(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

#[test]
fn a_device_reads_and_writes_the_users_file_across_mappings() {
    let (first, second) = (file(4), file(1));
    let dma = Dma::default();
    // the first mapping shows the file's last two pages, the second follows it
    dma.map(
        0x10_0000,
        2 * page(),
        BOTH,
        Some((lent(&first), 2 * page())),
    )
    .unwrap();
    dma.map(
        0x10_0000 + 2 * page(),
        page(),
        BOTH,
        Some((lent(&second), 0)),
    )
    .unwrap();
    let held = dma.mappings();
    held.write_slice(b"across", GuestAddress(0x10_0000 + 2 * page() - 3))
        .unwrap();
    let mut bytes = [0; 3];
    first.read_exact_at(&mut bytes, 4 * page() - 3).unwrap();
    assert_eq!(&bytes, b"acr");
    second.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"oss");
    second.write_all_at(b"xyz", 0).unwrap();
    let mut across = [0; 6];
    held.read_slice(&mut across, GuestAddress(0x10_0000 + 2 * page() - 3))
        .unwrap();
    assert_eq!(&across, b"acrxyz");
}

#[test]
fn what_is_not_mapped_cant_be_reached() {
    let dma = Dma::default();
    dma.map(page(), page(), BOTH, Some((lent(&file(1)), 0)))
        .unwrap();
    dma.map(u64::MAX - page(), page(), BOTH, Some((lent(&file(1)), 0)))
        .unwrap();
    for (at, count, there) in [
        (page(), page() as usize, true),
        (page() - 1, 1, false),
        (page() - 1, 2, false),
        (2 * page() - 1, 1, true),
        (2 * page() - 1, 2, false),
        (2 * page(), 1, false),
        (u64::MAX - 1, 1, true),
        (u64::MAX - 1, 2, false),
        (u64::MAX, 1, false),
        (0, 0, true),
    ] {
        let seen = dma
            .mappings()
            .check_range(GuestAddress(at), count, Permissions::Read);
        assert_eq!(seen, there, "{count} bytes at {at:#x}");
    }
    dma.unmap(0, 3 * page()).unwrap();
    let mut byte = [0];
    let held = dma.mappings();
    assert!(held.read_slice(&mut byte, GuestAddress(page())).is_err());
    assert!(
        held.read_slice(&mut byte, GuestAddress(u64::MAX - 1))
            .is_ok()
    );
    drop(held);
    dma.clear();
    let held = dma.mappings();
    assert!(
        held.read_slice(&mut byte, GuestAddress(u64::MAX - 1))
            .is_err()
    );
}

#[test]
fn a_device_does_no_more_than_the_user_allows() {
    for (read, write) in [(true, false), (false, true), (false, false)] {
        let dma = Dma::default();
        let access = DmaAccess { read, write };
        dma.map(0, page(), access, Some((lent(&file(1)), 0)))
            .unwrap();
        let held = dma.mappings();
        let mut byte = [0];
        let at = GuestAddress(1);
        assert_eq!(held.read_slice(&mut byte, at).is_ok(), read, "{access:?}");
        assert_eq!(held.write_slice(&byte, at).is_ok(), write, "{access:?}");
    }
}

#[test]
fn memory_without_a_descriptor_is_known_and_cant_be_reached() {
    let dma = Dma::default();
    dma.map(0, page(), BOTH, None).unwrap();
    let reached = dma
        .mappings()
        .check_range(GuestAddress(0), 1, Permissions::Read);
    assert!(!reached);
    assert_eq!(dma.map(0, page(), BOTH, None), Err(Errno::EEXIST));
}

#[test]
fn mappings_that_overlap_or_leave_the_file_are_refused() {
    let dma = Dma::default();
    let map = |iova, len, offset| dma.map(iova, len, BOTH, Some((lent(&file(2)), offset)));
    map(4 * page(), 2 * page(), 0).unwrap();
    for (iova, len) in [
        (3 * page(), 2 * page()),
        (4 * page(), page()),
        (5 * page(), page()),
        (3 * page(), 4 * page()),
    ] {
        assert_eq!(map(iova, len, 0), Err(Errno::EEXIST), "{iova:#x}");
    }
    for (iova, len, offset) in [
        (0, 0, 0),
        (0, 3 * page(), 0),
        (0, page(), 2 * page()),
        (0, page(), u64::MAX),
        (u64::MAX - 1, page(), 0),
    ] {
        assert_eq!(map(iova, len, offset), Err(Errno::EINVAL), "{len:#x}");
    }
    // not where a page begins
    assert_eq!(map(0, page(), 1), Err(Errno::EIO));
    map(3 * page(), page(), 0).unwrap();
    map(6 * page(), page(), 0).unwrap();
}

#[test]
fn overlaps_are_refused_and_neighbours_are_not() {
    let dma = Dma::default();
    let map = |iova, len| dma.map(iova, len, BOTH, None);
    map(0x2000, 0x1000).unwrap();
    map(0x1000, 0x1000).unwrap();
    map(0x3000, 0x1000).unwrap();
    for (iova, len) in [
        (0x1fff, 1),
        (0x0, 0x1001),
        (0x3fff, 2),
        (0, 0x10000),
        (0x2800, 1),
        (0x3fff, u64::MAX - 0x3ffe),
    ] {
        assert_eq!(map(iova, len), Err(Errno::EEXIST), "{iova:#x}+{len:#x}");
    }
    map(0x4000, 1).unwrap();
}

#[test]
fn empty_and_overflowing_ranges_are_refused() {
    let dma = Dma::default();
    assert_eq!(dma.map(0x1000, 0, BOTH, None), Err(Errno::EINVAL));
    assert_eq!(dma.map(u64::MAX, 2, BOTH, None), Err(Errno::EINVAL));
    assert_eq!(dma.unmap(0x1000, 0), Err(Errno::EINVAL));
    assert_eq!(dma.unmap(u64::MAX, 2), Err(Errno::EINVAL));
}

#[test]
fn a_mapping_may_end_where_the_address_space_does() {
    let dma = Dma::default();
    let top = u64::MAX - page() + 1;
    dma.map(top, page(), BOTH, Some((lent(&file(1)), 0)))
        .unwrap();
    for (at, count, there) in [
        (top, page() as usize, true),
        (u64::MAX, 1, true),
        (u64::MAX, 2, false),
    ] {
        let seen = dma
            .mappings()
            .check_range(GuestAddress(at), count, Permissions::Read);
        assert_eq!(seen, there, "{count} bytes at {at:#x}");
    }
    assert_eq!(dma.map(u64::MAX, 1, BOTH, None), Err(Errno::EEXIST));
    assert_eq!(dma.unmap(u64::MAX, 1), Err(Errno::EINVAL));
    dma.unmap(top, page()).unwrap();
    dma.map(u64::MAX, 1, BOTH, None).unwrap();
    dma.unmap(1, u64::MAX).unwrap();
    dma.map(0, u64::MAX, BOTH, None).unwrap();
    assert_eq!(dma.map(top, page(), BOTH, None), Err(Errno::EEXIST));
}

#[test]
fn unmap_takes_whole_mappings_only() {
    let dma = Dma::default();
    let free = |at| {
        let free = dma.map(at, 1, BOTH, None).is_ok();
        if free {
            dma.unmap(at, 1).unwrap();
        }
        free
    };
    for iova in [0x1000, 0x2000, 0x4000] {
        dma.map(iova, 0x1000, BOTH, None).unwrap();
    }
    assert_eq!(dma.unmap(0x1800, 0x1000), Err(Errno::EINVAL));
    assert_eq!(dma.unmap(0x1000, 0x1800), Err(Errno::EINVAL));
    assert_eq!(dma.unmap(0x8000, 0x1000), Ok(()));
    assert!([0x1000, 0x2000, 0x4000].iter().all(|at| !free(*at)));
    assert_eq!(dma.unmap(0x2000, 0x1000), Ok(()));
    assert!(free(0x2000) && !free(0x1000) && !free(0x4000));
    assert_eq!(dma.unmap(1, u64::MAX), Ok(()));
    assert!(free(0x1000) && free(0x4000));
}

#[test]
fn the_number_of_mappings_is_bounded() {
    let dma = Dma::default();
    for i in 0..MAX_MAPPINGS as u64 {
        dma.map(i * 2, 1, BOTH, None).unwrap();
    }
    assert_eq!(dma.map(u64::MAX - 1, 1, BOTH, None), Err(Errno::ENOSPC));
    dma.unmap(0, 1).unwrap();
    dma.map(u64::MAX - 1, 1, BOTH, None).unwrap();
    dma.clear();
    dma.map(0, u64::MAX, BOTH, None).unwrap();
}
