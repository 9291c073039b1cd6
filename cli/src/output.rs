//! Output to the terminal: results to standard output, one line for each failure to standard
//! error.

use std::io::{self, Write};

use crate::Failure;

/// Prints to standard output; a closed pipe is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints the failure of a command in one line.
pub(crate) fn complain(text: &str) {
    eprintln!("varia: {}", printable(text));
}

/// A text in one line, without control characters.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Joins clap's message of several lines into one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        match out.chars().last() {
            None => {}
            Some(':') => out.push(' '),
            Some(_) => out.push_str("; "),
        }
        out.push_str(line.trim_end_matches('.'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_lines_become_one() {
        let text = "error: missing:\n  <PROFILE>\n\nUsage: varia inspect <PROFILE>\n\nTry it.\n";
        let line = "missing: <PROFILE>; Usage: varia inspect <PROFILE>; Try it";
        assert_eq!(one_line(text), line);
    }
}
