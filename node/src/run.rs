//! The process: tasks for the facts, the kubelet, the pods and HTTP.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::holds::Pod;
use crate::http::{self, Failures};
use crate::kubelet::{ANSWER, Registered, identity};
use crate::machine::Machine;
use crate::node::{Listing, Node};
use crate::plugin::Shared;
use crate::pod_resources_api::ListPodResourcesRequest;
use crate::pod_resources_api::pod_resources_lister_client::PodResourcesListerClient;
use crate::settings::Settings;
use crate::transport::Channel;
use crate::uevents;

/// Reason why the process does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The saved state or the host can't be used.
    #[error("{0}")]
    Node(String),
    /// The address of metrics and health can't be used.
    #[error("can't listen on {address}: {source}: name another --http")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The runtime can't be started.
    #[error("can't start: {0}: check the limits of processes and open files")]
    Runtime(std::io::Error),
}

/// The process, before it serves.
pub struct Server<M> {
    shared: Arc<Shared<M>>,
    refresh: Arc<Notify>,
}

impl<M: Machine + 'static> Server<M> {
    /// The process with the state of the last one.
    ///
    /// # Errors
    /// [`StartError::Node`].
    pub fn new(machine: M, settings: Settings) -> Result<Self, StartError> {
        let begin = Instant::now();
        let node = Node::new(machine, settings).map_err(StartError::Node)?;
        Ok(Self {
            shared: Shared::new(node, begin),
            refresh: Arc::new(Notify::new()),
        })
    }

    /// Reads the facts again when it is notified, as an event of the kernel does.
    #[must_use]
    pub fn events(&self) -> Arc<Notify> {
        self.refresh.clone()
    }

    /// Calls `act` with the state machine, as soon as no other call has it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Node<M>) -> T) -> T {
        self.shared.act(act)
    }

    /// The host, once no task uses the state machine any more; else the server again.
    ///
    /// # Errors
    /// The server.
    pub fn into_machine(self) -> Result<M, Self> {
        let Self { shared, refresh } = self;
        match Shared::into_node(shared) {
            Ok(node) => Ok(node.into_machine()),
            Err(shared) => Err(Self { shared, refresh }),
        }
    }

    /// Serves until `stop` is ready. What is handed out stays handed out.
    ///
    /// # Errors
    /// [`StartError::Http`].
    pub async fn serve(&self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let settings = self.shared.settings.clone();
        let failures = Failures::default();
        let mut tasks = JoinSet::new();
        if let Some(address) = settings.http {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| StartError::Http { address, source })?;
            tasks.spawn(http::serve(listener, self.shared.clone(), failures.clone()));
        }
        tasks.spawn(refresh(
            self.shared.clone(),
            settings.interval,
            self.refresh.clone(),
        ));
        if let Err(error) = uevents::forward(Arc::downgrade(&self.refresh)) {
            log::warn!(
                "event=no-uevents found={:?}",
                format!("{error}: changes are seen by interval alone")
            );
        }
        tasks.spawn(follow_pods(self.shared.clone(), settings.clone()));
        let resources = register(self.shared.clone(), settings.poll, failures);
        tokio::select! {
            () = stop => {}
            () = resources => {}
        }
        tasks.shutdown().await;
        Ok(())
    }
}

/// Runs the process until `stop` is ready.
///
/// # Errors
/// [`StartError`].
pub fn run<M: Machine + 'static>(
    machine: M,
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let server = Server::new(machine, settings)?;
    let served = runtime.block_on(server.serve(stop));
    // a call of the state machine may wait for the kernel; what it does not finish the next process
    // undoes or completes
    runtime.shutdown_background();
    served
}

/// Reads the facts by interval, and after each event.
async fn refresh<M: Machine + 'static>(
    shared: Arc<Shared<M>>,
    interval: Duration,
    events: Arc<Notify>,
) {
    loop {
        // an event or the end of the interval
        let _ = timeout(interval, events.notified()).await;
        let shared = shared.clone();
        // a panic is in the log, and the next interval tries again
        let _ = spawn_blocking(move || shared.refresh()).await;
    }
}

/// Registers each resource; chips that come later, too.
async fn register<M: Machine + 'static>(
    shared: Arc<Shared<M>>,
    poll: Duration,
    failures: Failures,
) {
    let mut all = Resources(BTreeMap::new());
    loop {
        let resources = shared.snapshot().resources();
        for resource in resources {
            all.0
                .entry(resource.clone())
                .or_insert_with(|| Registered::new(shared.clone(), &resource));
        }
        for registered in all.0.values_mut() {
            registered.poll().await;
        }
        let wrong = all.0.values().filter_map(Registered::failure);
        let wrong = wrong.map(str::to_owned).collect();
        *failures.lock().unwrap_or_else(PoisonError::into_inner) = wrong;
        tokio::time::sleep(poll).await;
    }
}

/// Resources of the process, whose sockets end with it.
struct Resources<M: Machine + 'static>(BTreeMap<String, Registered<M>>);

impl<M: Machine + 'static> Drop for Resources<M> {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Registered::close);
    }
}

/// Asks the kubelet which pods have devices.
async fn follow_pods<M: Machine + 'static>(shared: Arc<Shared<M>>, settings: Settings) {
    let mut told = false;
    let mut socket = None;
    loop {
        let before = identity(&settings.pods);
        let listed = timeout(ANSWER, listing(&settings)).await;
        let after = identity(&settings.pods);
        // a kubelet that started meanwhile may not know its pods yet
        let is_anew = before != after || (socket.is_some() && socket != after);
        socket = after.or(socket);
        match listed {
            Ok(Ok(listing)) => {
                told = false;
                let shared = shared.clone();
                let _ = spawn_blocking(move || {
                    shared.act(|node| {
                        if is_anew {
                            node.unlisted();
                            return;
                        }
                        // an allocation may have had the state machine since the listing
                        node.follow(&listing, shared.now());
                    });
                })
                .await;
            }
            failed => {
                if !told {
                    let why = match failed {
                        Ok(Err(why)) => why,
                        _ => "the kubelet does not answer".to_owned(),
                    };
                    log::warn!(
                        "event=no-pods found={why:?} remedy={:?}",
                        "nothing is released until the kubelet's PodResources socket answers"
                    );
                }
                told = true;
                let shared = shared.clone();
                let _ = spawn_blocking(move || shared.act(Node::unlisted)).await;
            }
        }
        tokio::time::sleep(settings.poll).await;
    }
}

/// Devices that pods have, of the resources of this process.
async fn listing(settings: &Settings) -> Result<Listing, String> {
    let socket: &Path = &settings.pods;
    let channel = Channel::connect(socket)
        .await
        .map_err(|error| format!("can't connect to {}: {error}", socket.display()))?;
    let mut client = PodResourcesListerClient::with_origin(channel, Channel::origin());
    let answer = client
        .list(ListPodResourcesRequest {})
        .await
        .map_err(|status| format!("{}: {}", socket.display(), status.message()))?;
    let domain = format!("{}/", settings.domain);
    let mut listing = Listing::new();
    for pod in answer.into_inner().pod_resources {
        let own = Pod {
            namespace: pod.namespace,
            name: pod.name,
        };
        let devices = pod.containers.into_iter().flat_map(|one| one.devices);
        for device in devices.filter(|one| one.resource_name.starts_with(&domain)) {
            for bdf in device.device_ids.iter().filter_map(|id| id.parse().ok()) {
                listing.insert(bdf, own.clone());
            }
        }
    }
    Ok(listing)
}
