//! Choice of the GPUs that a VM or a pod gets: facts and a request to devices and reasons.
//!
//! Pure: crate `linux` gathers the facts, and crate `node` hands the devices out. The health of a
//! device is a judgement of crate `doctor`, the best driver a fact that every command shares.
//!
//! | module | contents |
//! |---|---|
//! | `health` | health of a device, with reasons |
//! | `topology` | superchips, complete sets of EGM, IOMMUs, PCIe roots of the devices |
//! | `pool` | the devices of a host |
//! | `preferred` | the best set of a size |
//! | `allocation` | checks of a request, and its result |
//! | `refusal` | reasons why a request is refused |

mod allocation;
mod health;
mod pool;
mod preferred;
mod refusal;
#[cfg(test)]
mod tests;
mod topology;

pub use allocation::Allocation;
pub use health::{Constraint, Health, Observed, Reason};
pub use pool::{Device, Pool};
pub use refusal::Refusal;
