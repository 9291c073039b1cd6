//! The functions as C calls them, and their rendering in C.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "each call passes null or pointers to values of its own test, as the contract asks"
)]

use std::ptr;

use super::*;

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 128 << 20;

fn render() -> String {
    let mut text = String::from(
        "/* SPDX-License-Identifier: GPL-2.0-only */\n\
         /*\n \
         * The border between the C half and the Rust object.\n \
         * Rendered from border.rs by its tests; do not edit.\n \
         */\n\
         #ifndef COHERENT_ABI_H\n\
         #define COHERENT_ABI_H\n\n\
         #include <linux/build_bug.h>\n\
         #include <linux/types.h>\n\n",
    );
    text += &constants().concat();
    text += "\n";
    text += &structs().join("\n");
    text += "\n";
    text += &prototypes().join("\n");
    text + "\n#endif /* COHERENT_ABI_H */\n"
}

#[test]
fn the_header_is_what_the_border_declares() {
    rendered::assert_stored(env!("CARGO_MANIFEST_DIR"), "coherent_abi.h", &render());
}

/// A GPU in a VM, whose firmware says nothing.
fn facts() -> Facts {
    let bar = |base, size| RawMemory { base, size };
    Facts {
        property: [0; 4],
        property_errno: [22; 4],
        bar4: bar(1 << 40, 2 * GIB),
        bar2: bar(1 << 41, GIB),
        block: BLOCK,
        max_nodes: 16,
        page_shift: 12,
        segment: 0,
        bdf: 0x100,
    }
}

const NONE: RawMemory = RawMemory { base: 0, size: 0 };

fn placement() -> RawPlacement {
    RawPlacement {
        share: [EMPTY; 16],
        head: 0,
        tail: 0,
        count: 0,
        reserved: 0,
    }
}

fn words(text: &[u8]) -> String {
    let end = text.iter().position(|byte| *byte == 0).expect("a NUL");
    String::from_utf8(text[..end].to_vec()).expect("text")
}

/// Searches BAR4 whose first `memory` bytes are memory.
fn search(facts: &Facts, memory: u64) -> Result<RawMemory, (i32, String)> {
    let mut raw = RawSearch {
        kept: 0,
        lost: 0,
        begun: 0,
    };
    let (mut keeps, mut offset, mut tries) = (0, 0, 0);
    while unsafe { coherent_search_next(facts, &mut raw, keeps, &mut offset) } == 1 {
        assert!(offset + 8 <= facts.bar4.size);
        keeps = u32::from(offset + 8 <= memory);
        tries += 1;
        assert!(tries < 64);
    }
    let (mut found, mut text) = (NONE, [0; TEXT_LEN]);
    let ret = unsafe { coherent_search_found(facts, &raw, &mut found, text.as_mut_ptr(), 256) };
    match ret {
        0 => Ok(found),
        ret => Err((ret, words(&text))),
    }
}

#[test]
fn a_guest_goes_from_its_bar_to_lines_of_the_log() {
    let facts = facts();
    let (mut memory, mut text) = (NONE, [0; TEXT_LEN]);
    let extent = unsafe { coherent_extent(&facts, &mut memory, text.as_mut_ptr(), 256) };
    assert_eq!((extent, memory), (EXTENT_BAR, facts.bar4));
    let memory = search(&facts, GIB + BLOCK + 8192).expect("memory");
    assert_eq!(memory.size, GIB + BLOCK + 8192);

    let mut srat = vec![0; 48];
    srat[..4].copy_from_slice(b"SRAT");
    for domain in 1..=2_u8 {
        let mut entry = [0; 32];
        (entry[0], entry[1], entry[3], entry[4]) = (5, 32, 1, domain);
        (entry[10], entry[24]) = (1, 1);
        srat.extend(entry);
    }
    let mut domains = [0; 16];
    let count = unsafe {
        coherent_domains(
            &facts,
            srat.as_ptr(),
            srat.len() as u32,
            domains.as_mut_ptr(),
            text.as_mut_ptr(),
            256,
        )
    };
    assert_eq!((count, &domains[..3]), (2, [1, 2, 0].as_slice()));
    let node = |number| RawNode {
        number,
        has_memory: 0,
    };
    let nodes = [node(1), node(2)];
    let mut placed = placement();
    let mut place = |split: &str| unsafe {
        coherent_place(
            &facts,
            &memory,
            domains.as_ptr(),
            nodes.as_ptr(),
            2,
            split.as_ptr(),
            split.len() as u32,
            &mut placed,
            text.as_mut_ptr(),
            256,
        )
    };
    assert_eq!(place("1:5G"), -22);
    assert_eq!(place("even"), 0);
    assert_eq!(
        words(&text),
        "split= adds up to 5 GiB: write sizes with the sum 1 GiB + 128 MiB"
    );
    let mut lines = Vec::new();
    for index in 0..20 {
        let more =
            unsafe { coherent_line(index, &facts, &memory, &placed, text.as_mut_ptr(), 256) };
        if more == 0 {
            break;
        }
        lines.push(words(&text));
    }
    assert_eq!(
        lines,
        [
            "usemem: 1 GiB + 128 MiB + 8 KiB at 0x10000000000; resmem, which stays the device's: BAR2, 1 GiB at 0x20000000000",
            "node 1 gets 640 MiB at 0x10000000000",
            "node 2 gets 512 MiB at 0x10028000000",
            "left out, because memory comes in blocks of 128 MiB: 0 bytes at the start, 8 KiB at the end",
        ]
    );
}

