//! A device whose registers are a list, so that a test shows what it tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use varia_core::{
    BarSpace, BarSpec, BusFunction, ConfigRegister, Core, Device, Errno, Interrupts, SharedFd, View,
};

pub(crate) const PM: u16 = 0x40;
pub(crate) const MSI: u16 = 0x48;
pub(crate) const EXP: u16 = 0x60;
pub(crate) const VNDR: u16 = 0x9c;
pub(crate) const MSIX: u16 = 0xb0;
/// An id that the core does not know, between MSI-X and the end of the list.
pub(crate) const UNKNOWN: u16 = 0xc0;
/// An extended capability that the core hides, first in the list.
pub(crate) const SECPCI: u16 = 0x100;
pub(crate) const AER: u16 = 0x140;
/// A capability that the core hides, between two that it shows.
pub(crate) const LINK_16GT: u16 = 0x1a0;
pub(crate) const DVSEC: u16 = 0x200;
/// Vital product data, behind the unknown one; only of a device that has it.
pub(crate) const VPD: u16 = 0xd0;
pub(crate) const MSIX_TABLE: u64 = 0x1000;
pub(crate) const BAR0_SIZE: u64 = 0x1_0000;
pub(crate) const BAR2_SIZE: u64 = 8 << 30;

/// Properties of a fake device.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    /// Going from D3hot to D0 resets it.
    pub(crate) soft_reset: bool,
    /// It can be reset.
    pub(crate) flr: bool,
    /// It has vital product data.
    pub(crate) vpd: bool,
    /// It has an expansion ROM of 4 KiB with an image of 512 bytes.
    pub(crate) rom: bool,
    /// Number of functions on the bus, this one included.
    pub(crate) functions: u8,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            soft_reset: false,
            flr: true,
            vpd: false,
            rom: false,
            functions: 0,
        }
    }
}

pub(crate) struct Fake {
    traits: Traits,
    state: Mutex<State>,
    power_on: Vec<u8>,
    writable: Vec<u8>,
    resets: AtomicU64,
    sink: Mutex<Option<Arc<dyn Interrupts>>>,
}

struct State {
    config: Vec<u8>,
    bar0: Vec<u8>,
    vpd: Vec<u8>,
}

/// A name, four bytes that can be written, the end; then bytes that are not data any more.
fn product_data() -> Vec<u8> {
    let mut data = b"\x82\x05\x00varia\x91\x07\x00RW\x04abcd\x78".to_vec();
    data.resize(64, 0xee);
    data
}

/// One image, the last, of one sector.
fn rom() -> Vec<u8> {
    let mut rom = vec![0; 4096];
    rom[..2].copy_from_slice(&[0x55, 0xaa]);
    rom[0x18] = 0x1c;
    rom[0x1c..0x20].copy_from_slice(b"PCIR");
    rom[0x1c + 0x0a] = 0x18;
    rom[0x1c + 0x10] = 1;
    rom[0x1c + 0x15] = 0x80;
    rom
}

