//! Region information, and reads and writes of BARs.

use std::sync::Mutex;

use crate::fake::{BAR0_SIZE, BAR2_SIZE, MSIX_TABLE, PM, Traits, open, read, write};
use varia_core::{DeviceRegion, Errno, RegionInfo};
use varia_spec::vfio::{RegionIndex, RegionType, SparseArea, region_flags};

const READ_WRITE: u32 = region_flags::READ | region_flags::WRITE;

#[test]
fn region_sizes_are_those_of_the_bars() {
    let (_, core) = open(Traits::default());
    let sizes: Vec<_> = (0..8)
        .map(|i| core.region_info(RegionIndex(i)).unwrap())
        .map(|r| (r.size, r.flags))
        .collect();
    let expected = [
        (BAR0_SIZE, READ_WRITE),
        (0, 0),
        (BAR2_SIZE, READ_WRITE),
        (0, 0),
        (0x1000, READ_WRITE),
        (0, 0),
        (0, 0),
        (4096, READ_WRITE),
    ];
    assert_eq!(sizes, expected);
}

#[test]
fn vga_and_beyond_are_einval() {
    let (_, core) = open(Traits::default());
    for index in [8, 9, u32::MAX] {
        let index = RegionIndex(index);
        assert_eq!(core.region_info(index), Err(Errno::EINVAL));
        assert_eq!(core.region_read(index, 0, &mut [0]), Err(Errno::EINVAL));
        assert_eq!(core.region_write(index, 0, &[0]), Err(Errno::EINVAL));
    }
}

#[test]
fn bytes_written_are_read_back() {
    let (_, core) = open(Traits::default());
    assert_eq!(
        core.region_write(RegionIndex::BAR0, 0x123, &[1, 2, 3]),
        Ok(3)
    );
    let mut data = [0; 5];
    assert_eq!(core.region_read(RegionIndex::BAR0, 0x122, &mut data), Ok(5));
    assert_eq!(data, [0, 1, 2, 3, 0]);
}

#[test]
fn count_is_clipped_at_the_end_and_refused_beyond() {
    let (_, core) = open(Traits::default());
    let mut data = [9; 8];
    assert_eq!(
        core.region_read(RegionIndex::BAR0, BAR0_SIZE - 3, &mut data),
        Ok(3)
    );
    assert_eq!(data, [0, 0, 0, 9, 9, 9, 9, 9]);
    assert_eq!(
        core.region_write(RegionIndex::BAR0, BAR0_SIZE - 1, &data),
        Ok(1)
    );
    for offset in [BAR0_SIZE, u64::MAX] {
        assert_eq!(
            core.region_read(RegionIndex::BAR0, offset, &mut data),
            Err(Errno::EINVAL)
        );
    }
    assert_eq!(
        core.region_read(RegionIndex::BAR1, 0, &mut data),
        Err(Errno::EINVAL)
    );
    assert_eq!(core.region_read(RegionIndex::BAR1, 0, &mut []), Ok(0));
}

#[test]
fn disabled_memory_is_eio() {
    let (_, core) = open(Traits::default());
    write(&core, 4, 2, 0);
    assert_eq!(
        core.region_read(RegionIndex::BAR0, 0, &mut [0]),
        Err(Errno::EIO)
    );
    assert_eq!(
        core.region_write(RegionIndex::BAR0, 0, &[0]),
        Err(Errno::EIO)
    );
    write(&core, 4, 2, 2);
    write(&core, u64::from(PM) + 4, 2, 3);
    assert_eq!(
        core.region_read(RegionIndex::BAR0, 0, &mut [0]),
        Err(Errno::EIO)
    );
}

#[test]
fn msix_table_reads_as_ones_and_drops_writes() {
    let (_, core) = open(Traits::default());
    let table = MSIX_TABLE;
    assert_eq!(
        core.region_write(RegionIndex::BAR0, table - 2, &[1; 68]),
        Ok(68)
    );
    let mut data = [0; 70];
    assert_eq!(
        core.region_read(RegionIndex::BAR0, table - 3, &mut data),
        Ok(70)
    );
    assert_eq!(data[..3], [0, 1, 1]);
    assert_eq!(data[3..67], [0xff; 64]);
    assert_eq!(data[67..], [1, 1, 0]);
}

#[test]
fn configuration_space_is_a_region_too() {
    let (_, core) = open(Traits::default());
    let mut id = [0; 2];
    assert_eq!(core.region_read(RegionIndex::CONFIG, 0, &mut id), Ok(2));
    assert_eq!(id, [0xde, 0x10]);
    assert_eq!(core.region_write(RegionIndex::CONFIG, 0x3c, &[5]), Ok(1));
}

#[test]
fn a_rom_shows_its_image_and_ones_behind_it() {
    let (_, core) = open(Traits {
        rom: true,
        ..Traits::default()
    });
    let info = core.region_info(RegionIndex::ROM).unwrap();
    assert_eq!((info.size, info.flags), (4096, region_flags::READ));
    let mut data = [0; 8];
    assert_eq!(core.region_read(RegionIndex::ROM, 0, &mut data), Ok(8));
    assert_eq!(data[..2], [0x55, 0xaa]);
    assert_eq!(core.region_read(RegionIndex::ROM, 508, &mut data), Ok(8));
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(
        core.region_read(RegionIndex::ROM, 4096, &mut data),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        core.region_write(RegionIndex::ROM, 0, &data),
        Err(Errno::EINVAL)
    );
    write(&core, 0x30, 4, u32::MAX);
    assert_eq!(read(&core, 0x30, 4), 0xffff_f001);
    write(&core, 4, 2, 0);
    assert_eq!(
        core.region_read(RegionIndex::ROM, 0, &mut data),
        Err(Errno::ENOMEM)
    );
}

/// One byte that is read and written.
struct Own(Mutex<u8>);

impl DeviceRegion for Own {
    fn info(&self) -> RegionInfo {
        RegionInfo {
            flags: READ_WRITE,
            size: 1,
            areas: vec![SparseArea { offset: 0, size: 1 }],
            region_type: Some(RegionType {
                kind: 0x8000_10de,
                subtype: 1,
            }),
            msix_mappable: false,
            capabilities: [None; 2],
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        let slot = data.first_mut().filter(|_| offset == 0);
        *slot.ok_or(Errno::EINVAL)? = *self.0.lock().unwrap();
        Ok(1)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let byte = data.first().filter(|_| offset == 0);
        *self.0.lock().unwrap() = *byte.ok_or(Errno::EINVAL)?;
        Ok(1)
    }
}

#[test]
fn a_region_that_is_added_has_the_next_index_and_its_own_bytes() {
    let (_, mut core) = open(Traits::default());
    let index = core.add_region(Box::new(Own(Mutex::new(0))));
    assert_eq!(index, RegionIndex(9));
    assert_eq!(core.info().num_regions, 10);
    let info = core.region_info(index).unwrap();
    assert_eq!(info, Own(Mutex::new(0)).info());
    assert_eq!(info.region_type.unwrap().subtype, 1);
    assert_eq!(core.region_write(index, 0, &[5, 6]), Ok(1));
    let mut data = [0; 2];
    assert_eq!(core.region_read(index, 0, &mut data), Ok(1));
    assert_eq!(data, [5, 0]);
    assert_eq!(core.region_info(RegionIndex(10)), Err(Errno::EINVAL));
}
