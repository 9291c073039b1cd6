//! Parts of a kernel's source that the tests build or change: the original driver, the kernel's own
//! selftests, and the files that the driver in the kernel's own Rust changes, unpacked from Debian's
//! package once for each archive.
//!
//! An archive is compressed in one stream of 150 MiB, which takes ten seconds of a processor to
//! read, and the same parts are built for several architectures.

use std::path::{Path, PathBuf};

use varia_debian::cache::Cache;
use varia_debian::chroot::Chroot;
use varia_debian::packages::{Tree, cache_subfolder, fold_hash};

use crate::error::{LabError, Result};

/// Members of the archive, as `tar --wildcards` names them.
const PARTS: [&str; 19] = [
    "*/drivers/vfio/pci/nvgrace-gpu/*",
    "*/tools/testing/selftests/vfio/*",
    "*/tools/testing/selftests/*.h",
    "*/tools/include/*",
    "*/tools/arch/*/include/*",
    "*/include/linux/pci_ids.h",
    "*/drivers/dma/ioat/*.h",
    "*/drivers/dma/idxd/registers.h",
    // What the driver in the kernel's own Rust changes, and what checks its patches.
    "*/MAINTAINERS",
    "*/drivers/vfio/pci/Kconfig",
    "*/drivers/vfio/pci/Makefile",
    "*/rust/bindings/bindings_helper.h",
    "*/rust/helpers/helpers.c",
    "*/rust/kernel/lib.rs",
    "*/rust/kernel/mm.rs",
    "*/rust/kernel/pci.rs",
    "*/scripts/checkpatch.pl",
    "*/scripts/const_structs.checkpatch",
    "*/scripts/spelling.txt",
];

/// Folder with the parts of the archive `usr/src/linux-source-*.tar.xz` of the set `tree`, laid out as
/// in the kernel's source. It stays in the lab's cache. `tools` unpacks the archive.
///
/// # Errors
/// [`LabError::Missing`] if the set has no archive, [`LabError::Command`] with what `tar` printed.
pub(crate) fn parts(tools: &Tree, tree: &Tree) -> Result<PathBuf> {
    let archive = tree.path(&archive(tree)?.to_string_lossy());
    let mut key = archive.as_os_str().as_encoded_bytes().to_vec();
    key.extend(PARTS.concat().bytes());
    let name = format!("{:08x}", fold_hash(&key));
    let cache = Cache::at(cache_subfolder("kernel-source".as_ref())?)?;
    let made = cache.root().join(&name);
    if made.is_dir() {
        return Ok(made);
    }
    let lock = cache.lock()?;
    cache.fill(&lock, &name, |folder| unpack(tools, &archive, folder))
}

fn unpack(tools: &Tree, archive: &Path, folder: &Path) -> Result<()> {
    let mut argv = vec!["tar".into(), "-xf".into(), archive.as_os_str().to_owned()];
    argv.extend(["-C".into(), folder.as_os_str().to_owned()]);
    let options = ["--strip-components=1", "--wildcards"];
    argv.extend(options.into_iter().chain(PARTS).map(Into::into));
    let sources = archive.parent().unwrap_or(archive);
    Chroot::new(tools).bind(sources).bind(folder).run(argv)?;
    Ok(())
}

/// The kernel's source archive, as the root of the set has it.
///
/// # Errors
/// [`LabError::Missing`] if the set has none.
pub(crate) fn archive(tree: &Tree) -> Result<PathBuf> {
    let folder = tree.path("/usr/src");
    let entries = std::fs::read_dir(&folder).map_err(LabError::file("read", &folder))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    let name = names.find(|name| {
        let name = name.to_string_lossy();
        name.starts_with("linux-source-") && name.ends_with(".tar.xz")
    });
    name.map(|name| Path::new("/usr/src").join(name))
        .ok_or_else(|| {
            LabError::missing(
                format!("{} has no linux-source-*.tar.xz", folder.display()),
                "remove the set and fetch it again (./x lab fetch)",
            )
        })
}
