//! The vfio-user protocol: codec, server, client.
//!
//! A VMM (the client) uses a device that another process (the server) offers,
//! over a Unix socket, with the operations of VFIO as messages. Source: the
//! vfio-user specification (QEMU 11.1 `docs/interop/vfio-user.rst`), protocol
//! version 0.0, and what QEMU's client does where the specification is silent;
//! such places say so.
//!
//! The crate knows messages, not variants and not PCI: a [`server::Server`]
//! passes checked requests to a [`backend::Backend`]. Migration is not spoken.
//!
//! From the bottom up: [`wire`] the header, [`command`] the numbers and a file for each command,
//! [`connection`] whole messages on a socket.

pub mod backend;
pub mod client;
pub mod command;
pub mod connection;
pub mod counters;
pub mod reach;
pub mod report;
pub mod server;
pub mod wire;

mod conversation;
mod dispatch;
mod outgoing;
mod place;
mod spin;
mod waiting;
