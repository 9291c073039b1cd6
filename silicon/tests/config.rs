//! The physical configuration space, walked as a host does.

use varia_core::{ConfigRegister, Device, Width};
use varia_silicon::profile::ReadinessMethod;
use varia_silicon::{Options, Profile, Silicon, profile};
use varia_spec::nvidia::chip::{self, Identity};

fn device(name: &str) -> Silicon {
    Silicon::new(profile::find(name).unwrap(), Options::default()).unwrap()
}

fn read(device: &Silicon, at: u16, width: Width) -> u32 {
    let register = ConfigRegister::new(at, width).expect("the test aligns its accesses");
    device.config_read(register).unwrap()
}

fn write(device: &Silicon, at: u16, width: Width, value: u32) {
    let register = ConfigRegister::new(at, width).expect("the test aligns its accesses");
    device.config_write(register, value).unwrap();
}

/// {offset, id} of both lists, in their order.
fn walk(device: &Silicon) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    let mut at = read(device, 0x34, Width::Byte) as u16;
    while at != 0 {
        found.push((at, read(device, at, Width::Byte) as u16));
        at = read(device, at + 1, Width::Byte) as u16;
    }
    at = 0x100;
    while at != 0 {
        let header = read(device, at, Width::Dword);
        found.push((at, header as u16));
        at = (header >> 20) as u16;
    }
    found
}

/// As a host does with decoding off: all ones, read back, restore.
fn size_of_bar(device: &Silicon, index: u16) -> u64 {
    let at = 0x10 + 4 * index;
    let old = [at, at + 4].map(|at| read(device, at, Width::Dword));
    write(device, at, Width::Dword, u32::MAX);
    write(device, at + 4, Width::Dword, u32::MAX);
    let [low, high] = [at, at + 4].map(|at| read(device, at, Width::Dword));
    write(device, at, Width::Dword, old[0]);
    write(device, at + 4, Width::Dword, old[1]);
    assert_eq!(low & 0xf, 0xc, "64-bit, prefetchable");
    !(u64::from(high) << 32 | u64::from(low & !0xf)) + 1
}

const GH100: [(u16, u16); 12] = [
    (0x40, 0x01),
    (0x48, 0x05),
    (0x60, 0x10),
    (0x9c, 0x09),
    (0xb0, 0x11),
    (0x100, 0x19),
    (0x12c, 0x18),
    (0x134, 0x15),
    (0x1b8, 0x01),
    (0x2a4, 0x0b),
    (0x2b8, 0x04),
    (0x2f0, 0x03),
];

#[test]
fn gh200_lists_the_capabilities_of_the_gh100_die() {
    assert_eq!(walk(&device("gh200")), GH100);
}

#[test]
fn gb200_has_nvidias_dvsec_too_with_bit_0_set() {
    let device = device("gb200");
    let mut expected = GH100.to_vec();
    expected.push((0x300, 0x23));
    assert_eq!(walk(&device), expected);
    assert_eq!(read(&device, 0x304, Width::Word), 0x10de);
    assert_eq!(read(&device, 0x308, Width::Word), 3);
    assert_eq!(read(&device, 0x30a, Width::Word) & 1, 1);
}

#[test]
fn profiles_name_the_mig_bug_as_their_dvsec_does() {
    let bugs: Vec<_> = profile::ALL
        .iter()
        .filter(|p| p.coherent.is_some())
        .map(|p| (p.name, p.mig_bug()))
        .collect();
    let bugged = ["gh200-120gb", "gh200-480gb"];
    let expected = profile::ALL.iter().filter(|p| p.coherent.is_some());
    let expected: Vec<_> = expected
        .map(|p| (p.name, bugged.contains(&p.name)))
        .collect();
    assert_eq!(bugs, expected);
}

