//! The service manager that started this process, if there is one (sd_notify(3)).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// The service manager, over a socket that is connected once: a confined process can't connect.
#[derive(Debug)]
pub(crate) struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    /// The service manager of `NOTIFY_SOCKET`. One that can't be reached is named in the log.
    pub(crate) fn connect() -> Self {
        Self(connect().unwrap_or_else(|error| {
            missed(&error);
            None
        }))
    }

    pub(crate) fn tell(&self, state: &NotifyState<'_>) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(format!("{state}\n").as_bytes()) {
            missed(&error);
        }
    }
}

fn missed(error: &io::Error) {
    log::warn!("the service manager can't be told (NOTIFY_SOCKET): {error}");
}

fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(None);
    };
    // a name in the abstract namespace begins with @
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(Some(socket))
}
