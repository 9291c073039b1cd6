//! Transactions with memory that is reached through the user, while the mappings change.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use varia_core::{Dma, DmaAccess, Errno, Job, Remote, Transaction};
use vm_memory::{Bytes, GuestAddress};

const BOTH: DmaAccess = DmaAccess {
    read: true,
    write: true,
};
/// Bytes that the user has, from address 0 on.
const LEN: usize = 0x4000;
const PAGE: u64 = 0x1000;
/// Address of memory with a descriptor.
const FILE_AT: u64 = 0x10_0000;

/// What becomes of a write that a change of the mappings interrupts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Made,
    Lost,
}

/// A user without a thread: each address holds what it holds here.
#[derive(Debug)]
struct User {
    memory: Mutex<Vec<u8>>,
    writes: AtomicUsize,
    /// Number of the write that waits for a change of the mappings.
    interrupted: Option<(usize, Fate)>,
    waits: Mutex<Sender<()>>,
    woken: Mutex<Sender<()>>,
}

impl User {
    fn put(&self, at: u64, data: &[u8]) {
        let at = at as usize;
        self.memory.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
    }
}

impl Remote for User {
    fn read(&self, at: u64, data: &mut [u8], _: &dyn Fn() -> bool) -> Result<(), Errno> {
        let at = at as usize;
        data.copy_from_slice(&self.memory.lock().unwrap()[at..at + data.len()]);
        Ok(())
    }

