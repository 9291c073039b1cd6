//! Each deliberate fault in the decisions is caught by a test of `variant`, `variants` or `core`.

mod table;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use varia_mutants::{Copy, Error, Mutant, Verdict};

/// A run of the tests tries one fault of this many.
const SHARE: usize = 4;

/// Who builds in the first copy.
static FIRST: Mutex<()> = Mutex::new(());

fn copy(number: usize) -> Copy {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutants-{number}"));
    Copy::new(&workspace(), &folder).unwrap()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One fault of [`SHARE`], of each file about as many: another share after a change of the crates
/// that decide.
fn sample(mutants: &[Mutant]) -> Vec<Mutant> {
    let seed = varia_mutants::seed(&workspace()).unwrap();
    let first = usize::try_from(seed % SHARE as u64).unwrap();
    println!("faults {first}, {}, ... of the table", first + SHARE);
    share(mutants, first)
}

fn share(mutants: &[Mutant], first: usize) -> Vec<Mutant> {
    mutants.iter().copied().skip(first).step_by(SHARE).collect()
}

#[test]
fn each_fault_is_in_a_share_and_the_soak_tries_all() {
    let often = table::often();
    let shares: Vec<_> = (0..SHARE).map(|first| share(&often, first)).collect();
    assert!(shares.iter().all(|share| share.len() > 20), "{shares:#?}");
    let mut shared: Vec<_> = shares.concat().iter().map(|it| it.name).collect();
    let mut names: Vec<_> = often.iter().map(|it| it.name).collect();
    shared.sort_unstable();
    names.sort_unstable();
    assert_eq!(shared, names);
    let all = table::all();
    assert!(
        names
            .iter()
            .all(|name| all.iter().any(|it| it.name == *name))
    );
}

#[test]
fn every_fault_is_caught() {
    let _first = FIRST.lock().unwrap();
    let begin = Instant::now();
    let mutants = match std::env::var_os("VARIA_COUNT") {
        Some(_) => table::all(),
        None => sample(&table::often()),
    };
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    let lanes = thread::available_parallelism().map_or(1, |n| n.get().min(4));
    // each lane builds a copy first, which takes as long as ten faults
    let lanes = lanes.min(mutants.len().div_ceil(50));
    thread::scope(|scope| {
        for lane in 0..lanes {
            let (mutants, next, faults) = (&mutants, &next, &faults);
            scope.spawn(move || {
                let copy = copy(lane);
                let original = copy.judge_original(mutants).unwrap();
                assert_eq!(original, Verdict::Survived, "without a fault all pass");
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match copy.judge_mutant(mutant) {
                        Ok(Verdict::Caught(by)) if !by.is_empty() => {
                            println!("{}: caught by {}", mutant.name, by.join(", "));
                        }
                        other => faults.lock().unwrap().push((mutant.name, other)),
                    }
                }
            });
        }
    });
    println!("{} faults in {:.1?}", mutants.len(), begin.elapsed());
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "not caught by a test: {faults:#?}");
}

#[test]
fn the_faults_have_names_of_their_own() {
    let mutants = table::all();
    let mut names: Vec<_> = mutants.iter().map(|mutant| mutant.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), mutants.len());
}

#[test]
fn a_change_that_is_no_fault_survives_and_one_that_does_not_build_is_an_error() {
    let _first = FIRST.lock().unwrap();
    let copy = copy(0);
    let mutant = |right, wrong| Mutant {
        name: "for this test",
        file: "units/src/address.rs",
        right,
        wrong,
    };
    let harmless = mutant(
        "if shift >= 12 && shift <= 16",
        "if shift > 11 && shift < 17",
    );
    assert_eq!(copy.judge_mutant(&harmless).unwrap(), Verdict::Survived);
    let nonsense = mutant("if shift >= 12 && shift <= 16", "if shift is good");
    let error = copy.judge_mutant(&nonsense).unwrap_err();
    assert!(matches!(error, Error::DoesNotBuild { .. }), "{error}");
    for (text, times) in [("shift is good", 0), ("pub const fn ", 8)] {
        match copy.judge_mutant(&mutant(text, "")) {
            Err(Error::NotOnce { found, .. }) => assert_eq!(found > 1, times > 1),
            other => panic!("{other:?}"),
        }
    }
}
