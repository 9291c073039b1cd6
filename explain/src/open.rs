//! Properties of an option whose values only a shell knows.

use crate::parse::command::Opt;
use crate::parse::properties::Properties;

/// Names of properties with unknown values. A rule does not judge such a property, which the scope
/// lists as not judged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Open {
    /// Properties whose values are not known.
    unknown: Vec<String>,
    /// Properties whose values are known.
    known: Vec<String>,
    /// An expansion may give further properties.
    has_more: bool,
}

impl Open {
    /// Properties of an option.
    pub(crate) fn of(option: &Opt) -> Self {
        if option.open.is_empty() {
            return Self::default();
        }
        // `$NAME, which line 3 sets in a way that is not followed`
        let expansions: Vec<&str> = option
            .open
            .iter()
            .map(|text| text.split(", which line ").next().unwrap_or(text))
            .collect();
        let mut out = Self::default();
        let mut is_found = vec![false; expansions.len()];
        for (name, value) in values(&option.written).chain(values(&option.properties)) {
            let mut is_unknown = name.contains(['$', '`']);
            for (found, expansion) in is_found.iter_mut().zip(&expansions) {
                let Some(is_whole) = holds(&value, expansion) else {
                    continue;
                };
                is_unknown = true;
                *found |= is_whole;
            }
            match is_unknown {
                true => out.unknown.push(name),
                false => out.known.push(name),
            }
        }
        // the same property may be written with a variable and read with its value
        out.known.retain(|name| !out.unknown.contains(name));
        out.has_more = is_found.contains(&false);
        out
    }

    /// True if the value of a property is not known, or the property may be given by an expansion.
    pub(crate) fn is(&self, name: &str) -> bool {
        let is_known = || self.known.iter().any(|known| known == name);
        self.unknown.iter().any(|unknown| unknown == name) || self.has_more && !is_known()
    }
}

/// Names and values of properties with a name; the first word has none.
fn values(properties: &Properties) -> impl Iterator<Item = (String, String)> {
    properties
        .names()
        .filter_map(|name| Some((name.to_owned(), properties.get(name)?)))
}

/// True if an expansion is all of a value, false if it is a part, `None` if it is not in the value.
fn holds(value: &str, expansion: &str) -> Option<bool> {
    let braced = match expansion.strip_prefix('$') {
        Some(name) => format!("${{{name}"),
        None => expansion.to_owned(),
    };
    if value == expansion || value == format!("{braced}}}") {
        return Some(true);
    }
    (value.contains(expansion) || value.contains(&braced)).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::command::Command;

    #[test]
    fn an_expansion_is_a_value_or_may_be_more_properties() {
        for (device, unknown, known) in [
            ("x,a=1,b=$B", &["b"][..], &["a", "c"][..]),
            ("x,a=1,b=${B}", &["b"], &["a", "c"]),
            ("x,a=1,b=2$MORE", &["b", "c"], &["a"]),
            ("x,a=1,$MORE", &["b", "c"], &["a"]),
            ("x,a=1$(y z)", &["a", "b"], &[]),
            ("$KIND,a=1", &["b"], &["a"]),
            ("x,a=1", &[], &["a", "b"]),
        ] {
            let text = format!("qemu-system-aarch64 -device {device}\n");
            let command = Command::read(text).expect(device);
            let open = Open::of(&command.options[0]);
            for name in unknown {
                assert!(open.is(name), "{device}: {name}");
            }
            for name in known {
                assert!(!open.is(name), "{device}: {name}");
            }
        }
    }
}
