//! Variables whose value is not followed: set under a condition, in a function or by a command.

use super::{Raw, Run, line_of};

impl Run<'_> {
    /// Variables of a word that are set under a condition that is not one of the word's own.
    pub(super) fn doubts(&self, written: &str) -> Vec<String> {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // in a sum a name stands for its variable without a sign
        let is_sum = written.contains("((");
        let is_named = |name: &str| {
            let mut own = written.split('$').skip(1).map(|part| {
                let part = part.trim_start_matches('{');
                let end = part.find(|c: char| !is_of_name(c));
                part.get(..end.unwrap_or(part.len())).unwrap_or_default()
            });
            let in_sum = || {
                written
                    .split(|c: char| !is_of_name(c))
                    .any(|own| own == name)
            };
            own.any(|own| own == name) || is_sum && in_sum()
        };
        let is_outside = |conditions: &Vec<usize>| !self.conditions.starts_with(conditions);
        let doubts = self.set_under.iter();
        doubts
            .filter(|(name, conditions, _)| is_outside(conditions) && is_named(name))
            .map(|(name, _, line)| doubt(name, *line))
            .collect()
    }

    /// Variables that a command sets in a way that is not followed.
    pub(super) fn doubt(&mut self, names: impl IntoIterator<Item = String>, command: &Raw) {
        self.next += 1;
        let line = line_of(self.text, command.range.start);
        let of_its_own = vec![self.next];
        let doubts = names
            .into_iter()
            .map(|name| (name, of_its_own.clone(), line));
        self.set_under.extend(doubts);
    }
}

/// What is not known of a variable.
pub(super) fn doubt(name: &str, line: usize) -> String {
    format!("${name}, which line {line} sets in a way that is not followed")
}

#[cfg(test)]
mod tests {
    use crate::parse::script::script;

    #[test]
    fn what_is_not_known_is_said() {
        for (text, open) in [
            ("q -m $MEM", "$MEM"),
            ("q \"$@\"", "$@"),
            ("q a,$(lspci | x)b", "$(lspci | x)"),
            ("q `y z`", "`y z`"),
            ("A=$(x)\nq $A", "$(x)"),
            (
                "A=(1)\nA[1]=2\nq ${A[@]}",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "if x; then A=1; fi\nq $A",
                "$A, which line 1 sets in a way that is not followed",
            ),
            (
                "[ -e x ] && A=1\nq $A",
                "$A, which line 1 sets in a way that is not followed",
            ),
            (
                "A=(a)\nx && A+=(b)\nq \"${A[@]}\"",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "A=2\nx || { A=1; }\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "for i in 1 2; do\n A=\"$A $i\"\n x && break\ndone\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "f() {\n A=1\n}\nf\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "function f {\n A=1\n}\nf\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "function f() {\n A=1\n}\nf\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "if x; then N=2; fi\nq $((N+1))",
                "$N, which line 1 sets in a way that is not followed",
            ),
            (
                "A=1\n. /etc/vm.conf\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "A=1; B=2\nread -r A B\nq -m $B",
                "$B, which line 2 sets in a way that is not followed",
            ),
            (
                "A=1\nunset A\nq $A",
                "$A, which line 2 sets in a way that is not followed",
            ),
            (
                "N=1\nif x; then N=2; fi\nfor i in `seq 1 $N`; do B+=(a); done\nq \"${B[@]}\"",
                "$B, which line 3 sets in a way that is not followed",
            ),
            (
                "N=1\nif x; then N=2; fi\nfor ((i=0;i<N;i++)); do B+=(a); done\nq \"${B[@]}\"",
                "$B, which line 3 sets in a way that is not followed",
            ),
            (
                "while read A; do B=\"$B $A\"; done\nq $B",
                "$B, which line 1 sets in a way that is not followed",
            ),
        ] {
            let script = script(text, 0..text.len()).expect(text);
            let words = script.commands.last().expect("a command");
            let all: Vec<_> = words
                .iter()
                .flat_map(|word| word.open.iter().chain(&word.more))
                .collect();
            assert!(all.iter().any(|one| *one == open), "{text}: {all:?}");
        }
        let inside = "f() {\n A=1\n q $A\n}\nA=2";
        let script = script(inside, 0..inside.len()).expect(inside);
        assert!(script.commands[0].iter().all(|word| word.open.is_empty()));
    }
}
