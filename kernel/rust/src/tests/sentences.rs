//! Text in a fixed buffer reads as the `Display` of user space.

use varia_spec::Errno;
use varia_variant::{BarIndex, Bytes, Decline, HostPhys, Refusal};

use crate::{probe::NOT_SERVED, text::Text, types::TEXT_LEN};

fn string(write: impl Fn(&mut Text<'_>)) -> String {
    let mut bytes = [0xee; TEXT_LEN];
    write(&mut Text::new(&mut bytes));
    let end = bytes.iter().position(|byte| *byte == 0).expect("a NUL");
    String::from_utf8(bytes[..end].to_vec()).expect("text")
}

#[test]
fn reasons_read_as_their_display_does_and_none_is_cut() {
    let errno = Errno::EOVERFLOW;
    for reason in [
        Decline::LinkDown,
        Decline::NoCommands,
        Decline::BarTaken(BarIndex::BAR0),
        Decline::Property {
            name: "nvidia,gpu-mem-base-pa",
            errno,
        },
    ] {
        let text = string(|text| {
            text.sentence(&reason.sentence());
        });
        assert_eq!(text, reason.to_string());
    }
    for (address, size) in [
        (0, Bytes(0)),
        (0x42_0000_0000, Bytes(1)),
        (0xffff_ffff, Bytes((95 << 30) + 4096)),
        (u64::MAX, Bytes(u64::MAX)),
    ] {
        let base = HostPhys(address);
        for refusal in [
            Refusal::BelowReserve {
                size,
                reserve: size,
            },
            Refusal::NothingUsable { size, least: size },
            Refusal::BaseNotPageAligned { base, page: size },
            Refusal::BeyondAddresses { base, size },
            Refusal::OutOfReach {
                base,
                length: size,
                last: base,
            },
            Refusal::BarTooLarge { length: size },
            Refusal::SystemRam { base, length: size },
            Refusal::NoBar0,
            Refusal::Bar0TooSmall { size, end: address },
            Refusal::NotReady { errno },
            Refusal::Claimed {
                name: "usemem",
                base,
                length: size,
            },
            Refusal::Strict(Decline::NoCommands),
            Refusal::Strict(Decline::Property {
                name: "nvidia,gpu-mem-base-pa",
                errno,
            }),
        ] {
            let text = string(|text| {
                text.str(NOT_SERVED).sentence(&refusal.sentence());
            });
            assert_eq!(text, format!("{NOT_SERVED}{refusal}"));
        }
    }
}

#[test]
fn sizes_read_as_their_display_does() {
    for bytes in [
        0,
        1,
        1023,
        4097,
        95 << 30,
        (1 << 30) + (300 << 20),
        u64::MAX,
    ] {
        let size = Bytes(bytes);
        let text = string(|text| {
            text.size(size);
        });
        assert_eq!(text, size.to_string());
    }
}

#[test]
fn numbers_have_the_digits_they_need() {
    for value in [0, 9, 10, 1234567890, 10_u64.pow(19), u64::MAX] {
        let text = string(|text| {
            text.dec(value).str(" ").hex(value);
        });
        assert_eq!(text, format!("{value} {value:#x}"));
    }
}

#[test]
fn text_that_does_not_fit_is_cut_and_still_ends() {
    let long = "x".repeat(TEXT_LEN + 10);
    let text = string(|text| {
        text.str(&long);
    });
    assert_eq!(text.len(), TEXT_LEN - 1);
    // There may be no room at all.
    Text::new(&mut []).str("x");
}
