//! Construction of a device and an endpoint from a profile.

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use varia_facts::{Bytes, PlatformFacts};
use varia_serve::{Endpoint, Options, View};
use varia_silicon::{Backing, Faults, Profile, Readiness, Silicon, profile};
use varia_spec::nvidia::{
    MEMBLK_SIZE,
    chip::{self, Chip, Driver},
};
use varia_spec::vfio::MAX_REGION_SIZE;
use varia_variant::{HostPhys, MemoryLayout, Refusal};

use crate::{
    Failure,
    args::{BehaviourArgs, DeviceArgs, ExtensionArg, Fault, ReadyAfter},
    platform,
};

/// A device, its profile and its endpoint.
pub(crate) struct Made {
    pub(crate) profile: &'static Profile,
    pub(crate) silicon: Arc<Silicon>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) fresh: Fresh,
}

/// A backing file that this command may have created, removed again unless the device is served.
pub(crate) struct Fresh(Option<(PathBuf, Arc<Silicon>)>);

impl Fresh {
    /// The device is served: the file is the user's from now on.
    pub(crate) fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let Some((path, silicon)) = &self.0 else {
            return;
        };
        let memory = silicon.coherent_memory().map(|memory| &memory.bytes);
        if memory.is_some_and(|memory| memory.is_created_at(path)) {
            // the error that ends the command matters more
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Files of a request that its sender has opened or read.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// File of the memory, in place of the file that `--backing` names.
    pub(crate) backing: Option<OwnedFd>,
    /// Facts of the platform, in place of those in a file.
    pub(crate) platform: Option<PlatformFacts>,
}

/// Constructs the requested device.
pub(crate) fn make(
    device: &DeviceArgs,
    behaviour: &BehaviourArgs,
    view: View,
    honour_memory_enable: bool,
    given: Given,
) -> Result<Made, Failure> {
    let profile = known_profile(&device.profile)?;
    let has_platform = device.shape.platform.is_some() || given.platform.is_some();
    let options = varia_silicon::Options {
        memory: device.shape.memory.map(|size| size.0),
        base: behaviour.base.map(|base| HostPhys(base.0)),
        backing: match (behaviour.backing.clone(), given.backing) {
            (None, _) => Backing::Anonymous,
            (Some(path), None) => Backing::File(path),
            (Some(name), Some(fd)) => Backing::Descriptor(name, Arc::new(fd)),
        },
        readiness: match behaviour.ready_after {
            None | Some(ReadyAfter::Seconds(0)) => Readiness::Immediate,
            Some(ReadyAfter::Seconds(seconds)) => Readiness::After(Duration::from_secs(seconds)),
            Some(ReadyAfter::Never) => Readiness::Never,
        },
        faults: faults(&behaviour.fault),
        platform: match (given.platform, &device.shape.platform) {
            (None, Some(path)) => Some(platform::read(path)?),
            (given, _) => given,
        },
        copy_engine: behaviour.copy_engine,
        ..Default::default()
    };
    let silicon = Arc::new(Silicon::new(profile, options)?);
    let backing = behaviour.backing.clone();
    let fresh = Fresh(backing.map(|path| (path, Arc::clone(&silicon))));
    if device.shape.layout.is_some() && silicon.coherent_memory().is_none() {
        let name = profile.name;
        let text = format!("a {name} has no coherent memory to lay out: leave out --layout");
        return Err(text.into());
    }
    let mut views = [
        ("--layout", device.shape.layout.is_some()),
        (
            "--gpudirect-clique",
            device.shape.gpudirect_clique.is_some(),
        ),
        ("--extension", !device.shape.extension.is_empty()),
        ("--platform", has_platform),
        ("--strict", device.shape.strict),
    ]
    .into_iter();
    if let Some((option, _)) = views.find(|(_, is_given)| *is_given && view == View::Physical) {
        let text = format!(
            "{option} changes a VM's view, and --as physical is another one: leave out one of the two"
        );
        return Err(text.into());
    }
    let options = Options {
        view,
        honour_memory_enable,
        layout: device.shape.layout.map_or(MemoryLayout::Bar, Into::into),
        gpudirect_clique: device.shape.gpudirect_clique,
        strict: device.shape.strict,
        zdev: device.shape.extension.contains(&ExtensionArg::Zdev),
        ..Options::default()
    };
    let endpoint = Arc::new(
        Endpoint::new(silicon.clone(), options).map_err(|error| explain(profile, &error))?,
    );
    if let Some(reason) = endpoint.declined() {
        log::warn!("{}: {reason}", profile.name);
    }
    Ok(Made {
        profile,
        silicon,
        endpoint,
        fresh,
    })
}

/// The profile with this name.
///
/// # Errors
/// Unknown names; names of chips that need no variant, with the window that a VM needs for them.
pub(crate) fn known_profile(name: &str) -> Result<&'static Profile, Failure> {
    profile::find(name).map_err(|error| match chip::named(name) {
        Some(chip) if chip.driver() == Driver::VfioPci => plain_chip(chip).into(),
        _ => error.into(),
    })
}

