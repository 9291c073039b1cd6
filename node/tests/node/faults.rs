//! Faults of a host: the health that the kubelet is told, and what is logged and counted of it.

use std::time::Duration;

use varia_facts::Bdf;
use varia_node::{Listing, Node, Pod, Readiness};
use varia_silicon::Machine;
use varia_silicon::machine::{GB200_NVL4, GH200, GH200_X4};

use crate::host::{Files, Made, VARIANT, ids, node};

/// Health of each GPU, by address.
fn health(node: &Node<Made>) -> String {
    let resources = node.resources();
    let devices = resources.iter().flat_map(|resource| node.devices(resource));
    let health = devices.map(|device| if device.health == "Healthy" { '+' } else { '-' });
    health.collect()
}

#[test]
fn hosts_are_offered_with_the_nearest_cpus() {
    for (machine, resource, nodes) in [
        (&GH200, "varia.vfio/gh200", vec![0]),
        (&GH200_X4, "varia.vfio/gh200", vec![0, 1, 2, 3]),
        (&GB200_NVL4, "varia.vfio/gb200", vec![0, 0, 1, 1]),
    ] {
        let made = Made::bound(machine);
        let gpus = ids(&made.gpus());
        let node = node(made, false);
        assert_eq!(node.resources().into_iter().collect::<Vec<_>>(), [resource]);
        let devices = node.devices(resource);
        let listed: Vec<_> = devices.iter().map(|device| device.id.clone()).collect();
        assert_eq!(listed, gpus);
        let hints = devices
            .iter()
            .map(|device| device.topology.as_ref().unwrap());
        let hints: Vec<_> = hints
            .map(|hint| hint.nodes.iter().map(|node| node.id).collect::<Vec<_>>())
            .collect();
        let expected: Vec<_> = nodes.into_iter().map(|node: i64| vec![node]).collect();
        assert_eq!(hints, expected);
        assert!(health(&node).chars().all(|one| one == '+'));
    }
}

#[test]
fn acpi_tables_are_read_in_another_place() {
    let made = Made::bound(&GH200);
    let root = made.files().root;
    let (hidden, tables) = (root.join("sys/firmware/acpi/tables"), root.join("run/acpi"));
    std::fs::create_dir_all(root.join("run")).unwrap();
    std::fs::rename(&hidden, &tables).unwrap();
    // as a runtime masks it: an empty directory
    std::fs::create_dir_all(hidden).unwrap();
    let health = |tables| {
        let live = varia_node::Live::new(Some(&root), tables, &root.join("state")).unwrap();
        let node = varia_node::Node::new(live, crate::host::settings(false)).unwrap();
        node.devices("varia.vfio/gh200")[0].health.clone()
    };
    assert_eq!(health(None), "Unhealthy");
    assert_eq!(health(Some(tables.as_path())), "Healthy");
}

#[test]
fn without_a_node_with_cpus_there_is_no_hint_at_all() {
    let made = Made::bound(&GH200);
    let files = made.files();
    for node in 0..9 {
        files.put(&format!("sys/devices/system/node/node{node}/cpulist"), "\n");
    }
    let node = node(made, false);
    assert_eq!(node.devices("varia.vfio/gh200")[0].topology, None);
}

