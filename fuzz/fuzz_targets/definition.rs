//! Any bytes as a definition of a VM. The corpus replays in the ordinary tests of `explain`, which
//! hold the checks.

#![no_main]

use std::sync::LazyLock;

use varia_facts::Facts;

#[path = "../../explain/tests/definitions/exercise.rs"]
mod exercise;

static FACTS: LazyLock<Facts> = LazyLock::new(exercise::facts);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes, &FACTS);
});
