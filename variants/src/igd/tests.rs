//! The decisions against a second description of the kernel's: a whole host as bytes, and each byte
//! of each region as plain vfio-pci would show it.

use std::{collections::BTreeMap, string::ToString, vec, vec::Vec};

use varia_spec::{Errno, vfio::region_flags};
use varia_variant::{Answer, ComposedSegment, PageShift, RootFunction, Source};

use super::*;

const ENVIRONMENT: Environment = Environment::new(PageShift::KIB_4);
const BASE: u32 = 0x7b00_0000;
const HOST_BRIDGE: (u8, u8) = (0, 0);
const LPC_BRIDGE: (u8, u8) = (0x1f, 0);

/// A host: what a read of its memory or of a function's configuration space returns.
#[derive(Clone)]
struct Host {
    asls: u32,
    /// Error of a read of the device or of a bridge, by its first question.
    broken: Option<(Question, Errno)>,
    /// Memory by the address of its first byte.
    memory: BTreeMap<u64, Vec<u8>>,
    functions: BTreeMap<(u8, u8), Vec<u8>>,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Bytes that differ from their neighbours.
fn noise(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at * 7 + at / 251 + seed) % 253) as u8)
        .collect()
}

impl Host {
    fn new(version: u16, size_in_kib: u32) -> Self {
        let mut table = noise(8 << 10, 1);
        put(&mut table, 0, b"IntelGraphicsMem");
        put(&mut table, 0x10, &size_in_kib.to_le_bytes());
        put(&mut table, 0x16, &version.to_le_bytes());
        put(&mut table, 0x3ba, &[0; 12]);
        let mut functions = BTreeMap::new();
        for (place, class, size, seed) in [
            (HOST_BRIDGE, 0x06_0000_u32, 4096, 2),
            (LPC_BRIDGE, 0x06_0100, 256, 3),
        ] {
            let mut config = noise(size, seed);
            put(&mut config, 0, &0x8086_u16.to_le_bytes());
            put(&mut config, 8, &(class << 8 | 0x11).to_le_bytes());
            functions.insert(place, config);
        }
        Self {
            asls: BASE,
            broken: None,
            memory: BTreeMap::from([(u64::from(BASE), table)]),
            functions,
        }
    }

    fn table(&mut self) -> &mut Vec<u8> {
        self.memory.get_mut(&u64::from(BASE)).unwrap()
    }

    /// Gives the host an extended VBT at an address, named by `place` in the header.
    fn with_vbt(mut self, place: u64, at: u64, len: u32) -> Self {
        put(self.table(), 0x3ba, &place.to_le_bytes());
        put(self.table(), 0x3c2, &len.to_le_bytes());
        let vbt = noise(len as usize, 5);
        if at == u64::from(BASE) + 0x2000 {
            self.table().extend(vbt);
        } else {
            self.memory.insert(at, vbt);
        }
        self
    }

    fn byte(&self, at: u64) -> Option<u8> {
        let (start, bytes) = self.memory.range(..=at).next_back()?;
        bytes.get((at - start) as usize).copied()
    }

    fn word(&self, at: u64) -> Answer {
        let bytes: Option<Vec<u8>> = (at..at + 8).map(|at| self.byte(at)).collect();
        let bytes = bytes.ok_or(Errno::EFAULT)?;
        Ok(u64::from_le_bytes(*bytes.first_chunk().unwrap()))
    }

    fn function(&self, function: RootFunction) -> Result<&[u8], Errno> {
        let found = self.functions.get(&(function.device, function.function));
        found.map(Vec::as_slice).ok_or(Errno::ENODEV)
    }

    fn answer(&self, question: Question) -> Answer {
        if let Some((_, errno)) = self.broken.filter(|(broken, _)| *broken == question) {
            return Err(errno);
        }
        match question {
            Question::ConfigDword(0xfc) => Ok(self.asls.into()),
            Question::PointedWord {
                pointer: 0xfc,
                offset,
            } => self.word(u64::from(self.asls) + u64::from(offset)),
            Question::RootDword { function, offset } => {
                let config = self.function(function)?;
                let bytes = config[usize::from(offset)..].first_chunk().unwrap();
                Ok(u32::from_le_bytes(*bytes).into())
            }
            Question::RootConfigSize(function) => Ok(self.function(function)?.len() as u64),
            other => panic!("{other:?}"),
        }
    }

    fn probe(&self) -> Igd {
        let answers = Answers::collect(Igd::QUESTIONS, |question| self.answer(question));
        Igd::probe(&answers, ENVIRONMENT)
    }

    fn outcome(&self) -> Outcome {
        self.probe().outcome()
    }

