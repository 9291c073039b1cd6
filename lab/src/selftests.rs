//! The kernel's own VFIO selftests, built from Debian's kernel source by `lab/selftests/build.sh`.

use std::fs;
use std::path::PathBuf;

use varia_debian::ArchNames;
use varia_debian::packages::{self, Set};

use crate::agent_build::{compiler, workspace};
use crate::error::{LabError, Result};
use crate::flavour::Flavour;
use crate::kernel_modules::Target;
use crate::kernel_source;

/// The programs of a kernel's series, static, by name.
///
/// # Errors
/// [`LabError::Command`] with what the compiler said, and those of fetching it.
pub fn vfio(flavour: Flavour) -> Result<Vec<PathBuf>> {
    let arch = flavour.arch();
    let (of_debian, sources) = match flavour.series() {
        None => (Flavour::Debian(arch), packages::ensure(Set::Tools)?),
        Some(series) => (Flavour::Next(arch), packages::ensure(Set::Headers(series))?),
    };
    let mut target = Target::find(of_debian)?;
    let source = kernel_source::parts(&target.tools, &sources)?;
    target.bound.push(source.clone());
    let compiler = compiler(&target.tools, arch)?;
    let script = workspace().join("lab/selftests/build.sh");
    // The script makes this one last.
    let last = "bin/vfio_pci_sriov_uapi_test";
    let built = target.build("selftests", last, &["lab/selftests"], |out| {
        let argv = [
            script.into_os_string(),
            arch.debian().into(),
            source.into(),
            out.into(),
        ];
        (argv.to_vec(), vec![("CC", compiler)])
    })?;
    let folder = built.with_file_name("");
    let entries = fs::read_dir(&folder).map_err(LabError::file("read", &folder))?;
    let mut programs: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    programs.sort();
    Ok(programs)
}
