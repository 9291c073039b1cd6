//! Changes of a QEMU command's options, and the text that has them.

use std::ops::Range;

use crate::parse::command::{Command, Opt};
use crate::parse::expansion::Writing;
use crate::parse::properties::Properties;

impl Command {
    /// Gives an option's property a value.
    pub(crate) fn set(&mut self, index: usize, key: &str, value: &str) {
        if let Some(option) = self.options.get_mut(index) {
            let is_hidden = option.properties.has(key) && !option.written.has(key);
            option.is_blocked |= is_hidden;
            option.properties.set(key, value);
            option.written.set(key, value);
            option.is_changed = true;
        }
    }

    /// Changes what an option names first: a model, an accelerator.
    pub(crate) fn set_kind(&mut self, index: usize, key: &str, kind: &str) {
        if let Some(option) = self.options.get_mut(index) {
            option.properties.set_kind(key, kind);
            option.written.set_kind(key, kind);
            option.is_changed = true;
        }
    }

    /// Takes an option's property away.
    pub(crate) fn unset(&mut self, index: usize, key: &str) {
        if let Some(option) = self.options.get_mut(index) {
            if !option.properties.has(key) {
                return;
            }
            option.is_blocked |= !option.written.has(key);
            option.properties.remove(key);
            option.written.remove(key);
            option.is_changed = true;
        }
    }

    /// Takes an option away.
    pub(crate) fn remove(&mut self, index: usize) {
        if let Some(option) = self.options.get_mut(index) {
            option.is_removed = true;
        }
    }

    /// Adds an option in front of another; in front of the loop that makes the other one.
    pub(crate) fn add_before(&mut self, index: usize, name: &'static str, value: String) {
        let is_free = |option: &Opt| option.writing != Writing::Fixed;
        let is_made = self
            .options
            .get(index)
            .is_some_and(|option| !is_free(option));
        if is_made {
            let before = self.options.get(..index).unwrap_or_default();
            if let Some(before) = before.iter().rposition(is_free) {
                return self.add_behind(before, name, value);
            }
        }
        if let Some(option) = self.options.get_mut(index) {
            option.added_before.push((name, value));
        }
    }

    /// Adds an option behind another; behind the loop that makes the other one.
    pub(crate) fn add_behind(&mut self, index: usize, name: &'static str, value: String) {
        let is_free = |option: &Opt| option.writing != Writing::Fixed;
        if self
            .options
            .get(index)
            .is_some_and(|option| !is_free(option))
        {
            let behind = self.options.get(index..).unwrap_or_default();
            if let Some(behind) = behind.iter().position(is_free) {
                return self.add_before(index + behind, name, value);
            }
        }
        if let Some(option) = self.options.get_mut(index) {
            option.added.push((name, value));
        }
    }

    /// Adds an option behind the last one of these that there is, or at the end.
    pub(crate) fn add(
        &mut self,
        is_near: impl Fn(&Opt) -> bool,
        name: &'static str,
        value: String,
    ) {
        let near = self.options.iter().rposition(is_near);
        let index = near.unwrap_or(self.options.len().saturating_sub(1));
        self.add_behind(index, name, value);
    }

    /// The text with all that was changed; `None` if a change can't be written.
    pub(crate) fn changed(&self) -> Option<String> {
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        let mut at_end = String::new();
        // a line for each where the command has several
        let gaps = self
            .options
            .iter()
            .filter(|option| option.writing == Writing::Word);
        let style = gaps.map(|option| {
            let before = self.before(option.range.start);
            separator(self.text.get(before).unwrap_or_default(), option.writing)
        });
        let style = style.into_iter().find(|gap| gap.contains('\n'));
        let gap_of = |gap: &str, option: &Opt| match separator(gap, option.writing) {
            gap if option.writing == Writing::Word && !gap.contains('\n') => {
                style.clone().unwrap_or(gap)
            }
            gap => gap,
        };
        for option in &self.options {
            let Range { start, end } = option.range;
            let between = self.before(start);
            let gap = self.text.get(between.clone()).unwrap_or_default();
            let is_fixed = option.writing == Writing::Fixed;
            if option.is_blocked || is_fixed && (option.is_changed || option.is_removed) {
                return None;
            }
            for (name, value) in &option.added_before {
                if is_fixed {
                    return None;
                }
                let text = self.added(option, name, value)?;
                let gap = gap_of(gap, option);
                edits.push((start..start, format!("{text}{gap}")));
            }
            if option.is_removed {
                edits.push((between.start..end, String::new()));
            } else if option.is_changed {
                let value = option.value.as_ref()?;
                let text = self.written(&option.written.to_string(), option)?;
                edits.push((value.range.clone(), text));
            }
            for (name, value) in &option.added {
                let text = self.added(option, name, value)?;
                let gap = gap_of(gap, option);
                match is_fixed {
                    true => at_end += &format!(" {text}"),
                    false => edits.push((end..end, format!("{gap}{text}"))),
                }
            }
        }
        if !at_end.is_empty() {
            // before the end of the line
            let before = self.blanked.get(..self.end).unwrap_or_default();
            let end = before.trim_end().len();
            edits.push((end..end, at_end));
        }
        // stable: what is at one place stays in its order
        edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::new();
        let mut at = 0;
        for (range, text) in &edits {
            out += self.text.get(at..range.start.max(at)).unwrap_or_default();
            out += text;
            at = range.end.max(at);
        }
        Some(out + self.text.get(at..).unwrap_or_default())
    }

