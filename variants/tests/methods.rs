//! Deciders of each method: more than one variant decides every method of the trait `Variant`, and
//! no variant decides by a constant. Counted in the sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The block that begins with this line, up to the brace in its first column.
fn block<'a>(text: &'a str, first: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("{first} {{\n"))?;
    rest.split_once("\n}").map(|(block, _)| block)
}

/// The methods in a block, and each one's text up to the next.
fn methods(block: &str) -> BTreeMap<&str, &str> {
    let texts = block.split("    fn ").skip(1);
    texts
        .filter_map(|text| Some((text.split_once('(')?.0, text)))
        .collect()
}

/// True if a method's text is more than a constant: the method reads the state or compares.
fn decides(text: &str) -> bool {
    let body = text.split_once("{\n").map_or("", |(_, body)| body);
    ["self.", "match ", " == "]
        .iter()
        .any(|sign| body.contains(sign))
}

/// The variants' names and sources: the files that have a folder beside them, but for an extension's.
fn variants() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let folders = paths.filter(|path| path.is_dir());
    let mut found: Vec<_> = folders
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path.with_extension("rs")).unwrap())
        })
        .collect();
    found.retain(|(_, source)| !source.contains("\nimpl Extension for "));
    found.sort();
    found
}

/// Which variants decide each method of a trait in this file of the crate `variant`.
fn deciders(file: &str, name: &str) -> BTreeMap<String, Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../variant/src")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    let declared = methods(block(&text, &format!("pub trait {name}")).unwrap());
    let mut found: BTreeMap<String, Vec<String>> = declared
        .into_keys()
        .map(|method| (method.to_owned(), Vec::new()))
        .collect();
    for (variant, source) in variants() {
        let of = |line: &str| line.strip_prefix(&format!("impl {name} for ")).is_some();
        let line = source.lines().find(|line| of(line)).unwrap();
        let own = block(&source, line.trim_end_matches(" {")).unwrap_or_default();
        for (method, _) in methods(own).into_iter().filter(|(_, text)| decides(text)) {
            found.get_mut(method).unwrap().push(variant.clone());
        }
    }
    println!("{name}: {found:?}");
    found
}

#[test]
fn every_method_of_variant_is_decided_by_more_than_one() {
    let found = deciders("lib.rs", "Variant");
    assert_eq!(found.len(), 7, "{found:?}");
    for (method, variants) in found {
        assert!(variants.len() > 1, "{method}: {variants:?} alone needs it");
    }
}

#[test]
fn readiness_is_a_capability_that_a_variant_may_do_without() {
    let found = deciders("ready.rs", "Ready");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.values().all(|variants| variants == &["nvgrace_gpu"]));
}
