//! Form of the log's lines, as docs/cluster.md describes it.

use std::fs;
use std::path::{Path, PathBuf};

/// Source files of the crate.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut all = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => all.extend(sources(&path)),
            false => all.push(path),
        }
    }
    all
}

#[test]
fn every_line_names_its_event_and_every_warning_and_error_what_was_found() {
    let mut lines = 0;
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for (level, needed) in [
            ("info", &["event="][..]),
            ("warn", &["event=", " found={"]),
            ("error", &["event=", " found={"]),
        ] {
            for call in text.split(&format!("log::{level}!(")).skip(1) {
                // the format is the first string of the call
                let format = call.split('"').nth(1).unwrap();
                for part in needed {
                    assert!(
                        format.contains(part),
                        "{}: {format:?} has no {part}",
                        path.display()
                    );
                }
                lines += 1;
            }
        }
    }
    assert!(lines > 15, "{lines}");
}
