//! A machine that runs: speaking with its agent, and seeing why when it fails.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use varia_agent::HANG;
use varia_agent::wire::{self, Ending, Reply, Request, VERSION};
use varia_debian::command;
use varia_debian::packages;
use varia_sys::limits::raise_open_files;
use varia_units::Arch;

use crate::error::{LabError, Result, VmFailure};
use crate::launch::{self, Mode, ModuleOrders};
use crate::slots::Slot;
use crate::vm::Vm;

/// Number of lines of the console that a failure shows.
const SHOWN_LINES: usize = 60;

/// A machine that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    arch: Arch,
    name: String,
    release: String,
    pub(crate) modules: ModuleOrders,
    command: String,
    channel: Mutex<Option<UnixStream>>,
    child: Mutex<Child>,
    folder: TempDir,
    _slot: Slot,
}

impl Running {
    pub(crate) fn boot(vm: &Vm) -> Result<Self> {
        // Each mapping of a VM's memory may take a descriptor of a server in this process.
        raise_open_files().map_err(LabError::io("raise the limit of open files"))?;
        let mut launch = launch::prepare(vm, Mode::Agent)?;
        let slot = Slot::wait()?;
        let socket = launch.socket();
        let listener = UnixListener::bind(&socket).map_err(LabError::file("listen on", &socket))?;
        let log_path = launch.folder.path().join("qemu.log");
        let log = File::create(&log_path).map_err(LabError::file("create", &log_path))?;
        let errors = log.try_clone().map_err(LabError::file("open", &log_path))?;
        let command = command::line(&launch.command);
        log::debug!("start {}: {command}", vm.name);
        let child = launch
            .command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| command::unstartable(&launch.command, source))?;
        let mut machine = Self {
            arch: vm.arch,
            name: vm.name.clone(),
            release: String::new(),
            modules: launch.modules,
            command,
            channel: Mutex::new(None),
            child: Mutex::new(child),
            folder: launch.folder,
            _slot: slot,
        };
        machine.greet(&listener, vm.timeout)?;
        Ok(machine)
    }

    /// Architecture of the machine.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The release of its kernel, as `uname -r` prints it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// QEMU with all its arguments.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Text that the console has printed so far.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.path().join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Text that QEMU itself has printed so far.
    #[must_use]
    pub fn qemu_messages(&self) -> String {
        fs::read_to_string(self.folder.path().join("qemu.log")).unwrap_or_default()
    }

    /// Sends a request and returns the reply, with bodies. The other methods are more comfortable.
    ///
    /// # Errors
    /// [`LabError::Agent`] if the agent failed to do it, [`LabError::Vm`] if it did not
    /// answer within `limit` or the machine has ended.
    pub fn call(
        &self,
        request: &Request,
        body: &[u8],
        limit: Duration,
    ) -> Result<(Reply, Vec<u8>)> {
        let mut channel = lock(&self.channel);
        let answer = match channel.as_mut() {
            None => Err(io::Error::from(io::ErrorKind::NotConnected)),
            Some(stream) => exchange(stream, request, body, limit),
        };
        match answer {
            Ok((Reply::Failed { what, errno }, _)) => Err(LabError::Agent { what, errno }),
            Ok(answer) => Ok(answer),
            Err(error) => {
                // Half a frame may be under way: nothing that follows could be trusted.
                *channel = None;
                let said = format!("{request:?}");
                let said: String = said.chars().take(300).collect();
                Err(self.fail(&format!(
                    "{}, asked for {said}",
                    self.describe(&error, limit)
                )))
            }
        }
    }

    /// Asks the machine to switch itself off and waits for its end.
    ///
    /// # Errors
    /// [`LabError::Vm`] if it does not end in time.
    pub fn power_off(self) -> Result<()> {
        if let Some(stream) = lock(&self.channel).as_mut() {
            let sent = wire::send(stream, &Request::PowerOff, &[]);
            sent.map_err(|error| self.fail(&format!("it can't be switched off: {error}")))?;
        }
        match self.wait_for_end(HANG)? {
            status if status.success() => Ok(()),
            status => Err(self.fail(&format!("QEMU ended with {status}"))),
        }
    }

    /// Waits until QEMU has ended.
    ///
    /// # Errors
    /// [`LabError::Vm`] if that takes longer than `limit`.
    pub fn wait_for_end(&self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self.fail(&format!("it still runs after {limit:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills QEMU at once, as a crash would.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn kill(&self) -> Result<()> {
        let mut child = lock(&self.child);
        child.kill().map_err(LabError::io("kill QEMU"))?;
        child
            .wait()
            .map(drop)
            .map_err(LabError::io("wait for QEMU"))
    }

    /// An error about this machine: what happened, its console, how it was started.
    #[must_use]
    pub fn fail(&self, why: &str) -> LabError {
        let mut tail = command::last_lines(&self.console(), SHOWN_LINES);
        let messages = self.qemu_messages();
        if !messages.trim().is_empty() {
            let _ = write!(
                tail,
                "\n--- QEMU says ---\n{}",
                command::last_lines(&messages, 20)
            );
        }
        LabError::Vm(Box::new(VmFailure {
            why: format!("{}: {why}", self.name),
            command: self.command.clone(),
            tail,
            log: self
                .keep_log()
                .unwrap_or_else(|_| self.folder.path().join("console.log")),
        }))
    }

    /// Waits for QEMU to connect and for the agent's greeting.
    fn greet(&mut self, listener: &UnixListener, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        listener
            .set_nonblocking(true)
            .map_err(LabError::io("listen for QEMU"))?;
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(LabError::io("listen for QEMU")(error));
                }
                Err(_) if self.ended()?.is_some() => return Err(self.fail("QEMU did not start")),
                Err(_) if Instant::now() >= deadline => {
                    return Err(self.fail("QEMU does not open the agent's channel"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let greeting = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))))
            .and_then(|()| wire::receive::<Reply>(&mut stream));
        let (version, release, troubles) = match greeting {
            Ok((
                Reply::Hello {
                    version,
                    release,
                    troubles,
                },
                _,
            )) => (version, release, troubles),
            Ok((other, _)) => return Err(self.fail(&format!("the agent opens with {other:?}"))),
            Err(error) => {
                let why = format!("{} while it booted", self.describe(&error, limit));
                return Err(self.fail(&why));
            }
        };
        if version != VERSION {
            let why = format!("the agent speaks version {version}, the lab {VERSION}");
            return Err(self.fail(&why));
        }
        if !troubles.is_empty() {
            return Err(self.fail(&format!("it booted, but: {}", troubles.join("; "))));
        }
        self.release = release;
        *lock(&self.channel) = Some(stream);
        Ok(())
    }

    /// Explains an error of the channel.
    fn describe(&self, error: &io::Error, limit: Duration) -> String {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("no answer from the agent within {limit:?}")
            }
            io::ErrorKind::InvalidData => format!("the agent sent an invalid frame ({error})"),
            _ => {
                // The channel closes a moment before QEMU's process has ended.
                let deadline = Instant::now() + HANG;
                while Instant::now() < deadline {
                    if let Ok(Some(status)) = self.ended() {
                        return format!("the machine ended ({status})");
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                format!("the agent is gone ({error})")
            }
        }
    }

    fn ended(&self) -> Result<Option<ExitStatus>> {
        lock(&self.child)
            .try_wait()
            .map_err(LabError::io("wait for QEMU"))
    }

    /// Copies the console to where it outlives the machine's folder.
    fn keep_log(&self) -> Result<PathBuf> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = packages::cache_subfolder("logs".as_ref())?;
        let name: String = self
            .name
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '-' })
            .collect();
        let path = folder.join(format!("{name}-{}-{number}.log", std::process::id()));
        fs::write(&path, self.console()).map_err(LabError::file("write", &path))?;
        Ok(path)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // If it has already ended there is nothing to kill, and nothing more to do.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Ending of a command, in words.
pub(crate) fn ending_in_words(ending: Ending) -> String {
    match ending {
        Ending::Exit(code) => format!("exit code {code}"),
        Ending::Signal(number) => format!("signal {number}"),
        Ending::TimedOut => "its time limit".to_owned(),
    }
}

fn exchange(
    stream: &mut UnixStream,
    request: &Request,
    body: &[u8],
    limit: Duration,
) -> io::Result<(Reply, Vec<u8>)> {
    stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
    stream.set_write_timeout(Some(limit.max(Duration::from_millis(1))))?;
    wire::send(stream, request, body)?;
    wire::receive(stream)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
