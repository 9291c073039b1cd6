//! The commands: one table, and a file for each command that is spoken.
//!
//! A command's file has the structure behind the header, the checks of a request, what the server
//! does with the request, and the client's call. A new command is a file here, a line in the table
//! below, and a method of [`Backend`](crate::backend::Backend) if it is the device's.
//!
//! Source: vfio-user specification, "Commands" and the section of each command. A structure has at
//! least its bytes in a message: what a later revision appends is not looked at.

mod capability;
mod device_feature;
mod device_info;
mod dma_access;
mod dma_map;
mod dma_unmap;
mod irq_info;
mod layout;
mod region_access;
mod region_info;
mod region_read;
mod region_write;
mod region_write_multi;
mod reset;
mod set_irqs;
pub mod version;

use std::fmt;

pub use device_feature::{DeviceFeature, ReadableFeature};
pub use device_info::{DeviceQuery, DeviceReply};
pub(crate) use dma_access::answer;
pub use dma_access::{Counting, DmaAccess, HeldMemory, TELLING_COUNT, Twin};
pub use dma_map::{DMA_READ, DMA_WRITE, DmaMap};
pub use dma_unmap::{DMA_UNMAP_ALL, DMA_UNMAP_LEN, DmaUnmap};
pub use irq_info::{IrqQuery, IrqReply};
pub use region_access::{REGION_ACCESS_LEN, RegionAccess};
pub use region_info::{RegionInfo, RegionQuery, RegionReply};
pub use region_read::RegionRead;
pub use region_write::RegionWrite;
pub use region_write_multi::{MultiWrite, WriteMulti};
pub use reset::Reset;
pub use set_irqs::{SentIrqData, SetIrqs};
pub use version::Version;

use varia_spec::errno::Errno;

use crate::backend::Backend;
use crate::dispatch::{Handled, Turn};
use crate::wire::WireError;

/// A command number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command(pub u16);

/// A request that the server serves.
pub(crate) trait Served<'a>: Sized {
    /// True if descriptors may come with the request.
    const TAKES_DESCRIPTORS: bool = false;

    /// The request in the bytes behind a header; at most `max_xfer` bytes of data may be asked for.
    /// An error is a message that is shorter than it says. Values that a device may refuse are let
    /// through.
    fn decode(payload: &'a [u8], max_xfer: usize) -> Result<Self, WireError>;

    /// An attempt at the request. An error is what the device or the server refuses: the client
    /// gets it as an error reply and stays connected.
    fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno>;
}

macro_rules! commands {
    (
        $life:lifetime
        served { $($name:ident = $value:literal, $variant:ident($request:ty), $text:literal;)* }
        others { $($other:ident = $number:literal, $reason:literal;)* }
    ) => {
        impl Command {
            $(#[doc = concat!("`VFIO_USER_", stringify!($name), "`: ", $text, ".")]
            pub const $name: Self = Self($value);)*
            $(#[doc = concat!("`VFIO_USER_", stringify!($other), "`: ", $reason, ".")]
            pub const $other: Self = Self($number);)*

            /// Name in the specification, without `VFIO_USER_`; `None` for a
            /// number that it does not have.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    $($number => Some(stringify!($other)),)*
                    _ => None,
                }
            }
        }

        /// A client's command with what came behind its header, every length checked.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Request<$life> {
            $(#[doc = concat!(stringify!($name), ".")]
            $variant($request),)*
            /// An unsupported or unknown command.
            Unsupported(Command),
        }

        impl<$life> Request<$life> {
            /// Decode the `payload` of `command`; at most `max_xfer` bytes of data may
            /// be asked for.
            ///
            /// An error is a message that is shorter than it says, which the client gets back as
            /// `EINVAL`. Bytes behind the structure are not looked at, and values that a device may
            /// refuse are let through.
            pub fn decode(
                command: Command,
                payload: &$life [u8],
                max_xfer: usize,
            ) -> Result<Self, WireError> {
                Ok(match command {
                    $(Command::$name => {
                        Self::$variant(<$request as Served<'_>>::decode(payload, max_xfer)?)
                    })*
                    other => Self::Unsupported(other),
                })
            }

            /// An attempt at the request.
            pub(crate) fn serve<B: Backend>(&self, turn: Turn<'_, B>) -> Result<Handled, Errno> {
                match self {
                    $(Self::$variant(request) => {
                        let takes = <$request as Served<'_>>::TAKES_DESCRIPTORS;
                        if !takes && !turn.fds.is_empty() {
                            return Err(Errno::EINVAL);
                        }
                        request.serve(turn)
                    })*
                    Self::Unsupported(_) if turn.fds.is_empty() => Err(Errno::EOPNOTSUPP),
                    Self::Unsupported(_) => Err(Errno::EINVAL),
                }
            }
        }
    };
}

commands! {
    'a
    served {
        VERSION = 1, Version(Version), "negotiate; the first message";
        DMA_MAP = 2, DmaMap(DmaMap), "memory that the device may reach";
        DMA_UNMAP = 3, DmaUnmap(DmaUnmap), "memory that it may no longer reach";
        DEVICE_GET_INFO = 4, DeviceInfo(DeviceQuery), "how many regions and interrupt types there are";
        DEVICE_GET_REGION_INFO = 5, RegionInfo(RegionQuery), "size, flags and descriptor of a region";
        DEVICE_GET_IRQ_INFO = 7, IrqInfo(IrqQuery), "how many interrupts of a type there are";
        DEVICE_SET_IRQS = 8, SetIrqs(SetIrqs<'a>), "signal, mask or unmask interrupts";
        REGION_READ = 9, RegionRead(RegionRead), "read bytes of a region";
        REGION_WRITE = 10, RegionWrite(RegionWrite<'a>), "write bytes of a region";
        DEVICE_RESET = 13, Reset(Reset), "reset the device";
        REGION_WRITE_MULTI = 15, RegionWriteMulti(WriteMulti), "several short writes at once";
        DEVICE_FEATURE = 16, Feature(DeviceFeature<'a>), "a feature of the device";
    }
    others {
        DEVICE_GET_REGION_IO_FDS = 6, "descriptors in place of region writes; not spoken";
        DMA_READ = 11, "read the client's memory; server to client";
        DMA_WRITE = 12, "write the client's memory; server to client";
        DIRTY_PAGES = 14, "gone from the specification; not spoken";
        MIG_DATA_READ = 17, "migration; not spoken";
        MIG_DATA_WRITE = 18, "migration; not spoken";
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.0),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
