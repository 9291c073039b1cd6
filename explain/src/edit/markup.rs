//! XML in which attributes, elements and texts are changed, and nothing else.

use std::ops::Range;

use quick_xml::escape::escape;
use roxmltree::{Document, Node};

use varia_plan::xml::Element;

/// Changes of a document, made at once.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    text: &'a str,
    /// Replacements of bytes; at one place the first of the list comes first.
    list: Vec<(Range<usize>, String)>,
    /// Elements at the end of the element that begins at this byte.
    appended: Vec<(usize, Vec<Element>)>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(document: &Document<'a>) -> Self {
        Self {
            text: document.input_text(),
            list: Vec::new(),
            appended: Vec::new(),
        }
    }

    /// Gives an attribute a value.
    pub(crate) fn set(&mut self, node: Node<'_, 'a>, name: &str, value: &str) {
        if let Some(attribute) = node.attribute_node(name) {
            let value = escape(value).into_owned();
            return self.list.push((attribute.range_value(), value));
        }
        let last = node
            .attributes()
            .next_back()
            .map(|attribute| attribute.range().end);
        let at = last.unwrap_or_else(|| self.name_end(node));
        self.list
            .push((at..at, format!(" {name}='{}'", escape(value))));
    }

    /// Takes an attribute away.
    pub(crate) fn unset(&mut self, node: Node<'_, 'a>, name: &str) {
        if let Some(attribute) = node.attribute_node(name) {
            let range = attribute.range();
            let before = self.text.get(..range.start).unwrap_or_default();
            let start = before.trim_end().len();
            self.list.push((start..range.end, String::new()));
        }
    }

    /// Takes an element away, with its line.
    pub(crate) fn remove(&mut self, node: Node<'_, 'a>) {
        let range = node.range();
        let before = self.text.get(..range.start).unwrap_or_default();
        let start = match before.rfind('\n') {
            Some(at) if before.get(at..).is_some_and(|rest| rest.trim().is_empty()) => at,
            _ => range.start,
        };
        self.list.push((start..range.end, String::new()));
    }

    /// Puts an element in another's place.
    pub(crate) fn replace(&mut self, node: Node<'_, 'a>, element: &Element) {
        let text = element.indented(&self.indent(node));
        self.list.push((node.range(), text));
    }

    /// Adds an element in front of another.
    pub(crate) fn add_before(&mut self, node: Node<'_, 'a>, element: &Element) {
        let indent = self.indent(node);
        let at = node.range().start;
        let text = format!("{}\n{indent}", element.indented(&indent));
        self.list.push((at..at, text));
    }

    /// Adds an element behind another.
    pub(crate) fn add_behind(&mut self, node: Node<'_, 'a>, element: &Element) {
        let indent = self.indent(node);
        let at = node.range().end;
        let text = format!("\n{indent}{}", element.indented(&indent));
        self.list.push((at..at, text));
    }

    /// Adds an element at the end of another.
    pub(crate) fn append(&mut self, parent: Node<'_, 'a>, element: Element) {
        let at = parent.range().start;
        match self.appended.iter_mut().find(|(start, _)| *start == at) {
            Some((_, elements)) => elements.push(element),
            None => self.appended.push((at, vec![element])),
        }
    }

    /// The text with all changes.
    pub(crate) fn text(mut self, document: &Document<'a>) -> String {
        for (start, elements) in std::mem::take(&mut self.appended) {
            let mut nodes = document.descendants();
            let found = nodes.find(|node| node.is_element() && node.range().start == start);
            if let Some(parent) = found {
                self.write_appended(parent, &elements);
            }
        }
        // stable: what is at one place stays in its order
        self.list.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::new();
        let mut at = 0;
        for (range, text) in &self.list {
            // in an element that was taken away
            if range.start < at {
                continue;
            }
            out += self.text.get(at..range.start).unwrap_or_default();
            out += text;
            at = range.end;
        }
        out + self.text.get(at..).unwrap_or_default()
    }

    fn write_appended(&mut self, parent: Node<'_, 'a>, elements: &[Element]) {
        let own = self.indent(parent);
        let child = parent.children().rfind(Node::is_element);
        let indent = match child {
            Some(child) => self.indent(child),
            None => format!("{own}  "),
        };
        let mut lines = String::new();
        for element in elements {
            lines += &format!("\n{indent}{}", element.indented(&indent));
        }
        if let Some(child) = child {
            let at = child.range().end;
            return self.list.push((at..at, lines));
        }
        let range = parent.range();
        let whole = self.text.get(range.clone()).unwrap_or_default();
        if let Some(open) = whole.strip_suffix("/>") {
            let name = self.name(parent).to_owned();
            let end = range.start + open.trim_end().len();
            self.list
                .push((end..range.end, format!(">{lines}\n{own}</{name}>")));
        } else if let Some(close) = whole.rfind("</") {
            let inner = whole.get(..close).unwrap_or_default();
            let at = range.start + inner.trim_end().len();
            self.list
                .push((at..range.start + close, format!("{lines}\n{own}")));
        }
    }

    /// An element's name with its prefix, as it is written.
    fn name(&self, node: Node<'_, 'a>) -> &'a str {
        let start = node.range().start + 1;
        self.text
            .get(start..self.name_end(node))
            .unwrap_or_default()
    }

    fn name_end(&self, node: Node<'_, 'a>) -> usize {
        let start = node.range().start + 1;
        let rest = self.text.get(start..).unwrap_or_default();
        let is_end = |c: char| c.is_whitespace() || c == '/' || c == '>';
        start + rest.find(is_end).unwrap_or(rest.len())
    }

    /// Blanks in front of an element on its line; empty if other text is there.
    fn indent(&self, node: Node<'_, 'a>) -> String {
        let before = self.text.get(..node.range().start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        match line.trim().is_empty() {
            true => line.to_owned(),
            false => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_leave_the_rest_alone() {
        let text = "<a>\n  <!-- c -->\n  <b x=\"1\"/>\n  <c/>\n</a>\n";
        let document = Document::parse(text).expect(text);
        let find = |name: &str| {
            let mut nodes = document.descendants();
            nodes.find(|node| node.has_tag_name(name)).expect(name)
        };
        let mut changes = Changes::new(&document);
        changes.set(find("b"), "x", "2'");
        changes.set(find("b"), "y", "3");
        changes.append(find("c"), Element::new("d").with("e", 1));
        changes.append(find("c"), Element::new("f"));
        changes.append(find("a"), Element::new("g"));
        assert_eq!(
            changes.text(&document),
            "<a>\n  <!-- c -->\n  <b x=\"2&apos;\" y='3'/>\n  <c>\n    <d e='1'/>\n    <f/>\n  \
             </c>\n  <g/>\n</a>\n"
        );
        let mut changes = Changes::new(&document);
        changes.remove(find("b"));
        changes.unset(find("b"), "x");
        changes.replace(find("c"), &Element::new("h").child(Element::new("i")));
        assert_eq!(
            changes.text(&document),
            "<a>\n  <!-- c -->\n  <h>\n    <i/>\n  </h>\n</a>\n"
        );
        let mut changes = Changes::new(&document);
        changes.add_before(find("b"), &Element::new("j"));
        changes.add_behind(find("b"), &Element::new("k"));
        changes.unset(find("b"), "x");
        assert_eq!(
            changes.text(&document),
            "<a>\n  <!-- c -->\n  <j/>\n  <b/>\n  <k/>\n  <c/>\n</a>\n"
        );
    }
}
