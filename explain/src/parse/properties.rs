//! The value of an option of QEMU: `driver,key=value,...` or JSON, read and written back with
//! nothing changed but what is set.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

/// Properties in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Properties {
    is_json: bool,
    list: Vec<Property>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Property {
    /// Without a `=`: the first one says what the thing is, another is switched on.
    Bare(String),
    Text(String, String),
    Json(String, Value),
}

impl Properties {
    /// Reads a value. JSON begins with a brace, as for QEMU.
    pub(crate) fn read(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim_start().starts_with('{') {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let list = deserializer.deserialize_map(InOrder)?;
            deserializer.end()?;
            return Ok(Self {
                is_json: true,
                list,
            });
        }
        let property = |part: String| match part.split_once('=') {
            Some((key, value)) => Property::Text(key.to_owned(), value.to_owned()),
            None => Property::Bare(part),
        };
        Ok(Self {
            is_json: false,
            list: split(text).into_iter().map(property).collect(),
        })
    }

    /// Kind of the device or object: the first word without a key, or the property `key`.
    pub(crate) fn kind(&self, key: &str) -> &str {
        match self.list.first() {
            Some(Property::Bare(text)) => text,
            _ => self
                .list
                .iter()
                .find_map(|property| match property {
                    Property::Text(name, value) | Property::Json(name, Value::String(value))
                        if name == key =>
                    {
                        Some(value.as_str())
                    }
                    _ => None,
                })
                .unwrap_or_default(),
        }
    }

    /// The value of a property, the last one of that name, as text: a switch is `on` or `off`.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let mut rest = self.list.iter().enumerate().rev();
        rest.find_map(|(index, property)| match property {
            Property::Bare(name) if index > 0 && name == key => Some("on".to_owned()),
            Property::Bare(_) => None,
            Property::Text(name, value) => (name == key).then(|| value.clone()),
            Property::Json(name, value) => (name == key).then(|| plain(value)),
        })
    }

    /// True if the switch `key` is on; `None` if the properties do not have it.
    pub(crate) fn switch(&self, key: &str) -> Option<bool> {
        match self.get(key)?.as_str() {
            "on" | "yes" | "true" | "y" | "1" => Some(true),
            "off" | "no" | "false" | "n" | "0" => Some(false),
            _ => None,
        }
    }

    /// Gives a property a value.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let is_it = |(index, property): (usize, &Property)| match property {
            Property::Bare(name) => index > 0 && name == key,
            Property::Text(name, _) | Property::Json(name, _) => name == key,
        };
        let at = self.list.iter().enumerate().rposition(is_it);
        let new = if self.is_json {
            let old = at.and_then(|at| self.list.get(at));
            Property::Json(key.to_owned(), typed(key, value, old))
        } else {
            Property::Text(key.to_owned(), value.to_owned())
        };
        match at.and_then(|at| self.list.get_mut(at)) {
            Some(property) => *property = new,
            None => self.list.push(new),
        }
    }

    /// Changes what it is: its first word, or the property of this name.
    pub(crate) fn set_kind(&mut self, key: &str, kind: &str) {
        match self.list.first_mut() {
            Some(Property::Bare(text)) => *text = kind.to_owned(),
            _ => self.set(key, kind),
        }
    }

    /// Takes a property away.
    pub(crate) fn remove(&mut self, key: &str) {
        let mut index = 0;
        self.list.retain(|property| {
            index += 1;
            match property {
                Property::Bare(name) => index == 1 || name != key,
                Property::Text(name, _) | Property::Json(name, _) => name != key,
            }
        });
    }
}

/// A value of the type that the property has, or has for QEMU.
fn typed(key: &str, value: &str, old: Option<&Property>) -> Value {
    let was_text = matches!(old, Some(Property::Json(_, Value::String(_))));
    match value {
        "on" if !was_text => Value::Bool(true),
        "off" if !was_text => Value::Bool(false),
        // a list of nodes
        _ if key == "host-nodes" => match value.parse::<u32>() {
            Ok(node) => Value::from(vec![node]),
            Err(_) => Value::from(value),
        },
        _ if was_text => Value::from(value),
        _ => match value.parse::<u64>() {
            Ok(number) => Value::from(number),
            Err(_) => Value::from(value),
        },
    }
}

/// JSON as the other form would say it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Number(_) | Value::Null | Value::Object(_) => value.to_string(),
    }
}

/// Parts between commas; two commas are one that separates nothing.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let is_end = c == ',' && rest.next_if_eq(&',').is_none();
        if is_end {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.is_json { ", " } else { "," };
        let quoted = |text: &str| Value::from(text).to_string();
        let mut parts = Vec::new();
        for property in &self.list {
            parts.push(match property {
                Property::Bare(text) => text.replace(',', ",,"),
                Property::Text(name, value) => format!("{name}={}", value.replace(',', ",,")),
                Property::Json(name, value) => format!("{}: {value}", quoted(name)),
            });
        }
        let parts = parts.join(separator);
        if self.is_json {
            write!(f, "{{{parts}}}")
        } else {
            f.write_str(&parts)
        }
    }
}

/// Reads an object's properties in the order in which they are written.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Vec<Property>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some((name, value)) = map.next_entry()? {
            list.push(Property::Json(name, value));
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_is_written_as_it_was() {
        for text in [
            "vfio-pci,id=a,host=0009:01:00.0,x-y",
            "node,nodeid=1",
            "file=a,,b",
            "{\"driver\": \"vfio-pci\", \"id\": \"a\", \"n\": 1, \"b\": true}",
        ] {
            let properties = Properties::read(text).expect(text);
            assert_eq!(properties.to_string(), text);
        }
    }

    #[test]
    fn properties_are_read_set_and_removed_in_both_forms() {
        for (text, after) in [
            ("vfio-pci,id=a,x", "vfio-pci,x,bus=p"),
            (
                "{\"driver\": \"vfio-pci\", \"id\": \"a\", \"x\": true}",
                "{\"driver\": \"vfio-pci\", \"x\": true, \"bus\": \"p\"}",
            ),
        ] {
            let mut properties = Properties::read(text).expect(text);
            assert_eq!(properties.kind("driver"), "vfio-pci");
            assert_eq!(properties.get("id").as_deref(), Some("a"));
            assert_eq!(properties.switch("x"), Some(true));
            properties.remove("id");
            properties.set("bus", "p");
            assert_eq!(properties.to_string(), after);
        }
    }
}
