//! Device properties in ACPI tables.
//!
//! Linux shows no `_DSD` property in sysfs, but the tables themselves: `sys/firmware/acpi/tables`.
//! This module reads static data: names, scopes, devices and packages of ACPI 6.5 section 20. It
//! executes nothing, and does not find a property that a method computes.

use std::collections::BTreeMap;

/// Length of a table's header, ACPI 6.5 table 5.4.
const HEADER_LEN: usize = 36;
/// Offset of the table's revision.
const REVISION: usize = 8;
/// Limit of nested scopes, devices and packages.
const DEPTH: usize = 32;
/// UUID of device properties, daffd814-6eba-4d8c-8a91-bc9bbf4aa301, in its byte order in memory.
const PROPERTIES: [u8; 16] = [
    0x14, 0xd8, 0xff, 0xda, 0xba, 0x6e, 0x8c, 0x4d, 0x8a, 0x91, 0xbc, 0x9b, 0xbf, 0x4a, 0xa3, 0x01,
];

// Opcodes, ACPI 6.5 section 20.3.
const ZERO: u8 = 0x00;
const ONE: u8 = 0x01;
const NAME: u8 = 0x08;
const BYTE: u8 = 0x0a;
const WORD: u8 = 0x0b;
const DWORD: u8 = 0x0c;
const STRING: u8 = 0x0d;
const QWORD: u8 = 0x0e;
const SCOPE: u8 = 0x10;
const BUFFER: u8 = 0x11;
const PACKAGE: u8 = 0x12;
const METHOD: u8 = 0x14;
const EXTERNAL: u8 = 0x15;
const ALIAS: u8 = 0x06;
const IF: u8 = 0xa0;
const ELSE: u8 = 0xa1;
const WHILE: u8 = 0xa2;
const DUAL_NAME: u8 = 0x2e;
const MULTI_NAME: u8 = 0x2f;
const EXTENDED: u8 = 0x5b;
const EXT_MUTEX: u8 = 0x01;
const EXT_EVENT: u8 = 0x02;
const EXT_REGION: u8 = 0x80;
const EXT_FIELD: u8 = 0x81;
const EXT_DEVICE: u8 = 0x82;
const EXT_PROCESSOR: u8 = 0x83;
const EXT_POWER: u8 = 0x84;
const EXT_THERMAL: u8 = 0x85;
const EXT_INDEX_FIELD: u8 = 0x86;
const EXT_BANK_FIELD: u8 = 0x87;
const ONES: u8 = 0xff;

/// Properties with a number as value, by the device's path (`\_SB_.PCI0.S08_.S00_`).
pub(crate) type Properties = BTreeMap<String, BTreeMap<String, u64>>;

/// True if integers of the namespace have 64 bits: the DSDT's revision decides for all tables (ACPI
/// 6.5 section 19.3.5).
pub(crate) fn wide_integers(dsdt: &[u8]) -> bool {
    dsdt.get(REVISION).is_some_and(|revision| *revision >= 2)
}

/// Adds the properties of a table, given with its header.
pub(crate) fn read(table: &[u8], wide: bool, properties: &mut Properties) {
    let body = table.get(HEADER_LEN..).unwrap_or_default();
    Reader { properties, wide }.terms(body, "\\", 0);
}

struct Reader<'a> {
    properties: &'a mut Properties,
    wide: bool,
}

