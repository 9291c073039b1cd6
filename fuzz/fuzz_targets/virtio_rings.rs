//! Any bytes as a driver of the virtio network card. The corpus replays in the ordinary tests of
//! `silicon`, which hold the checks.

#![no_main]

#[path = "../../silicon/tests/rings/exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::exercise(bytes, &mut exercise::Seen::default());
});
