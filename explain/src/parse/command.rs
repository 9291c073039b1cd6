//! A QEMU command in a text: its program and its options, with their lines and bytes.

use std::ops::Range;

use super::error::{ReadError, line_of};
use super::expansion::{Word, Writing};
use super::forms::{other_file, other_form, other_program};
use super::properties::Properties;
use super::script::{Script, script};
use super::templates::template;

/// Options whose value is a list of properties.
const WITH_PROPERTIES: [&str; 11] = [
    "machine", "device", "object", "numa", "cpu", "accel", "m", "smp", "drive", "iommu", "fw_cfg",
];
/// 128 nodes, all their distances there and back, and some more.
const MOST_OPTIONS: usize = 20_000;
/// Options that say that a text without a program's name is a QEMU command line.
const TELLING: [&str; 5] = ["machine", "M", "device", "object", "numa"];
/// Line of libvirt's log before the command of a start.
const LIBVIRT_START: &str = "starting up libvirt version";

/// A command, and the text that it is in.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) text: String,
    /// The text as it is read: each byte in its place, comments inside of a unit's command blank.
    pub(crate) blanked: String,
    /// The program, if it is named.
    pub(crate) program: Option<String>,
    /// The line that it begins in.
    pub(crate) line: usize,
    /// The byte behind the last word of the command.
    pub(crate) end: usize,
    pub(crate) options: Vec<Opt>,
    /// Words that are no option and have an unknown value, with their lines.
    pub(crate) open: Vec<(usize, String)>,
    /// Defaults of variables that the script does not set: line, name, default.
    pub(crate) defaults: Vec<(usize, String, String)>,
}

