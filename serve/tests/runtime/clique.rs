//! A GPUDirect clique in the configuration space of every GPU, beside the same GPU without one.

use varia_serve::{Endpoint, Options};
use varia_silicon::{Profile, Silicon, profile};
use varia_spec::Errno;
use varia_spec::vfio::RegionIndex;
use varia_variant::MemoryLayout;

fn serve(
    profile: &Profile,
    layout: MemoryLayout,
    gpudirect_clique: Option<u32>,
) -> Result<Endpoint, varia_serve::Error> {
    let memory = profile.coherent.map(|_| 3 << 29);
    let silicon = varia_silicon::Options {
        memory,
        ..Default::default()
    };
    let silicon = Silicon::new(profile, silicon).unwrap();
    let options = Options {
        layout,
        gpudirect_clique,
        ..Options::default()
    };
    Endpoint::new(std::sync::Arc::new(silicon), options)
}

fn space(endpoint: &Endpoint) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let read = endpoint.read(RegionIndex::CONFIG, 0, &mut bytes);
    assert_eq!(read, Ok(4096));
    bytes
}

/// Offsets of the conventional capabilities.
fn list(space: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = usize::from(space[0x34]);
    while at != 0 {
        found.push(at);
        assert!(found.len() < 48, "it loops: {found:x?}");
        at = usize::from(space[at + 1]);
    }
    found
}

#[test]
fn every_gpu_shows_its_clique_and_nothing_else_changes() {
    let gpus: Vec<_> = profile::every()
        .filter(|profile| profile.vendor_id.value == 0x10de && profile.class.value >> 16 == 3)
        .collect();
    assert!(gpus.len() >= 7);
    for (profile, clique) in gpus.into_iter().zip((0..16_u32).cycle()) {
        for layout in [MemoryLayout::Bar, MemoryLayout::Region] {
            let endpoints = [None, Some(clique)].map(|clique| {
                let endpoint = serve(profile, layout, clique).unwrap();
                endpoint.open().unwrap();
                endpoint
            });
            let [without, with] = &endpoints;
            let check = || {
                let [without, with] = [space(without), space(with)];
                let (before, after) = (list(&without), list(&with));
                let at = *after.last().unwrap();
                assert!(matches!(at, 0xc8 | 0xd4), "{}", profile.name);
                assert_eq!(after[..before.len()], before, "{}", profile.name);
                assert_eq!(after.len(), before.len() + 1);
                let capability = [9, 0, 8, b'P', b'2', b'P', (clique << 3) as u8, 0];
                assert_eq!(with[at..at + 8], capability);
                let pointer = before.last().unwrap() + 1;
                for place in (0..4096).filter(|place| *place != pointer) {
                    let own = (at..at + 8).contains(&place);
                    assert!(own || with[place] == without[place], "{place:#x}");
                }
            };
            check();
            for endpoint in &endpoints {
                let everywhere = [0xa5; 0xc0];
                let written = endpoint.write(RegionIndex::CONFIG, 0x40, &everywhere);
                assert_eq!(written, Ok(0xc0));
            }
            check();
            for endpoint in &endpoints {
                endpoint.reset().unwrap();
            }
            check();
        }
    }
}

#[test]
fn other_devices_and_numbers_are_refused() {
    let refused = |name: &str, clique| {
        let profile = profile::find(name).unwrap();
        let error = serve(profile, MemoryLayout::Bar, Some(clique))
            .err()
            .unwrap();
        assert_eq!(error.errno(), Errno::EINVAL);
        error.to_string()
    };
    for (text, part) in [
        (
            refused("gh200", 16),
            "16 is no GPUDirect clique: give a number from 0 to 15",
        ),
        (refused("nic", 1), "is no GPU of NVIDIA's"),
        (refused("virtio-net", 1), "is no GPU of NVIDIA's"),
    ] {
        assert!(text.contains(part), "{text}");
    }
}
