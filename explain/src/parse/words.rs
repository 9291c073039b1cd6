//! The words of a shell command, with where they stand.
//!
//! Only the boundaries of words are found here, and what ends a command; what quotes mean is
//! `shell_words`' affair. Nothing is expanded: a word with a `$` or a backtick stays as it is written.

use std::ops::Range;

use super::error::{ReadError, line_of};

/// A word of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    /// Range of the text, quotes included.
    pub(crate) range: Range<usize>,
    /// Content, quotes removed; as it is written where a shell would expand something.
    pub(crate) text: String,
    /// A shell would expand something in it.
    pub(crate) is_expanded: bool,
}

/// The commands of a script, each with its words.
pub(crate) fn commands(text: &str) -> Result<Vec<Vec<Word>>, ReadError> {
    let mut scanner = Scanner { text, at: 0 };
    let mut commands = vec![Vec::new()];
    // a word behind a redirection names a file
    let mut is_file = false;
    while let Some(byte) = scanner.peek(0) {
        match byte {
            b' ' | b'\t' | b'\r' => scanner.at += 1,
            b'\\' if scanner.is_newline(1) => scanner.at += 2,
            b'\\' if scanner.peek(1) == Some(b'\r') && scanner.is_newline(2) => scanner.at += 3,
            b'#' => scanner.skip_line(),
            b'\n' | b';' | b'&' | b'|' | b'(' | b')' => {
                scanner.at += 1;
                is_file = false;
                if commands.last().is_some_and(|words| !words.is_empty()) {
                    commands.push(Vec::new());
                }
            }
            b'<' | b'>' => {
                while matches!(scanner.peek(0), Some(b'<' | b'>' | b'&')) {
                    scanner.at += 1;
                }
                is_file = true;
            }
            _ => {
                let word = scanner.word()?;
                let of_redirection = matches!(scanner.peek(0), Some(b'<' | b'>'))
                    && word.text.bytes().all(|byte| byte.is_ascii_digit());
                if let (false, Some(words)) = (is_file || of_redirection, commands.last_mut()) {
                    words.push(word);
                }
                is_file = false;
            }
        }
    }
    commands.retain(|words| !words.is_empty());
    Ok(commands)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn is_newline(&self, ahead: usize) -> bool {
        self.peek(ahead) == Some(b'\n')
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<Word, ReadError> {
        let begin = self.at;
        let mut is_expanded = false;
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'(' | b')' | b'<' | b'>' => {
                    break;
                }
                b'\\' => self.at += 2,
                b'\'' => {
                    let quote = self.at;
                    self.at += 1;
                    self.until(b'\'', quote)?;
                }
                b'"' => is_expanded |= self.double_quotes()?,
                b'`' => {
                    let quote = self.at;
                    is_expanded = true;
                    self.at += 1;
                    self.until(b'`', quote)?;
                }
                b'$' => {
                    is_expanded = true;
                    self.expansion();
                }
                _ => self.at += 1,
            }
        }
        // a backslash at the very end
        self.at = self.at.min(self.text.len());
        let range = begin..self.at;
        let raw = self.text.get(range.clone()).unwrap_or_default();
        let text = if is_expanded {
            let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
            inner.unwrap_or(raw).to_owned()
        } else {
            match shell_words::split(raw) {
                Ok(words) if words.len() <= 1 => words.into_iter().next().unwrap_or_default(),
                Ok(_) | Err(_) => {
                    return Err(ReadError::Word {
                        line: line_of(self.text, begin),
                        word: raw.chars().take(40).collect(),
                    });
                }
            }
        };
        Ok(Word {
            range,
            text,
            is_expanded,
        })
    }

    /// Goes behind the next `end`.
    fn until(&mut self, end: u8, begin: usize) -> Result<(), ReadError> {
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == end {
                return Ok(());
            }
        }
        Err(self.unclosed(begin))
    }

    /// Goes behind the closing quote; whether a shell would expand something between.
    fn double_quotes(&mut self) -> Result<bool, ReadError> {
        let begin = self.at;
        let mut is_expanded = false;
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(is_expanded);
                }
                b'\\' => self.at += 2,
                b'$' => {
                    is_expanded = true;
                    self.expansion();
                }
                b'`' => {
                    is_expanded = true;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
        Err(self.unclosed(begin))
    }

    /// Goes behind `$`, and behind the parentheses or braces that follow it.
    fn expansion(&mut self) {
        self.at += 1;
        let (open, close) = match self.peek(0) {
            Some(b'(') => (b'(', b')'),
            Some(b'{') => (b'{', b'}'),
            _ => return,
        };
        let mut depth = 0_usize;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == open {
                depth += 1;
            } else if byte == close {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
        }
    }

    fn unclosed(&self, begin: usize) -> ReadError {
        let quote = self.text.as_bytes().get(begin).copied().unwrap_or(b'\'');
        ReadError::Quote {
            line: line_of(self.text, begin),
            quote: char::from(quote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Vec<String>> {
        let commands = commands(text).expect(text);
        let words = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect();
        commands.into_iter().map(words).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(
            texts("a 'b c' \\\n  d\\ e \"f\\\"g\" # not this\nh;i && j 2>&1 >log"),
            vec![
                vec!["a", "b c", "d e", "f\"g"],
                vec!["h"],
                vec!["i"],
                vec!["j"]
            ]
        );
        assert_eq!(
            texts("x=(-m 8G\n # c\n -smp 2)").concat(),
            ["x=", "-m", "8G", "-smp", "2"]
        );
    }

    #[test]
    fn what_a_shell_would_expand_stays() {
        let commands = commands("q -m \"$MEM\" -d a,$(lspci | x)b `y z`").expect("words");
        let words: Vec<_> = commands[0]
            .iter()
            .map(|word| (word.text.as_str(), word.is_expanded))
            .collect();
        assert_eq!(
            words,
            [
                ("q", false),
                ("-m", false),
                ("$MEM", true),
                ("-d", false),
                ("a,$(lspci | x)b", true),
                ("`y z`", true)
            ]
        );
    }

    #[test]
    fn a_quote_that_is_not_closed_is_named_with_its_line() {
        assert_eq!(
            commands("a\nb 'c\n"),
            Err(ReadError::Quote {
                line: 2,
                quote: '\''
            })
        );
        assert_eq!(
            commands("a \\\n \"b"),
            Err(ReadError::Quote {
                line: 2,
                quote: '"'
            })
        );
    }
}
