//! Counters in the text format of Prometheus, over HTTP on a Unix socket.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::Duration,
};

use varia_sys::{event::EventFd, socket::Listener};
use varia_vfio_user::counters::BOUNDS;

use crate::fleet::{Fleet, Served};

/// Timeout of a reader, and the longest request that is read.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST: usize = 8192;

/// Answers readers one after another, until `stop` is triggered.
pub(crate) fn serve(fleet: &Arc<Fleet>, listener: &Listener, stop: &EventFd) {
    loop {
        match listener.accept(Some(stop), None) {
            Ok(Some(stream)) => {
                // a reader that is gone needs no answer
                let _ = answer(fleet, UnixStream::from(OwnedFd::from(stream)));
            }
            Ok(None) => return,
            Err(error) => {
                log::warn!("metrics: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn answer(fleet: &Fleet, mut stream: UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = Vec::new();
    let mut part = [0; 512];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        match stream.read(&mut part)? {
            0 => break,
            count => request.extend(part.get(..count).unwrap_or_default()),
        }
    }
    let (status, body) = match request.starts_with(b"GET ") {
        true => ("200 OK", text(&fleet.all())),
        false => ("400 Bad Request", "only GET is answered\n".to_owned()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
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
