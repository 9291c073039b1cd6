//! The decoder and the server on arbitrary bytes: the fuzz target's
//! corpus, and seeded random messages.

mod exercise;

use std::path::Path;
use std::thread;

use exercise::exercise;
use varia_spec::errno::Errno;
use varia_spec::vfio::{DeviceInfo, IrqInfo, SparseArea};
use varia_sys::socket::Stream;
use varia_vfio_user::backend::{
    Backend, DmaRegion, IrqSet, OfferedRegion, Progress, ReceivedIrqData, RegionInfo,
};
use varia_vfio_user::client::Client;
use varia_vfio_user::command::Command;
use varia_vfio_user::server::Server;

/// The messages of the corpus, each with its file's name.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/vfio_user_decode");
    let files = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut corpus: Vec<_> = files
        .map(|f| (f.display().to_string(), std::fs::read(&f).unwrap()))
        .collect();
    corpus.sort();
    corpus
}

#[test]
fn the_corpus_has_a_message_of_each_command_and_all_replay() {
    let corpus = corpus();
    for (name, bytes) in &corpus {
        println!("{name}");
        exercise(bytes);
    }
    for number in 1..=18 {
        let command = Command(number);
        let found = corpus
            .iter()
            .any(|(_, b)| b.get(2..4) == Some(&number.to_ne_bytes()[..]));
        assert!(found, "{command} is not in the corpus");
    }
}

#[test]
fn mutated_messages_are_decoded_or_refused_without_a_panic() {
    let mut rng = fastrand::Rng::with_seed(1);
    let corpus = corpus();
    for _ in 0..200_000 {
        let (_, seed) = &corpus[rng.usize(..corpus.len())];
        let mut bytes = seed.clone();
        for _ in 0..rng.usize(1..6) {
            mutate(&mut bytes, &mut rng);
        }
        exercise(&bytes);
    }
}

#[test]
fn random_bytes_are_decoded_or_refused_without_a_panic() {
    let mut rng = fastrand::Rng::with_seed(2);
    for _ in 0..100_000 {
        let bytes: Vec<u8> = (0..rng.usize(..200)).map(|_| rng.u8(..)).collect();
        exercise(&bytes);
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    const WORDS: [u32; 8] = [0, 1, 15, 16, 0xff, 1 << 20, i32::MAX as u32, u32::MAX];
    let at = rng.usize(..=bytes.len());
    match rng.u8(..6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.u8(..)),
        2 => bytes.extend_from_within(at..),
        3 => {
            let word = WORDS[rng.usize(..WORDS.len())].to_ne_bytes();
            bytes.splice(at..bytes.len().min(at + 4), word);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
    }
}

/// A device that answers anything, and checks what the server promised it.
struct Checked;

impl Backend for Checked {
    type Wait = ();
    fn arrived(&self) {}
    fn info(&self) -> DeviceInfo {
        DeviceInfo {
            flags: 3,
            num_regions: 9,
            num_irqs: 5,
        }
    }
    fn region_info(&self, index: u32) -> Result<OfferedRegion, Errno> {
        assert!(index < 9);
        let areas = (0..u64::from(index)).map(|i| SparseArea {
            offset: i << 12,
            size: 4096,
        });
        Ok(OfferedRegion {
            info: RegionInfo {
                flags: 7,
                size: 1 << 20,
                areas: areas.collect(),
                ..Default::default()
            },
            file: None,
        })
    }
    fn irq_info(&self, index: u32) -> Result<IrqInfo, Errno> {
        assert!(index < 5);
        Ok(IrqInfo {
            flags: 1,
            count: index * 4,
        })
    }
    fn set_irqs(&self, set: IrqSet) -> Result<(), Errno> {
        match set.data {
            ReceivedIrqData::Bool(values) => assert_eq!(values.len(), set.count as usize),
            ReceivedIrqData::Events(events) => assert_eq!(events.len(), set.count as usize),
            ReceivedIrqData::None | ReceivedIrqData::NoEvents => {}
        }
        if set.index >= 5 {
            return Err(Errno::EINVAL);
        }
        let info = self.irq_info(set.index)?;
        info.check_range(set.start, set.count)?;
        assert!(set.start + set.count <= set.index * 4);
        Ok(())
    }
    fn region_read(
        &self,
        region: u32,
        _: u64,
        buf: &mut [u8],
        (): &mut (),
    ) -> Result<Progress, Errno> {
        assert!(region < 9 && buf.len() <= 1 << 20);
        // one more than there is: a backend's mistake stays the backend's
        Ok(Progress::Done(buf.len() + 1))
    }
    fn region_write(
        &self,
        region: u32,
        _: u64,
        data: &[u8],
        (): &mut (),
    ) -> Result<Progress, Errno> {
        assert!(region < 9 && data.len() <= 1 << 20);
        Ok(Progress::Done(data.len() + 1))
    }
    fn dma_map(&self, region: DmaRegion) -> Result<(), Errno> {
        region.addr.checked_add(region.size).ok_or(Errno::EINVAL)?;
        Ok(())
    }
    fn dma_unmap(&self, _: u64, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn dma_unmap_all(&self) {}
    fn reset(&self) -> Result<(), Errno> {
        Ok(())
    }
}

#[test]
fn a_server_answers_each_mutated_message_and_keeps_its_promises() {
    let mut rng = fastrand::Rng::with_seed(3);
    let corpus = corpus();
    let server = Server::new(Checked);
    let (mut done, mut refused) = (0, 0);
    for _ in 0..1000 {
        let (ours, theirs) = Stream::pair().unwrap();
        let mut client = Client::over(ours);
        thread::scope(|s| {
            let serving = s.spawn(|| server.serve_one(theirs));
            client.negotiate().unwrap();
            for _ in 0..20 {
                let (_, seed) = &corpus[rng.usize(..corpus.len())];
                let number = u16::from_ne_bytes([seed[2], seed[3]]);
                let mut payload = seed[16..].to_vec();
                mutate(&mut payload, &mut rng);
                match client.request(Command(number), &payload, &[]) {
                    Ok(_) => done += 1,
                    Err(e) if e.errno().is_some() => refused += 1,
                    Err(e) => panic!("{} was not answered: {e}", Command(number)),
                }
            }
            drop(client);
            serving.join().expect("the server does not panic").unwrap();
        });
    }
    assert_eq!(done + refused, 20_000);
    assert!(done > 1000 && refused > 1000, "{done} done, {refused} not");
}
