//! A device-specific region: from the endpoint to a client.

use std::sync::{Arc, Mutex};

use varia_core::{DeviceRegion, RegionInfo};
use varia_spec::Errno;
use varia_spec::vfio::{RegionIndex, RegionType, SparseArea, region_flags};

use crate::machine::{BAR4, Machine, READ_WRITE};

const TYPE: RegionType = RegionType {
    kind: 0x8000_10de,
    subtype: 3,
};

/// Sixteen bytes, from which a range is clipped.
struct Notes(Mutex<[u8; 16]>);

impl DeviceRegion for Notes {
    fn info(&self) -> RegionInfo {
        RegionInfo {
            flags: READ_WRITE | region_flags::MMAP,
            size: 16,
            areas: vec![SparseArea {
                offset: 0,
                size: 16,
            }],
            region_type: Some(TYPE),
            msix_mappable: false,
            capabilities: [None; 2],
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        let notes = self.0.lock().unwrap();
        let rest = notes.get(offset as usize..).ok_or(Errno::EINVAL)?;
        let count = rest.len().min(data.len());
        data[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let mut notes = self.0.lock().unwrap();
        let rest = notes.get_mut(offset as usize..).ok_or(Errno::EINVAL)?;
        let count = rest.len().min(data.len());
        rest[..count].copy_from_slice(&data[..count]);
        Ok(count)
    }
}

#[test]
fn a_device_specific_region_is_described_read_and_written_by_a_client() {
    let mut machine = Machine::small();
    let endpoint = Arc::get_mut(&mut machine.endpoint).unwrap();
    for index in [9, 10] {
        let added = endpoint.add_region(Box::new(Notes(Mutex::default())));
        assert_eq!(added, RegionIndex(index));
    }
    let mut client = machine.attach();
    assert_eq!(client.device_info().unwrap().num_regions, 11);
    for index in [9, 10] {
        let region = client.region_info(index).unwrap();
        assert_eq!(region.info.size, 16);
        assert_eq!(region.info.region_type, Some(TYPE));
        // there is no file to map
        assert_eq!(region.info.flags, READ_WRITE | region_flags::CAPS);
        assert_eq!(region.info.areas, []);
        assert!(region.file.is_none());
    }
    assert_eq!(client.region_write(10, 12, b"overflow").unwrap(), 4);
    let mut bytes = [0; 8];
    assert_eq!(client.region_read(10, 8, &mut bytes).unwrap(), 8);
    assert_eq!(&bytes, b"\0\0\0\0over");
    assert_eq!(client.region_read(9, 8, &mut bytes).unwrap(), 8);
    assert_eq!(bytes, [0; 8], "another region");
    let beyond = client.region_read(10, 17, &mut bytes).unwrap_err();
    assert_eq!(beyond.errno(), Some(Errno::EINVAL));
    let absent = client.region_info(11).unwrap_err();
    assert_eq!(absent.errno(), Some(Errno::EINVAL));
    assert_eq!(client.try_read(BAR4, 0), Ok(4));
}
