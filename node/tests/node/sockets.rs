//! The plugin's process before the stand-in: registration, streams, restarts of either side.

use std::fs;
use std::os::unix::net::UnixListener as Blocking;
use std::time::Duration;

use varia_facts::Bdf;
use varia_node::Settings;
use varia_node::device_plugin_api as api;
use varia_node::pod_resources_api::pod_resources_lister_server::PodResourcesListerServer;
use varia_silicon::Machine;
use varia_silicon::machine::{GB200_NVL4, GH200, GH200_X4};

use crate::host::{Files, Made, VARIANT, ids};
use crate::running::{
    ENDPOINT, GH, Running, folder, free_address, get, healthy, list_until, quick, request, run,
    until_health,
};
use crate::stand_in::{Shared, StandIn, client, pods_socket, until};

#[test]
fn a_pod_goes_through_its_life() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        let made = Made::unbound(&GH200_X4);
        let (gpus, files) = (made.gpus(), made.files());
        let settings = Settings {
            release_after: Duration::ZERO,
            ..quick(&folder, true)
        };
        kubelet.books(|books| {
            // known before it is asked for: nothing is released while it starts
            books.pods = vec![("one".to_owned(), GH.to_owned(), ids(&gpus[2..3]))];
        });
        let running = Running::start(made, settings);
        kubelet.registered(1).await;
        let registration = kubelet.books(|books| books.registrations[0].clone());
        assert_eq!(registration.version, "v1beta1");
        assert_eq!(registration.resource_name, GH);
        assert_eq!(registration.endpoint, ENDPOINT);
        let mut client = client(&folder, ENDPOINT).await;
        let options = client.get_device_plugin_options(api::Empty {}).await;
        let options = options.unwrap().into_inner();
        assert_eq!(Some(&options), registration.options.as_ref());
        assert!(options.pre_start_required && options.get_preferred_allocation_available);
        let stream = client.list_and_watch(api::Empty {}).await;
        let mut stream = stream.unwrap().into_inner();
        list_until(&mut stream, |list| list.len() == 4 && healthy(list) == 4).await;
        let preferred = client
            .get_preferred_allocation(api::PreferredAllocationRequest {
                container_requests: vec![api::ContainerPreferredAllocationRequest {
                    available_device_ids: ids(&gpus),
                    must_include_device_ids: ids(&gpus[2..3]),
                    allocation_size: 1,
                }],
            })
            .await;
        let preferred = preferred
            .unwrap()
            .into_inner()
            .container_responses
            .remove(0);
        assert_eq!(preferred.device_ids, ids(&gpus[2..3]));
        let answer = client.allocate(request(&gpus[2..3])).await.unwrap();
        let answer = answer.into_inner().container_responses.remove(0);
        assert_eq!(
            answer.envs["PCI_RESOURCE_VARIA_VFIO_GH200"],
            gpus[2].to_string()
        );
        // the memory comes while the start waits for it
        files.ready(gpus[2], false);
        let start = api::PreStartContainerRequest {
            devices_ids: ids(&gpus[2..3]),
        };
        let mut other = client.clone();
        let starting = tokio::spawn(async move { other.pre_start_container(start).await });
        let metrics = || running.server.with(|node| node.metrics());
        until(|| metrics().contains("\nvaria_node_readiness_waiting 1\n")).await;
        assert!(!starting.is_finished(), "the start waits for the memory");
        files.ready(gpus[2], true);
        starting.await.unwrap().unwrap();
        let metrics = metrics();
        for line in ["waiting 0", "wait_seconds_count 1", "timeouts_total 0"] {
            let line = format!("\nvaria_node_readiness_{line}\n");
            assert!(metrics.contains(&line), "{line:?} is not in {metrics}");
        }
        // the pod ends
        assert_eq!(running.server.with(|node| node.holds().devices.len()), 1);
        kubelet.books(|books| books.pods.clear());
        until(|| running.server.with(|node| node.holds().devices.is_empty())).await;
        let driver = running.server.with(|node| node.machine().driver(gpus[2]));
        assert_eq!(driver.as_deref(), Some("nvidia"));
    });
}

#[test]
fn a_kubelet_that_is_away_or_new_begins_the_delay_of_releases_anew() {
    run(async {
        let (_kept, folder) = folder();
        let shared = Shared::default();
        let mut kubelet = StandIn::start(&folder, shared.clone());
        let running = Running::start(Made::bound(&GH200), quick(&folder, false));
        kubelet.registered(1).await;
        let gaps = |running: &Running| {
            let metrics = running.server.with(|node| node.metrics());
            let mut lines = metrics.lines();
            let line = lines.find_map(|line| line.strip_prefix("varia_node_unlisted_total "));
            line.unwrap().parse::<u64>().unwrap()
        };
        let asked = |count: u64| {
            let begin = shared.0.lock().unwrap().listings;
            let shared = shared.clone();
            until(move || shared.0.lock().unwrap().listings >= begin + count)
        };
        asked(2).await;
        assert_eq!(gaps(&running), 0, "no listing failed");
        // a new socket takes the place of the old one between two listings
        let anew = folder.join("new.sock");
        let listener = tokio::net::UnixListener::bind(&anew).unwrap();
        let service = PodResourcesListerServer::new(shared.clone());
        let service = tokio::spawn(varia_node::transport::serve(listener, service));
        fs::rename(anew, pods_socket(&folder)).unwrap();
        until(|| gaps(&running) == 1).await;
        asked(2).await;
        assert_eq!(gaps(&running), 1, "once for a new socket");
        service.abort();
        kubelet.kill();
        until(|| gaps(&running) > 1).await;
    });
}

