//! Scripts that are a word of a command: `sh -c 'SCRIPT'`.

use super::{Effort, Word, Writing, nested};

/// Most scripts that are in each other.
const DEEPEST: usize = 4;

/// Place of the word that another shell executes: behind `sh -c`, or the last one of `ssh HOST`.
pub(super) fn place(words: &[Word]) -> Option<usize> {
    const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "ksh"];
    const OF_USERS: [&str; 2] = ["su", "runuser"];
    const OTHERS: [&str; 4] = ["ssh", "tmux", "screen", "script"];
    let name = |word: &Word| word.text.rsplit('/').next().unwrap_or_default().to_owned();
    let is_one = |names: &[&str], word: &Word| names.contains(&name(word).as_str());
    let is_shell = |word: &Word| is_one(&SHELLS, word) || is_one(&OF_USERS, word);
    if let Some(shell) = words.iter().position(is_shell) {
        let rest = words.get(shell + 1..).unwrap_or_default();
        let is_script = |word: &Word| word.text.starts_with('-') && word.text.ends_with('c');
        let option = rest.iter().position(is_script)?;
        // behind the name of a script `-c` is the script's
        let mut before = rest.iter().take(option);
        let is_own = words.get(shell).is_some_and(|word| is_one(&OF_USERS, word))
            || before.all(|word| word.text.starts_with('-'));
        let at = shell + option + 2;
        return Some(at).filter(|at| is_own && *at < words.len());
    }
    let first = words.iter().find(|word| !is_one(&["sudo", "exec"], word))?;
    let last = words.last()?;
    let is_text = last.text.contains(char::is_whitespace);
    (is_one(&OTHERS, first) && is_text).then_some(words.len() - 1)
}

/// Commands that a shell executes whose script is a word; they can't be changed.
pub(super) fn commands(word: &Word, effort: &mut Effort) -> Vec<Vec<Word>> {
    if effort.depth >= DEEPEST {
        return Vec::new();
    }
    effort.depth += 1;
    effort.count += word.text.len();
    let inner = nested(&word.text, 0..word.text.len(), effort);
    effort.depth -= 1;
    let Ok(inner) = inner else {
        return Vec::new();
    };
    let outer = |mut inner: Word| {
        inner.open.extend(word.open.clone());
        inner.more.extend(word.more.clone());
        Word {
            range: word.range.clone(),
            writing: Writing::Fixed,
            ..inner
        }
    };
    let words = |words: Vec<Word>| words.into_iter().map(outer).collect();
    inner.commands.into_iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::super::script;
    use super::*;

    #[test]
    fn a_script_in_a_word_is_read() {
        for (text, wanted) in [
            ("sh -c 'q -m 8G'", Some("q -m 8G")),
            ("sudo bash -euc \"q -m '8G'\"", Some("q -m 8G")),
            (
                "docker run --rm image /bin/sh -c 'exec q \\\n -m 8G'",
                Some("exec q -m 8G"),
            ),
            ("su - vm -c 'q -m 8G'", Some("q -m 8G")),
            ("ssh host 'q -m 8G'", Some("q -m 8G")),
            ("tmux new-session -d 'A=8G; q -m $A'", Some("q -m 8G")),
            ("ssh host q -m 8G", None),
            ("bash run.sh -c 'q -m 8G'", None),
            ("sh -c", None),
            ("q -name sh -m 8G", None),
        ] {
            let all = script(text, 0..text.len()).expect(text).commands;
            let words = |words: &Vec<Word>| {
                let words = words.iter().map(|word| word.text.as_str());
                words.collect::<Vec<_>>().join(" ")
            };
            let all: Vec<_> = all.iter().map(words).collect();
            match wanted {
                Some(wanted) => assert!(all.contains(&wanted.to_owned()), "{text}: {all:?}"),
                None => assert_eq!(all.len(), 1, "{text}: {all:?}"),
            }
        }
    }
}
