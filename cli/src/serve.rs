//! `varia serve`: serves devices on sockets until a signal stops the server.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use varia_facts::Bytes;
use varia_serve::sandbox::{self, Landlock};
use varia_sys::{
    event::EventFd,
    limits,
    socket::{Leftovers, Listener},
};
use varia_vfio_user::server::Timeouts;

use crate::{
    Failure,
    args::{As, ServeArgs},
    device::{Made, default_socket},
    fleet::{Fleet, Options, check_private, control, default_directory, metrics, spec},
    inspect,
    output::print,
    service_manager::ServiceManager,
};

/// Serves until SIGINT or SIGTERM.
pub(crate) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    if let Err(error) = limits::raise_open_files() {
        log::warn!("the limit of open files can't be raised to its hard limit: {error}");
    }
    let wanted = spec::wanted(args)?;
    let directory = match &args.directory {
        Some(directory) => Some(directory.clone()),
        None if wanted.len() > 1 && args.socket.is_some() => {
            let text = format!(
                "{} devices can't share the socket of --socket: use --directory",
                wanted.len()
            );
            return Err(text.into());
        }
        None => (wanted.len() > 1).then(default_directory),
    };
    if let Some(directory) = &directory {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(|error| format!("{}: {error}", directory.display()))?;
        if args.directory.is_none() {
            check_private(directory)?;
        }
    }
    let mut given = Given::new(args)?;
    let stop = EventFd::new()?;
    let options = Options {
        timeouts: Timeouts {
            idle: args.idle_timeout.map(Duration::from_secs),
            ..Timeouts::default()
        },
        spin: Duration::from_micros(args.spin.unwrap_or_default()),
        directory: directory.clone(),
        // the sandbox takes away what finds them
        leftovers: directory
            .as_deref()
            .map_or_else(Leftovers::default, Leftovers::find),
    };
    let fleet = Arc::new(Fleet::new(options, stop.try_clone()?));
    let mut prepared = Vec::new();
    let mut text = String::new();
    let mut closed = Vec::new();
    for (name, spec) in &wanted {
        let given = given.take(name);
        // an inherited socket is not this process's to remove
        let is_own = given.is_none();
        let listener = match (given, &directory) {
            (Some(listener), _) => Some(listener),
            (None, Some(_)) => None,
            (None, None) => {
                let path = args.socket.clone();
                let path = path.unwrap_or_else(|| default_socket(&spec.profile));
                Some(Listener::bind(&path)?)
            }
        };
        let device = fleet.prepare(name.clone(), spec, None, listener)?;
        if is_own {
            closed.push(parent(device.path()));
        }
        text += &announcement(device.made(), device.view(), device.path());
        prepared.push(device);
    }
    let admin = directory
        .as_deref()
        .map(|directory| Admin::new(directory, &mut given));
    let admin = admin.transpose()?;
    given.check_all_taken()?;
    let manager = ServiceManager::connect();
    if !args.no_sandbox {
        closed.extend(directory);
        closed.sort();
        closed.dedup();
        confine(closed)?;
    }
    let handler = stop.try_clone()?;
    ctrlc::set_handler(move || {
        if let Err(error) = handler.trigger() {
            log::error!("can't stop: {error}");
        }
    })?;
    let mut running = Running {
        fleet: &fleet,
        stop: &stop,
        administration: Vec::new(),
    };
    for device in prepared {
        fleet.start(device)?;
    }
    if let Some(admin) = admin {
        admin.start(&mut running)?;
    }
    print(&text)?;
    manager.tell(&NotifyState::Ready);
    stop.wait(None)?;
    manager.tell(&NotifyState::Stopping);
    running.end()?;
    print("stopped\n")
}

/// Threads of a server. On drop all of them are ended, and their sockets are removed.
struct Running<'a> {
    fleet: &'a Arc<Fleet>,
    stop: &'a EventFd,
    administration: Vec<thread::JoinHandle<()>>,
}

impl Running<'_> {
    /// Ends what has not ended yet.
    fn end(&mut self) -> Result<(), Failure> {
        let stopped = self.stop.trigger();
        if stopped.is_ok() {
            for thread in self.administration.drain(..) {
                if thread.join().is_err() {
                    log::error!("a thread of the administration panicked");
                }
            }
        }
        self.fleet.end()?;
        Ok(stopped?)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("{error}");
        }
    }
}

/// Listening sockets that the process was started with.
struct Given {
    by_name: Vec<(String, Listener)>,
    in_order: VecDeque<Listener>,
}