    fn write(&self, at: u64, data: &[u8], cancelled: &dyn Fn() -> bool) -> Result<(), Errno> {
        if cancelled() {
            return Err(Errno::EINTR);
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        match self.interrupted {
            Some((interrupted, fate)) if number == interrupted => {
                if fate == Fate::Made {
                    self.put(at, data);
                }
                self.waits.lock().unwrap().send(()).unwrap();
                while !cancelled() {
                    thread::yield_now();
                }
                Err(Errno::EINTR)
            }
            _ => {
                self.put(at, data);
                Ok(())
            }
        }
    }

    fn wake(&self) {
        // most tests do not listen
        let _ = self.woken.lock().unwrap().send(());
    }

    fn run(&self, _: Job) -> Result<(), Errno> {
        Err(Errno::EAGAIN)
    }
}

/// Memory of a user with the pages of `LEN` bytes mapped without a descriptor, each apart.
struct Scene {
    dma: Dma,
    user: Arc<User>,
    /// A write waits for a change of the mappings.
    waits: Receiver<()>,
    /// A change of the mappings has begun.
    woken: Receiver<()>,
}

fn scene(interrupted: Option<(usize, Fate)>) -> Scene {
    let ((of_waits, waits), (of_woken, woken)) = (channel(), channel());
    let user = Arc::new(User {
        memory: Mutex::new((0..LEN).map(|at| (at / 7) as u8).collect()),
        writes: AtomicUsize::new(0),
        interrupted,
        waits: Mutex::new(of_waits),
        woken: Mutex::new(of_woken),
    });
    let dma = Dma::default();
    for page in 0..LEN as u64 / PAGE {
        dma.map(page * PAGE, PAGE, BOTH, None).unwrap();
    }
    dma.set_remote(Some(user.clone()));
    Scene {
        dma,
        user,
        waits,
        woken,
    }
}

fn file(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file
}

fn lent(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}

/// Copies `len` bytes, as a device does: again if the mappings change.
fn copy(dma: &Dma, from: u64, to: u64, len: usize) -> Result<(), Errno> {
    loop {
        let transaction = dma.transaction().unwrap();
        copy_in(&transaction, from, to, len);
        match transaction.commit() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn copy_in(transaction: &Transaction<'_>, from: u64, to: u64, len: usize) {
    let mut bytes = vec![0; len];
    transaction
        .read_slice(&mut bytes, GuestAddress(from))
        .unwrap();
    transaction.write_slice(&bytes, GuestAddress(to)).unwrap();
}

#[test]
fn a_copy_onto_itself_is_made_once_though_the_mappings_change_after_its_first_write() {
    for interrupted in 0..3 {
        for fate in [Fate::Made, Fate::Lost] {
            let Scene {
                dma, user, waits, ..
            } = scene(Some((interrupted, fate)));
            let mut expected = user.memory.lock().unwrap().clone();
            expected.copy_within(0..0x2800, 0x800);
            thread::scope(|scope| {
                let copied = scope.spawn(|| copy(&dma, 0, 0x800, 0x2800));
                waits.recv().unwrap();
                dma.map(FILE_AT, PAGE, BOTH, None).unwrap();
                assert_eq!(copied.join().unwrap(), Ok(()));
            });
            let memory = user.memory.lock().unwrap();
            assert!(*memory == expected, "write {interrupted}, {fate:?}");
            // three pages, and the interrupted one again
            assert_eq!(user.writes.load(Ordering::SeqCst), 4);
        }
    }
}

#[test]
fn what_is_unmapped_in_the_middle_of_a_commit_is_not_written() {
    let Scene {
        dma, user, waits, ..
    } = scene(Some((1, Fate::Lost)));
    let before = user.memory.lock().unwrap().clone();
    thread::scope(|scope| {
        let copied = scope.spawn(|| copy(&dma, 0, PAGE, 0x2000));
        waits.recv().unwrap();
        dma.unmap(2 * PAGE, PAGE).unwrap();
        assert_eq!(copied.join().unwrap(), Err(Errno::EFAULT));
    });
    let memory = user.memory.lock().unwrap();
    let changed: Vec<_> = (0..LEN).filter(|&at| memory[at] != before[at]).collect();
    assert!(changed.iter().all(|at| (0x1000..0x2000).contains(at)));
    assert!(!changed.is_empty());
}

#[test]
fn what_is_mapped_anew_in_the_middle_of_a_commit_is_written_where_it_is_then() {
    let Scene {
        dma, user, waits, ..
    } = scene(Some((1, Fate::Lost)));
    let expected = user.memory.lock().unwrap()[0x1000..0x2000].to_vec();
    let file = file(PAGE);
    thread::scope(|scope| {
        let copied = scope.spawn(|| copy(&dma, 0, PAGE, 0x2000));
        waits.recv().unwrap();
        dma.unmap(2 * PAGE, PAGE).unwrap();
        // the commit may have gone on already, and then finds nothing
        let mapped = dma.map(2 * PAGE, PAGE, BOTH, Some((lent(&file), 0)));
        assert_eq!(mapped, Ok(()));
        let mut bytes = vec![0; PAGE as usize];
        match copied.join().unwrap() {
            Ok(()) => {
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert!(bytes == expected);
            }
            Err(errno) => {
                assert_eq!(errno, Errno::EFAULT);
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert!(bytes.iter().all(|byte| *byte == 0));
            }
        }
    });
}

#[test]
fn a_transaction_that_a_change_meets_before_its_first_write_is_to_be_made_again() {
    let Scene {
        dma, user, woken, ..
    } = scene(None);
    let before = user.memory.lock().unwrap().clone();
    let file = file(PAGE);
    dma.map(FILE_AT, PAGE, BOTH, Some((lent(&file), 0)))
        .unwrap();
    woken.recv().unwrap();
    thread::scope(|scope| {
        let transaction = dma.transaction().unwrap();
        copy_in(&transaction, 0, PAGE, 0x1000);
        copy_in(&transaction, 0, FILE_AT, 0x1000);
        let unmapped = scope.spawn(|| dma.unmap(3 * PAGE, PAGE));
        woken.recv().unwrap();
        assert_eq!(transaction.commit(), Err(Errno::EINTR));
        assert_eq!(unmapped.join().unwrap(), Ok(()));
    });
    assert!(*user.memory.lock().unwrap() == before);
    let mut bytes = vec![1; PAGE as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0), "the file is written");
}

#[test]
fn writes_to_a_file_wait_for_the_commit_and_keep_their_order() {
    let Scene {
        dma, user, waits, ..
    } = scene(Some((0, Fate::Lost)));
    let file = file(2 * PAGE);
    file.write_all_at(b"beside", 0x20).unwrap();
    dma.map(FILE_AT, 2 * PAGE, BOTH, Some((lent(&file), 0)))
        .unwrap();
    let transaction = dma.transaction().unwrap();
    // data first, then an index that says so
    transaction.write_slice(b"data", GuestAddress(8)).unwrap();
    transaction
        .write_slice(b"index", GuestAddress(FILE_AT + PAGE - 2))
        .unwrap();
    let mut seen = [0; 5];
    let across = GuestAddress(FILE_AT + PAGE - 2);
    transaction.read_slice(&mut seen, across).unwrap();
    assert_eq!(&seen, b"index", "the device reads what it wrote");
    let mut beside = [0; 6];
    let at = GuestAddress(FILE_AT + 0x20);
    transaction.read_slice(&mut beside, at).unwrap();
    assert_eq!(&beside, b"beside");
    // the user changes a field beside what the device has written
    file.write_all_at(b"later!", 0x20).unwrap();
    thread::scope(|scope| {
        let (dma, file) = (&dma, &file);
        let met = scope.spawn(move || {
            waits.recv().unwrap();
            let mut bytes = [1; 5];
            file.read_exact_at(&mut bytes, PAGE - 2).unwrap();
            dma.map(2 * FILE_AT, PAGE, BOTH, None).unwrap();
            bytes
        });
        assert_eq!(transaction.commit(), Ok(()));
        assert_eq!(
            met.join().unwrap(),
            [0; 5],
            "the index came before the data"
        );
    });
    assert_eq!(&user.memory.lock().unwrap()[8..12], b"data");
    file.read_exact_at(&mut seen, PAGE - 2).unwrap();
    assert_eq!(&seen, b"index");
    file.read_exact_at(&mut beside, 0x20).unwrap();
    assert_eq!(&beside, b"later!");
}
