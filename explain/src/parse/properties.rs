//! The value of an option of QEMU: `driver,key=value,...` or JSON, read and written back with
//! nothing changed but what is set.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::arguments::size;

/// Properties in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Properties {
    json: Option<Blanks>,
    list: Vec<Property>,
}

/// Blanks of JSON: before the first member, between members, behind a name's colon, after the last
/// member.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Blanks {
    begin: String,
    between: String,
    colon: String,
    end: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Property {
    /// Without a `=`: the first one says what the thing is, another is switched on.
    Bare(String),
    Text(String, String),
    /// With the value's text, if it is as it was written.
    Json(String, Value, Option<String>),
}

impl Properties {
    /// Reads a value. JSON begins with a brace, as for QEMU.
    pub(crate) fn read(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim_start().starts_with('{') {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let mut list = deserializer.deserialize_map(InOrder)?;
            deserializer.end()?;
            let (values, blanks) = as_written(text);
            if values.len() == list.len() {
                for (property, value) in list.iter_mut().zip(values) {
                    if let Property::Json(_, _, own) = property {
                        *own = Some(value.to_owned());
                    }
                }
            }
            return Ok(Self {
                json: Some(blanks),
                list,
            });
        }
        let property = |part: String| match part.split_once('=') {
            Some((key, value)) => Property::Text(key.to_owned(), value.to_owned()),
            None => Property::Bare(part),
        };
        Ok(Self {
            json: None,
            list: split(text).into_iter().map(property).collect(),
        })
    }

    /// Names of the properties without the first word that says what the thing is.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list
            .iter()
            .enumerate()
            .filter_map(|(index, property)| match property {
                Property::Bare(_) if index == 0 => None,
                Property::Bare(name) | Property::Text(name, _) | Property::Json(name, ..) => {
                    Some(name.as_str())
                }
            })
    }

    /// True if there is a property of this name.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.names().any(|name| name == key)
    }

    /// The id of a device: the first one that is given.
    pub(crate) fn id(&self) -> Option<String> {
        self.list.iter().find_map(|property| match property {
            Property::Text(name, value) if name == "id" => Some(value.clone()),
            Property::Json(name, value, _) if name == "id" => Some(plain(value)),
            _ => None,
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
                    Property::Text(name, value) | Property::Json(name, Value::String(value), _)
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
            Property::Json(name, value, _) => (name == key).then(|| plain(value)),
        })
    }

    /// True if the switch `key` is on; `None` if the properties do not have it.
    pub(crate) fn switch(&self, key: &str) -> Option<bool> {
        switch(&self.get(key)?)
    }

    /// Gives a property a value.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let is_it = |(index, property): (usize, &Property)| match property {
            Property::Bare(name) => index > 0 && name == key,
            Property::Text(name, _) | Property::Json(name, ..) => name == key,
        };
        let mut all = self.list.iter().enumerate();
        // of several ids the first one counts, else the last
        let at = match key {
            "id" => all.position(is_it),
            _ => all.rposition(is_it),
        };
        let new = if self.json.is_some() {
            let old = at.and_then(|at| self.list.get(at));
            Property::Json(key.to_owned(), typed(key, value, old), None)
        } else {
            Property::Text(key.to_owned(), value.to_owned())
        };
        match at.and_then(|at| self.list.get_mut(at)) {
            Some(property) => *property = new,
            None => self.list.push(new),
        }
    }

    /// The same properties as JSON with the blanks of another one's, if that is JSON.
    pub(crate) fn like(&self, other: &Self, kind: &str) -> Option<Self> {
        let blanks = other.json.clone()?;
        let member = |property: &Property| {
            let (name, value) = match property {
                Property::Bare(text) => (kind, text.as_str()),
                Property::Text(name, value) => (name.as_str(), value.as_str()),
                Property::Json(..) => return property.clone(),
            };
            Property::Json(name.to_owned(), typed(name, value, None), None)
        };
        Some(Self {
            json: Some(blanks),
            list: self.list.iter().map(member).collect(),
        })
    }

    /// `key=value,…` of all properties but these, without the first word.
    pub(crate) fn without(&self, names: &[&str]) -> String {
        let mut parts = Vec::new();
        for name in self.names().filter(|name| !names.contains(name)) {
            let value = self.get(name).unwrap_or_default().replace(',', ",,");
            parts.push(format!("{name}={value}"));
        }
        parts.join(",")
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
                Property::Text(name, _) | Property::Json(name, ..) => name != key,
            }
        });
    }
}

/// True if a value switches something on; `None` if it is no switch's value.
pub(crate) fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" | "y" | "1" => Some(true),
        "off" | "no" | "false" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// A value of the type that the property has, or has for QEMU.
