// SPDX-License-Identifier: GPL-2.0-only
//! Panic handler of every object: it names a symbol that nothing defines, and the build refuses an
//! object that still refers to it.

unsafe extern "C" {
    fn varia_a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never called: an object in which this is reachable does not link.
    unsafe { varia_a_panic_is_reachable() }
}
