//! Sockets: paths that cannot be used, descriptors beside bytes, time limits.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::{Descriptors, Limit, Listener, MAX_PATH, SocketError, Stream};

fn soon<'a>() -> Limit<'a> {
    Limit::within(Duration::from_secs(600))
}

#[test]
fn a_path_too_long_is_refused_with_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let fill = MAX_PATH - dir.path().as_os_str().as_bytes().len() - 1;
    let fits = dir.path().join("s".repeat(fill));
    let _listener = Listener::bind(&fits).unwrap();
    Stream::connect(&fits).unwrap();
    let long = dir.path().join("s".repeat(fill + 1));
    let e = Listener::bind(&long).unwrap_err();
    assert!(
        matches!(e, SocketError::PathTooLong { len: 108, .. }),
        "{e}"
    );
    assert!(e.to_string().contains("108 bytes"), "{e}");
}

#[test]
fn a_path_in_no_directory_is_refused_with_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let e = Listener::bind(&dir.path().join("absent/gpu.sock")).unwrap_err();
    assert!(matches!(e, SocketError::NoDirectory { .. }), "{e}");
    assert!(
        e.to_string().contains("mkdir -p") && e.to_string().contains("absent"),
        "{e}"
    );
    fs::write(dir.path().join("file"), "").unwrap();
    let e = Listener::bind(&dir.path().join("file/gpu.sock")).unwrap_err();
    assert!(matches!(e, SocketError::NoDirectory { .. }), "{e}");
}

#[test]
fn a_directory_without_permission_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Root may write in a directory of any mode; /proc refuses even root, in
    // its own way.
    if rustix::process::geteuid().is_root() {
        assert!(Listener::bind("/proc/gpu.sock".as_ref()).is_err());
        return;
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let e = Listener::bind(&dir.path().join("gpu.sock")).unwrap_err();
    assert!(matches!(e, SocketError::Permission { .. }), "{e}");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket file nobody listens on");

    let live = Listener::bind(&path).unwrap();
    let e = Listener::bind(&path).unwrap_err();
    assert!(matches!(e, SocketError::InUse { .. }), "{e}");
    let _client = Stream::connect(&path).unwrap();
    drop(live);
    assert!(!path.exists(), "removed with its listener");
}

#[test]
fn a_listener_removes_only_its_own_socket_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let old = Listener::bind(&path).unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let _new = Listener::bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    fs::write(&path, "precious").unwrap();
    let e = Listener::bind(&path).unwrap_err();
    assert!(matches!(e, SocketError::NotASocket { .. }), "{e}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn connecting_where_nobody_listens_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let e = Stream::connect(&dir.path().join("gpu.sock")).unwrap_err();
    assert!(matches!(e, SocketError::NoServer { .. }), "{e}");
}

#[test]
fn bytes_and_descriptors_arrive_together() {
    let (a, b) = Stream::pair().unwrap();
    let m = SharedMemory::anonymous("test", 4096).unwrap();
    m.write(0, b"shared").unwrap();
    let event = EventFd::new().unwrap();
    a.send(b"hello", &[m.as_fd(), event.as_fd()], &soon())
        .unwrap();
    let (mut buf, mut descriptors) = ([0; 16], Descriptors::default());
    let n = b.recv(&mut buf, &mut descriptors, 2, &soon()).unwrap();
    let Descriptors {
        mut fds,
        lost,
        excess,
    } = descriptors;
    assert!(!lost && !excess);
    assert_eq!((&buf[..n], fds.len()), (&b"hello"[..], 2));
    let theirs = SharedMemory::from_fd(fds.remove(0), 0, 4096).unwrap();
    let mut seen = [0; 6];
    theirs.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"shared");
    EventFd::from_fd(fds.remove(0)).unwrap().trigger().unwrap();
    assert_eq!(event.drain().unwrap(), 1);
}

#[test]
fn more_descriptors_than_allowed_are_told_of_and_all_closed() {
    let files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (a, b) = Stream::pair().unwrap();
    let event = EventFd::new().unwrap();
    let before = files();
    for count in [3, 64] {
        let fds = vec![event.as_fd(); count];
        a.send(b"x", &fds, &soon()).unwrap();
        let mut came = Descriptors::default();
        // the bytes are not lost
        assert_eq!(b.recv(&mut [0; 4], &mut came, 2, &soon()).unwrap(), 1);
        assert!(came.excess && came.fds.is_empty());
    }
    let fds: Vec<BorrowedFd<'_>> = vec![event.as_fd(); 65];
    assert!(matches!(
        a.send(b"x", &fds, &soon()),
        Err(SocketError::TooManyFds { max: 64 })
    ));
    // other tests of this process open a few files meanwhile
    assert!(files() < before + 32, "descriptors were leaked");
}