    /// Bytes of a segment, and how a function was accessed.
    fn carry_out(&self, segment: ComposedSegment) -> Vec<u8> {
        let len = segment.len;
        match segment.source {
            Source::Variant(bytes) => bytes[..len as usize].to_vec(),
            Source::Platform(at) => (at.0..at.0 + len)
                .map(|at| {
                    self.byte(at)
                        .unwrap_or_else(|| panic!("{at:#x} is nowhere"))
                })
                .collect(),
            Source::Config { function, offset } => {
                assert!(matches!(len, 1 | 2 | 4) && u64::from(offset) % len == 0);
                let config = self.function(function).unwrap();
                config[usize::from(offset)..][..len as usize].to_vec()
            }
        }
    }
}

fn region(igd: &Igd, index: u32) -> &dyn Composed {
    match igd.region(RegionIndex(index)) {
        Region::Composed(region) => region,
        other => panic!("{other:?}"),
    }
}

/// A region of this size and subtype can be read, and nothing else.
fn assert_described(region: &dyn Composed, size: usize, subtype: u32) {
    let info = region.info();
    assert_eq!((info.size, info.flags), (size as u64, region_flags::READ));
    let kind = 0x8000_8086;
    assert_eq!(info.region_type, Some(RegionType { kind, subtype }));
}

/// Reads as a runtime does: segment by segment.
fn read(host: &Host, region: &dyn Composed, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let len = region.clip(offset, len)?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let done = bytes.len() as u64;
        let segment = region.segment(offset + done, len - done);
        assert!((1..=len - done).contains(&segment.len), "{segment:?}");
        bytes.extend(host.carry_out(segment));
    }
    Ok(bytes)
}

/// The whole OpRegion region as the kernel shows it, the extended VBT included: from a description
/// of its own.
fn expected(host: &Host, version: u16, vbt: Option<u64>, vbt_len: u64, header: u64) -> Vec<u8> {
    let len = if vbt.is_some() { 0x2000 } else { header };
    let mut all: Vec<u8> = (0..len)
        .map(|at| host.byte(u64::from(BASE) + at).unwrap())
        .collect();
    let (shown, place) = match vbt {
        Some(_) if version == 0x200 => (0x201_u16, 0x2000_u64),
        Some(_) => (version, 0x2000),
        None => (version, 0),
    };
    put(&mut all, 0x16, &shown.to_le_bytes());
    put(&mut all, 0x3ba, &place.to_le_bytes());
    all.extend(vbt.into_iter().flat_map(|at| {
        let bytes = at..at + vbt_len;
        bytes.map(|at| host.byte(at).unwrap())
    }));
    all
}

#[test]
fn every_byte_of_every_opregion_is_the_kernels() {
    let after = u64::from(BASE) + 0x2000;
    let far = 0x8_1234_5000;
    for (version, kib, vbt) in [
        (0x0100, 8, None),
        (0x0100, 4, None),
        (0x0100, 1, None),
        (0x0200, 8, None),
        (0x0200, 8, Some((after, after))),
        // an address above 4 GiB
        (0x0200, 8, Some((far, far))),
        (0x0201, 8, Some((0x2000, after))),
        (0x0202, 8, Some((far - u64::from(BASE), far))),
        // inside the mailboxes
        (0x0201, 8, Some((0x400, u64::from(BASE) + 0x400))),
        // a header of less than 8 KiB does not cut the VBT
        (0x0201, 4, Some((0x2000, after))),
        (0x0300, 8, Some((0x2000, after))),
    ] {
        let mut host = Host::new(version, kib);
        let len = 0x1801_u64;
        match vbt {
            Some((place, at)) if at == u64::from(BASE) + 0x400 => {
                put(host.table(), 0x3ba, &place.to_le_bytes());
                put(host.table(), 0x3c2, &(len as u32).to_le_bytes());
            }
            Some((place, at)) => host = host.with_vbt(place, at, len as u32),
            None => {}
        }
        let igd = host.probe();
        assert_eq!(igd.outcome(), Outcome::Serve, "{version:#x}");
        let region = region(&igd, 9);
        let at = vbt.map(|(_, at)| at);
        let all = expected(&host, version, at, len, u64::from(kib) << 10);
        assert_described(region, all.len(), 1);
        // every offset in every short length, and every length from some offsets
        let size = all.len() as u64;
        let edges = [
            0,
            0x15,
            0x16,
            0x17,
            0x3b9,
            0x3ba,
            0x3c1,
            0x3c2,
            0x1fff,
            0x2000,
            size - 1,
        ];
        let short = (0..size).flat_map(|offset| (1..=9).map(move |len| (offset, len)));
        let long = edges
            .into_iter()
            .flat_map(|at| [64, 4096, 1 << 20].map(|len| (at, len)));
        for (offset, len) in short.chain(long).filter(|(offset, _)| *offset < size) {
            let end = (offset + len).min(size) as usize;
            let bytes = read(&host, region, offset, len).unwrap();
            assert!(
                bytes == all[offset as usize..end],
                "{version:#x} {offset:#x} {len}"
            );
        }
        for beyond in [size, size + 1, u64::MAX] {
            assert_eq!(region.clip(beyond, 1), Err(Errno::EINVAL));
        }
    }
}

