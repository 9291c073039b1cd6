//! A definition's text -> the model.
//!
//! | module | what is in it |
//! |---|---|
//! | `words`, `expansion`, `script` | a shell's statements, the values of its words, its commands |
//! | `properties`, `command` | the values of QEMU's options, a command with its options |
//! | `arguments` | a QEMU command line -> the model |
//! | `document`, `domain` | a libvirt domain -> the model |
//! | `forms`, `templates`, `error` | texts that are no definition |

pub(crate) mod arguments;
pub(crate) mod command;
pub(crate) mod document;
pub(crate) mod domain;
pub(crate) mod error;
pub(crate) mod expansion;
pub(crate) mod forms;
pub(crate) mod properties;
pub(crate) mod script;
pub(crate) mod templates;
pub(crate) mod words;

use crate::model::Definition;
use command::Command;
use error::{MOST_BYTES, ReadError};

/// Text of a definition, in its language.
pub(crate) enum Source {
    Qemu(Command),
    Libvirt(String),
}

impl Source {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        if bytes.len() > MOST_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            ReadError::NotText {
                line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            }
        })?;
        if text
            .trim_matches(|c: char| c.is_whitespace() || matches!(c, '\0' | '\u{feff}'))
            .is_empty()
        {
            return Err(ReadError::Empty);
        }
        let begin = text.trim_start_matches('\u{feff}').trim_start();
        if begin.starts_with('<') {
            document::check(text)?;
            return Ok(Self::Libvirt(text.to_owned()));
        }
        Command::read(text.to_owned()).map(Self::Qemu)
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Qemu(command) => command.text(),
            Self::Libvirt(text) => text,
        }
    }

    pub(crate) fn definition(&self) -> Result<Definition, ReadError> {
        match self {
            Self::Qemu(command) => Ok(arguments::definition(command)),
            Self::Libvirt(text) => domain::definition(text),
        }
    }
}
