//! A plugin that runs, and its clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Streaming;
use varia_facts::Bdf;
use varia_node::device_plugin_api as api;
use varia_node::{Server, Settings};

use crate::host::{Made, ids, settings};
use crate::stand_in::{HANG, pods_socket};

pub(crate) const GH: &str = "varia.vfio/gh200";
pub(crate) const ENDPOINT: &str = "varia-varia.vfio-gh200.sock";

/// A plugin that runs.
pub(crate) struct Running {
    pub(crate) server: Arc<Server<Made>>,
    pub(crate) events: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(made: Made, settings: Settings) -> Self {
        let server = Arc::new(Server::new(made, settings).unwrap());
        let own = server.clone();
        let task = tokio::spawn(async move {
            own.serve(std::future::pending()).await.unwrap();
        });
        Self {
            events: server.events(),
            server,
            task,
        }
    }

    /// Ends as a killed process does, and returns its host.
    pub(crate) async fn kill(self) -> Made {
        self.task.abort();
        let _ = self.task.await;
        // the task is over, and calls that it began may not be
        let mut server = Arc::try_unwrap(self.server).ok().expect("the only user");
        loop {
            match server.into_machine() {
                Ok(made) => return made,
                Err(used) => server = used,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A directory for sockets, with a short path.
pub(crate) fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

/// Settings of a plugin that polls often.
pub(crate) fn quick(folder: &Path, binds: bool) -> Settings {
    Settings {
        // what a test changes it tells by an event
        interval: Duration::from_secs(3600),
        poll: Duration::from_millis(5),
        plugins: folder.to_owned(),
        pods: pods_socket(folder),
        ..settings(binds)
    }
}

/// Runs a test on a thread of its own runtime.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Lists of a stream until one is as wanted.
pub(crate) async fn list_until(
    stream: &mut Streaming<api::ListAndWatchResponse>,
    wanted: impl Fn(&[api::Device]) -> bool,
) -> Vec<api::Device> {
    loop {
        let list = stream.message().await.unwrap().expect("the stream goes on");
        if wanted(&list.devices) {
            return list.devices;
        }
    }
}

/// Number of healthy devices.
pub(crate) fn healthy(devices: &[api::Device]) -> usize {
    devices.iter().filter(|one| one.health == "Healthy").count()
}

/// Request for devices of one container.
pub(crate) fn request(devices: &[Bdf]) -> api::AllocateRequest {
    let container = api::ContainerAllocateRequest {
        devices_ids: ids(devices),
    };
    api::AllocateRequest {
        container_requests: vec![container],
    }
}

/// An address on which nothing listens.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Answer of the plugin's HTTP.
pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read_to_string(&mut answer).await;
    }
    answer
}

/// Waits until the text of health is as wanted.
pub(crate) async fn until_health(address: SocketAddr, wanted: impl Fn(&str) -> bool) {
    let begin = Instant::now();
    loop {
        let text = get(address, "/healthz").await;
        if wanted(&text) {
            return;
        }
        assert!(begin.elapsed() < HANG, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