#[test]
fn profiles_of_nvidias_gpus_are_those_of_the_table_of_chips() {
    for p in profile::ALL.iter().filter(|p| p.coherent.is_some()) {
        let identity = Identity::of(p.vendor_id.value, p.device_id.value, p.class.value);
        assert_eq!(identity.chip(), p.chip, "{}", p.name);
        let chip = p.chip.unwrap();
        let bars = |p: &Profile| -> Vec<_> {
            let bars = p.bars.iter();
            bars.map(|bar| (bar.value.index, bar.value.spec.size))
                .collect()
        };
        let of_chip = chip.bars.iter();
        let of_chip: Vec<_> = of_chip
            .map(|bar| (bar.value.index, bar.value.size))
            .collect();
        assert_eq!(bars(p), of_chip, "{}", p.name);
        let coherent = chip.coherent.unwrap();
        let bug = coherent.mig_bug.map(|bug| bug.value);
        assert_eq!(Some(p.mig_bug()), bug, "{}", p.name);
        // a second profile of GB300 has the DVSEC that the chip is not known to have
        if p.name != "gb300-cxl" {
            let is_cxl = matches!(p.readiness(), Some(ReadinessMethod::Cxl(_)));
            assert_eq!(is_cxl, coherent.readiness.value == chip::Readiness::Cxl);
        }
    }
}

#[test]
fn profiles_of_nvidias_gpus_have_these_ids_bars_and_methods() {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    let expected = [
        (
            "gh200-120gb",
            0x2342,
            [16 * MIB, 128 * GIB, 32 * MIB],
            true,
            false,
        ),
        (
            "gh200-480gb",
            0x2345,
            [16 * MIB, 128 * GIB, 32 * MIB],
            true,
            false,
        ),
        (
            "gb200",
            0x2941,
            [16 * MIB, 256 * GIB, 32 * MIB],
            false,
            false,
        ),
        (
            "gb300",
            0x31c2,
            [16 * MIB, 512 * GIB, 32 * MIB],
            false,
            false,
        ),
        (
            "gb300-cxl",
            0x31c2,
            [16 * MIB, 512 * GIB, 32 * MIB],
            false,
            true,
        ),
        (
            "vera-rubin",
            0x3041,
            [16 * MIB, 512 * GIB, 512 * GIB],
            false,
            true,
        ),
    ];
    let of_profile = |p: &Profile| {
        let bars = [0, 2, 4].map(|index| p.bar(index).expect("a BAR").spec.size);
        assert_eq!(p.bars.len(), bars.len(), "{}", p.name);
        let cxl = matches!(p.readiness(), Some(ReadinessMethod::Cxl(_)));
        (p.name, p.device_id.value, bars, p.mig_bug(), cxl)
    };
    let coherent = profile::ALL.iter().filter(|p| p.coherent.is_some());
    assert_eq!(coherent.map(of_profile).collect::<Vec<_>>(), expected);
}

#[test]
fn capabilities_do_not_overlap() {
    // lengths from the specification for the ones of a fixed size, else from the profile
    let length = |device: &Silicon, at: u16, id: u16| match (at < 0x100, id) {
        (true, 0x01) => 8,
        (true, 0x05) => 24,
        (true, 0x10) => 0x3c,
        (true, 0x11) => 12,
        (true, _) => read(device, at + 2, Width::Byte) as u16,
        (false, 0x19) => 12 + 2 * 16,
        (false, 0x18) => 8,
        (false, 0x15) => 12,
        (false, 0x01) => 0x48,
        (false, 0x04) => 16,
        (false, 0x03) => 12,
        (false, _) => (read(device, at + 4, Width::Dword) >> 20) as u16,
    };
    for name in ["gh200", "gb200"] {
        let device = device(name);
        let found = walk(&device);
        for pair in found.windows(2) {
            let [(at, id), (next, _)] = pair else {
                unreachable!("windows of two")
            };
            assert!(at + length(&device, *at, *id) <= *next, "{name} at {at:#x}");
        }
    }
}

#[test]
fn ids_and_class_are_those_of_the_profile() {
    let ids = |name| {
        let device = device(name);
        (
            read(&device, 0, Width::Dword),
            read(&device, 8, Width::Dword),
        )
    };
    assert_eq!(ids("gh200"), (0x2342_10de, 0x0302_00a1));
    assert_eq!(ids("gb200"), (0x2941_10de, 0x0302_00a1));
}

