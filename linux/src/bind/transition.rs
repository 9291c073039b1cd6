//! One device, from one driver to another.
//!
//! Source of what the kernel does: Documentation/ABI/testing/sysfs-bus-pci, `driver_override`,
//! `bind`, `unbind`. A write to a driver's `bind` answers what its probe answered.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use varia_facts::Bdf;

use super::host::Host;
use crate::inventory::functions_folder;
use crate::tree::Tree;

/// What a device is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its driver.
    pub driver: Option<String>,
    /// What its `driver_override` says.
    pub driver_override: Option<String>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Some(driver) => write!(f, "bound to {driver}"),
            None => f.write_str("without a driver"),
        }
    }
}

impl State {
    /// Bound to a driver by name.
    #[must_use]
    pub fn overridden(driver: &str) -> Self {
        Self {
            driver: Some(driver.to_owned()),
            driver_override: Some(driver.to_owned()),
        }
    }

    /// What a device is now; none if it is not there.
    #[must_use]
    pub fn of(tree: &Tree, bdf: Bdf) -> Option<Self> {
        let folder = functions_folder(bdf);
        let text = tree.text(&format!("{folder}/driver_override"))?;
        let driver_override = Some(text).filter(|text| !text.is_empty() && text != "(null)");
        Some(Self {
            driver: tree.link_name(&format!("{folder}/driver")),
            driver_override,
        })
    }
}

/// What kept a device from changing.
#[derive(Debug)]
pub(super) enum Stop {
    /// The driver's probe failed.
    Probe(io::Error),
    /// Something else was not as it has to be.
    Other(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe(error) => error.fmt(f),
            Self::Other(text) => text.fmt(f),
        }
    }
}

/// Brings a device to a state from wherever it is. What has been done when it stops stays.
pub(super) fn transition(host: &mut dyn Host, bdf: Bdf, to: &State) -> Result<(), Stop> {
    let gone = || Stop::Other("the device has gone".to_owned());
    let now = State::of(host.tree(), bdf).ok_or_else(gone)?;
    if now == *to {
        return Ok(());
    }
    if now.driver != to.driver {
        // first of all, so that no other driver takes it in between; a driver is bound by its
        // name also where the device's own driver_override is to be another
        let name = to.driver.as_ref().or(to.driver_override.as_ref());
        set_override(host, bdf, name.map(String::as_str))?;
        if let Some(driver) = &now.driver {
            let path = format!("sys/bus/pci/drivers/{driver}/unbind");
            attribute(host, &path, &bdf.to_string())?;
        }
        if let Some(driver) = &to.driver {
            let path = format!("sys/bus/pci/drivers/{driver}/bind");
            host.write(&path, &bdf.to_string()).map_err(Stop::Probe)?;
        }
    }
    let now = State::of(host.tree(), bdf).ok_or_else(gone)?;
    if now.driver_override != to.driver_override {
        set_override(host, bdf, to.driver_override.as_deref())?;
    }
    let now = State::of(host.tree(), bdf).ok_or_else(gone)?;
    if now == *to {
        return Ok(());
    }
    Err(Stop::Other(format!("it is {now} and should be {to}")))
}

fn set_override(host: &mut dyn Host, bdf: Bdf, name: Option<&str>) -> Result<(), Stop> {
    let path = format!("{}/driver_override", functions_folder(bdf));
    // an empty line takes it away
    attribute(host, &path, name.unwrap_or("\n"))
}

fn attribute(host: &mut dyn Host, path: &str, text: &str) -> Result<(), Stop> {
    host.write(path, text)
        .map_err(|error| Stop::Other(format!("writing to /{path} fails: {error}")))
}
