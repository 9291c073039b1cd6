//! `./x lab`: packages, and a machine for a person.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use varia_lab::progress::{Progress, Unit};
use varia_lab::{Arch, Set, Vm, agent_build, chroot, host_arch, packages};

use crate::{Outcome, arch};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch what the tests need, for instance before going offline.
    Fetch {
        /// Ask the mirror for newer packages too.
        #[arg(long)]
        refresh: bool,
    },
    /// Show which versions of which packages the lab uses.
    Versions,
    /// Boot a machine with a shell on its console (Ctrl-A x leaves).
    Shell {
        /// aarch64 or x86_64.
        #[arg(long, default_value = "x86_64", value_parser = arch)]
        arch: Arch,
        /// Kernel modules to load.
        #[arg(long = "module", value_name = "NAME")]
        modules: Vec<String>,
        /// A folder that the machine has, read-only, at /share/host.
        #[arg(long, value_name = "FOLDER")]
        share: Option<PathBuf>,
        /// Attach the vfio-user device that is served on this socket.
        #[arg(long, value_name = "SOCKET")]
        device: Option<PathBuf>,
        /// Further arguments for QEMU.
        #[arg(last = true)]
        qemu_args: Vec<String>,
    },
}

pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Fetch { refresh: true } => packages::refresh(&Set::all())?,
        Command::Fetch { refresh: false } => {
            for set in Set::all() {
                packages::ensure(set)?;
            }
            println!("everything is in {}", packages::cache_folder()?.display());
        }
        Command::Versions => print!("{}", packages::report()?),
        Command::Shell {
            arch,
            modules,
            share,
            device,
            qemu_args,
        } => {
            let mut vm = Vm::new(arch).name("shell").qemu_args(qemu_args);
            for module in modules {
                vm = vm.module(module);
            }
            if let Some(folder) = share {
                vm = vm.share(folder.canonicalize()?, "host");
            }
            if let Some(socket) = device {
                vm = with_device(vm, &socket);
            }
            build_agent(arch)?;
            eprintln!("Ctrl-A x ends the machine, Ctrl-A h helps");
            vm.shell()?;
        }
    }
    Ok(())
}

/// Builds the agent, saying so: the first time takes a while.
pub(crate) fn build_agent(arch: Arch) -> Outcome {
    // Fetched first: two steps that show progress at a time would mix.
    if host_arch()? != arch {
        packages::ensure(Set::RustCross)?;
        if chroot::refusal().is_some() {
            packages::ensure(Set::Proot)?;
        }
    }
    let progress = Progress::start(format!("build the guest agent for {arch}"), Unit::Items, 0);
    agent_build::agent(arch)?;
    progress.finish();
    Ok(())
}

/// Prints the difference on a machine that refuses user namespaces, and how to allow them.
pub(crate) fn tell_of_namespaces() {
    if let Some(refusal) = chroot::refusal() {
        eprintln!(
            "This machine refuses user namespaces ({refusal}). Everything runs without them too, but \
             fetched compilers and tools run under proot, and what they build takes several times \
             as long. To allow them, as root: `sysctl kernel.apparmor_restrict_unprivileged_userns=0` \
             (Ubuntu), `sysctl kernel.unprivileged_userns_clone=1` (Debian) or \
             `sysctl user.max_user_namespaces=10000`."
        );
    }
}

/// A machine with a vfio-user device, and room for BARs of any size.
fn with_device(vm: Vm, socket: &Path) -> Vm {
    let vm = match vm.arch() {
        Arch::Aarch64 => vm.machine("highmem-mmio-size=1T"),
        Arch::X86_64 => vm,
    };
    vm.vfio_user("dev0", socket)
}
