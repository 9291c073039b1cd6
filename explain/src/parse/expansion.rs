//! Expansion of a word by a shell: quotes removed, variables replaced.
//!
//! Each character keeps its place in the text, so that a correction can be written where the
//! character was written. What is not known stays as it is written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::words::{Raw, expansion_end};

/// A character, and its place in the text if it is written there.
pub(crate) type Char = (char, Option<usize>);

/// Most characters of a value, and most words of a list.
const MOST: usize = 1 << 20;
/// Most values that `seq` counts.
const MOST_COUNTED: i64 = 4096;

/// How a word can be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writing {
    /// It is a word of its own, with or without quotes.
    Word,
    /// It is a part of a quoted text that the shell splits at blanks.
    Part,
    /// It is not written as such, or is written once for several words.
    Fixed,
}

/// A word of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    /// Range of the text, quotes included.
    pub(crate) range: Range<usize>,
    /// Content, variables replaced where their values are known.
    pub(crate) text: String,
    /// Content as it is written, quotes around it removed.
    pub(crate) raw: String,
    /// A shell expands something in it.
    pub(crate) is_expanded: bool,
    pub(crate) writing: Writing,
    /// Expansions with an unknown value, as they are written.
    pub(crate) open: Vec<String>,
    /// Expansions that may give further words.
    pub(crate) more: Vec<String>,
}

/// A value of a variable.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(Vec<Char>),
    List(Vec<Word>),
}

/// A variable.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) value: Value,
    /// Parts of the value that are not known, as they are written.
    pub(crate) open: Vec<String>,
}

/// Variables by their names; `@` are the positional parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    pub(crate) all: BTreeMap<String, Variable>,
    /// Defaults that were taken (`${NAME:-default}`): name, default, place.
    pub(crate) defaults: Vec<(String, String, usize)>,
}

/// Result of one expansion.
enum Found {
    Text(Vec<Char>),
    List(Vec<Word>),
    Unknown,
}

/// A word while it is expanded.
#[derive(Default)]
struct Fields {
    done: Vec<Field>,
    own: Option<Field>,
    is_expanded: bool,
}

#[derive(Default)]
struct Field {
    chars: Vec<Char>,
    open: Vec<String>,
    /// An element of a list.
    word: Option<Word>,
}

impl Fields {
    fn own(&mut self) -> &mut Field {
        self.own.get_or_insert_default()
    }

    fn end(&mut self) {
        self.done.extend(self.own.take());
    }
}

/// Words that a word becomes.
pub(crate) fn words(text: &str, raw: &Raw, variables: &mut Variables) -> Vec<Word> {
    let written = text.get(raw.range.clone()).unwrap_or_default();
    let mut fields = expand(written, raw.range.start, variables, true);
    fields.end();
    let is_one = fields.done.len() == 1 && !is_split(written);
    let mut out = Vec::new();
    for field in fields.done {
        if let Some(word) = field.word {
            out.push(word);
            continue;
        }
        let content: String = field.chars.iter().map(|(c, _)| *c).collect();
        let place = place(&field.chars);
        let (range, own, writing) = match (is_one, place) {
            (true, _) => (raw.range.clone(), plain(written), Writing::Word),
            (false, Some(range)) => (range, content.clone(), Writing::Part),
            (false, None) => (raw.range.clone(), content.clone(), Writing::Fixed),
        };
        out.push(Word {
            range,
            text: content,
            raw: own,
            is_expanded: fields.is_expanded && is_one,
            writing,
            open: field.open,
            more: Vec::new(),
        });
    }
    out
}

/// The text that a word becomes in an assignment, which is not split.
pub(crate) fn value(text: &str, range: Range<usize>, variables: &mut Variables) -> Variable {
    let written = text.get(range.clone()).unwrap_or_default();
    let mut fields = expand(written, range.start, variables, false);
    fields.end();
    let (mut chars, mut open) = (Vec::new(), Vec::new());
    for field in fields.done {
        if !chars.is_empty() {
            chars.push((' ', None));
        }
        match field.word {
            Some(word) => {
                chars.extend(word.text.chars().map(|c| (c, None)));
                open.extend(word.open);
            }
            None => {
                chars.extend(field.chars);
                open.extend(field.open);
            }
        }
    }
    Variable {
        value: Value::Text(chars),
        open,
    }
}

