//! Virtual machines for tests and demos.
//!
//! `varia-debian` fetches packages; [`kernel`] and [`initramfs`] make something that boots of
//! them; [`vm`] starts it and gives a [`running::Running`], through which a test speaks with the
//! agent inside. Nothing here knows of GPUs or of VFIO beyond attaching a vfio-user device.

pub mod agent_build;
pub mod command_package;
pub mod dist;
pub mod error;
pub mod flavour;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod kernel_build;
pub mod kernel_modules;
pub mod kernel_package;
mod kernel_source;
pub mod kernel_tree;
mod launch;
pub mod qemu;
pub mod running;
pub mod s390x;
pub mod sbom;
pub mod selftests;
pub mod slots;
mod unpacked;
pub mod vm;

pub use error::{LabError, Result};
pub use flavour::Flavour;
pub use guest::{GuestCommand, Output, Task};
pub use kernel::Kernel;
pub use launch::NO_CIPHER_TESTS;
pub use running::Running;
pub use slots::VMS;
pub use varia_agent::HANG;
pub use varia_agent::wire::Ending;
pub use varia_debian::{ArchNames, Error as DebianError, Series, Set, host_arch};
pub use varia_debian::{chroot, closure, command, elf, iasl, packages, progress};
pub use varia_units::{Arch, UnknownArch};
pub use vm::{MemoryNode, RootBus, VfioUser, Vm};
