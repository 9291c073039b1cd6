//! Arbitrary accesses on every profile and variant: the fuzz targets' corpora, and
//! seeded random bytes.

mod exercise;

use std::path::Path;

use exercise::Seen;
use varia_silicon::profile;

type Target = fn(&[u8], &mut Seen);

/// Random inputs with about as many operations as `VARIA_COUNT` says, a hundred in each.
fn random(target: Target, seed: u64) -> Seen {
    let operations: u64 = std::env::var("VARIA_COUNT").map_or(15_000, |text| text.parse().unwrap());
    let count = operations / 100;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Seen::default();
    for _ in 0..count {
        let len = random.usize(..1500);
        let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        target(&bytes, &mut seen);
    }
    println!("seed {seed}, {count} inputs: {seen:?}");
    assert_eq!(seen.devices.len(), profile::ALL.len(), "every profile");
    seen
}

fn corpus(name: &str, target: Target) -> Seen {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        target(&std::fs::read(entry.unwrap().path()).unwrap(), &mut seen);
    }
    println!("corpus of {name}: {seen:?}");
    assert_eq!(seen.devices.len(), profile::ALL.len(), "every profile");
    seen
}

#[test]
fn random_configuration_accesses_hold_together() {
    let seen = random(exercise::config, 1);
    assert!(seen.done > 10_000 && seen.refused > 10 && seen.resets > 300);
}

#[test]
fn random_region_accesses_hold_together() {
    let seen = random(exercise::regions, 2);
    assert!(seen.done > 5000 && seen.refused > 1000 && seen.resets > 300);
    assert!(seen.memory > 300 && seen.asleep > 100 && seen.only_mapped > 50);
    assert_eq!(seen.layouts.len(), 3, "every layout");
}

#[test]
fn the_corpus_of_configuration_accesses_replays() {
    assert!(corpus("config_access", exercise::config).done > 1000);
}

#[test]
fn the_corpus_of_region_accesses_replays() {
    let seen = corpus("region_access", exercise::regions);
    assert!(seen.memory > 10 && seen.asleep > 0);
}