/// A data object, in the kinds that properties need.
enum Data<'a> {
    Number(u64),
    Text(&'a [u8]),
    Buffer(&'a [u8]),
    Package(&'a [u8]),
    Other,
}

impl Reader<'_> {
    /// Reads the objects of a scope, up to the first object that can't be parsed from its bytes
    /// alone.
    fn terms(&mut self, mut at: &[u8], scope: &str, depth: usize) {
        if depth > DEPTH {
            return;
        }
        while let Some(rest) = self.term(at, scope, depth) {
            at = rest;
        }
    }

    /// Reads one object; returns the bytes after the object.
    fn term<'t>(&mut self, at: &'t [u8], scope: &str, depth: usize) -> Option<&'t [u8]> {
        let (&opcode, rest) = at.split_first()?;
        match opcode {
            NAME => {
                let (name, rest) = name_string(rest)?;
                let (data, rest) = data(rest)?;
                if let (Data::Package(package), "_DSD") = (data, last_segment(&name)) {
                    self.device_properties(package, &place(scope, parent(&name)), depth);
                }
                Some(rest)
            }
            SCOPE => {
                let (body, rest) = package(rest)?;
                self.named(body, scope, 0, depth);
                Some(rest)
            }
            // results of methods and conditions depend on the running system
            METHOD | IF | ELSE | WHILE => Some(package(rest)?.1),
            ALIAS => Some(name_string(name_string(rest)?.1)?.1),
            EXTERNAL => name_string(rest)?.1.get(2..),
            EXTENDED => {
                let (&opcode, rest) = rest.split_first()?;
                match opcode {
                    EXT_MUTEX => name_string(rest)?.1.get(1..),
                    EXT_EVENT => Some(name_string(rest)?.1),
                    EXT_REGION => {
                        let rest = name_string(rest)?.1.get(1..)?;
                        Some(data(data(rest)?.1)?.1)
                    }
                    EXT_FIELD | EXT_INDEX_FIELD | EXT_BANK_FIELD => Some(package(rest)?.1),
                    EXT_DEVICE | EXT_THERMAL | EXT_POWER | EXT_PROCESSOR => {
                        let (body, rest) = package(rest)?;
                        let fixed = match opcode {
                            EXT_POWER => 3,
                            EXT_PROCESSOR => 6,
                            _ => 0,
                        };
                        self.named(body, scope, fixed, depth);
                        Some(rest)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Reads the contents of a scope: a name, `fixed` bytes, objects.
    fn named(&mut self, body: &[u8], scope: &str, fixed: usize, depth: usize) {
        let Some((name, rest)) = name_string(body) else {
            return;
        };
        if let Some(rest) = rest.get(fixed..) {
            self.terms(rest, &place(scope, &name), depth + 1);
        }
    }

    /// Reads a `_DSD`: pairs of a UUID and a package.
    fn device_properties(&mut self, package: &[u8], device: &str, depth: usize) {
        let mut elements = elements(package);
        while let (Some(uuid), Some(values)) = (elements.next(), elements.next()) {
            let (Data::Buffer(uuid), Data::Package(values)) = (uuid, values) else {
                return;
            };
            if uuid == PROPERTIES && depth < DEPTH {
                for pair in self::elements(values) {
                    self.property(&pair, device);
                }
            }
        }
    }

    fn property(&mut self, pair: &Data<'_>, device: &str) {
        let Data::Package(pair) = pair else { return };
        let mut pair = elements(pair);
        if let (Some(Data::Text(name)), Some(Data::Number(value))) = (pair.next(), pair.next()) {
            let value = if self.wide {
                value
            } else {
                value & u64::from(u32::MAX)
            };
            let name = String::from_utf8_lossy(name).into_owned();
            let device = self.properties.entry(device.to_owned()).or_default();
            // Linux takes the first of several values
            device.entry(name).or_insert(value);
        }
    }
}

/// Elements of a package, after the element count.
fn elements(package: &[u8]) -> impl Iterator<Item = Data<'_>> {
    let mut at = package.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (data, rest) = data(at)?;
        at = rest;
        Some(data)
    })
}

/// A data object and the bytes after the object; `None` if the bytes are not a data object.
fn data(at: &[u8]) -> Option<(Data<'_>, &[u8])> {
    let (&opcode, rest) = at.split_first()?;
    let number = |len: usize| {
        let (bytes, rest) = rest.split_at_checked(len)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0, |value, byte| (value << 8) | u64::from(*byte));
        Some((Data::Number(value), rest))
    };
    match opcode {
        ZERO => Some((Data::Number(0), rest)),
        ONE => Some((Data::Number(1), rest)),
        ONES => Some((Data::Number(u64::MAX), rest)),
        BYTE => number(1),
        WORD => number(2),
        DWORD => number(4),
        QWORD => number(8),
        STRING => {
            let end = rest.iter().position(|byte| *byte == 0)?;
            Some((Data::Text(rest.get(..end)?), rest.get(end + 1..)?))
        }
        BUFFER => {
            let (body, rest) = package(rest)?;
            let bytes = match data(body)? {
                (Data::Number(_), bytes) => bytes,
                _ => return None,
            };
            Some((Data::Buffer(bytes), rest))
        }
        PACKAGE => {
            let (body, rest) = package(rest)?;
            Some((Data::Package(body), rest))
        }
        _ => {
            let (_, rest) = name_string(at)?;
            Some((Data::Other, rest))
        }
    }
}

