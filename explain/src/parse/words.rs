//! The statements of a shell script: their words, with where they stand.
//!
//! Only the boundaries of words are found here, and what ends a statement. Quotes and expansions are
//! `expansion`'s affair, variables and loops `script`'s.

use std::ops::Range;

use super::error::{ReadError, line_of};

/// A statement of a script, as far as the boundaries of its words say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Statement {
    /// Words of a command; an assignment is a word of its own.
    Command(Vec<Raw>),
    /// A reserved word: `if`, `do`, `{`.
    Keyword(Keyword),
    /// `for NAME in WORDS`, or `for ((…))` with the text between the parentheses.
    For { at: usize, name: String, list: Loop },
    /// `NAME()`, which its body follows.
    Function,
}

/// Values of a loop's variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Loop {
    /// Words behind `in`.
    Words(Vec<Raw>),
    /// Text between `((` and `))`.
    Counter(Range<usize>),
}

/// A reserved word that begins or ends a compound statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keyword {
    /// `if`, `case`: what follows may not be executed.
    Condition,
    /// `while`, `until`, which `done` ends.
    While,
    /// `then`, `elif`, `else`.
    Branch,
    Do,
    Done,
    /// `fi`, `esac`.
    End,
    /// `{`
    Open,
    /// `}`
    Close,
    /// `&&`, `||`: what follows may not be executed.
    AndOr,
}

/// A word as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Raw {
    /// Range of the text, quotes included.
    pub(crate) range: Range<usize>,
    /// Words between the parentheses behind `NAME=` or `NAME+=`.
    pub(crate) array: Option<Vec<Raw>>,
}

/// The statements of a part of a text, and its documents (`<<END`).
///
/// # Errors
/// [`ReadError::Quote`]: a quote without an end.
pub(crate) fn statements(
    text: &str,
    part: Range<usize>,
) -> Result<(Vec<Statement>, Vec<Range<usize>>), ReadError> {
    let mut scanner = Scanner {
        text: text.get(..part.end).unwrap_or(text),
        at: part.start,
        ends: Vec::new(),
        documents: Vec::new(),
    };
    let mut out = vec![];
    let mut words: Vec<Raw> = Vec::new();
    // a word behind a redirection names a file
    let mut is_file = false;
    let end = |words: &mut Vec<Raw>, out: &mut Vec<Statement>| {
        if !words.is_empty() {
            out.push(statement(text, std::mem::take(words)));
        }
    };
    while let Some(byte) = scanner.peek(0) {
        match byte {
            b' ' | b'\t' | b'\r' => scanner.at += 1,
            b'\\' if scanner.is_newline(1) => scanner.at += 2,
            b'\\' if scanner.peek(1) == Some(b'\r') && scanner.is_newline(2) => scanner.at += 3,
            b'#' => scanner.skip_line(),
            b'(' if scanner.peek(1) == Some(b'(') && is_for(text, &words) => {
                let begin = scanner.at;
                let inner = scanner.counter();
                words.clear();
                out.push(Statement::For {
                    at: begin,
                    name: String::new(),
                    list: Loop::Counter(inner),
                });
            }
            b'(' if scanner.peek(1) == Some(b')') && words.len() == 1 => {
                scanner.at += 2;
                words.clear();
                out.push(Statement::Function);
            }
            b'\n' | b';' | b'&' | b'|' | b'(' | b')' => {
                let is_list = matches!(byte, b'&' | b'|') && scanner.peek(1) == Some(byte);
                let is_sure = byte == b'&' && always_succeeds(text, &words);
                scanner.at += 1 + usize::from(is_list);
                is_file = false;
                end(&mut words, &mut out);
                if is_list && !is_sure {
                    out.push(Statement::Keyword(Keyword::AndOr));
                }
                if byte == b'\n' {
                    scanner.skip_documents();
                }
            }
            b'<' | b'>' => {
                let begin = scanner.at;
                while matches!(scanner.peek(0), Some(b'<' | b'>' | b'&')) {
                    scanner.at += 1;
                }
                let sign = text.get(begin..scanner.at).unwrap_or_default();
                if sign == "<<" {
                    scanner.document()?;
                } else {
                    is_file = true;
                }
            }
            _ => {
                let range = scanner.word()?;
                let raw = text.get(range.clone()).unwrap_or_default();
                let of_redirection = matches!(scanner.peek(0), Some(b'<' | b'>'))
                    && raw.bytes().all(|byte| byte.is_ascii_digit());
                let array = match scanner.peek(0) == Some(b'(') && raw.ends_with('=') {
                    true => Some(scanner.array()?),
                    false => None,
                };
                if std::mem::take(&mut is_file) || of_redirection {
                    continue;
                }
                // the head of a function needs nothing between its name and the brace
                let is_head = matches!(words.as_slice(), [first, _]
                    if text.get(first.range.clone()) == Some("function"));
                let reserved = keyword(raw).filter(|keyword| {
                    let begins = words.is_empty() || is_head && *keyword == Keyword::Open;
                    begins && array.is_none()
                });
                match reserved {
                    Some(keyword) => {
                        end(&mut words, &mut out);
                        out.push(Statement::Keyword(keyword));
                    }
                    None => words.push(Raw { range, array }),
                }
            }
        }
    }
    end(&mut words, &mut out);
    Ok((out, scanner.documents))
}

