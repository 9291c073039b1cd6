//! Reading a host's files, with a note of each file that can't be read or parsed.
//!
//! A missing file is not noted: the host does not have the feature.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;

use varia_facts::Unread;

use crate::tree::Tree;

/// Largest part of a malformed file that is quoted, in characters.
const SHOWN: usize = 40;

/// Files of a host, and notes of the files that could not be read or parsed.
pub(crate) struct Reading<'a> {
    pub(crate) tree: &'a Tree,
    unread: RefCell<BTreeMap<String, String>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn of(tree: &'a Tree) -> Self {
        Self {
            tree,
            unread: RefCell::default(),
        }
    }

    /// Notes the fault of a file.
    pub(crate) fn note(&self, path: &str, why: String) {
        self.unread.borrow_mut().insert(path.to_owned(), why);
    }

    /// Notes a file that can't be parsed.
    pub(crate) fn garbage(&self, path: &str, text: &str, wanted: &str) {
        let start: String = text.chars().take(SHOWN).collect();
        let more = if text.chars().nth(SHOWN).is_some() {
            "..."
        } else {
            ""
        };
        self.note(path, format!("{start:?}{more} is not a {wanted}"));
    }

    /// Text of a file without surrounding white space.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        match self.tree.read(path) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) => {
                use io::ErrorKind::{NotADirectory, NotFound};
                if !matches!(error.kind(), NotFound | NotADirectory) {
                    self.note(path, error.to_string());
                }
                None
            }
        }
    }

    /// Value of a file.
    pub(crate) fn value<T: FromStr>(&self, path: &str, wanted: &str) -> Option<T> {
        let text = self.text(path)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.garbage(path, &text, wanted);
        }
        value
    }

    /// Files that could not be read or parsed, by path.
    pub(crate) fn unread(self) -> Vec<Unread> {
        let unread = self.unread.into_inner().into_iter();
        unread.map(|(path, why)| Unread { path, why }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_file_is_noted_with_its_path_and_an_absent_file_is_not() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &[u8]| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("sys/bus/x", b"");
        file("sys/number", b"12\n");
        file(
            "sys/words",
            b"\xff\x00 is no number and goes on for longer than that",
        );
        let tree = Tree::open(root.path()).unwrap();
        let reading = Reading::of(&tree);
        assert_eq!(reading.value::<u32>("sys/number", "number"), Some(12));
        assert_eq!(reading.value::<u32>("sys/absent", "number"), None);
        assert_eq!(reading.value::<u32>("sys/words", "number"), None);
        assert_eq!(reading.text("sys/bus"), None, "a directory");
        let unread = reading.unread();
        let paths: Vec<_> = unread.iter().map(|unread| unread.path.as_str()).collect();
        assert_eq!(paths, ["sys/bus", "sys/words"]);
        assert!(unread[1].why.ends_with("... is not a number"), "{unread:?}");
    }
}