    /// Blanks and continued lines before a byte, with the comments between them.
    fn before(&self, at: usize) -> Range<usize> {
        let before = self.blanked.get(..at).unwrap_or_default();
        let is_blank = |c: char| c.is_whitespace();
        let mut start = before.trim_end_matches(is_blank).len();
        while let Some(rest) = before
            .get(..start)
            .and_then(|before| before.strip_suffix('\\'))
        {
            if !before
                .get(start..)
                .is_some_and(|rest| rest.starts_with(['\n', '\r']))
            {
                break;
            }
            start = rest.trim_end_matches(is_blank).len();
        }
        start..at
    }

    /// An option that is added beside another. QEMU makes devices that are given as JSON after all
    /// others, so that a device beside JSON is JSON, too.
    fn added(&self, beside: &Opt, name: &str, value: &str) -> Option<String> {
        let json = Properties::read(value).ok().filter(|_| name == "device");
        let json = json.filter(|_| beside.name == "device");
        let json = json.and_then(|own| own.like(&beside.written, "driver"));
        let json = json.map(|own| own.to_string());
        let value = json.as_deref().unwrap_or(value);
        let value = match &beside.value {
            Some(_) => self.written(value, beside)?,
            None if beside.writing == Writing::Part => self.written(value, beside)?,
            None => shell_words::quote(value).into_owned(),
        };
        Some(format!("-{name} {value}"))
    }

    /// A value, quoted as another one is; `None` where no quotes are possible.
    fn written(&self, value: &str, like: &Opt) -> Option<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+%@^".contains(c);
        let is_plain = !value.is_empty() && value.chars().all(plain);
        if like.writing == Writing::Part {
            let is_simple = |c: char| plain(c) || c == '$' || c == '{' || c == '}';
            return value.chars().all(is_simple).then(|| value.to_owned());
        }
        let Some(word) = &like.value else {
            return Some(shell_words::quote(value).into_owned());
        };
        let raw = self.text.get(word.range.clone()).unwrap_or_default();
        if word.is_expanded && value.contains(['$', '`']) {
            return Some(match raw.starts_with('"') {
                true => format!("\"{value}\""),
                false => value.to_owned(),
            });
        }
        if !raw.starts_with(['\'', '"']) && is_plain {
            return Some(value.to_owned());
        }
        Some(shell_words::quote(value).into_owned())
    }
}

/// Separator of a further option from another: a line of its own if the other one has one.
fn separator(before: &str, writing: Writing) -> String {
    if writing == Writing::Part {
        return " ".to_owned();
    }
    let is_comment = |line: &&str| line.trim_start().starts_with(['#', ';']);
    let is_continued = |lines: &str| {
        let line = lines.lines().rev().find(|line| !is_comment(line));
        line.is_some_and(|line| line.ends_with('\\'))
    };
    match before.rsplit_once('\n') {
        Some((lines, indent)) if is_continued(lines) => format!(" \\\n{indent}"),
        Some((_, indent)) if indent.trim().is_empty() => format!("\n{indent}"),
        Some(_) | None => " ".to_owned(),
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
    fn what_is_changed_keeps_the_texts_style() {
        let mut command = read(TEXT);
        command.set(2, "id", "gpu0");
        command.add_behind(1, "object", "a,id=b".to_owned());
        command.add_behind(3, "smp", "8".to_owned());
        command.remove(0);
        let changed = command.changed().expect("every change can be written");
        assert_eq!(
            changed,
            "#!/bin/sh\n# a VM\nsudo qemu-system-aarch64 \\\n  -nodefaults \\\n  -object 'a,id=b' \
             \\\n  -device vfio-pci,host=0009:01:00.0,id=gpu0 -m 8G \\\n  -smp 8 \\\n  -bios \"$BIOS\"\n\
             echo done\n"
        );
    }

    #[test]
    fn a_comment_inside_of_a_units_command_does_not_end_it() {
        for comment in ["  # RAM", "; RAM", "# one\n  # and another"] {
            let text = format!(
                "[Service]\nExecStart=/usr/bin/qemu-system-aarch64 -M virt \\\n{comment}\n  -m 8G \
                 \\\n  -smp 4\n"
            );
            let mut command = read(&text);
            command.add_before(1, "numa", "node".to_owned());
            command.add_behind(1, "accel", "kvm".to_owned());
            command.remove(2);
            let changed = command.changed().expect("every change can be written");
            assert_eq!(
                changed,
                format!(
                    "[Service]\nExecStart=/usr/bin/qemu-system-aarch64 -M virt \\\n{comment}\n  \
                     -numa node \\\n  -m 8G \\\n  -accel kvm\n"
                )
            );
            let again: Vec<_> = read(&changed)
                .options
                .into_iter()
                .map(|one| one.name)
                .collect();
            assert_eq!(again, ["machine", "numa", "m", "accel"]);
        }
    }
}