#[test]
fn each_fault_takes_its_gpu_away_and_its_end_brings_it_back() {
    type Change = fn(&Files, Bdf, bool);
    let faults: [(&str, Change); 6] = [
        ("driver", |files, bdf, is_on| {
            files.bind(bdf, if is_on { "nvidia" } else { VARIANT });
        }),
        ("readiness", |files, bdf, is_on| files.ready(bdf, !is_on)),
        ("errors", |files, bdf, is_on| {
            let folder = format!("sys/bus/pci/devices/{bdf}");
            let count = u32::from(is_on);
            files.put(
                &format!("{folder}/aer_dev_fatal"),
                &format!("TOTAL_ERR_FATAL {count}\n"),
            );
            files.put(
                &format!("{folder}/aer_dev_nonfatal"),
                "TOTAL_ERR_NONFATAL 0\n",
            );
        }),
        ("errors", |files, bdf, is_on| {
            let text = if is_on {
                "0x420000000000 1 pages\n"
            } else {
                ""
            };
            files.put(&format!("sys/kernel/debug/{VARIANT}/{bdf}/poison"), text);
        }),
        ("regions", |files, bdf, is_on| {
            let path = files.function(bdf).join("resource");
            let text = std::fs::read_to_string(&path).unwrap();
            let (first, rest) = text.split_once('\n').unwrap();
            let numbers: Vec<_> = first.split(' ').collect();
            // IORESOURCE_UNSET
            let flags = u64::from_str_radix(&numbers[2][2..], 16).unwrap();
            let flags = if is_on {
                flags | 0x2000_0000
            } else {
                flags & !0x2000_0000
            };
            let first = format!("{} {} {flags:#018x}", numbers[0], numbers[1]);
            std::fs::write(path, format!("{first}\n{rest}")).unwrap();
        }),
        ("group", |files, bdf, is_on| {
            let (link, kept) = ("iommu_group", "kept_group");
            let (from, to) = if is_on { (link, kept) } else { (kept, link) };
            let folder = files.function(bdf);
            std::fs::rename(folder.join(from), folder.join(to)).unwrap();
        }),
    ];
    for machine in [&GH200_X4, &GB200_NVL4] {
        for (reason, fault) in faults {
            let made = Made::bound(machine);
            let (gpus, files) = (made.gpus(), made.files());
            if reason == "errors" {
                fault(&files, gpus[1], false);
            }
            let mut node = node(made, false);
            assert!(!node.refresh().unwrap(), "nothing changed");
            fault(&files, gpus[1], true);
            assert!(node.refresh().unwrap());
            assert_eq!(health(&node), "+-++", "{reason}");
            let line = format!(
                "varia_node_unhealthy{{device=\"{}\",reason=\"{reason}\"",
                gpus[1]
            );
            let metrics = node.metrics();
            assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
            fault(&files, gpus[1], false);
            assert!(node.refresh().unwrap());
            assert_eq!(health(&node), "++++", "{reason}");
        }
    }
}

#[test]
fn errors_count_from_0_when_a_gpu_is_found_anew() {
    let made = Made::bound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let count = |fatal: u32| {
        let folder = format!("sys/bus/pci/devices/{}", gpus[1]);
        let fatal = format!("TOTAL_ERR_FATAL {fatal}\n");
        files.put(&format!("{folder}/aer_dev_fatal"), &fatal);
        files.put(
            &format!("{folder}/aer_dev_nonfatal"),
            "TOTAL_ERR_NONFATAL 0\n",
        );
    };
    count(5);
    let mut node = node(made, false);
    let mut health_at = |fatal: u32| {
        count(fatal);
        node.refresh().unwrap();
        health(&node)
    };
    // the errors before the start are no fault, and those after a removal that nobody saw are
    assert_eq!([5, 3, 0].map(&mut health_at), ["++++", "+-++", "++++"]);
    assert_eq!(health_at(1), "+-++");
    // a removal that was seen begins a new baseline
    files.is_there(gpus[1], false);
    node.refresh().unwrap();
    files.is_there(gpus[1], true);
    node.refresh().unwrap();
    assert_eq!(health(&node), "++++");
}

#[test]
fn a_fault_of_a_gpu_in_use_names_the_pod() {
    let made = Made::bound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let mut node = node(made, false);
    let pod = Pod {
        namespace: "vms".to_owned(),
        name: "a\"b".to_owned(),
    };
    node.follow(&Listing::from([(gpus[2], pod)]), Duration::ZERO);
    files.put(
        &format!("sys/kernel/debug/{VARIANT}/{}/poison", gpus[2]),
        "one\n",
    );
    node.refresh().unwrap();
    let line = "varia_node_unhealthy{device=\"0029:01:00.0\",reason=\"errors\",\
                namespace=\"vms\",pod=\"a\\\"b\"} 1\n";
    let metrics = node.metrics();
    assert!(metrics.contains(line), "{metrics}");
    let states = "varia_node_devices{resource=\"varia.vfio/gh200\",state=\"healthy\"} 3\n";
    assert!(metrics.contains(states), "{metrics}");
}

