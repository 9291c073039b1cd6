//! Kills of the plugin at random points: no device is handed out twice, and no device is bound that
//! has no hold.
//!
//! `./x soak` makes 20 times as many.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use varia_facts::Bdf;
use varia_node::{Listing, Node, Pod};
use varia_silicon::machine::GH200_X4;

use crate::host::{Files, Made, VARIANT, ids, settings};
use crate::played::Killed;

const RESOURCE: &str = "varia.vfio/gh200";
/// Kills of a test.
const KILLS: usize = 50;

/// The kubelet's books: devices of the pods that run.
#[derive(Default)]
struct Books {
    pods: Vec<BTreeSet<Bdf>>,
}

impl Books {
    fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        for (number, devices) in self.pods.iter().enumerate() {
            let pod = Pod {
                namespace: "vms".to_owned(),
                name: number.to_string(),
            };
            listing.extend(devices.iter().map(|bdf| (*bdf, pod.clone())));
        }
        listing
    }

    fn has(&self, bdf: Bdf) -> bool {
        self.pods.iter().any(|devices| devices.contains(&bdf))
    }
}

/// Process of the VM that has a device.
fn pid(gpus: &[Bdf], bdf: Bdf) -> usize {
    let at = gpus.iter().position(|gpu| *gpu == bdf);
    5000 + at.expect("a GPU of the host")
}

/// Device node of a device's group.
fn group_node(files: &Files, bdf: Bdf) -> String {
    let group = fs::read_link(files.function(bdf).join("iommu_group")).unwrap();
    format!("/dev/vfio/{}", group.file_name().unwrap().display())
}

fn bound(node: &mut Node<Made>) -> BTreeSet<Bdf> {
    let gpus = node.machine().gpus();
    let is_bound = |bdf: &Bdf| node.machine().driver(*bdf).as_deref() == Some(VARIANT);
    gpus.into_iter().filter(is_bound).collect()
}

#[test]
fn state_and_binding_agree_after_kills_at_random_points() {
    let times = std::env::var("VARIA_TIMES").map_or(1, |text| text.parse().unwrap());
    let kills: usize = KILLS * times;
    let mut random = fastrand::Rng::with_seed(1000);
    let made = Made::unbound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let torn = files.root.join("saved/node.json.new");
    let mut node = Node::new(made, settings(true)).unwrap();
    let mut books = Books::default();
    let (mut killed, mut given, mut released) = (0, 0, 0);
    let (mut twice, mut halves) = (0, 0);

    let mut now = Duration::ZERO;
    while killed < kills
        || given < kills / 4
        || released < kills / 8
        || twice < kills / 8
        || halves < kills / 16
    {
        now += Duration::from_secs(random.u64(0..20));
        node.machine().played.kill_at(random.usize(0..16));
        let result = if random.bool() {
            let free: Vec<Bdf> = gpus
                .iter()
                .copied()
                .filter(|bdf| !books.has(*bdf))
                .collect();
            let count = random.usize(1..3).min(free.len());
            let mut wanted: Vec<Bdf> = random.choose_multiple(free, count);
            // a kubelet that lost its books asks for a device that a pod has
            let others: Vec<Bdf> = books.pods.iter().flatten().copied().collect();
            let other = random.choice(others).filter(|_| random.bool());
            wanted.extend(other);
            let answer = Killed::catch(|| node.allocate(RESOURCE, &[ids(&wanted)]).is_ok());
            if let Some(other) = other {
                assert_ne!(answer, Some(true), "{other} is handed out twice");
                twice += usize::from(answer == Some(false));
            } else if answer == Some(true) && !wanted.is_empty() {
                for bdf in &wanted {
                    files.use_by(pid(&gpus, *bdf), Some(&group_node(&files, *bdf)));
                }
                books.pods.push(wanted.into_iter().collect());
                given += 1;
            }
            answer
        } else {
            if !books.pods.is_empty() && random.bool() {
                let ended = random.usize(0..books.pods.len());
                for bdf in books.pods.remove(ended) {
                    files.use_by(pid(&gpus, bdf), None);
                }
            }
            let listing = books.listing();
            let answer = Killed::catch(|| node.follow(&listing, now));
            released += usize::from(answer == Some(true));
            answer
        };
        node.machine().played.kill_never();
        if result.is_none() {
            killed += 1;
            halves += usize::from(torn.exists());
            node = Node::new(node.into_machine(), settings(true)).unwrap();
        }
        // what the kubelet gave away is bound and held, and nothing is bound without a hold
        let bound = bound(&mut node);
        let held: BTreeSet<Bdf> = node.holds().devices.keys().copied().collect();
        for bdf in &gpus {
            let (is_bound, is_held) = (bound.contains(bdf), held.contains(bdf));
            assert!(!books.has(*bdf) || (is_bound && is_held), "{bdf} was lost");
            assert!(!is_bound || is_held, "{bdf} is bound and forgotten");
        }
    }
    // all pods end
    for bdf in books.pods.drain(..).flatten() {
        files.use_by(pid(&gpus, bdf), None);
    }
    node.follow(&Listing::new(), now);
    now += Duration::from_secs(30);
    node.follow(&Listing::new(), now);
    assert!(bound(&mut node).is_empty());
    assert!(node.holds().devices.is_empty());
    println!(
        "result: {killed} kills, {halves} of them in a save, {given} allocations, {released} \
         releases, {twice} refusals of devices that pods have"
    );
}
