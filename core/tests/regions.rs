//! Region information, and reads and writes of BARs.

mod common;

use common::{BAR0_SIZE, BAR2_SIZE, MSIX_TABLE, PM, Traits, open, write};
use varia_core::Errno;
use varia_spec::vfio::{RegionIndex, region_flags};

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
