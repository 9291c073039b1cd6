//! Opening and closing a device without the protocol: what a user leaves to the next.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use varia_core::{BarSpec, ConfigRegister, Device, DmaAccess, HostPhys, Interrupts, SharedFd};
use varia_serve::{Endpoint, Options};
use varia_silicon::Silicon;
use varia_spec::Errno;
use varia_sys::memory::SharedMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::machine::Machine;

#[test]
fn the_mappings_of_a_user_end_when_it_closes_the_device() {
    let Machine { endpoint, .. } = Machine::small();
    let memory = SharedMemory::anonymous("ram", 4096).unwrap();
    let access = DmaAccess {
        read: true,
        write: true,
    };
    let lent = || memory.as_fd().try_clone_to_owned().unwrap();
    let reached = || {
        let mappings = endpoint.dma().mappings();
        mappings.read_obj::<u8>(GuestAddress(0x1000)).is_ok()
    };
    for _ in 0..2 {
        endpoint.open().unwrap();
        assert!(!reached(), "mapped by the user before");
        let mapped = endpoint.dma().map(0x1000, 4096, access, Some((lent(), 0)));
        assert_eq!(mapped, Ok(()));
        assert!(reached());
        endpoint.close();
    }
    assert!(!reached());
}

#[test]
fn a_device_that_lost_the_bar_of_its_variant_is_refused_and_stays_closed() {
    let Machine { silicon, .. } = Machine::small();
    let device = Arc::new(Losing {
        silicon,
        lost: AtomicBool::new(false),
    });
    let below = Arc::<Losing>::clone(&device);
    let endpoint = Endpoint::new(below, Options::default()).unwrap();
    device.lost.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(endpoint.open(), Err(Errno::ENODEV));
        assert!(!endpoint.core().is_open());
    }
    device.lost.store(false, Ordering::SeqCst);
    assert_eq!(endpoint.open(), Ok(()));
    assert_eq!(endpoint.open(), Err(Errno::EBUSY));
}

/// A GPU whose BAR0 can go.
struct Losing {
    silicon: Arc<Silicon>,
    lost: AtomicBool,
}

impl Device for Losing {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        self.silicon.config_read(register)
    }
    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        self.silicon.config_write(register, value)
    }
    fn bar(&self, bar: u8) -> Option<BarSpec> {
        let there = bar != 0 || !self.lost.load(Ordering::SeqCst);
        self.silicon.bar(bar).filter(|_| there)
    }
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        self.silicon.bar_read(bar, offset, data)
    }
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.silicon.bar_write(bar, offset, data)
    }
    fn bar_fd(&self, bar: u8) -> Option<SharedFd<'_>> {
        self.silicon.bar_fd(bar)
    }
    fn reset(&self) -> Result<(), Errno> {
        self.silicon.reset()
    }
    fn reset_count(&self) -> u64 {
        self.silicon.reset_count()
    }
    fn memory_fd(&self, address: HostPhys, len: u64) -> Option<SharedFd<'_>> {
        self.silicon.memory_fd(address, len)
    }
    fn property(&self, name: &str) -> Option<u64> {
        self.silicon.property(name)
    }
    fn connect(&self, sink: Option<Arc<dyn Interrupts>>) {
        self.silicon.connect(sink);
    }
}
