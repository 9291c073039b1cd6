//! Texts of reasons as both runtimes write them.

use super::*;
use std::string::ToString;

#[test]
fn a_sentence_names_the_value_and_the_remedy() {
    let errno = Errno::EINVAL;
    let name = "nvidia,gpu-mem-size";
    for (reason, begins) in [
        (
            Decline::Property { name, errno },
            "firmware property nvidia,gpu-mem-size can't be read (EINVAL): served as a plain",
        ),
        (
            Decline::LinkDown,
            "firmware reports a memory size of 0, so the chip-to-chip link is down",
        ),
        (
            Decline::BarTaken(BarIndex::BAR0),
            "the function has a BAR0 of its own: served without a legacy interface; give",
        ),
    ] {
        let text = reason.to_string();
        assert!(text.starts_with(begins) && text.contains(';'), "{text}");
    }
    let base = HostPhys(0x4200_0000_0800);
    let gib = Bytes(1 << 30);
    for (refusal, begins) in [
        (
            Refusal::BelowReserve {
                size: Bytes((1 << 30) - 4096),
                reserve: gib,
            },
            "memory size 1023 MiB + 1020 KiB is smaller than the 1 GiB to reserve from it; ",
        ),
        (
            Refusal::NothingUsable {
                size: gib,
                least: Bytes(3 << 29),
            },
            "memory size 1 GiB leaves nothing usable: at least 1 GiB + 512 MiB are needed; ",
        ),
        (
            Refusal::BaseNotPageAligned {
                base,
                page: Bytes(1 << 16),
            },
            "memory base 0x420000000800 is not a multiple of the page size 64 KiB; ",
        ),
        (
            Refusal::BeyondAddresses { base, size: gib },
            "memory of 1 GiB at 0x420000000800 ends beyond 64 bits; ",
        ),
        (
            Refusal::OutOfReach {
                base,
                length: gib,
                last: HostPhys(0xffff_ffff),
            },
            "memory of 1 GiB at 0x420000000800 ends beyond 0xffffffff, the last address that",
        ),
        (
            Refusal::BarTooLarge {
                length: Bytes((1 << 40) + (1 << 30)),
            },
            "memory of 1 TiB + 1 GiB needs a BAR above 1 TiB, which VFIO can't address; ",
        ),
        (
            Refusal::SystemRam { base, length: gib },
            "memory of 1 GiB at 0x420000000800 overlaps what the kernel uses as its own RAM; ",
        ),
        (
            Refusal::PhysicalBarTooSmall {
                bar: BarIndex::BAR0,
                size: gib,
                memory: Bytes(3 << 29),
            },
            "BAR0 of the function has 1 GiB, and layout physical-bar would put 1 GiB + 512 MiB of \
             memory into it; use layout bar",
        ),
        (
            Refusal::NoUncachedPart { reserve: gib },
            "the chip needs 1 GiB of uncached memory for MIG, and the one BAR of layout",
        ),
        (
            Refusal::NoBarToHonour,
            "memory-enable is about BARs, and layout region presents the memory in none; use",
        ),
        (
            Refusal::NothingToHonour,
            "memory-enable honour would change nothing: what this variant presents answers",
        ),
        (
            Refusal::NoBar0,
            "the function has no BAR0 with the registers that tell when it is ready; ",
        ),
        (
            Refusal::Bar0TooSmall {
                size: Bytes(0x2_0000),
                end: 0x200c0,
            },
            "BAR0 has 128 KiB and its readiness registers end at 0x200c0; ",
        ),
        (
            Refusal::NotReady { errno },
            "the device is not ready (EINVAL): its memory can't be used; check its link",
        ),
        (
            Refusal::Claimed {
                name: "usemem",
                base,
                length: gib,
            },
            "usemem of 1 GiB at 0x420000000800 is claimed by another part of the kernel, which",
        ),
        (
            Refusal::Strict(Decline::LinkDown),
            "firmware reports a memory size of 0, so the chip-to-chip link is down: the option \
             strict allows no less than the whole device; check the link and reset the host",
        ),
    ] {
        let text = refusal.to_string();
        assert!(text.starts_with(begins), "{text}");
    }
}
