//! Allocations on made-up hosts, and properties over random pools.

use std::collections::{BTreeMap, BTreeSet};

use varia_facts::{Bdf, EgmDevice, Facts, NodeId, PciFunction};
use varia_silicon::Machine;
use varia_silicon::machine::{GB200_NVL4, GH200, GH200_X4};

use crate::preferred::{self, Candidate};
use crate::topology::LEVELS;
use crate::{Constraint, Health, Observed, Pool, Refusal};

/// Facts of a host whose GPUs are bound to their best driver.
fn bound(machine: &Machine) -> Facts {
    let mut facts = machine.facts().unwrap();
    for function in &mut facts.functions {
        if function.coherent_memory.is_some() {
            function.driver = function.best_driver.clone();
            function.variant = Some("nvgrace-gpu".to_owned());
        }
    }
    facts
}

fn gpus(machine: &Machine) -> Vec<Bdf> {
    machine
        .gpus()
        .iter()
        .map(|bdf| bdf.parse().unwrap())
        .collect()
}

fn pool(facts: &Facts) -> Pool {
    Pool::new(facts, &Observed::default())
}

fn gpu(facts: &mut Facts, bdf: Bdf) -> &mut PciFunction {
    facts.functions.iter_mut().find(|f| f.bdf == bdf).unwrap()
}

/// Reasons of one GPU of a host, after a change of its facts.
fn unhealthy(machine: &Machine, change: impl Fn(&mut Facts, Bdf)) -> Vec<(Constraint, String)> {
    let mut facts = bound(machine);
    let bdf = gpus(machine)[0];
    assert_eq!(pool(&facts).device(bdf).unwrap().health, Health::Healthy);
    change(&mut facts, bdf);
    let pool = pool(&facts);
    let reasons = pool.device(bdf).unwrap().health.reasons().iter();
    reasons
        .map(|reason| (reason.constraint, reason.text.clone()))
        .collect()
}

#[test]
fn each_constraint_makes_a_device_unhealthy_with_a_sentence() {
    type Change = fn(&mut Facts, Bdf);
    let rows: [(Constraint, Change, &str); 11] = [
        (
            Constraint::Driver,
            |facts, bdf| gpu(facts, bdf).driver = Some("nvidia".to_owned()),
            "varia bind 0009:01:00.0",
        ),
        (
            Constraint::Driver,
            |facts, bdf| gpu(facts, bdf).driver = Some("vfio-pci".to_owned()),
            "vfio-pci, which gives a VM no coherent memory",
        ),
        (
            Constraint::Driver,
            |facts, bdf| gpu(facts, bdf).driver = None,
            "is bound to no driver",
        ),
        (
            Constraint::Group,
            |facts, bdf| gpu(facts, bdf).iommu_group = None,
            "is in no IOMMU group",
        ),
        (
            Constraint::Firmware,
            |facts, bdf| gpu(facts, bdf).coherent_memory = None,
            "firmware has no nvidia,gpu-mem-base-pa",
        ),
        (
            Constraint::Firmware,
            |facts, bdf| {
                let memory = gpu(facts, bdf).coherent_memory.as_mut().unwrap();
                memory.size = varia_facts::Bytes(0);
            },
            "the link to the CPU is down",
        ),
        (
            Constraint::Readiness,
            |facts, bdf| gpu(facts, bdf).ready = Some(false),
            "its memory is not ready",
        ),
        (
            Constraint::Memory,
            |facts, bdf| {
                gpu(facts, bdf).online = Some(varia_facts::OnlineMemory {
                    nodes: vec![NodeId(4)],
                    size: varia_facts::Bytes(1 << 30),
                });
            },
            "online as RAM of the host, on node 4",
        ),
        (
            Constraint::Regions,
            |facts, bdf| gpu(facts, bdf).bars[0].address = None,
            "BAR0 of 16 MiB has no address",
        ),
        (
            Constraint::Regions,
            |facts, bdf| {
                let own = gpu(facts, bdf).coherent_memory.clone();
                let other = facts.functions.iter_mut().rev();
                let mut other = other.filter(|f| f.coherent_memory.is_some());
                other.next().unwrap().coherent_memory = own;
            },
            "overlaps that of 0039:01:00.0",
        ),
        (
            Constraint::Egm,
            |facts, bdf| {
                facts.host.egm = vec![EgmDevice {
                    pxm: 0,
                    gpus: vec![bdf, "00f9:01:00.0".parse().unwrap()],
                    ..EgmDevice::default()
                }];
            },
            "/dev/egm0 belongs to 00f9:01:00.0 too",
        ),
    ];
    for (constraint, change, part) in rows {
        let reasons = unhealthy(&GB200_NVL4, change);
        assert!(
            reasons
                .iter()
                .any(|(found, text)| *found == constraint && text.contains(part)),
            "{constraint:?} with {part:?} is not in {reasons:?}"
        );
        assert!(
            reasons.iter().all(|(found, _)| *found == constraint),
            "{reasons:?}"
        );
    }
}

