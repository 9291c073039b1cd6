//! Allocation, binding and release of devices.

use std::collections::BTreeSet;
use std::time::Duration;

use varia_facts::Bdf;
use varia_node::{Listing, Node, Pod, Readiness};
use varia_silicon::machine::{GB200_NVL4, GH200, GH200_X4};

use crate::host::{Made, VARIANT, ids, node, settings};

const GH: &str = "varia.vfio/gh200";
const GB: &str = "varia.vfio/gb200";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pod() -> Pod {
    Pod {
        namespace: "vms".to_owned(),
        name: "one".to_owned(),
    }
}

fn listing(devices: &[Bdf]) -> Listing {
    devices.iter().map(|bdf| (*bdf, pod())).collect()
}

fn held(node: &Node<Made>) -> Vec<Bdf> {
    node.holds().devices.keys().copied().collect()
}

/// Drivers of all GPUs.
fn drivers(node: &mut Node<Made>) -> BTreeSet<String> {
    let gpus = node.machine().gpus();
    let drivers = gpus.iter().map(|bdf| node.machine().driver(*bdf));
    drivers.map(Option::unwrap_or_default).collect()
}

#[test]
fn a_container_gets_nodes_addresses_and_facts_of_its_devices() {
    let made = Made::bound(&GB200_NVL4);
    let gpus = made.gpus();
    let mut node = node(made, false);
    let answers = node.allocate(GB, &[ids(&gpus[..2])]).unwrap();
    let answer = &answers[0];
    let addresses = &answer.envs["PCI_RESOURCE_VARIA_VFIO_GB200"];
    assert_eq!(addresses, "0009:01:00.0,0019:01:00.0");
    let nodes: Vec<_> = answer
        .devices
        .iter()
        .map(|one| one.host_path.as_str())
        .collect();
    assert_eq!(nodes, ["/dev/vfio/1", "/dev/vfio/3", "/dev/vfio/vfio"]);
    assert!(answer.devices.iter().all(|one| one.permissions == "rw"));
    let facts: serde_json::Value = serde_json::from_str(&answer.envs["VARIA_DEVICES"]).unwrap();
    assert_eq!(facts[1]["bdf"], "0019:01:00.0");
    assert_eq!(facts[1]["nodes"], 8);
    assert_eq!(facts[1]["cpu_node"], 0);
    assert_eq!(facts[1]["bars"]["4"], 256_u64 << 30);
    assert_eq!(facts[1]["node"], "/dev/vfio/3");
}

#[test]
fn a_device_has_a_node_of_its_own_where_there_is_no_container_node() {
    let made = Made::bound(&GH200);
    let (gpus, files) = (made.gpus(), made.files());
    std::fs::remove_file(files.root.join("dev/vfio/vfio")).unwrap();
    let mut node = node(made, false);
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert!(refusal.contains("--access group"), "{refusal}");
    let cdev = files.function(gpus[0]).join("vfio-dev/vfio3");
    std::fs::create_dir_all(cdev).unwrap();
    files.put("dev/vfio/devices/vfio3", "");
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert!(refusal.contains("/dev/iommu does not exist"), "{refusal}");
    assert!(held(&node).is_empty());
    files.put("dev/iommu", "");
    let answers = node.allocate(GH, &[ids(&gpus)]).unwrap();
    let nodes: Vec<_> = answers[0]
        .devices
        .iter()
        .map(|one| &one.host_path)
        .collect();
    assert_eq!(nodes, ["/dev/iommu", "/dev/vfio/devices/vfio3"]);
}

