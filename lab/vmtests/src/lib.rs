//! Helpers of the tests that boot VMs: devices played by this process, and machines that
//! own them.

pub mod acpi;
pub mod boot_disk;
pub mod clock;
pub mod command;
pub mod counters;
pub mod definition;
pub mod error;
pub mod faulty;
pub mod fw_cfg;
pub mod gpu;
pub mod host;
pub mod inner_guest;
pub mod layouts;
pub mod libvirt_daemon;
pub mod log;
pub mod memory_error;
pub mod page;
pub mod qmp;
pub mod qtest;
pub mod report;
pub mod user;

pub use error::{Error, Result};
