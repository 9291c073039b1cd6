//! Counters in the text format of Prometheus, over HTTP on a Unix socket.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use varia_sys::{event::EventFd, socket::Listener};
use varia_vfio_user::counters::BOUNDS;

use crate::fleet::{Fleet, Served, connections};

/// Time from a reader's connection to the last byte of the answer, and the longest request that is
/// read.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST: usize = 8192;

/// Bytes of an answer that are sent with one system call, whose timeout holds for each buffer that
/// the kernel allocates.
const PART: usize = 4096;

/// Reply to a reader that is one too many.
const FULL: &str =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Answers readers, until `stop` is triggered.
pub(crate) fn serve(fleet: &Arc<Fleet>, listener: &Listener, stop: &EventFd) {
    let fleet = Arc::clone(fleet);
    connections::serve("metrics", listener, stop, FULL, move |stream| {
        // a reader that is gone needs no answer
        let _ = answer(&stream, Instant::now() + TIMEOUT, || text(&fleet.all()));
    });
}

fn answer(
    mut stream: &UnixStream,
    deadline: Instant,
    text: impl FnOnce() -> String,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 512];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut part)? {
            0 => break,
            count => request.extend(part.get(..count).unwrap_or_default()),
        }
    }
    let (status, body) = match request.starts_with(b"GET ") {
        true => ("200 OK", text()),
        false => ("400 Bad Request", "only GET is answered\n".to_owned()),
    };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    for part in reply.as_bytes().chunks(PART) {
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(part)?;
    }
    Ok(())
}

/// Time until the deadline.
fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// All counters of the devices.
pub(crate) fn text(devices: &[Arc<Served>]) -> String {
    let mut text = String::new();
    gauges(&mut text, devices);
    messages(&mut text, devices);
    text
}

/// A family of one value for each device.
type Family<'a> = (&'a str, &'a str, &'a str, fn(&Served) -> u64);

const FAMILIES: [Family<'_>; 7] = [
    (
        "varia_client_connected",
        "gauge",
        "Clients that are connected now.",
        |served| served.counters.totals().connected,
    ),
    (
        "varia_clients_total",
        "counter",
        "Clients that have negotiated.",
        |served| served.counters.totals().clients,
    ),
    (
        "varia_dropped_connections_total",
        "counter",
        "Connections that the server has ended.",
        |served| served.counters.totals().dropped,
    ),
    (
        "varia_received_bytes_total",
        "counter",
        "Bytes of messages from clients.",
        |served| served.counters.totals().received,
    ),
    (
        "varia_sent_bytes_total",
        "counter",
        "Bytes of replies to clients.",
        |served| served.counters.totals().sent,
    ),
    (
        "varia_dma_mappings",
        "gauge",
        "Mappings of client memory.",
        |served| served.made.endpoint.dma().size().0 as u64,
    ),
    (
        "varia_dma_mapped_bytes",
        "gauge",
        "Bytes of client memory that are mapped.",
        |served| served.made.endpoint.dma().size().1,
    ),
];

fn gauges(text: &mut String, devices: &[Arc<Served>]) {
    for (name, kind, help, value) in FAMILIES {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for served in devices {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(served), value(served));
        }
    }
}

fn labels(served: &Served) -> String {
    let profile = served.made.profile.name;
    format!("device=\"{}\",profile=\"{profile}\"", served.name)
}

fn messages(text: &mut String, devices: &[Arc<Served>]) {
    let errors = "varia_message_errors_total";
    let _ = write!(
        text,
        "# HELP {errors} Messages that were refused.\n# TYPE {errors} counter\n"
    );
    let counts: Vec<_> = devices
        .iter()
        .flat_map(|served| {
            let labels = labels(served);
            let counts = served.counters.counts().into_iter();
            counts.map(move |count| {
                let labels = format!("{labels},command=\"{}\"", count.command);
                (labels, count)
            })
        })
        .collect();
    for (labels, count) in &counts {
        let _ = writeln!(text, "{errors}{{{labels}}} {}", count.errors);
    }
    let time = "varia_message_seconds";
    let _ = write!(
        text,
        "# HELP {time} Time from the arrival of a message to its reply.\n# TYPE {time} histogram\n"
    );
    for (labels, count) in &counts {
        let mut sum = 0;
        for (messages, bound) in count.latencies.iter().zip(BOUNDS) {
            sum += messages;
            let bound = Duration::from_micros(bound).as_secs_f64();
            let _ = writeln!(text, "{time}_bucket{{{labels},le=\"{bound}\"}} {sum}");
        }
        let all = count.messages;
        let seconds = count.time.as_secs_f64();
        let _ = writeln!(text, "{time}_bucket{{{labels},le=\"+Inf\"}} {all}");
        let _ = writeln!(text, "{time}_sum{{{labels}}} {seconds}");
        let _ = writeln!(text, "{time}_count{{{labels}}} {all}");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A deadline that passes while the reader is answered.
    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[test]
    fn a_reader_that_sends_byte_by_byte_has_one_deadline() {
        let (server, mut reader) = UnixStream::pair().unwrap();
        // until the server has closed its end
        let drips = thread::spawn(move || {
            while reader.write_all(b"G").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        answer(&server, soon(), || panic!("the request has no end")).unwrap_err();
        drop(server);
        drips.join().unwrap();
    }

    #[test]
    fn a_reader_that_takes_byte_by_byte_has_one_deadline() {
        let (server, mut reader) = UnixStream::pair().unwrap();
        reader.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let drips = thread::spawn(move || {
            while reader.read(&mut [0; 64]).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(5));
            }
        });
        answer(&server, soon(), || "text\n".repeat(1 << 20)).unwrap_err();
        server.shutdown(std::net::Shutdown::Both).unwrap();
        drop(server);
        drop(drips);
    }
}
