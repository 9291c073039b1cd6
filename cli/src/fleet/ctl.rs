//! `varia ctl`: one request to a running server, and its reply.

use std::{
    io::{BufRead, BufReader},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use serde_json::Value;
use varia_silicon::SiliconError;
use varia_sys::{
    memory::SharedMemory,
    socket::{Limit, SocketError, Stream},
};

use crate::{
    Failure,
    args::{AddArgs, CtlArgs, CtlRequest, MemoryEnable},
    device::known_profile,
    fleet::{
        control::{Request, SOCKET},
        existing_directory,
        spec::DeviceSpec,
    },
    output::print,
    platform,
};

/// Sends the request of `args`, and prints the result.
///
/// # Errors
/// A server that does not answer, and the errors of the server.
pub(crate) fn ctl(args: &CtlArgs) -> Result<(), Failure> {
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => existing_directory()?,
    };
    let socket = directory.join(SOCKET);
    let result = match args.request.clone() {
        CtlRequest::List => ask(&socket, &Request::List, None),
        CtlRequest::Inspect { device } => ask(&socket, &Request::Inspect { device }, None),
        CtlRequest::Add(args) => add(&socket, &args),
        CtlRequest::Remove { device } => ask(&socket, &Request::Remove { device }, None),
        CtlRequest::Reset { device } => ask(&socket, &Request::Reset { device }, None),
        CtlRequest::Fault { device, faults } => {
            let fault = faults;
            ask(&socket, &Request::Fault { device, fault }, None)
        }
    };
    match result? {
        Value::Null => Ok(()),
        result => print(&(serde_json::to_string_pretty(&result)? + "\n")),
    }
}

/// Adds a device. Its files are opened and read here: the server may open none.
fn add(socket: &Path, args: &AddArgs) -> Result<Value, Failure> {
    let profile = known_profile(&args.profile)?;
    let (shape, behaviour) = (&args.shape, &args.behaviour);
    let facts = shape.platform.as_deref().map(platform::read).transpose()?;
    let honour = args.memory_enable == MemoryEnable::Honour;
    let named = behaviour.backing.as_ref();
    let spec = DeviceSpec {
        // for messages alone
        backing: named.map(|path| path.to_string_lossy().into_owned().into()),
        name: args.name.clone(),
        view: Some(args.view),
        memory_enable: honour.then_some(MemoryEnable::Honour),
        platform: None,
        platform_facts: facts,
        ..DeviceSpec::new(&args.profile, shape, behaviour)
    };
    let request = Request::Add(Box::new(spec));
    let Some(path) = &behaviour.backing else {
        return ask(socket, &request, None);
    };
    let Some(coherent) = &profile.coherent else {
        let profile = profile.name;
        return Err(SiliconError::NotCoherent { profile }.into());
    };
    let size = shape.memory.map_or(coherent.size.value, |size| size.0);
    let memory = SharedMemory::create_file(path, size)?;
    let added = ask(socket, &request, Some(&memory));
    if added.is_err() && memory.is_created_at(path) {
        // the error above matters more
        let _ = std::fs::remove_file(path);
    }
    added
}

/// The result of a request that is sent with the descriptor of this memory.
pub(crate) fn ask(
    path: &Path,
    request: &Request,
    memory: Option<&SharedMemory>,
) -> Result<Value, Failure> {
    let stream = Stream::connect(path)?;
    let line = serde_json::to_string(request)? + "\n";
    let fds: Vec<_> = memory.iter().map(|memory| memory.as_fd()).collect();
    match stream.send(line.as_bytes(), &fds, &Limit::none()) {
        // a server that closes the connection may have sent the reason before
        Err(SocketError::Closed) => {}
        sent => sent?,
    }
    let mut line = String::new();
    let mut lines = BufReader::new(UnixStream::from(OwnedFd::from(stream)));
    match lines.read_line(&mut line) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        read => drop(read?),
    }
    if line.is_empty() {
        return Err("the server closed the connection without a reply".into());
    }
    let reply: Value = serde_json::from_str(&line)?;
    match (reply.get("ok"), reply.get("result"), reply.get("error")) {
        (Some(Value::Bool(true)), Some(result), _) => Ok(result.clone()),
        (_, _, Some(Value::String(error))) => Err(error.clone().into()),
        _ => Err(format!("the server's reply is malformed: {reply}").into()),
    }
}