#[test]
fn a_driver_is_bound_on_demand_and_restored_after_the_delay() {
    let made = Made::unbound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let mut node = node(made, true);
    assert!(node.devices(GH).iter().all(|one| one.health == "Healthy"));
    node.allocate(GH, &[ids(&gpus[..1]), ids(&gpus[1..2])])
        .unwrap();
    let bound = |node: &mut Node<Made>, bdf| node.machine().driver(bdf);
    assert_eq!(bound(&mut node, gpus[0]).as_deref(), Some(VARIANT));
    assert_eq!(bound(&mut node, gpus[1]).as_deref(), Some(VARIANT));
    assert_eq!(bound(&mut node, gpus[2]).as_deref(), Some("nvidia"));
    // the pod is listed late, and later it is gone
    assert!(!node.follow(&Listing::new(), at(29)));
    assert!(!node.follow(&listing(&gpus[..2]), at(29)));
    assert_eq!(node.holds().devices[&gpus[0]].pod, Some(pod()));
    assert!(!node.follow(&Listing::new(), at(58)), "29 s after");
    files.open(Some("/dev/vfio/1"));
    assert!(node.follow(&Listing::new(), at(59)), "the second one");
    assert_eq!(held(&node), gpus[..1], "the first one is open");
    assert_eq!(bound(&mut node, gpus[1]).as_deref(), Some("nvidia"));
    files.open(None);
    assert!(
        !node.follow(&Listing::new(), at(60)),
        "the next try is later"
    );
    assert!(node.follow(&Listing::new(), at(89)));
    assert!(held(&node).is_empty());
    assert_eq!(drivers(&mut node), BTreeSet::from(["nvidia".to_owned()]));
}

#[test]
fn a_driver_that_was_bound_before_stays_bound() {
    let made = Made::bound(&GH200);
    let gpus = made.gpus();
    let mut node = node(made, true);
    node.allocate(GH, &[ids(&gpus)]).unwrap();
    assert!(
        !node.follow(&Listing::new(), at(30)),
        "listed at no earlier time"
    );
    assert!(node.follow(&Listing::new(), at(60)));
    assert_eq!(drivers(&mut node), BTreeSet::from([VARIANT.to_owned()]));
}

#[test]
fn a_time_without_listings_does_not_count_for_a_release() {
    let made = Made::bound(&GH200);
    let gpus = made.gpus();
    let mut node = node(made, true);
    node.allocate(GH, &[ids(&gpus)]).unwrap();
    node.follow(&listing(&gpus), at(1));
    // the kubelet is away, and does not know the pod again at once
    node.unlisted();
    assert!(!node.follow(&Listing::new(), at(100)));
    assert!(!node.follow(&Listing::new(), at(129)));
    assert_eq!(held(&node), gpus);
    node.unlisted();
    assert!(!node.follow(&Listing::new(), at(131)));
    // the listing of a pod begins the delay anew, and so does an allocation
    node.follow(&listing(&gpus), at(150));
    assert!(!node.follow(&Listing::new(), at(179)));
    node.allocate(GH, &[ids(&gpus)]).unwrap();
    assert!(!node.follow(&Listing::new(), at(181)));
    assert!(node.follow(&Listing::new(), at(211)));
    assert!(node.metrics().contains("varia_node_unlisted_total 2\n"));
}

#[test]
fn all_devices_are_bound_or_none() {
    let mut made = Made::unbound(&GH200_X4);
    let gpus = made.gpus();
    made.played.refuse(VARIANT, gpus[2]);
    let mut node = node(made, true);
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert!(refusal.contains("refuses 0029:01:00.0"), "{refusal}");
    assert!(held(&node).is_empty());
    assert_eq!(drivers(&mut node), BTreeSet::from(["nvidia".to_owned()]));
}

#[test]
fn a_gpu_never_gets_plain_vfio_pci() {
    let mut made = Made::unbound(&GH200);
    let (gpus, files) = (made.gpus(), made.files());
    made.played.uninstall(VARIANT);
    std::fs::remove_dir(files.root.join("sys/bus/pci/drivers").join(VARIANT)).unwrap();
    let modules = "lib/modules/6.17.9-64k";
    files.put(
        &format!("{modules}/modules.alias"),
        "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n",
    );
    files.put(
        &format!("{modules}/modules.dep"),
        "kernel/drivers/vfio-pci.ko:\n",
    );
    let mut node = node(made, true);
    assert_eq!(node.devices(GH)[0].health, "Unhealthy");
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert!(
        refusal.contains("needs the driver nvgrace_gpu_vfio_pci"),
        "{refusal}"
    );
    // and where another program bound it, it is not handed out
    files.bind(gpus[0], "vfio-pci");
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert!(refusal.contains("can't be given to a VM"), "{refusal}");
    assert_eq!(drivers(&mut node), BTreeSet::from(["vfio-pci".to_owned()]));
}