#[test]
fn a_memory_that_does_not_come_stops_the_start() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        let made = Made::bound(&GH200);
        let (gpus, files) = (made.gpus(), made.files());
        let settings = Settings {
            ready_within: Duration::ZERO,
            ..quick(&folder, false)
        };
        let running = Running::start(made, settings);
        kubelet.registered(1).await;
        let mut client = client(&folder, ENDPOINT).await;
        client.allocate(request(&gpus)).await.unwrap();
        files.ready(gpus[0], false);
        let start = api::PreStartContainerRequest {
            devices_ids: ids(&gpus),
        };
        let refusal = client.pre_start_container(start).await.unwrap_err();
        assert!(
            refusal.message().contains("C2C link or CXL is down"),
            "{refusal}"
        );
        let metrics = running.server.with(|node| node.metrics());
        assert!(
            metrics.contains("varia_node_readiness_timeouts_total 1\n"),
            "{metrics}"
        );
    });
}

#[test]
fn a_kubelet_that_is_restarted_gets_a_registration_and_a_list() {
    run(async {
        let (_kept, folder) = folder();
        let made = Made::bound(&GH200_X4);
        // nobody is there at first
        let running = Running::start(made, quick(&folder, false));
        until(|| folder.join(ENDPOINT).exists()).await;
        let shared = Shared::default();
        for round in 1..=5 {
            let mut kubelet = StandIn::start(&folder, shared.clone());
            kubelet.registered(round).await;
            let mut client = client(&folder, ENDPOINT).await;
            let stream = client.list_and_watch(api::Empty {}).await;
            let mut stream = stream.unwrap().into_inner();
            list_until(&mut stream, |list| healthy(list) == 4).await;
            kubelet.kill();
        }
        let metrics = running.server.with(|node| node.metrics());
        let line = "varia_node_registrations_total{resource=\"varia.vfio/gh200\"} 5\n";
        assert!(metrics.contains(line), "{metrics}");
    });
}

#[test]
fn a_plugin_that_is_killed_takes_over_its_socket_and_its_devices() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        let mut made = Made::unbound(&GH200_X4);
        let gpus = made.gpus();
        kubelet.books(|books| {
            books.pods = vec![("one".to_owned(), GH.to_owned(), ids(&gpus[..2]))];
        });
        for round in 1..=3 {
            let running = Running::start(made, quick(&folder, true));
            kubelet.registered(round).await;
            let mut client = client(&folder, ENDPOINT).await;
            if round == 1 {
                client.allocate(request(&gpus[..2])).await.unwrap();
            }
            let held = running.server.with(|node| node.holds().devices.len());
            assert_eq!(held, 2, "in round {round}");
            drop(client);
            made = running.kill().await;
            // a killed process leaves its socket
            let _stale = Blocking::bind(folder.join(ENDPOINT));
            assert_eq!(made.driver(gpus[1]).as_deref(), Some(VARIANT));
        }
    });
}

#[test]
fn a_socket_that_is_anothers_stays() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        let other = Blocking::bind(folder.join(ENDPOINT)).unwrap();
        let address = free_address();
        let settings = Settings {
            http: Some(address),
            ..quick(&folder, false)
        };
        let running = Running::start(Made::bound(&GH200), settings);
        let failed = "another process serves";
        until_health(address, |text| text.contains(failed)).await;
        assert!(kubelet.books(|books| books.registrations.is_empty()));
        // it ends, and its socket is stale
        drop(other);
        kubelet.registered(1).await;
        until_health(address, |text| text.ends_with("ok\n")).await;
        // a file that is no socket is left alone, too
        let running = { running.kill().await };
        let _ = fs::remove_file(folder.join(ENDPOINT));
        fs::write(folder.join(ENDPOINT), "mine").unwrap();
        let address = free_address();
        let settings = Settings {
            http: Some(address),
            ..quick(&folder, false)
        };
        let _running = Running::start(running, settings);
        until_health(address, |text| text.contains("is not a socket")).await;
        assert_eq!(fs::read(folder.join(ENDPOINT)).unwrap(), b"mine");
    });
}

