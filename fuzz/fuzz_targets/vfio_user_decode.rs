//! Any bytes as a vfio-user message. The corpus replays in the ordinary tests
//! of `vfio-user`, which hold the checks.

#![no_main]

#[path = "../../vfio-user/tests/decode/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise::exercise(bytes));