#[test]
fn bars_have_their_sizes_by_the_sizing_protocol() {
    let sizes = |name| {
        let device = device(name);
        [0, 2, 4].map(|bar| size_of_bar(&device, bar))
    };
    assert_eq!(sizes("gh200"), [16 << 20, 128 << 30, 32 << 20]);
    assert_eq!(sizes("gb200"), [16 << 20, 256 << 30, 32 << 20]);
}

#[test]
fn addresses_stick_and_flags_do_not_change() {
    let device = device("gh200");
    write(&device, 0x18, Width::Dword, 0x1234_5678);
    write(&device, 0x1c, Width::Dword, 0x0000_0060);
    assert_eq!(read(&device, 0x18, Width::Dword), 0xc);
    assert_eq!(read(&device, 0x1c, Width::Dword), 0x60);
}

#[test]
fn resizable_bar_says_the_size_that_the_bar_has() {
    for (name, gib) in [("gh200", 128u64), ("gb200", 256)] {
        let device = device(name);
        let code = read(&device, 0x13c, Width::Dword) >> 8 & 0x3f;
        assert_eq!(1u64 << (20 + code), gib << 30);
        assert_eq!(read(&device, 0x138, Width::Dword), 1 << (4 + code));
        write(&device, 0x13c, Width::Dword, 0);
        assert_eq!(
            read(&device, 0x13c, Width::Dword) >> 8 & 0x3f,
            code,
            "no other size"
        );
    }
}

#[test]
fn d1_and_d2_are_not_entered_and_d3hot_is() {
    let device = device("gh200");
    for (value, state) in [(1, 0), (3, 3), (2, 3), (0, 0)] {
        write(&device, 0x44, Width::Word, value);
        assert_eq!(read(&device, 0x44, Width::Word), 8 | state);
    }
}

#[test]
fn every_fact_has_an_origin() {
    let counts = |p: &Profile| {
        let marks = p.marks();
        let sourced = marks
            .iter()
            .filter(|(_, mark)| matches!(mark, profile::Mark::Sourced(_)));
        (p.name, marks.len(), sourced.count())
    };
    let found: Vec<_> = profile::ALL.iter().map(counts).collect();
    let expected = [
        ("gh200-120gb", 26, 4),
        ("gh200-480gb", 26, 4),
        ("gb200", 27, 6),
        ("gb300", 27, 4),
        ("gb300-cxl", 28, 4),
        ("vera-rubin", 28, 3),
        ("nic", 28, 0),
        ("virtio-net", 16, 4),
    ];
    assert_eq!(found, expected);
    for profile in profile::every() {
        for (fact, mark) in profile.marks() {
            let (profile::Mark::Sourced(text) | profile::Mark::Assumed(text)) = mark;
            assert!(text.len() > 10, "{}: {fact}", profile.name);
        }
    }
}

#[test]
fn readme_lists_every_profile() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for p in profile::every() {
        let (vendor, device) = (p.vendor_id.value, p.device_id.value);
        let memory = p.coherent.map(|m| format!("{} GiB", m.size.value >> 30));
        let readiness = p.readiness().map(|method| match method {
            ReadinessMethod::Bar0 => "BAR0",
            ReadinessMethod::Cxl(_) => "the CXL Device DVSEC",
        });
        let cells = [
            p.name.to_owned(),
            p.alias.unwrap_or_default().to_owned(),
            format!("{vendor:04x}:{device:04x}"),
            memory.unwrap_or_default(),
            readiness.unwrap_or_default().to_owned(),
        ];
        let row: String = cells.iter().map(|cell| format!("| {cell} ")).collect();
        let row = row.replace("|  ", "| ") + "|";
        assert!(
            readme.lines().any(|line| line == row),
            "README.md lacks: {row}"
        );
    }
}

#[test]
fn dump_is_what_lspci_reads() {
    let dump = device("gh200").lspci_dump();
    let lines: Vec<_> = dump.lines().collect();
    assert_eq!(lines.len(), 257);
    assert_eq!(lines[0], "01:00.0 NVIDIA GH200 120GB");
    assert_eq!(
        lines[1],
        "00: de 10 42 23 00 00 10 00 a1 00 02 03 00 00 00 00"
    );
    assert!(lines[19].starts_with("120: ") && lines[256].starts_with("ff0: "));
}