#[test]
fn a_silent_peer_times_out_a_gone_one_is_closed_and_stop_ends_a_wait() {
    let (a, b) = Stream::pair().unwrap();
    let limit = Limit::within(Duration::from_millis(20));
    let e = b
        .recv(&mut [0; 4], &mut Descriptors::default(), 0, &limit)
        .unwrap_err();
    assert!(matches!(e, SocketError::TimedOut { .. }), "{e}");
    let stop = EventFd::new().unwrap();
    stop.trigger().unwrap();
    let limit = Limit::none().or_stop(Some(&stop));
    let e = b
        .recv(&mut [0; 4], &mut Descriptors::default(), 0, &limit)
        .unwrap_err();
    assert!(matches!(e, SocketError::Stopped), "{e}");
    drop(a);
    let e = b
        .recv(&mut [0; 4], &mut Descriptors::default(), 0, &soon())
        .unwrap_err();
    assert!(matches!(e, SocketError::Closed), "{e}");
    let e = b.send(b"x", &[], &soon()).unwrap_err();
    assert!(matches!(e, SocketError::Closed), "{e}");
}

#[test]
fn a_peer_that_does_not_read_times_out_the_sender() {
    let (a, _b) = Stream::pair().unwrap();
    let limit = Limit::within(Duration::from_millis(50));
    let e = a.send(&vec![0; 16 << 20], &[], &limit).unwrap_err();
    assert!(matches!(e, SocketError::TimedOut { .. }), "{e}");
}

#[test]
fn what_was_sent_before_the_end_is_read_although_the_peer_is_still_sending() {
    let (a, b) = Stream::pair().unwrap();
    a.send(&[0; 70_000], &[], &soon()).unwrap();
    b.recv(&mut [0; 16], &mut Descriptors::default(), 0, &soon())
        .unwrap();
    b.send(b"no", &[], &soon()).unwrap();
    b.finish();
    drop(b);
    let mut buf = [0; 4];
    let mut recv = || a.recv(&mut buf, &mut Descriptors::default(), 0, &Limit::none());
    assert_eq!(recv().unwrap(), 2);
    assert!(matches!(recv(), Err(SocketError::Closed)));
    assert!(a.peer_gone());
    let e = a.send(b"x", &[], &soon()).unwrap_err();
    assert!(matches!(e, SocketError::Closed), "{e}");
}

#[test]
fn a_process_that_has_ended_is_told_from_one_that_lives() {
    let peer = |pid: u32| varia_sys::socket::Peer {
        pid: pid as i32,
        uid: 0,
    };
    assert_eq!(peer(std::process::id()).is_ending(), Some(false));
    assert_eq!(peer(0).is_ending(), None);
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let of_child = peer(child.id());
    // a zombie until the wait below, and no process after it
    let deadline = std::time::Instant::now() + Duration::from_secs(600);
    while of_child.is_ending() != Some(true) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait().unwrap();
    assert_eq!(of_child.is_ending(), Some(true));
}

#[test]
fn accept_returns_clients_and_gives_up_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener = Listener::bind(&path).unwrap();
    assert!(
        listener
            .accept(None, Some(Duration::from_millis(5)))
            .unwrap()
            .is_none()
    );
    let client = Stream::connect(&path).unwrap();
    let server = listener
        .accept(None, Some(Duration::from_secs(600)))
        .unwrap()
        .unwrap();
    assert_eq!(server.peer().unwrap().pid, std::process::id() as i32);
    client.send(b"hi", &[], &soon()).unwrap();
    let mut buf = [0; 2];
    assert_eq!(
        server
            .recv(&mut buf, &mut Descriptors::default(), 0, &soon())
            .unwrap(),
        2
    );
    let stop = EventFd::new().unwrap();
    stop.trigger().unwrap();
    assert!(listener.accept(Some(&stop), None).unwrap().is_none());
}
