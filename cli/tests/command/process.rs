//! Starting `varia` and checking its results.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use varia_vfio_user::client::Client;

/// Limit that only a hang reaches, however slow the machine.
pub(crate) const HANG: Duration = Duration::from_secs(10 * 60);

/// `varia` with these arguments, without a terminal and without the environment of the tests.
pub(crate) fn varia<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Command {
    at(&program(), args)
}

/// The program under test: that of `VARIA_TEST_PROGRAM`, such as the static one of `./x dist`, or the
/// one that was built with the tests.
pub(crate) fn program() -> PathBuf {
    let other = std::env::var_os("VARIA_TEST_PROGRAM");
    other.map_or_else(|| env!("CARGO_BIN_EXE_varia").into(), PathBuf::from)
}

fn at<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(program: &Path, args: I) -> Command {
    let mut command = command(program);
    command.args(args);
    command
}

/// A program without a terminal and without the environment of the tests.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Id of the user and of the group that stand for an ordinary user where the tests run as root.
pub(crate) const NOBODY: u32 = 65534;

/// Takes root's permissions from a command.
pub(crate) fn as_ordinary_user(command: &mut Command) {
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// End of a command.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn ended(mut command: Command) -> Ended {
    wait(command.spawn().unwrap())
}

fn wait(mut child: Child) -> Ended {
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_string(&mut text).unwrap();
            }
            text
        })
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let status = end_of(&mut child);
    Ended {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn end_of(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > HANG {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("varia did not end within {HANG:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Ended {
    /// Checks that the command succeeded.
    pub(crate) fn success(self) -> Self {
        assert!(self.status.success(), "{}\n{}", self.status, self.stderr);
        self
    }

    /// Checks that the command was refused, in one line that begins with `varia: ` and contains all
    /// of `named`.
    pub(crate) fn refused(&self, named: &[&str]) {
        assert!(!self.status.success(), "it succeeded: {}", self.stdout);
        assert!(self.status.code().is_some(), "{}", self.status);
        assert_eq!(self.stdout, "");
        let line = self.stderr.strip_suffix('\n').unwrap_or(&self.stderr);
        assert!(!line.contains('\n'), "several lines: {line}");
        assert!(line.starts_with("varia: "), "{line}");
        for word in named {
            assert!(line.contains(word), "{word:?} is not in: {line}");
        }
    }
}

/// A directory for one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// An empty directory that every user may enter.
    pub(crate) fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    /// An empty directory in RAM, for memory of a device: a busy disk would delay accesses.
    /// Programs may not run there.
    pub(crate) fn in_ram() -> Self {
        Self::of(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn of(folder: TempDir) -> Self {
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// Path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Path of a file in the directory, as an argument.
    pub(crate) fn argument(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Names in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Copies a program from an open file into the directory.
    ///
    /// Another process writes the copy: a program that this process had open for writing could not
    /// be started while a parallel test starts a program, which inherits the descriptor.
    pub(crate) fn program(&self, name: &str, contents: std::fs::File) -> PathBuf {
        let path = self.path(name);
        let status = Command::new("sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(&path)
            .stdin(contents)
            .status();
        assert!(status.unwrap().success());
        path
    }

    /// Writes a shell script into the directory.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        let source = self.path("source");
        std::fs::write(&source, text).unwrap();
        let path = self.program(name, std::fs::File::open(&source).unwrap());
        std::fs::remove_file(source).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `varia` as a user without root's permissions: the tests' own user, or nobody if the tests
    /// run as root.
    pub(crate) fn ordinary_user(&self, args: &[&str]) -> Command {
        if !geteuid().is_root() {
            return varia(args);
        }
        // the build's folder may be closed to others
        let binary = std::fs::File::open(program()).unwrap();
        let mut command = at(&self.program("varia", binary), args);
        as_ordinary_user(&mut command);
        command
    }
}

/// A client that disconnects on drop, even if a process of a parallel test has inherited its socket
/// and not closed it yet.
pub(crate) struct Attached(Client);

impl std::ops::Deref for Attached {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl std::ops::DerefMut for Attached {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.stream().shutdown();
    }
}

/// A running `varia serve`, ended on drop.
pub(crate) struct Serving {
    child: Child,
    /// Lines of both streams, in order.
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
    pub(crate) socket: PathBuf,
}

impl Serving {
    /// Starts `varia serve` with these arguments and a socket in the directory, and waits until it
    /// is ready for clients.
    pub(crate) fn start(folder: &Folder, args: &[&str]) -> Self {
        let socket = folder.path("gpu.sock");
        let mut command = varia(["serve"]);
        command.args(args).arg("--socket").arg(&socket);
        Self::of(command, socket)
    }

    /// Starts a command that serves on this socket.
    pub(crate) fn of(mut command: Command, socket: PathBuf) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        let pipes: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for pipe in pipes {
            let lines = Arc::clone(&lines);
            readers.push(thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            }));
        }
        let mut serving = Self {
            child,
            lines,
            readers,
            socket,
        };
        serving.wait_for("serving ");
        serving
    }

    /// All lines so far.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line that contains `text`, and returns the line.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let lines = self.lines.lock().unwrap();
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            drop(lines);
            assert!(
                begin.elapsed() < HANG && self.child.try_wait().unwrap().is_none(),
                "{text:?} is not in:\n{}",
                self.text()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Attaches a client.
    pub(crate) fn client(&self) -> Attached {
        self.client_of(&self.socket)
    }

    /// Attaches a client to another socket of the server.
    pub(crate) fn client_of(&self, socket: &Path) -> Attached {
        let client = Client::connect(socket);
        Attached(client.unwrap_or_else(|e| panic!("{e}\n{}", self.text())))
    }

    /// Process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal and waits for the end; returns the exit status and all output.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(self.pid(), signal).unwrap();
        let status = end_of(&mut self.child);
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status, self.text())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // the process may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
