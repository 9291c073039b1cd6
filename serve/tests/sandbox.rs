//! Confinement of a process: what an attacker would do next is refused, what the server does works.
//!
//! The confinement can't be undone, so that the test runs itself again in a process of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use landlock::{ABI, Access as _, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::geteuid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use varia_serve::sandbox::{Landlock, Paths, enter};
use varia_spec::Errno;
use varia_sys::mapping::{Access, Mapping, Protection, Share, page_size};
use varia_sys::memory::SharedMemory;
use varia_sys::socket::{Leftovers, Listener, SocketError, Stream};
use varia_sys::vfio::{Request, ioctl_without_argument};

/// Names the directory of the confined process.
const DIRECTORY: &str = "VARIA_SANDBOX_TEST";
/// Set where the process is to find a kernel without landlock.
const HIDDEN: &str = "VARIA_SANDBOX_TEST_WITHOUT_LANDLOCK";
/// Id of the user and of the group that stand for an ordinary user where the tests run as root.
const NOBODY: u32 = 65534;

#[test]
fn a_confined_process_has_its_sockets_and_no_program_network_or_file() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return confined(directory);
    }
    for is_hidden in [false, true] {
        confine_a_process(false, is_hidden);
        if geteuid().is_root() {
            confine_a_process(true, is_hidden);
        }
    }
}

/// Runs the test in a process of its own, of an ordinary user if `is_ordinary`.
fn confine_a_process(is_ordinary: bool, is_hidden: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(path.join("run")).unwrap();
    fs::write(path.join("secret"), "secret").unwrap();
    let mut program = std::env::current_exe().unwrap();
    if is_ordinary {
        chown(path.join("run"), Some(NOBODY), Some(NOBODY)).unwrap();
        // the build's folder may be closed to others
        let contents = File::open(program).unwrap();
        program = path.join("program");
        // another process writes it: a program that is open for writing can't be started
        let mut copy = Command::new("sh");
        copy.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]);
        let status = copy.arg(&program).stdin(contents).status();
        assert!(status.unwrap().success());
    }
    let name = "a_confined_process_has_its_sockets_and_no_program_network_or_file";
    let mut confined = Command::new(program);
    confined.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    confined.env(DIRECTORY, path);
    if is_ordinary {
        confined.uid(NOBODY).gid(NOBODY);
    }
    if is_hidden {
        confined.env(HIDDEN, "");
    }
    confined.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = confined.spawn().unwrap();
    // the confined process waits for a client, and can't be one
    let socket = path.join("run/device.sock");
    let mut client = None;
    while client.is_none() && running.try_wait().unwrap().is_none() {
        client = UnixStream::connect(&socket).ok();
        thread::sleep(Duration::from_millis(1));
    }
    let output = running.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("confined to the end"), "{text}{errors}");
}

