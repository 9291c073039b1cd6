//! Placements against their definition: random memories, blocks, nodes and splits, and each bad input
//! with its values.

mod random;

use random::Random;
use varia_placement::{Domains, MAX_NODES, Memory, Node, Placement, Refusal, Share, Split};
use varia_spec::Errno;
use varia_units::{Bytes, HostPhys};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MAX_NUMNODES: u32 = 16;

fn memory(base: u64, size: u64) -> Memory {
    Memory {
        base: HostPhys(base),
        size: Bytes(size),
    }
}

fn domains(count: usize) -> Domains {
    Domains::of_properties(16, count as u64).expect("1 to 16")
}

fn free(numbers: impl IntoIterator<Item = i32>) -> Vec<Node> {
    let node = |number| Node {
        number,
        has_memory: false,
    };
    numbers.into_iter().map(node).collect()
}

fn plan(memory: Memory, block: u64, nodes: &[Node], split: &str) -> Result<Placement, Refusal> {
    let split = Split::parse(split.as_bytes())?;
    let domains = domains(nodes.len());
    Placement::plan(memory, Bytes(block), &domains, nodes, MAX_NUMNODES, &split)
}

fn shares(placement: &Placement) -> Vec<(u32, u64, u64)> {
    let row = |share: Share| (share.node, share.memory.base.0, share.memory.size.0);
    placement.shares().map(row).collect()
}

#[test]
fn a_gh200_in_a_vm_goes_to_its_nodes_as_the_split_says() {
    let bar4 = 0x100_0000_0000;
    let usemem = memory(bar4, 95 * GIB);
    let nodes = free(1..=8);
    let of = |split| shares(&plan(usemem, 128 * MIB, &nodes, split).expect("a placement"));
    assert_eq!(of("first"), [(1, bar4, 95 * GIB)]);
    // 760 blocks, 95 for each node
    let each = 95 * 128 * MIB;
    let even: Vec<_> = (0..8)
        .map(|n| (n as u32 + 1, bar4 + n * each, each))
        .collect();
    assert_eq!(of("even"), even);
    assert_eq!(
        of("8:90G,2:5G,1:0"),
        [(8, bar4, 90 * GIB), (2, bar4 + 90 * GIB, 5 * GIB)]
    );
    // With pages of 64 KiB a block has 512 MiB: 190 blocks.
    let even = shares(&plan(usemem, 512 * MIB, &nodes, "even").expect("a placement"));
    let sizes: Vec<_> = even.iter().map(|(_, _, size)| size / (512 * MIB)).collect();
    assert_eq!(sizes, [24, 24, 24, 24, 24, 24, 23, 23]);
}

#[test]
fn unaligned_ends_are_left_out_and_said() {
    let block = 512 * MIB;
    let placed = plan(memory(GIB - 4096, GIB + 12288), block, &free([3]), "first");
    let placed = placed.expect("two blocks");
    assert_eq!(shares(&placed), [(3, GIB, GIB)]);
    assert_eq!((placed.head, placed.tail), (Bytes(4096), Bytes(8192)));
}

/// A random placement's inputs.
struct Case {
    memory: Memory,
    block: u64,
    nodes: Vec<Node>,
}

fn case(rng: &mut Random) -> Case {
    let block = rng.one_of(&[64 * MIB, 128 * MIB, 512 * MIB, 2 * GIB]);
    let page = rng.one_of(&[4096_u64, 16384, 65536]);
    let base = match rng.below(2) == 0 {
        true => rng.below(1 << 20) * block,
        false => rng.below(1 << 24) * page,
    };
    let size = match rng.below(3) {
        0 => (1 + rng.below(39)) * block,
        1 => rng.below(3 * block / page) * page,
        _ => rng.below(40 * block / page) * page,
    };
    let count = 1 + rng.below(MAX_NODES as u64) as usize;
    let mut left: Vec<i32> = (0..MAX_NUMNODES as i32).collect();
    let numbers: Vec<_> = (0..count)
        .map(|_| left.swap_remove(rng.below(left.len() as u64) as usize))
        .collect();
    Case {
        memory: memory(base, size),
        block,
        nodes: free(numbers),
    }
}

