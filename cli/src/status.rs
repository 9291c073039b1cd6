//! Exit statuses, the same for all commands.

use std::process::ExitCode;

/// Nothing is wrong, and everything was judged.
const CLEAN: u8 = 0;
/// Something is wrong.
const FAULT: u8 = 1;
/// The input can't be read or used, or the request is refused.
const REFUSED: u8 = 2;
/// Nothing is wrong in what was judged, and something was not judged.
const NOT_JUDGED: u8 = 3;

/// Text about the exit statuses, for the help of commands that judge.
pub(crate) const HELP: &str = "Exit status: 0 without a fault, 1 with a fault (with --strict also \
    with a warning or advice), 2 if the input can't be read or used, 3 without a fault if something \
    was not judged.";

/// Exit status of a judgement.
pub(crate) fn of(has_fault: bool, has_unjudged: bool) -> ExitCode {
    ExitCode::from(match (has_fault, has_unjudged) {
        (true, _) => FAULT,
        (false, true) => NOT_JUDGED,
        (false, false) => CLEAN,
    })
}

/// Exit status of a command that is refused.
pub(crate) fn refused() -> ExitCode {
    ExitCode::from(REFUSED)
}
