//! The commands of a shell script, in the order in which a shell executes them.
//!
//! Variables, arrays, loops over known lists, defaults and sums are followed. What depends on
//! something else (a condition, a function, another program) is not: a word with a variable that is
//! set there says so.

mod doubts;
mod inner;
mod loops;

use std::ops::Range;

use super::error::{ReadError, line_of};
use super::expansion::{Char, Value, Variable, Variables, Word, Writing, value, words};
use super::words::{Keyword, Loop, Raw, Statement, statements};

/// Most statements that are executed, above the need of any definition.
const MOST_STEPS: usize = 100_000;
/// Most words of all commands.
const MOST_WORDS: usize = 500_000;

/// What a script does, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Words of each command.
    pub(crate) commands: Vec<Vec<Word>>,
    /// Texts between `<<END` and `END`.
    pub(crate) documents: Vec<Range<usize>>,
    /// Defaults that were taken for variables that the script does not set: line, name, default.
    pub(crate) defaults: Vec<(usize, String, String)>,
}

/// Executes a part of a text.
///
/// # Errors
/// [`ReadError`]: a quote without an end, or loops without end.
pub(crate) fn script(text: &str, part: Range<usize>) -> Result<Script, ReadError> {
    nested(text, part, &mut Effort::default())
}

/// Work that is done, that of scripts in words of a script included.
#[derive(Clone, Copy, Debug, Default)]
struct Effort {
    steps: usize,
    /// Words of commands, and characters of variables and scripts.
    count: usize,
    /// Scripts around the present one.
    depth: usize,
}

fn nested(text: &str, part: Range<usize>, effort: &mut Effort) -> Result<Script, ReadError> {
    let (statements, documents) = statements(text, part)?;
    let mut run = Run {
        text,
        statements: &statements,
        variables: Variables::default(),
        conditions: Vec::new(),
        set_under: Vec::new(),
        loops: 0,
        is_optional: false,
        next: 0,
        effort: *effort,
        commands: Vec::new(),
    };
    run.part(0..statements.len())?;
    *effort = run.effort;
    let mut defaults: Vec<_> = run
        .variables
        .defaults
        .into_iter()
        .map(|(name, default, at)| (line_of(text, at), name, default))
        .collect();
    defaults.sort();
    defaults.dedup();
    Ok(Script {
        commands: run.commands,
        documents,
        defaults,
    })
}

struct Run<'a> {
    text: &'a str,
    statements: &'a [Statement],
    variables: Variables,
    /// Conditions and functions around the present statement, each with a number of its own.
    conditions: Vec<usize>,
    /// Variables that are set under a condition: name, condition, line.
    set_under: Vec<(String, Vec<usize>, usize)>,
    /// Loops around the present statement.
    loops: usize,
    /// The present command is behind `&&` or `||`.
    is_optional: bool,
    next: usize,
    effort: Effort,
    commands: Vec<Vec<Word>>,
}