#[test]
fn a_group_of_two_gpus_has_one_user() {
    let mut made = Made::unbound(&GH200_X4);
    let gpus = made.gpus();
    made.played.join_group(gpus[0], &gpus[1].to_string());
    let mut node = node(made, true);
    node.allocate(GH, &[ids(&gpus[..1])]).unwrap();
    assert_eq!(
        node.machine().driver(gpus[1]).as_deref(),
        Some(VARIANT),
        "bound with it"
    );
    let health: Vec<_> = node.devices(GH).into_iter().map(|one| one.health).collect();
    assert_eq!(health, ["Healthy", "Unhealthy", "Healthy", "Healthy"]);
    let refusal = node.allocate(GH, &[ids(&gpus[1..2])]).unwrap_err();
    assert!(refusal.contains("a pod that is starting has"), "{refusal}");
    node.follow(&Listing::new(), at(0));
    assert!(node.follow(&Listing::new(), at(30)));
    assert_eq!(drivers(&mut node), BTreeSet::from(["nvidia".to_owned()]));
}

#[test]
fn a_name_of_a_pod_that_could_not_be_saved_is_saved_later() {
    let made = Made::bound(&GH200);
    let gpus = made.gpus();
    let mut node = node(made, true);
    node.allocate(GH, &[ids(&gpus)]).unwrap();
    node.machine().played.fill_disk(true);
    node.follow(&listing(&gpus), at(0));
    node.machine().played.fill_disk(false);
    node.follow(&listing(&gpus), at(1));
    let started = Node::new(node.into_machine(), settings(true)).unwrap();
    assert_eq!(started.holds().devices[&gpus[0]].pod, Some(pod()));
}

#[test]
fn a_gpu_that_is_gone_is_left_out_of_the_preferred_set() {
    let made = Made::bound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let mut node = node(made, false);
    files.is_there(gpus[0], false);
    node.refresh().unwrap();
    let preferred = node.preferred(&ids(&gpus), &ids(&gpus[2..3]), 3).unwrap();
    assert_eq!(preferred, ids(&gpus[1..]));
    let refusal = node
        .preferred(&ids(&gpus), &ids(&gpus[..1]), 1)
        .unwrap_err();
    assert!(refusal.contains("0009:01:00.0"), "{refusal}");
    let refusal = node.preferred(&ids(&gpus), &[], 4).unwrap_err();
    assert!(!refusal.is_empty());
}

#[test]
fn nothing_is_handed_out_or_released_while_users_are_not_seen() {
    let made = Made::unbound(&GH200);
    let gpus = made.gpus();
    let mut node = node(made, true);
    let unseen = "the open files of process 9 can't be read";
    node.machine().unseen = Some(unseen.to_owned());
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert_eq!(refusal, unseen);
    assert!(held(&node).is_empty());
    assert_eq!(
        node.readiness(gpus[0]),
        Readiness::Unknown(unseen.to_owned())
    );
    node.machine().unseen = None;
    node.allocate(GH, &[ids(&gpus)]).unwrap();
    node.machine().unseen = Some(unseen.to_owned());
    node.follow(&Listing::new(), at(0));
    assert!(!node.follow(&Listing::new(), at(30)));
    assert_eq!(held(&node), gpus);
    node.machine().unseen = None;
    assert!(node.follow(&Listing::new(), at(60)));
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let made = Made::unbound(&GH200);
    let gpus = made.gpus();
    let mut node = node(made, true);
    node.machine().played.fill_disk(true);
    let refusal = node.allocate(GH, &[ids(&gpus)]).unwrap_err();
    assert!(refusal.contains("free some space"), "{refusal}");
    assert_eq!(drivers(&mut node), BTreeSet::from(["nvidia".to_owned()]));
    node.machine().played.fill_disk(false);
    node.allocate(GH, &[ids(&gpus)]).unwrap();
    // a release that can't be saved is tried again
    node.follow(&Listing::new(), at(0));
    node.machine().played.fill_disk(true);
    assert!(!node.follow(&Listing::new(), at(30)));
    assert_eq!(held(&node), gpus);
    node.machine().played.fill_disk(false);
    assert!(node.follow(&Listing::new(), at(60)));
    assert_eq!(drivers(&mut node), BTreeSet::from(["nvidia".to_owned()]));
    let started = Node::new(node.into_machine(), settings(true)).unwrap();
    assert!(held(&started).is_empty());
}

