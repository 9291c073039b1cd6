//! Shared memory: bounds, sharing between handles, and files that do not fit.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use varia_sys::memory::{MemoryError, SharedMemory};

#[test]
fn anonymous_memory_is_zero_sparse_and_as_long_as_asked() {
    let m = SharedMemory::anonymous("test", 96 << 30).unwrap();
    let mut b = [0xAA; 16];
    m.read((96 << 30) - 16, &mut b).unwrap();
    assert_eq!(b, [0; 16]);
    assert_eq!(m.len(), 96 << 30);
    assert_eq!(m.allocated().unwrap(), 0);
}

#[test]
fn what_is_written_is_read_back_by_a_clone_and_a_slice() {
    let m = SharedMemory::anonymous("test", 1 << 20).unwrap();
    m.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
    let mut b = [0; 4];
    m.try_clone().unwrap().read(0x1ffe, &mut b).unwrap();
    assert_eq!(b, [1, 2, 3, 4]);
    let s = m.slice(0x1000, 0x1000).unwrap();
    assert_eq!((s.len(), s.fd_offset()), (0x1000, 0x1000));
    let mut b = [0; 2];
    s.read(0xffe, &mut b).unwrap();
    assert_eq!(b, [1, 2]);
    assert!(s.read(0xfff, &mut b).is_err());
}

#[test]
fn ranges_beyond_the_end_and_overflowing_offsets_are_refused() {
    let m = SharedMemory::anonymous("test", 4096).unwrap();
    for (offset, len) in [(4096, 1), (4095, 2), (u64::MAX, 1), (u64::MAX - 1, 4)] {
        let e = m.read(offset, &mut vec![0; len]).unwrap_err();
        assert!(
            matches!(e, MemoryError::OutOfRange { .. }),
            "{offset:#x}+{len}: {e}"
        );
        let e = m.write(offset, &vec![0; len]).unwrap_err();
        assert!(
            matches!(e, MemoryError::OutOfRange { .. }),
            "{offset:#x}+{len}: {e}"
        );
        assert!(m.fill(offset, len as u64, 7).is_err());
        assert!(m.discard(offset, len as u64).is_err());
    }
    m.read(4096, &mut []).unwrap();
}

#[test]
fn zero_and_absurd_lengths_are_refused() {
    for len in [0, u64::MAX, 1 << 63] {
        let e = SharedMemory::anonymous("test", len).unwrap_err();
        assert!(matches!(e, MemoryError::BadLength { .. }), "{len}: {e}");
    }
}

#[test]
fn fill_sets_every_byte_and_discard_gives_storage_back() {
    let m = SharedMemory::anonymous("test", 1 << 20).unwrap();
    m.fill(3, (1 << 20) - 5, 0x5A).unwrap();
    let mut b = vec![0; 1 << 20];
    m.read(0, &mut b).unwrap();
    assert!(b[3..(1 << 20) - 2].iter().all(|&b| b == 0x5A));
    assert_eq!((b[2], b[(1 << 20) - 2]), (0, 0));
    assert!(m.allocated().unwrap() >= 1 << 20);
    m.fill(0, 1 << 20, 0).unwrap();
    assert_eq!(m.allocated().unwrap(), 0);
}

#[test]
fn a_client_cannot_truncate_the_memfd() {
    let m = SharedMemory::anonymous("test", 1 << 20).unwrap();
    let client = fs::File::from(m.as_fd().try_clone_to_owned().unwrap());
    assert!(client.set_len(4096).is_err());
    assert!(client.set_len(1 << 30).is_err());
}

#[test]
fn a_missing_file_is_named_and_create_makes_it_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.mem");
    let e = SharedMemory::open_file(&path, 8192).unwrap_err();
    assert!(matches!(e, MemoryError::Missing { need: 8192, .. }), "{e}");
    assert!(e.to_string().contains("truncate -s 8192"), "{e}");
    let m = SharedMemory::create_file(&path, 8192).unwrap();
    m.write(8190, b"ok").unwrap();
    drop(m);
    let m = SharedMemory::create_file(&path, 8192).unwrap();
    let mut b = [0; 2];
    m.read(8190, &mut b).unwrap();
    assert_eq!(&b, b"ok");
}

#[test]
fn a_file_that_is_too_small_is_refused_with_both_sizes_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.mem");
    fs::write(&path, [7; 4096]).unwrap();
    for e in [
        SharedMemory::open_file(&path, 8192).unwrap_err(),
        SharedMemory::create_file(&path, 8192).unwrap_err(),
    ] {
        assert!(
            matches!(
                e,
                MemoryError::TooSmall {
                    size: 4096,
                    need: 8192,
                    ..
                }
            ),
            "{e}"
        );
        assert!(e.to_string().contains("gpu.mem"), "{e}");
    }
    assert_eq!(fs::read(&path).unwrap(), [7; 4096]);
}

#[test]
fn a_read_only_file_and_a_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let e = SharedMemory::open_file(dir.path(), 4096).unwrap_err();
    assert!(matches!(e, MemoryError::NotAFile { .. }), "{e}");
    // Root may write a file of any mode, so it meets a read-only file system.
    let e = if rustix::process::geteuid().is_root() {
        SharedMemory::open_file("/proc/version".as_ref(), 1).unwrap_err()
    } else {
        let path = dir.path().join("gpu.mem");
        fs::write(&path, [0; 4096]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        SharedMemory::open_file(&path, 4096).unwrap_err()
    };
    let named = matches!(
        e,
        MemoryError::NotWritable { .. } | MemoryError::TooSmall { .. }
    );
    assert!(named, "{e}");
}

#[test]
fn a_descriptor_must_be_long_enough_for_its_range() {
    let m = SharedMemory::anonymous("test", 8192).unwrap();
    m.write(4096, b"x").unwrap();
    let fd = || m.as_fd().try_clone_to_owned().unwrap();
    let s = SharedMemory::from_fd(fd(), 4096, 4096).unwrap();
    let mut b = [0];
    s.read(0, &mut b).unwrap();
    assert_eq!(&b, b"x");
    let e = SharedMemory::from_fd(fd(), 4096, 4097).unwrap_err();
    assert!(
        matches!(
            e,
            MemoryError::TooSmall {
                size: 8192,
                need: 8193,
                ..
            }
        ),
        "{e}"
    );
    assert!(SharedMemory::from_fd(fd(), u64::MAX, 2).is_err());
}

#[test]
fn a_file_truncated_in_use_gives_an_error_and_no_signal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.mem");
    let m = SharedMemory::create_file(&path, 8192).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let e = m.read(4090, &mut [0; 16]).unwrap_err();
    assert!(matches!(e, MemoryError::Truncated { offset: 4096 }), "{e}");
}

#[test]
fn a_file_that_was_made_is_known_from_another_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memory");
    let made = SharedMemory::create_file(&path, 4096).unwrap();
    assert!(made.is_created_at(&path));
    let found = SharedMemory::create_file(&path, 4096).unwrap();
    assert!(!found.is_created_at(&path), "the file was there");
    // another process's file, while this one is open
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    assert!(!made.is_created_at(&path), "there is none");
    std::fs::write(&path, [0; 4096]).unwrap();
    assert!(!made.is_created_at(&path));
}
