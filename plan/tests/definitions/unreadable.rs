//! What is no definition is refused with the line; nothing panics.

use varia_plan::definition::{Knowledge, MOST_BYTES, ReadError, examine};

use crate::host::facts;
use crate::text::{command_line, four, two, xml};

fn refused(text: impl AsRef<[u8]>) -> ReadError {
    let text = text.as_ref();
    examine(text, &Knowledge::default()).expect_err("no definition")
}

#[test]
fn what_is_no_definition() {
    for text in ["", "  \n\t\n", "\0", "\u{feff}"] {
        assert_eq!(refused(text), ReadError::Empty, "{text:?}");
    }
    assert_eq!(refused(vec![b' '; 50 << 20]), ReadError::TooLarge);
    assert_eq!(refused(vec![b'a'; MOST_BYTES + 1]), ReadError::TooLarge);
    assert_eq!(refused(b"a\nb\n\xff"), ReadError::NotText { line: 3 });
    assert_eq!(refused("\n\nhello world"), ReadError::Neither { line: 3 });
    assert_eq!(
        refused("qemu-system-aarch64 \\\n -m 1 \\\n -name 'vm"),
        ReadError::Quote {
            line: 3,
            quote: '\''
        }
    );
    assert!(matches!(
        refused("-device {\"driver\":"),
        ReadError::Json { line: 1, .. }
    ));
    assert!(matches!(
        refused(format!("qemu-system-aarch64{}", " -a".repeat(30_000))),
        ReadError::Options { .. }
    ));
}

#[test]
fn what_is_no_domain() {
    assert_eq!(
        refused("\n<network/>"),
        ReadError::Element {
            line: 2,
            element: "network".to_owned()
        }
    );
    assert!(matches!(
        refused("<domain>\n<os>\n</domain>"),
        ReadError::Xml { line: 3, .. }
    ));
    let bomb = "<?xml version='1.0'?>\n<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>\n<domain>&b;</domain>";
    let error = refused(bomb);
    assert!(matches!(error, ReadError::Xml { .. }), "{error}");
    assert!(error.to_string().contains("DTD"), "{error}");
    let deep = "<domain>".repeat(100_000);
    assert!(matches!(refused(&deep), ReadError::Xml { line: 1, .. }));
    let wide = format!("<domain>{}</domain>", "<a/>".repeat(300_000));
    assert!(matches!(refused(&wide), ReadError::Xml { .. }));
}

/// Bytes of a good definition, changed at random, are read or refused.
#[test]
fn damaged_definitions_do_no_harm() {
    let texts = [
        command_line(&two().1),
        xml(&two().1),
        command_line(&four().1),
        xml(&four().1),
    ];
    let facts = facts();
    let knowledge = Knowledge {
        facts: Some(&facts),
        ..Knowledge::default()
    };
    let pieces = [
        "<",
        ">",
        "'",
        "\"",
        "\\",
        "\n",
        ",",
        "=",
        "{",
        "}",
        "$(",
        "`",
        "\0",
        "0",
        "999999999999",
        "-numa",
        "-1",
        "<acpi/>",
        "nodeset='0-4294967295'",
        "é",
        " ",
        "bus='0x02'",
        "id='0'",
    ];
    let mut random = fastrand::Rng::with_seed(1);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..200 {
        let mut text = random.choice(&texts).expect("a text").clone();
        for _ in 0..random.usize(1..6) {
            let mut at = random.usize(..text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            match random.u8(..4) {
                0 => text.insert_str(at, random.choice(&pieces).expect("a piece")),
                1 => text.truncate(at.max(1)),
                _ => {
                    let end = (at + random.usize(1..60)).min(text.len());
                    let end = (end..=text.len()).find(|end| text.is_char_boundary(*end));
                    let piece = random.choice(&pieces).expect("a piece");
                    text.replace_range(at..end.expect("the end"), piece);
                }
            }
        }
        match examine(text.as_bytes(), &knowledge) {
            Ok(found) => {
                read += 1;
                // the corrected text is a definition, too
                let again = examine(found.corrected.as_bytes(), &knowledge);
                assert!(again.is_ok(), "{again:?}: {}", found.corrected);
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 30 && refused > 30, "{read} {refused}");
}
