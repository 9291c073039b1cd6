//! Bindings that outlast a restart: files of `/etc/varia/bind.d`, one for each device, and the
//! judgement of these files. Nothing is bound here.
//!
//! A file is named after its device and has the device's identity. A file that is damaged, that
//! contradicts another file, or whose device is gone or has another identity is an error with the
//! file's name; such a file never binds a device.

use std::io;

use serde::{Deserialize, Serialize};
use varia_facts::Bdf;

use super::check::check_name;
use super::machine::Host;
use super::refusal::BindError;
use crate::inventory::functions_folder;
use crate::tree::Tree;

/// Directory of the files.
pub(crate) const FOLDER: &str = "etc/varia/bind.d";
/// Version of a file's form.
const SCHEMA: &str = "varia-bind/1";
/// End of a file's name.
const END: &str = ".json";
/// End of the name of a file that is being written.
pub(super) const UNFINISHED: &str = ".new";
/// File that shows whether the directory can be written.
const PROBE: &str = "etc/varia/bind.d/probe.new";

/// A binding that a restart repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persistent {
    schema: String,
    /// Address of the device.
    pub device: Bdf,
    /// Identity of the device: the kernel's modalias, which has all ids and the class.
    pub modalias: String,
    /// Driver of the device.
    pub driver: String,
    /// The device is refused without its memory, inside a VM too.
    pub strict: bool,
}

/// A file of the directory.
#[derive(Debug)]
pub struct PersistentFile {
    /// Path of the file, with a leading slash.
    pub path: String,
    /// Device that the file's name or, failing that, the file's content names.
    pub device: Option<Bdf>,
    /// The file is named after the device.
    pub is_own: bool,
    /// The binding, or the fault of the file or of the device.
    pub binding: Result<Persistent, PersistentError>,
}

/// Fault of a persistent binding.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PersistentError {
    /// The directory or a file can't be read.
    #[error("can't read {path}: {source}: run this command as root")]
    Unread {
        /// The path.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("{path} is damaged ({why}), and binds nothing: {remedy}", remedy = Anew(*.device))]
    Damaged {
        /// Path of the file.
        path: String,
        /// Fault of the file.
        why: String,
        /// Device that the file is named after.
        device: Option<Bdf>,
    },
    /// A file's name is not that of its device.
    #[error(
        "{path} is not named after the device {device}, and binds nothing: remove the file, or \
         rename it {device}.json"
    )]
    Misnamed {
        /// Path of the file.
        path: String,
        /// Device in the file.
        device: Bdf,
    },
    /// Two files give one device two bindings.
    #[error(
        "{path} binds {device} to {driver} and {other} binds it to {other_driver}: neither is done; \
         remove one of the two files"
    )]
    Contradiction {
        /// The device.
        device: Bdf,
        /// Path of the file.
        path: String,
        /// Driver in the file.
        driver: String,
        /// Path of the other file.
        other: String,
        /// Driver in the other file.
        other_driver: String,
    },
    /// The device does not exist.
    #[error(
        "{path} is of the PCI function {device}, which does not exist: if the device is gone for \
         good, forget it with `varia unbind {device}`"
    )]
    Gone {
        /// Path of the file.
        path: String,
        /// The device.
        device: Bdf,
    },
    /// Another device has the address.
    #[error(
        "{path} is of a device {saved}, and at {device} is another one, {found}, which is left \
         alone: bind it with `varia bind {device} --persist`, or forget the old one with `varia \
         unbind {device}`"
    )]
    OtherDevice {
        /// Path of the file.
        path: String,
        /// The address.
        device: Bdf,
        /// Modalias in the file.
        saved: String,
        /// Modalias of the present device.
        found: String,
    },
    /// A binding could not be carried out.
    #[error("{paths} could not be carried out: {source}")]
    Undone {
        /// Paths of the files, of all members of a group.
        paths: String,
        /// Error of binding.
        source: Box<BindError>,
    },
    /// The directory can't be written, and nothing has been changed.
    #[error(
        "can't write /etc/varia/bind.d ({source}), so that nothing is changed: run this command as \
         root, and make /etc writable"
    )]
    Unwritable {
        /// Error of the system.
        source: io::Error,
    },
    /// The devices are changed and their files are not.
    #[error(
        "the devices are {now}, and the next start does not know it: can't write {path}: {source}: \
         make /etc writable, and repeat the command"
    )]
    Unsaved {
        /// State of the devices, such as "bound".
        now: &'static str,
        /// Path of the file.
        path: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Remedy for a damaged file.
struct Anew(Option<Bdf>);

impl std::fmt::Display for Anew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(bdf) => write!(
                f,
                "write it anew with `varia bind {bdf} --persist`, or remove it with `varia unbind \
                 {bdf}`"
            ),
            None => f.write_str("remove the file"),
        }
    }
}

impl Persistent {
    /// Binding of a present device to a driver; `None` if the device does not exist.
    pub(super) fn of(tree: &Tree, device: Bdf, driver: &str, strict: bool) -> Option<Self> {
        Some(Self {
            schema: SCHEMA.to_owned(),
            device,
            modalias: modalias(tree, device)?,
            driver: driver.to_owned(),
            strict,
        })
    }

