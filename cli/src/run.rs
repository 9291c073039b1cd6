//! `varia run`: QEMU with a device, its nodes and initiators.

use std::{
    path::Path,
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use varia_plan::{Arch, Machine, VfioUserGpu, coherent};
use varia_serve::{Backend, View};
use varia_sys::{event::EventFd, socket::Listener};
use varia_vfio_user::server::Server;

use crate::{
    Failure,
    args::RunArgs,
    device::{Made, default_socket, make},
    inspect, print, qemu,
};

/// Serves the device to a QEMU that it starts, until that ends.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let made = make(&args.device, &args.behaviour, View::Virtual, false)?;
    if args.dry_run {
        let socket = default_socket(made.profile.name);
        let arguments = arguments(args, &made, &socket)?;
        let program = args
            .qemu
            .clone()
            .unwrap_or_else(|| format!("qemu-system-{}", args.arch).into());
        let text = format!(
            "varia serve {} --socket {} &\n{} {}",
            made.profile.name,
            shell_words::quote(&socket.to_string_lossy()),
            shell_words::quote(&program.to_string_lossy()),
            shell_words::join(&arguments)
        );
        print(&(text + "\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let directory = tempfile::Builder::new().prefix("varia-").tempdir()?;
    let socket = directory.path().join("gpu0.sock");
    let arguments = arguments(args, &made, &socket)?;
    let program = qemu::find(args.arch, args.qemu.as_deref())?;
    let listener = Listener::bind(&socket)?;
    let stop = EventFd::new()?;
    let server = Server::new(Backend::new(Arc::clone(&made.endpoint)));
    // A Ctrl-C on the terminal goes to QEMU too, which ends by itself; this ends with it.
    ctrlc::set_handler(|| {})?;
    let status = thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_forever(&listener, &stop));
        let status = Command::new(&program).args(&arguments).status();
        stop.trigger()?;
        match serving.join() {
            Ok(served) => served?,
            Err(_) => return Err("the server ended with a panic".into()),
        }
        Ok::<_, Failure>(status?)
    })?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// QEMU's arguments for the machine that was asked for.
fn arguments(args: &RunArgs, made: &Made, socket: &Path) -> Result<Vec<String>, Failure> {
    let gpu = VfioUserGpu {
        id: "gpu0".into(),
        socket: socket.to_owned(),
        bars: inspect::regions(made)
            .iter()
            .map(|region| region.size)
            .collect(),
    };
    let machine = Machine {
        arch: args.arch,
        cpus: args.cpus,
        ram_mib: args.ram.0 >> 20,
        gpus: coherent::assign(vec![gpu], args.nodes)?,
    };
    let mut arguments = machine.arguments()?;
    let mut option = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
    let path = |path: &Path| path.to_string_lossy().into_owned();
    match (&args.bios, args.arch) {
        (Some(bios), _) => option("bios", path(bios)),
        (None, Arch::Aarch64) => option("bios", path(&qemu::firmware()?)),
        (None, Arch::X86_64) => {}
    }
    if let Some(kernel) = &args.kernel {
        option("kernel", path(kernel));
        let extra = args.append.as_deref().unwrap_or_default();
        option(
            "append",
            format!("console={} {extra}", args.arch.console())
                .trim_end()
                .into(),
        );
    }
    if let Some(initrd) = &args.initrd {
        option("initrd", path(initrd));
    }
    if let Some(disk) = &args.disk {
        // A comma in a file name is doubled in QEMU's options.
        option(
            "drive",
            format!("if=virtio,file={}", path(disk).replace(',', ",,")),
        );
    }
    arguments.push("-nographic".into());
    arguments.extend(args.qemu_arg.iter().cloned());
    Ok(arguments)
}
