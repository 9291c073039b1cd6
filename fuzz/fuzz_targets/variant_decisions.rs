//! Any bytes as a device and questions to its variant. The corpus replays in the ordinary tests
//! of `variants`, which hold the checks.

#![no_main]

#[path = "../../variants/tests/decisions/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes, &mut exercise::Seen::default());
});