fn typed(key: &str, value: &str, old: Option<&Property>) -> Value {
    // names, and switches that have a third value
    const TEXTS: [&str; 13] = [
        "driver",
        "qom-type",
        "id",
        "bus",
        "primary-bus",
        "pci-dev",
        "host",
        "iommufd",
        "ats",
        "ril",
        "cmdqv",
        "oas",
        "ssidsize",
    ];
    let was_text = matches!(old, Some(Property::Json(_, Value::String(_), _)))
        || old.is_none() && TEXTS.contains(&key);
    match value {
        "on" if !was_text => Value::Bool(true),
        "off" if !was_text => Value::Bool(false),
        // QEMU takes a number of bytes alone
        _ if key.ends_with("-reserve") || key.ends_with("size") => match size(value, 0) {
            Some(bytes) => Value::from(bytes.0),
            None => Value::from(value),
        },
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
        let quoted = |text: &str| Value::from(text).to_string();
        let mut parts = Vec::new();
        for property in &self.list {
            parts.push(match property {
                Property::Bare(text) => text.replace(',', ",,"),
                Property::Text(name, value) => format!("{name}={}", value.replace(',', ",,")),
                Property::Json(name, value, text) => {
                    let blank = self.json.as_ref().map_or("", |blanks| &blanks.colon);
                    let value = text.clone().unwrap_or_else(|| value.to_string());
                    format!("{}:{blank}{value}", quoted(name))
                }
            });
        }
        match &self.json {
            Some(blanks) => {
                let parts = parts.join(&format!(",{}", blanks.between));
                write!(f, "{{{}{parts}{}}}", blanks.begin, blanks.end)
            }
            None => f.write_str(&parts.join(",")),
        }
    }
}

/// The values of an object's members, and the blanks between them, as they are written. The text is
/// JSON.
fn as_written(text: &str) -> (Vec<&str>, Blanks) {
    let text = text.trim();
    let inner = text.strip_prefix('{').unwrap_or(text);
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    let (mut members, mut begin) = (Vec::new(), 0);
    for (at, c) in inner.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            _ if is_text => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                members.push(inner.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    let last = inner.get(begin..).unwrap_or_default();
    if !last.trim().is_empty() {
        members.push(last);
    }
    let blank = |text: &str| {
        text.get(..text.len() - text.trim_start().len())
            .map(str::to_owned)
    };
    let value = |member: &'_ str| {
        let mut quotes = member.match_indices('"').filter(|(at, _)| {
            let before = member.get(..*at).unwrap_or_default();
            !before.ends_with('\\')
        });
        let end = quotes.nth(1).map_or(0, |(at, _)| at + 1);
        let colon = member.get(end..).and_then(|rest| rest.find(':'));
        colon.map_or(member.len(), |colon| end + colon + 1)
    };
    let first = members.first().copied().unwrap_or_default();
    let blanks = Blanks {
        begin: blank(first).unwrap_or_default(),
        between: members.get(1).copied().and_then(blank).unwrap_or_default(),
        colon: first
            .get(value(first)..)
            .and_then(blank)
            .unwrap_or_default(),
        end: last
            .get(last.trim_end().len()..)
            .unwrap_or_default()
            .to_owned(),
    };
    let values = members
        .iter()
        .map(|member| member.get(value(member)..).unwrap_or_default().trim())
        .collect();
    (values, blanks)
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
            list.push(Property::Json(name, value, None));
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
            "{\"driver\":\"vfio-pci\",\"a\":{\"b\": [1,  2]},\"c\":\"x,\\\"}y\"}",
            "{ \"driver\":\"vfio-pci\" }",
            "{}",
        ] {
            let properties = Properties::read(text).expect(text);
            assert_eq!(properties.to_string(), text);
        }
    }

    #[test]
    fn an_added_device_is_written_as_the_one_beside_it() {
        let json = Properties::read("{\"driver\":\"vfio-pci\"}").expect("JSON");
        let added = Properties::read("pxb-pcie,id=7,addr=0x1e,bus_nr=8,accel=on,ats=on");
        let added = added.expect("properties");
        let written = added.like(&json, "driver").map(|added| added.to_string());
        assert_eq!(
            written.as_deref(),
            Some(
                "{\"driver\":\"pxb-pcie\",\"id\":\"7\",\"addr\":\"0x1e\",\"bus_nr\":8,\"accel\":true,\
                 \"ats\":\"on\"}"
            )
        );
        assert!(added.like(&added, "driver").is_none());
    }

    #[test]
    fn a_size_in_json_is_a_number_of_bytes() {
        let mut properties = Properties::read("{\"driver\":\"pcie-root-port\"}").expect("JSON");
        properties.set("pref64-reserve", "256G");
        assert_eq!(
            properties.to_string(),
            "{\"driver\":\"pcie-root-port\",\"pref64-reserve\":274877906944}"
        );
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
            assert_eq!(properties.id().as_deref(), Some("a"));
            assert_eq!(properties.kind("driver"), "vfio-pci");
            assert_eq!(properties.get("id").as_deref(), Some("a"));
            assert_eq!(properties.switch("x"), Some(true));
            properties.remove("id");
            properties.set("bus", "p");
            assert_eq!(properties.to_string(), after);
        }
    }
}
