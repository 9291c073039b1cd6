//! Description of a device, the same on the command line, in a configuration file and on the control
//! socket.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use varia_facts::{Bytes, PlatformFacts};

use crate::{
    Failure,
    args::{
        As, BehaviourArgs, DeviceArgs, ExtensionArg, LayoutArg, MemoryEnable, ServeArgs, ShapeArgs,
    },
};

/// Maximum number of devices that one description makes.
const MOST: u32 = 1024;

/// A device. The names and values are those of `varia serve`'s options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct DeviceSpec {
    pub(crate) profile: String,
    /// Name of the device and of its socket [default: the profile's name].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Number of such devices: their names get numbers from 0 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layout: Option<LayoutArg>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpudirect_clique: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<PathBuf>,
    /// Facts of the platform, in place of those in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform_facts: Option<PlatformFacts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) extension: Vec<ExtensionArg>,
    #[serde(default)]
    pub(crate) strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backing: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready_after: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fault: Vec<String>,
    #[serde(default)]
    pub(crate) copy_engine: bool,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub(crate) view: Option<As>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_enable: Option<MemoryEnable>,
}

/// A configuration file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    #[serde(default)]
    device: Vec<DeviceSpec>,
}

impl DeviceSpec {
    /// A device of these options.
    pub(crate) fn new(profile: &str, shape: &ShapeArgs, behaviour: &BehaviourArgs) -> Self {
        Self {
            profile: profile.to_owned(),
            memory: shape.memory.map(|size| size.suffixed().to_string()),
            layout: shape.layout,
            gpudirect_clique: shape.gpudirect_clique,
            platform: shape.platform.clone(),
            extension: shape.extension.clone(),
            strict: shape.strict,
            base: behaviour.base.map(|base| format!("{:#x}", base.0)),
            backing: behaviour.backing.clone(),
            ready_after: behaviour.ready_after.map(|after| after.to_string()),
            fault: behaviour.fault.iter().map(ToString::to_string).collect(),
            copy_engine: behaviour.copy_engine,
            ..Self::default()
        }
    }

    /// The arguments that make the device.
    pub(crate) fn arguments(&self) -> Result<(DeviceArgs, BehaviourArgs), Failure> {
        let bad = |what: &str, error: String| format!("{}: {what}: {error}", self.profile);
        let size = |what, text: &Option<String>| {
            let parsed = text.as_deref().map(str::parse::<Bytes>).transpose();
            parsed.map_err(|error| bad(what, error.to_string()))
        };
        let ready_after = self.ready_after.as_deref().map(str::parse).transpose();
        let faults = self.fault.iter().map(|fault| fault.parse());
        let device = DeviceArgs {
            profile: self.profile.clone(),
            shape: ShapeArgs {
                memory: size("memory", &self.memory)?,
                layout: self.layout,
                gpudirect_clique: self.gpudirect_clique,
                platform: self.platform.clone(),
                extension: self.extension.clone(),
                strict: self.strict,
            },
        };
        let behaviour = BehaviourArgs {
            backing: self.backing.clone(),
            base: size("base", &self.base)?,
            ready_after: ready_after.map_err(|error| bad("ready-after", error))?,
            fault: faults
                .collect::<Result<_, _>>()
                .map_err(|error| bad("fault", error))?,
            copy_engine: self.copy_engine,
        };
        Ok((device, behaviour))
    }

    /// The devices that this describes, with their names.
    fn named(&self) -> Result<Vec<(String, Self)>, Failure> {
        let name = self.name.as_ref().unwrap_or(&self.profile);
        check_name(name)?;
        let count = self.count.unwrap_or(1);
        if count == 0 || count > MOST {
            let text = format!("{name}: {count} devices can't be made: give 1 to {MOST}");
            return Err(text.into());
        }
        if count > 1 && self.backing.is_some() {
            let text = format!(
                "{name}: {count} devices can't share a backing file: give each its own in --config"
            );
            return Err(text.into());
        }
        let numbers = 0..count;
        Ok(numbers
            .map(|number| match self.count {
                None => (name.clone(), self.clone()),
                Some(_) => (format!("{name}-{number}"), self.clone()),
            })
            .collect())
    }
}

/// A name is a part of a path and a label of Prometheus.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let reserved = ["control", "metrics"].contains(&name);
    if name.is_empty() || name.len() > 40 || !name.chars().all(good) || reserved {
        let text = format!(
            "{name:?} can't be the name of a device: use 1 to 40 letters, digits, - and _, and \
             neither control nor metrics"
        );
        return Err(text.into());
    }
    Ok(())
}

/// The devices of a command line and its configuration file, with their names.
pub(crate) fn wanted(args: &ServeArgs) -> Result<Vec<(String, DeviceSpec)>, Failure> {
    let mut specs = Vec::new();
    for profile in &args.profiles {
        specs.push(of_argument(args, profile)?);
    }
    if let Some(path) = &args.config {
        specs.extend(of_file(path)?);
    }
    let mut all: Vec<(String, DeviceSpec)> = Vec::new();
    for spec in &specs {
        for (name, spec) in spec.named()? {
            if all.iter().any(|(other, _)| *other == name) {
                let text = format!(
                    "two devices have the name {name}: write {}:N, or give names in --config",
                    spec.profile
                );
                return Err(text.into());
            }
            all.push((name, spec));
        }
    }
    match all.is_empty() {
        true => Err("there is no device: name a profile, or write [[device]] in --config".into()),
        false => Ok(all),
    }
}

fn of_argument(args: &ServeArgs, argument: &str) -> Result<DeviceSpec, Failure> {
    let (profile, count) = match argument.rsplit_once(':') {
        None => (argument, None),
        Some((profile, count)) => {
            let number = count.parse().map_err(|_| {
                format!("{argument:?}: {count:?} is not a number of devices, as in {profile}:8")
            })?;
            (profile, Some(number))
        }
    };
    let honour = args.honour_memory_enable || args.memory_enable == MemoryEnable::Honour;
    let spec = DeviceSpec::new(profile, &args.shape, &args.behaviour);
    Ok(DeviceSpec {
        count,
        view: Some(args.view),
        memory_enable: honour.then_some(MemoryEnable::Honour),
        ..spec
    })
}

fn of_file(path: &Path) -> Result<Vec<DeviceSpec>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let config: Config = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        format!("{shown}: line {line}: {}", error.message())
    })?;
    Ok(config.device)
}
