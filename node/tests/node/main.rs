//! The device plugin on made-up hosts, whose kernel is simulated, before a kubelet that is a
//! stand-in.

mod allocations;
mod blocked;
mod faults;
mod host;
mod kills;
mod log_lines;
#[path = "../../../linux/tests/played/mod.rs"]
#[allow(dead_code, reason = "the tests of `linux` use the rest of it")]
mod played;
mod running;
mod sockets;
mod stand_in;