impl Given {
    fn new(args: &ServeArgs) -> Result<Self, Failure> {
        let mut given = Self {
            by_name: Vec::new(),
            in_order: VecDeque::new(),
        };
        let mut seen = BTreeMap::new();
        for fd in &args.listen {
            let listener = Listener::inherited(*fd)?;
            check_new(&mut seen, *fd, &listener)?;
            given.in_order.push_back(listener);
        }
        // systemd's names are those of the socket units, unless the units have FileDescriptorName
        for (fd, name) in sd_notify::listen_fds_with_names(false)? {
            let listener = Listener::inherited(fd)?;
            check_new(&mut seen, fd, &listener)?;
            given.by_name.push((name, listener));
        }
        if let (Some((name, _)), Some(socket)) = (given.by_name.first(), &args.socket) {
            let text = format!(
                "the service manager gave a socket named {name:?}, which would take the place of \
                 --socket {}: leave out --socket",
                socket.display()
            );
            return Err(text.into());
        }
        Ok(given)
    }

    /// The socket for a name, or the next one that has the name of nothing.
    fn take(&mut self, name: &str) -> Option<Listener> {
        let named = self.by_name.iter().position(|(other, _)| other == name);
        match named {
            Some(index) => Some(self.by_name.swap_remove(index).1),
            None => self.in_order.pop_front(),
        }
    }

    /// The socket for a name.
    fn take_named(&mut self, name: &str) -> Option<Listener> {
        let index = self.by_name.iter().position(|(other, _)| other == name);
        index.map(|index| self.by_name.swap_remove(index).1)
    }

    fn check_all_taken(&self) -> Result<(), Failure> {
        if let Some((name, _)) = self.by_name.first() {
            let text = format!(
                "the service manager gave a socket named {name:?}, and no device has this name: \
                 write FileDescriptorName=DEVICE in the socket unit, or control, or metrics"
            );
            return Err(text.into());
        }
        match self.in_order.len() {
            0 => Ok(()),
            more => Err(format!("{more} more --listen than devices: leave them out").into()),
        }
    }
}

/// Refuses a socket that has come before, as the same descriptor or another one.
fn check_new(
    seen: &mut BTreeMap<(u64, u64), i32>,
    fd: i32,
    listener: &Listener,
) -> Result<(), Failure> {
    let status = rustix::fs::fstat(listener)?;
    match seen.insert((status.st_dev, status.st_ino), fd) {
        None => Ok(()),
        Some(other) => Err(format!(
            "descriptors {other} and {fd} are one socket: give each device its own"
        )
        .into()),
    }
}

/// Sockets of the administration.
struct Admin {
    control: Listener,
    metrics: Listener,
}

impl Admin {
    fn new(directory: &Path, given: &mut Given) -> Result<Self, Failure> {
        let control = match given.take_named("control") {
            Some(listener) => listener,
            None => Listener::bind_private(&directory.join(control::SOCKET))?,
        };
        let metrics = match given.take_named("metrics") {
            Some(listener) => listener,
            None => Listener::bind(&directory.join("metrics.sock"))?,
        };
        Ok(Self { control, metrics })
    }

    /// Starts a thread for each socket. They end when the server stops.
    fn start(self, running: &mut Running<'_>) -> Result<(), Failure> {
        let Self { control, metrics } = self;
        let (of_control, of_metrics) = (Arc::clone(running.fleet), Arc::clone(running.fleet));
        let (stop_control, stop_metrics) = (running.stop.try_clone()?, running.stop.try_clone()?);
        let control = move || control::serve(&of_control, &control, &stop_control);
        let metrics = move || metrics::serve(&of_metrics, &metrics, &stop_metrics);
        let thread = |name: &str| thread::Builder::new().name(name.into());
        let threads = &mut running.administration;
        threads.push(thread("control").spawn(control)?);
        threads.push(thread("metrics").spawn(metrics)?);
        Ok(())
    }
}

/// Confines the process, whose sockets stand in these directories.
fn confine(sockets: Vec<PathBuf>) -> Result<(), Failure> {
    match sandbox::enter(&sandbox::Paths { sockets })? {
        Landlock::Enforced => {}
        Landlock::Missing => log::warn!(
            "this kernel has no landlock, so that the server can open files as its user can; system \
             calls are filtered"
        ),
    }
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// One line for scripts to wait for, then the regions.
fn announcement(made: &Made, view: As, path: &Path) -> String {
    let side = match view {
        As::Virtual => "virtual",
        As::Physical => "physical",
    };
    let mut text = format!(
        "serving {} ({side}) on {}\n",
        made.profile.name,
        path.display()
    );
    let endpoint = &made.endpoint;
    if let (Some(variant), Some(reason)) = (endpoint.variant_name(), endpoint.selected()) {
        text += &format!("  variant {variant}, selected by {reason}\n");
    }
    if let Some(memory) = made.silicon.coherent_memory() {
        let size = Bytes(memory.bytes.len());
        text += &format!("  coherent memory: {size} at {:#x}\n", memory.base.0);
    }
    for region in inspect::regions(made) {
        let (size, length) = (Bytes(region.size), Bytes(region.length));
        let place = region.place();
        text += &format!("  {place} = {size} ({}, {length})\n", region.name);
    }
    text
}
