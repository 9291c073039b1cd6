//! A GPU that a thread of this process plays for a machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tempfile::TempDir;
use varia_serve::{Backend, Endpoint, View};
use varia_silicon::profile::{self, Body};
use varia_silicon::{Options, Profile, Silicon};
use varia_sys::event::EventFd;
use varia_sys::socket::Listener;
use varia_vfio_user::server::Server;

use crate::error::{Error, Result};

/// A GPU that is being served. It is gone when this is dropped, like a device whose machine
/// is switched off; a named backing file stays.
#[derive(Debug)]
pub struct Gpu {
    silicon: Arc<Silicon>,
    stop: EventFd,
    server: Option<JoinHandle<()>>,
    folder: TempDir,
}

impl Gpu {
    /// Makes the silicon and serves it as `view` shows it.
    ///
    /// # Errors
    /// Refusals of the silicon, the runtime or the system.
    pub fn serve(profile: &Profile, view: View, options: Options) -> Result<Self> {
        let serve = varia_serve::Options {
            view,
            ..Default::default()
        };
        Self::serve_with(profile, serve, options)
    }

    /// Makes the silicon and serves it with these options.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn serve_with(
        profile: &Profile,
        serve: varia_serve::Options,
        options: Options,
    ) -> Result<Self> {
        let silicon = Arc::new(Silicon::new(profile, options)?);
        let endpoint = Endpoint::new(Arc::clone(&silicon) as Arc<_>, serve)?;
        let folder = tempfile::Builder::new()
            .prefix("varia-gpu-")
            .tempdir()
            .map_err(Error::io("create a temporary folder"))?;
        let listener = Listener::bind(&folder.path().join(SOCKET))?;
        let stop = EventFd::new().map_err(Error::io("make an event"))?;
        let told = stop.try_clone().map_err(Error::io("share an event"))?;
        let server = std::thread::Builder::new()
            .name(format!("serve {}", profile.name))
            .spawn(move || {
                let server = Server::new(Backend::new(Arc::new(endpoint)));
                if let Err(error) = server.serve_forever(&listener, &told) {
                    eprintln!("the server of a GPU ended: {error}");
                }
            })
            .map_err(Error::io("start a thread"))?;
        Ok(Self {
            silicon,
            stop,
            server: Some(server),
            folder,
        })
    }

    /// Silicon that is served.
    #[must_use]
    pub fn silicon(&self) -> &Silicon {
        &self.silicon
    }

    /// Socket of the server.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// The folder of its socket, which is deleted with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

const SOCKET: &str = "gpu.sock";

impl Drop for Gpu {
    fn drop(&mut self) {
        // If it can't be told to stop, it would be waited for without end.
        let told = self.stop.trigger().is_ok();
        if let (true, Some(server)) = (told, self.server.take()) {
            if server.join().is_err() {
                eprintln!("the server of a GPU panicked");
            }
        }
    }
}

/// The profile `cxl` with another code for how long a driver is to wait for the memory: 4 to the
/// power of the code, in seconds.
///
/// # Panics
/// If the catalogue has no such profile.
#[must_use]
pub fn cxl_that_takes(code: u8) -> Profile {
    let mut chip = profile::find("cxl")
        .expect("a profile of the catalogue")
        .clone();
    for capability in &mut chip.capabilities {
        if let Body::CxlDevice { timeout } = &mut capability.value.body {
            *timeout = code;
        }
    }
    chip
}