/// {offset, width, value, writable bits} of everything that is not zero.
fn registers(traits: Traits) -> Vec<(u16, u16, u32, u32)> {
    let no_soft_reset = if traits.soft_reset { 0 } else { 8 };
    let flr = if traits.flr { 1 << 28 } else { 0 };
    let (behind, flag) = if traits.vpd { (VPD, 0xffff) } else { (0, 0) };
    vec![
        (0x00, 4, 0x1234_10de, 0),
        (0x04, 2, 0, 0x0547),
        (0x06, 2, 0x0010, 0),
        (0x08, 4, 0x0302_00a1, 0),
        (0x0c, 1, 0, 0xff),
        // BAR 0: 64 KiB, BAR 2: 8 GiB, both 64-bit prefetchable; BAR 4: 4 KiB, 32-bit
        (0x10, 4, 0x4000_000c, 0xffff_0000),
        (0x14, 4, 0x1, 0xffff_ffff),
        (0x18, 4, 0xc, 0),
        (0x1c, 4, 0x20, 0xffff_fffe),
        (0x20, 4, 0x8000_0000, 0xffff_f000),
        (0x2c, 4, 0x0001_10de, 0),
        (0x34, 1, u32::from(PM), 0),
        (0x3c, 1, 0, 0xff),
        (0x3d, 1, 1, 0),
        (PM, 4, 0xf803 << 16 | u32::from(MSI) << 8 | 0x01, 0),
        (PM + 4, 2, 0x8100 | no_soft_reset, 0x3),
        (
            MSI,
            4,
            0x0188 << 16 | u32::from(EXP) << 8 | 0x05,
            0x0071 << 16,
        ),
        (EXP, 4, 2 << 16 | u32::from(VNDR) << 8 | 0x10, 0),
        (EXP + 4, 4, 1 | flr, 0),
        (EXP + 8, 2, 0x2830, 0x7fff),
        (VNDR, 4, 0x14 << 16 | u32::from(MSIX) << 8 | 0x09, 0),
        (VNDR + 4, 4, 0, 0xffff_ffff),
        (
            MSIX,
            4,
            3 << 16 | u32::from(UNKNOWN) << 8 | 0x11,
            0xc000 << 16,
        ),
        (MSIX + 4, 4, MSIX_TABLE as u32, 0),
        (MSIX + 8, 4, 0x2000, 0),
        (UNKNOWN, 4, u32::from(behind) << 8 | 0x7e, 0),
        (VPD, 2, if traits.vpd { 0x03 } else { 0 }, 0),
        (VPD + 2, 2, 0, flag),
        (VPD + 4, 4, 0, flag * 0x1_0001),
        (0xf0, 4, 0x5a5a_5a5a, 0xffff_ffff),
        (SECPCI, 4, u32::from(AER) << 20 | 1 << 16 | 0x19, 0),
        (AER, 4, u32::from(LINK_16GT) << 20 | 2 << 16 | 0x01, 0),
        (AER + 8, 4, 0, 0xffff_ffff),
        (LINK_16GT, 4, u32::from(DVSEC) << 20 | 1 << 16 | 0x26, 0),
        (DVSEC, 4, 1 << 16 | 0x23, 0),
        (DVSEC + 4, 4, 0x10 << 20 | 0x10de, 0),
        (DVSEC + 8, 4, 1 << 16 | 3, 0),
        (DVSEC + 12, 4, 0, 0xffff_ffff),
    ]
}

impl Fake {
    pub(crate) fn new(traits: Traits) -> Self {
        let (mut power_on, mut writable) = (vec![0; 4096], vec![0; 4096]);
        for (at, width, value, mask) in registers(traits) {
            put(&mut power_on, at, width, value);
            put(&mut writable, at, width, mask);
        }
        let state = State {
            config: power_on.clone(),
            bar0: vec![0; BAR0_SIZE as usize],
            vpd: product_data(),
        };
        Self {
            traits,
            state: Mutex::new(state),
            power_on,
            writable,
            resets: AtomicU64::new(0),
            sink: Mutex::new(None),
        }
    }

    /// The physical register, whatever the core shows.
    pub(crate) fn raw(&self, at: u16, width: u16) -> u32 {
        get(&self.state.lock().unwrap().config, at, width)
    }

    /// Puts a value into a physical register, as firmware could have left it.
    pub(crate) fn put_raw(&self, at: u16, width: u16, value: u32) {
        put(&mut self.state.lock().unwrap().config, at, width, value);
    }

    /// Puts other vital product data in the place of its own.
    pub(crate) fn put_product_data(&self, data: &[u8]) {
        self.state.lock().unwrap().vpd = data.to_vec();
    }

    /// Sends a message, as the hardware would.
    pub(crate) fn message(&self, vector: u16) {
        let sink = self.sink.lock().unwrap().clone();
        sink.into_iter().for_each(|s| s.message(vector));
    }

    /// Moves the interrupt pin, as the hardware would.
    pub(crate) fn pin(&self, asserted: bool) {
        let sink = self.sink.lock().unwrap().clone();
        sink.into_iter().for_each(|s| s.intx(asserted));
    }

    fn restart(&self, state: &mut State) {
        self.resets.fetch_add(1, Ordering::SeqCst);
        state.config.clone_from(&self.power_on);
        // the addresses that firmware gave are lost
        (0x10..0x28).for_each(|at| state.config[at] &= 0xf);
        state.bar0.fill(0);
    }
}

impl State {
    /// Moves four bytes of vital product data and inverts the flag.
    fn transfer(&mut self) {
        let addr = get(&self.config, VPD + 2, 2);
        let at = (addr & 0x7ffc) as usize;
        let data = get(&self.config, VPD + 4, 4);
        if let Some(bytes) = self.vpd.get_mut(at..at + 4) {
            if addr & 0x8000 != 0 {
                bytes.copy_from_slice(&data.to_le_bytes());
            } else {
                let data = u32::from_le_bytes(bytes.try_into().unwrap());
                put(&mut self.config, VPD + 4, 4, data);
            }
        }
        put(&mut self.config, VPD + 2, 2, addr ^ 0x8000);
    }
}

