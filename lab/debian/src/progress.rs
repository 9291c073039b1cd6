//! Saying what is being fetched and how far it is: bars on a terminal, else plain lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Interval of messages about a long step in a log without a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Unit of counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things, such as packages.
    Items,
}

/// Step with a known or unknown extent. Written to standard error.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: Unit,
    total: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    spoken: Instant,
    position: u64,
}

impl Progress {
    /// Starts a step; `total` of 0 means unknown.
    #[must_use]
    pub fn start(what: impl Into<String>, unit: Unit, total: u64) -> Self {
        let what = what.into();
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| bar(&what, unit, total));
        if bar.is_none() {
            match (unit, total) {
                (_, 0) => eprintln!("{what} ..."),
                (Unit::Bytes, _) => eprintln!("{what} ({}) ...", bytes(total)),
                (Unit::Items, _) => eprintln!("{what} ({total}) ..."),
            }
        }
        let now = Instant::now();
        Self {
            what,
            unit,
            total,
            bar,
            started: now,
            spoken: now,
            position: 0,
        }
    }

    /// Shows the position.
    pub fn set(&mut self, position: u64) {
        self.position = position;
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        } else if self.spoken.elapsed() >= PLAIN_INTERVAL {
            self.spoken = Instant::now();
            let amount = |n| {
                if self.unit == Unit::Bytes {
                    bytes(n)
                } else {
                    n.to_string()
                }
            };
            if self.total == 0 {
                eprintln!("{}: {}", self.what, amount(position));
            } else {
                eprintln!(
                    "{}: {} of {}",
                    self.what,
                    amount(position),
                    amount(self.total)
                );
            }
        }
    }

    /// Advances the position by one.
    pub fn advance(&mut self) {
        self.set(self.position + 1);
    }

    /// Ends the step.
    pub fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f32();
        match self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{}: done in {seconds:.1} s", self.what);
            }
            None if seconds >= 1.0 => eprintln!("{}: done in {seconds:.1} s", self.what),
            None => {}
        }
    }
}

/// A number of bytes for people, in decimal units as package tools print them.
#[must_use]
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{} kB", count / 1_000),
        _ => format!("{} MB", count.div_ceil(1_000_000)),
    }
}

fn bar(what: &str, unit: Unit, total: u64) -> ProgressBar {
    let (bar, template) = match (unit, total) {
        (_, 0) => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
        (Unit::Bytes, _) => (
            ProgressBar::new(total),
            "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
        ),
        (Unit::Items, _) => (ProgressBar::new(total), "{msg} [{bar:30}] {pos}/{len}"),
    };
    // The templates are constants; a fault in one would only cost the decoration.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_package_tools_print_them() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(26_400), "26 kB");
        assert_eq!(bytes(377_581_000), "378 MB");
    }
}
