//! The profile igd: OpRegion and bridges of emulated silicon as a client reads them, beside a second
//! description of the machine's memory.

use std::sync::Arc;

use varia_facts::{HexBytes, Number, PlatformFacts, PlatformMemory, RootFunction};
use varia_serve::{Backend, Endpoint, Error, Options};
use varia_silicon::{Silicon, profile};
use varia_spec::vfio::{RegionIndex, region_flags};
use varia_spec::{Errno, intel};
use varia_sys::socket::Stream;
use varia_vfio_user::client::Client;
use varia_vfio_user::server::Server;

const BASE: u64 = 0x7b00_0000;
/// Above 4 GiB, where the kernel's driver reads a truncated address.
const FAR: u64 = 0x1_2345_6000;

fn facts() -> PlatformFacts {
    let igd = profile::find("igd").unwrap();
    igd.platform.clone().unwrap()
}

fn put(bytes: &mut [u8], at: u16, value: &[u8]) {
    bytes[usize::from(at)..][..value.len()].copy_from_slice(value);
}

/// The machine with another header: version, size in KiB, RVDA, RVDS.
fn with_header(version: u16, kib: u32, rvda: u64, rvds: u32) -> PlatformFacts {
    let mut facts = facts();
    let bytes = &mut facts.memory[0].bytes.0;
    put(bytes, intel::opregion::SIZE, &kib.to_le_bytes());
    put(bytes, intel::opregion::VERSION, &version.to_le_bytes());
    put(bytes, intel::opregion::RVDA, &rvda.to_le_bytes());
    put(bytes, intel::opregion::RVDS, &rvds.to_le_bytes());
    facts
}

/// More memory, whose bytes tell where they are.
fn add_memory(facts: &mut PlatformFacts, base: u64, size: usize) {
    let bytes = (0..size).map(|at| (at * 3 + at / 256) as u8).collect();
    facts.memory.push(PlatformMemory {
        base: Number(base),
        size: Number(size as u64),
        bytes: HexBytes(bytes),
    });
}

fn serve(facts: PlatformFacts) -> Result<Endpoint, Error> {
    let options = varia_silicon::Options {
        platform: Some(facts),
        ..Default::default()
    };
    let igd = profile::find("igd").unwrap();
    let silicon = Silicon::new(igd, options).unwrap();
    Endpoint::new(Arc::new(silicon), Options::default())
}

/// Runs a client of the device.
fn with_client(endpoint: Endpoint, run: impl FnOnce(&mut Client)) {
    let (ours, theirs) = Stream::pair().unwrap();
    let server = Server::new(Backend::new(Arc::new(endpoint)));
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve_one(theirs).unwrap());
        let mut client = Client::over(ours);
        client.negotiate().unwrap();
        run(&mut client);
    });
}

fn read(client: &mut Client, region: u32, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0; len];
    let count = client.region_read(region, offset, &mut data);
    data.truncate(count.map_err(|error| error.errno().unwrap())?);
    Ok(data)
}

/// A region holds these bytes, whatever the offset and the length of a read.
fn assert_bytes(client: &mut Client, region: u32, expected: &[u8]) {
    let info = client.region_info(region).unwrap();
    assert_eq!(info.info.size, expected.len() as u64);
    assert_eq!(info.info.flags & !region_flags::CAPS, region_flags::READ);
    assert!(info.file.is_none());
    let whole = read(client, region, 0, expected.len() + 100).unwrap();
    assert!(whole == expected, "region {region}");
    // odd offsets and lengths around every place where the source of the bytes changes
    let size = expected.len();
    for edge in [0, 0x16, 0x18, 0x3ba, 0x3c2, 0x400, 0x1000, 0x2000, size] {
        for offset in (edge.saturating_sub(5)..edge + 4).filter(|at| *at < size) {
            for len in 1..=9 {
                let bytes = read(client, region, offset as u64, len).unwrap();
                let end = size.min(offset + len);
                assert_eq!(bytes, expected[offset..end], "{len} bytes at {offset:#x}");
            }
        }
    }
    for offset in [size as u64, u64::MAX - 16] {
        assert_eq!(read(client, region, offset, 1), Err(Errno::EINVAL));
    }
    let written = client.region_write(region, 0, &[1; 4]);
    assert_eq!(written.unwrap_err().errno(), Some(Errno::EINVAL));
}

