// SPDX-License-Identifier: GPL-2.0-only
//! Rendering of this crate's declarations in C, compared with `adaptor/varia_abi.h`.

use std::{env, fs, path::PathBuf};

use crate::{access, config, counters, mapping, probe, ready, show, types};

fn render() -> String {
    let mut text = String::from(
        "/* SPDX-License-Identifier: GPL-2.0-only */\n\
         /*\n \
         * The border between the C adaptor and the Rust object.\n \
         * Rendered from kernel/rust by its tests; do not edit.\n \
         */\n\
         #ifndef VARIA_ABI_H\n\
         #define VARIA_ABI_H\n\n\
         #include <linux/build_bug.h>\n\
         #include <linux/types.h>\n\n",
    );
    text += &types::constants().concat();
    text += "\n";
    text += &types::structs().join("\n");
    for prototypes in [
        probe::prototypes(),
        access::prototypes(),
        config::prototypes(),
        ready::prototypes(),
        mapping::prototypes(),
        counters::prototypes(),
        show::prototypes(),
    ] {
        text += "\n";
        text += &prototypes.join("\n");
    }
    text + "\n#endif /* VARIA_ABI_H */\n"
}

#[test]
fn the_header_is_what_this_crate_declares() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../adaptor/varia_abi.h");
    let rendered = render();
    if env::var_os("VARIA_WRITE_HEADER").is_some() {
        fs::write(&path, &rendered).expect("a writable checkout");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == rendered,
        "adaptor/varia_abi.h is out of date: run the tests once with VARIA_WRITE_HEADER=1"
    );
}