/// The word is a lone expansion without quotes, which the shell splits at blanks.
fn is_split(written: &str) -> bool {
    written.starts_with('$') && expansion_end(written, 0) == written.len()
}

/// A word without the quotes around it.
fn plain(written: &str) -> String {
    if written.contains(['$', '`']) && !written.starts_with('\'') {
        let inner = written.strip_prefix('"');
        let inner = inner.and_then(|written| written.strip_suffix('"'));
        return inner.unwrap_or(written).to_owned();
    }
    match shell_words::split(written) {
        Ok(words) => words.into_iter().next().unwrap_or_default(),
        Err(_) => written.to_owned(),
    }
}

/// Range of characters that stand in the text one after the other.
fn place(chars: &[Char]) -> Option<Range<usize>> {
    let mut end = chars.first()?.1?;
    let begin = end;
    for (c, at) in chars {
        if *at != Some(end) {
            return None;
        }
        end += c.len_utf8();
    }
    Some(begin..end)
}

fn expand(written: &str, begin: usize, variables: &mut Variables, is_list: bool) -> Fields {
    let mut fields = Fields::default();
    let mut is_quoted = false;
    let mut rest = written.char_indices().peekable();
    let mut behind = 0;
    while let Some((at, c)) = rest.next() {
        if at < behind {
            continue;
        }
        let here = Some(begin + at);
        match c {
            '"' => {
                is_quoted = !is_quoted;
                fields.own();
            }
            '\'' if !is_quoted => {
                fields.own();
                for (at, c) in rest.by_ref() {
                    if c == '\'' {
                        break;
                    }
                    fields.own().chars.push((c, Some(begin + at)));
                }
            }
            '\\' => {
                let next = rest.next();
                match next {
                    Some((_, '\n')) => {}
                    Some((at, c)) if !is_quoted || matches!(c, '"' | '\\' | '$' | '`') => {
                        fields.own().chars.push((c, Some(begin + at)));
                    }
                    Some((at, next)) => {
                        let own = fields.own();
                        own.chars.push((c, here));
                        own.chars.push((next, Some(begin + at)));
                    }
                    None => fields.own().chars.push((c, here)),
                }
            }
            '`' => {
                let inner = written.get(at + 1..).unwrap_or_default();
                behind = at + 1 + inner.find('`').map_or(inner.len(), |end| end + 1);
                fields.is_expanded = true;
                let command = inner.split('`').next().unwrap_or_default();
                match count(command, variables) {
                    Some(numbers) => {
                        let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
                        let numbers = numbers.join(" ");
                        let chars: Vec<Char> = numbers.chars().map(|c| (c, None)).collect();
                        substitute(&mut fields, &chars, is_list && !is_quoted);
                    }
                    None => unknown(&mut fields, written, at..behind, begin),
                }
            }
            '{' if !is_quoted && is_list && brace_end(written, at).is_some() => {
                behind = brace_end(written, at).unwrap_or(at + 1);
                fields.is_expanded = true;
                unknown(&mut fields, written, at..behind, begin);
            }
            '$' => {
                behind = expansion_end(written, at);
                if behind == at + 1 {
                    fields.own().chars.push((c, here));
                    continue;
                }
                fields.is_expanded = true;
                let inner = written.get(at + 1..behind).unwrap_or_default();
                let (found, open) = find(inner, begin + at + 1, variables);
                match found {
                    Found::Unknown => unknown(&mut fields, written, at..behind, begin),
                    Found::Text(chars) => {
                        let is_split = is_list && !is_quoted;
                        substitute(&mut fields, &chars, is_split);
                        if !open.is_empty() {
                            fields.own().open.extend(open);
                        }
                    }
                    Found::List(words) => {
                        fields.end();
                        fields.done.extend(words.into_iter().map(|word| Field {
                            word: Some(word),
                            ..Field::default()
                        }));
                        if fields.done.len() > MOST {
                            fields.done.truncate(MOST);
                        }
                    }
                }
            }
            c => fields.own().chars.push((c, here)),
        }
    }
    // an empty pair of quotes around a list is no word
    if fields.done.iter().any(|field| field.word.is_some())
        && fields.own.as_ref().is_some_and(|own| own.chars.is_empty())
    {
        fields.own = None;
    }
    fields
        .done
        .retain(|field| field.word.is_some() || !field.chars.is_empty() || !field.open.is_empty());
    fields
}

