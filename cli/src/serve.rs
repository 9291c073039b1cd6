//! `varia serve`: serves a device on a socket until a signal stops the server.

use std::{path::Path, sync::Arc, time::Duration};

use varia_facts::Bytes;
use varia_serve::{Backend, View};
use varia_sys::{event::EventFd, limits, socket::Listener};
use varia_vfio_user::server::{Server, Timeouts};

use crate::{
    Failure,
    args::{As, MemoryEnable, ServeArgs},
    device::{Made, default_socket, make},
    inspect,
    output::print,
};

/// Serves until SIGINT or SIGTERM.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    if let Err(error) = limits::raise_open_files() {
        log::warn!("the limit of open files can't be raised to its hard limit: {error}");
    }
    let view = match args.view {
        As::Virtual => View::Virtual,
        As::Physical => View::Physical,
    };
    let mut made = make(
        &args.device,
        &args.behaviour,
        view,
        args.honour_memory_enable || args.memory_enable == MemoryEnable::Honour,
    )?;
    let path = args
        .socket
        .clone()
        .unwrap_or_else(|| default_socket(&args.device.profile));
    let listener = Listener::bind(&path)?;
    let stop = EventFd::new()?;
    let handler = stop.try_clone()?;
    ctrlc::set_handler(move || {
        if let Err(error) = handler.trigger() {
            log::error!("can't stop: {error}");
        }
    })?;
    made.fresh.keep();
    announce(&made, view, &path)?;
    let timeouts = Timeouts {
        idle: args.idle_timeout.map(Duration::from_secs),
        ..Timeouts::default()
    };
    let backend = Backend::new(Arc::clone(&made.endpoint));
    let server = Server::with_timeouts(backend, timeouts);
    let spin = Duration::from_micros(args.spin.unwrap_or_default());
    server.with_spin(spin).serve_forever(&listener, &stop)?;
    print("stopped\n")
}

/// Prints one line for scripts to wait for, then the regions.
fn announce(made: &Made, view: View, path: &Path) -> Result<(), Failure> {
    let side = match view {
        View::Virtual => "virtual",
        View::Physical => "physical",
    };
    let mut text = format!(
        "serving {} ({side}) on {}\n",
        made.profile.name,
        path.display()
    );
    if let Some(memory) = made.silicon.coherent_memory() {
        let size = Bytes(memory.bytes.len());
        text += &format!("  coherent memory: {size} at {:#x}\n", memory.base.0);
    }
    for region in inspect::regions(made) {
        let (size, length) = (Bytes(region.size), Bytes(region.length));
        let place = region.place();
        text += &format!("  {place} = {size} ({}, {length})\n", region.name);
    }
    print(&text)
}
