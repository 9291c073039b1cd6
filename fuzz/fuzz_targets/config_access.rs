//! Any bytes as a device and configuration accesses. The corpus replays in the ordinary tests of
//! `serve`, which hold the checks.

#![no_main]

#[path = "../../serve/tests/access/exercise.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    exercise::config(bytes, &mut exercise::Seen::default());
});
