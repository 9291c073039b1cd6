//! Errors of fetching packages and of running programs.

use std::io;
use std::path::Path;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Failure, with its remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refusal of the system.
    #[error("{doing}: {source}")]
    Io {
        /// The step that was refused.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Something that this machine or its mirror lacks.
    #[error("{what}; {remedy}")]
    Missing {
        /// The thing that is missing.
        what: String,
        /// The way to get it.
        remedy: String,
    },
    /// Failure of a program.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The program with its arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its output.
        output: String,
    },
}

impl Error {
    /// Maker of an [`Error::Io`] that names the step, for `map_err`.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// Maker of an [`Error::Io`] about a file: `verb` and its path.
    pub fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }

    /// An [`Error::Missing`].
    pub fn missing(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Missing {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}
