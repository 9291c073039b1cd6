//! Running commands with a time limit, their output collected.
//!
//! Each command gets a process group of its own, so that a limit ends what it started
//! too. Output is read by threads while the command runs: a command that writes more
//! than a pipe holds does not block.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::wire::{Ending, RunSpec};

/// Result of a command.
#[derive(Debug)]
pub struct Finished {
    /// End of the command.
    pub ending: Ending,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// A command that runs.
#[derive(Debug)]
pub struct Task {
    child: Child,
    deadline: Option<Instant>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Task {
    /// Starts a command with `input` as its standard input.
    ///
    /// # Errors
    /// `InvalidInput` for an empty command, else why it could not be started.
    pub fn start(spec: &RunSpec, input: Vec<u8>) -> io::Result<Self> {
        let (program, arguments) = spec
            .argv
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir(spec.cwd.as_deref().unwrap_or("/"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input closes the pipe: that is its affair.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let deadline = spec
            .limit
            .and_then(|limit| Instant::now().checked_add(limit));
        Ok(Self {
            child,
            deadline,
            stdout,
            stderr,
        })
    }

    /// Waits until the command ends or its own limit kills it; gives up, and leaves it
    /// running, after `limit`.
    ///
    /// # Errors
    /// `TimedOut` if `limit` ends first, or the error of the system.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<Finished> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut pause = Duration::from_millis(1);
        let ending = loop {
            if let Some(status) = self.child.try_wait()? {
                break ending_of(status);
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                self.kill()?;
                self.child.wait()?;
                break Ending::TimedOut;
            }
            if until.is_some_and(|deadline| now >= deadline) {
                return Err(rustix::io::Errno::TIMEDOUT.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        Ok(Finished {
            ending,
            stdout: join(self.stdout.take()),
            stderr: join(self.stderr.take()),
        })
    }

    /// Kills the command's process group.
    ///
    /// # Errors
    /// Error of the system; a command that has already ended is no error.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        match kill_process_group(pid, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The commands that were started and not yet waited for.
#[derive(Debug, Default)]
pub struct Tasks {
    running: BTreeMap<u32, Task>,
    next: u32,
}

impl Tasks {
    /// Keeps a task and gives it a number.
    pub fn add(&mut self, task: Task) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.running.insert(self.next, task);
        self.next
    }

    /// The task with this number.
    ///
    /// # Errors
    /// `NotFound` for a number that was never given or that has been waited for.
    pub fn get(&mut self, number: u32) -> io::Result<&mut Task> {
        self.running.get_mut(&number).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no task {number}"),
            )
        })
    }

    /// Forgets a task that has ended.
    pub fn remove(&mut self, number: u32) {
        self.running.remove(&number);
    }
}

fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, signal) => Ending::Signal(signal.unwrap_or_default()),
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read before an error is still worth returning.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn join(thread: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    thread
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Option<Duration>) -> RunSpec {
        RunSpec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            limit,
            ..RunSpec::default()
        }
    }

    #[test]
    fn output_input_and_code_come_through() {
        let spec = sh("cat; echo oops >&2; exit 3", None);
        let finished = Task::start(&spec, b"hello".to_vec())
            .unwrap()
            .wait(None)
            .unwrap();
        assert_eq!(finished.ending, Ending::Exit(3));
        assert_eq!(finished.stdout, b"hello");
        assert_eq!(finished.stderr, b"oops\n");
    }

    #[test]
    fn a_command_over_its_limit_is_killed_with_its_children() {
        let spec = sh("sleep 60 & sleep 60", Some(Duration::from_millis(50)));
        let finished = Task::start(&spec, Vec::new()).unwrap().wait(None).unwrap();
        assert_eq!(finished.ending, Ending::TimedOut);
    }

    #[test]
    fn a_wait_that_times_out_leaves_the_command_running() {
        let mut task = Task::start(&sh("sleep 60", None), Vec::new()).unwrap();
        let error = task.wait(Some(Duration::from_millis(10))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        task.kill().unwrap();
        assert_eq!(task.wait(None).unwrap().ending, Ending::Signal(9));
    }

    #[test]
    fn an_empty_command_is_refused() {
        let error = Task::start(&RunSpec::default(), Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
