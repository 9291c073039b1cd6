//! Devices that are handed out. A hold is on disk before its device is bound, and until its device
//! has its previous driver again: after a crash no device is bound that has no hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use varia_facts::Bdf;
use varia_linux::Tree;
use varia_linux::bind::Host;

/// Name of the saved file.
const FILE: &str = "node.json";
/// Version of the saved file.
const SCHEMA: &str = "varia-node/1";

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A device that is handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Functions to restore when the device is released: those that were bound for it.
    #[serde(default)]
    pub bound: BTreeSet<Bdf>,
    /// Pod that has the device, as far as the kubelet named it.
    #[serde(default)]
    pub pod: Option<Pod>,
}

/// All devices that are handed out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    schema: String,
    boot: String,
    /// Holds by device.
    pub devices: BTreeMap<Bdf, Hold>,
}

impl Holds {
    /// No holds, in the current boot.
    #[must_use]
    pub fn none(tree: &Tree) -> Self {
        let boot = tree.text("proc/sys/kernel/random/boot_id");
        Self {
            schema: SCHEMA.to_owned(),
            boot: boot.unwrap_or_default(),
            devices: BTreeMap::new(),
        }
    }

    /// Saved holds of the current boot. Bindings end with the boot, and so do holds.
    ///
    /// # Errors
    /// A sentence with the file and the remedy.
    pub fn load(host: &dyn Host) -> Result<Self, String> {
        let none = Self::none(host.tree());
        let place = host.place(FILE).display().to_string();
        let bytes = host.saved(FILE).map_err(|error| {
            format!("can't read {place}: {error}: run varia node as root, or name another --state")
        })?;
        let Some(bytes) = bytes else { return Ok(none) };
        let spoilt = |why: String| {
            format!(
                "{place} is damaged ({why}): check with `varia list` that no device is bound for a \
                 pod that has ended, then remove the file"
            )
        };
        let holds: Self =
            serde_json::from_slice(&bytes).map_err(|error| spoilt(error.to_string()))?;
        if holds.schema != SCHEMA {
            return Err(spoilt(format!("its schema is {:?}", holds.schema)));
        }
        Ok(if holds.boot == none.boot { holds } else { none })
    }

    /// Saves the holds, completely or not at all.
    ///
    /// # Errors
    /// A sentence with the file and the remedy.
    pub fn save(&self, host: &mut dyn Host) -> Result<(), String> {
        let place = host.place(FILE).display().to_string();
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        let saved = bytes.and_then(|bytes| host.save(FILE, &bytes));
        saved.map_err(|error| {
            format!(
                "can't write {place}: {error}: free some space on its file system, or name another \
                 --state"
            )
        })
    }
}