#[test]
fn a_bridge_is_read_in_the_kernels_accesses() {
    /// Widths of the kernel's accesses: a loop for each width.
    fn accesses(mut at: u64, mut left: u64) -> Vec<u64> {
        let mut widths = Vec::new();
        let mut take = |at: &mut u64, left: &mut u64, width: u64| {
            widths.push(width);
            *at += width;
            *left -= width;
        };
        if at & 1 != 0 && left > 0 {
            take(&mut at, &mut left, 1);
        }
        if at & 3 != 0 && left > 2 {
            take(&mut at, &mut left, 2);
        }
        for width in [4, 2, 1] {
            while left >= width {
                take(&mut at, &mut left, width);
            }
        }
        widths
    }
    let host = Host::new(0x0200, 8);
    let igd = host.probe();
    for (index, place, subtype) in [(10, HOST_BRIDGE, 2), (11, LPC_BRIDGE, 3)] {
        let region = region(&igd, index);
        let all = &host.functions[&place];
        assert_described(region, all.len(), subtype);
        let size = all.len() as u64;
        for offset in 0..size {
            for len in 1..=19 {
                let end = (offset + len).min(size);
                let bytes = read(&host, region, offset, len).unwrap();
                assert_eq!(bytes, all[offset as usize..end as usize]);
                let (mut at, mut widths) = (offset, vec![]);
                while at < end {
                    let segment = region.segment(at, end - at);
                    widths.push(segment.len);
                    at += segment.len;
                }
                assert_eq!(widths, accesses(offset, end - offset), "{offset:#x} {len}");
            }
        }
        assert_eq!(region.clip(size, 1), Err(Errno::EINVAL));
    }
    for index in (0..9).chain([12, u32::MAX]) {
        assert!(
            matches!(igd.region(RegionIndex(index)), Region::Base),
            "{index}"
        );
    }
}

