// SPDX-License-Identifier: GPL-2.0-only
//! Comparison of a header with the one that is rendered from the declarations of a crate.

use std::{env, fs, path::Path};

/// Checks that the file `name`, relative to the folder of the crate, has this text; with
/// `VARIA_WRITE_HEADER` in the environment, writes it first.
pub(crate) fn assert_stored(folder: &str, name: &str, rendered: &str) {
    let path = Path::new(folder).join(name);
    if env::var_os("VARIA_WRITE_HEADER").is_some() {
        fs::write(&path, rendered).expect("a writable checkout");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == rendered,
        "{name} is out of date: run the tests once with VARIA_WRITE_HEADER=1"
    );
}
