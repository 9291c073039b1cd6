//! Sockets and registration of one resource.
//!
//! The kubelet removes all sockets of plugins when it starts, and makes its own anew. So both are
//! polled: a socket that is gone is made again, and a new socket of the kubelet gets a registration.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::device_plugin_api::RegisterRequest;
use crate::device_plugin_api::device_plugin_server::DevicePluginServer;
use crate::device_plugin_api::registration_client::RegistrationClient;
use crate::machine::Machine;
use crate::plugin::{Plugin, Shared, options};
use crate::transport::{Channel, serve};

/// Version of the device plugin API.
const VERSION: &str = "v1beta1";
/// Name of the kubelet's socket.
const KUBELET: &str = "kubelet.sock";
/// Longest wait for an answer of the kubelet.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Identity of a file: a socket that is made again has another one.
pub(crate) type Identity = (u64, u64, i64, i64);

pub(crate) fn identity(path: &Path) -> Option<Identity> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.dev(), there.ino(), there.ctime(), there.ctime_nsec()))
}

/// A socket of this process, with the task that serves it.
struct Served {
    identity: Option<Identity>,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Resource at the kubelet.
pub(crate) struct Registered<M> {
    shared: Arc<Shared<M>>,
    resource: String,
    endpoint: String,
    folder: PathBuf,
    served: Option<Served>,
    /// The kubelet's socket at the last registration.
    kubelet: Option<Identity>,
    /// Failure that was logged last.
    told: Option<String>,
}

impl<M: Machine + 'static> Registered<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>, resource: &str) -> Self {
        let folder = shared.settings.plugins.clone();
        // the domain is in the name, so that two domains are two plugins
        let endpoint = format!("varia-{}.sock", resource.replace('/', "-"));
        Self {
            shared,
            resource: resource.to_owned(),
            endpoint,
            folder,
            served: None,
            kubelet: None,
            told: None,
        }
    }

    /// Serves and registers the resource if that is to be done.
    pub(crate) async fn poll(&mut self) {
        let result = self.try_poll().await;
        match result {
            Ok(()) => self.told = None,
            Err(why) => {
                if self.told.as_ref() != Some(&why) {
                    log::error!(
                        "event=unregistered resource={} found={why:?}",
                        self.resource
                    );
                }
                self.told = Some(why);
            }
        }
    }

    /// Failure of the last poll.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.told.as_deref()
    }

    async fn try_poll(&mut self) -> Result<(), String> {
        let own = self.folder.join(&self.endpoint);
        let is_served = self
            .served
            .as_ref()
            .is_some_and(|served| served.identity.is_some() && served.identity == identity(&own));
        if !is_served {
            self.served = None;
            self.kubelet = None;
            self.served = Some(self.serve(&own)?);
        }
        let socket = self.folder.join(KUBELET);
        let Some(kubelet) = identity(&socket) else {
            self.kubelet = None;
            return Err(format!(
                "{} does not exist: start the kubelet; this process registers as soon as it is there",
                socket.display()
            ));
        };
        if self.kubelet == Some(kubelet) {
            return Ok(());
        }
        self.register(&socket).await?;
        self.kubelet = Some(kubelet);
        self.shared.counts.registered(&self.resource);
        log::info!("event=registered resource={}", self.resource);
        Ok(())
    }

    /// Makes the socket and serves it.
    fn serve(&self, own: &Path) -> Result<Served, String> {
        clear(own)?;
        let failed = |error: io::Error| {
            format!(
                "can't listen on {}: {error}: run varia node as root, and check that the directory \
                 is the kubelet's",
                own.display()
            )
        };
        let listener = UnixListener::bind(own).map_err(failed)?;
        let identity = identity(own);
        let service = DevicePluginServer::new(Plugin::new(self.shared.clone(), &self.resource));
        let task = tokio::spawn(serve(listener, service));
        Ok(Served { identity, task })
    }

    async fn register(&self, socket: &Path) -> Result<(), String> {
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: self.endpoint.clone(),
            resource_name: self.resource.clone(),
            options: Some(options()),
        };
        let call = async {
            let channel = Channel::connect(socket).await.map_err(|error| {
                format!(
                    "nothing answers on {} ({error}): start the kubelet",
                    socket.display()
                )
            })?;
            let mut client = RegistrationClient::with_origin(channel, Channel::origin());
            client.register(request).await.map_err(|status| {
                format!(
                    "the kubelet refuses {} ({}): stop the other plugin of this name, or name \
                     another --resource-domain",
                    self.resource,
                    status.message()
                )
            })?;
            Ok(())
        };
        timeout(ANSWER, call).await.unwrap_or_else(|_| {
            Err(format!(
                "the kubelet does not answer on {} within {} s: see its log",
                socket.display(),
                ANSWER.as_secs()
            ))
        })
    }

    /// Removes the socket, if it is this process's.
    pub(crate) fn close(&mut self) {
        let own = self.folder.join(&self.endpoint);
        if let Some(served) = self.served.take() {
            if served.identity.is_some() && served.identity == identity(&own) {
                // the kubelet removes what is left
                let _ = fs::remove_file(own);
            }
        }
    }
}

/// Removes a socket that no process serves.
fn clear(own: &Path) -> Result<(), String> {
    let Ok(there) = fs::symlink_metadata(own) else {
        return Ok(());
    };
    let place = own.display();
    if !there.file_type().is_socket() {
        return Err(format!(
            "{place} is not a socket, and this process did not make it: remove it"
        ));
    }
    match UnixStream::connect(own) {
        Ok(_) => Err(format!(
            "another process serves {place}: stop it; this process serves it as soon as that one has \
             ended"
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(own)
            .map_err(|error| format!("can't remove the stale socket {place}: {error}: remove it")),
        Err(error) => Err(format!(
            "{place} belongs to another ({error}): remove it, or run varia node as its owner"
        )),
    }
}