impl Run<'_> {
    fn part(&mut self, part: Range<usize>) -> Result<(), ReadError> {
        let depth = self.conditions.len();
        let mut is_function = false;
        // behind `&&` or `||`
        let mut may_follow = false;
        // what each open `{` and condition adds
        let mut open: Vec<bool> = Vec::new();
        let mut at = part.start;
        while at < part.end {
            let Some(statement) = self.statements.get(at) else {
                break;
            };
            at += 1;
            match statement {
                Statement::Command(words) => match std::mem::take(&mut may_follow) {
                    true => {
                        self.enter();
                        self.is_optional = true;
                        let result = self.command(words);
                        self.is_optional = false;
                        self.conditions.pop();
                        result?;
                    }
                    false => self.command(words)?,
                },
                Statement::Function => is_function = true,
                Statement::For {
                    at: place,
                    name,
                    list,
                } => {
                    let end = self.end_of_loop(at).min(part.end);
                    self.repeat(*place, name, list, at..end)?;
                    at = end + 1;
                }
                Statement::Keyword(keyword) => match keyword {
                    Keyword::Condition | Keyword::While => {
                        self.enter();
                        open.push(true);
                    }
                    Keyword::Open => {
                        let is_condition =
                            std::mem::take(&mut is_function) | std::mem::take(&mut may_follow);
                        if is_condition {
                            self.enter();
                        }
                        open.push(is_condition);
                    }
                    Keyword::Branch => {
                        if self.conditions.len() > depth {
                            self.conditions.pop();
                            self.enter();
                        }
                    }
                    Keyword::Done | Keyword::End | Keyword::Close => {
                        if open.pop() == Some(true) && self.conditions.len() > depth {
                            self.conditions.pop();
                        }
                    }
                    Keyword::AndOr => may_follow = true,
                    Keyword::Do => {}
                },
            }
        }
        self.conditions.truncate(depth);
        Ok(())
    }

    fn enter(&mut self) {
        self.next += 1;
        self.conditions.push(self.next);
    }

    /// The place of the `done` that ends the loop whose head is before `at`.
    fn end_of_loop(&self, at: usize) -> usize {
        let mut depth = 1;
        let rest = self.statements.iter().enumerate().skip(at);
        for (place, statement) in rest {
            match statement {
                Statement::For { .. } | Statement::Keyword(Keyword::While) => depth += 1,
                Statement::Keyword(Keyword::Done) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return place;
            }
        }
        self.statements.len()
    }

    fn repeat(
        &mut self,
        place: usize,
        name: &str,
        list: &Loop,
        body: Range<usize>,
    ) -> Result<(), ReadError> {
        let (name, values) = match list {
            Loop::Words(words) => (name.to_owned(), self.listed(words)),
            Loop::Counter(range) => {
                let text = self.text.get(range.clone()).unwrap_or_default();
                let is_known = self.doubts(&format!("(({text}))")).is_empty();
                let counted = loops::counted(text, &self.variables).filter(|_| is_known);
                let (name, numbers) = counted.unzip();
                let values = numbers.map(|numbers: Vec<i64>| {
                    let numbers = numbers.iter().map(i64::to_string);
                    numbers.collect()
                });
                (name.unwrap_or_default(), values)
            }
        };
        let values = values.filter(|_| !self.may_leave(&body));
        let Some(values) = values else {
            // how often is not known
            self.enter();
            self.variables.all.remove(&name);
            let result = self.part(body);
            self.conditions.pop();
            return result;
        };
        self.loops += 1;
        for value in values {
            self.step(place)?;
            let chars: Vec<Char> = value.chars().map(|c| (c, None)).collect();
            self.set(&name, Value::Text(chars), Vec::new(), place);
            self.part(body.clone())?;
        }
        self.loops -= 1;
        Ok(())
    }

    /// A loop's body may leave the loop, or a part of the body out.
    fn may_leave(&self, body: &Range<usize>) -> bool {
        let all = self.statements.get(body.clone()).unwrap_or_default();
        all.iter().any(|statement| {
            let Statement::Command(words) = statement else {
                return false;
            };
            let first = words
                .first()
                .and_then(|word| self.text.get(word.range.clone()));
            matches!(first, Some("break" | "continue" | "return"))
        })
    }

    /// Values of a list of words; `None` if they are not known.
    fn listed(&mut self, list: &[Raw]) -> Option<Vec<String>> {
        let mut values = Vec::new();
        for raw in list {
            let written = self.text.get(raw.range.clone()).unwrap_or_default();
            if !self.doubts(written).is_empty() {
                return None;
            }
            if let Some(numbers) = loops::braces(written) {
                values.extend(numbers);
                continue;
            }
            for word in words(self.text, raw, &mut self.variables) {
                if !word.open.is_empty() {
                    return None;
                }
                values.push(word.text);
            }
        }
        Some(values)
    }

    fn step(&mut self, place: usize) -> Result<(), ReadError> {
        self.effort.steps += 1;
        if self.effort.steps > MOST_STEPS || self.effort.count > MOST_WORDS {
            return Err(ReadError::Steps {
                line: line_of(self.text, place),
                most: MOST_STEPS,
            });
        }
        Ok(())
    }

    fn command(&mut self, list: &[Raw]) -> Result<(), ReadError> {
        let Some(first) = list.first() else {
            return Ok(());
        };
        self.step(first.range.start)?;
        let assigned: Vec<_> = list
            .iter()
            .map_while(|raw| Some((raw, assignment(self.text, raw)?)))
            .collect();
        if assigned.len() == list.len() {
            if assigned
                .first()
                .is_some_and(|(_, (name, ..))| name == "Environment")
            {
                self.environment(list);
                return Ok(());
            }
            for (raw, (name, is_more, range)) in assigned {
                self.assign(raw, name, is_more, range);
            }
            return Ok(());
        }
        let word = |raw: &Raw| self.text.get(raw.range.clone()).unwrap_or_default();
        if word(first).starts_with("Environment=") {
            self.environment(list);
            return Ok(());
        }
        if let Some((name, _)) = word(first)
            .split_once('[')
            .filter(|(_, rest)| rest.contains("]="))
        {
            // an element of an array
            self.doubt([name.to_owned()], first);
            return Ok(());
        }
        match word(first) {
            // another file may set any of them
            "." | "source" => {
                let all: Vec<_> = self.variables.all.keys().cloned().collect();
                self.doubt(all, first);
            }
            "read" | "unset" | "mapfile" | "readarray" | "getopts" => {
                let named = list.iter().skip(1).map(word).map(str::to_owned);
                let named: Vec<_> = named.collect();
                self.doubt(named, first);
            }
            _ => {}
        }
        let declares = ["export", "local", "declare", "readonly", "typeset"];
        if declares.contains(&word(first)) {
            for raw in list.iter().skip(1) {
                if let Some((name, is_more, range)) = assignment(self.text, raw) {
                    self.assign(raw, name, is_more, range);
                }
            }
            return Ok(());
        }
        if word(first) == "set" && list.get(1).is_some_and(|raw| word(raw) == "--") {
            let all = self.expanded(list.get(2..).unwrap_or_default());
            self.set("@", Value::List(all), Vec::new(), first.range.start);
            return Ok(());
        }
        let is_eval = word(first) == "eval";
        let behind = list.get(usize::from(is_eval)..).unwrap_or_default();
        let mut all = self.expanded(behind);
        if is_eval {
            all = all.into_iter().flat_map(evaluated).collect();
        }
        if let Some(at) = inner::place(&all) {
            let inner = all.remove(at);
            self.commands
                .extend(inner::commands(&inner, &mut self.effort));
        }
        self.effort.count += all.len();
        self.commands.push(all);
        Ok(())
    }

    /// Variables that a unit of systemd sets: `Environment=NAME=VALUE "NAME=VALUE"`.
    fn environment(&mut self, list: &[Raw]) {
        for raw in list {
            let written = self.text.get(raw.range.clone()).unwrap_or_default();
            let written = written.strip_prefix("Environment=").unwrap_or(written);
            let pair = written.trim_matches(['"', '\'']);
            if let Some((name, value)) = pair.split_once('=') {
                let chars: Vec<Char> = value.chars().map(|c| (c, None)).collect();
                let name = name.to_owned();
                self.set(&name, Value::Text(chars), Vec::new(), raw.range.start);
            }
        }
    }

    /// Words of a command, with what is not known of their variables.
    fn expanded(&mut self, list: &[Raw]) -> Vec<Word> {
        let mut all = Vec::new();
        for raw in list {
            let mut some = words(self.text, raw, &mut self.variables);
            for inner in raw.array.iter().flatten() {
                some.extend(words(self.text, inner, &mut self.variables));
            }
            let written = self.text.get(raw.range.clone()).unwrap_or_default();
            let doubts = self.doubts(written);
            // a variable alone, without quotes or as a list, may give any number of words
            let is_list = written.starts_with('$') || written.contains("[@]");
            for word in &mut some {
                if self.loops > 0 {
                    word.writing = Writing::Fixed;
                }
                match is_list {
                    true => word.more.extend(doubts.clone()),
                    false => word.open.extend(doubts.clone()),
                }
            }
            all.extend(some);
        }
        all
    }

    fn assign(&mut self, raw: &Raw, name: String, is_more: bool, range: Range<usize>) {
        let place = raw.range.start;
        let written = self.text.get(range.clone()).unwrap_or_default();
        let is_own = [
            format!("${name} "),
            format!("${{{name}}}"),
            format!("${name}\""),
        ];
        if is_own.iter().any(|own| written.contains(own)) && !self.variables.all.contains_key(&name)
        {
            // a text that grows begins empty
            self.set(&name, Value::Text(Vec::new()), Vec::new(), place);
        }
        let (mut new, mut open) = match &raw.array {
            Some(list) => (Value::List(self.expanded(list)), Vec::new()),
            None => {
                let Variable { value, open } = value(self.text, range.clone(), &mut self.variables);
                (value, open)
            }
        };
        if raw.array.is_none() {
            open.extend(self.doubts(self.text.get(range).unwrap_or_default()));
        }
        let old = self.variables.all.get(&name).filter(|_| is_more);
        // what is added under a condition leaves the rest as it is known
        let is_added = self.is_optional && matches!(old, Some(old) if old.open.is_empty());
        if let (true, Value::List(words)) = (is_added, &mut new) {
            let doubt = doubts::doubt(&name, line_of(self.text, place));
            words
                .iter_mut()
                .for_each(|word| word.open.push(doubt.clone()));
        }
        let is_list = matches!(new, Value::List(_));
        if let Some(old) = old.cloned() {
            open.extend(old.open);
            new = match (old.value, new) {
                (Value::Text(old), Value::Text(new)) => Value::Text([old, new].concat()),
                (Value::List(old), Value::List(new)) => Value::List([old, new].concat()),
                (_, new) => new,
            };
        }
        if let (1.., Value::Text(chars)) = (self.loops, &mut new) {
            chars.iter_mut().for_each(|(_, at)| *at = None);
        }
        match is_added && is_list {
            true => {
                let variable = Variable { value: new, open };
                self.variables.all.insert(name, variable);
            }
            false => self.set(&name, new, open, place),
        }
    }

    fn set(&mut self, name: &str, value: Value, open: Vec<String>, place: usize) {
        self.set_under.retain(|(other, conditions, _)| {
            other != name || !conditions.starts_with(&self.conditions)
        });
        if !self.conditions.is_empty() {
            let line = line_of(self.text, place);
            let conditions = self.conditions.clone();
            self.set_under.push((name.to_owned(), conditions, line));
        }
        let size = match &value {
            Value::Text(chars) => chars.len(),
            Value::List(words) => words.len(),
        };
        self.effort.count += size;
        let variable = Variable { value, open };
        self.variables.all.insert(name.to_owned(), variable);
    }
}

