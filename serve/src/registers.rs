//! Reads and writes of registers that a variant makes.
//!
//! The variant says where an access goes as a whole: to a physical BAR, or to the function's owner
//! as a command. Source of the errors: Linux 7.2
//! `drivers/vfio/pci/virtio/legacy_io.c:virtiovf_pci_bar0_rw`.

use varia_spec::{
    Errno,
    vfio::{IrqIndex, RegionIndex},
};
use varia_variant::{
    Direction, HostPhys, RegisterAccess, Registers, Target, memory::natural_width,
};

use crate::endpoint::Endpoint;

impl Endpoint {
    pub(crate) fn register_read(
        &self,
        registers: &dyn Registers,
        offset: u64,
        data: &mut [u8],
    ) -> Result<usize, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        match self.target(registers, Direction::Read, offset, data.len())? {
            Target::Bar { bar, offset } => {
                let index = RegionIndex(u32::from(bar.get()));
                whole(self.core.region_read(index, offset, data)?, data.len())
            }
            Target::Whole { bar, offset, len } => {
                let _hold = self.core.memory();
                let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
                let mut rest = data.get_mut(..len).ok_or(Errno::EINVAL)?;
                let mut at = offset;
                while !rest.is_empty() {
                    let width = natural_width(HostPhys(at), rest.len() as u64);
                    let (now, later) = rest
                        .split_at_mut_checked(width as usize)
                        .ok_or(Errno::EINVAL)?;
                    self.core.device().bar_read(bar.get(), at, now)?;
                    at += width;
                    rest = later;
                }
                Ok(len)
            }
            Target::Command(command) => {
                let _hold = self.core.memory();
                let device = self.core.device();
                device.owner_command(command.opcode, command.header(), data)?;
                Ok(data.len())
            }
        }
    }

    pub(crate) fn register_write(
        &self,
        registers: &dyn Registers,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        match self.target(registers, Direction::Write, offset, data.len())? {
            Target::Bar { bar, offset } => {
                let index = RegionIndex(u32::from(bar.get()));
                whole(self.core.region_write(index, offset, data)?, data.len())
            }
            Target::Whole { bar, offset, len } => {
                let _hold = self.core.memory();
                let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
                let data = data.get(..len).ok_or(Errno::EINVAL)?;
                self.core.device().bar_write(bar.get(), offset, data)?;
                Ok(len)
            }
            Target::Command(command) => {
                let _hold = self.core.memory();
                let data_with_header = [command.header(), data].concat();
                let device = self.core.device();
                device.owner_command(command.opcode, &data_with_header, &mut [])?;
                Ok(data.len())
            }
        }
    }

    fn target(
        &self,
        registers: &dyn Registers,
        direction: Direction,
        offset: u64,
        len: usize,
    ) -> Result<Target, Errno> {
        registers.access(RegisterAccess {
            direction,
            offset,
            len: len as u64,
            msix: self.core.irq_mode() == Some(IrqIndex::MSIX),
        })
    }
}

/// `EINVAL` if the BAR has only a part of the register.
fn whole(count: usize, len: usize) -> Result<usize, Errno> {
    if count == len {
        Ok(count)
    } else {
        Err(Errno::EINVAL)
    }
}
