//! A QEMU command in a text: its program and its options, with their lines and bytes.

use std::ops::Range;

use super::error::{ReadError, line_of};
use super::properties::Properties;
use super::words::{Word, commands};

/// Options whose value is a list of properties.
const WITH_PROPERTIES: [&str; 10] = [
    "machine", "device", "object", "numa", "cpu", "accel", "m", "smp", "drive", "iommu",
];
/// 128 nodes, all their distances there and back, and some more.
const MOST_OPTIONS: usize = 20_000;
/// Options that say that a text without a program's name is a QEMU command line.
const TELLING: [&str; 5] = ["machine", "M", "device", "object", "numa"];

/// A command, and the text that it is in.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) text: String,
    /// The program, if it is named.
    pub(crate) program: Option<String>,
    /// The line that it begins in.
    pub(crate) line: usize,
    pub(crate) options: Vec<Opt>,
}

/// An option with its value.
#[derive(Clone, Debug)]
pub(crate) struct Opt {
    /// Without dashes; `machine` for `M`.
    pub(crate) name: String,
    /// Properties in the value.
    pub(crate) properties: Properties,
    /// The value as text; empty if there is no value.
    pub(crate) text: String,
    pub(crate) line: usize,
    /// From the end of what is before it to its own end.
    pub(crate) range: Range<usize>,
    pub(crate) name_at: usize,
    pub(crate) value: Option<Word>,
    pub(crate) is_changed: bool,
    pub(crate) is_removed: bool,
    pub(crate) added_before: Vec<(&'static str, String)>,
    pub(crate) added: Vec<(&'static str, String)>,
}

impl Command {
    /// Finds the one QEMU command in a text.
    ///
    /// # Errors
    /// [`ReadError`]: none, several, or one that can't be read.
    pub(crate) fn read(text: String) -> Result<Self, ReadError> {
        let text = if text.contains('\0') {
            from_process(&text)
        } else {
            text
        };
        let all = commands(&text)?;
        let mut found: Option<(&[Word], &Word)> = None;
        for words in &all {
            let Some((at, program)) = program(words) else {
                continue;
            };
            let rest = words.get(at + 1..).unwrap_or_default();
            if !rest.iter().any(|word| word.text.starts_with('-')) {
                continue;
            }
            if let Some((_, first)) = found {
                return Err(ReadError::Commands {
                    first: line_of(&text, first.range.start),
                    second: line_of(&text, program.range.start),
                });
            }
            found = Some((rest, program));
        }
        let (program, begin, words) = match found {
            Some((words, program)) => (
                Some(program.text.clone()),
                program.range.end,
                words.to_vec(),
            ),
            // the arguments alone, or in an array of a shell
            None => (None, 0, all.concat()),
        };
        let named = words.iter().any(|word| {
            let name = word.text.trim_start_matches('-');
            word.text.starts_with('-') && TELLING.contains(&name)
        });
        if program.is_none() && !named {
            let line = words
                .first()
                .map_or(1, |word| line_of(&text, word.range.start));
            return Err(ReadError::Neither { line });
        }
        let first = words.first().map_or(0, |word| word.range.start);
        let line = line_of(&text, if begin > 0 { begin } else { first });
        let options = options(&text, begin, words)?;
        Ok(Self {
            text,
            program,
            line,
            options,
        })
    }

    /// The text, with nothing changed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The program of a command, and its place among the words.
fn program(words: &[Word]) -> Option<(usize, &Word)> {
    let name = |word: &Word| word.text.rsplit('/').next().map(str::to_owned);
    let is_system = |word: &Word| name(word).is_some_and(|name| name.starts_with("qemu-system-"));
    // a short name is also a user's, a group's, a module's and a device's
    let is_short = |at: usize, word: &Word| {
        let is_program = at == 0 || word.text.contains('/') && !word.text.starts_with("/dev/");
        is_program && matches!(name(word).as_deref(), Some("qemu-kvm" | "kvm" | "qemu"))
    };
    let all = || words.iter().enumerate();
    all()
        .find(|(_, word)| is_system(word))
        .or_else(|| all().find(|(at, word)| is_short(*at, word)))
}

/// `/proc/PID/cmdline`, as a person would write it.
fn from_process(text: &str) -> String {
    let mut out = String::new();
    for word in text.trim_end_matches('\0').split('\0') {
        if out.is_empty() {
        } else if word.starts_with('-') && word.len() > 1 {
            out += " \\\n  ";
        } else {
            out.push(' ');
        }
        out += &shell_words::quote(word);
    }
    out + "\n"
}

fn options(text: &str, begin: usize, words: Vec<Word>) -> Result<Vec<Opt>, ReadError> {
    let mut options = Vec::new();
    let mut end = begin;
    let (mut line, mut counted) = (1, 0);
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next() {
        let start = std::mem::replace(&mut end, word.range.end);
        let Some(name) = word.text.strip_prefix('-') else {
            continue;
        };
        let name = match name.strip_prefix('-').unwrap_or(name) {
            "M" => "machine",
            name => name,
        };
        let is_list = WITH_PROPERTIES.contains(&name);
        let value = rest.next_if(|next| is_list || !next.text.starts_with('-'));
        if let Some(value) = &value {
            end = value.range.end;
        }
        if options.len() >= MOST_OPTIONS {
            return Err(ReadError::Options { most: MOST_OPTIONS });
        }
        line += text
            .get(counted..word.range.start)
            .map_or(0, |text| text.matches('\n').count());
        counted = word.range.start;
        let content = value
            .as_ref()
            .map(|word| word.text.clone())
            .unwrap_or_default();
        let properties = Properties::read(if is_list { &content } else { "" });
        options.push(Opt {
            name: name.to_owned(),
            properties: properties.map_err(|error| ReadError::Json {
                line,
                option: name.to_owned(),
                why: error.to_string(),
            })?,
            text: content,
            line,
            range: start..end,
            name_at: word.range.start,
            value,
            is_changed: false,
            is_removed: false,
            added_before: Vec::new(),
            added: Vec::new(),
        });
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "#!/bin/sh\n# a VM\nsudo qemu-system-aarch64 -M virt \\\n  -nodefaults \\\n  \
        -device vfio-pci,host=0009:01:00.0 -m 8G \\\n  -bios \"$BIOS\"\necho done\n";

    fn read(text: &str) -> Command {
        Command::read(text.to_owned()).expect(text)
    }

    #[test]
    fn options_are_found_in_a_script() {
        let command = read(TEXT);
        assert_eq!(command.program.as_deref(), Some("qemu-system-aarch64"));
        let options: Vec<_> = command
            .options
            .iter()
            .map(|option| (option.name.as_str(), option.text.as_str(), option.line))
            .collect();
        assert_eq!(
            options,
            [
                ("machine", "virt", 3),
                ("nodefaults", "", 4),
                ("device", "vfio-pci,host=0009:01:00.0", 5),
                ("m", "8G", 5),
                ("bios", "$BIOS", 6),
            ]
        );
        assert_eq!(command.changed(), TEXT);
    }

    #[test]
    fn arguments_of_a_process_become_lines() {
        let command = read("/usr/bin/qemu-system-aarch64\0-name\0a b\0-m\08G\0");
        assert_eq!(
            command.text(),
            "/usr/bin/qemu-system-aarch64 \\\n  -name 'a b' \\\n  -m 8G\n"
        );
    }

    #[test]
    fn an_array_of_a_shell_is_a_command_line() {
        let command = read(
            "args=(\n  -machine virt\n  # RAM\n  -m 8G\n)\nqemu-system-aarch64 \"${args[@]}\"\n",
        );
        assert_eq!(command.options.len(), 2);
    }

    #[test]
    fn what_is_no_command_or_several_is_refused() {
        let refused = |text: &str| Command::read(text.to_owned()).expect_err(text);
        assert_eq!(refused("hello\n"), ReadError::Neither { line: 1 });
        let two = "qemu-system-aarch64 -m 1\nqemu-system-x86_64 -m 1\n";
        assert_eq!(
            refused(two),
            ReadError::Commands {
                first: 1,
                second: 2
            }
        );
        assert!(matches!(
            refused("qemu-system-aarch64 \\\n -device '{\"a\"'"),
            ReadError::Json { line: 2, .. }
        ));
    }
}
