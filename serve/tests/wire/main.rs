//! Several clients of one server: the fuzz target's corpus, and seeded random acts.

mod clients;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use clients::{Seen, wire};

/// Random inputs of up to a hundred acts.
const INPUTS: u32 = 40;

/// Panics in any thread: those of a client's thread end in the server's log.
static PANICS: AtomicU32 = AtomicU32::new(0);

// one test, because the descriptors of the process are counted
#[test]
fn a_server_of_hostile_clients_with_dma_serves_the_next_one() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(panic);
    }));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/vfio_user_wire");
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        wire(&std::fs::read(path).unwrap(), &mut seen);
    }
    println!("corpus: {seen:?}");
    assert!(seen.replies > 50 && seen.refused > 5 && seen.ended > 1);
    assert!(seen.dma > 4 && seen.twins > 0);
    let operations = std::env::var("VARIA_COUNT").map(|text| text.parse::<u32>().unwrap());
    let count = operations.map_or(INPUTS, |operations| operations / 1000);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..count {
        let len = random.usize(..600);
        let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        wire(&bytes, &mut seen);
    }
    println!("and {count} random inputs: {seen:?}");
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a thread panicked");
}
