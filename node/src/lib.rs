//! A Kubernetes device plugin for the GPUs of a host: one process, one resource for each chip.
//!
//! Decisions about devices are crate `allocate`'s; this crate hands the devices out, keeps who has
//! them, binds drivers on demand, and speaks with the kubelet.
//!
//! | module | contents |
//! |---|---|
//! | `settings` | settings of the process |
//! | `machine` | the host: files, users of devices, changes of drivers |
//! | `holds` | devices that are handed out, on disk |
//! | `node` | the state machine: refresh, allocate, start, release |
//! | `snapshot` | what of the state readers get that never wait |
//! | `answer` | device nodes and environment of a container |
//! | `metrics`, `http` | Prometheus text and health over HTTP |
//! | `device_plugin_api`, `pod_resources_api`, `calls` | messages and calls of the kubelet |
//! | `transport` | gRPC over Unix sockets |
//! | `plugin` | service of one resource |
//! | `kubelet` | sockets and registration of one resource |
//! | `uevents` | events of the kernel |
//! | `run` | the process |
//! | `status` | text about a host: what is offered, and what the kubelet will refuse |

mod answer;
#[cfg(test)]
mod calls;
pub mod device_plugin_api;
mod holds;
mod http;
mod kubelet;
mod machine;
mod metrics;
mod node;
mod plugin;
pub mod pod_resources_api;
#[cfg(test)]
mod protos;
mod run;
mod settings;
mod snapshot;
mod status;
pub mod transport;
mod uevents;

pub use holds::{Hold, Holds, Pod};
pub use machine::{Live, Machine};
pub use node::{Listing, Node, Readiness, resource_name};
pub use run::{Server, StartError, run};
pub use settings::{Access, Settings};
pub use status::status;