#[test]
fn an_error_that_was_observed_makes_its_device_alone_unhealthy() {
    let facts = bound(&GH200_X4);
    let gpus = gpus(&GH200_X4);
    let text = "0019:01:00.0 reported 2 fatal errors".to_owned();
    let observed = Observed {
        errors: [(gpus[1], text.clone())].into(),
        ..Observed::default()
    };
    let pool = Pool::new(&facts, &observed);
    for device in pool.devices() {
        let reasons = device.health.reasons();
        if device.bdf == gpus[1] {
            assert_eq!(reasons.len(), 1);
            assert_eq!(reasons[0].text, text);
        } else {
            assert!(reasons.is_empty(), "{reasons:?}");
        }
    }
    let refusal = pool.allocate(&[vec![gpus[1]]], &BTreeMap::new());
    assert!(refusal.unwrap_err().to_string().contains(&text));
}

#[test]
fn a_device_is_bound_on_demand_only_if_that_was_checked() {
    let mut facts = bound(&GH200);
    let bdf = gpus(&GH200)[0];
    gpu(&mut facts, bdf).driver = Some("nvidia".to_owned());
    let health = |result: Option<Result<(), String>>| {
        let observed = Observed {
            bindable: result.map(|result| (bdf, result)).into_iter().collect(),
            ..Observed::default()
        };
        let pool = Pool::new(&facts, &observed);
        let health = pool.device(bdf).unwrap().health.clone();
        let to_bind = pool.allocate(&[vec![bdf]], &BTreeMap::new());
        (health, to_bind.ok().map(|all| all[0].to_bind.clone()))
    };
    assert!(matches!(health(None).0, Health::Unhealthy(_)));
    let (bindable, to_bind) = health(Some(Ok(())));
    assert!(matches!(bindable, Health::Bindable { .. }));
    assert_eq!(to_bind, Some(BTreeSet::from([bdf])));
    let (refused, to_bind) = health(Some(Err("a process has it open".to_owned())));
    assert_eq!(to_bind, None);
    assert!(refused.reasons()[0].text.contains("a process has it open"));
}

#[test]
fn the_numa_hint_is_the_nearest_node_with_cpus() {
    let pool = pool(&bound(&GB200_NVL4));
    let nodes: Vec<_> = pool
        .devices()
        .iter()
        .map(|device| device.cpu_node)
        .collect();
    let expected = [0, 0, 1, 1].map(|node| Some(NodeId(node)));
    assert_eq!(nodes, expected, "the GPUs' own nodes have no CPUs");
    let mut facts = bound(&GH200);
    for node in &mut facts.host.nodes {
        node.cpus = varia_facts::CpuList::default();
    }
    for function in &mut facts.functions {
        let node = function.numa_node;
        function.cpu_node = node.and_then(|node| facts.host.nearest_with_cpus(node));
    }
    assert_eq!(self::pool(&facts).devices()[0].cpu_node, None);
}

