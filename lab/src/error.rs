//! Errors of the lab.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result of the lab.
pub type Result<T> = std::result::Result<T, LabError>;

/// Failure of the lab, with the remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Failure of fetching packages, of a program, or of the system.
    #[error(transparent)]
    Debian(#[from] varia_debian::Error),
    /// A kernel module could not be found or understood.
    #[error("kernel module {name}: {why}")]
    Module {
        /// The module's name or path.
        name: String,
        /// Fault of the module.
        why: String,
    },
    /// A machine was described in a way that can't be started.
    #[error("virtual machine: {0}")]
    Description(String),
    /// A machine did not do what it should.
    #[error(transparent)]
    Vm(Box<VmFailure>),
    /// The agent tried what it was asked, and failed.
    #[error("in the machine: {what}")]
    Agent {
        /// The step that failed, and the reason.
        what: String,
        /// The error number in the machine, if there is one.
        errno: Option<i32>,
    },
    /// A command in the machine ended otherwise than with success.
    #[error("in the machine, `{command}` ended with {ending}:\n{output}")]
    GuestCommand {
        /// The command.
        command: String,
        /// Exit code, signal or time limit.
        ending: String,
        /// Output of the command.
        output: String,
    },
}

/// A machine that failed: enough to see why without running it again.
#[derive(thiserror::Error)]
pub struct VmFailure {
    /// Reason.
    pub why: String,
    /// QEMU with all its arguments, to be pasted into a shell.
    pub command: String,
    /// The last lines of the console and of QEMU's own messages.
    pub tail: String,
    /// The whole console log, which is kept.
    pub log: PathBuf,
}

impl fmt::Display for VmFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "virtual machine: {}", self.why)?;
        writeln!(
            f,
            "--- the end of its console ---\n{}",
            self.tail.trim_end()
        )?;
        writeln!(f, "--- the whole console: {}", self.log.display())?;
        write!(f, "--- started as: {}", self.command)
    }
}

/// Text of [`fmt::Display`]: tests that return an error print this form.
impl fmt::Debug for VmFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl LabError {
    /// Maker of an error that names the step that the system refused, for `map_err`.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let error = varia_debian::Error::io(doing);
        move |source| error(source).into()
    }

    /// Maker of an error about a file: `verb` and its path.
    pub fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }

    pub(crate) fn missing(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        varia_debian::Error::missing(what, remedy).into()
    }
}
