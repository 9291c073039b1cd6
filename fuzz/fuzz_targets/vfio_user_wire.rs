//! Any bytes as what several clients with DMA do to one server. The corpus replays in the ordinary
//! tests of `serve`, which hold the checks.

#![no_main]

#[path = "../../serve/tests/wire/clients.rs"]
#[allow(dead_code, reason = "the tests alone look at what was seen")]
mod clients;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    clients::wire(bytes, &mut clients::Seen::default());
});