    /// Checks that the device exists and is the one that was bound.
    fn check_device(&self, tree: &Tree) -> Result<(), PersistentError> {
        let device = self.device;
        let path = shown(&place(device));
        match modalias(tree, device) {
            None => Err(PersistentError::Gone { path, device }),
            Some(found) if found != self.modalias => Err(PersistentError::OtherDevice {
                path,
                device,
                saved: self.modalias.escape_debug().to_string(),
                found,
            }),
            Some(_) => Ok(()),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let parsed: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if parsed.schema != SCHEMA {
            let schema = parsed.schema.escape_debug();
            return Err(format!("its schema is {schema}, and this is {SCHEMA}"));
        }
        check_name(&parsed.driver).map_err(|error| error.to_string())?;
        Ok(parsed)
    }
}

/// Path of a device's file, without a leading slash.
pub(super) fn place(device: Bdf) -> String {
    format!("{FOLDER}/{device}{END}")
}

/// Path for messages.
pub(super) fn shown(path: &str) -> String {
    format!("/{path}")
}

fn modalias(tree: &Tree, device: Bdf) -> Option<String> {
    tree.text(&format!("{}/modalias", functions_folder(device)))
}

/// Files of persistent bindings, judged, and compared with the host's devices. A missing directory
/// has no files.
///
/// # Errors
/// [`PersistentError::Unread`] if the directory can't be read.
pub fn persistent(tree: &Tree) -> Result<Vec<PersistentFile>, PersistentError> {
    let names = match tree.list(FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            let path = shown(FOLDER);
            return Err(PersistentError::Unread { path, source });
        }
    };
    let names = names.into_iter().filter(|name| !name.ends_with(UNFINISHED));
    let files = names.map(|name| {
        let bytes = tree.read(&format!("{FOLDER}/{name}"));
        (name, bytes.map(std::borrow::Cow::into_owned))
    });
    let mut judged = judge(files.collect());
    for file in &mut judged {
        let fault = file.binding.as_ref().ok();
        let fault = fault.and_then(|binding| binding.check_device(tree).err());
        if let Some(fault) = fault {
            file.binding = Err(fault);
        }
    }
    Ok(judged)
}

/// Judges files, given as names and contents.
fn judge(files: Vec<(String, io::Result<Vec<u8>>)>) -> Vec<PersistentFile> {
    let mut judged: Vec<_> = files
        .into_iter()
        .map(|(name, bytes)| {
            let path = shown(&format!("{FOLDER}/{}", name.escape_debug()));
            let device = name.strip_suffix(END).and_then(|name| name.parse().ok());
            let device = device.filter(|device| name == format!("{device}{END}"));
            let binding = match bytes {
                Ok(bytes) => Persistent::parse(&bytes).map_err(|why| PersistentError::Damaged {
                    path: path.clone(),
                    why,
                    device,
                }),
                Err(source) => Err(PersistentError::Unread {
                    path: path.clone(),
                    source,
                }),
            };
            (path, device, binding)
        })
        .collect();
    let parsed: Vec<_> = judged
        .iter()
        .filter_map(|(path, _, binding)| Some((path.clone(), binding.as_ref().ok()?.clone())))
        .collect();
    for (path, named, binding) in &mut judged {
        let Ok(own) = binding else { continue };
        let device = own.device;
        let differs = |(other, with): &&(String, Persistent)| {
            other != path && with.device == device && with != own
        };
        if let Some((other, with)) = parsed.iter().find(differs) {
            *binding = Err(PersistentError::Contradiction {
                device,
                path: path.clone(),
                driver: own.driver.clone(),
                other: other.clone(),
                other_driver: with.driver.clone(),
            });
        } else if *named != Some(device) {
            let path = path.clone();
            *binding = Err(PersistentError::Misnamed { path, device });
        }
        named.get_or_insert(device);
    }
    let judged = judged.into_iter();
    let judged = judged.map(|(path, device, binding)| PersistentFile {
        is_own: device.is_some_and(|device| path == shown(&place(device))),
        path,
        device,
        binding,
    });
    judged.collect()
}

/// Checks that the directory can be written, before anything else is.
pub(super) fn check_writable(host: &mut dyn Host) -> Result<(), PersistentError> {
    let written = host.configure(PROBE, Some(b""));
    let removed = written.and_then(|()| host.configure(PROBE, None));
    removed.map_err(|source| PersistentError::Unwritable { source })
}

/// Writes a device's file.
pub(super) fn save(host: &mut dyn Host, binding: &Persistent) -> Result<(), PersistentError> {
    let path = place(binding.device);
    let text = serde_json::to_string_pretty(binding).map_err(io::Error::other);
    let saved = text.and_then(|text| host.configure(&path, Some(format!("{text}\n").as_bytes())));
    saved.map_err(|source| PersistentError::Unsaved {
        now: "bound",
        path: shown(&path),
        source,
    })
}

/// Removes a device's file.
pub(super) fn forget(host: &mut dyn Host, device: Bdf) -> Result<(), PersistentError> {
    let path = place(device);
    let removed = host.configure(&path, None);
    removed.map_err(|source| PersistentError::Unsaved {
        now: "unbound",
        path: shown(&path),
        source,
    })
}
