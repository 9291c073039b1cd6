//! A Linux guest with its own drivers on the virtio network card: behind the variant as a legacy
//! device, and bare as a modern one.

use std::time::Instant;

use varia_lab::{Arch, GuestCommand, Running, Vm};
use varia_serve::View;
use varia_silicon::{Options, profile};
use varia_spec::virtio::{VENDOR_ID, device_id};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::{Error, Result};

/// A card as the guest sees it: its network interface and its virtio device.
struct Card {
    folder: String,
    interface: String,
    virtio: String,
}

fn find(vm: &Running, device: u16) -> Result<Card> {
    let addresses = vm.pci_devices(VENDOR_ID, device)?;
    let [address] = addresses.as_slice() else {
        return Err(Error::Unexpected(format!(
            "not one card {device:#x}: {addresses:?}"
        )));
    };
    let folder = format!("/sys/bus/pci/devices/{address}");
    let entries = vm.list(&folder)?;
    let virtio = entries.iter().find(|name| name.starts_with("virtio"));
    let missing = || Error::Unexpected(format!("no driver has taken {device:#x}"));
    let virtio = virtio.ok_or_else(missing)?.clone();
    let interfaces = vm.list(&format!("{folder}/{virtio}/net"))?;
    Ok(Card {
        interface: interfaces.first().ok_or_else(missing)?.clone(),
        folder,
        virtio,
    })
}

impl Card {
    fn attribute(&self, vm: &Running, name: &str) -> Result<String> {
        Ok(vm.read_text(&format!("{}/{name}", self.folder))?)
    }

    /// Returns true if the driver has taken this feature.
    fn feature(&self, vm: &Running, bit: usize) -> Result<bool> {
        let bits = self.attribute(vm, &format!("{}/features", self.virtio))?;
        Ok(bits.as_bytes().get(bit) == Some(&b'1'))
    }

    /// Sends pings of these sizes, and says how many came back.
    fn ping(&self, vm: &Running, network: u8, sizes: [u32; 3]) -> Result<u32> {
        let sizes = sizes.map(|size| size.to_string());
        let peer = format!("10.0.{network}.2");
        let command = GuestCommand::applet("ping", &[&peer, &sizes[0], &sizes[1], &sizes[2]]);
        let output = vm.run(&command)?.checked()?;
        let count = output.text();
        count
            .parse()
            .map_err(|_| Error::Unexpected(format!("ping printed {count:?}")))
    }

    fn start(&self, vm: &Running, network: u8) -> Result<()> {
        vm.sh(&format!(
            "ip addr add 10.0.{network}.1/24 dev {0} && ip link set {0} up",
            self.interface
        ))?;
        Ok(())
    }
}

fn guest_pings(arch: Arch, messages: bool) -> Result<()> {
    let profile = profile::find("virtio-net").expect("a profile of the catalogue");
    let legacy = Gpu::serve(profile, View::Virtual, Options::default())?;
    let modern = Gpu::serve(profile, View::Physical, Options::default())?;
    let began = Instant::now();
    let vm = Vm::new(arch)
        .name(format!("virtio {arch:?}"))
        .module("virtio_net")
        .cmdline("virtio_pci.force_legacy=1")
        .cmdline(if messages { "" } else { "pci=nomsi" })
        .vfio_user("legacy", &legacy.socket())
        .vfio_user("modern", &modern.socket())
        .boot()?;
    println!("up after {:?}", began.elapsed());

    let card = find(&vm, device_id::TRANSITIONAL_NET)?;
    let identity = ["revision", "subsystem_vendor", "subsystem_device"];
    let identity = identity.map(|name| card.attribute(&vm, name));
    let identity: Result<Vec<_>> = identity.into_iter().collect();
    assert_eq!(identity?, ["0x00", "0x1af4", "0x0001"]);
    let resources = card.attribute(&vm, "resource")?;
    let numbers: Vec<_> = resources
        .split_whitespace()
        .take(3)
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number"))
        .collect();
    // 32 ports: IORESOURCE_IO is 0x100
    assert_eq!(numbers[1] - numbers[0] + 1, 32, "{resources}");
    assert_eq!(numbers[2] & 0x100, 0x100, "{resources}");
    assert!(!card.feature(&vm, 32)?, "a legacy driver has no VERSION_1");
    let address = vm.read_text(&format!("/sys/class/net/{}/address", card.interface))?;
    assert_eq!(address, "52:54:00:76:61:72");

    card.start(&vm, 1)?;
    // every size that fits one frame, then fragments, up to the largest packet
    assert_eq!(card.ping(&vm, 1, [0, 1472, 1])?, 1473);
    assert_eq!(card.ping(&vm, 1, [1473, 65_507, 1601])?, 40);
    println!("1,513 pings after {:?}", began.elapsed());

    let bare = find(&vm, device_id::MODERN_NET)?;
    assert!(bare.feature(&vm, 32)?, "the bare card has VERSION_1");
    bare.start(&vm, 2)?;
    assert_eq!(bare.ping(&vm, 2, [0, 4000, 100])?, 41);

    let interrupts = vm.read_text("/proc/interrupts")?;
    let of = |card: &Card| {
        interrupts
            .lines()
            .filter(|line| line.contains(&card.virtio))
            .collect::<Vec<_>>()
            .join("\n")
    };
    for card in [&card, &bare] {
        let lines = of(card);
        let vectors = lines.contains(&format!("{}-input.0", card.virtio));
        assert_eq!(vectors, messages, "{lines}");
    }
    Ok(vm.power_off()?)
}

#[test]
fn an_x86_guest_pings_through_the_legacy_registers_with_msix() -> Result<()> {
    guest_pings(Arch::X86_64, true)
}

#[test]
fn an_arm_guest_pings_through_the_legacy_registers_with_the_pin() -> Result<()> {
    guest_pings(Arch::Aarch64, false)
}