/// Message about a chip without coherent memory: the window that a VM needs for it.
fn plain_chip(chip: &Chip) -> String {
    let bars = chip.bars.iter().map(|bar| varia_plan::PlannedBar {
        index: bar.value.index,
        size: Bytes(bar.value.size),
    });
    let bars: Vec<_> = bars.collect();
    let sizes: Vec<_> = bars.iter().map(|bar| bar.size.to_string()).collect();
    let window = varia_plan::window(&bars).unwrap_or_default();
    format!(
        "{} has no coherent memory and needs no variant: vfio-pci gives a VM all of it. Its BARs \
         ({}) need a root port with a 64-bit prefetchable window of {window} (QEMU: \
         pcie-root-port,pref64-reserve={})",
        chip.name,
        sizes.join(", "),
        window.suffixed()
    )
}

/// The faults of a request.
pub(crate) fn faults(wanted: &[Fault]) -> Faults {
    let mut faults = Faults::NONE;
    for fault in wanted {
        match fault {
            Fault::C2cDown => faults.c2c_down = true,
            Fault::SizeZero => faults.size_zero = true,
            Fault::NoProperties => faults.no_properties = true,
            Fault::LostAfterResets(count) => faults.lost_after_resets = Some(*count),
            Fault::PoisonedPage(offset) => faults.poisoned_page = Some(offset.0),
            Fault::GoneAfter(seconds) => {
                faults.gone_after = Some(Duration::from_secs(*seconds));
            }
        }
    }
    faults
}

/// The faults of a device, as a request names them.
pub(crate) fn fault_names(faults: Faults) -> Vec<String> {
    let Faults {
        c2c_down,
        size_zero,
        no_properties,
        lost_after_resets,
        poisoned_page,
        gone_after,
    } = faults;
    let all = [
        c2c_down.then_some(Fault::C2cDown),
        size_zero.then_some(Fault::SizeZero),
        no_properties.then_some(Fault::NoProperties),
        lost_after_resets.map(Fault::LostAfterResets),
        poisoned_page.map(|offset| Fault::PoisonedPage(Bytes(offset))),
        gone_after.map(|after| Fault::GoneAfter(after.as_secs())),
    ];
    all.iter().flatten().map(ToString::to_string).collect()
}

/// Reason for a refused device, with a request that would be served.
fn explain(profile: &Profile, error: &varia_serve::Error) -> String {
    let varia_serve::Error::Refused { refusal, .. } = error else {
        return error.to_string();
    };
    let too_little = |size, least| {
        format!(
            "{} of memory leave nothing usable on a {}: give at least {}, as in --memory {}",
            Bytes(size),
            profile.name,
            Bytes(least),
            Bytes(least).suffixed()
        )
    };
    match *refusal {
        Refusal::NothingUsable { size, least } => too_little(size.0, least.0),
        Refusal::BelowReserve { size, reserve } => {
            too_little(size.0, reserve.0.saturating_add(MEMBLK_SIZE))
        }
        Refusal::BarTooLarge { length } => format!(
            "{} of memory need a BAR above {}, which VFIO can't address: give the {} at most this size, as in --memory {}",
            length,
            Bytes(MAX_REGION_SIZE),
            profile.name,
            Bytes(MAX_REGION_SIZE).suffixed()
        ),
        Refusal::PhysicalBarTooSmall { size, memory, .. } => format!(
            "{memory} of memory do not fit into the {}'s physical BAR2, which has {size}: use \
             --layout bar, or give at most this size, as in --memory {}",
            profile.name,
            size.suffixed()
        ),
        _ => error.to_string(),
    }
}

/// Default path of a profile's socket.
pub(crate) fn default_socket(profile: &str) -> PathBuf {
    runtime_directory().join(format!("varia-{profile}.sock"))
}

/// The user's directory for sockets.
pub(crate) fn runtime_directory() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}
