//! A stand-in for the kubelet: its registration and its PodResources service on Unix sockets, and a
//! client of the plugins that register. It is no kubelet: it has no pods, no cgroups and no books but
//! those that a test writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, async_trait};
use varia_node::device_plugin_api::device_plugin_client::DevicePluginClient;
use varia_node::device_plugin_api::registration_server::{Registration, RegistrationServer};
use varia_node::device_plugin_api::{Empty, RegisterRequest};
use varia_node::pod_resources_api as pods;
use varia_node::pod_resources_api::pod_resources_lister_server::{
    PodResourcesLister, PodResourcesListerServer,
};
use varia_node::transport::{Channel, serve};

/// Limit that only a hang reaches.
pub(crate) const HANG: Duration = Duration::from_secs(600);

/// Records of the stand-in: what it was told, and what it tells.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) registrations: Vec<RegisterRequest>,
    /// Pods: name, resource, devices.
    pub(crate) pods: Vec<(String, String, Vec<String>)>,
    /// Number of listings of pods.
    pub(crate) listings: u64,
    /// Text of a refusal of registrations.
    pub(crate) refuses: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Books>>);

#[async_trait]
impl Registration for Shared {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let mut books = self.0.lock().unwrap();
        books.registrations.push(request.into_inner());
        match &books.refuses {
            Some(why) => Err(Status::already_exists(why.clone())),
            None => Ok(Response::new(Empty {})),
        }
    }
}

#[async_trait]
impl PodResourcesLister for Shared {
    async fn list(
        &self,
        _: Request<pods::ListPodResourcesRequest>,
    ) -> Result<Response<pods::ListPodResourcesResponse>, Status> {
        let mut books = self.0.lock().unwrap();
        books.listings += 1;
        let pod = |(name, resource, devices): &(String, String, Vec<String>)| pods::PodResources {
            name: name.clone(),
            namespace: "vms".to_owned(),
            containers: vec![pods::ContainerResources {
                name: "vm".to_owned(),
                devices: vec![pods::ContainerDevices {
                    resource_name: resource.clone(),
                    device_ids: devices.clone(),
                }],
            }],
        };
        let pod_resources = books.pods.iter().map(pod).collect();
        Ok(Response::new(pods::ListPodResourcesResponse {
            pod_resources,
        }))
    }
}

/// A stand-in that runs.
pub(crate) struct StandIn {
    pub(crate) shared: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl StandIn {
    /// Starts as a kubelet does: it removes every socket in its directory and makes its own.
    pub(crate) fn start(folder: &Path, shared: Shared) -> Self {
        fs::create_dir_all(folder).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "sock")
            {
                fs::remove_file(path).unwrap();
            }
        }
        let registration = UnixListener::bind(folder.join("kubelet.sock")).unwrap();
        let lister = UnixListener::bind(pods_socket(folder)).unwrap();
        let tasks = vec![
            tokio::spawn(serve(registration, RegistrationServer::new(shared.clone()))),
            tokio::spawn(serve(lister, PodResourcesListerServer::new(shared.clone()))),
        ];
        Self { shared, tasks }
    }

    /// Ends as a killed kubelet does: its sockets stay, and nothing answers.
    pub(crate) fn kill(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    pub(crate) fn books<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.shared.0.lock().unwrap())
    }

    /// Waits for a number of registrations.
    pub(crate) async fn registered(&self, count: usize) {
        until(|| self.books(|books| books.registrations.len() >= count)).await;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Socket of the PodResources service.
pub(crate) fn pods_socket(folder: &Path) -> PathBuf {
    folder.join("pods.sock")
}

/// A client of the plugin's socket.
pub(crate) async fn client(folder: &Path, endpoint: &str) -> DevicePluginClient<Channel> {
    let begin = Instant::now();
    loop {
        match Channel::connect(&folder.join(endpoint)).await {
            Ok(channel) => return DevicePluginClient::with_origin(channel, Channel::origin()),
            Err(error) => assert!(begin.elapsed() < HANG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < HANG, "the condition does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