/// Each way to no service, with errno and the value in the sentence.
#[test]
fn what_can_t_be_served_is_declined_or_refused_with_its_value() {
    let good = || Host::new(0x0201, 8);
    let changed = |change: &dyn Fn(&mut Host)| {
        let mut host = good();
        change(&mut host);
        host.outcome()
    };
    let size = |kib: u32| changed(&|host| put(host.table(), 0x10, &kib.to_le_bytes()));
    let vbt = |version: u16, place: u64, len: u32| {
        changed(&|host| {
            put(host.table(), 0x16, &version.to_le_bytes());
            put(host.table(), 0x3ba, &place.to_le_bytes());
            put(host.table(), 0x3c2, &len.to_le_bytes());
        })
    };
    let class = |place, class: u32| {
        changed(&|host| {
            let config = host.functions.get_mut(&place).unwrap();
            put(config, 8, &(class << 8).to_le_bytes());
        })
    };
    for (outcome, errno, says) in [
        (
            changed(&|host| host.asls = 0),
            None,
            "holds 0x0, no address",
        ),
        (
            changed(&|host| host.asls = !0),
            None,
            "holds 0xffffffff, no",
        ),
        (
            changed(&|host| drop(host.functions.remove(&HOST_BRIDGE))),
            None,
            "the host bridge 0000:00:00.0 can't be read (ENODEV)",
        ),
        (
            changed(&|host| drop(host.functions.remove(&LPC_BRIDGE))),
            None,
            "the LPC bridge 0000:00:1f.0 can't be read (ENODEV)",
        ),
        (
            changed(&|host| host.broken = Some((LPC.class(), Errno::EIO))),
            None,
            "the LPC bridge 0000:00:1f.0 can't be read (EIO)",
        ),
        (
            changed(&|host| host.broken = Some((opregion::ASLS, Errno::EIO))),
            Some(Errno::EIO),
            "address at 0xfc can't be read (EIO)",
        ),
        (
            changed(&|host| host.asls = 0x1000),
            Some(Errno::EFAULT),
            "at 0x1000 can't be read (EFAULT)",
        ),
        (
            changed(&|host| host.table()[15] = b'M'),
            Some(Errno::EINVAL),
            "at 0x7b000000 does not begin with",
        ),
        (
            changed(&|host| host.table()[0] = 0),
            Some(Errno::EINVAL),
            "does not begin with IntelGraphicsMem",
        ),
        (size(0), Some(Errno::EINVAL), "says 0 bytes"),
        (
            size(9),
            Some(Errno::EINVAL),
            "says 9 KiB, and an OpRegion has 1 KiB to 8 KiB",
        ),
        (size(4 << 20), Some(Errno::EINVAL), "says 4 GiB"),
        (size(u32::MAX), Some(Errno::EINVAL), "says 3 TiB + "),
        (
            vbt(0x0200, u64::MAX, 1),
            Some(Errno::EOVERFLOW),
            "VBT of 1 byte at 0xffffffffffffffff ends",
        ),
        (
            vbt(0x0201, u64::MAX - 8, 4096),
            Some(Errno::EOVERFLOW),
            "VBT of 4 KiB at 0xfffffffffffffff7",
        ),
        (
            class(HOST_BRIDGE, 0x06_0100),
            Some(Errno::EINVAL),
            "host bridge 0000:00:00.0 is a function of vendor 0x8086 and class 0x60100",
        ),
        (
            class(LPC_BRIDGE, 0x06_0101),
            Some(Errno::EINVAL),
            "class 0x60101",
        ),
        (
            changed(&|host| {
                put(
                    host.functions.get_mut(&LPC_BRIDGE).unwrap(),
                    0,
                    &[0x22, 0x10],
                )
            }),
            Some(Errno::EINVAL),
            "vendor 0x1022",
        ),
    ] {
        let (found, text) = match outcome {
            Outcome::Serve => panic!("served, and not: {says}"),
            Outcome::Decline(reason) => (None, reason.to_string()),
            Outcome::Fail(refusal) => (Some(refusal.errno()), refusal.to_string()),
        };
        assert_eq!(found, errno, "{text}");
        assert!(text.contains(says) && text.contains(';'), "{text}");
    }
    // a VBT with a size or a place alone is none, and before 2.0 the fields mean nothing
    for outcome in [
        vbt(0x0200, 0, 77),
        vbt(0x0202, 77, 0),
        vbt(0x0100, u64::MAX, 77),
    ] {
        assert_eq!(outcome, Outcome::Serve);
    }
    assert_eq!(good().outcome(), Outcome::Serve);
}

#[test]
fn a_declined_device_is_transparent() {
    let mut host = Host::new(0x0200, 8);
    host.asls = 0;
    let igd = host.probe();
    assert!((0..16).all(|index| matches!(igd.region(RegionIndex(index)), Region::Base)));
    let whole = igd.config_segment(Direction::Write, 0, 4096);
    assert_eq!((whole.len, whole.owner), (4096, ConfigOwner::Base));
    let mut bytes = [7; 4];
    igd.config_load(0xfc, &mut bytes);
    assert_eq!(bytes, [7; 4]);
}

/// The register is the VM's own, whichever bytes an access takes; a new user finds the host's
/// address, also where an extended VBT exists.
#[test]
fn the_opregions_address_is_the_vms_own() {
    let host = Host::new(0x0200, 8).with_vbt(0x8_1234_5000, 0x8_1234_5000, 64);
    let igd = host.probe();
    let load = || {
        let mut bytes = [0xee; 12];
        igd.config_load(0xf8, &mut bytes);
        assert_eq!((&bytes[..4], &bytes[8..]), (&[0xee; 4][..], &[0xee; 4][..]));
        u32::from_le_bytes(*bytes[4..].first_chunk().unwrap())
    };
    assert_eq!(load(), BASE);
    for (offset, len, segment) in [
        (0xf8, 8, (4, ConfigOwner::Base)),
        (0xfc, 8, (4, ConfigOwner::Keep)),
        (0xfd, 2, (2, ConfigOwner::Keep)),
        (0xff, 4, (1, ConfigOwner::Keep)),
        (0x100, 4, (4, ConfigOwner::Base)),
    ] {
        for direction in [Direction::Read, Direction::Write] {
            let found = igd.config_segment(direction, offset, len);
            assert_eq!((found.len, found.owner), segment, "{offset:#x} {len}");
        }
    }
    igd.config_store(0xfb, &[1, 2, 3]);
    assert_eq!(load(), BASE & 0xffff_0000 | 0x0302);
    igd.config_store(0xfe, &[4, 5, 6]);
    assert_eq!(load(), 0x0504_0302);
    igd.event(Event::ResetRequested);
    igd.event(Event::ResetDone);
    assert_eq!(load(), 0x0504_0302);
    igd.event(Event::Opened);
    assert_eq!(load(), BASE);
}
