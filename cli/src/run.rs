//! `varia run`: QEMU with a device, its nodes and initiators.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
    thread,
};

use clap::ValueEnum;
use varia_facts::Arch;
use varia_plan::{Emulated, NODES_PER_GPU};
use varia_serve::{Backend, View};
use varia_spec::vfio::RegionIndex;
use varia_sys::{event::EventFd, socket::Listener};
use varia_variant::Region;
use varia_vfio_user::server::Server;

use crate::{
    Failure,
    args::{BehaviourArgs, LayoutArg, ReadyAfter, RunArgs},
    device::{Given, Made, default_socket, make},
    inspect,
    output::print,
    qemu,
};

/// Serves the device to a QEMU that it starts, until that ends.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let ram = args.ram;
    if ram.0 == 0 || !ram.0.is_multiple_of(1 << 20) {
        let text = format!("a guest can't have {ram} of RAM: give it whole MiB, as in --ram 2G");
        return Err(text.into());
    }
    if args.device.shape.layout == Some(LayoutArg::Region) {
        let text = "QEMU maps no device-specific region into a guest, and --layout region presents \
                    the memory as such: use --layout bar";
        return Err(text.into());
    }
    let mut made = make(
        &args.device,
        &args.behaviour,
        View::Virtual,
        false,
        Given::default(),
    )?;
    let regions = (RegionIndex::COUNT..made.endpoint.info().num_regions).map(RegionIndex);
    for index in regions {
        if let Region::Memory(memory) = made.endpoint.region(index) {
            let (name, what) = (made.profile.name, memory.name());
            let text = format!(
                "QEMU maps no device-specific region into a guest, and a {name} presents its {what} as \
                 such: use varia serve, with a client that maps the region"
            );
            return Err(text.into());
        }
    }
    if args.dry_run {
        let socket = default_socket(&args.device.profile);
        let arguments = arguments(args, &made, &socket)?;
        let program = args
            .qemu
            .clone()
            .unwrap_or_else(|| format!("qemu-system-{}", args.arch).into());
        let text = format!(
            "{} &\n{} {}\n",
            shell_words::join(serve_command(args, &socket)),
            shell_words::quote(&program.to_string_lossy()),
            shell_words::join(&arguments)
        );
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let directory = tempfile::Builder::new().prefix("varia-").tempdir()?;
    let socket = directory.path().join("gpu0.sock");
    let arguments = arguments(args, &made, &socket)?;
    let program = qemu::find(args.arch, args.qemu.as_deref())?;
    let listener = Listener::bind(&socket)?;
    let stop = EventFd::new()?;
    let server = Server::new(Backend::new(Arc::clone(&made.endpoint)));
    // A signal to stop is for QEMU, and this process ends with QEMU.
    let target = Arc::new(qemu::Target::default());
    let of_handler = Arc::clone(&target);
    ctrlc::set_handler(move || of_handler.stop())?;
    let mut child = Command::new(&program).args(&arguments).spawn()?;
    made.fresh.keep();
    target.set(&child)?;
    let status = thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_forever(&listener, &stop));
        let status = child.wait();
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

/// Firmware for an arm64 guest. Where there is none, a dry run says where it would be.
fn firmware(args: &RunArgs) -> Result<PathBuf, Failure> {
    match qemu::firmware() {
        Err(error) if args.dry_run => {
            log::warn!("{error}");
            Ok(qemu::FIRMWARE[0].into())
        }
        found => Ok(found?),
    }
}

/// The `varia serve` that offers the device which a dry run plans with.
fn serve_command(args: &RunArgs, socket: &Path) -> Vec<String> {
    let mut words = vec!["varia".into(), "serve".into(), args.device.profile.clone()];
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    option("socket", socket.to_string_lossy().into_owned());
    if let Some(memory) = args.device.shape.memory {
        option("memory", memory.suffixed().to_string());
    }
    if let Some(value) = args
        .device
        .shape
        .layout
        .and_then(|layout| layout.to_possible_value())
    {
        option("layout", value.get_name().to_owned());
    }
    if let Some(clique) = args.device.shape.gpudirect_clique {
        option("gpudirect-clique", clique.to_string());
    }
    if let Some(file) = &args.device.shape.platform {
        option("platform", file.to_string_lossy().into_owned());
    }
    for extension in &args.device.shape.extension {
        if let Some(value) = extension.to_possible_value() {
            option("extension", value.get_name().to_owned());
        }
    }
    let BehaviourArgs {
        backing,
        base,
        ready_after,
        fault,
        copy_engine,
    } = &args.behaviour;
    if let Some(backing) = backing {
        option("backing", backing.to_string_lossy().into_owned());
    }
    if let Some(base) = base {
        option("base", format!("{:#x}", base.0));
    }
    match ready_after {
        None => {}
        Some(ReadyAfter::Seconds(seconds)) => option("ready-after", seconds.to_string()),
        Some(ReadyAfter::Never) => option("ready-after", "never".into()),
    }
    for fault in fault {
        option("fault", fault.to_string());
    }
    if *copy_engine {
        words.push("--copy-engine".to_owned());
    }
    if args.device.shape.strict {
        words.push("--strict".to_owned());
    }
    words
}

/// QEMU's arguments for the machine that was asked for.
fn arguments(args: &RunArgs, made: &Made, socket: &Path) -> Result<Vec<String>, Failure> {
    let nodes = args.nodes.unwrap_or(match made.silicon.coherent_memory() {
        Some(_) => NODES_PER_GPU,
        None => 0,
    });
    let plan = Emulated {
        arch: args.arch,
        cpus: args.cpus,
        memory: args.ram,
        gpus: vec![(socket.to_owned(), inspect::bars(made)?)],
        nodes_per_gpu: nodes,
    }
    .plan()?;
    let mut arguments: Vec<_> = varia_plan::arguments(&plan)
        .into_iter()
        .flat_map(|argument| [argument.option.to_owned(), argument.value])
        .collect();
    let mut option = |name: &str, value: String| arguments.extend([format!("-{name}"), value]);
    let path = |path: &Path| path.to_string_lossy().into_owned();
    match (&args.bios, args.arch) {
        (Some(bios), _) => option("bios", path(bios)),
        (None, Arch::Aarch64) => option("bios", path(&firmware(args)?)),
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
