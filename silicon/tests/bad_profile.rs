//! Profiles that describe no possible device: each is refused, and the offset is named.

use varia_facts::Bytes;
use varia_silicon::profile::{self, Body, Capability, Fact};
use varia_silicon::{Options, Profile, Silicon};

/// What is said of a profile after a change.
fn refusal(name: &str, change: impl FnOnce(&mut Profile)) -> String {
    let mut profile = profile::find(name).unwrap().clone();
    change(&mut profile);
    let error = Silicon::new(&profile, Options::default()).expect_err("no such device");
    error.to_string()
}

fn with(offset: u16, body: Body) -> impl FnOnce(&mut Profile) {
    move |profile| {
        let value = Capability { offset, body };
        profile
            .capabilities
            .push(Fact::assumed(value, "for this test"));
    }
}

fn at(profile: &mut Profile, offset: u16) -> &mut Capability {
    let mut all = profile.capabilities.iter_mut();
    &mut all.find(|c| c.value.offset == offset).unwrap().value
}

#[test]
fn every_profile_of_the_catalogue_is_possible() {
    for profile in profile::every() {
        assert_eq!(profile.check(), Ok(()), "{}", profile.name);
    }
}

#[test]
fn capabilities_that_overlap_or_repeat() {
    assert_eq!(
        refusal("gh200", with(0x50, Body::Vpd)),
        "profile gh200-120gb: the capability at 0x50 begins inside the capability at 0x48, which ends at \
         0x60: move it"
    );
    assert_eq!(
        refusal("nic", with(0x164, Body::PowerBudget)),
        "profile nic: the capability at 0x164 begins inside the capability at 0x160, which ends at \
         0x168: move it"
    );
    assert_eq!(
        refusal("nic", with(0x148, Body::PowerBudget)),
        "profile nic: the capability at 0x148 is listed twice, which makes the list a loop"
    );
}

#[test]
fn capabilities_outside_their_space() {
    for (offset, body, said) in [
        (
            0x3c,
            Body::Vpd,
            "the capability at 0x3c is not at a multiple of 4 from 0x40 on",
        ),
        (
            0x42,
            Body::Vpd,
            "the capability at 0x42 is not at a multiple of 4 from 0x40 on",
        ),
        (
            0xfc,
            Body::Vpd,
            "the capability at 0xfc is 8 bytes long and reaches beyond the end of its space at 0x100",
        ),
        (
            0x400,
            Body::Vpd,
            "the capability at 0x400 is 8 bytes long and reaches beyond the end of its space at 0x100",
        ),
        (
            0xc0,
            Body::PowerBudget,
            "the capability at 0xc0 is not at a multiple of 4 from 0x100 on",
        ),
        (
            0xff8,
            Body::PowerBudget,
            "the capability at 0xff8 is 16 bytes long and reaches beyond the end of its space at 0x1000",
        ),
        (
            0xfffc,
            Body::PowerBudget,
            "the capability at 0xfffc is 16 bytes long and reaches beyond the end of its space at 0x1000",
        ),
    ] {
        let refusal = refusal("nic", with(offset, body));
        assert!(refusal.contains(said), "{refusal}");
    }
    let refusal = refusal("gh200", |profile| {
        profile.capabilities.retain(|c| c.value.offset != 0x100);
    });
    assert!(
        refusal.contains("the first extended capability is at 0x12c, and the list begins at 0x100"),
        "{refusal}"
    );
}

