//! The lab's guest agent, and the protocol that the lab speaks with it.
//!
//! The binary of this crate is a virtual machine's `/init`: it brings the system up
//! ([`init`]), opens a channel to the lab and answers its requests ([`serve`]). Called
//! as `agent APPLET ARGUMENTS` it runs one of its [`applets`] instead: the part of a
//! test that has to happen inside the machine. The lab links this library for [`wire`]
//! alone. The agent is not a general remote shell: it trusts whoever started the
//! machine, and does nothing to defend itself.

use std::time::Duration;

pub mod applets;
pub mod init;
pub mod process;
pub mod serve;
pub mod sysfs;
pub mod wire;

/// Limit that only a hang reaches, however slow the machine: a test fails by it and never passes by
/// it.
pub const HANG: Duration = Duration::from_secs(30 * 60);
