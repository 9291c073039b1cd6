//! The kernel's vfio-pci on s390x beside the extension zdev: the capabilities of the device's info of
//! two functions that QEMU emulates.
//!
//! The kernel's structures are in the order of a big-endian machine, and the extension's in that of
//! this one. So each field of ours is turned around by its width before the bytes are compared.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use varia_facts::{Number, PlatformFacts, ZpciFacts};
use varia_lab::HANG;
use varia_lab::s390x::Machine;
use varia_serve::Endpoint;
use varia_silicon::{Options, Silicon, profile};
use varia_spec::vfio::device_cap;

/// What vfio-pci of Linux 7.2.12 (Debian, s390x) wrote of the function `zpci,uid=7,fid=9` of QEMU
/// 11.1.2, `struct vfio_device_info` and the chain behind it.
const GOLDEN: &str = include_str!("zdev.hex");
/// Handle of that function.
const GOLDEN_HANDLE: u64 = 0x8002_0000;

const INIT: &str = include_str!("zdev.sh");
const INFO: &str = include_str!("zdev.pl");
const MODULES: [&str; 5] = [
    "virt/lib/irqbypass",
    "drivers/vfio/vfio",
    "drivers/vfio/vfio_iommu_type1",
    "drivers/vfio/pci/vfio-pci-core",
    "drivers/vfio/pci/vfio-pci",
];

/// Offset of the chain's first capability in the structure.
const CAP_OFFSET: usize = 16;
/// Bytes of a capability's header: id, version, next.
const HEADER: usize = 8;

/// Widths in bytes of the fields behind the header of each capability.
fn widths(id: u16) -> &'static [usize] {
    match id {
        device_cap::ZPCI_BASE => &[8, 8, 2, 2, 2, 1, 1, 4],
        device_cap::ZPCI_GROUP => &[8, 8, 8, 2, 2, 2, 1, 1, 2],
        device_cap::ZPCI_PFIP => &[4, 1, 1, 1, 1],
        other => panic!("no capability {other}"),
    }
}

/// The fields in the order of a big-endian machine.
fn big_endian(id: u16, body: &[u8]) -> Vec<u8> {
    let (mut rest, mut turned) = (body, Vec::new());
    for width in widths(id) {
        let (field, after) = rest.split_at(*width);
        match cfg!(target_endian = "little") {
            true => turned.extend(field.iter().rev()),
            false => turned.extend(field),
        }
        rest = after;
    }
    assert!(rest.is_empty(), "{} bytes more in {id}", rest.len());
    turned
}

/// Facts of a function that QEMU emulates: limits of its model of a host bridge, and the DMA range,
/// which the kernel ends with the machine's memory of 1 GiB.
fn facts(fh: u64, of_sysfs: impl Fn(&str) -> u64) -> ZpciFacts {
    ZpciFacts {
        start_dma: Number(1 << 32),
        end_dma: Number((1 << 32) + (1 << 30) - 1),
        pchid: Number(of_sysfs("pchid")),
        vfn: Number(of_sysfs("vfn")),
        fmb_length: Number(0),
        pft: Number(of_sysfs("pft")),
        gid: Number(of_sysfs("pfgid")),
        fh: Number(fh),
        dasm: Number(0),
        msi_addr: Number(0xfe00_0000_0000_0000),
        mui: Number(4000),
        noi: Number(128),
        maxstbl: Number(128),
        imaxstbl: Number(128),
        version: Number(0),
        pfip: [0; 4],
        util_string: None,
        ccdf_err_length: None,
        errors: Vec::new(),
    }
}

/// The chain that the extension has for these facts, as a big-endian kernel writes it behind
/// `struct vfio_device_info`.
fn ours(zpci: ZpciFacts) -> Result<Vec<u8>, Box<dyn Error>> {
    let options = Options {
        platform: Some(PlatformFacts {
            zpci: Some(zpci),
            ..PlatformFacts::new()
        }),
        ..Options::default()
    };
    let nic = profile::find("nic").expect("a profile of this name");
    let silicon = Silicon::new(nic, options)?;
    let serve = varia_serve::Options {
        zdev: true,
        ..Default::default()
    };
    let endpoint = Endpoint::new(Arc::new(silicon), serve)?;
    let capabilities = endpoint.capabilities();
    let (mut chain, last) = (Vec::new(), capabilities.len().saturating_sub(1));
    for (index, capability) in capabilities.iter().enumerate() {
        let body = big_endian(capability.id, capability.body());
        let len = (HEADER + body.len()).next_multiple_of(8);
        let end = CAP_OFFSET + HEADER + chain.len() + len;
        let next = if index == last { 0 } else { end as u32 };
        let start = chain.len();
        chain.extend(capability.id.to_be_bytes());
        chain.extend(capability.version.to_be_bytes());
        chain.extend(next.to_be_bytes());
        chain.extend(body);
        chain.resize(start + len, 0);
    }
    Ok(chain)
}

/// The kernel's chain.
fn chain(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("a digit"))
        .collect();
    let word = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().expect("four bytes"));
    assert_eq!(word(0) as usize, bytes.len(), "argsz");
    assert_eq!(word(CAP_OFFSET) as usize, CAP_OFFSET + HEADER);
    bytes[CAP_OFFSET + HEADER..].to_vec()
}

#[test]
fn the_zpci_capabilities_are_those_of_the_kernel() -> Result<(), Box<dyn Error>> {
    let of_sysfs = |fact: &str| if fact == "pfgid" { 0xff } else { 0 };
    let ours = ours(facts(GOLDEN_HANDLE, of_sysfs))?;
    assert_eq!(ours, chain(GOLDEN));
    Ok(())
}

/// Judges the golden bytes: the same machine, with two functions.
#[test]
#[ignore = "needs QEMU and a kernel for s390x: ./x soak pci_core"]
fn vfio_pci_on_s390x_shows_what_the_extension_shows() -> Result<(), Box<dyn Error>> {
    let mut machine = Machine::new(INIT)?.file("zdev.pl", INFO);
    for module in MODULES {
        machine = machine.module(module)?;
    }
    let console = machine
        .device("zpci,uid=7,fid=9,target=entropy")
        .device("virtio-rng-pci,id=entropy")
        .device("zpci,uid=4660,fid=32,target=network")
        .device("virtio-net-pci,id=network")
        .run(HANG)?;
    let mut functions: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for line in console.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["zdev:", function, fact, value] = words[..] {
            functions.entry(function).or_default().insert(fact, value);
        }
    }
    assert_eq!(functions.len(), 2, "{console}");
    for (function, known) in &functions {
        let said = |fact: &str| {
            let fact = known.get(fact);
            *fact.unwrap_or_else(|| panic!("{function}, in {known:?}:\n{console}"))
        };
        let number = |fact: &str| {
            let digits = said(fact).trim_start_matches("0x");
            u64::from_str_radix(digits, 16).expect("a number")
        };
        let (kernel, fh) = (chain(said("info")), number("function_handle"));
        assert_eq!(ours(facts(fh, number))?, kernel, "{function}");
        if fh == GOLDEN_HANDLE {
            assert_eq!(kernel, chain(GOLDEN));
        }
        println!(
            "result: {function}: {} bytes of capabilities are equal",
            kernel.len()
        );
    }
    Ok(())
}
