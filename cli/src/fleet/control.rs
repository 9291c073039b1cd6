//! The control socket: a line of JSON for each request and for each reply (docs/serve.md).

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use varia_core::{Device, Errno};
use varia_sys::{
    event::EventFd,
    socket::{Listener, Stream},
};

use crate::{
    Failure,
    args::{CtlArgs, CtlRequest},
    device,
    fleet::{
        Fleet, Served,
        connections::{self, MOST},
        existing_directory,
        spec::DeviceSpec,
    },
    inspect::Inspection,
    output::print,
};

/// Name of the socket in the directory.
pub(crate) const SOCKET: &str = "control.sock";

/// The longest line of a request, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// A request, as a line of JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Request {
    List,
    Inspect { device: String },
    Add(DeviceSpec),
    Remove { device: String },
    Reset { device: String },
    Fault { device: String, fault: Vec<String> },
}

/// Answers the connections of `listener` until `stop` is triggered.
pub(crate) fn serve(fleet: &Arc<Fleet>, listener: &Listener, stop: &EventFd) {
    let full = format!("{MOST} connections are open: close one, and try again");
    let full = format!("{}\n", json!({ "ok": false, "error": full }));
    let fleet = Arc::clone(fleet);
    connections::serve("control", listener, stop, &full, move |stream| {
        // a peer that is gone needs no answer
        let _ = converse(&fleet, &stream);
    });
}

fn converse(fleet: &Arc<Fleet>, stream: &UnixStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut out = stream;
    loop {
        let mut line = Vec::new();
        let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let reply = match whole {
            true => reply(fleet, &line),
            false => Err(
                format!("a request has at most {MAX_LINE} bytes and ends with a newline").into(),
            ),
        };
        let reply = match reply {
            Ok(value) => json!({ "ok": true, "result": value }),
            Err(error) => json!({ "ok": false, "error": error.to_string() }),
        };
        writeln!(out, "{reply}")?;
        if !whole {
            return Ok(());
        }
    }
}

fn reply(fleet: &Arc<Fleet>, line: &[u8]) -> Result<Value, Failure> {
    let request: Request = serde_json::from_slice(line)
        .map_err(|error| format!("the request is malformed: {error}"))?;
    match request {
        Request::List => Ok(fleet.all().iter().map(|served| summary(served)).collect()),
        Request::Inspect { device } => inspection(&*fleet.device(&device)?),
        Request::Add(spec) => {
            if spec.backing.is_some() || spec.count.is_some() || spec.platform.is_some() {
                return Err(
                    "a device that is added has no file (backing, platform) and no count".into(),
                );
            }
            let served = fleet.add(&spec)?;
            log::info!("{} was added", served.name);
            Ok(summary(&served))
        }
        Request::Remove { device } => {
            fleet.remove(&device)?;
            log::info!("{device} was removed");
            Ok(Value::Null)
        }
        Request::Reset { device } => {
            let served = fleet.device(&device)?;
            let reset = match served.made.endpoint.reset() {
                // no client has it open
                Err(Errno::ENODEV) => served.made.silicon.reset(),
                other => other,
            };
            reset.map_err(|errno| format!("{device} can't be reset: {errno}"))?;
            log::info!("{device} was reset");
            Ok(Value::Null)
        }
        Request::Fault { device, fault } => {
            let served = fleet.device(&device)?;
            let faults = fault.iter().map(|fault| fault.parse());
            let faults: Vec<_> = faults.collect::<Result<_, String>>()?;
            served.made.silicon.set_faults(device::faults(&faults))?;
            log::info!("{device} has the faults {fault:?} now");
            Ok(Value::Null)
        }
    }
}

/// A device in a list.
fn summary(served: &Served) -> Value {
    json!({
        "name": served.name,
        "profile": served.made.profile.name,
        "as": served.view,
        "socket": served.path,
        "clients": served.counters.totals().connected,
    })
}

/// All that is known of a device.
fn inspection(served: &Served) -> Result<Value, Failure> {
    let (mappings, bytes) = served.made.endpoint.dma().size();
    let totals = served.counters.totals();
    let messages = served.counters.counts().into_iter().map(|count| {
        json!({
            "command": count.command,
            "messages": count.messages,
            "errors": count.errors,
            "seconds": count.time.as_secs_f64(),
        })
    });
    let mut value = summary(served);
    if let Value::Object(fields) = &mut value {
        fields.insert(
            "faults".into(),
            device::fault_names(served.made.silicon.faults()).into(),
        );
        fields.insert(
            "mappings".into(),
            json!({ "count": mappings, "bytes": bytes }),
        );
        fields.insert("received-bytes".into(), totals.received.into());
        fields.insert("sent-bytes".into(), totals.sent.into());
        fields.insert("messages".into(), messages.collect());
        let inspection = Inspection::new(&served.made)?;
        fields.insert("inspection".into(), serde_json::to_value(inspection)?);
    }
    Ok(value)
}

/// `varia ctl`: one request to a running server, and its reply.
pub(crate) fn ctl(args: &CtlArgs) -> Result<(), Failure> {
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => existing_directory()?,
    };
    let request = match args.request.clone() {
        CtlRequest::List => Request::List,
        CtlRequest::Inspect { device } => Request::Inspect { device },
        CtlRequest::Add {
            profile,
            name,
            memory,
            ready_after,
            fault,
        } => Request::Add(DeviceSpec {
            profile,
            name,
            memory,
            ready_after,
            fault,
            ..DeviceSpec::default()
        }),
        CtlRequest::Remove { device } => Request::Remove { device },
        CtlRequest::Reset { device } => Request::Reset { device },
        CtlRequest::Fault { device, faults } => Request::Fault {
            device,
            fault: faults,
        },
    };
    let reply = ask(&directory.join(SOCKET), &request)?;
    match (reply.get("ok"), reply.get("result"), reply.get("error")) {
        (Some(Value::Bool(true)), Some(Value::Null), _) => Ok(()),
        (Some(Value::Bool(true)), Some(result), _) => {
            print(&(serde_json::to_string_pretty(result)? + "\n"))
        }
        (_, _, Some(Value::String(error))) => Err(error.clone().into()),
        _ => Err(format!("the server's reply is malformed: {reply}").into()),
    }
}

fn ask(path: &Path, request: &Request) -> Result<Value, Failure> {
    let mut stream = UnixStream::from(OwnedFd::from(Stream::connect(path)?));
    match writeln!(stream, "{}", serde_json::to_string(request)?) {
        // a server that closes the connection may have sent the reason before
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let mut line = String::new();
    match BufReader::new(stream).read_line(&mut line) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read?),
    }
    if line.is_empty() {
        return Err("the server closed the connection without a reply".into());
    }
    Ok(serde_json::from_str(&line)?)
}