#[test]
fn registers_of_a_gpu_that_sleeps_or_is_in_use_are_not_read() {
    let made = Made::bound(&GH200);
    let (gpus, files) = (made.gpus(), made.files());
    files.ready(gpus[0], false);
    let power = format!("sys/bus/pci/devices/{}/power_state", gpus[0]);
    files.put(&power, "D3hot\n");
    let mut node = node(made, false);
    assert_eq!(health(&node), "+", "asleep");
    files.put(&power, "D0\n");
    node.refresh().unwrap();
    assert_eq!(health(&node), "-", "awake");
    files.open(Some("/dev/vfio/1"));
    node.refresh().unwrap();
    assert_eq!(health(&node), "+", "in use");
    assert!(matches!(node.readiness(gpus[0]), Readiness::Unknown(_)));
    files.open(None);
    assert_eq!(node.readiness(gpus[0]), Readiness::NotReady);
    files.ready(gpus[0], true);
    assert_eq!(node.readiness(gpus[0]), Readiness::Ready);
}

#[test]
fn a_device_that_vanishes_between_allocation_and_start_is_not_started() {
    let made = Made::unbound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let mut node = node(made, true);
    let resource = "varia.vfio/gh200";
    node.allocate(resource, &[ids(&gpus[..1])]).unwrap();
    files.is_there(gpus[0], false);
    let refusal = node.start(resource, &ids(&gpus[..1]));
    assert!(refusal.unwrap_err().contains("is not a GPU of this host"));
    assert_eq!(health(&node), "+++");
    // it is released without it
    node.follow(&Listing::new(), Duration::ZERO);
    assert!(node.follow(&Listing::new(), Duration::from_secs(30)));
    assert!(node.holds().devices.is_empty());
    files.is_there(gpus[0], true);
    node.refresh().unwrap();
    assert_eq!(health(&node), "++++");
}

#[test]
fn a_gpu_is_awake_while_it_starts_and_one_that_is_kept_awake_stays_so() {
    let made = Made::bound(&GH200_X4);
    let (gpus, files) = (made.gpus(), made.files());
    let mut node = node(made, false);
    let control = |bdf: Bdf| files.function(bdf).join("power/control");
    for (bdf, text) in [(gpus[0], "auto\n"), (gpus[1], "on\n")] {
        std::fs::create_dir(files.function(bdf).join("power")).unwrap();
        std::fs::write(control(bdf), text).unwrap();
    }
    let read = |bdf: Bdf| std::fs::read_to_string(control(bdf)).unwrap();
    let read = || [read(gpus[0]), read(gpus[1])].map(|text| text.trim().to_owned());
    let resource = "varia.vfio/gh200";
    let started = node.start(resource, &ids(&gpus[..3])).unwrap();
    assert_eq!(read(), ["on", "on"]);
    node.started(&started);
    assert_eq!(read(), ["auto", "on"]);
}

#[test]
fn egm_goes_along_with_all_gpus_of_its_socket() {
    let made = Made::bound(&GB200_NVL4);
    let (gpus, files) = (made.gpus(), made.files());
    for (pxm, pair) in [(0, 0), (1, 2)] {
        let class = format!("sys/class/egm/egm{pxm}");
        files.put(
            &format!("{class}/gpu_devices"),
            &format!("{} {}\n", gpus[pair], gpus[pair + 1]),
        );
        files.put(&format!("{class}/egm_size"), "0x1000000000\n");
        files.put(&format!("dev/egm{pxm}"), "");
    }
    let mut node = node(made, false);
    let mut nodes = |devices: &[Bdf]| {
        let answers = node.allocate("varia.vfio/gb200", &[ids(devices)]);
        let devices = answers.unwrap().remove(0).devices.into_iter();
        let nodes = devices.map(|one| one.host_path);
        nodes
            .filter(|node| node.contains("egm"))
            .collect::<Vec<_>>()
    };
    assert_eq!(nodes(&gpus[2..]), ["/dev/egm1"]);
    assert_eq!(nodes(&gpus[1..3]), [""; 0]);
    assert_eq!(nodes(&gpus), ["/dev/egm0", "/dev/egm1"]);
}

#[test]
fn seventy_two_gpus_are_offered_and_a_host_without_any_offers_nothing() {
    let machine = Machine {
        sockets: 36,
        ..GB200_NVL4
    };
    let node = node(Made::bound(&machine), false);
    assert_eq!(health(&node), "+".repeat(72));
    let ids: Vec<_> = node.devices("varia.vfio/gb200");
    let all: Vec<_> = ids.iter().map(|device| device.id.clone()).collect();
    assert_eq!(node.preferred(&all[1..], &[], 2).unwrap(), all[2..4]);
    assert!(ids.iter().all(|device| device.id.len() <= 63));
    let none = self::node(Made::unbound(&varia_silicon::machine::NONE), false);
    assert!(none.resources().is_empty());
}