/// End of `{1..8}` or `{a,b}`, for which a shell makes several words; none of a brace of JSON.
fn brace_end(written: &str, at: usize) -> Option<usize> {
    let inner = written.get(at + 1..)?;
    let end = inner.find('}')?;
    let inner = inner.get(..end)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ',');
    let is_list = inner.contains(',') || inner.contains("..");
    (is_list && inner.chars().all(is_plain)).then_some(at + end + 2)
}

fn unknown(fields: &mut Fields, written: &str, range: Range<usize>, begin: usize) {
    let own = fields.own();
    let text = written.get(range.clone()).unwrap_or_default();
    let chars = text.char_indices();
    own.chars
        .extend(chars.map(|(at, c)| (c, Some(begin + range.start + at))));
    own.open.push(text.to_owned());
}

fn substitute(fields: &mut Fields, chars: &[Char], is_split: bool) {
    // blanks of a command whose output is not known, `$(a b)`, separate nothing
    let (mut depth, mut is_quoted, mut before) = (0_usize, false, ' ');
    for (c, at) in chars.iter().take(MOST) {
        match c {
            '(' if depth > 0 || before == '$' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '`' => is_quoted = !is_quoted,
            _ => {}
        }
        before = *c;
        match is_split && depth == 0 && !is_quoted && c.is_whitespace() {
            true => fields.end(),
            false => fields.own().chars.push((*c, *at)),
        }
    }
}

/// Value of the expansion whose text behind `$` is `inner`, and the unknown parts of the value.
fn find(inner: &str, begin: usize, variables: &mut Variables) -> (Found, Vec<String>) {
    let text = |text: String| {
        let chars = text.chars().map(|c| (c, None)).collect();
        (Found::Text(chars), Vec::new())
    };
    if let Some(sum) = inner
        .strip_prefix("((")
        .and_then(|inner| inner.strip_suffix("))"))
    {
        let number = calculate(sum, variables);
        return number.map_or((Found::Unknown, Vec::new()), |number| {
            text(number.to_string())
        });
    }
    if let Some(command) = inner
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
    {
        let numbers = count(command, variables);
        return numbers.map_or((Found::Unknown, Vec::new()), |numbers| {
            let numbers = numbers.iter().map(i64::to_string);
            text(numbers.collect::<Vec<_>>().join(" "))
        });
    }
    let (name, at) = match inner.strip_prefix('{') {
        Some(inner) => (inner.strip_suffix('}').unwrap_or(inner), begin + 1),
        None => (inner, begin),
    };
    let end = name
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(name.len());
    let (own, rest) = match name.get(..end) {
        Some("") => (name.get(..1).unwrap_or(name), name.get(1..)),
        own => (own.unwrap_or(name), name.get(end..)),
    };
    if let Some(found) = of_array(inner, variables) {
        return (found, Vec::new());
    }
    let variable = variables.all.get(own);
    let is_empty = variable.is_none_or(|variable| match &variable.value {
        Value::Text(chars) => chars.is_empty() && variable.open.is_empty(),
        Value::List(words) => words.is_empty(),
    });
    match rest.unwrap_or_default() {
        "" | "[@]" | "[*]" => {}
        rest if rest.starts_with(":-") || rest.starts_with('-') || rest.starts_with(":=") => {
            if is_empty {
                let length = if rest.starts_with(':') { 2 } else { 1 };
                let default = rest.get(length..).unwrap_or_default();
                let place = at + end + length;
                let chars = default.char_indices();
                let chars: Vec<Char> = chars.map(|(at, c)| (c, Some(place + at))).collect();
                if default.contains(['$', '`']) {
                    return (Found::Unknown, Vec::new());
                }
                let default = default.replace(['"', '\''], "");
                variables.defaults.push((own.to_owned(), default, place));
                let is_quote = |(c, _): &Char| matches!(c, '"' | '\'');
                let chars = chars.into_iter().filter(|c| !is_quote(c)).collect();
                return (Found::Text(chars), Vec::new());
            }
        }
        // `${NAME:?message}` ends the script if there is no value
        rest if rest.starts_with(":?") || rest.starts_with('?') => {}
        _ => return (Found::Unknown, Vec::new()),
    }
    match variable {
        None => (Found::Unknown, Vec::new()),
        Some(Variable { value, open }) => match value {
            Value::Text(chars) => (Found::Text(chars.clone()), open.clone()),
            Value::List(words) => {
                // `$NAME` of an array is its first element
                let is_first = rest == Some("") && own != "@";
                let words = match is_first {
                    true => words.iter().take(1).cloned().collect(),
                    false => words.clone(),
                };
                (Found::List(words), Vec::new())
            }
        },
    }
}

