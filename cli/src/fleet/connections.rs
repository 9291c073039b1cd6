//! Connections of the administration, each with a thread of its own.

use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use varia_sys::{event::EventFd, socket::Listener};

/// Connections of a socket at one time. One more is told so, and closed.
pub(crate) const MOST: usize = 16;

/// Answers the connections of `listener` until `stop` is triggered, without waiting for the
/// connections that are open then. `full` is sent to a connection that is one too many.
pub(crate) fn serve<A>(
    name: &'static str,
    listener: &Listener,
    stop: &EventFd,
    full: &str,
    answer: A,
) where
    A: Fn(UnixStream) + Clone + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept(Some(stop), None) {
            Ok(Some(stream)) => UnixStream::from(OwnedFd::from(stream)),
            Ok(None) => return,
            Err(error) => {
                log::warn!("{name}: {error}");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let Some(entered) = Entered::new(&open) else {
            log::warn!("{name}: a connection is closed, because {MOST} are open");
            // the text fits into the empty buffer; a peer that is gone needs none
            let _ = stream.set_nonblocking(true);
            let _ = (&stream).write_all(full.as_bytes());
            continue;
        };
        let answer = answer.clone();
        let thread = thread::Builder::new().name(name.into());
        let answered = thread.spawn(move || {
            let _entered = entered;
            answer(stream);
        });
        if let Err(error) = answered {
            log::warn!("{name}: a connection is closed: {error}");
        }
    }
}

/// One of the connections that may be open.
struct Entered(Arc<AtomicUsize>);

impl Entered {
    fn new(open: &Arc<AtomicUsize>) -> Option<Self> {
        let entered = Self(Arc::clone(open));
        (open.fetch_add(1, Ordering::SeqCst) < MOST).then_some(entered)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn idle_connections_hold_up_neither_others_nor_the_end_and_one_too_many_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        let stop = EventFd::new().unwrap();
        let of_thread = stop.try_clone().unwrap();
        // each connection is greeted, and held until its peer writes a byte
        let greet = |mut stream: UnixStream| {
            stream.write_all(b"!").unwrap();
            let _ = stream.read(&mut [0]);
        };
        let serving = thread::spawn(move || serve("test", &listener, &of_thread, "full\n", greet));
        let idle: Vec<_> = (0..MOST)
            .map(|_| {
                let mut stream = UnixStream::connect(&path).unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                assert_eq!(&byte, b"!");
                stream
            })
            .collect();
        let mut text = String::new();
        let mut refused = UnixStream::connect(&path).unwrap();
        refused.read_to_string(&mut text).unwrap();
        assert_eq!(text, "full\n");
        stop.trigger().unwrap();
        serving.join().unwrap();
        drop(idle);
    }
}