#[test]
fn a_registration_that_is_refused_is_tried_again() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        kubelet.books(|books| books.refuses = Some("the name is taken".to_owned()));
        let address = free_address();
        let settings = Settings {
            http: Some(address),
            ..quick(&folder, false)
        };
        let _running = Running::start(Made::bound(&GH200), settings);
        kubelet.registered(3).await;
        until_health(address, |text| text.contains("the name is taken")).await;
        kubelet.books(|books| books.refuses = None);
        until_health(address, |text| text.ends_with("ok\n")).await;
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.contains("varia_node_registrations_total{"),
            "{metrics}"
        );
        assert!(get(address, "/other").await.starts_with("HTTP/1.1 404"));
    });
}

#[test]
fn devices_come_and_go_and_the_list_follows() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        let machine = Machine {
            sockets: 36,
            drives: 0,
            ..GB200_NVL4
        };
        let made = Made::bound(&machine);
        let (gpus, files) = (made.gpus(), made.files());
        let running = Running::start(made, quick(&folder, false));
        kubelet.registered(1).await;
        let mut client = client(&folder, "varia-varia.vfio-gb200.sock").await;
        let stream = client.list_and_watch(api::Empty {}).await;
        let mut stream = stream.unwrap().into_inner();
        list_until(&mut stream, |list| healthy(list) == 72).await;
        let mut random = fastrand::Rng::with_seed(72);
        let mut there = vec![true; gpus.len()];
        let mut bound = vec![true; gpus.len()];
        for _ in 0..12 {
            for _ in 0..random.usize(1..20) {
                change(&mut random, &files, &gpus, &mut there, &mut bound);
            }
            running.events.notify_one();
            let expected: Vec<(String, bool)> = (0..gpus.len())
                .filter(|at| there[*at])
                .map(|at| (gpus[at].to_string(), bound[at]))
                .collect();
            let found = list_until(&mut stream, |list| {
                let list = list.iter();
                let list = list.map(|one| (one.id.clone(), one.health == "Healthy"));
                list.collect::<Vec<_>>() == expected
            });
            found.await;
        }
    });
}

/// Takes a GPU away or puts it back, or changes its driver.
fn change(
    random: &mut fastrand::Rng,
    files: &Files,
    gpus: &[Bdf],
    there: &mut [bool],
    bound: &mut [bool],
) {
    let at = random.usize(0..gpus.len());
    if there[at] && random.bool() {
        bound[at] = !bound[at];
        files.bind(gpus[at], if bound[at] { VARIANT } else { "nvidia" });
    } else {
        there[at] = !there[at];
        files.is_there(gpus[at], there[at]);
    }
}

#[test]
fn calls_in_any_order_are_answered() {
    run(async {
        let (_kept, folder) = folder();
        let kubelet = StandIn::start(&folder, Shared::default());
        let made = Made::unbound(&GH200_X4);
        let gpus = made.gpus();
        let running = Running::start(made, quick(&folder, true));
        kubelet.registered(1).await;
        let mut client = client(&folder, ENDPOINT).await;
        let mut random = fastrand::Rng::with_seed(4);
        let mut streams = Vec::new();
        let (mut good, mut refused) = (0, 0);
        for _ in 0..150 {
            let some = random.usize(0..4);
            let mut devices = ids(&random.choose_multiple(gpus.clone(), some));
            match random.u8(0..8) {
                0 => devices.push(String::new()),
                1 => devices.push("00f9:01:00.0".to_owned()),
                _ => {}
            }
            let result = match random.u8(0..6) {
                0 => {
                    let stream = client.list_and_watch(api::Empty {}).await;
                    // some are read, some are dropped, some are never read
                    streams.push(stream.unwrap().into_inner());
                    if streams.len() > 3 {
                        streams.remove(0);
                    }
                    Ok(())
                }
                1 => client
                    .pre_start_container(api::PreStartContainerRequest {
                        devices_ids: devices,
                    })
                    .await
                    .map(|_| ()),
                2 => client
                    .get_preferred_allocation(api::PreferredAllocationRequest {
                        container_requests: vec![api::ContainerPreferredAllocationRequest {
                            available_device_ids: devices,
                            must_include_device_ids: ids(&gpus[..random.usize(0..2)]),
                            allocation_size: random.i32(-1..5),
                        }],
                    })
                    .await
                    .map(|_| ()),
                _ => client
                    .allocate(api::AllocateRequest {
                        container_requests: vec![api::ContainerAllocateRequest {
                            devices_ids: devices,
                        }],
                    })
                    .await
                    .map(|_| ()),
            };
            match result {
                Ok(()) => good += 1,
                Err(status) => {
                    assert!(!status.message().is_empty(), "{status}");
                    refused += 1;
                }
            }
        }
        assert!(good > 40 && refused > 20, "{good} {refused}");
        running.server.with(|node| {
            for bdf in &gpus {
                let is_held = node.holds().devices.contains_key(bdf);
                let is_bound = node.machine().driver(*bdf).as_deref() == Some(VARIANT);
                assert_eq!(is_held, is_bound, "{bdf}");
            }
        });
    });
}