/// The command is one that scripts take to succeed, so that what follows `&&` is executed.
fn always_succeeds(text: &str, words: &[Raw]) -> bool {
    const COMMANDS: [&str; 12] = [
        "cd", "pushd", "mkdir", "set", "umask", "ulimit", "echo", "true", ":", "export", "sleep",
        "rm",
    ];
    let first = words.first().and_then(|word| text.get(word.range.clone()));
    first.is_some_and(|first| COMMANDS.contains(&first))
}

fn keyword(word: &str) -> Option<Keyword> {
    Some(match word {
        "if" | "case" => Keyword::Condition,
        "while" | "until" => Keyword::While,
        "then" | "elif" | "else" => Keyword::Branch,
        "do" => Keyword::Do,
        "done" => Keyword::Done,
        "fi" | "esac" => Keyword::End,
        "{" => Keyword::Open,
        "}" => Keyword::Close,
        _ => return None,
    })
}

fn is_for(text: &str, words: &[Raw]) -> bool {
    matches!(words, [word] if text.get(word.range.clone()) == Some("for"))
}

/// A command, or the head of a loop.
fn statement(text: &str, words: Vec<Raw>) -> Statement {
    let is = |at: usize, wanted: &str| {
        let word = words.get(at).and_then(|word| text.get(word.range.clone()));
        word == Some(wanted)
    };
    if is(0, "function") {
        return Statement::Function;
    }
    if !is(0, "for") || !is(2, "in") {
        return Statement::Command(words);
    }
    let name = words.get(1).and_then(|word| text.get(word.range.clone()));
    Statement::For {
        at: words.first().map_or(0, |word| word.range.start),
        name: name.unwrap_or_default().to_owned(),
        list: Loop::Words(words.into_iter().skip(3).collect()),
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Ends of the documents that begin in the next line.
    ends: Vec<String>,
    documents: Vec<Range<usize>>,
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

    /// Words between parentheses, in any number of lines.
    fn array(&mut self) -> Result<Vec<Raw>, ReadError> {
        self.at += 1;
        let mut words = Vec::new();
        while let Some(byte) = self.peek(0) {
            match byte {
                b')' => {
                    self.at += 1;
                    break;
                }
                b'#' => self.skip_line(),
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'(' | b'<' | b'>' => {
                    self.at += 1;
                }
                b'\\' if self.is_newline(1) => self.at += 2,
                _ => words.push(Raw {
                    range: self.word()?,
                    array: None,
                }),
            }
        }
        Ok(words)
    }

    /// Text between `((` and `))`.
    fn counter(&mut self) -> Range<usize> {
        let begin = self.at + 2;
        let rest = self.text.get(begin..).unwrap_or_default();
        let end = begin + rest.find("))").unwrap_or(rest.len());
        self.at = (end + 2).min(self.text.len());
        begin..end
    }

    /// The word that ends a document.
    fn document(&mut self) -> Result<(), ReadError> {
        while matches!(self.peek(0), Some(b'-' | b' ' | b'\t')) {
            self.at += 1;
        }
        let range = self.word()?;
        let raw = self.text.get(range).unwrap_or_default();
        let end = raw.replace(['\'', '"', '\\'], "");
        if !end.is_empty() {
            self.ends.push(end);
        }
        Ok(())
    }

    /// Goes behind the documents whose lines begin here.
    fn skip_documents(&mut self) {
        for end in std::mem::take(&mut self.ends) {
            let first = self.at;
            while self.at < self.text.len() {
                let begin = self.at;
                self.skip_line();
                let line = self.text.get(begin..self.at).unwrap_or_default();
                self.at = (self.at + 1).min(self.text.len());
                if line.trim() == end {
                    self.documents.push(first..begin);
                    break;
                }
            }
        }
    }

    fn word(&mut self) -> Result<Range<usize>, ReadError> {
        let begin = self.at;
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
                b'"' => self.double_quotes()?,
                b'`' => {
                    let quote = self.at;
                    self.at += 1;
                    self.until(b'`', quote)?;
                }
                b'$' => self.at = expansion_end(self.text, self.at),
                _ => self.at += 1,
            }
        }
        // a backslash at the very end
        self.at = self.at.min(self.text.len());
        while !self.text.is_char_boundary(self.at) {
            self.at += 1;
        }
        Ok(begin..self.at)
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

    /// Goes behind the closing quote.
    fn double_quotes(&mut self) -> Result<(), ReadError> {
        let begin = self.at;
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.at += 2,
                b'$' => self.at = expansion_end(self.text, self.at),
                _ => self.at += 1,
            }
        }
        Err(self.unclosed(begin))
    }

    fn unclosed(&self, begin: usize) -> ReadError {
        let quote = self.text.as_bytes().get(begin).copied().unwrap_or(b'\'');
        ReadError::Quote {
            line: line_of(self.text, begin),
            quote: char::from(quote),
        }
    }
}

