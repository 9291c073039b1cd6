//! What a signal does to this process.

use std::io;

/// Lets SIGBUS end the process.
///
/// Rust's runtime handles it to explain an overflow of a stack, and swallows the first one that
/// has another cause and is not raised again, such as that of a page that has failed.
///
/// # Errors
/// What the kernel says, which has no reason to refuse it.
pub fn let_sigbus_end_us() -> io::Result<()> {
    // SAFETY: the default action is no handler, so no code of ours runs in a signal's context.
    let previous = unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    if previous == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
