//! Templates: definitions with parts that another program fills in.

use roxmltree::Node;

use super::error::{ReadError, line_of};
use crate::scope::known_elements::{APART_OF_DEVICES, APART_OF_DOMAIN};

/// The begin of a part that another program fills in, as templates of Jinja, Go, Terraform or ERB
/// have it.
pub(crate) fn template(text: &str) -> Option<String> {
    let marks = ["{{", "{%", "%{", "<%"];
    begin(text, &marks)
}

fn begin(text: &str, marks: &[&str]) -> Option<String> {
    let at = marks.iter().filter_map(|mark| text.find(mark)).min()?;
    let line = text.get(at..)?.lines().next()?;
    Some(line.chars().take(24).collect())
}

/// Refuses a template: an attribute or a text that another program fills in, where it can concern a
/// GPU.
pub(super) fn filled_in(text: &str, domain: Node<'_, '_>) -> Result<(), ReadError> {
    let is_apart = |node: &Node<'_, '_>| {
        let name = node.tag_name().name();
        let above = node.parent().map(|above| above.tag_name().name());
        match above {
            Some("domain") => APART_OF_DOMAIN.contains(&name),
            Some("devices") => APART_OF_DEVICES.contains(&name),
            _ => false,
        }
    };
    let mark = |text: &str| template(text).or_else(|| begin(text, &["${"]));
    for node in domain.descendants() {
        let own = node.text().filter(|_| node.is_text()).and_then(mark);
        let part = own.or_else(|| node.attributes().find_map(|one| mark(one.value())));
        let Some(part) = part.filter(|_| !node.ancestors().any(|one| is_apart(&one))) else {
            continue;
        };
        let begin = node.range().start;
        let rest = text.get(begin..).unwrap_or_default();
        let at = rest.find(&part).map_or(begin, |at| begin + at);
        let line = line_of(text, at);
        return Err(ReadError::Template { line, part });
    }
    Ok(())
}
