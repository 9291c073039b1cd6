//! A page of the documentation as something to follow: its commands, in order, and what it
//! promises of their output.
//!
//! A block of commands is fenced as `sh`, and says after a comma where it is not simply typed on
//! the host. A block fenced as `text` behind it is the output of the whole block before, in which a
//! line of three dots stands for any lines.

use std::path::Path;

use varia_lab::agent_build::workspace;

use crate::error::{Error, Result};

/// Shell that commands are typed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the host: `sh`.
    Host,
    /// On the host, on whose terminal the guest's console then is: `sh,console`.
    Console,
    /// On the guest's console: `sh,guest`.
    Guest,
    /// On a host where it takes minutes in software: `sh,soak`.
    Soak,
}

/// A block of commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Shell that the commands are typed in.
    pub place: Place,
    /// The commands.
    pub lines: Vec<String>,
    /// Output of all lines together; none where the page shows none.
    pub output: Option<String>,
}

/// The blocks of a page of the workspace, by its path.
///
/// # Errors
/// If it can't be read, or has a block of another kind.
pub fn blocks(path: &str) -> Result<Vec<Block>> {
    let file = workspace().join(Path::new(path));
    let text = std::fs::read_to_string(&file).map_err(Error::io("read a page"))?;
    parse(&text).map_err(|why| Error::Unexpected(format!("{path}: {why}")))
}

fn parse(text: &str) -> std::result::Result<Vec<Block>, String> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let inside: Vec<_> = lines
            .by_ref()
            .take_while(|line| *line != "```")
            .map(str::to_owned)
            .collect();
        let place = match kind {
            "text" => {
                let block = blocks.last_mut().filter(|block| block.output.is_none());
                let block = block.ok_or("an output without commands before it")?;
                block.output = Some(inside.join("\n"));
                continue;
            }
            "sh" => Place::Host,
            "sh,console" => Place::Console,
            "sh,guest" => Place::Guest,
            "sh,soak" => Place::Soak,
            other => return Err(format!("there are no blocks {other:?}")),
        };
        blocks.push(Block {
            place,
            lines: inside,
            output: None,
        });
    }
    Ok(blocks)
}

/// Returns true if an output is as a page promises: the same lines in the same order, any number of
/// lines where the promise has three dots. White space at the end is not compared.
#[must_use]
pub fn matches(promise: &str, output: &str) -> bool {
    let output: Vec<_> = output.trim_end().lines().map(str::trim_end).collect();
    let promise: Vec<_> = promise.trim_end().lines().map(str::trim_end).collect();
    rest_matches(&promise, &output)
}

fn rest_matches(promise: &[&str], output: &[&str]) -> bool {
    match promise.split_first() {
        None => output.is_empty(),
        Some((&"...", rest)) => (0..=output.len()).any(|left_out| {
            output
                .get(left_out..)
                .is_some_and(|output| rest_matches(rest, output))
        }),
        Some((line, rest)) => {
            output.first() == Some(line) && rest_matches(rest, output.get(1..).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_place_and_their_output() {
        let page = "# A\n```sh\na\nb\n```\ntext\n```text\nout\n```\n```sh,guest\nc\n```\n";
        let found = parse(page).expect("blocks");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].lines, ["a", "b"]);
        assert_eq!(found[0].output.as_deref(), Some("out"));
        assert_eq!((found[1].place, &found[1].output), (Place::Guest, &None));
        assert!(parse("```bash\nx\n```\n").is_err());
        assert!(parse("```text\nx\n```\n").is_err());
    }

    #[test]
    fn an_output_has_all_lines_but_those_that_dots_stand_for() {
        assert!(matches("a\nb", "a\nb\n"));
        assert!(matches("a\n\nb", "a\n\nb\n\n"));
        assert!(!matches("a\n\nb", "a\nb"));
        assert!(!matches("a\nb", "a\nx\nb"));
        assert!(matches("a\n...\nb", "a\nx\ny\nb"));
        assert!(matches("...\nb\n...", "a\nb"));
        assert!(!matches("a", "a\nb"));
        assert!(!matches("a\n...\nb", "a\nx"));
    }
}
