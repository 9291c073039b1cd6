//! The physical device below a core.
//!
//! A [`Device`] is one PCI Express function as the machine that owns it sees it: raw configuration
//! space, BARs, memory outside every BAR, firmware properties. What a user of VFIO may see of it
//! is the core's business and not decided here.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use varia_spec::Errno;
use varia_spec::pci::CFG_SPACE_EXP_SIZE;
use varia_spec::zpci;
pub use varia_units::HostPhys;

use crate::dma::Dma;

/// Width of a configuration access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// A single byte.
    Byte,
    /// Two bytes, at an even offset.
    Word,
    /// Four bytes, at a multiple of four.
    Dword,
}

impl Width {
    /// Bytes moved: 1, 2 or 4.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The bits that an access of this width can carry.
    pub const fn mask(self) -> u32 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
        }
    }
}

/// Offset and width of a configuration access: naturally aligned and inside the 4096 bytes, by
/// construction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigRegister {
    offset: u16,
    width: Width,
}

impl ConfigRegister {
    /// `None` when `offset` is not a multiple of the width or lies beyond the space.
    pub const fn new(offset: u16, width: Width) -> Option<Self> {
        let bytes = width.bytes();
        if offset.is_multiple_of(bytes) && offset <= CFG_SPACE_EXP_SIZE - bytes {
            Some(Self { offset, width })
        } else {
            None
        }
    }

    /// The four bytes that contain `offset`.
    pub const fn dword(offset: u16) -> Self {
        Self {
            offset: offset & (CFG_SPACE_EXP_SIZE - 4),
            width: Width::Dword,
        }
    }

    /// The two bytes that contain `offset`.
    pub const fn word(offset: u16) -> Self {
        Self {
            offset: offset & (CFG_SPACE_EXP_SIZE - 2),
            width: Width::Word,
        }
    }

    /// The byte at `offset`, modulo the size of the space.
    pub const fn byte(offset: u16) -> Self {
        Self {
            offset: offset & (CFG_SPACE_EXP_SIZE - 1),
            width: Width::Byte,
        }
    }

    /// The first byte.
    pub const fn offset(self) -> u16 {
        self.offset
    }

    /// Number of bytes.
    pub const fn width(self) -> Width {
        self.width
    }
}

/// Size and address space of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarSpace {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; the next register holds the upper half of the address.
    Memory64,
}

/// A base address register that the device implements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarSpec {
    /// Bytes decoded, a power of two.
    pub size: u64,
    /// Address space.
    pub space: BarSpace,
    /// Reads have no side effects and writes may be merged.
    pub prefetchable: bool,
}

/// A function that a reset of a bus resets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BusFunction {
    /// PCI segment.
    pub segment: u16,
    /// Bus number.
    pub bus: u8,
    /// Device in bits 7:3, function in bits 2:0.
    pub devfn: u8,
    /// The group of functions that belong to one owner.
    pub group: u32,
}

/// A piece of a file that a client can map: the descriptor, and the offset where the piece begins.
#[derive(Clone, Copy, Debug)]
pub struct SharedFd<'a> {
    /// The descriptor, lent for as long as the device is borrowed.
    pub fd: BorrowedFd<'a>,
    /// First byte of the piece in the file.
    pub offset: u64,
}

/// Node of the platform's device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeNode {
    /// The function's own node.
    Function,
    /// The node of the host bridge above the function.
    HostBridge,
    /// The node with this number.
    Phandle(u32),
}

/// Receiver of a device's interrupts. The core implements it.
pub trait Interrupts: Send + Sync {
    /// The device sent the message of `vector`. Dropped if the vector has no trigger.
    fn message(&self, vector: u16);
    /// The device's interrupt pin changed its level.
    fn intx(&self, asserted: bool);
}

/// A physical PCI function.
///
/// All methods take `&self` and may be called from several threads at once. Offsets come from
/// outside: an implementation answers an error for what lies out of range.
pub trait Device: Send + Sync {
    /// Reads a register of the raw configuration space; only the bits of the width are set.
    ///
    /// # Errors
    /// The errors of the transport if the function does not answer.
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno>;

    /// Writes a register of the raw configuration space, with every effect that it has on the
    /// hardware: a reset that it starts is over when this returns.
    ///
    /// # Errors
    /// As [`config_read`](Self::config_read).
    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno>;

    /// The BAR that begins at register `bar` (0 to 5); `None` when there is none, and for the
    /// register that holds the upper half of a 64-bit BAR.
    fn bar(&self, bar: u8) -> Option<BarSpec>;

    /// Reads bytes of a BAR. The command register is not checked.
    ///
    /// # Errors
    /// `EINVAL` if the range is not inside the BAR.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno>;

    /// Writes bytes of a BAR. The command register is not checked.
    ///
    /// # Errors
    /// `EINVAL` if the range is not inside the BAR.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno>;

    /// The file behind a whole BAR whose bytes have no side effects; `None` for any other.
    fn bar_fd(&self, bar: u8) -> Option<SharedFd<'_>>;

