//! Change of one device from one driver to another.
//!
//! Source of the kernel's behaviour: Documentation/ABI/testing/sysfs-bus-pci, `driver_override`,
//! `bind`, `unbind`. A write to a driver's `bind` returns the result of the driver's probe.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use varia_facts::Bdf;

use super::machine::Host;
use super::memory::Lack;
use crate::inventory::functions_folder;
use crate::tree::Tree;

/// Driver of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Bound driver.
    pub driver: Option<String>,
    /// Content of `driver_override`.
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
    /// State bound to a driver by `driver_override`.
    #[must_use]
    pub fn overridden(driver: &str) -> Self {
        Self {
            driver: Some(driver.to_owned()),
            driver_override: Some(driver.to_owned()),
        }
    }

    /// Current state of a device; `None` if the device does not exist.
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

/// Reason why a device could not be changed.
#[derive(Debug)]
pub(super) enum Stop {
    /// The driver's probe failed.
    Probe(io::Error),
    /// The driver is not known to serve the device's memory.
    Memory(Lack),
    /// Another failure.
    Other(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe(error) => error.fmt(f),
            Self::Memory(lack) => lack.fmt(f),
            Self::Other(text) => text.fmt(f),
        }
    }
}

/// Brings a device to a state from any state. On failure the steps done so far remain.
pub(super) fn transition(host: &mut dyn Host, bdf: Bdf, to: &State) -> Result<(), Stop> {
    let gone = || Stop::Other("the device is gone".to_owned());
    let now = State::of(host.tree(), bdf).ok_or_else(gone)?;
    if now == *to {
        return Ok(());
    }
    if now.driver != to.driver {
        // the override comes first, so that no other driver binds in between; the driver is bound
        // by name even if the device's own driver_override is to differ
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
    Err(Stop::Other(format!(
        "the device is {now} and should be {to}"
    )))
}

fn set_override(host: &mut dyn Host, bdf: Bdf, name: Option<&str>) -> Result<(), Stop> {
    let path = format!("{}/driver_override", functions_folder(bdf));
    // an empty line clears the override
    attribute(host, &path, name.unwrap_or("\n"))
}

fn attribute(host: &mut dyn Host, path: &str, text: &str) -> Result<(), Stop> {
    host.write(path, text)
        .map_err(|error| Stop::Other(format!("writing to /{path} fails: {error}")))
}