/// Name of the variable that a word sets, `true` for `+=`, and the range of the value.
fn assignment(text: &str, raw: &Raw) -> Option<(String, bool, Range<usize>)> {
    let written = text.get(raw.range.clone())?;
    let (name, value) = written.split_once('=')?;
    let (name, is_more) = match name.strip_suffix('+') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let begin = raw.range.end - value.len();
    is_name.then(|| (name.to_owned(), is_more, begin..raw.range.end))
}

/// Words of an argument of `eval`, as far as the argument has no quotes of its own.
fn evaluated(word: Word) -> Vec<Word> {
    let parts = match shell_words::split(&word.text) {
        Ok(parts) if parts.len() != 1 => parts,
        _ => return vec![word],
    };
    let part = |text: String| Word {
        raw: text.clone(),
        text,
        writing: Writing::Fixed,
        ..word.clone()
    };
    parts.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Vec<String>> {
        let script = script(text, 0..text.len()).expect(text);
        let words = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect();
        script.commands.into_iter().map(words).collect()
    }

    #[test]
    fn variables_arrays_and_loops_are_followed() {
        for (text, wanted) in [
            ("A=\"-m 8G\"\nA=\"$A -smp 2\"\nq $A", "q -m 8G -smp 2"),
            (
                "A=(-m 8G)\nA+=(\n -smp 2 # two\n)\nexec q \"${A[@]}\"",
                "exec q -m 8G -smp 2",
            ),
            (
                "for i in `seq 1 2` {4..5}; do A+=(n$i); done\nq \"${A[@]}\"",
                "q n1 n2 n4 n5",
            ),
            (
                "for ((i=0; i<4; i+=2)); do A=\"$A n$((i+1))\"; done\nq $A",
                "q n1 n3",
            ),
            (
                "set -- -m 1\nset -- \"$@\" -smp 2\nq \"$@\"",
                "q -m 1 -smp 2",
            ),
            ("q -m ${MEM:-8G} 'a b' \"c\\\"d\"", "q -m 8G a b c\"d"),
            (
                "B=bus\nq -device x,$B=1,y=\"$B\"",
                "q -device x,bus=1,y=bus",
            ),
            ("eval \"q -m 1\"", "q -m 1"),
            ("cd x && A=1\nq $A", "q 1"),
            ("A=(a b)\nq ${A[1]} ${#A[@]} ${A[$((1-1))]}", "q b 2 a"),
            (
                "A=(a b)\nfor i in \"${!A[@]}\"; do B+=(${A[$i]}$i); done\nq \"${B[@]}\"",
                "q a0 b1",
            ),
            (
                "A=(a b)\nfor ((i=0; i<${#A[@]}; i++)); do B+=(${A[i]}); done\nq \"${B[@]}\"",
                "q a b",
            ),
            ("A='-m  1'\nq \"$A\"", "q -m  1"),
        ] {
            let all = texts(text);
            let last = all.last().expect("a command");
            assert_eq!(last.join(" "), wanted, "{text}");
        }
    }

    #[test]
    fn words_of_a_text_are_written_where_they_stand() {
        let text = "A=\"-m 8G\"\nq $A -smp \"2\"\nfor i in 1 2; do B+=(n); done\nq \"${B[@]}\"";
        let script = script(text, 0..text.len()).expect(text);
        let written: Vec<_> = script
            .commands
            .concat()
            .iter()
            .map(|word| (text[word.range.clone()].to_owned(), word.writing))
            .collect();
        let written: Vec<_> = written
            .iter()
            .map(|(text, how)| (text.as_str(), *how))
            .collect();
        assert_eq!(
            written,
            [
                ("q", Writing::Word),
                ("-m", Writing::Part),
                ("8G", Writing::Part),
                ("-smp", Writing::Word),
                ("\"2\"", Writing::Word),
                ("q", Writing::Word),
                ("n", Writing::Fixed),
                ("n", Writing::Fixed),
            ]
        );
    }

    #[test]
    fn loops_without_end_are_refused() {
        let text = "for i in {1..4000}; do for j in {1..4000}; do A=1; done; done";
        assert!(matches!(
            script(text, 0..text.len()),
            Err(ReadError::Steps { .. })
        ));
        let mut text = "A=aaaaaaaaaaaaaaaa\n".to_owned();
        text += &"A=$A$A\n".repeat(60);
        assert!(script(&text, 0..text.len()).is_err());
    }
}