/// Value of `{#A[@]}`, `{!A[@]}` or `{A[N]}`; `None` for another expansion.
fn of_array(inner: &str, variables: &Variables) -> Option<Found> {
    let inner = inner.strip_prefix('{')?.strip_suffix('}')?;
    let list = |name: &str| match variables.all.get(name) {
        Some(Variable {
            value: Value::List(words),
            open,
        }) if open.is_empty() => Some(words),
        _ => None,
    };
    let chars = |text: String| text.chars().map(|c| (c, None)).collect::<Vec<Char>>();
    let (name, index) = inner.strip_suffix(']')?.split_once('[')?;
    let is_all = matches!(index, "@" | "*");
    let found = match (name.strip_prefix('#'), name.strip_prefix('!')) {
        (Some(name), _) if is_all => Found::Text(chars(list(name)?.len().to_string())),
        (_, Some(name)) if is_all => {
            let words = list(name)?.iter().enumerate();
            let number = |(index, word): (usize, &Word)| Word {
                text: index.to_string(),
                raw: index.to_string(),
                writing: Writing::Fixed,
                open: Vec::new(),
                more: Vec::new(),
                ..word.clone()
            };
            Found::List(words.map(number).collect())
        }
        (None, None) if !is_all => {
            let index = usize::try_from(calculate(index, variables)?).ok()?;
            let word = list(name)?.get(index)?;
            match word.open.is_empty() && word.more.is_empty() {
                true => Found::Text(chars(word.text.clone())),
                false => Found::Unknown,
            }
        }
        _ => return None,
    };
    Some(found)
}

/// Numbers that `seq` prints.
fn count(command: &str, variables: &mut Variables) -> Option<Vec<i64>> {
    let mut words = command.split_whitespace();
    if words.next() != Some("seq") {
        return None;
    }
    let numbers: Option<Vec<i64>> = words
        .map(|word| calculate(word.trim_matches('"'), variables))
        .collect();
    match numbers?.as_slice() {
        [last] => range(1, *last, 1),
        [first, last] => range(*first, *last, 1),
        [first, step, last] => range(*first, *last, *step),
        _ => None,
    }
}

/// Numbers from `first` to `last`.
pub(crate) fn range(first: i64, last: i64, step: i64) -> Option<Vec<i64>> {
    let count = last.checked_sub(first)?.checked_div(step)?;
    match count {
        count if count < 0 => Some(Vec::new()),
        count if count < MOST_COUNTED => {
            Some((0..=count).map(|index| first + index * step).collect())
        }
        _ => None,
    }
}

/// Value of a sum, a difference or a product of numbers and variables.
pub(crate) fn calculate(sum: &str, variables: &Variables) -> Option<i64> {
    let sum = sum.trim();
    let inner = sum
        .strip_prefix("$((")
        .and_then(|sum| sum.strip_suffix("))"));
    if let Some(inner) = inner {
        return calculate(inner, variables);
    }
    for signs in [&['+', '-'][..], &['*', '/', '%'][..]] {
        let at = sum
            .char_indices()
            .rfind(|(at, c)| *at > 0 && signs.contains(c));
        if let Some((at, sign)) = at {
            let left = calculate(sum.get(..at)?, variables)?;
            let right = calculate(sum.get(at + 1..)?, variables)?;
            return match sign {
                '+' => left.checked_add(right),
                '-' => left.checked_sub(right),
                '*' => left.checked_mul(right),
                '/' => left.checked_div(right),
                _ => left.checked_rem(right),
            };
        }
    }
    if let Ok(number) = sum.parse() {
        return Some(number);
    }
    let of_array = sum
        .strip_prefix('$')
        .map(|inner| of_array(inner, variables));
    if let Some(Some(Found::Text(chars))) = of_array {
        let text: String = chars.iter().map(|(c, _)| *c).collect();
        return text.trim().parse().ok();
    }
    let name = sum.trim_start_matches('$').trim_matches(['{', '}']);
    match &variables.all.get(name)?.value {
        Value::Text(chars) => {
            let text: String = chars.iter().map(|(c, _)| *c).collect();
            text.trim().parse().ok()
        }
        Value::List(_) => None,
    }
}
