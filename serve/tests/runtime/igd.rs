//! A graphics device whose OpRegion and bridges are a platform's, which exists here alone.

use std::sync::{Arc, Mutex};

use varia_core::{BarSpec, ConfigRegister, Device, HostPhys, Interrupts, SharedFd};
use varia_serve::{Endpoint, Error, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::vfio::{RegionIndex, RegionType, region_flags};
use varia_spec::{Errno, intel, pci::header};

const ASLS: ConfigRegister = ConfigRegister::dword(intel::ASLS);
const OPREGION: u32 = 0x7b00_0000;
const VBT: u64 = 0x1_2345_6000;

/// The profile nic with the ids of a graphics device.
struct Graphics {
    below: Silicon,
    /// Writes of the OpRegion's address that reached the device.
    written: Mutex<Vec<u32>>,
    lpc: bool,
}

impl Graphics {
    fn new(lpc: bool) -> Arc<Self> {
        let profile = profile::find("nic").unwrap();
        Arc::new(Self {
            below: Silicon::new(profile, varia_silicon::Options::default()).unwrap(),
            written: Mutex::default(),
            lpc,
        })
    }
}

/// Bytes of the OpRegion and of the extended VBT, which is elsewhere.
fn memory(at: u64) -> Option<u8> {
    let base = u64::from(OPREGION);
    if (VBT..VBT + 4096).contains(&at) {
        return Some((at - VBT) as u8 ^ 0x5a);
    }
    let offset = at.checked_sub(base).filter(|offset| *offset < 0x2000)?;
    let field = |start: u64, bytes: &[u8]| {
        let index = usize::try_from(offset.checked_sub(start)?).ok()?;
        bytes.get(index).copied()
    };
    field(0, b"IntelGraphicsMem")
        .or_else(|| field(0x10, &8_u32.to_le_bytes()))
        .or_else(|| field(0x16, &0x0200_u16.to_le_bytes()))
        .or_else(|| field(0x3ba, &VBT.to_le_bytes()))
        .or_else(|| field(0x3c2, &4096_u32.to_le_bytes()))
        .or(Some(offset as u8))
}

impl Device for Graphics {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        let value = self.below.config_read(register)?;
        let mask = register.width().mask();
        let dword = match register.offset() & !3 {
            header::VENDOR_ID => 0x3e9b << 16 | u32::from(intel::VENDOR_ID),
            0x08 => 0x0300_0002,
            intel::ASLS => OPREGION,
            _ => return Ok(value),
        };
        Ok(dword >> (8 * (register.offset() & 3)) & mask)
    }

    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        if register.offset() & !3 == ASLS.offset() {
            self.written.lock().unwrap().push(value);
        }
        self.below.config_write(register, value)
    }

    fn bar(&self, bar: u8) -> Option<BarSpec> {
        self.below.bar(bar)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.below.bar_read(bar, offset, data)
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.below.bar_write(bar, offset, data)
    }

    fn bar_fd(&self, bar: u8) -> Option<SharedFd<'_>> {
        self.below.bar_fd(bar)
    }

    fn reset(&self) -> Result<(), Errno> {
        self.below.reset()
    }

    fn reset_count(&self) -> u64 {
        self.below.reset_count()
    }

    fn platform_read(&self, address: HostPhys, data: &mut [u8]) -> Result<(), Errno> {
        for (at, byte) in (address.0..).zip(data) {
            *byte = memory(at).ok_or(Errno::EFAULT)?;
        }
        Ok(())
    }

    fn root_config_read(&self, devfn: (u8, u8), register: ConfigRegister) -> Result<u32, Errno> {
        let class = match devfn {
            (0, 0) => intel::class::HOST_BRIDGE,
            (0x1f, 0) if self.lpc => intel::class::LPC_BRIDGE,
            _ => return Err(Errno::ENODEV),
        };
        let dword = match register.offset() & !3 {
            0 => 0x9bc3_8086,
            8 => class << 8 | 0x10,
            at => u32::from_le_bytes([at as u8; 4]),
        };
        Ok(dword >> (8 * (register.offset() & 3)) & register.width().mask())
    }

    fn root_config_size(&self, devfn: (u8, u8)) -> Result<u16, Errno> {
        match devfn {
            (0, 0) => Ok(4096),
            (0x1f, 0) if self.lpc => Ok(256),
            _ => Err(Errno::ENODEV),
        }
    }

    fn connect(&self, sink: Option<Arc<dyn Interrupts>>) {
        self.below.connect(sink);
    }
}

