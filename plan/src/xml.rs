//! Elements of XML, written with indents.

use std::fmt;

use quick_xml::escape::escape;

/// An element with attributes and either text or elements in it.
#[derive(Clone, Debug)]
pub struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: Option<String>,
    children: Vec<Element>,
}

impl Element {
    /// An element of this name, with nothing in it.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            attributes: Vec::new(),
            text: None,
            children: Vec::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// With an attribute.
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// With text in it.
    pub fn content(mut self, text: impl fmt::Display) -> Self {
        self.text = Some(text.to_string());
        self
    }

    /// With an element in it.
    pub fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// With an element in it, if there is one.
    pub fn maybe(mut self, child: Option<Self>) -> Self {
        self.children.extend(child);
        self
    }

    /// With an element in it that holds text.
    pub fn text(self, name: &'static str, text: impl fmt::Display) -> Self {
        self.child(Self::new(name).content(text))
    }

    /// As text of several lines, each but the first behind `indent`, without the last newline.
    pub fn indented(&self, indent: &str) -> String {
        let text = self.to_string();
        text.trim_end().replace('\n', &format!("\n{indent}"))
    }

    fn write(&self, depth: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, .. } = self;
        write!(f, "{:1$}<{name}", "", 2 * depth)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}='{}'", escape(value.as_str()))?;
        }
        if let Some(text) = &self.text {
            return writeln!(f, ">{}</{name}>", escape(text.as_str()));
        }
        if self.children.is_empty() {
            return writeln!(f, "/>");
        }
        writeln!(f, ">")?;
        for child in &self.children {
            child.write(depth + 1, f)?;
        }
        writeln!(f, "{:1$}</{name}>", "", 2 * depth)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_xml_is_escaped() {
        let element = Element::new("a")
            .with("b", "'<\">&")
            .text("c", "]]>&'")
            .child(Element::new("d"));
        let text = element.to_string();
        assert_eq!(
            text,
            "<a b='&apos;&lt;&quot;&gt;&amp;'>\n  <c>]]&gt;&amp;&apos;</c>\n  <d/>\n</a>\n"
        );
    }
}
