//! Actions of signals in this process.

use std::io;

/// Sets the default action of SIGBUS, which ends the process.
///
/// Rust's runtime handles SIGBUS to report a stack overflow, and ignores the first SIGBUS that has
/// another cause and is not raised again, such as the SIGBUS of a failed page.
///
/// # Errors
/// Error of the kernel, which is not expected.
pub fn let_sigbus_end_us() -> io::Result<()> {
    // SAFETY: the default action is no handler, so no code of ours runs in a signal's context.
    let previous = unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    if previous == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
