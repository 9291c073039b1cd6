// SPDX-License-Identifier: GPL-2.0-only
//! Rendering of this crate's declarations in C, compared with `adaptor/varia_abi.h`.

use crate::{
    access, config, counters, mapping, probe, ready, rendered::assert_stored, show, types,
};

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
    assert_stored(
        env!("CARGO_MANIFEST_DIR"),
        "../adaptor/varia_abi.h",
        &render(),
    );
}