#[test]
fn values_that_their_fields_can_not_hold() {
    let message = |vectors| Body::Message {
        vectors,
        maskable: true,
    };
    let message_x = |vectors, bar, table| Body::MessageX {
        vectors,
        bar,
        table,
        pending: 0x2000,
    };
    let express = |speed, lanes| Body::Express {
        speed,
        lanes,
        reset: true,
    };
    for (offset, body, said) in [
        (
            0x50,
            message(3),
            "the number of vectors of the capability at 0x50 is 3",
        ),
        (
            0x50,
            message(64),
            "the number of vectors of the capability at 0x50 is 64",
        ),
        (
            0xa0,
            message_x(0, 3, 0),
            "the number of vectors of the capability at 0xa0 is 0",
        ),
        (
            0xa0,
            message_x(2049, 3, 0),
            "the number of vectors of the capability at 0xa0 is 2049",
        ),
        (
            0xa0,
            message_x(1, 3, 4),
            "offset of the capability at 0xa0 is 8196: it can be a multiple of 8",
        ),
        (
            0x60,
            express(0, 1),
            "the link speed of the capability at 0x60 is 0",
        ),
        (
            0x60,
            express(1, 3),
            "the number of lanes of the capability at 0x60 is 3",
        ),
        (
            0xb4,
            Body::Vendor { len: 2 },
            "the length of the capability at 0xb4 is 2",
        ),
        (
            0x1b0,
            Body::ResizableBar { bar: 3 },
            "the BAR of the capability at 0x1b0 is 3",
        ),
        (
            0x1b0,
            Body::CxlDevice { timeout: 5 },
            "the timeout's code of the capability at 0x1b0 is 5",
        ),
    ] {
        let refusal = refusal("nic", |profile| at(profile, offset).body = body);
        assert!(refusal.contains(said), "{refusal}");
    }
}

#[test]
fn an_msix_table_outside_its_bar() {
    let moved = |bar, table, pending| {
        refusal("nic", |profile| {
            at(profile, 0xa0).body = Body::MessageX {
                vectors: 5,
                bar,
                table,
                pending,
            };
        })
    };
    assert_eq!(
        moved(3, 0x3fb8, 0),
        "profile nic: the vectors of the capability at 0xa0 are 0x3fb8..0x4008 of BAR 3, which has \
         16 KiB of memory"
    );
    assert!(moved(3, 0, 0x4000).contains("the pending bits of the capability at 0xa0"));
    assert!(moved(3, 0xffff_fff8, 0).contains("0xfffffff8..0x100000048 of BAR 3"));
    for (what, bar) in [("I/O ports", 2), ("no BAR", 5), ("none at all", 9)] {
        let refusal = moved(bar, 0, 0);
        let said = format!("BAR {bar}, which has 0 bytes of memory");
        assert!(refusal.contains(&said), "{what}: {refusal}");
    }
}

#[test]
fn bars_that_can_not_be() {
    let sized = |index: usize, size| refusal("nic", |p| p.bars[index].value.spec.size = size);
    assert_eq!(
        sized(1, 3 << 10),
        "profile nic: BAR 1, at 0x14, can't have 3 KiB: give it a power of two from 16 bytes to \
         2 GiB"
    );
    for (index, size, offset) in [
        (0, 0, "0x10"),
        (0, 8, "0x10"),
        (0, 1 << 32, "0x10"),
        (2, 2, "0x18"),
        (2, 512, "0x18"),
        (4, 1 << 63, "0x20"),
        (4, u64::MAX, "0x20"),
    ] {
        let refusal = sized(index, size);
        assert!(
            refusal.contains(&format!(", at {offset}, can't have {}", Bytes(size))),
            "{refusal}"
        );
    }
    let renumbered = |from: usize, to| refusal("nic", |p| p.bars[from].value.index = to);
    for (what, from, to) in [
        ("twice", 1, 0),
        ("beyond the six", 1, 6),
        ("the upper half of another", 3, 5),
        ("an upper half beyond the six", 4, 5),
    ] {
        let refusal = renumbered(from, to);
        assert!(
            refusal.contains("can't exist: its register is beyond the six"),
            "{what}: {refusal}"
        );
    }
}

#[test]
fn a_rom_a_class_or_a_pin_that_can_not_be() {
    for (size, shown) in [
        (0, "0 bytes"),
        (1 << 10, "1 KiB"),
        (3 << 10, "3 KiB"),
        (32 << 20, "32 MiB"),
    ] {
        let refusal = refusal("nic", |p| {
            p.rom = Some(Fact::assumed(size, "for this test"))
        });
        assert!(
            refusal.contains(&format!("ROM has {shown}: the size must be a power of two")),
            "{refusal}"
        );
    }
    let class = refusal("nic", |p| p.class.value = 0x0102_0000);
    assert!(class.contains("the class is 0x1020000"), "{class}");
    let pin = refusal("nic", |p| p.interrupt_pin.value = 5);
    assert!(pin.contains("the interrupt pin is 0x5"), "{pin}");
}
