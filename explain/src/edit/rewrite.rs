//! Changes of a QEMU command's options, and the text that has them.

use std::ops::Range;

use crate::parse::command::{Command, Opt};
use crate::parse::words::Word;

impl Command {
    /// Gives an option's property a value.
    pub(crate) fn set(&mut self, index: usize, key: &str, value: &str) {
        if let Some(option) = self.options.get_mut(index) {
            option.properties.set(key, value);
            option.is_changed = true;
        }
    }

    /// Changes what an option names first: a model, an accelerator.
    pub(crate) fn set_kind(&mut self, index: usize, key: &str, kind: &str) {
        if let Some(option) = self.options.get_mut(index) {
            option.properties.set_kind(key, kind);
            option.is_changed = true;
        }
    }

    /// Takes an option's property away.
    pub(crate) fn unset(&mut self, index: usize, key: &str) {
        if let Some(option) = self.options.get_mut(index) {
            option.properties.remove(key);
            option.is_changed = true;
        }
    }

    /// Takes an option away.
    pub(crate) fn remove(&mut self, index: usize) {
        if let Some(option) = self.options.get_mut(index) {
            option.is_removed = true;
        }
    }

    /// Adds an option in front of another.
    pub(crate) fn add_before(&mut self, index: usize, name: &'static str, value: String) {
        if let Some(option) = self.options.get_mut(index) {
            option.added_before.push((name, value));
        }
    }

    /// Adds an option behind another.
    pub(crate) fn add_behind(&mut self, index: usize, name: &'static str, value: String) {
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

    /// The text with all that was changed.
    pub(crate) fn changed(&self) -> String {
        let mut out = String::new();
        let mut at = 0;
        for option in &self.options {
            let Range { start, end } = option.range;
            out += self.text.get(at..start).unwrap_or_default();
            at = end;
            let before = self.text.get(start..option.name_at).unwrap_or_default();
            let more = |(name, value): &(&str, String)| {
                let value = match &option.value {
                    Some(like) => self.written(value, like),
                    None => shell_words::quote(value).into_owned(),
                };
                format!("{}-{name} {value}", separator(before))
            };
            out.extend(option.added_before.iter().map(more));
            if !option.is_removed {
                match &option.value {
                    Some(value) if option.is_changed => {
                        let name = start..value.range.start;
                        out += self.text.get(name).unwrap_or_default();
                        out += &self.written(&option.properties.to_string(), value);
                    }
                    _ => out += self.text.get(start..end).unwrap_or_default(),
                }
            }
            out.extend(option.added.iter().map(more));
        }
        out + self.text.get(at..).unwrap_or_default()
    }

    /// A value, quoted as another one is.
    fn written(&self, value: &str, like: &Word) -> String {
        let raw = self.text.get(like.range.clone()).unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,.:/+%@^".contains(c);
        if like.is_expanded && value.contains(['$', '`']) {
            return match raw.starts_with('"') {
                true => format!("\"{value}\""),
                false => value.to_owned(),
            };
        }
        if raw == like.text && !value.is_empty() && value.chars().all(plain) {
            return value.to_owned();
        }
        shell_words::quote(value).into_owned()
    }
}

/// Separator of a further option from the one before: a line of its own if that option has one.
fn separator(before: &str) -> String {
    match before.rsplit_once('\n') {
        Some((line, indent)) if line.trim_end_matches('\r').ends_with('\\') => {
            format!(" \\\n{indent}")
        }
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
        let changed = command.changed();
        assert_eq!(
            changed,
            "#!/bin/sh\n# a VM\nsudo qemu-system-aarch64 \\\n  -nodefaults \\\n  -object 'a,id=b' \
             \\\n  -device vfio-pci,host=0009:01:00.0,id=gpu0 -m 8G -smp 8 \\\n  -bios \"$BIOS\"\n\
             echo done\n"
        );
    }
}
