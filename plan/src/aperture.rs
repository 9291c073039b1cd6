//! Address space for the BARs of GPUs: windows and the MMIO aperture.

use varia_facts::{Arch, Bytes};

use crate::error::Error;
use crate::gpu::{Gpu, PlannedBar};
use crate::limits::VIRT_APERTURE;

/// Room for other 64-bit BARs: disks, network, consoles.
const OTHERS: u64 = 1 << 30;
/// Start of RAM on the virt machine.
const VIRT_RAM: u64 = 1 << 30;

/// Window of the root port of a function with these BARs: their sum, rounded up to a power of two, as
/// UEFI rounds the reservation of a port.
///
/// # Errors
/// [`Error::Aperture`] if the window has more than 64 bits.
pub fn window(bars: &[PlannedBar]) -> Result<Bytes, Error> {
    let sum = bars.iter().map(|bar| u128::from(bar.size.0)).sum::<u128>();
    let window = if sum == 0 { 0 } else { sum.next_power_of_two() };
    u64::try_from(window)
        .map(Bytes)
        .map_err(|_| too_large(bars.iter().map(|bar| bar.size), window, 0, u64::BITS))
}

/// The smallest aperture, a power of two, that holds the windows of all GPUs and other devices'
/// BARs, in a guest whose physical addresses have `bits` bits.
pub(crate) fn aperture(arch: Arch, ram: Bytes, gpus: &[Gpu], bits: u32) -> Result<Bytes, Error> {
    let size = aperture_for(arch, gpus.iter().map(|gpu| gpu.window));
    let end = aperture_end(ram, size);
    if end > 1 << bits.min(64) {
        let sizes = gpus.iter().flat_map(|gpu| &gpu.memory.device.bars);
        return Err(too_large(sizes.map(|bar| bar.size), size, end, bits));
    }
    // it ends below 2^64
    Ok(Bytes(u64::try_from(size).unwrap_or(u64::MAX)))
}

/// The smallest aperture, a power of two, that holds these windows and other devices' BARs.
pub fn aperture_for(arch: Arch, windows: impl Iterator<Item = Bytes>) -> u128 {
    // Powers of two at their own alignment, largest first, leave no gaps.
    let sum: u128 = windows.map(|window| u128::from(window.0)).sum();
    let size = (sum + u128::from(OTHERS)).next_power_of_two();
    match arch {
        Arch::Aarch64 => size.max(VIRT_APERTURE.into()),
        Arch::X86_64 => size,
    }
}

/// End of an aperture of `size` bytes, a power of two, in a guest with `ram`.
#[must_use]
pub fn aperture_end(ram: Bytes, size: u128) -> u128 {
    let below = u128::from(VIRT_RAM) + u128::from(ram.0);
    below.next_multiple_of(size.max(1)) + size
}

/// A size of an aperture, which may have more than 64 bits, in binary units.
#[must_use]
pub fn size(bytes: u128) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) => Bytes(bytes).to_string(),
        Err(_) => format!("{} TiB", bytes >> 40),
    }
}

fn too_large(sizes: impl Iterator<Item = Bytes>, aperture: u128, end: u128, bits: u32) -> Error {
    Error::Aperture {
        bars: Error::sizes(sizes),
        aperture,
        end,
        bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{CoherentMemory, GuestNode, Source, VirtualFunction};

    const GIB: u64 = 1 << 30;

    fn gpu(sizes: &[u64]) -> Gpu {
        let bars: Vec<_> = sizes
            .iter()
            .zip((0..).step_by(2))
            .map(|(size, index)| PlannedBar {
                index,
                size: Bytes(*size),
            })
            .collect();
        let window = window(&bars).expect("a window");
        let device = VirtualFunction {
            id: "gpu0".into(),
            bars,
        };
        Gpu {
            memory: CoherentMemory {
                device,
                source: Source::VfioUser("/run/gpu0".into()),
                nodes: 1..9,
            },
            socket: GuestNode(0),
            bus: None,
            window,
        }
    }

    const GH200: [u64; 3] = [16 << 20, GIB, 128 * GIB];

    fn of(gpus: &[Gpu], bits: u32) -> Result<Bytes, Error> {
        aperture(Arch::Aarch64, Bytes(4 * GIB), gpus, bits)
    }

    #[test]
    fn a_window_holds_the_bars_at_their_alignment() {
        assert_eq!(gpu(&GH200).window, Bytes(256 * GIB));
        assert_eq!(gpu(&[16 << 20, 256 * GIB]).window, Bytes(512 * GIB));
        assert_eq!(gpu(&[]).window, Bytes(0));
    }

    #[test]
    fn an_aperture_holds_the_windows_and_something_else() {
        let gh200 = gpu(&GH200);
        assert_eq!(of(&[], 48), Ok(Bytes(512 * GIB)));
        assert_eq!(of(std::slice::from_ref(&gh200), 48), Ok(Bytes(512 * GIB)));
        assert_eq!(
            of(&[gh200.clone(), gh200.clone()], 48),
            Ok(Bytes(1024 * GIB))
        );
        assert_eq!(of(&vec![gh200; 4], 48), Ok(Bytes(2048 * GIB)));
    }

    #[test]
    fn an_aperture_beyond_the_address_width_is_refused_with_its_end() {
        let gh200 = gpu(&GH200);
        let error = of(&vec![gh200; 4], 41).expect_err("2 TiB at 2 TiB end at 42 bits");
        assert!(
            matches!(error, Error::Aperture { end, bits: 41, .. } if end == 1 << 42),
            "{error}"
        );
        let error = window(&[
            PlannedBar {
                index: 2,
                size: Bytes(1),
            },
            PlannedBar {
                index: 4,
                size: Bytes(1 << 63),
            },
        ])
        .expect_err("two times 2^63");
        assert!(error.to_string().contains("8388608 TiB"), "{error}");
    }
}
