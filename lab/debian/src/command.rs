//! Running this machine's programs: the error says what was run and what it printed.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Number of lines of a failed program's output that an error shows.
const SHOWN_LINES: usize = 40;

/// Runs a program to its end with its output collected; anything but success is an error.
///
/// # Errors
/// [`Error::Missing`] if there is no such program, [`Error::Command`] if it fails.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| unstartable(command, source))?;
    if output.status.success() {
        return Ok(output);
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(failed(command, &output.status.to_string(), &text))
}

/// [`run`] that returns the standard output as text.
///
/// # Errors
/// Those of [`run`].
pub fn text(command: &mut Command) -> Result<String> {
    run(command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The error for a program that ran and failed, with the end of what it printed.
#[must_use]
pub fn failed(command: &Command, status: &str, output: &str) -> Error {
    Error::Command {
        command: line(command),
        status: status.to_owned(),
        output: last_lines(output, SHOWN_LINES),
    }
}

/// The error for a program that could not be started.
#[must_use]
pub fn unstartable(command: &Command, source: io::Error) -> Error {
    let program = command.get_program().to_string_lossy().into_owned();
    if source.kind() != io::ErrorKind::NotFound {
        return Error::Io {
            doing: format!("run {program}"),
            source,
        };
    }
    let package = match program.as_str() {
        "unshare" => "util-linux",
        "apt-get" | "apt-cache" => "apt",
        "dpkg-deb" => "dpkg",
        _ => "",
    };
    let remedy = if package.is_empty() {
        "install the package that has it".to_owned()
    } else {
        format!("install the package {package} (the lab runs on Debian and its derivatives)")
    };
    Error::missing(
        format!("the program {program} is not on this machine"),
        remedy,
    )
}

/// A command as it would be typed into a shell.
#[must_use]
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// Path of a program in `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The last `count` lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(count)..)
        .unwrap_or_default()
        .join("\n")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("qemu");
        command.args(["-device", r#"{"driver":"x"}"#, "it's", ""]);
        assert_eq!(
            line(&command),
            r#"qemu -device '{"driver":"x"}' 'it'\''s' ''"#
        );
    }

    #[test]
    fn a_failure_shows_command_status_and_output() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 7"])).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("exit status: 7") && message.ends_with("why"),
            "{message}"
        );
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = unstartable(&Command::new("unshare"), io::ErrorKind::NotFound.into());
        assert!(
            error.to_string().contains("install the package util-linux"),
            "{error}"
        );
    }
}
