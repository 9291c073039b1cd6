//! Commands on a network card, which has no coherent memory and is served all the same.

use rustix::process::Signal;
use varia_spec::vfio::RegionIndex;

use crate::process::{Folder, Serving, ended, varia};

#[test]
fn a_virtio_card_is_shown_with_its_ports() {
    let text = ended(varia(["inspect", "virtio-net"])).success().stdout;
    assert!(text.contains("1af4"), "{text}");
    let json = ended(varia(["inspect", "virtio-net", "--json"])).success();
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["profile"], "virtio-net");
    assert!(json["memory"].is_null(), "{json}");
}

#[test]
fn a_virtio_card_is_served_as_a_transitional_one() {
    let folder = Folder::new();
    let socket = folder.root().join("card.sock");
    let args = ["serve", "virtio-net", "--socket", socket.to_str().unwrap()];
    let serving = Serving::of(varia(args), socket.clone());
    let mut client = serving.client();
    let ports = client.region_info(0).unwrap().info.size;
    assert_eq!(ports, 32, "BAR0 is the legacy interface");
    let mut ids = [0; 4];
    client
        .region_read(RegionIndex::CONFIG.0, 0, &mut ids)
        .unwrap();
    assert_eq!(ids, [0xf4, 0x1a, 0x00, 0x10], "1af4:1000");
    drop(client);
    assert!(serving.end(Signal::TERM).0.success());
}
