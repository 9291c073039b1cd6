//! Registers that a variant makes: the legacy interface of a virtio card.

use std::sync::Arc;

use varia_core::{IrqData, Trigger};
use varia_serve::{Endpoint, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::Errno;
use varia_spec::vfio::{IrqAction, IrqIndex, RegionIndex, region_flags};

const BAR0: RegionIndex = RegionIndex::BAR0;
/// Features, status, interrupt status, and the start of the device's registers.
const FEATURES: u64 = 0;
const STATUS: u64 = 18;
const NOTIFY: u64 = 16;
const IO: u8 = 1;
const MEMORY: u8 = 2;

fn card() -> Endpoint {
    let profile = profile::find("virtio-net").unwrap();
    let silicon = Silicon::new(profile, varia_silicon::Options::default()).unwrap();
    let endpoint = Endpoint::new(Arc::new(silicon), Options::default()).unwrap();
    endpoint.open().unwrap();
    endpoint
}

fn enable(card: &Endpoint, bits: u8) {
    card.write(RegionIndex::CONFIG, 4, &[bits, 0]).unwrap();
}

fn read<const N: usize>(card: &Endpoint, at: u64) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    let count = card.read(BAR0, at, &mut bytes)?;
    assert_eq!(count, N);
    Ok(bytes)
}

#[test]
fn bar0_is_32_ports_that_answer_while_io_is_enabled() {
    let card = card();
    let info = card.region_info(BAR0).unwrap();
    let both = region_flags::READ | region_flags::WRITE;
    assert_eq!(
        (info.info.size, info.info.flags, info.file.is_some()),
        (32, both, false)
    );
    assert_eq!(read::<4>(&card, FEATURES), Err(Errno::EIO));
    assert_eq!(card.write(BAR0, STATUS, &[1]), Err(Errno::EIO));
    enable(&card, IO);
    assert_eq!(
        read(&card, FEATURES),
        Ok((1u32 << 5 | 1 << 16).to_le_bytes())
    );
    assert_eq!(card.write(BAR0, STATUS, &[1]), Ok(1));
    assert_eq!(read(&card, STATUS), Ok([1]));
    assert_eq!(read::<4>(&card, 29), Err(Errno::EINVAL));
    assert_eq!(card.write(BAR0, 32, &[0]), Err(Errno::EINVAL));
    assert_eq!(card.read(BAR0, 32, &mut []), Ok(0));
    card.reset().unwrap();
    assert_eq!(
        read::<4>(&card, FEATURES),
        Err(Errno::EIO),
        "a reset disables it"
    );
}

#[test]
fn a_notification_needs_its_length_and_the_memory_behind_it() {
    let card = card();
    enable(&card, IO);
    assert_eq!(card.write(BAR0, NOTIFY, &[0, 0]), Err(Errno::EIO));
    enable(&card, IO | MEMORY);
    assert_eq!(card.write(BAR0, NOTIFY, &[0, 0]), Ok(2));
    assert_eq!(card.write(BAR0, NOTIFY, &[0]), Err(Errno::EINVAL));
    assert_eq!(card.write(BAR0, NOTIFY, &[0; 4]), Err(Errno::EINVAL));
    assert_eq!(read::<2>(&card, NOTIFY), Ok([0; 2]));
}

#[test]
fn the_devices_registers_move_when_the_user_enables_msix() {
    let card = card();
    enable(&card, IO);
    let mac = [0x52, 0x54, 0, 0x76, 0x61, 0x72];
    assert_eq!(read(&card, 20), Ok(mac));
    let trigger: Arc<dyn Trigger> = Arc::new(|| {});
    let data = IrqData::Triggers(vec![Some(trigger)]);
    let core = card.core();
    core.set_irqs(IrqIndex::MSIX, IrqAction::Trigger, 0, 1, data)
        .unwrap();
    assert_eq!(read(&card, 24), Ok(mac));
    assert_eq!(read(&card, 20), Ok([0xff; 4]), "no vectors yet");
}