#[test]
fn every_placement_covers_the_whole_blocks_once_and_nothing_else() {
    let mut rng = Random(1);
    let (mut placed, mut refused, mut tails) = (0, 0, 0);
    while placed < 20_000 || refused < 500 || tails < 1_000 {
        let Case {
            memory,
            block,
            nodes,
        } = case(&mut rng);
        let (base, end) = (memory.base.0, memory.base.0 + memory.size.0);
        // By counting, not by the arithmetic of the decision.
        let first = base.div_ceil(block);
        let blocks = (end / block).saturating_sub(first);
        let split = match rng.below(3) {
            0 => "first".to_owned(),
            1 => "even".to_owned(),
            _ => sizes(&mut rng, blocks, block, &nodes),
        };
        let result = plan(memory, block, &nodes, &split);
        if blocks == 0 {
            let expected = Refusal::BelowBlock {
                base: memory.base,
                size: memory.size,
                block: Bytes(block),
            };
            assert_eq!(result, Err(expected));
            refused += 1;
            continue;
        }
        let placement = result.expect("a placement");
        placed += 1;
        tails += usize::from(placement.tail.0 > 0);
        let mut next = first * block;
        assert_eq!(placement.head.0, next - base);
        let mut seen = Vec::new();
        for share in placement.shares() {
            assert_eq!(share.memory.base.0, next, "{split}");
            assert!(share.memory.size.0 > 0 && share.memory.size.0.is_multiple_of(block));
            assert!(nodes.iter().any(|node| node.number == share.node as i32));
            assert!(!seen.contains(&share.node), "{split}");
            seen.push(share.node);
            next += share.memory.size.0;
        }
        assert_eq!(next, (first + blocks) * block, "{split}");
        assert_eq!(placement.tail.0, end - next);
        let counts: Vec<_> = shares(&placement).iter().map(|s| s.2 / block).collect();
        match split.as_str() {
            "first" => {
                let lowest = nodes.iter().map(|node| node.number as u32).min();
                assert_eq!(seen.as_slice(), lowest.as_slice());
            }
            "even" => {
                assert_eq!(seen.len() as u64, blocks.min(nodes.len() as u64));
                let (most, least) = (counts.iter().max(), counts.iter().min());
                assert!(
                    most.zip(least)
                        .is_some_and(|(most, least)| most - least <= 1)
                );
                assert!(counts.is_sorted_by(|a, b| a >= b));
                assert!(seen.is_sorted(), "{seen:?}");
            }
            given => {
                for (node, _, size) in shares(&placement) {
                    assert!(
                        given
                            .split(',')
                            .any(|part| part == format!("{node}:{size}"))
                    );
                }
            }
        }
    }
}

/// A split with sizes that add up, over some of the nodes.
fn sizes(rng: &mut Random, blocks: u64, block: u64, nodes: &[Node]) -> String {
    let count = 1 + rng.below(nodes.len() as u64) as usize;
    let mut rest = blocks;
    let mut parts = Vec::new();
    for (index, node) in nodes.iter().take(count).enumerate() {
        let own = match index + 1 == count {
            true => rest,
            false => rng.below(rest + 1),
        };
        rest -= own;
        parts.push(format!("{}:{}", node.number, own * block));
    }
    parts.join(",")
}