    /// Bytes that the expansion ROM's register decodes; `None` when there is no ROM.
    fn rom(&self) -> Option<u64> {
        None
    }

    /// Reads bytes of the expansion ROM. Neither the command register nor the ROM's own enable bit
    /// is looked at.
    ///
    /// # Errors
    /// `EINVAL` if the range is not inside the ROM.
    fn rom_read(&self, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let _ = (offset, data);
        Err(Errno::EINVAL)
    }

    /// Resets the function; it is over when this returns. Configuration registers have their
    /// power-on values afterwards: saving and restoring them is the caller's business.
    ///
    /// # Errors
    /// `ENOTTY` when the function can't be reset.
    fn reset(&self) -> Result<(), Errno>;

    /// The functions that a reset of the bus or slot resets, this one among them; none when there
    /// is no such reset.
    fn bus_functions(&self) -> Vec<BusFunction> {
        Vec::new()
    }

    /// Resets the bus or slot; it is over when this returns. Registers as for
    /// [`reset`](Self::reset).
    ///
    /// # Errors
    /// `ENOTTY` when there is no such reset.
    fn bus_reset(&self) -> Result<(), Errno> {
        Err(Errno::ENOTTY)
    }

    /// Number of resets since power-on, whatever started them. Never decreases, and
    /// has counted a reset before anything after it can be seen.
    fn reset_count(&self) -> u64;

    /// Reads memory of the device that lies outside every BAR; by default there is none.
    ///
    /// # Errors
    /// `EFAULT` if the range is not the device's.
    fn memory_read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        let _ = (address, data);
        Err(Errno::EFAULT)
    }

    /// Writes memory of the device that lies outside every BAR.
    ///
    /// # Errors
    /// `EFAULT` if the range is not the device's.
    fn memory_write(&self, address: HostPhys, data: &[u8]) -> Result<(), Errno> {
        let _ = (address, data);
        Err(Errno::EFAULT)
    }

    /// Address of the first byte of `len` bytes from `address` that is in a failed page; by default
    /// no page fails.
    fn memory_failed(&self, address: HostPhys, len: u64) -> Option<HostPhys> {
        let _ = (address, len);
        None
    }

    /// The file behind `len` bytes of memory from `address`; `None` when they are not the
    /// device's, or can't be mapped.
    fn memory_fd(&self, address: HostPhys, len: u64) -> Option<SharedFd<'_>> {
        let _ = (address, len);
        None
    }

    /// Reads the platform's memory, where its firmware keeps tables for the function.
    ///
    /// # Errors
    /// `EFAULT` if the range is not memory.
    fn platform_read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        let _ = (address, data);
        Err(Errno::EFAULT)
    }

    /// Reads a register of the configuration space of another function on bus 0 of the platform,
    /// by device and function number.
    ///
    /// # Errors
    /// `ENODEV` if the function does not exist.
    fn root_config_read(&self, devfn: (u8, u8), register: ConfigRegister) -> Result<u32, Errno> {
        let _ = (devfn, register);
        Err(Errno::ENODEV)
    }

    /// Size in bytes of the configuration space of another function on bus 0 of the platform.
    ///
    /// # Errors
    /// As [`root_config_read`](Self::root_config_read).
    fn root_config_size(&self, devfn: (u8, u8)) -> Result<u16, Errno> {
        let _ = devfn;
        Err(Errno::ENODEV)
    }

    /// A firmware property of the function that is an unsigned integer (ACPI `_DSD`).
    fn property(&self, name: &str) -> Option<u64> {
        let _ = name;
        None
    }

    /// Bytes of a property of a node of the platform's device tree.
    ///
    /// # Errors
    /// `ENODEV` if the node does not exist, `ENOENT` if the node does not have the property.
    fn tree_property(&self, node: TreeNode, name: &str) -> Result<Vec<u8>, Errno> {
        let _ = (node, name);
        Err(Errno::ENOENT)
    }

    /// Facts of firmware about the function, on s390.
    fn zpci(&self) -> Option<zpci::Facts> {
        None
    }

    /// Takes the oldest error record of the function that the platform has kept.
    fn take_error_record(&self) -> Option<Vec<u8>> {
        None
    }

    /// Has the function's owner carry out an administration command about this function: a
    /// physical function does so for its virtual functions. `result` is filled to its end, with
    /// zeros where the command's own result is shorter.
    ///
    /// # Errors
    /// `ENOTTY` when there is no owner with such commands, `EINVAL` for a command that it does not
    /// know or whose data is wrong.
    fn owner_command(&self, opcode: u16, data: &[u8], result: &mut [u8]) -> Result<(), Errno> {
        let _ = (opcode, data, result);
        Err(Errno::ENOTTY)
    }

    /// Gives the function the memory that it masters the bus for, or takes it away. The function
    /// checks its bus master bit before each use.
    fn attach(&self, memory: Option<Arc<Dma>>) {
        let _ = memory;
    }

    /// Sends interrupts to `sink` from now on; `None` drops them.
    fn connect(&self, sink: Option<Arc<dyn Interrupts>>);
}
