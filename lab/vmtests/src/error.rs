//! Errors of a test's surroundings.

use std::fmt;
use std::io;

use varia_lab::{DebianError, LabError};
use varia_serve::Error as ServeError;
use varia_silicon::SiliconError;
use varia_sys::socket::SocketError;

/// A result of the surroundings.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of a test's surroundings. `Debug` prints the message, because a failing test shows that.
#[derive(thiserror::Error)]
pub enum Error {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Packages of the lab and their programs.
    #[error(transparent)]
    Debian(#[from] DebianError),
    /// The model of the device.
    #[error(transparent)]
    Silicon(#[from] SiliconError),
    /// The runtime that serves it.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Socket of the runtime.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// Operation that failed.
        doing: &'static str,
        /// Error of the system.
        source: io::Error,
    },
    /// A machine is not as it has to be for the test.
    #[error("{0}")]
    Unexpected(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// Makes an [`Error::Io`] of what the system said.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