#[test]
fn bad_input_is_refused_with_its_value() {
    let usemem = memory(1 << 40, 2 * GIB);
    let block = 512 * MIB;
    let node = |number, has_memory| Node { number, has_memory };
    let bytes = Bytes(block);
    for (nodes, split, refusal, errno, words) in [
        (
            free([1, -1]),
            "first",
            Refusal::NoNode {
                domain: 17,
                max: 16,
            },
            Errno::ENXIO,
            "proximity domain 17 has no node among the 16",
        ),
        (
            free([1, 16]),
            "first",
            Refusal::NoNode {
                domain: 17,
                max: 16,
            },
            Errno::ENXIO,
            "CONFIG_NODES_SHIFT",
        ),
        (
            vec![node(1, false), node(2, true)],
            "first",
            Refusal::NodeInUse {
                node: 2,
                domain: 17,
            },
            Errno::EBUSY,
            "node 2 (proximity domain 17) has memory already",
        ),
        (
            free([1, 2, 1]),
            "even",
            Refusal::NodeTwice { node: 1 },
            Errno::EINVAL,
            "node 1",
        ),
        (
            free([1, 2]),
            "1:1G",
            Refusal::SplitSum {
                sum: Some(Bytes(GIB)),
                usable: Bytes(2 * GIB),
            },
            Errno::EINVAL,
            "adds up to 1 GiB: write sizes with the sum 2 GiB",
        ),
        (
            free([1, 2]),
            "1:2G,2:512M",
            Refusal::SplitSum {
                sum: Some(Bytes(2 * GIB + block)),
                usable: Bytes(2 * GIB),
            },
            Errno::EINVAL,
            "adds up to 2 GiB + 512 MiB",
        ),
        (
            free([1, 2]),
            "1:16777215T,2:16777215T",
            Refusal::SplitSum {
                sum: None,
                usable: Bytes(2 * GIB),
            },
            Errno::EINVAL,
            "more than 64 bits hold",
        ),
        (
            free([1, 2]),
            "1:1G,3:1G",
            Refusal::SplitForeignNode {
                node: 3,
                first: 1,
                last: 2,
            },
            Errno::EINVAL,
            "names node 3, and the device's nodes are 1 to 2",
        ),
        (
            free([1, 3]),
            "1:1G,2:1G",
            Refusal::SplitForeignNode {
                node: 2,
                first: 1,
                last: 3,
            },
            Errno::EINVAL,
            "names node 2, and the device's nodes are 1 to 3: name nodes of the device",
        ),
        (
            free([1]),
            "1:100M",
            Refusal::SplitNotBlocks {
                node: 1,
                size: Bytes(100 * MIB),
                block: bytes,
            },
            Errno::EINVAL,
            "gives node 1 100 MiB",
        ),
    ] {
        assert_eq!(plan(usemem, block, &nodes, split), Err(refusal), "{split}");
        assert_eq!(refusal.errno(), errno, "{refusal}");
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    let block = Bytes(3 * MIB);
    let odd = plan(usemem, block.0, &free([1]), "first");
    assert_eq!(odd, Err(Refusal::BadBlock { block }));
    let beyond = plan(memory(u64::MAX - 4095, 8192), bytes.0, &free([1]), "first");
    assert!(matches!(beyond, Err(Refusal::BeyondAddresses { .. })));
    let top = plan(memory(u64::MAX - 4095, 4095), bytes.0, &free([1]), "first");
    assert!(matches!(top, Err(Refusal::BelowBlock { .. })));
    let none = Domains::default();
    let none = Placement::plan(usemem, bytes, &none, &[], MAX_NUMNODES, &Split::First);
    assert_eq!(none, Err(Refusal::TooManyDomains { count: 0 }));
}

#[test]
fn no_text_of_a_split_panics_and_a_split_that_is_read_names_a_node() {
    let mut rng = Random(17);
    let mut read = 0;
    while read < 1_000 {
        let count = rng.below(12);
        let text: Vec<u8> = (0..count).map(|_| rng.one_of(b"0123:,GMK1:")).collect();
        if let Ok(Split::Sizes(sizes)) = Split::parse(&text) {
            assert!(sizes.iter().flatten().count() > 0, "{text:?}");
            read += 1;
        }
        let text: Vec<u8> = (0..count).map(|_| rng.below(256) as u8).collect();
        let _ = Split::parse(&text);
    }
}
