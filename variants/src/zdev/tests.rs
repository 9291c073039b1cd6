//! The capabilities against a second, plain description: each structure as its bytes at their
//! offsets, for every fact at its limits.

use std::{format, string::ToString, vec, vec::Vec};

use varia_spec::Errno;

use super::*;

/// Facts with a value of its own in each field.
fn facts() -> Facts {
    Facts {
        start_dma: 0x0102_0304_0506_0708,
        end_dma: 0x1112_1314_1516_1718,
        pchid: 0x2122,
        vfn: 0x3132,
        fmb_length: 0x42,
        pft: 0x51,
        gid: 0x61,
        fh: 0x7172_7374,
        error_length: None,
        dasm: 0x8182_8384_8586_8788,
        msi_addr: 0x9192_9394_9596_9798,
        mui: 0xa1a2,
        noi: 0x0b1,
        maxstbl: 128,
        imaxstbl: 4096,
        version: 0xc1,
        util_string: None,
        pfip: [0xd1, 0xd2, 0xd3, 0xd4],
    }
}

/// A structure of `size` bytes behind the header of 8, with each value at its offset in the
/// kernel's structure.
fn structure(size: usize, values: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (offset, value) in values {
        bytes[*offset..offset + value.len()].copy_from_slice(value);
    }
    bytes.split_off(8)
}

/// Id, version and body of each capability, as the kernel's structures have them.
fn expected(facts: &Facts) -> Vec<(u16, u16, Vec<u8>)> {
    let u64 = |value: u64| value.to_ne_bytes().to_vec();
    let u32 = |value: u64| (value as u32).to_ne_bytes().to_vec();
    let u16 = |value: u64| (value as u16).to_ne_bytes().to_vec();
    let u8 = |value: u64| vec![value as u8];
    let mut base = vec![
        (8, u64(facts.start_dma)),
        (16, u64(facts.end_dma)),
        (24, u16(facts.pchid)),
        (26, u16(facts.vfn)),
        (28, u16(facts.fmb_length)),
        (30, u8(facts.pft)),
        (31, u8(facts.gid)),
        (32, u32(facts.fh)),
    ];
    let (version, size) = match facts.error_length {
        None => (2, 36),
        Some(len) => {
            base.push((36, u32(len)));
            (3, 40)
        }
    };
    let group = [
        (8, u64(facts.dasm)),
        (16, u64(facts.msi_addr)),
        (24, u64(1)),
        (32, u16(facts.mui)),
        (34, u16(facts.noi)),
        (36, u16(facts.maxstbl)),
        (38, u8(facts.version)),
        (40, u16(facts.imaxstbl)),
    ];
    let mut all = vec![
        (1, version, structure(size, &base)),
        (2, 2, structure(42, &group)),
    ];
    if let Some(string) = facts.util_string {
        all.push((3, 1, structure(76, &[(8, u32(64)), (12, string.to_vec())])));
    }
    let path = facts.pfip.to_vec();
    all.push((4, 1, structure(16, &[(8, u32(4)), (12, path)])));
    all
}

fn shown(zdev: &Zdev) -> Vec<(u16, u16, Vec<u8>)> {
    let mut shown = Vec::new();
    zdev.capabilities(&mut |capability| {
        let body = capability.body().to_vec();
        shown.push((capability.id, capability.version, body));
    });
    shown
}

/// A fact: its name, its field, the least and the most that it can be.
type Row = (&'static str, fn(&mut Facts) -> &mut u64, u64, u64);

const RANGES: [Row; 14] = [
    ("pchid", |facts| &mut facts.pchid, 0, 0xffff),
    ("vfn", |facts| &mut facts.vfn, 0, 0xffff),
    ("fmb_length", |facts| &mut facts.fmb_length, 0, 0xff),
    ("pft", |facts| &mut facts.pft, 0, 0xff),
    ("gid", |facts| &mut facts.gid, 0, 0xff),
    ("fh", |facts| &mut facts.fh, 0, 0xffff_ffff),
    ("mui", |facts| &mut facts.mui, 0, 0xffff),
    ("noi", |facts| &mut facts.noi, 0, 4095),
    ("maxstbl", |facts| &mut facts.maxstbl, 1, 4096),
    ("imaxstbl", |facts| &mut facts.imaxstbl, 1, 4096),
    ("version", |facts| &mut facts.version, 0, 0xff),
    (
        "start_dma",
        |facts| &mut facts.start_dma,
        0,
        0x1112_1314_1516_1718,
    ),
    (
        "end_dma",
        |facts| &mut facts.end_dma,
        0x0102_0304_0506_0708,
        u64::MAX,
    ),
    ("dasm", |facts| &mut facts.dasm, 0, u64::MAX),
];

#[test]
fn every_fact_at_its_limits_is_in_its_place_in_the_kernels_structures() {
    for error_length in [None, Some(1), Some(4096)] {
        for util_string in [None, Some([0xc9; 64])] {
            for (name, field, least, most) in RANGES {
                for value in [least, most] {
                    let mut facts = Facts {
                        error_length,
                        util_string,
                        ..facts()
                    };
                    *field(&mut facts) = value;
                    let zdev = Zdev::new(&facts).unwrap();
                    assert_eq!(shown(&zdev), expected(&facts), "{name} {value}");
                }
            }
        }
    }
}

#[test]
fn a_fact_outside_its_range_is_refused_with_its_value_and_its_range() {
    let refused = |facts: &Facts| Zdev::new(facts).unwrap_err();
    for (name, field, least, most) in RANGES {
        for value in [least.checked_sub(1), most.checked_add(1), Some(u64::MAX)] {
            let Some(value) = value.filter(|value| !(least..=most).contains(value)) else {
                continue;
            };
            // a first address behind the last is told by the last
            let (fact, told) = match name {
                "start_dma" => ("end_dma", facts().end_dma),
                _ => (name, value),
            };
            let mut facts = facts();
            *field(&mut facts) = value;
            let refusal = refused(&facts);
            assert_eq!(refusal.errno(), Errno::EINVAL);
            let text = refusal.sentence().to_string();
            let begin = format!("{fact}, a fact of the platform, is {told}, outside ");
            assert!(text.starts_with(&begin), "{text}");
            let ends = "; correct the platform's firmware, or the file with its facts";
            assert!(text.ends_with(ends), "{text}");
        }
    }
    for len in [0, 4097, u64::MAX] {
        let facts = Facts {
            error_length: Some(len),
            ..facts()
        };
        let text = refused(&facts).sentence().to_string();
        let begin = format!("ccdf_err_length, a fact of the platform, is {len}, outside 1 to 4096");
        assert!(text.starts_with(&begin), "{text}");
    }
}

#[test]
fn error_records_are_a_feature_of_a_platform_that_keeps_them() {
    for (error_length, expected) in [(None, vec![]), (Some(96), vec![(13, 96)])] {
        let facts = Facts {
            error_length,
            ..facts()
        };
        let mut features = Vec::new();
        let zdev = Zdev::new(&facts).unwrap();
        zdev.features(&mut |feature| {
            let FeatureSource::ErrorRecord { len } = feature.source;
            features.push((feature.index, len));
        });
        assert_eq!(features, expected);
    }
}
