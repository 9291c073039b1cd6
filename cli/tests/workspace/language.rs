//! Syntax that `rust-version` does not have. The functions of the standard library are clippy's
//! part (`incompatible_msrv`), which does not know the syntax. What stands inside a macro's call is
//! not read.

use std::fs;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::{packages, root, sources};

/// Lines with a `let` inside `&&`, which Rust has since 1.88.
#[derive(Default)]
struct LetChains(Vec<usize>);

impl<'ast> Visit<'ast> for LetChains {
    fn visit_expr_binary(&mut self, chain: &'ast syn::ExprBinary) {
        for side in [&chain.left, &chain.right] {
            if matches!(**side, syn::Expr::Let(_)) {
                self.0.push(side.span().start().line);
            }
        }
        visit::visit_expr_binary(self, chain);
    }
}

fn let_chains(source: &str) -> syn::Result<Vec<usize>> {
    let mut found = LetChains::default();
    found.visit_file(&syn::parse_file(source)?);
    Ok(found.0)
}

#[test]
fn no_source_needs_a_newer_language_than_rust_version_says() {
    for package in packages() {
        let version = &package.rust_version;
        assert_eq!(version, "1.87", "{}: see CONTRIBUTING.md", package.name);
    }
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 300, "{} sources", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let lines = let_chains(&fs::read_to_string(&file).unwrap());
        let lines = lines.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        wrong.extend(
            lines
                .iter()
                .map(|line| format!("{}:{line}", file.display())),
        );
    }
    assert!(
        wrong.is_empty(),
        "let chains need Rust 1.88:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_let_chain_is_seen() {
    let source = "fn f(a: Option<u8>) {\n    if a.is_some()\n        && let Some(1) = a\n    {}\n\
                  \n    while let Some(2) = a\n        && true\n    {}\n    if let Some(3) = a {}\n}\n";
    assert_eq!(let_chains(source).unwrap(), [3, 6]);
}
