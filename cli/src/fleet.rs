//! The devices of a server: each has a name, a socket and a thread that accepts its clients.
//!
//! | module | contents |
//! |---|---|
//! | `connections` | connections of the administration, a thread for each |
//! | `spec` | description of a device: command line, configuration file, control socket |
//! | `control` | requests on the control socket |
//! | `ctl` | the client of the control socket |
//! | `metrics` | counters for Prometheus |

mod connections;
pub(crate) mod control;
pub(crate) mod ctl;
pub(crate) mod metrics;
pub(crate) mod spec;

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::fs::fstat;
use varia_serve::{Backend, View};
use varia_sys::{
    event::EventFd,
    socket::{Leftovers, Listener},
};
use varia_vfio_user::{
    counters::Counters,
    server::{Server, Timeouts},
};

use crate::{
    Failure,
    args::{As, MemoryEnable},
    device::{Given, Made, make, runtime_directory},
};

use spec::DeviceSpec;

/// Devices that are served, by their names.
pub(crate) struct Fleet {
    devices: Mutex<BTreeMap<String, Arc<Served>>>,
    /// Backing files of the devices, by device and inode number, with the names of the devices.
    backings: Mutex<BTreeMap<(u64, u64), String>>,
    /// No device can be started any longer. Changed with `devices` locked.
    has_ended: AtomicBool,
    options: Options,
    /// Error of a device that could not be served any longer, and the end of the process.
    failed: Mutex<Option<String>>,
    stop: EventFd,
}

/// Options of all devices.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) timeouts: Timeouts,
    pub(crate) spin: std::time::Duration,
    /// The directory of the sockets, if there is one.
    pub(crate) directory: Option<PathBuf>,
    /// Sockets that an earlier server has left in the directory.
    pub(crate) leftovers: Leftovers,
}

/// A device that is served.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) made: Made,
    pub(crate) view: As,
    pub(crate) path: PathBuf,
    pub(crate) counters: Arc<Counters>,
    stop: EventFd,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A device that is not served yet.
pub(crate) struct Prepared {
    name: String,
    view: As,
    made: Made,
    listener: Listener,
}

impl Prepared {
    pub(crate) fn made(&self) -> &Made {
        &self.made
    }

    pub(crate) fn view(&self) -> As {
        self.view
    }

    pub(crate) fn path(&self) -> &Path {
        self.listener.path()
    }
}

impl Fleet {
    /// A fleet without devices, whose end `stop` asks for.
    pub(crate) fn new(options: Options, stop: EventFd) -> Self {
        Self {
            devices: Mutex::default(),
            backings: Mutex::default(),
            has_ended: AtomicBool::new(false),
            options,
            failed: Mutex::default(),
            stop,
        }
    }

    /// Constructs a device and its socket: `listener`, or a new one in the directory.
    pub(crate) fn prepare(
        &self,
        name: String,
        spec: &DeviceSpec,
        backing: Option<OwnedFd>,
        listener: Option<Listener>,
    ) -> Result<Prepared, Failure> {
        let (device, behaviour) = spec.arguments()?;
        let given = Given {
            platform: spec.platform_facts.clone(),
            backing,
        };
        let view = spec.view.unwrap_or(As::Virtual);
        let honour = spec.memory_enable == Some(MemoryEnable::Honour);
        let side = match view {
            As::Virtual => View::Virtual,
            As::Physical => View::Physical,
        };
        let listener = match (listener, &self.options.directory) {
            (Some(listener), _) => listener,
            (None, Some(directory)) => {
                let path = directory.join(format!("{name}.sock"));
                Listener::bind_knowing(&path, &self.options.leftovers)?
            }
            (None, None) => return Err("the server has no directory for sockets".into()),
        };
        // held until the file has its device: two devices that are added at once get no common file
        let mut backings = lock(&self.backings);
        let path = behaviour.backing.as_deref();
        // before the file is opened, which can change its length
        if let Some(path) = path {
            check_backing(&backings, &name, path, given.backing.as_ref())?;
        }
        let made = make(&device, &behaviour, side, honour, given)?;
        if let (Some(_), Some(memory)) = (path, made.silicon.coherent_memory()) {
            let file = fstat(&memory.bytes)?;
            backings.insert((file.st_dev, file.st_ino), name.clone());
        }
        drop(backings);
        Ok(Prepared {
            name,
            view,
            made,
            listener,
        })
    }

    /// Serves a device from now on.
    pub(crate) fn start(self: &Arc<Self>, prepared: Prepared) -> Result<(), Failure> {
        let Prepared {
            name,
            view,
            mut made,
            listener,
        } = prepared;
        let backend = Backend::new(Arc::clone(&made.endpoint));
        let server = Server::with_timeouts(backend, self.options.timeouts);
        let server = server.with_spin(self.options.spin);
        made.fresh.keep();
        let stop = EventFd::new()?;
        let served = Arc::new(Served {
            name: name.clone(),
            made,
            view,
            path: listener.path().to_path_buf(),
            counters: Arc::clone(server.counters()),
            stop: stop.try_clone()?,
            thread: Mutex::default(),
        });
        let fleet = Arc::clone(self);
        let of_thread = name.clone();
        let serve = move || {
            if let Err(error) = server.serve_forever(&listener, &stop) {
                fleet.fail(&format!("{of_thread}: {error}"));
            }
        };
        let mut devices = self.devices();
        if self.has_ended.load(Ordering::SeqCst) {
            return Err("the server ends: start another".into());
        }
        let thread = thread::Builder::new().name(name.chars().take(15).collect());
        *lock(&served.thread) = Some(thread.spawn(serve)?);
        devices.insert(name, served);
        Ok(())
    }