#[test]
fn holds_last_for_the_boot_and_no_longer() {
    let made = Made::unbound(&GH200_X4);
    let gpus = made.gpus();
    let mut first = node(made, true);
    first.allocate(GH, &[ids(&gpus[..2])]).unwrap();
    first.follow(&listing(&gpus[..2]), at(1));
    let mut second = Node::new(first.into_machine(), settings(true)).unwrap();
    assert_eq!(held(&second), gpus[..2]);
    assert_eq!(second.holds().devices[&gpus[1]].pod, Some(pod()));
    assert!(
        !second.follow(&Listing::new(), at(29)),
        "the delay begins anew"
    );
    second.machine().played.set(gpus[0], Some("nvidia"), None);
    second.machine().played.set(gpus[1], Some("nvidia"), None);
    let files = second.machine().files();
    files.put("proc/sys/kernel/random/boot_id", "second\n");
    let mut third = Node::new(second.into_machine(), settings(true)).unwrap();
    assert!(held(&third).is_empty());
    // the kubelet starts its pods again without a new allocation
    assert_eq!(third.start(GH, &ids(&gpus[..2])).unwrap(), gpus[..2]);
    assert_eq!(third.machine().driver(gpus[1]).as_deref(), Some(VARIANT));
    assert_eq!(held(&third), gpus[..2]);
}

#[test]
fn a_device_that_a_pod_has_without_a_record_is_adopted() {
    let made = Made::bound(&GH200_X4);
    let gpus = made.gpus();
    let mut node = node(made, false);
    node.follow(&listing(&gpus[..1]), at(0));
    assert_eq!(held(&node), gpus[..1]);
    assert_eq!(node.holds().devices[&gpus[0]].pod, Some(pod()));
}

#[test]
fn a_spoilt_state_is_told_with_its_file_and_never_overwritten() {
    for text in [
        "",
        "{",
        "[]",
        "{\"schema\":\"varia-node/9\",\"boot\":\"\",\"devices\":{}}",
    ] {
        let made = Made::bound(&GH200);
        let file = made.played.saved_folder().join("node.json");
        std::fs::write(&file, text).unwrap();
        let error = Node::new(made, settings(true)).err().unwrap();
        assert!(error.contains("node.json is damaged"), "{error}");
    }
}

#[test]
fn requests_that_no_kubelet_makes_are_refused_with_a_sentence() {
    let made = Made::bound(&GB200_NVL4);
    let (gpus, files) = (ids(&made.gpus()), made.files());
    let mut node = node(made, false);
    let one = |id: &str| vec![vec![id.to_owned()]];
    for (resource, containers, part) in [
        (GB, one("gpu0"), "is not an address of a GPU"),
        (GB, one(""), "is not an address of a GPU"),
        (GB, one(&"9".repeat(5000)), "is not an address of a GPU"),
        (GB, one("00f9:01:00.0"), "is not a GPU of this host"),
        (GH, one(&gpus[0]), "not a device of varia.vfio/gh200"),
        (GB, vec![vec![gpus[0].clone(); 2]], "in the request twice"),
    ] {
        let refusal = node.allocate(resource, &containers).unwrap_err();
        assert!(refusal.contains(part) && refusal.len() < 400, "{refusal}");
    }
    files.open(Some("/dev/vfio/1"));
    let refusal = node.allocate(GB, &one(&gpus[0])).unwrap_err();
    assert!(
        refusal.contains("in use by process 4711 (qemu)"),
        "{refusal}"
    );
    assert!(held(&node).is_empty());
    let metrics = node.metrics();
    let refused =
        "varia_node_allocations_total{resource=\"varia.vfio/gb200\",result=\"refused\"} 6";
    assert!(metrics.contains(refused), "{metrics}");
}
