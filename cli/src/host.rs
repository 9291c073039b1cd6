//! `varia host`: a machine that plays a host of GPUs, from an unchanged disk image.
//!
//! | module | contents |
//! |---|---|
//! | `topology` | chips, sockets and GPUs of each topology |
//! | `image` | checks of the disk image |
//! | `request` | accelerator, firmware and GPUs of the plan |
//! | `command_line` | QEMU's arguments |
//! | `served` | memory and servers of the GPUs |
//! | `directory` | sockets, console and lock of a running host |
//! | `ready` | wait for a host that can be used |
//!
//! One process serves all GPUs, as `varia serve --as physical` does, and has a control socket for
//! `varia ctl` and `varia host-fault`. QEMU is a child that ends with it.

mod command_line;
mod directory;
mod image;
mod ready;
mod request;
mod served;
mod topology;

use std::{
    fs,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    thread,
    time::Instant,
};

use serde_json::json;
use varia_firmware::early_program;
use varia_plan::BareHostPlan;
use varia_sys::{limits, parent::end_with_parent};

use crate::{
    Failure,
    args::{BareHostArgs, HostFault, HostFaultArgs},
    fleet::{check_private, control, ctl},
    output::print,
    qemu,
};

use command_line::Setup;
use directory::Held;
use image::Image;
use ready::Console;
use request::Request;
use served::Served;