/// Bytes that a PkgLength covers, without the PkgLength, and the bytes after them (ACPI 6.5 section
/// 20.2.4).
fn package(at: &[u8]) -> Option<(&[u8], &[u8])> {
    let lead = *at.first()?;
    let more = usize::from(lead >> 6);
    let mut len = usize::from(if more == 0 { lead & 0x3f } else { lead & 0x0f });
    for index in 0..more {
        let byte = *at.get(1 + index)?;
        len |= usize::from(byte) << (4 + 8 * index);
    }
    let (whole, rest) = at.split_at_checked(len)?;
    Some((whole.get(1 + more..)?, rest))
}

/// A NameString as text, and the bytes after the NameString (ACPI 6.5 section 20.2.2).
fn name_string(at: &[u8]) -> Option<(String, &[u8])> {
    let mut text = String::new();
    let mut rest = at;
    while let Some((&byte @ (b'\\' | b'^'), after)) = rest.split_first() {
        text.push(char::from(byte));
        rest = after;
    }
    let count = match *rest.first()? {
        ZERO => {
            return Some((text, rest.get(1..)?));
        }
        DUAL_NAME => {
            rest = rest.get(1..)?;
            2
        }
        MULTI_NAME => {
            let count = usize::from(*rest.get(1)?);
            rest = rest.get(2..)?;
            count
        }
        _ => 1,
    };
    for index in 0..count {
        let (segment, after) = rest.split_at_checked(4)?;
        let lead = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
        let good = |byte: &u8| lead(*byte) || byte.is_ascii_digit();
        if !segment.first().is_some_and(|byte| lead(*byte)) || !segment.iter().all(good) {
            return None;
        }
        if index > 0 {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(segment).ok()?);
        rest = after;
    }
    Some((text, rest))
}

fn last_segment(name: &str) -> &str {
    name.rsplit(['.', '\\', '^']).next().unwrap_or(name)
}

/// A name without its last segment.
fn parent(name: &str) -> &str {
    let end = name.len().saturating_sub(last_segment(name).len());
    let parent = name.get(..end).unwrap_or_default();
    parent.strip_suffix('.').unwrap_or(parent)
}

/// Full path of a name that stands in a scope.
fn place(scope: &str, name: &str) -> String {
    let mut scope = scope;
    let mut name = name;
    if let Some(rest) = name.strip_prefix('\\') {
        scope = "\\";
        name = rest;
    }
    while let Some(rest) = name.strip_prefix('^') {
        scope = parent(scope);
        name = rest;
    }
    match (scope, name) {
        (scope, "") => scope.to_owned(),
        ("\\" | "", name) => format!("\\{name}"),
        (scope, name) => format!("{scope}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_names_resolve_as_in_acpi() {
        assert_eq!(place("\\", "_SB_.PCI0"), "\\_SB_.PCI0");
        assert_eq!(place("\\_SB_.PCI0", "S08_"), "\\_SB_.PCI0.S08_");
        assert_eq!(place("\\_SB_.PCI0", "\\_SB_.GPU0"), "\\_SB_.GPU0");
        assert_eq!(place("\\_SB_.PCI0", "^GPU0"), "\\_SB_.GPU0");
        assert_eq!(place("\\_SB_", "^GPU0"), "\\GPU0");
        assert_eq!(place("\\_SB_.GPU0", parent("_DSD")), "\\_SB_.GPU0");
        assert_eq!(place("\\", parent("\\_SB_.GPU0._DSD")), "\\_SB_.GPU0");
    }

    #[test]
    fn a_package_beyond_the_end_of_the_table_stops_the_reader() {
        let mut properties = Properties::new();
        for bytes in [
            &[SCOPE][..],
            &[SCOPE, 0x3f, b'A'],
            &[SCOPE, 0xc0],
            &[SCOPE, 0x00],
            &[NAME, MULTI_NAME, 0xff, b'A'],
            &[EXTENDED],
        ] {
            let mut table = vec![0; HEADER_LEN];
            table.extend_from_slice(bytes);
            read(&table, true, &mut properties);
        }
        assert!(properties.is_empty());
    }

    #[test]
    fn nesting_beyond_the_limit_is_ignored() {
        // each scope contains the previous scope
        let mut body = Vec::new();
        for _ in 0..10_000 {
            let len = body.len() + 4 + 4;
            let mut scope = vec![SCOPE];
            scope.push(0xc0 | (len & 0xf) as u8);
            scope.extend_from_slice(&(len as u32 >> 4).to_le_bytes()[..3]);
            scope.extend_from_slice(b"GPU0");
            scope.append(&mut body);
            body = scope;
        }
        let mut table = vec![0; HEADER_LEN];
        table.append(&mut body);
        let mut properties = Properties::new();
        read(&table, true, &mut properties);
        assert!(properties.is_empty());
    }
}
