//! Virtual machines for tests and demos.
//!
//! [`packages`] fetches what a machine is made of; [`kernel`] and [`initramfs`] turn that
//! into something that boots; [`vm`] starts it and gives a [`running::Running`], through
//! which a test speaks with the agent inside. [`chroot`] runs the fetched tools. Nothing
//! here knows of GPUs or of VFIO beyond attaching a vfio-user device.

pub mod agent_build;
pub mod apt;
pub mod arch;
pub mod cache;
pub mod chroot;
pub mod closure;
pub mod command;
pub mod elf;
pub mod error;
pub mod flavour;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod kernel_build;
pub mod kernel_modules;
pub mod kernel_package;
mod launch;
pub mod mirror;
pub mod packages;
pub mod progress;
pub mod qemu;
pub mod running;
pub mod selftests;
pub mod slots;
pub mod vm;

pub use arch::Arch;
pub use error::{LabError, Result};
pub use flavour::Flavour;
pub use guest::{GuestCommand, Output, Task};
pub use kernel::Kernel;
pub use packages::Set;
pub use running::Running;
pub use varia_agent::wire::Ending;
pub use vm::{MemoryNode, RootBus, VfioUser, Vm};