    /// Adds a device while others are served.
    /// `backing` is the open file of its memory, if it has one.
    pub(crate) fn add(
        self: &Arc<Self>,
        spec: &DeviceSpec,
        backing: Option<OwnedFd>,
    ) -> Result<Arc<Served>, Failure> {
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => self.free_name(&spec.profile),
        };
        spec::check_name(&name)?;
        if self.devices().contains_key(&name) {
            return Err(format!("there is a device {name} already: choose another --name").into());
        }
        let prepared = self.prepare(name.clone(), spec, backing, None)?;
        if let Err(error) = self.start(prepared) {
            lock(&self.backings).retain(|_, of| *of != name);
            return Err(error);
        }
        self.device(&name)
    }

    /// Stops serving a device; its client loses the connection.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let served = self.device(name)?;
        self.devices().remove(name);
        let ended = served.end();
        lock(&self.backings).retain(|_, of| of != name);
        ended
    }

    /// The device with this name.
    pub(crate) fn device(&self, name: &str) -> Result<Arc<Served>, Failure> {
        let devices = self.devices();
        let names = || devices.keys().cloned().collect::<Vec<_>>().join(", ");
        let found = devices.get(name).cloned();
        found.ok_or_else(|| format!("there is no device {name}: there are {}", names()).into())
    }

    /// All devices, by their names.
    pub(crate) fn all(&self) -> Vec<Arc<Served>> {
        self.devices().values().cloned().collect()
    }

    /// Ends all devices, for good. Returns the error of the one that ended the process, or the
    /// first error of the end.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        let mut devices = self.devices();
        self.has_ended.store(true, Ordering::SeqCst);
        let all = std::mem::take(&mut *devices);
        drop(devices);
        for served in all.values() {
            // `end` reports it
            let _ = served.stop.trigger();
        }
        let ended: Vec<_> = all.values().map(|served| served.end()).collect();
        match lock(&self.failed).take() {
            Some(error) => Err(error.into()),
            None => ended.into_iter().collect(),
        }
    }

    fn fail(&self, error: &str) {
        log::error!("{error}");
        lock(&self.failed).get_or_insert_with(|| error.to_owned());
        if let Err(error) = self.stop.trigger() {
            log::error!("can't stop: {error}");
        }
    }

    fn free_name(&self, profile: &str) -> String {
        let devices = self.devices();
        let numbers = (0_u32..).map(|number| format!("{profile}-{number}"));
        let mut names = std::iter::once(profile.to_owned()).chain(numbers);
        let free = names.find(|name| !devices.contains_key(name));
        free.unwrap_or_default()
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Served>>> {
        lock(&self.devices)
    }
}

impl Served {
    /// Ends the device's thread. Its socket is gone afterwards.
    fn end(&self) -> Result<(), Failure> {
        self.stop.trigger()?;
        let thread = lock(&self.thread).take();
        match thread.map(JoinHandle::join) {
            Some(Err(_)) => Err(format!("{}: the server ended with a panic", self.name).into()),
            _ => Ok(()),
        }
    }
}

/// Refuses a backing file that another device has, under whatever path.
fn check_backing(
    backings: &BTreeMap<(u64, u64), String>,
    name: &str,
    path: &Path,
    open: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let of_open = |fd| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let identity = open.map_or_else(|| identity(path), of_open);
    match identity.and_then(|identity| backings.get(&identity)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "{name}: the backing file {} is that of the device {other}: give each its own in \
             --config",
            path.display()
        )
        .into()),
    }
}

/// Device and inode number of a file, of the link's target if it is a symbolic link.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Default path of a server's directory, if it is the user's alone.
///
/// # Errors
/// If there is something else at the path, or nothing.
pub(crate) fn existing_directory() -> Result<PathBuf, Failure> {
    let directory = default_directory();
    check_private(&directory)?;
    Ok(directory)
}

/// Default path of a server's directory.
pub(crate) fn default_directory() -> PathBuf {
    runtime_directory().join("varia")
}

/// Refuses a directory in which another user can replace a socket.
pub(crate) fn check_private(directory: &Path) -> Result<(), Failure> {
    let shown = directory.display();
    let metadata = std::fs::symlink_metadata(directory)
        .map_err(|error| format!("{shown}: {error}: name the server's directory by --directory"))?;
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let found = match () {
        () if !metadata.is_dir() => "is no directory".to_owned(),
        () if owner != user => format!("belongs to user {owner}, and this is user {user}"),
        () if metadata.mode() & 0o022 != 0 => "can be written to by other users".to_owned(),
        () => return Ok(()),
    };
    Err(format!("the default directory {shown} {found}: name another by --directory").into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
