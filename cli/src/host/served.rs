//! GPUs of a running host: memory, devices and their control socket.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use varia_facts::Bytes;
use varia_plan::BareHostPlan;
use varia_silicon::Profile;
use varia_sys::{
    event::EventFd,
    socket::{Leftovers, Listener},
};
use varia_vfio_user::server::Timeouts;

use crate::{
    Failure,
    args::As,
    fleet::{self, Fleet, control, spec::DeviceSpec},
};

/// Files of coherent memory without names, sparse, as large as QEMU wants them.
pub(crate) fn memories(planned: &BareHostPlan) -> Result<Vec<OwnedFd>, Failure> {
    let make = |size: Bytes| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("coherent memory", flags)?;
        ftruncate(&file, size.0)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok(file)
    };
    let sizes = planned.memories.iter().map(|memory| memory.file_size);
    sizes.map(make).collect()
}

/// Path by which this process and QEMU open a file without a name.
pub(crate) fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// GPUs that are served, and their control socket.
pub(crate) struct Served {
    fleet: Arc<Fleet>,
    stop: EventFd,
    control: Option<thread::JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(
        planned: &BareHostPlan,
        profile: &Profile,
        memory: Option<Bytes>,
        files: &[PathBuf],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let stop = EventFd::new()?;
        let options = fleet::Options {
            timeouts: Timeouts::default(),
            spin: Duration::ZERO,
            directory: Some(directory.to_owned()),
            leftovers: Leftovers::default(),
        };
        let fleet = Arc::new(Fleet::new(options, stop.try_clone()?));
        let mut prepared = Vec::new();
        for (index, gpu) in planned.plan.gpus.iter().enumerate() {
            let mut memories = planned.memories.iter().zip(files);
            let own = memories.find(|(memory, _)| memory.gpu == index);
            let spec = DeviceSpec {
                profile: profile.name.to_owned(),
                memory: memory.map(|size| size.suffixed().to_string()),
                base: own.map(|(memory, _)| format!("{:#x}", memory.base.0)),
                backing: own.map(|(_, file)| file.clone()),
                view: Some(As::Physical),
                ..DeviceSpec::default()
            };
            prepared.push(fleet.prepare(gpu.memory.device.id.clone(), &spec, None, None)?);
        }
        let listener = Listener::bind_private(&directory.join(control::SOCKET))?;
        for device in prepared {
            fleet.start(device)?;
        }
        let (of_control, stop_control) = (Arc::clone(&fleet), stop.try_clone()?);
        let control = move || control::serve(&of_control, &listener, &stop_control);
        let control = thread::Builder::new()
            .name("control".into())
            .spawn(control)?;
        Ok(Self {
            fleet,
            stop,
            control: Some(control),
        })
    }

    /// Ends all of them.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Failure> {
        let Some(control) = self.control.take() else {
            return Ok(());
        };
        self.stop.trigger()?;
        if control.join().is_err() {
            log::error!("a thread of the administration panicked");
        }
        self.fleet.end()
    }
}

/// Sockets do not stay when QEMU can't be started.
impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{error}");
        }
    }
}