/// Runs a host until it powers off or a signal ends it.
pub(crate) fn host(args: &BareHostArgs) -> Result<ExitCode, Failure> {
    let topology = topology::find(&args.topology)?;
    let image = image::judge(&args.disk, topology.arch, args.snapshot)?;
    let request = Request::new(args, topology)?;
    if args.dry_run {
        draw(&request)?;
        return dry_run(&request, &image);
    }
    let program = qemu::find(topology.arch, args.qemu.as_deref())?;
    draw(&request)?;
    let port = args.ssh.map(request::free_port).transpose()?;
    let held = Held::take(args.directory.as_deref())?;
    let planned = request.plan(held.path())?;
    if let Err(error) = limits::raise_open_files() {
        log::warn!("the limit of open files can't be raised to its hard limit: {error}");
    }
    for note in planned.plan.notes.iter().chain(&image.not_judged) {
        log::info!("{note}");
    }
    let (early, console) = (held.early(), held.console());
    held.create(
        directory::EARLY,
        &early_program(&planned.writes(), &planned.table),
    )?;
    held.create(directory::CONSOLE, b"")?;
    let memories = served::memories(&planned)?;
    let files: Vec<_> = memories.iter().map(served::path_of).collect();
    let served = Served::start(&planned, request.profile, args.memory, &files, held.path())?;
    let setup = Setup {
        args,
        format: image.format,
        port,
        console: &console,
        early: &early,
    };
    let (name, how) = (topology.name, request.chosen.text());
    log::info!("{name} by {how}; sockets in {}", held.path().display());
    let target = Arc::new(qemu::Target::default());
    let of_handler = Arc::clone(&target);
    ctrlc::set_handler(move || of_handler.stop())?;
    let mut command = Command::new(&program);
    command.args(setup.arguments(&planned, &files));
    if args.wait_ready {
        // standard output is for the line of JSON
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    end_with_parent(&mut command);
    let begin = Instant::now();
    let mut child = command.spawn()?;
    target.set(&child)?;
    let ready = || report(&planned, &request, &setup, held.path(), begin);
    let status = watch(&mut child, &setup, ready);
    if status.is_err() {
        target.stop();
        child.wait()?;
    }
    served.end()?;
    status
}

/// Draws the topology, if that was asked for.
fn draw(request: &Request<'_>) -> Result<(), Failure> {
    let Some(file) = &request.args.svg else {
        return Ok(());
    };
    let planned = request.plan(&directory::default())?;
    fs::write(file, varia_plan::svg(&planned.plan))
        .map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Prints QEMU's command.
fn dry_run(request: &Request<'_>, image: &Image) -> Result<ExitCode, Failure> {
    let args = request.args;
    let directory = args.directory.clone().unwrap_or_else(directory::default);
    let planned = request.plan(&directory)?;
    for note in planned.plan.notes.iter().chain(&image.not_judged) {
        log::info!("{note}");
    }
    let of_memory = |gpu: usize| directory.join(format!("gpu{gpu}.memory"));
    let files = planned.memories.iter().map(|memory| of_memory(memory.gpu));
    let setup = Setup {
        args,
        format: image.format,
        port: args.ssh,
        console: &directory.join(directory::CONSOLE),
        early: &directory.join(directory::EARLY),
    };
    let words = setup.arguments(&planned, &files.collect::<Vec<_>>());
    let program = args.qemu.clone();
    let program =
        program.unwrap_or_else(|| format!("qemu-system-{}", request.topology.arch).into());
    let program = program.to_string_lossy();
    let program = shell_words::quote(&program);
    print(&format!("{program} {}\n", shell_words::join(words)))?;
    Ok(ExitCode::SUCCESS)
}

/// Waits for QEMU's end. Gives hints, and prints the report once the host can be used.
fn watch(
    child: &mut Child,
    setup: &Setup<'_>,
    ready: impl Fn() -> Result<String, Failure>,
) -> Result<ExitCode, Failure> {
    let mut console = Console::new(setup.console);
    let mut is_told = !setup.args.wait_ready;
    loop {
        let ended = child.try_wait()?;
        for hint in console.poll() {
            log::info!("{hint}");
        }
        if let Some(status) = ended {
            if !is_told {
                let text = format!(
                    "the host ended ({status}) before it was ready; the end of its console:\n{}",
                    last_lines(setup.console)
                );
                return Err(text.into());
            }
            return Ok(match status.success() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            });
        }
        let is_ready = || match setup.port {
            Some(port) => ready::answers(port),
            None => console.asks_for_login(),
        };
        if !is_told && is_ready() {
            print(&ready()?)?;
            is_told = true;
        }
        thread::sleep(ready::POLL);
    }
}

/// A line of JSON about a host that can be used.
fn report(
    planned: &BareHostPlan,
    request: &Request<'_>,
    setup: &Setup<'_>,
    directory: &Path,
    begin: Instant,
) -> Result<String, Failure> {
    let gpus = planned.plan.gpus.iter().enumerate().map(|(index, gpu)| {
        let memory = planned.memories.iter().find(|memory| memory.gpu == index);
        json!({
            "number": index,
            "name": gpu.memory.device.id,
            "profile": request.profile.name,
            "socket": gpu.socket.0,
            "pci": gpu.guest_function(0).map(|function| function.to_string()),
            "memory-base": memory.map(|memory| format!("{:#x}", memory.base.0)),
            "nodes": gpu.memory.nodes().map(|node| node.0).collect::<Vec<_>>(),
        })
    });
    let ssh = setup
        .port
        .map(|port| json!({ "address": "127.0.0.1", "port": port }));
    let value = json!({
        "ready": true,
        "topology": request.topology.name,
        "accelerator": request.chosen.accelerator,
        "seconds": begin.elapsed().as_secs_f64(),
        "ssh": ssh,
        "directory": directory,
        "console": setup.console,
        "control": directory.join(control::SOCKET),
        "gpus": gpus.collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string(&value)? + "\n")
}

/// The last lines of a console.
fn last_lines(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let first = lines.len().saturating_sub(20);
    lines.get(first..).unwrap_or_default().join("\n")
}

/// `varia host-fault`: a fault of a GPU of a running host.
pub(crate) fn fault(args: &HostFaultArgs) -> Result<(), Failure> {
    let directory = args.directory.clone().unwrap_or_else(directory::default);
    if args.directory.is_none() && directory.exists() {
        check_private(&directory)?;
    }
    let socket = directory.join(control::SOCKET);
    if !socket.exists() {
        let text = format!(
            "no host runs with the directory {}: start one, or name its --directory",
            directory.display()
        );
        return Err(text.into());
    }
    let faults = match args.fault {
        HostFault::LinkDown => vec!["c2c-down".to_owned()],
        HostFault::ReadinessLost => vec!["lost-after-resets=0".to_owned()],
        HostFault::PoisonedPage => vec!["poisoned-page=0".to_owned()],
        HostFault::Gone => vec!["gone-after=0".to_owned()],
        HostFault::None => Vec::new(),
    };
    let device = format!("gpu{}", args.gpu);
    let request = control::Request::Fault {
        device,
        fault: faults,
    };
    ctl::ask(&socket, &request, None).map(drop)
}
