//! Kernels for lab machines: the image, and modules with what they depend on.
//!
//! Module dependencies are read from the modules themselves (`depends=` in `.modinfo`):
//! Debian's packages carry no `modules.dep`, which is made at installation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use varia_debian::Series;
use varia_debian::elf::Elf;
use varia_debian::packages::{self, Set};
use varia_units::Arch;

use crate::error::{LabError, Result};
use crate::flavour::Flavour;
use crate::kernel_build;

/// A kernel that a machine can boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Architecture of the kernel.
    pub arch: Arch,
    /// The bootable image.
    pub image: PathBuf,
    modules: Modules,
}

/// A module, ready to be put into a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name of the module, with underscores.
    pub name: String,
    /// The uncompressed `.ko` file.
    pub bytes: Vec<u8>,
}

impl Kernel {
    /// A kernel of the lab's, of its generation; fetched or built if need be.
    ///
    /// # Errors
    /// Those of [`packages::ensure`] and [`kernel_build::ensure`], and [`LabError::Io`].
    pub fn of(flavour: impl Into<Flavour>) -> Result<Self> {
        let flavour = flavour.into();
        let set = match flavour {
            Flavour::Debian(arch) => Set::Guest(arch),
            Flavour::Debian16k => Set::Kernel16k,
            Flavour::Next(arch) => Set::Kernel(Series::Next, arch),
            Flavour::Next16k => {
                return Err(LabError::missing(
                    format!("the lab has no kernel {flavour} to boot"),
                    "boot another one; modules are built for it",
                ));
            }
            Flavour::Debug64k | Flavour::NextDebug64k | Flavour::RustAmd64 => {
                let built = kernel_build::ensure(flavour)?;
                return Self::custom(flavour.arch(), built.image(), Some(&built.modules()));
            }
        };
        let tree = packages::ensure(set)?;
        let folder = tree
            .path("/usr/lib/modules")
            .join(tree.kernel_release(flavour.name()));
        Self::custom(flavour.arch(), folder.join("vmlinuz"), Some(&folder))
    }

    /// A kernel of one's own: its image, and the folder with its modules if it has any.
    ///
    /// # Errors
    /// [`LabError::Missing`] if there is no such image, [`LabError::Io`].
    pub fn custom(arch: Arch, image: PathBuf, modules: Option<&Path>) -> Result<Self> {
        if !image.is_file() {
            let what = format!("there is no kernel image {}", image.display());
            return Err(LabError::missing(what, "build it, or name another"));
        }
        let modules = modules.map_or_else(|| Ok(Modules::default()), Modules::in_folder)?;
        Ok(Self {
            arch,
            image,
            modules,
        })
    }

    /// The modules that loading `name` takes, in the order to load them: dependencies
    /// first, the module itself last. What is built into the kernel is left out.
    ///
    /// # Errors
    /// [`LabError::Module`] if it does not exist or can't be read.
    pub fn module(&self, name: &str) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        self.modules
            .add(&normal(name), &mut BTreeSet::new(), &mut order)?;
        Ok(order)
    }

    /// [`Kernel::module`] for a module file of the caller's (`.ko` or `.ko.xz`).
    ///
    /// # Errors
    /// [`LabError::Module`] and [`LabError::Io`].
    pub fn module_file(&self, path: &Path) -> Result<Vec<Module>> {
        let bytes = read_module(path)?;
        let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
        for name in dependencies(&path.display().to_string(), &bytes)? {
            self.modules.add(&name, &mut seen, &mut order)?;
        }
        let name = path
            .file_name()
            .and_then(|name| module_name(&name.to_string_lossy()));
        let name = name.ok_or_else(|| LabError::Module {
            name: path.display().to_string(),
            why: "its name does not end in .ko".to_owned(),
        })?;
        order.push(Module { name, bytes });
        Ok(order)
    }
}

/// A folder of modules.
#[derive(Clone, Debug, Default)]
struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl Modules {
    fn in_folder(folder: &Path) -> Result<Self> {
        let mut modules = Self::default();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(LabError::file("read", &folder))? {
                let entry = entry.map_err(LabError::file("read", &folder))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
                    modules.files.insert(name, entry.path());
                }
            }
        }
        let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        modules.builtin = builtin
            .lines()
            .filter_map(|line| module_name(line.rsplit('/').next().unwrap_or_default()))
            .collect();
        Ok(modules)
    }

    /// Appends what `name` takes to `order`, itself last, each module once.
    fn add(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.files.get(name).ok_or_else(|| LabError::Module {
            name: name.to_owned(),
            why: "the kernel has no such module".to_owned(),
        })?;
        let bytes = read_module(path)?;
        for dependency in dependencies(name, &bytes)? {
            self.add(&dependency, seen, order)?;
        }
        order.push(Module {
            name: name.to_owned(),
            bytes,
        });
        Ok(())
    }
}

/// The normal form of a module's name: the kernel takes dashes for underscores.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The module's name, from the name of its file.
fn module_name(file: &str) -> Option<String> {
    file.strip_suffix(".ko")
        .or_else(|| file.strip_suffix(".ko.xz"))
        .map(normal)
}

fn dependencies(name: &str, bytes: &[u8]) -> Result<Vec<String>> {
    let elf = Elf::parse(bytes).ok_or_else(|| LabError::Module {
        name: name.to_owned(),
        why: "it is not a 64-bit ELF file".to_owned(),
    })?;
    let lists = elf.modinfo("depends");
    Ok(lists
        .iter()
        .flat_map(|list| list.split(','))
        .filter(|n| !n.is_empty())
        .map(normal)
        .collect())
}

/// Bytes of a module file, decompressed if its name ends in `.xz`.
///
/// # Errors
/// [`LabError::Io`].
pub(crate) fn read_module(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(LabError::file("read", path))?;
    if path.extension().is_none_or(|end| end != "xz") {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    lzma_rust2::XzReader::new(bytes.as_slice(), true)
        .read_to_end(&mut plain)
        .map_err(LabError::file("decompress", path))?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_normalised() {
        assert_eq!(
            module_name("vfio-pci-core.ko.xz").as_deref(),
            Some("vfio_pci_core")
        );
        assert_eq!(module_name("own.ko").as_deref(), Some("own"));
        assert_eq!(module_name("modules.order"), None);
    }

    #[test]
    fn a_module_that_is_none_is_named_in_the_error() {
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("Image");
        let module = scratch.path().join("fake.ko");
        fs::write(&image, "").unwrap();
        fs::write(&module, "text").unwrap();
        let kernel = Kernel::custom(Arch::X86_64, image, None).unwrap();
        let error = kernel.module_file(&module).unwrap_err().to_string();
        assert!(
            error.contains("fake.ko") && error.contains("not a 64-bit ELF"),
            "{error}"
        );
        let error = kernel.module("no-such").unwrap_err().to_string();
        assert_eq!(
            error,
            "kernel module no_such: the kernel has no such module"
        );
    }
}