#[test]
fn a_host_takes_what_firmware_says() {
    let facts = Facts {
        property: [0x42_0000_0000, 96 * GIB, 16, 8],
        property_errno: [0; 4],
        ..facts()
    };
    let (mut memory, mut domains) = (NONE, [0; 16]);
    unsafe {
        let extent = coherent_extent(&facts, &mut memory, ptr::null_mut(), 0);
        assert_eq!(extent, EXTENT_FIRMWARE);
        let none = ptr::null();
        let count = coherent_domains(&facts, none, 0, domains.as_mut_ptr(), ptr::null_mut(), 0);
        assert_eq!(count, 8);
    }
    assert_eq!((memory.base, memory.size), (0x42_0000_0000, 96 * GIB));
    assert_eq!(&domains[..8], [16, 17, 18, 19, 20, 21, 22, 23]);
}

#[test]
fn what_is_refused_has_an_errno_and_a_sentence() {
    let (ret, text) = search(&facts(), 0).expect_err("no memory");
    assert_eq!(ret, -6);
    assert!(
        text.starts_with("BAR4 at 0x10000000000 keeps no byte"),
        "{text}"
    );
    let small = Facts {
        bar4: RawMemory {
            base: 1 << 40,
            size: BLOCK / 2,
        },
        ..facts()
    };
    let (mut memory, mut text) = (NONE, [0; TEXT_LEN]);
    let ret = unsafe { coherent_extent(&small, &mut memory, text.as_mut_ptr(), 256) };
    assert_eq!(ret, -28);
    assert!(words(&text).contains("BAR4 has 64 MiB"), "{}", words(&text));
    let share = RawShare {
        memory: RawMemory {
            base: 1 << 40,
            size: GIB,
        },
        node: 3,
        reserved: 0,
    };
    for (errno, told) in [
        (-4, "could not be moved in time"),
        (-16, "the kernel or a device holds them"),
        (-12, "(ENOMEM)"),
        (0, "see the kernel's log"),
        (i32::MIN, "see the kernel's log"),
    ] {
        unsafe { coherent_held(&share, errno, text.as_mut_ptr(), 256) };
        let text = words(&text);
        assert!(
            text.starts_with("node 3 keeps 1 GiB at 0x10000000000: "),
            "{text}"
        );
        assert!(text.contains(told), "{text}");
        assert!(text.len() < TEXT_LEN - 1, "cut off: {text}");
    }
}

#[test]
fn every_refusal_fits_a_line_whatever_its_values() {
    let size = Bytes(u64::MAX);
    let (node, domain, first, last, max) = (u32::MAX, u32::MAX, u32::MAX, u32::MAX, u32::MAX);
    let function = Function {
        segment: u16::MAX,
        bdf: u16::MAX,
    };
    let base = HostPhys(u64::MAX);
    for refusal in [
        Refusal::NoMemory,
        Refusal::HalfAProperty {
            missing: property::MEM_BASE_PA,
        },
        Refusal::LinkDown,
        Refusal::Silent { base },
        Refusal::NoSrat,
        Refusal::BadSrat { offset: u64::MAX },
        Refusal::NoInitiator {
            function,
            others: u32::MAX,
        },
        Refusal::SharedDomain {
            domain,
            other: function,
        },
        Refusal::TooManyDomains { count: u64::MAX },
        Refusal::NoNode { domain, max },
        Refusal::NodeInUse { node, domain },
        Refusal::NodeTwice { node },
        Refusal::BadSplit { position: u64::MAX },
        Refusal::SplitTwice { node },
        Refusal::SplitForeignNode { node, first, last },
        Refusal::SplitSum {
            sum: None,
            usable: Bytes(1 << 50),
        },
        Refusal::BarBelowBlock {
            bar: Bytes(1 << 20),
            block: Bytes(1 << 29),
        },
        Refusal::BelowBlock {
            base,
            size: Bytes(1 << 20),
            block: Bytes(1 << 29),
        },
        Refusal::BeyondAddresses { base, size },
    ] {
        let mut text = [0; TEXT_LEN];
        assert!(refuse(Some(&mut text), refusal) < 0);
        assert_eq!(words(&text), refusal.to_string());
    }
}

#[test]
fn null_is_refused() {
    let (none, out) = (ptr::null(), ptr::null_mut());
    unsafe {
        assert_eq!(coherent_property(0, out, 0), INVALID);
        assert_eq!(coherent_property(4, out, 0), INVALID);
        assert_eq!(
            coherent_extent(ptr::null(), ptr::null_mut(), out, 0),
            INVALID
        );
        let null = ptr::null_mut();
        assert_eq!(
            coherent_search_next(ptr::null(), null, 0, ptr::null_mut()),
            INVALID
        );
        assert_eq!(
            coherent_domains(&facts(), none, 0, ptr::null_mut(), out, 0),
            INVALID
        );
        assert_eq!(
            coherent_line(0, ptr::null(), ptr::null(), ptr::null(), out, 0),
            0
        );
        coherent_held(ptr::null(), 0, out, 0);
    }
}
