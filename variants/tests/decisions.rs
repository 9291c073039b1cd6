//! The decisions of nvgrace_gpu on arbitrary devices and questions: the fuzz
//! target's corpus, and seeded random bytes.

mod exercise;

use std::path::Path;

use exercise::{Seen, exercise};

/// A small generator, so that the variants' tests depend on nothing (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[test]
fn random_questions_get_answers_that_hold_together() {
    let mut random = Random(1);
    let mut seen = Seen::default();
    for _ in 0..4000 {
        let bytes: Vec<u8> = (0..256).flat_map(|_| random.next().to_le_bytes()).collect();
        exercise(&bytes, &mut seen);
    }
    // the questions are not all trivial
    let Seen {
        served,
        refused,
        mapped,
        inserted: [small, large],
        clipped,
    } = seen;
    println!("{served} {refused} {mapped} {small} {large} {clipped}");
    assert!(served > 1000 && refused > 500);
    assert!(mapped > 1000 && small > 500 && large > 500 && clipped > 1000);
}

#[test]
fn the_corpus_replays() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/variant_decisions");
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        exercise(&std::fs::read(entry.unwrap().path()).unwrap(), &mut seen);
    }
    assert!(seen.served >= 3 && seen.refused >= 2);
    assert!(seen.mapped > 0 && seen.inserted[1] > 0 && seen.clipped > 0);
}
