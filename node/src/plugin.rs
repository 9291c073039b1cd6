//! Service of one resource: the kubelet's calls to the state machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use crate::device_plugin_api as api;
use crate::device_plugin_api::device_plugin_server::DevicePlugin;
use crate::machine::Machine;
use crate::metrics::{Counts, Waiting};
use crate::node::{Node, Readiness};
use crate::settings::Settings;
use crate::snapshot::{Snapshot, preferred};

/// Time between two polls of a device's readiness.
const READINESS_POLL: Duration = Duration::from_millis(100);

/// The state machine, shared by all services and tasks.
///
/// A call of the state machine may take as long as the kernel takes to bind a driver, so it is made
/// by a thread of its own. The thread of the runtime reads the snapshot.
pub(crate) struct Shared<M> {
    node: Mutex<Node<M>>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) settings: Settings,
    pub(crate) counts: Arc<Counts>,
    begin: Instant,
}

impl<M: Machine> Shared<M> {
    pub(crate) fn new(node: Node<M>, begin: Instant) -> Arc<Self> {
        Arc::new(Self {
            snapshot: watch::Sender::new(Arc::new(node.snapshot())),
            settings: node.settings().clone(),
            counts: node.counts(),
            node: Mutex::new(node),
            begin,
        })
    }

    /// Calls `act` with the state machine, which another call may have for long, and publishes the
    /// state. A panic of another thread left the state machine between two of its steps, each of
    /// which is on disk before it is carried out.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut Node<M>) -> T) -> T {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut node);
        // before another call can change the state
        self.snapshot.send_replace(Arc::new(node.snapshot()));
        result
    }

    /// State after the last call of the state machine.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Metrics as Prometheus text.
    pub(crate) fn metrics(&self) -> String {
        let now = self.snapshot();
        let domain = &self.settings.domain;
        self.counts.text(domain, &now.pool, &now.holds)
    }

    /// The state machine, if nothing else uses it.
    pub(crate) fn into_node(shared: Arc<Self>) -> Result<Node<M>, Arc<Self>> {
        let shared = Arc::try_unwrap(shared)?;
        Ok(shared
            .node
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Time since the process started, which no change of the clock moves.
    pub(crate) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Reads the facts again.
    pub(crate) fn refresh(&self) {
        if let Err(why) = self.act(Node::refresh) {
            log::error!("event=unread found={why:?}");
        }
    }
}

/// Service of one resource.
pub(crate) struct Plugin<M> {
    shared: Arc<Shared<M>>,
    resource: String,
}

impl<M> Clone for Plugin<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            resource: self.resource.clone(),
        }
    }
}

impl<M: Machine + 'static> Plugin<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>, resource: &str) -> Self {
        Self {
            shared,
            resource: resource.to_owned(),
        }
    }

    /// Runs a call that reads or changes the host.
    async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Node<M>, &str) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Status> {
        let own = self.clone();
        let done = spawn_blocking(move || own.shared.act(|node| act(node, &own.resource)));
        let result = done
            .await
            .map_err(|_| Status::internal("the call failed: see the log of varia node"))?;
        result.map_err(Status::failed_precondition)
    }
}

/// Options of every resource.
pub(crate) fn options() -> api::DevicePluginOptions {
    api::DevicePluginOptions {
        pre_start_required: true,
        get_preferred_allocation_available: true,
    }
}

#[async_trait]
impl<M: Machine + 'static> DevicePlugin for Plugin<M> {
    async fn get_device_plugin_options(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<api::DevicePluginOptions>, Status> {
        Ok(Response::new(options()))
    }

    type ListAndWatchStream = ReceiverStream<Result<api::ListAndWatchResponse, Status>>;

    async fn list_and_watch(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let own = self.clone();
        let mut snapshots = self.shared.snapshot.subscribe();
        tokio::spawn(async move {
            let mut sent: Option<Vec<api::Device>> = None;
            loop {
                let devices = snapshots.borrow_and_update().devices(&own.resource);
                if sent.as_ref() != Some(&devices) {
                    let list = api::ListAndWatchResponse {
                        devices: devices.clone(),
                    };
                    if sender.send(Ok(list)).await.is_err() {
                        return;
                    }
                    sent = Some(devices);
                }
                tokio::select! {
                    () = sender.closed() => return,
                    next = snapshots.changed() => if next.is_err() { return },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<api::PreferredAllocationRequest>,
    ) -> Result<Response<api::PreferredAllocationResponse>, Status> {
        let now = self.shared.snapshot();
        let mut container_responses = Vec::new();
        for container in &request.into_inner().container_requests {
            let size = usize::try_from(container.allocation_size)
                .map_err(|_| Status::invalid_argument("the size of the set is negative"))?;
            let device_ids = preferred(
                &now.pool,
                &container.available_device_ids,
                &container.must_include_device_ids,
                size,
            )
            .map_err(Status::failed_precondition)?;
            container_responses.push(api::ContainerPreferredAllocationResponse { device_ids });
        }
        Ok(Response::new(api::PreferredAllocationResponse {
            container_responses,
        }))
    }

    async fn allocate(
        &self,
        request: Request<api::AllocateRequest>,
    ) -> Result<Response<api::AllocateResponse>, Status> {
        let containers = request.into_inner().container_requests.into_iter();
        let containers: Vec<_> = containers.map(|one| one.devices_ids).collect();
        let container_responses = self
            .call(move |node, resource| node.allocate(resource, &containers))
            .await?;
        Ok(Response::new(api::AllocateResponse {
            container_responses,
        }))
    }

    async fn pre_start_container(
        &self,
        request: Request<api::PreStartContainerRequest>,
    ) -> Result<Response<api::PreStartContainerResponse>, Status> {
        let ids = request.into_inner().devices_ids;
        let devices = self
            .call(move |node, resource| node.start(resource, &ids))
            .await?;
        let begin = self.shared.now();
        let within = self.shared.settings.ready_within;
        let mut late = None;
        let mut waiting = None;
        for bdf in &devices {
            let bdf = *bdf;
            loop {
                let ready = self.call(move |node, _| Ok(node.readiness(bdf))).await?;
                match ready {
                    Readiness::Ready => break,
                    Readiness::Unknown(why) => {
                        log::warn!("event=unprobed device={bdf} found={why:?}");
                        break;
                    }
                    Readiness::NotReady => {
                        let counts = || Waiting::new(self.shared.counts.clone());
                        waiting.get_or_insert_with(counts);
                    }
                }
                let waited = self.shared.now().saturating_sub(begin);
                if waited >= within {
                    late = Some(format!(
                        "the memory of {bdf} is not ready after {} s: its C2C link or CXL is down, \
                         or its training failed; power the machine off and on, and replace the \
                         board if that does not help",
                        waited.as_secs()
                    ));
                    break;
                }
                tokio::time::sleep(READINESS_POLL).await;
            }
        }
        let waited = self.shared.now().saturating_sub(begin);
        drop(waiting);
        self.shared.counts.waited(waited, late.is_none());
        self.call(move |node, _| {
            node.started(&devices);
            Ok(())
        })
        .await?;
        match late {
            None => Ok(Response::new(api::PreStartContainerResponse {})),
            Some(why) => {
                log::error!("event=late found={why:?}");
                Err(Status::failed_precondition(why))
            }
        }
    }
}