impl Device for Fake {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        Ok(self.raw(register.offset(), register.width().bytes()))
    }

    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        let (at, width) = (register.offset(), register.width().bytes());
        let mut state = self.state.lock().unwrap();
        let (old, mask) = (
            get(&state.config, at, width),
            get(&self.writable, at, width),
        );
        put(&mut state.config, at, width, old & !mask | value & mask);
        if self.traits.vpd && at <= VPD + 3 && VPD + 3 < at + width {
            state.transfer();
        }
        let woke = at == PM + 4 && old & 3 == 3 && value & 3 == 0;
        let flr = self.traits.flr && at == EXP + 8 && width > 1 && value & 0x8000 != 0;
        if woke && self.traits.soft_reset || flr {
            self.restart(&mut state);
        }
        Ok(())
    }

    fn bar(&self, bar: u8) -> Option<BarSpec> {
        let (size, space, prefetchable) = match bar {
            0 => (BAR0_SIZE, BarSpace::Memory64, true),
            2 => (BAR2_SIZE, BarSpace::Memory64, true),
            4 => (0x1000, BarSpace::Memory32, false),
            _ => return None,
        };
        Some(BarSpec {
            size,
            space,
            prefetchable,
        })
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        data.fill(0);
        if bar == 0 {
            let at = offset as usize;
            let state = self.state.lock().unwrap();
            data.copy_from_slice(state.bar0.get(at..at + data.len()).ok_or(Errno::EINVAL)?);
        }
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if bar == 0 {
            let at = offset as usize;
            let mut state = self.state.lock().unwrap();
            let to = state
                .bar0
                .get_mut(at..at + data.len())
                .ok_or(Errno::EINVAL)?;
            to.copy_from_slice(data);
        }
        Ok(())
    }

    fn bar_fd(&self, _bar: u8) -> Option<SharedFd<'_>> {
        None
    }

    fn rom(&self) -> Option<u64> {
        self.traits.rom.then_some(4096)
    }

    fn rom_read(&self, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let at = offset as usize;
        let bytes = rom();
        data.copy_from_slice(bytes.get(at..at + data.len()).ok_or(Errno::EINVAL)?);
        Ok(())
    }

    fn bus_functions(&self) -> Vec<BusFunction> {
        (0..self.traits.functions)
            .map(|devfn| BusFunction {
                segment: 0,
                bus: 1,
                devfn,
                group: 7,
            })
            .collect()
    }

    fn bus_reset(&self) -> Result<(), Errno> {
        self.restart(&mut self.state.lock().unwrap());
        Ok(())
    }

    fn reset(&self) -> Result<(), Errno> {
        if !self.traits.flr {
            return Err(Errno::ENOTTY);
        }
        self.restart(&mut self.state.lock().unwrap());
        Ok(())
    }

    fn reset_count(&self) -> u64 {
        self.resets.load(Ordering::SeqCst)
    }

    fn connect(&self, sink: Option<Arc<dyn Interrupts>>) {
        *self.sink.lock().unwrap() = sink;
    }
}

/// An open core over a fake.
pub(crate) fn open(traits: Traits) -> (Arc<Fake>, Core<Fake>) {
    let fake = Arc::new(Fake::new(traits));
    let core = Core::new(fake.clone(), View::Virtual).unwrap();
    core.open().unwrap();
    (fake, core)
}

/// Value that a user reads, little endian.
pub(crate) fn read(core: &Core<Fake>, at: u64, width: usize) -> u32 {
    let mut bytes = [0; 4];
    assert_eq!(core.config_read(at, &mut bytes[..width]), Ok(width));
    u32::from_le_bytes(bytes)
}

/// Value that a user writes, little endian.
pub(crate) fn write(core: &Core<Fake>, at: u64, width: usize, value: u32) {
    assert_eq!(
        core.config_write(at, &value.to_le_bytes()[..width]),
        Ok(width)
    );
}

fn get(bytes: &[u8], at: u16, width: u16) -> u32 {
    (0..width).fold(0, |v, i| {
        v | u32::from(bytes[usize::from(at + i)]) << (8 * i)
    })
}

fn put(bytes: &mut [u8], at: u16, width: u16, value: u32) {
    for (i, byte) in (0..width).zip(value.to_le_bytes()) {
        bytes[usize::from(at + i)] = byte;
    }
}
