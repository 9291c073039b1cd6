//! What goes to the terminal: results to standard output, one line for each failure to standard
//! error.

use std::io::{self, Write};

use crate::Failure;

/// Prints to standard output; a reader that has gone is no error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Says why a command ends, in one line whatever is in the text.
pub(crate) fn complain(text: &str) {
    eprintln!("varia: {}", printable(text));
}

/// A text in one line, without what a terminal would obey.
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

/// What clap says in several lines, in one.
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
