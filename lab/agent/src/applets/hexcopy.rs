//! `hexcopy`: standard input as hexadecimal digits, to see that applets work.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::process::ExitCode;

pub(super) fn run(_arguments: &[String]) -> ExitCode {
    match copy() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hexcopy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn copy() -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(digits, "{byte:02x}").map_err(io::Error::other)?;
    }
    io::stdout().write_all(digits.as_bytes())
}