#[test]
fn every_byte_of_the_regions_is_the_machines() {
    let after = BASE + 0x2000;
    for (version, kib, rvda, rvds, vbt) in [
        (0x0100_u16, 8, 0, 0, None),
        (0x0100, 1, 7, 9, None),
        (0x0200, 8, 0, 0x1000, None),
        (0x0200, 8, after, 0x1c00, Some(after)),
        (0x0200, 8, FAR, 0x1801, Some(FAR)),
        (0x0200, 8, BASE + 0x400, 0x1800, Some(BASE + 0x400)),
        (0x0201, 8, 0x2000, 0x1c00, Some(after)),
        (0x0201, 4, 0x2000, 0x1c00, Some(after)),
        (0x0202, 8, FAR - BASE, 0x1801, Some(FAR)),
    ] {
        let mut facts = with_header(version, kib, rvda, rvds);
        add_memory(&mut facts, FAR, 0x2000);
        let byte = |at: u64| {
            let mut ranges = facts.memory.iter();
            ranges
                .find_map(|range| {
                    let offset = at.checked_sub(range.base.0)?;
                    range.bytes.0.get(offset as usize).copied()
                })
                .unwrap()
        };
        let header = if vbt.is_some() {
            0x2000
        } else {
            u64::from(kib) << 10
        };
        let mut expected: Vec<u8> = (BASE..BASE + header).map(byte).collect();
        let is_2_0_with_vbt = version == 0x0200 && vbt.is_some();
        let shown = if is_2_0_with_vbt { 0x0201 } else { version };
        put(&mut expected, 0x16, &shown.to_le_bytes());
        let place: u64 = if vbt.is_some() { 0x2000 } else { 0 };
        put(&mut expected, 0x3ba, &place.to_le_bytes());
        if let Some(vbt) = vbt {
            expected.extend((vbt..vbt + u64::from(rvds)).map(byte));
        }
        let bridges: Vec<_> = facts
            .root_functions
            .iter()
            .map(|RootFunction { size, bytes, .. }| {
                let mut space = bytes.0.clone();
                space.resize(size.0 as usize, 0);
                space
            })
            .collect();
        let endpoint = serve(facts).unwrap();
        assert_eq!(endpoint.variant_name(), Some("igd"));
        with_client(endpoint, |client| {
            assert_eq!(client.device_info().unwrap().num_regions, 12);
            assert_bytes(client, 9, &expected);
            assert_bytes(client, 10, &bridges[0]);
            assert_bytes(client, 11, &bridges[1]);
        });
    }
}

#[test]
fn the_address_is_the_users_own() {
    let options = varia_silicon::Options::default();
    let igd = profile::find("igd").unwrap();
    let silicon = Arc::new(Silicon::new(igd, options).unwrap());
    let device = Arc::clone(&silicon) as Arc<dyn varia_core::Device>;
    let raw = || {
        let asls = varia_core::ConfigRegister::dword(intel::ASLS);
        device.config_read(asls).unwrap()
    };
    let endpoint = Endpoint::new(silicon, Options::default()).unwrap();
    for _ in 0..2 {
        endpoint.open().unwrap();
        let mut asls = [0; 4];
        let at = u64::from(intel::ASLS);
        endpoint.read(RegionIndex::CONFIG, at, &mut asls).unwrap();
        assert_eq!(u64::from(u32::from_le_bytes(asls)), BASE);
        endpoint
            .write(RegionIndex::CONFIG, at + 1, &[5; 3])
            .unwrap();
        endpoint.reset().unwrap();
        endpoint.read(RegionIndex::CONFIG, at, &mut asls).unwrap();
        assert_eq!(asls, [0, 5, 5, 5]);
        assert_eq!(u64::from(raw()), BASE, "the device's own");
        endpoint.close();
    }
}

#[test]
fn an_opregion_that_lies_is_refused_with_the_value() {
    let refused = |facts, part: &str| {
        let error = serve(facts).expect_err(part).to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
        assert!(error.contains("; "), "no remedy: {error}");
    };
    refused(with_header(0x0201, 0, 0, 0), "0 bytes");
    refused(with_header(0x0201, 9, 0, 0), "9 KiB");
    refused(with_header(0x0201, 4 << 20, 0, 0), "4 GiB");
    refused(with_header(0x0201, u32::MAX, 0, 0), "OpRegion");
    refused(with_header(0x0200, 8, u64::MAX, 2), "beyond 64 bits");
    refused(with_header(0x0201, 8, u64::MAX, 2), "beyond 64 bits");
    let mut other = facts();
    put(&mut other.memory[0].bytes.0, 0, b"i");
    refused(other, "IntelGraphicsMem");
    let mut nowhere = facts();
    nowhere.config[0].value = Number(0x1000);
    refused(nowhere, "EFAULT");
    let mut foreign = facts();
    put(&mut foreign.root_functions[0].bytes.0, 0, &[0x36, 0x1b]);
    refused(foreign, "0x1b36");
    let mut other = facts();
    put(&mut other.root_functions[1].bytes.0, 8, &[0, 0, 4, 6]);
    refused(other, "0x60400");
}

#[test]
fn a_machine_without_the_parts_gets_a_plain_device() {
    let declined = |facts, part: &str| {
        let endpoint = serve(facts).unwrap();
        let reason = endpoint.declined().unwrap().to_string();
        assert!(reason.contains(part), "{reason}");
        assert_eq!(endpoint.info().num_regions, 9);
    };
    for asls in [0, u64::from(u32::MAX)] {
        let mut none = facts();
        none.config[0].value = Number(asls);
        declined(none, "0xfc holds");
    }
    for (missing, name) in [(0, "host bridge"), (1, "LPC bridge")] {
        let mut without = facts();
        without.root_functions.remove(missing);
        declined(without, name);
    }
}

/// The header names a VBT in memory that does not exist: the region is there, and reads of that part
/// fail.
#[test]
fn a_vbt_that_is_nowhere_fails_the_reads_that_reach_it() {
    let endpoint = serve(with_header(0x0201, 8, 0x10_0000, 0x1000)).unwrap();
    with_client(endpoint, |client| {
        assert_eq!(client.region_info(9).unwrap().info.size, 0x3000);
        assert_eq!(read(client, 9, 0, 0x2000).unwrap().len(), 0x2000);
        assert_eq!(read(client, 9, 0x2000, 1), Err(Errno::EFAULT));
        assert_eq!(read(client, 9, 0x1fff, 2), Err(Errno::EFAULT));
    });
}
