//! A variant's own code is small: what another variant could need belongs in `variant`.

use std::fs;
use std::path::Path;

const MOST: usize = 400;

/// Lines that are neither empty nor a comment, up to the tests.
fn lines(text: &str) -> usize {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

fn folder(path: &Path) -> usize {
    let mut sum = 0;
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            sum += folder(&path);
        } else {
            sum += lines(&fs::read_to_string(&path).unwrap());
        }
    }
    sum
}

#[test]
fn every_variant_and_extension_is_below_400_lines_of_code() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut variants = Vec::new();
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        let is_one_file = path.ends_with("clique.rs");
        if path.is_dir() || is_one_file {
            let own = lines(&fs::read_to_string(path.with_extension("rs")).unwrap());
            let sum = own + if is_one_file { 0 } else { folder(&path) };
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            println!("{name}: {sum} lines");
            assert!(sum < MOST, "{name} has {sum} lines of code");
            variants.push(name);
        }
    }
    variants.sort();
    assert_eq!(
        variants,
        [
            "clique",
            "igd",
            "ism",
            "nvgrace_gpu",
            "nvlink2",
            "virtio",
            "zdev"
        ]
    );
}