/// An option with its value.
#[derive(Clone, Debug)]
pub(crate) struct Opt {
    /// Without dashes; `machine` for `M`.
    pub(crate) name: String,
    /// Properties in the value.
    pub(crate) properties: Properties,
    /// Properties as they are written: with variables.
    pub(crate) written: Properties,
    /// The value as text; empty if there is no value.
    pub(crate) text: String,
    pub(crate) line: usize,
    /// From the option's name to its end.
    pub(crate) range: Range<usize>,
    pub(crate) value: Option<Word>,
    /// How it can be changed.
    pub(crate) writing: Writing,
    /// Expansions in it with an unknown value.
    pub(crate) open: Vec<String>,
    pub(crate) is_changed: bool,
    /// A change that can't be written.
    pub(crate) is_blocked: bool,
    pub(crate) is_removed: bool,
    pub(crate) added_before: Vec<(&'static str, String)>,
    pub(crate) added: Vec<(&'static str, String)>,
}

impl Opt {
    /// An option that is not in the text of a shell.
    ///
    /// # Errors
    /// [`ReadError`] for a value in JSON that is none.
    pub(crate) fn given(name: &str, value: &str, line: usize) -> Result<Self, ReadError> {
        let name = name.trim_start_matches('-');
        let name = if name == "M" { "machine" } else { name };
        let is_list = WITH_PROPERTIES.contains(&name);
        let properties = Properties::read(if is_list { value } else { "" });
        let properties = properties.map_err(|error| ReadError::Json {
            line,
            option: name.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self {
            name: name.to_owned(),
            written: properties.clone(),
            properties,
            text: value.to_owned(),
            line,
            range: 0..0,
            value: None,
            writing: Writing::Fixed,
            open: Vec::new(),
            is_changed: false,
            is_blocked: false,
            is_removed: false,
            added_before: Vec::new(),
            added: Vec::new(),
        })
    }
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
        let part = match text.rfind(LIBVIRT_START) {
            Some(at) => last_start(&text, at),
            None => 0..text.len(),
        };
        if let Some((what, instead)) = other_form(&text) {
            return Err(ReadError::Form { what, instead });
        }
        let script = script(&unit(&text), part).map_err(|error| match other_file(&text) {
            Some((what, instead)) => ReadError::Form { what, instead },
            None => error,
        })?;
        if let Some(found) = one_command(&text, &script.commands)? {
            let mut command = Self::of(text, script.clone(), found)?;
            command.strays(&script.commands);
            return Ok(command);
        }
        // a script that writes the script with the command
        for document in script.documents.clone() {
            let inner = self::script(&text, document)?;
            if let Some(found) = one_command(&text, &inner.commands)? {
                return Self::of(text, inner, found);
            }
        }
        // the arguments alone, or in an array of a shell
        let words = script.commands.concat();
        let first = words.first();
        let line = first.map_or(1, |word| line_of(&text, word.range.start));
        let is_option = |word: &Word| {
            let name = word.text.trim_start_matches('-');
            word.text.starts_with('-') && TELLING.contains(&name)
        };
        let begins = first.is_some_and(|word| {
            word.text.starts_with('-') && word.text.len() > 1 || word.raw.ends_with('=')
        });
        if begins && words.iter().any(is_option) {
            return Self::of(text, script, (None, words));
        }
        let other = other_program(&script.commands).or_else(|| other_file(&text));
        if let Some((what, instead)) = other {
            return Err(ReadError::Form { what, instead });
        }
        Err(ReadError::Neither { line })
    }

    fn of(text: String, script: Script, (program, words): Started) -> Result<Self, ReadError> {
        let mut parts = words.iter().chain(&program);
        let part = parts.find_map(|word| Some((template(&word.text)?, word.range.start)));
        if let Some((part, at)) = part {
            let line = line_of(&text, at);
            return Err(ReadError::Template { line, part });
        }
        let begin = program.as_ref().map_or_else(
            || words.first().map_or(0, |word| word.range.start),
            |program| program.range.start,
        );
        let line = line_of(&text, begin);
        let own = words.iter().filter(|word| word.writing == Writing::Word);
        let ends = own.map(|word| word.range.end);
        let end = ends
            .max()
            .or(program.as_ref().map(|word| word.range.end))
            .unwrap_or(text.len());
        let (options, open) = options(&text, words)?;
        Ok(Self {
            blanked: unit(&text).into_owned(),
            text,
            program: program.map(|word| word.text),
            line,
            end,
            options,
            open,
            defaults: script.defaults,
        })
    }

    /// Names commands that begin with an option: a backslash is missing before them, or a comment
    /// ends the line, so that QEMU does not get the options.
    fn strays(&mut self, all: &[Vec<Word>]) {
        let first = all.iter().filter_map(|words| words.first());
        let strays = first.filter(|word| {
            let name = word.text.strip_prefix('-').unwrap_or_default();
            name.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
        });
        let strays = strays.map(|word| {
            let line = line_of(&self.text, word.range.start);
            (line, format!("{}, which no command begins with", word.text))
        });
        self.open.extend(strays.collect::<Vec<_>>());
    }

    /// The text, with nothing changed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// A unit of systemd without the comments between the lines of a command, which systemd leaves out;
/// every other byte keeps its place. Any other text as it is.
fn unit(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.lines().any(|line| line.trim() == "[Service]") {
        return text.into();
    }
    let mut out = String::new();
    let mut is_continued = false;
    for line in text.split_inclusive('\n') {
        if is_continued && line.trim_start().starts_with(['#', ';']) {
            out.extend(line.bytes().map(|_| ' '));
            continue;
        }
        is_continued = line.trim_end_matches(['\r', '\n']).ends_with('\\');
        out += line;
    }
    out.into()
}

/// A program, if it is named, and the words behind it.
type Started = (Option<Word>, Vec<Word>);

/// The one command among others that starts QEMU, and its words.
fn one_command(text: &str, all: &[Vec<Word>]) -> Result<Option<Started>, ReadError> {
    let mut found: Option<Started> = None;
    for words in all.iter().filter(|words| !is_talk(words)) {
        let Some((at, program)) = program(words) else {
            continue;
        };
        let rest = words.get(at + 1..).unwrap_or_default();
        if rest.iter().any(asks) {
            continue;
        }
        let is_started = |word: &Word| word.text.starts_with('-') || !word.open.is_empty();
        if !rest.iter().any(is_started) {
            continue;
        }
        if let Some((Some(first), _)) = &found {
            return Err(ReadError::Commands {
                first: line_of(text, first.range.start),
                second: line_of(text, program.range.start),
            });
        }
        found = Some((Some(program.clone()), rest.to_vec()));
    }
    Ok(found)
}

/// A command that names QEMU and does not start it.
fn is_talk(words: &[Word]) -> bool {
    const TALK: [&str; 8] = [
        "echo", "printf", "logger", "cat", "which", "type", "grep", "pgrep",
    ];
    words
        .first()
        .is_some_and(|first| TALK.contains(&first.text.as_str()))
}

/// An argument with which QEMU prints something and ends.
fn asks(word: &Word) -> bool {
    let text = word.text.as_str();
    matches!(
        text,
        "-h" | "-help" | "--help" | "-version" | "--version" | "help" | "?"
    ) || text.ends_with(",help")
        || text.ends_with("=help")
}

/// The command of the last start in libvirt's log.
fn last_start(text: &str, at: usize) -> Range<usize> {
    let rest = text.get(at..).unwrap_or_default();
    let begin = at + rest.find('\n').map_or(rest.len(), |end| end + 1);
    let mut end = begin;
    for line in text.get(begin..).unwrap_or_default().split_inclusive('\n') {
        end += line.len();
        if !line.trim_end_matches(['\n', '\r']).ends_with('\\') {
            break;
        }
    }
    begin..end
}

/// The program of a command, and its place among the words.
fn program(words: &[Word]) -> Option<(usize, &Word)> {
    let name = |word: &Word| word.text.rsplit('/').next().map(str::to_owned);
    let is_plain = |name: &str| {
        name.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let is_system = |word: &Word| {
        // `ExecStart=` of a unit may stand before it
        let name = name(word);
        let name = name
            .as_deref()
            .map(|name| name.strip_prefix("ExecStart=").unwrap_or(name));
        name.is_some_and(|name| name.starts_with("qemu-system-") && is_plain(name))
    };
    let is_setting = |word: &Word| {
        let name = word.text.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| !name.contains('/') && is_plain(name))
    };
    let first = words.iter().position(|word| !is_setting(word));
    // a short name is also a user's, a group's, a module's and a device's
    let is_short = |at: usize, word: &Word| {
        let is_program =
            Some(at) == first || word.text.contains('/') && !word.text.starts_with("/dev/");
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

/// Options, and the words that may be options.
type Options = (Vec<Opt>, Vec<(usize, String)>);

fn options(text: &str, words: Vec<Word>) -> Result<Options, ReadError> {
    let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_at = |at: usize| 1 + lines.partition_point(|line| *line < at);
    let (mut options, mut open): Options = Default::default();
    let mut rest = words.into_iter().peekable();
    while let Some(word) = rest.next() {
        let line = line_at(word.range.start);
        let value_more = rest
            .peek()
            .map(|next| next.more.clone())
            .unwrap_or_default();
        for text in word.more.iter().chain(&value_more) {
            if !open.iter().any(|(_, own)| own == text) {
                open.push((line, text.clone()));
            }
        }
        let Some(name) = word.text.strip_prefix('-') else {
            if word.text.starts_with('@') && word.open.is_empty() {
                open.push((line, word.text.clone()));
            }
            open.extend(word.open.into_iter().map(|text| (line, text)));
            continue;
        };
        let name = match name.strip_prefix('-').unwrap_or(name) {
            "M" => "machine",
            name => name,
        };
        let is_list = WITH_PROPERTIES.contains(&name);
        let value = rest.next_if(|next| is_list || !next.text.starts_with('-'));
        if options.len() >= MOST_OPTIONS {
            return Err(ReadError::Options { most: MOST_OPTIONS });
        }
        let end = value
            .as_ref()
            .map_or(word.range.end, |value| value.range.end);
        let of = |text: &str| {
            let properties = Properties::read(if is_list { text } else { "" });
            properties.map_err(|error| ReadError::Json {
                line,
                option: name.to_owned(),
                why: error.to_string(),
            })
        };
        let (content, raw) = match &value {
            Some(word) => (word.text.clone(), word.raw.clone()),
            None => (String::new(), String::new()),
        };
        let is_fixed = word.writing == Writing::Fixed || end < word.range.start;
        let writing = match value.as_ref().map_or(word.writing, |value| value.writing) {
            _ if is_fixed => Writing::Fixed,
            writing => writing,
        };
        let mut unknown = word.open.clone();
        unknown.extend(value.iter().flat_map(|value| value.open.clone()));
        unknown.dedup();
        let properties = of(&content).or_else(|error| {
            // ps prints JSON without the quotes of a shell
            let range = value.as_ref().map(|value| value.range.clone());
            let written = range.and_then(|range| text.get(range)).unwrap_or_default();
            match written.starts_with('{') {
                true => of(written).map_err(|_| error),
                false => Err(error),
            }
        })?;
        options.push(Opt {
            name: name.to_owned(),
            written: match raw == content {
                true => properties.clone(),
                // JSON with variables in it
                false => of(&raw).unwrap_or_else(|_| properties.clone()),
            },
            properties,
            text: content,
            line,
            range: word.range.start..end.max(word.range.end),
            value,
            writing,
            open: unknown,
            is_changed: false,
            is_blocked: false,
            is_removed: false,
            added_before: Vec::new(),
            added: Vec::new(),
        });
    }
    fix_repeated(&mut options);
    Ok((options, open))
}

/// Options that are written once and used several times can't be changed alone.
fn fix_repeated(options: &mut [Opt]) {
    let mut order: Vec<usize> = (0..options.len()).collect();
    order.sort_by_key(|at| options.get(*at).map(|option| option.range.start));
    for pair in order.windows(2) {
        let [one, other] = pair else { continue };
        let range = |at: &usize| options.get(*at).map(|option| option.range.clone());
        let (Some(first), Some(second)) = (range(one), range(other)) else {
            continue;
        };
        if second.start < first.end {
            for at in [one, other] {
                if let Some(option) = options.get_mut(*at) {
                    option.writing = Writing::Fixed;
                }
            }
        }
    }
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
        assert_eq!(command.changed().as_deref(), Some(TEXT));
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
    fn a_command_that_starts_nothing_is_none() {
        let start = "qemu-system-aarch64 -M virt -device vfio-pci,host=0009:01:00.0\n";
        for before in [
            "qemu-system-aarch64 --version",
            "qemu-system-aarch64 -device vfio-pci,help",
            "qemu-system-aarch64 -machine help",
            "echo qemu-system-aarch64 -m 1",
            "printf '%s\\n' qemu-system-aarch64 -m 1",
        ] {
            let command = read(&format!("{before}\n{start}"));
            assert_eq!(command.line, 2, "{before}");
        }
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
