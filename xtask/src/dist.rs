//! `./x dist` and `./x deb`: the command as others get it.

use std::path::PathBuf;

use varia_lab::progress::{Progress, Unit};
use varia_lab::{Arch, command_package, dist};

use crate::Outcome;

/// Makes the static programs, and prints the paths of the files.
pub(crate) fn files(out: Option<PathBuf>) -> Outcome {
    let progress = Progress::start("build the programs", Unit::Items, 0);
    let paths = dist::all(&out.unwrap_or_else(dist::folder))?;
    progress.finish();
    for path in paths {
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes the packages, and prints their paths.
pub(crate) fn packages(arch: Option<Arch>, out: Option<PathBuf>) -> Outcome {
    let folder = out.unwrap_or_else(command_package::folder);
    let archs = arch.map_or_else(|| Arch::ALL.to_vec(), |arch| vec![arch]);
    for arch in archs {
        let progress = Progress::start(format!("make the package for {arch}"), Unit::Items, 0);
        let package = command_package::deb(arch, &folder)?;
        progress.finish();
        println!("{}", package.display());
    }
    Ok(())
}