#[test]
fn superchips_are_kept_together_and_complete_ones_are_spared() {
    let pool = pool(&bound(&GB200_NVL4));
    let gpus = gpus(&GB200_NVL4);
    let best = |available: &[usize], must: &[usize], size| {
        let some = |indices: &[usize]| indices.iter().map(|at| gpus[*at]).collect::<Vec<_>>();
        let best = pool.preferred(&some(available), &some(must), size).unwrap();
        best.iter()
            .map(|bdf| gpus.iter().position(|gpu| gpu == bdf).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(best(&[0, 1, 2, 3], &[], 1), [0]);
    assert_eq!(
        best(&[1, 2, 3], &[], 1),
        [1],
        "of the superchip that is in use"
    );
    assert_eq!(best(&[1, 2, 3], &[], 2), [2, 3], "of one superchip");
    assert_eq!(best(&[0, 1, 2, 3], &[3], 2), [2, 3]);
    assert_eq!(best(&[0, 1, 2, 3], &[], 3), [0, 1, 2]);
    assert_eq!(best(&[0, 1, 2, 3], &[1, 2], 2), [1, 2]);
}

#[test]
fn egm_goes_with_all_of_its_gpus_and_stays_otherwise() {
    let mut facts = bound(&GB200_NVL4);
    let gpus = gpus(&GB200_NVL4);
    facts.host.egm = [(0, 0), (1, 2)]
        .map(|(pxm, first)| EgmDevice {
            pxm,
            gpus: gpus[first..first + 2].to_vec(),
            ..EgmDevice::default()
        })
        .into();
    let pool = pool(&facts);
    let egm = |devices: &[Bdf]| {
        let all = pool
            .allocate(&[devices.to_vec()], &BTreeMap::new())
            .unwrap();
        (all[0].egm.clone(), all[0].reasons.join("; "))
    };
    assert_eq!(egm(&gpus[2..]).0, ["/dev/egm1"]);
    assert_eq!(egm(&gpus).0, ["/dev/egm0", "/dev/egm1"]);
    let (none, why) = egm(&gpus[1..3]);
    assert!(none.is_empty());
    assert!(why.contains("not all GPUs of /dev/egm0"), "{why}");
}

#[test]
fn refusals_name_the_constraint() {
    let mut facts = bound(&GH200_X4);
    let gpus = gpus(&GH200_X4);
    let first = gpu(&mut facts, gpus[0]).iommu_group.unwrap();
    gpu(&mut facts, gpus[1]).iommu_group = Some(first);
    for group in &mut facts.host.iommu.groups {
        if group.id == first {
            group.members.push(gpus[1]);
        }
    }
    let pool = pool(&facts);
    let refused = |containers: &[&[Bdf]], taken: &[Bdf]| {
        let containers: Vec<_> = containers.iter().map(|devices| devices.to_vec()).collect();
        let taken = taken.iter().map(|bdf| (*bdf, "the pod a/b".to_owned()));
        pool.allocate(&containers, &taken.collect()).unwrap_err()
    };
    let none: Bdf = "00f9:01:00.0".parse().unwrap();
    assert_eq!(refused(&[&[none]], &[]), Refusal::Unknown { bdf: none });
    assert_eq!(
        refused(&[&[gpus[2]], &[gpus[2]]], &[]),
        Refusal::Twice { bdf: gpus[2] }
    );
    for (refusal, parts) in [
        (refused(&[&[gpus[2]]], &[gpus[2]]), ["in use by", "a/b"]),
        (refused(&[&[gpus[0]]], &[gpus[1]]), ["0019:01:00.0", "a/b"]),
        (
            refused(&[&[gpus[0]], &[gpus[1]]], &[]),
            ["two containers", "IOMMU group"],
        ),
    ] {
        let text = refusal.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let taken = gpus[1..]
        .iter()
        .map(|bdf| (*bdf, "a pod".to_owned()))
        .collect();
    let refusal = pool.choose("GH200", 1, &taken).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::TooFew {
            wanted: 1,
            available: 0
        },
        "the first one's group has a user"
    );
    pool.allocate(&[gpus[..2].to_vec()], &BTreeMap::new())
        .unwrap();
}

/// The best set of a size by trying every set.
fn tried(
    candidates: &[Candidate],
    size: usize,
    total: &dyn Fn(crate::topology::Level, u32) -> usize,
) -> Option<Vec<usize>> {
    let sets = (0_u32..1 << candidates.len()).filter(|set| set.count_ones() as usize == size);
    let sets = sets.filter_map(|set| {
        let chosen: Vec<_> = candidates
            .iter()
            .enumerate()
            .filter(|(at, _)| set >> at & 1 != 0)
            .map(|(_, candidate)| candidate.index)
            .collect();
        let must = candidates.iter().filter(|candidate| candidate.must);
        must.map(|candidate| candidate.index)
            .all(|index| chosen.contains(&index))
            .then_some(chosen)
    });
    sets.min_by_key(|chosen| preferred::cost(candidates, chosen, total))
}

#[test]
fn the_preferred_set_costs_as_little_as_any_set() {
    let mut random = fastrand::Rng::with_seed(18);
    let mut compared = 0;
    while compared < 3000 {
        let count = random.usize(1..9);
        // nested places, each a part of the place outside
        let mut numbers: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        let mut candidates = Vec::new();
        for index in 0..count {
            let mut place = [0; LEVELS];
            let mut path = Vec::new();
            for (level, number) in place.iter_mut().enumerate() {
                path.push(level as u32);
                path.push(random.u32(0..3 - u32::from(level > 2)));
                let next = numbers.len() as u32;
                *number = *numbers.entry(path.clone()).or_insert(next);
            }
            candidates.push(Candidate {
                index,
                place,
                must: random.u8(0..8) == 0,
            });
        }
        // some places have devices that are not available
        let more: BTreeMap<u32, usize> = numbers
            .values()
            .map(|number| (*number, random.usize(0..2)))
            .collect();
        let all = candidates.clone();
        let total = move |level: crate::topology::Level, number: u32| {
            let at = crate::topology::Level::ALL
                .iter()
                .position(|other| *other == level)
                .unwrap();
            all.iter().filter(|one| one.place[at] == number).count() + more[&number]
        };
        let size = random.usize(0..count + 2);
        let best = preferred::best(&candidates, size, &total);
        let tried = tried(&candidates, size, &total);
        let cost = |set: &Option<Vec<usize>>| {
            set.as_ref()
                .map(|set| preferred::cost(&candidates, set, &total))
        };
        assert_eq!(cost(&best), cost(&tried), "{candidates:?} {size}");
        if let Some(best) = &best {
            assert_eq!(best.len(), size);
            assert!(best.is_sorted() && best.windows(2).all(|pair| pair[0] != pair[1]));
        }
        compared += 1;
    }
}

#[test]
fn every_random_history_hands_a_device_to_one_user_at_a_time() {
    let mut random = fastrand::Rng::with_seed(72);
    let machine = Machine {
        sockets: 8,
        ..GB200_NVL4
    };
    let pool = pool(&bound(&machine));
    let mut taken: BTreeMap<Bdf, String> = BTreeMap::new();
    let (mut given, mut refused) = (0, 0);
    for step in 0..2000 {
        if random.bool() {
            let count = random.usize(1..7);
            let free = pool.devices().len() - taken.len();
            match pool.choose("GB200", count, &taken) {
                Ok(allocation) => {
                    assert_eq!(allocation.devices.len(), count);
                    for bdf in allocation.devices {
                        let before = taken.insert(bdf, format!("pod {step}"));
                        assert_eq!(before, None, "handed out twice");
                    }
                    given += 1;
                }
                Err(refusal) => {
                    let expected = Refusal::TooFew {
                        wanted: count,
                        available: free,
                    };
                    assert_eq!(refusal, expected);
                    assert!(free < count);
                    refused += 1;
                }
            }
        } else if let Some(pod) = random.choice(taken.values()).cloned() {
            taken.retain(|_, other| *other != pod);
        }
    }
    assert!(given > 300 && refused > 50, "{given} {refused}");
}
