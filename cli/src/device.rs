//! A profile, made into a device and an endpoint.

use std::{path::PathBuf, sync::Arc, time::Duration};

use varia_serve::{Endpoint, Options, View};
use varia_silicon::{Backing, Faults, Profile, Readiness, Silicon, profile};
use varia_variant::HostPhys;

use crate::{
    Failure,
    args::{BehaviourArgs, DeviceArgs, Fault, ReadyAfter},
};

/// A device and what it was made of.
pub(crate) struct Made {
    pub(crate) profile: &'static Profile,
    pub(crate) silicon: Arc<Silicon>,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// Makes the device that was asked for.
pub(crate) fn make(
    device: &DeviceArgs,
    behaviour: &BehaviourArgs,
    view: View,
    honour_memory_enable: bool,
) -> Result<Made, Failure> {
    let profile = profile::find(&device.profile)?;
    let options = varia_silicon::Options {
        memory: device.memory.map(|size| size.0),
        base: behaviour.base.map(|base| HostPhys(base.0)),
        backing: behaviour
            .backing
            .clone()
            .map_or(Backing::Anonymous, Backing::File),
        readiness: match behaviour.ready_after {
            None | Some(ReadyAfter::Seconds(0)) => Readiness::Immediate,
            Some(ReadyAfter::Seconds(seconds)) => Readiness::After(Duration::from_secs(seconds)),
            Some(ReadyAfter::Never) => Readiness::Never,
        },
        faults: Faults {
            c2c_down: behaviour.fault.contains(&Fault::C2cDown),
            no_properties: behaviour.fault.contains(&Fault::NoProperties),
            ..Faults::default()
        },
        ..Default::default()
    };
    let silicon = Arc::new(Silicon::new(profile, options)?);
    let options = Options {
        view,
        honour_memory_enable,
        ..Options::default()
    };
    let endpoint = Arc::new(Endpoint::new(silicon.clone(), options)?);
    if let Some(reason) = endpoint.declined() {
        log::warn!("{}: {reason}", profile.name);
    }
    Ok(Made {
        profile,
        silicon,
        endpoint,
    })
}

/// Where a profile's socket is unless another place is named.
pub(crate) fn default_socket(profile: &str) -> PathBuf {
    let directory =
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    directory.join(format!("varia-{profile}.sock"))
}
