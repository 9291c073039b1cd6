//! A child process that does one task and reports the result: the result shows what a fork
//! inherits, and which signal a fault raises.

use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::pipe::{PipeFlags, pipe_with};
use varia_spec::errno::Errno;

use crate::errno;

/// End of a child process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The child finished and reported these bytes.
    Said(Vec<u8>),
    /// A signal with this number ended the child.
    Signal(i32),
}

/// Forks, runs `work` in the child and waits for the child. The child inherits memory and
/// descriptors.
///
/// Errors: errors of the system calls; `EBUSY` if this process has other threads, whose locks the
/// child would inherit without the threads.
pub fn run(work: impl FnOnce() -> Vec<u8>) -> Result<Outcome, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|e| errno::of_io(&e))?;
    if threads.count() != 1 {
        return Err(Errno::EBUSY);
    }
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).map_err(errno::of_rustix)?;
    // SAFETY: this process has one thread, so the child is a complete copy of it and may do what
    // the parent may.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => {
            // A panic must not unwind into the caller, which is the parent's.
            let said = catch_unwind(AssertUnwindSafe(work));
            let mut pipe = File::from(write_end);
            let told = said.is_ok_and(|said| pipe.write_all(&said).is_ok());
            let code = i32::from(!told);
            // SAFETY: it ends this process without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        ..0 => Err(errno::last()),
        _ => {
            drop(write_end);
            let mut pipe = File::from(read_end);
            let mut said = Vec::new();
            let read = pipe.read_to_end(&mut said).map_err(|e| errno::of_io(&e));
            let status = wait(pid)?;
            read?;
            match status {
                0 => Ok(Outcome::Said(said)),
                status if libc::WIFSIGNALED(status) => Ok(Outcome::Signal(libc::WTERMSIG(status))),
                _ => Err(Errno::EPIPE),
            }
        }
    }
}

/// Waits for a child of this process; returns the child's status.
fn wait(pid: libc::pid_t) -> Result<i32, Errno> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for a write during the call.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(status);
        }
        let error = errno::last();
        if error != Errno::EINTR {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let (stop, waiting) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || waiting.recv());
        assert_eq!(run(Vec::new), Err(Errno::EBUSY));
        drop(stop);
        assert!(other.join().unwrap().is_err());
    }
}
