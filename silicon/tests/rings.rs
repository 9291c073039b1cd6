//! Arbitrary drivers: the fuzz target's corpus, and seeded random bytes.

mod exercise;

use std::path::Path;

use exercise::{Seen, exercise};

#[test]
fn random_drivers_reach_nothing_but_what_they_gave() {
    let inputs: u32 = std::env::var("VARIA_COUNT").map_or(300, |text| text.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(3);
    let mut seen = Seen::default();
    for _ in 0..inputs {
        let len = random.usize(..1500);
        // a driver starts its queues before it does anything else
        let mut bytes = vec![13, random.u8(..) & !1];
        bytes.extend((0..len).map(|_| random.u8(..)));
        exercise(&bytes, &mut seen);
    }
    println!("seed 3, {inputs} inputs: {seen:?}");
    assert!(seen.moved > 100 && seen.judged > 1000 && seen.interrupts > 100);
}

#[test]
fn the_corpus_replays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/virtio_rings");
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        exercise(&std::fs::read(entry.unwrap().path()).unwrap(), &mut seen);
    }
    println!("{seen:?}");
    assert!(seen.answered > 10 && seen.judged > 10 && seen.interrupts > 10);
}
