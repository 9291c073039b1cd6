//! A domain's XML as a document: read with limits.

use roxmltree::{Document, ParsingOptions};

use super::error::{ReadError, line_of};
use super::templates::filled_in;

/// 128 nodes with all distances are about 40,000, blanks between them included.
const MOST_NODES: u32 = 200_000;
/// Deeper than any domain; XML that is deeper is a parser's trouble.
const DEEPEST: usize = 64;

/// Reads the XML of a domain.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, ReadError> {
    is_shallow(text)?;
    let options = ParsingOptions {
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| ReadError::Xml {
        line: error.pos().row as usize,
        why: error.to_string(),
    })?;
    Ok(document)
}

/// Checks that `text` is the XML of a domain.
pub(crate) fn check(text: &str) -> Result<(), ReadError> {
    let document = parse(text)?;
    let root = document.root_element();
    if root.has_tag_name("domain") {
        return filled_in(text, root);
    }
    Err(ReadError::Element {
        line: line_of(text, root.range().start),
        element: root.tag_name().name().chars().take(40).collect(),
    })
}

/// The parser goes down a level of the stack for each level of the document.
fn is_shallow(text: &str) -> Result<(), ReadError> {
    let mut depth = 0_usize;
    for (at, _) in text.match_indices('<') {
        let rest = text.as_bytes().get(at + 1..).unwrap_or_default();
        match rest.first() {
            Some(b'/') => depth = depth.saturating_sub(1),
            Some(b'!' | b'?') => {}
            _ => {
                let end = rest.iter().position(|byte| *byte == b'>');
                let is_empty = end
                    .and_then(|end| end.checked_sub(1))
                    .is_some_and(|end| rest.get(end) == Some(&b'/'));
                depth += usize::from(!is_empty);
            }
        }
        if depth > DEEPEST {
            return Err(ReadError::Xml {
                line: line_of(text, at),
                why: format!("elements are nested deeper than {DEEPEST}"),
            });
        }
    }
    Ok(())
}
