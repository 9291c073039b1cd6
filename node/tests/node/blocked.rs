//! A change of drivers that the kernel does not finish.

use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;
use tokio::time::timeout;
use varia_node::Settings;
use varia_node::device_plugin_api as api;
use varia_silicon::machine::GH200_X4;

use crate::host::{Made, ids};
use crate::running::{
    ENDPOINT, folder, free_address, get, healthy, list_until, quick, request, run,
};
use crate::stand_in::{HANG, Shared, StandIn, client, until};

#[test]
fn a_bind_that_blocks_stops_neither_lists_nor_health_nor_registration_nor_the_end() {
    let (_kept, folder) = folder();
    let made = Made::unbound(&GH200_X4);
    let (gpus, gate) = (made.gpus(), made.gate.clone());
    let address = free_address();
    let settings = Settings {
        http: Some(address),
        ..quick(&folder, true)
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (ended, end) = mpsc::channel();
    let plugin = thread::spawn(move || {
        let stop = async { stopped.await.unwrap() };
        ended.send(varia_node::run(made, settings, stop)).unwrap();
    });
    run(async {
        let mut kubelet = StandIn::start(&folder, Shared::default());
        kubelet.registered(1).await;
        let mut client = client(&folder, ENDPOINT).await;
        gate.close();
        let mut other = client.clone();
        let wanted = request(&gpus[..1]);
        let allocating = tokio::spawn(async move { other.allocate(wanted).await });
        until(|| gate.waiting() > 0).await;
        within(async {
            let health = get(address, "/healthz").await;
            assert!(health.ends_with("ok\n"), "{health}");
            let metrics = get(address, "/metrics").await;
            let devices =
                "varia_node_devices{resource=\"varia.vfio/gh200\",state=\"bindable\"} 4\n";
            assert!(metrics.contains(devices), "{metrics}");
            let stream = client.list_and_watch(api::Empty {}).await;
            let mut stream = stream.unwrap().into_inner();
            list_until(&mut stream, |list| healthy(list) == 4).await;
            let container = api::ContainerPreferredAllocationRequest {
                available_device_ids: ids(&gpus),
                must_include_device_ids: ids(&gpus[1..2]),
                allocation_size: 1,
            };
            let request = api::PreferredAllocationRequest {
                container_requests: vec![container],
            };
            let preferred = client.get_preferred_allocation(request).await.unwrap();
            let preferred = preferred.into_inner().container_responses;
            assert_eq!(preferred[0].device_ids, ids(&gpus[1..2]));
            assert!(!allocating.is_finished(), "the bind blocks");
            // a new kubelet's calls come over a new socket
            kubelet.kill();
            kubelet = StandIn::start(&folder, kubelet.shared.clone());
            kubelet.registered(2).await;
        })
        .await;
        assert!(gate.waiting() > 0, "the bind blocks");
        stop.send(()).unwrap();
        let result = end.recv_timeout(HANG);
        result.expect("the process ends").unwrap();
        assert!(gate.waiting() > 0, "the bind blocks still");
    });
    gate.open();
    plugin.join().unwrap();
}

/// Limits what would otherwise wait for ever.
async fn within<T>(act: impl Future<Output = T>) -> T {
    let limited = timeout(HANG, act).await;
    limited.expect("nothing waits for the bind")
}