fn serve(device: &Arc<Graphics>) -> Result<Endpoint, Error> {
    Endpoint::new(Arc::clone(device) as Arc<dyn Device>, Options::default())
}

fn bytes(endpoint: &Endpoint, index: u32, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    let count = endpoint.read(RegionIndex(index), offset, &mut data);
    data.truncate(count.unwrap());
    data
}

#[test]
fn opregion_and_bridges_are_regions_of_the_device() {
    let device = Graphics::new(true);
    let endpoint = serve(&device).unwrap();
    assert_eq!(endpoint.variant_name(), Some("igd"));
    endpoint.open().unwrap();
    assert_eq!(endpoint.info().num_regions, 12);
    for (index, size) in [(9, 0x3000), (10, 4096), (11, 256)] {
        let region = endpoint.region_info(RegionIndex(index)).unwrap();
        assert_eq!(region.info.size, size);
        assert_eq!(region.info.flags, region_flags::READ);
        let subtype = index - 8;
        assert_eq!(
            region.info.region_type,
            Some(RegionType::of_vendor(0x8086, subtype))
        );
        assert!(region.file.is_none());
        let write = endpoint.write(RegionIndex(index), 0, &[1]);
        assert_eq!(write, Err(Errno::EINVAL));
        let mut byte = [0];
        let beyond = endpoint.read(RegionIndex(index), size, &mut byte);
        assert_eq!(beyond, Err(Errno::EINVAL));
        assert_eq!(bytes(&endpoint, index, size - 1, 8).len(), 1);
    }
    assert!(endpoint.region_info(RegionIndex(12)).is_err());
    // the guest's version and place of the VBT, and what is there
    let whole = bytes(&endpoint, 9, 0, 0x3000);
    assert_eq!(&whole[0x10..0x18], [8, 0, 0, 0, 0x14, 0x15, 1, 2]);
    assert_eq!(&whole[0x3ba..0x3c2], 0x2000_u64.to_le_bytes());
    let vbt: Vec<u8> = (0..4096).map(|at| memory(VBT + at).unwrap()).collect();
    assert!(whole[0x2000..] == vbt);
    assert_eq!(bytes(&endpoint, 9, 0x15, 3), [0x15, 1, 2]);
    // what QEMU reads of the bridges
    assert_eq!(bytes(&endpoint, 10, 0, 4), [0x86, 0x80, 0xc3, 0x9b]);
    assert_eq!(bytes(&endpoint, 10, 8, 4), [0x10, 0, 0, 6]);
    assert_eq!(bytes(&endpoint, 11, 9, 3), [0, 1, 6]);
    assert_eq!(bytes(&endpoint, 11, 0x2e, 2), [0x2c; 2]);
    endpoint.close();
}

#[test]
fn the_opregions_address_never_reaches_the_device() {
    let device = Graphics::new(true);
    let endpoint = serve(&device).unwrap();
    for _ in 0..2 {
        endpoint.open().unwrap();
        let asls = || bytes(&endpoint, RegionIndex::CONFIG.0, 0xfc, 4);
        assert_eq!(asls(), OPREGION.to_le_bytes());
        endpoint
            .write(RegionIndex::CONFIG, 0xfc, &[1, 2, 3, 4])
            .unwrap();
        assert_eq!(asls(), [1, 2, 3, 4]);
        // across the register's end
        assert_eq!(bytes(&endpoint, RegionIndex::CONFIG.0, 0xfe, 2), [3, 4]);
        endpoint.close();
    }
    assert!(device.written.lock().unwrap().is_empty());
}

#[test]
fn a_missing_bridge_leaves_no_half_set_of_regions() {
    let endpoint = serve(&Graphics::new(false)).unwrap();
    let reason = endpoint.declined().unwrap().to_string();
    assert!(
        reason.starts_with("the LPC bridge 0000:00:1f.0 can't be read (ENODEV): "),
        "{reason}"
    );
    assert_eq!(endpoint.info().num_regions, 9);
    assert!(endpoint.region_info(RegionIndex(9)).is_err());
}
