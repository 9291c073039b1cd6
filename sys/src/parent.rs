//! Lifetime of a child process: it ends with its parent, however the parent ends.

use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::Command;

/// Makes the process that `command` starts end with `SIGKILL` when the thread that starts it ends,
/// be it by a signal.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let set = move || {
        // SAFETY: the call takes no pointer; it sets a property of the calling process.
        let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // the parent may have ended before the call
        if parent_id() != parent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, and calls prctl and getppid alone, which are
    // safe there; it allocates nothing.
    unsafe {
        command.pre_exec(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let start = || {
            let mut command = Command::new("sleep");
            command.arg("1000");
            end_with_parent(&mut command);
            command.spawn()
        };
        let started = std::thread::spawn(start).join().expect("a thread");
        let status = started.expect("sleep").wait().expect("its end");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
}