/// The byte behind an expansion that begins with the `$` at `at`: behind the name, or behind the
/// parentheses or braces.
pub(crate) fn expansion_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = at + 1;
    let (open, close) = match bytes.get(at) {
        Some(b'(') => (b'(', b')'),
        Some(b'{') => (b'{', b'}'),
        Some(byte) if byte.is_ascii_alphabetic() || *byte == b'_' => {
            while bytes
                .get(at)
                .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            {
                at += 1;
            }
            return at;
        }
        Some(b'@' | b'*' | b'#' | b'?' | b'$' | b'!' | b'-' | b'0'..=b'9') => return at + 1,
        _ => return at,
    };
    let mut depth = 0_usize;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte == open {
            depth += 1;
        } else if *byte == close {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Vec<&str>> {
        let (statements, _) = statements(text, 0..text.len()).expect(text);
        let words = |statement: Statement| match statement {
            Statement::Command(words) => {
                let of = |word: Raw| {
                    let own = &text[word.range];
                    let array = word.array.into_iter().flatten();
                    let array: Vec<&str> = array.map(|word| &text[word.range]).collect();
                    [vec![own], array].concat()
                };
                words.into_iter().flat_map(of).collect()
            }
            Statement::Keyword(Keyword::AndOr) => Vec::new(),
            other => panic!("{other:?}"),
        };
        let words = statements.into_iter().map(words);
        words.filter(|words| !words.is_empty()).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        assert_eq!(
            texts("a 'b c' \\\n  d\\ e \"f\\\"g\" # not this\nh;i && j 2>&1 >log"),
            vec![
                vec!["a", "'b c'", "d\\ e", "\"f\\\"g\""],
                vec!["h"],
                vec!["i"],
                vec!["j"]
            ]
        );
        assert_eq!(
            texts("x=(-m 8G\n # c\n -smp 2)").concat(),
            ["x=", "-m", "8G", "-smp", "2"]
        );
        assert_eq!(
            texts("cat <<'END' >file\nqemu-system-aarch64 'x\nEND\nb"),
            vec![vec!["cat"], vec!["b"]]
        );
    }

    #[test]
    fn compound_statements_have_keywords() {
        let text = "for i in 1 2; do x; done\nf() {\n if a; then b; fi\n}\nfor ((i=0; i<2; i++))";
        let (kinds, _) = statements(text, 0..text.len()).expect(text);
        assert!(matches!(
            &kinds[0],
            Statement::For { name, list: Loop::Words(words), .. } if name == "i" && words.len() == 2
        ));
        assert_eq!(kinds[1], Statement::Keyword(Keyword::Do));
        assert_eq!(kinds[3], Statement::Keyword(Keyword::Done));
        assert_eq!(kinds[4], Statement::Function);
        assert_eq!(kinds[5], Statement::Keyword(Keyword::Open));
        assert!(matches!(
            kinds.last(),
            Some(Statement::For { list: Loop::Counter(range), .. }) if &text[range.clone()] == "i=0; i<2; i++"
        ));
    }

    #[test]
    fn a_quote_that_is_not_closed_is_named_with_its_line() {
        for (text, quote) in [("a\nb 'c\n", '\''), ("a \\\n \"b", '"')] {
            assert_eq!(
                statements(text, 0..text.len()),
                Err(ReadError::Quote { line: 2, quote })
            );
        }
    }
}
