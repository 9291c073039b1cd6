//! A client's command, decoded and with every length checked.

use crate::payload::{DeviceReply, DmaMap, DmaUnmap, InfoQuery, MultiWrite, RegionAccess, SetIrqs};
use crate::version::Version;
use crate::wire::{Command, WireError};

/// A command with what came behind its header.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// VERSION.
    Version(Version),
    /// DMA_MAP.
    DmaMap(DmaMap),
    /// DMA_UNMAP.
    DmaUnmap(DmaUnmap),
    /// DEVICE_GET_INFO, with its `argsz`.
    DeviceInfo {
        /// Bytes that the reply's payload may have.
        argsz: u32,
    },
    /// DEVICE_GET_REGION_INFO.
    RegionInfo(InfoQuery),
    /// DEVICE_GET_IRQ_INFO.
    IrqInfo(InfoQuery),
    /// DEVICE_SET_IRQS.
    SetIrqs(SetIrqs<'a>),
    /// REGION_READ of at most `max_data_xfer_size` bytes.
    RegionRead(RegionAccess),
    /// REGION_WRITE; the data has the `count` bytes that the access says.
    RegionWrite(RegionAccess, &'a [u8]),
    /// REGION_WRITE_MULTI.
    RegionWriteMulti(Vec<MultiWrite>),
    /// DEVICE_RESET.
    Reset,
    /// An unsupported or unknown command.
    Unsupported(Command),
}

impl<'a> Request<'a> {
    /// Decode the `payload` of `command`; at most `max_xfer` bytes of data may
    /// be asked for.
    ///
    /// An error is a message that is shorter than it says, which the client gets back as
    /// `EINVAL`. Bytes behind the structure are not looked at, and values that a device may refuse
    /// are let through.
    pub fn decode(command: Command, payload: &'a [u8], max_xfer: usize) -> Result<Self, WireError> {
        Ok(match command {
            Command::VERSION => Self::Version(Version::decode(payload)?),
            Command::DMA_MAP => Self::DmaMap(DmaMap::decode(payload)?),
            Command::DMA_UNMAP => Self::DmaUnmap(DmaUnmap::decode(payload)?),
            Command::DEVICE_GET_INFO => {
                let (argsz, _) = DeviceReply::decode(payload)?;
                Self::DeviceInfo { argsz }
            }
            Command::DEVICE_GET_REGION_INFO => Self::RegionInfo(InfoQuery::decode_region(payload)?),
            Command::DEVICE_GET_IRQ_INFO => Self::IrqInfo(InfoQuery::decode_irq(payload)?),
            Command::DEVICE_SET_IRQS => Self::SetIrqs(SetIrqs::decode(payload)?),
            Command::REGION_READ => {
                let what = "REGION_READ";
                let (access, _) = RegionAccess::decode(what, payload)?;
                within(what, access.count, max_xfer)?;
                Self::RegionRead(access)
            }
            Command::REGION_WRITE => {
                let what = "REGION_WRITE";
                let (access, data) = RegionAccess::decode(what, payload)?;
                within(what, access.count, max_xfer)?;
                let wanted = data.get(..access.count as usize);
                let data = wanted.ok_or(WireError::CountMismatch {
                    what,
                    count: access.count.into(),
                    len: data.len(),
                })?;
                Self::RegionWrite(access, data)
            }
            Command::REGION_WRITE_MULTI => Self::RegionWriteMulti(MultiWrite::decode_all(payload)?),
            Command::DEVICE_RESET => Self::Reset,
            other => Self::Unsupported(other),
        })
    }
}

fn within(what: &'static str, count: u32, max: usize) -> Result<(), WireError> {
    if count as usize > max {
        return Err(WireError::TooMuchData {
            what,
            count: count.into(),
            max,
        });
    }
    Ok(())
}
