//! The control socket: a line of JSON for each request and for each reply (docs/serve.md).

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use varia_core::{Device, Errno};
use varia_sys::{
    event::EventFd,
    socket::{Descriptors, Limit, Listener, SocketError, Stream},
};

use crate::{
    Failure, device,
    fleet::{
        Fleet, Served,
        connections::{self, MOST},
        spec::DeviceSpec,
    },
    inspect::Inspection,
};

/// Name of the socket in the directory.
pub(crate) const SOCKET: &str = "control.sock";

/// The longest line of a request, in bytes.
const MAX_LINE: usize = 64 << 10;

/// A request, as a line of JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub(crate) enum Request {
    List,
    Inspect { device: String },
    Add(Box<DeviceSpec>),
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
        let _ = converse(&fleet, stream);
    });
}

fn converse(fleet: &Arc<Fleet>, stream: UnixStream) -> Result<(), SocketError> {
    let mut lines = Lines {
        stream: Stream::from(OwnedFd::from(stream)),
        rest: Vec::new(),
        descriptors: Descriptors::default(),
    };
    loop {
        let line = lines.next()?;
        let ends = line.is_none();
        if ends && lines.rest.is_empty() {
            return Ok(());
        }
        let reply = match line {
            Some(line) => reply(fleet, &line, std::mem::take(&mut lines.descriptors)),
            None => Err(
                format!("a request has at most {MAX_LINE} bytes and ends with a newline").into(),
            ),
        };
        let reply = match reply {
            Ok(value) => json!({ "ok": true, "result": value }),
            Err(error) => json!({ "ok": false, "error": error.to_string() }),
        };
        let line = format!("{reply}\n");
        lines.stream.send(line.as_bytes(), &[], &Limit::none())?;
        if ends {
            return Ok(());
        }
    }
}

/// Lines of a connection, and the descriptors that came with them.
struct Lines {
    stream: Stream,
    rest: Vec<u8>,
    descriptors: Descriptors,
}

impl Lines {
    /// The next line; `None` at the end of the stream, and if the line is too long. `rest` then has
    /// what came of the line.
    fn next(&mut self) -> Result<Option<Vec<u8>>, SocketError> {
        let mut searched = 0;
        loop {
            let fresh = self.rest.get(searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.rest.drain(..=searched + at).collect()));
            }
            searched = self.rest.len();
            if searched >= MAX_LINE {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            let wanted = bytes.len().min(MAX_LINE - searched);
            let buffer = bytes.get_mut(..wanted).unwrap_or_default();
            let received = self
                .stream
                .recv(buffer, &mut self.descriptors, 1, &Limit::none());
            match received {
                Ok(count) => self.rest.extend(bytes.iter().take(count)),
                Err(SocketError::Closed) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn reply(fleet: &Arc<Fleet>, line: &[u8], mut descriptors: Descriptors) -> Result<Value, Failure> {
    if descriptors.excess {
        return Err("a request comes with one descriptor at most".into());
    }
    if descriptors.lost {
        return Err("the server has no descriptor free: raise its limit of open files".into());
    }
    let descriptor = descriptors.fds.pop();
    let request: Request = serde_json::from_slice(line)
        .map_err(|error| format!("the request is malformed: {error}"))?;
    if descriptor.is_some() && !matches!(&request, Request::Add(spec) if spec.backing.is_some()) {
        return Err("a descriptor comes with the backing of a device that is added alone".into());
    }
    match request {
        Request::List => Ok(fleet.all().iter().map(|served| summary(served)).collect()),
        Request::Inspect { device } => inspection(&*fleet.device(&device)?),
        Request::Add(spec) => {
            if spec.count.is_some() {
                return Err("one device is added at a time: leave out count".into());
            }
            if spec.platform.is_some() {
                let text = "the server opens no files: send the facts as platform-facts";
                return Err(text.into());
            }
            if spec.backing.is_some() && descriptor.is_none() {
                let text = "the server opens no files: send the descriptor of the backing with the \
                            line, open for reading and writing";
                return Err(text.into());
            }
            let served = fleet.add(&spec, descriptor)?;
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
