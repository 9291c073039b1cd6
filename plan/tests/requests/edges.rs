//! Values at an edge: sizes as they are written, BARs that count, memory that is just enough.

use varia_facts::{BarKind, Bytes, HostPhys, PhysicalBar};
use varia_plan::{Error, PlannedBar, Request, libvirt, make, svg};

use crate::host::{GIB, GPUS, MIB, facts, request};

#[test]
fn a_size_has_the_largest_unit_that_divides_it() {
    for (bytes, expected) in [
        (3 * GIB, (3, "GiB")),
        (512 * MIB, (512, "MiB")),
        (GIB + MIB, (1025, "MiB")),
        (64 << 10, (64, "KiB")),
        (0, (0, "bytes")),
    ] {
        assert_eq!(libvirt::scaled(Bytes(bytes)), expected, "{bytes}");
    }
}

#[test]
fn a_vm_sees_the_large_bars_of_a_function_itself() {
    let mut function = facts().functions[0].clone();
    let bar = |index, kind, prefetchable| PhysicalBar {
        index,
        address: Some(HostPhys(u64::from(index) << 40)),
        size: Bytes(GIB),
        kind,
        prefetchable,
    };
    function.bars = vec![
        bar(0, BarKind::Memory64, false),
        bar(2, BarKind::Memory64, true),
        bar(4, BarKind::Memory32, true),
        bar(5, BarKind::Io, false),
    ];
    let seen = PlannedBar::physical(&function);
    let seen: Vec<_> = seen.iter().map(|bar| (bar.index, bar.size)).collect();
    assert_eq!(seen, [(2, Bytes(GIB))]);
}

#[test]
fn all_ram_of_a_node_can_be_planned_and_no_more() {
    let facts = facts();
    let of = |memory| Request {
        memory: Bytes(memory),
        hugepages: None,
        ..request(&[GPUS[0]])
    };
    let plan = make(&facts, &of(64 * GIB)).expect("just enough");
    let drawn = svg(&plan);
    assert!(
        drawn.contains("<svg") && drawn.contains("node 0"),
        "{drawn}"
    );
    let error = make(&facts, &of(64 * GIB + 2 * MIB)).expect_err("too much");
    assert!(matches!(error, Error::HostMemory { .. }), "{error}");
}
