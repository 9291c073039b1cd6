//! A server that has no descriptor left: the client or the request gets an error, and the server
//! lives.
//!
//! The limits of open files and of memory belong to the whole process, so this program has one test,
//! whose parts run one after another, and the clients are in the same process as the server.

#[path = "../protocol/fake.rs"]
#[allow(dead_code, reason = "the protocol's tests use the rest of it")]
mod fake;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use varia_spec::errno::Errno;
use varia_sys::event::EventFd;
use varia_sys::memory::SharedMemory;
use varia_sys::socket::{Limit, Listener, SocketError, Stream};
use varia_vfio_user::client::{Client, ClientError, Reply, SentIrqData};
use varia_vfio_user::command::Command;
use varia_vfio_user::command::version::{MAJOR, MINOR};
use varia_vfio_user::command::{DMA_READ, DMA_WRITE};
use varia_vfio_user::connection::ConnectionError;
use varia_vfio_user::server::Timeouts;
use varia_vfio_user::wire::Header;

use fake::{Event, Fake, Served, timeouts};

/// A process that has `free` descriptors left, until this is dropped.
struct Scarce {
    taken: Vec<OwnedFd>,
    before: Rlimit,
}

impl Scarce {
    fn new(free: usize) -> Self {
        let before = getrlimit(Resource::Nofile);
        let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let full = Rlimit {
            current: Some(128),
            ..before
        };
        setrlimit(Resource::Nofile, full).unwrap();
        let copies = std::iter::repeat_with(|| event.try_clone());
        let mut taken: Vec<_> = copies.map_while(Result::ok).collect();
        taken.push(event);
        taken.truncate(taken.len() - free);
        Self { taken, before }
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        self.taken.clear();
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

/// Number of descriptors that this process has.
fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until there are as many descriptors as `before`: the thread of a client that has left lets
/// go of them a moment later.
fn settle(before: usize) {
    while open_files() != before {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A server that waits for a client's first message longer than the client for the end.
fn serve() -> Served {
    let timeouts = Timeouts {
        handshake: Duration::from_secs(3600),
        ..timeouts()
    };
    Served::with_timeouts(Fake::new(), timeouts)
}

/// The server has closed the connection before the first message.
fn closed(end: Result<Reply, ClientError>) {
    match end {
        Err(ClientError::Connection(ConnectionError::Ended)) => {}
        other => panic!("the server has not closed the connection: {other:?}"),
    }
}

fn map(client: &mut Client, addr: u64, ram: &SharedMemory) -> Result<(), ClientError> {
    client.dma_map(addr, 4096, DMA_READ | DMA_WRITE, Some((ram.as_fd(), 0)))
}

fn a_mapping_whose_descriptor_cant_be_taken_is_refused_and_the_client_stays() {
    let served = Served::start();
    let mut client = served.client();
    let ram = SharedMemory::anonymous("ram", 4096).unwrap();
    let scarce = Scarce::new(0);
    let refused = map(&mut client, 0x1000, &ram).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EMFILE));
    assert_eq!(served.events(), [Event::Connected], "nothing was mapped");
    client.reset().unwrap();
    drop(scarce);
    map(&mut client, 0x1000, &ram).unwrap();
    assert_eq!(served.fake.dma.lock().unwrap().len(), 1);
}

fn interrupts_of_which_one_descriptor_cant_be_taken_are_refused_as_a_whole() {
    let served = Served::start();
    let mut client = served.client();
    let events = [EventFd::new().unwrap(), EventFd::new().unwrap()];
    let fds = events.each_ref().map(AsFd::as_fd);
    let trigger = varia_spec::vfio::irq_set::ACTION_TRIGGER;
    let scarce = Scarce::new(1);
    let mut set = || client.set_irqs(2, 0, trigger, SentIrqData::Events(&fds));
    assert_eq!(set().unwrap_err().errno(), Some(Errno::EMFILE));
    assert!(served.fake.triggers.lock().unwrap().is_empty());
    drop(scarce);
    set().unwrap();
    assert_eq!(served.fake.triggers.lock().unwrap().len(), 2);
}

fn a_client_that_cant_take_the_descriptor_of_a_reply_says_so() {
    let (ours, theirs) = Stream::pair().unwrap();
    let mut client = Client::over(ours);
    let header = Header::command(1, Command::DEVICE_GET_REGION_INFO, 0).reply(0);
    let reply = || {
        theirs
            .send(&header.encode(), &[theirs.as_fd()], &Limit::none())
            .unwrap();
    };
    let scarce = Scarce::new(0);
    reply();
    let lost = client.receive().unwrap_err();
    assert!(
        matches!(
            &lost,
            ClientError::Connection(ConnectionError::Socket(SocketError::Exhausted { .. }))
        ),
        "{lost}"
    );
    drop(scarce);
    reply();
    assert_eq!(client.receive().unwrap().fds.len(), 1);
}

fn a_client_that_cant_be_accepted_is_closed_and_a_later_one_is_served() {
    let served = serve();
    // for the client's end alone
    let scarce = Scarce::new(1);
    for _ in 0..3 {
        closed(served.silent_client().receive());
    }
    drop(scarce);
    served.client().reset().unwrap();
}

fn a_client_that_takes_the_last_descriptor_is_served() {
    let served = serve();
    // for the client's end, and for the server's end alone
    let scarce = Scarce::new(2);
    let mut client = served.client();
    client.reset().unwrap();
    drop((client, scarce));
    served.wait_for(&Event::Disconnected);
    served.client().reset().unwrap();
}

/// A client that offers to use a twin socket, and whether it got one.
fn negotiate_twin(served: &Served) -> (Client, Result<bool, ClientError>) {
    let mut client = served.silent_client();
    let mut payload = [MAJOR, MINOR].map(u16::to_ne_bytes).concat();
    payload.extend(br#"{"capabilities":{"twin_socket":{"supported":true}}}"#);
    payload.push(0);
    let reply = client.request(Command::VERSION, &payload, &[]);
    let made = reply.map(|reply| !reply.fds.is_empty());
    (client, made)
}

fn a_client_for_whose_twin_socket_there_is_no_descriptor_is_served_without() {
    let served = serve();
    let idle = open_files();
    // the two ends of the connection take two of them, and a twin socket two more
    for free in [2, 3] {
        let scarce = Scarce::new(free);
        let (mut client, made) = negotiate_twin(&served);
        assert!(!made.unwrap(), "{free}");
        client.reset().unwrap();
        drop((client, scarce));
        served.wait_for(&Event::Disconnected);
        served.fake.events.lock().unwrap().clear();
        settle(idle);
    }
    let (mut client, made) = negotiate_twin(&served);
    assert!(made.unwrap());
    client.reset().unwrap();
}

fn a_client_that_cant_take_its_twin_socket_leaves_a_server_that_serves_the_next() {
    let served = serve();
    let scarce = Scarce::new(4);
    let (client, made) = negotiate_twin(&served);
    // the server's copy of the descriptor may be closed before the client takes its own
    assert!(!matches!(made, Ok(false)), "{made:?}");
    drop((client, scarce));
    let (mut client, made) = negotiate_twin(&served);
    assert!(made.unwrap());
    client.reset().unwrap();
}

fn a_listener_without_a_descriptor_returns_at_once_and_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = Listener::bind(&path).unwrap();
    let hour = Some(Duration::from_secs(3600));
    let scarce = Scarce::new(1);
    let client = Stream::connect(&path).unwrap();
    let refused = listener.accept(None, hour).unwrap_err();
    assert!(
        matches!(refused, SocketError::Exhausted { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    assert!(client.peer_gone());
    drop((client, scarce));
    let client = Stream::connect(&path).unwrap();
    let ours = listener.accept(None, hour).unwrap().unwrap();
    ours.send(b"x", &[], &Limit::none()).unwrap();
    assert!(!client.peer_gone());
}

/// A thread takes address space for its stack, of which this test leaves none.
fn a_client_for_which_there_is_no_thread_is_closed_and_a_later_one_is_served() {
    let served = serve();
    let before = getrlimit(Resource::As);
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let now = Rlimit {
        current: Some(pages * rustix::param::page_size() as u64 + (16 << 20)),
        ..before
    };
    setrlimit(Resource::As, now).unwrap();
    // the C library keeps the stacks of threads that have ended: take them all
    let (keep, kept) = mpsc::channel::<()>();
    let kept = Arc::new(Mutex::new(kept));
    let wait = || {
        let kept = Arc::clone(&kept);
        thread::Builder::new().spawn(move || kept.lock().unwrap().recv())
    };
    let threads: Vec<_> = std::iter::repeat_with(wait).map_while(Result::ok).collect();
    let end = served.silent_client().receive();
    setrlimit(Resource::As, before).unwrap();
    drop(keep);
    for thread in threads {
        assert!(thread.join().unwrap().is_err());
    }
    closed(end);
    served.client().reset().unwrap();
}

#[test]
fn a_server_lives_through_the_lack_of_descriptors_and_of_threads() {
    let before = open_files();
    let parts: [fn(); 9] = [
        a_mapping_whose_descriptor_cant_be_taken_is_refused_and_the_client_stays,
        interrupts_of_which_one_descriptor_cant_be_taken_are_refused_as_a_whole,
        a_client_that_cant_take_the_descriptor_of_a_reply_says_so,
        a_client_that_cant_be_accepted_is_closed_and_a_later_one_is_served,
        a_client_that_takes_the_last_descriptor_is_served,
        a_client_for_whose_twin_socket_there_is_no_descriptor_is_served_without,
        a_client_that_cant_take_its_twin_socket_leaves_a_server_that_serves_the_next,
        a_listener_without_a_descriptor_returns_at_once_and_can_be_used_again,
        a_client_for_which_there_is_no_thread_is_closed_and_a_later_one_is_served,
    ];
    for part in parts {
        part();
        settle(before);
    }
}
