//! State of the node as of the last change, for readers that never wait for a change under way.

use std::collections::{BTreeMap, BTreeSet};

use varia_allocate::Pool;
use varia_facts::Bdf;

use crate::device_plugin_api as api;
use crate::holds::Holds;
use crate::node::addresses;

/// State of the node as of the last change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Devices for the kubelet, by resource.
    pub(crate) devices: BTreeMap<String, Vec<api::Device>>,
    /// The GPUs.
    pub(crate) pool: Pool,
    /// Devices that are handed out.
    pub(crate) holds: Holds,
    /// Failure of the last refresh of the facts.
    pub(crate) unread: Option<String>,
}

impl Snapshot {
    /// Names of the resources.
    pub(crate) fn resources(&self) -> BTreeSet<String> {
        self.devices.keys().cloned().collect()
    }

    /// Devices of a resource.
    pub(crate) fn devices(&self, resource: &str) -> Vec<api::Device> {
        self.devices.get(resource).cloned().unwrap_or_default()
    }
}

/// The best set of devices of a pool, by address.
///
/// # Errors
/// The constraint that the request does not meet.
pub(crate) fn preferred(
    pool: &Pool,
    available: &[String],
    must: &[String],
    size: usize,
) -> Result<Vec<String>, String> {
    let (mut available, must) = (addresses(available)?, addresses(must)?);
    // the kubelet may not have taken note of a device that is gone
    available.retain(|bdf| pool.device(*bdf).is_some());
    let set = pool.preferred(&available, &must, size);
    let set = set.map_err(|refusal| refusal.to_string())?;
    Ok(set.iter().map(Bdf::to_string).collect())
}
