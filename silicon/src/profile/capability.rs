//! Capabilities of a profile: what each says, and how many bytes it takes.

use varia_spec::nvidia;
use varia_spec::pci::cap::{af, exp, msi, msix, pm, vpd};
use varia_spec::pci::ext_cap::{self, ari, ats, cxl, dsn, err, ltr, pwr, rebar, secpci, vc};
use varia_spec::virtio;

/// A capability and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Offset in configuration space; from 0x100 on it is an extended capability.
    pub offset: u16,
    /// Content of the capability.
    pub body: Body,
}

/// Content of a capability; registers that are not named here are in `config`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Power management: D0 and D3hot at least, without events.
    Power {
        /// D1 and D2 too.
        light_sleep: bool,
        /// Going from D3hot to D0 resets the function.
        soft_reset: bool,
    },
    /// Vital product data.
    Vpd,
    /// MSI with 64-bit addresses.
    Message {
        /// Vectors asked for, a power of two up to 32.
        vectors: u16,
        /// Each vector can be masked.
        maskable: bool,
    },
    /// A version 2 endpoint.
    Express {
        /// Link speed as its code: 1 is 2.5 GT/s, 5 is 32 GT/s.
        speed: u8,
        /// Lanes.
        lanes: u8,
        /// Presence of a function-level reset.
        reset: bool,
    },
    /// Vendor-specific, its body zero.
    Vendor {
        /// Bytes in all.
        len: u8,
    },
    /// Place of a structure of virtio's modern interface.
    Virtio {
        /// Type of the structure.
        cfg_type: u8,
        /// The BAR that it is in.
        bar: u8,
        /// Offset in the BAR in bytes.
        offset: u32,
        /// Bytes.
        len: u32,
    },
    /// MSI-X.
    MessageX {
        /// Vectors, 1 to 2048.
        vectors: u16,
        /// The BAR that holds the table and the pending bits.
        bar: u8,
        /// Offset of the table in the BAR.
        table: u32,
        /// Offset of the pending bits in the BAR.
        pending: u32,
    },
    /// Advanced features: a function-level reset without Express.
    Advanced,
    /// Secondary PCI Express.
    SecondaryExpress {
        /// Lanes.
        lanes: u8,
    },
    /// Latency tolerance reporting.
    Latency,
    /// Resizable BAR, with one size to choose from.
    ResizableBar {
        /// Index of the BAR.
        bar: u8,
    },
    /// Advanced error reporting.
    Errors,
    /// Vendor-specific, extended, its body zero.
    ExtVendor {
        /// Vendor's id for it.
        id: u16,
        /// Revision of the capability.
        revision: u8,
        /// Bytes in all.
        len: u16,
    },
    /// Power budgeting with empty data.
    PowerBudget,
    /// Device serial number.
    Serial(u64),
    /// Alternative routing id, of the only function.
    RoutingId,
    /// Address translation services.
    Translation,
    /// Virtual channel 0 and no other.
    VirtualChannel,
    /// NVIDIA's register DVSEC.
    NvidiaRegisters {
        /// The feature bits at +0xA.
        bitmap: u16,
    },
    /// The CXL Device DVSEC, whose range 1 is the coherent memory and tells when it is ready.
    CxlDevice {
        /// Memory_Active_Timeout, 0 to 4: 1, 4, 16, 64 or 256 s.
        timeout: u8,
    },
}

impl Capability {
    /// Tells whether the capability is in the extended list.
    pub fn is_extended(&self) -> bool {
        self.offset >= ext_cap::START
    }
}

impl Body {
    /// Bytes that it takes, its header included.
    pub fn bytes(&self) -> u16 {
        match *self {
            Self::Power { .. } => pm::SIZEOF,
            Self::Vpd => vpd::SIZEOF,
            Self::Message { maskable: true, .. } => msi::SIZEOF_64_MASK,
            Self::Message { .. } => msi::MASK_64,
            Self::Express { .. } => exp::SIZEOF_V2,
            Self::Vendor { len } => u16::from(len),
            Self::Virtio { cfg_type, .. } => virtio_len(cfg_type),
            Self::MessageX { .. } => msix::SIZEOF,
            Self::Advanced => af::SIZEOF,
            Self::SecondaryExpress { lanes } => secpci::LANES + 2 * u16::from(lanes),
            Self::Latency => ltr::SIZEOF,
            Self::ResizableBar { .. } => rebar::SIZEOF_1,
            Self::Errors => err::SIZEOF,
            Self::ExtVendor { len, .. } => len,
            Self::PowerBudget => pwr::SIZEOF,
            Self::Serial(_) => dsn::SIZEOF,
            Self::RoutingId => ari::SIZEOF,
            Self::Translation => ats::SIZEOF,
            Self::VirtualChannel => vc::SIZEOF,
            Self::NvidiaRegisters { .. } => nvidia::dvsec::BITMAP + 2,
            Self::CxlDevice { .. } => cxl::DEVICE_LEN,
        }
    }

    /// Tells whether the capability belongs in the extended list, from 0x100 on.
    pub fn is_extended(&self) -> bool {
        match self {
            Self::Power { .. }
            | Self::Vpd
            | Self::Message { .. }
            | Self::Express { .. }
            | Self::Vendor { .. }
            | Self::Virtio { .. }
            | Self::MessageX { .. }
            | Self::Advanced => false,
            Self::SecondaryExpress { .. }
            | Self::Latency
            | Self::ResizableBar { .. }
            | Self::Errors
            | Self::ExtVendor { .. }
            | Self::PowerBudget
            | Self::Serial(_)
            | Self::RoutingId
            | Self::Translation
            | Self::VirtualChannel
            | Self::NvidiaRegisters { .. }
            | Self::CxlDevice { .. } => true,
        }
    }
}

/// The notification's capability has a multiplier as well.
fn virtio_len(cfg_type: u8) -> u16 {
    if cfg_type == virtio::cap::NOTIFY_CFG {
        virtio::cap::NOTIFY_MULTIPLIER + 4
    } else {
        virtio::cap::NOTIFY_MULTIPLIER
    }
}