/// True if the kernel has landlock, as landlock's own library finds it.
fn kernel_has_landlock() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// Answers like a kernel without landlock from now on.
fn hide_landlock() {
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let program = BpfProgram::try_from(filter.unwrap()).unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn confined(directory: OsString) {
    let is_hidden = std::env::var_os(HIDDEN).is_some();
    let expected = match kernel_has_landlock() && !is_hidden {
        true => Landlock::Enforced,
        false => Landlock::Missing,
    };
    if is_hidden {
        hide_landlock();
    }
    let directory = Path::new(&directory);
    let run = directory.join("run");
    let opened = File::open(directory.join("secret")).unwrap();
    // a server that has ended leaves its socket
    let stale = run.join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let leftovers = Leftovers::find(&run);
    let manager = UnixDatagram::bind(run.join("manager.sock")).unwrap();
    let (loose, to_manager) = (UnixDatagram::unbound(), UnixDatagram::unbound());
    let (loose, to_manager) = (loose.unwrap(), to_manager.unwrap());
    to_manager.connect(run.join("manager.sock")).unwrap();
    let live = UnixListener::bind(run.join("live.sock")).unwrap();
    let parent = rustix::process::getppid().unwrap();
    let landlock = enter(&Paths {
        sockets: vec![run.clone()],
    })
    .unwrap();
    assert_eq!(landlock, expected);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"));

    // the next steps of an attacker
    let refused = |kind: Option<ErrorKind>| kind == Some(ErrorKind::PermissionDenied);
    let program = Command::new("/bin/true").spawn();
    assert!(program.is_err(), "a program was started");
    let network = TcpStream::connect("127.0.0.1:1").err();
    assert!(refused(network.map(|error| error.kind())), "a network");
    let connected = UnixStream::connect(run.join("live.sock")).err();
    assert!(refused(connected.map(|error| error.kind())), "a connection");
    let sent = loose.send_to(b"a message", run.join("manager.sock")).err();
    assert!(refused(sent.map(|error| error.kind())), "an address");
    let made = UnixDatagram::unbound().err();
    assert!(refused(made.map(|error| error.kind())), "a datagram socket");
    let page = page_size() as u64;
    let memory = SharedMemory::anonymous("memory", page).unwrap();
    let code = Protection {
        read: true,
        write: false,
        execute: true,
    };
    let mapped = Mapping::with(&memory, 0, page, code, Share::Private, false);
    assert_eq!(mapped.err(), Some(Errno::EPERM), "memory with code");
    let mut mapped = Mapping::new(&memory, 0, page, Access::ReadWrite, Share::Shared).unwrap();
    assert_eq!(mapped.protect(code), Err(Errno::EPERM), "code made later");
    let signal = rustix::process::kill_process(parent, rustix::process::Signal::CONT);
    assert_eq!(signal, Err(rustix::io::Errno::PERM), "a signal");
    let grown = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    assert_eq!(grown, Err(rustix::io::Errno::PERM), "a limit");
    if landlock == Landlock::Enforced {
        let secret = File::open(directory.join("secret")).err();
        assert!(refused(secret.map(|e| e.kind())), "a file was read");
        let passwords = File::open("/etc/passwd").err();
        assert!(refused(passwords.map(|e| e.kind())), "a file was read");
        let made = File::create(run.join("file")).err();
        assert!(refused(made.map(|e| e.kind())), "a file was made");
        let outside = UnixListener::bind(directory.join("outside.sock")).err();
        assert!(refused(outside.map(|e| e.kind())), "a socket elsewhere");
    } else {
        // a file is open to whom the server's user may open it, and nothing else is lost
        File::open(directory.join("secret")).unwrap();
    }

    check_ioctls(&opened);

    // what the server does
    let path = run.join("device.sock");
    let listener = Listener::bind(&path).unwrap();
    let accepted = listener.accept(None, None).unwrap().unwrap();
    assert_eq!(accepted.peer().unwrap().is_ending(), Some(false));
    drop((accepted, listener));
    assert!(!path.exists());
    to_manager.send(b"READY=1").unwrap();
    assert_eq!(manager.recv(&mut [0; 16]).unwrap(), 7);
    let known = Listener::bind_knowing(&stale, &leftovers);
    drop(known.unwrap());
    for socket in [run.join("live.sock"), stale.clone()] {
        let is_live = socket != stale;
        if !is_live {
            // it came after the process was confined
            drop(UnixListener::bind(&stale).unwrap());
        }
        let refused = Listener::bind_knowing(&socket, &leftovers).unwrap_err();
        let SocketError::Untried { path } = &refused else {
            panic!("{refused}");
        };
        assert!(path.exists(), "{refused}");
    }
    drop(live);
    memory.write(0, &[1, 2, 3]).unwrap();
    let pair = Stream::pair().unwrap();
    thread::Builder::new()
        .name("named".into())
        .spawn(move || drop(pair))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(opened.metadata().unwrap().len(), 6);
    println!("confined to the end");
}

/// The requests that are made of VFIO's files get to the kernel, and no other.
fn check_ioctls(file: &File) {
    let allowed: Vec<_> = Request::ALL.iter().map(|r| r.number()).collect();
    assert!(allowed.contains(&0x3b6f), "VFIO_DEVICE_RESET (Linux uapi)");
    for number in &allowed {
        let made = ioctl_without_argument(file, *number);
        assert_eq!(made, Err(Errno::ENOTTY), "{number:#x} gets to the kernel");
    }
    // the rest of VFIO's and iommufd's numbers, and the same numbers with a size and a direction
    let of_type = (0x3b00..=0x3bff).filter(|number| !allowed.contains(number));
    let sized = allowed.iter().map(|number| number | 0xc004_0000);
    // TIOCSTI, TIOCLINUX, FIOCLEX, KVM_CREATE_VM, FICLONE, FS_IOC_SETFLAGS, SIOCSIFFLAGS, TUNSETIFF
    let others = [
        0x5412,
        0x541c,
        0x5451,
        0xae01,
        0x4004_9409,
        0x4008_6602,
        0x8914,
        0x4004_54ca,
    ];
    for number in of_type.chain(sized).chain(others) {
        let made = ioctl_without_argument(file, number);
        assert_eq!(made, Err(Errno::EPERM), "{number:#x} is refused");
    }
}
