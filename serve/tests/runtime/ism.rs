//! Internal shared memory at its full size, and the accesses that reach its device.

use std::sync::{Arc, Mutex};

use varia_core::{BarSpec, ConfigRegister, Device, Interrupts, SharedFd};
use varia_facts::PlatformFacts;
use varia_serve::{Backend, Endpoint, Error, Options, View};
use varia_silicon::{Silicon, profile};
use varia_spec::vfio::{RegionIndex, region_flags};
use varia_spec::{Errno, zpci};

use crate::machine::READ_WRITE;

const SIZE: u64 = 1 << 48;

/// The profile, with a record of the accesses to its BARs: write, BAR, offset, bytes.
struct Recorded {
    below: Silicon,
    accesses: Mutex<Vec<(bool, u8, u64, usize)>>,
}

impl Recorded {
    fn take(&self) -> Vec<(bool, u8, u64, usize)> {
        std::mem::take(&mut self.accesses.lock().unwrap())
    }
}

impl Device for Recorded {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        self.below.config_read(register)
    }

    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        self.below.config_write(register, value)
    }

    fn bar(&self, bar: u8) -> Option<BarSpec> {
        self.below.bar(bar)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let access = (false, bar, offset, data.len());
        self.accesses.lock().unwrap().push(access);
        self.below.bar_read(bar, offset, data)
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let access = (true, bar, offset, data.len());
        self.accesses.lock().unwrap().push(access);
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

    fn zpci(&self) -> Option<zpci::Facts> {
        self.below.zpci()
    }

    fn connect(&self, sink: Option<Arc<dyn Interrupts>>) {
        self.below.connect(sink);
    }
}

fn device(platform: Option<PlatformFacts>) -> Arc<Recorded> {
    let options = varia_silicon::Options {
        platform,
        ..Default::default()
    };
    let below = Silicon::new(profile::find("ism").unwrap(), options).unwrap();
    Arc::new(Recorded {
        below,
        accesses: Mutex::default(),
    })
}

fn served(device: &Arc<Recorded>, strict: bool) -> Result<Endpoint, Error> {
    let options = Options {
        strict,
        ..Options::default()
    };
    Endpoint::new(Arc::<Recorded>::clone(device), options)
}

#[test]
fn a_client_reads_and_writes_256_tib_with_one_store_for_each_request() {
    let device = device(None);
    let endpoint = served(&device, true).unwrap();
    assert_eq!(endpoint.variant_name(), Some("ism"));
    assert_eq!(endpoint.offset_shift(), 48);
    assert_eq!(endpoint.capabilities().len(), 4, "zdev lies over it");
    let mut client = crate::machine::attach(&Arc::new(Backend::new(Arc::new(endpoint))));
    for (index, size, flags) in [
        (0, SIZE, READ_WRITE),
        (1, 0, 0),
        (2, 64 << 10, READ_WRITE),
        (3, 0, 0),
        (6, 0, 0),
        (8, 0, 0),
    ] {
        let region = client.region_info(index).unwrap();
        assert_eq!(
            (region.info.size, region.info.flags),
            (size, flags),
            "{index}"
        );
        assert!(region.file.is_none() && region.info.flags & region_flags::MMAP == 0);
    }
    device.take();
    // memory is disabled, which stores don't ask for
    for (offset, len) in [
        (0, 4096_usize),
        (SIZE - 4096, 4096),
        (SIZE - 1, 1),
        (0x2345_6789_0003, 129),
        (0x7_fffc, 4),
    ] {
        let data: Vec<u8> = (0..len).map(|at| at as u8 | 1).collect();
        assert_eq!(client.region_write(0, offset, &data).unwrap(), len);
        assert_eq!(device.take(), [(true, 0, offset, len)], "one store");
        let mut back = vec![0; len];
        assert_eq!(client.region_read(0, offset, &mut back).unwrap(), len);
        assert_eq!(back, data);
        for (write, bar, at, width) in device.take() {
            let natural = matches!(width, 1 | 2 | 4 | 8) && at % width as u64 == 0;
            assert!(natural && !write && bar == 0, "{width} at {at:#x}");
        }
    }
    for (offset, len, expected) in [
        // across a page, longer than a store, beyond the end
        (0xfff, 2_usize, None),
        (0, 4097, None),
        (SIZE, 1, None),
        (u64::MAX, 1, None),
        // up to the end
        (SIZE - 8, 64, Some(8)),
    ] {
        let written = client.region_write(0, offset, &vec![0xee; len]);
        match expected {
            None => {
                assert_eq!(written.unwrap_err().errno(), Some(Errno::EINVAL));
                assert_eq!(device.take(), []);
            }
            Some(count) => {
                assert_eq!(written.unwrap(), count);
                assert_eq!(device.take(), [(true, 0, offset, count)]);
            }
        }
    }
    assert_eq!(
        client.region_write(0, SIZE, &[]).unwrap(),
        0,
        "nothing is nothing"
    );
    let absent = client.region_read(1, 0, &mut [0; 4]).unwrap_err();
    assert_eq!(absent.errno(), Some(Errno::EINVAL));
}

#[test]
fn the_machine_that_owns_it_has_the_positions_of_vfio_pci() {
    let options = Options {
        view: View::Physical,
        ..Options::default()
    };
    let endpoint = Endpoint::new(device(None), options).unwrap();
    assert_eq!(endpoint.offset_shift(), 40);
}

#[test]
fn without_the_platforms_facts_the_core_serves_it_alone_and_strict_refuses() {
    let device = device(Some(PlatformFacts::new()));
    let endpoint = served(&device, false).unwrap();
    let reason = endpoint.declined().unwrap().to_string();
    let says = "the platform names no longest store of the function's group (imaxstbl) (ENODEV): \
                served as a plain PCI device, whose stores are split; ";
    assert!(reason.starts_with(says), "{reason}");
    assert_eq!(endpoint.offset_shift(), 40, "as vfio-pci");
    assert!(endpoint.capabilities().is_empty());
    let rom = endpoint.region_info(RegionIndex::ROM).unwrap();
    assert_eq!(rom.info.size, 0);
    let refused = served(&device, true).unwrap_err();
    assert_eq!(refused.errno(), Errno::ENODEV);
    assert!(
        refused
            .to_string()
            .contains("the option strict allows no less")
    );
}
