//! `varia node`: the Kubernetes device plugin.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use varia_allocate::{Observed, Pool};
use varia_linux::bind;
use varia_linux::inventory::{Extent, Inventory};
use varia_node::{Access, Holds, Live, Settings};

use crate::{
    Failure,
    args::{NodeAccess, NodeArgs, NodeCommand, NodeRunArgs, NodeStatusArgs},
    list::host,
    output::print,
};

/// Runs the plugin, or shows what it would offer.
pub(crate) fn node(args: &NodeArgs) -> Result<ExitCode, Failure> {
    match &args.command {
        NodeCommand::Run(args) => run(args)?,
        NodeCommand::Status(args) => status(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run(args: &NodeRunArgs) -> Result<(), Failure> {
    if let Some(root) = args.sysfs.as_ref().filter(|root| !root.is_dir()) {
        return Err(format!(
            "{} is not a directory: unpack the captured host first",
            root.display()
        )
        .into());
    }
    if let Some(tables) = args.acpi.as_ref().filter(|tables| !tables.is_dir()) {
        return Err(format!(
            "{} is not a directory: mount the host's /sys/firmware/acpi/tables there",
            tables.display()
        )
        .into());
    }
    check_domain(&args.resource_domain)?;
    let _only = only_process(args)?;
    let settings = Settings {
        domain: args.resource_domain.clone(),
        access: args.access.map(|access| match access {
            NodeAccess::Group => Access::Group,
            NodeAccess::Cdev => Access::Cdev,
        }),
        binds: args.bind,
        interval: args.interval,
        release_after: args.release_after,
        plugins: args.plugins.clone(),
        pods: args.pods.clone(),
        http: args.http,
        ..Settings::default()
    };
    let machine = Live::new(args.sysfs.as_deref(), args.acpi.as_deref(), &args.state)?;
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = stop.clone();
    ctrlc::set_handler(move || stop.notify_one())?;
    varia_node::run(machine, settings, async move { stopped.notified().await })?;
    Ok(())
}

/// Locks of the one process that uses a directory of state, and of the one that serves a kubelet.
fn only_process(args: &NodeRunArgs) -> Result<[File; 2], Failure> {
    let path = args.state.join("node.lock");
    let unusable = |error: io::Error| {
        format!(
            "can't use {}: {error}: run varia node as root, or name another directory with --state",
            path.display()
        )
    };
    fs::create_dir_all(&args.state).map_err(unusable)?;
    let state = File::create(&path).map_err(unusable)?;
    let unusable = |error: io::Error| {
        format!(
            "can't use {}: {error}: run varia node as root, or name the kubelet's directory with \
             --plugins",
            args.plugins.display()
        )
    };
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(&args.plugins);
    made.map_err(unusable)?;
    // the directory itself: a kubelet that starts removes the files in it
    let plugins = File::open(&args.plugins).map_err(unusable)?;
    for (lock, place) in [(&state, &args.state), (&plugins, &args.plugins)] {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(format!(
                    "another varia node uses {}: stop it: one process hands out all GPUs of a host",
                    place.display()
                )
                .into());
            }
            Err(error) => {
                return Err(format!(
                    "can't lock {}: {error}: put the directory on a local file system",
                    place.display()
                )
                .into());
            }
        }
    }
    Ok([state, plugins])
}

/// Checks that a name can be the domain of a resource: the kubelet would refuse another one.
fn check_domain(domain: &str) -> Result<(), Failure> {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() <= 200 && domain.split('.').all(is_label) && !domain.contains("kubernetes.io") {
        return Ok(());
    }
    Err(format!(
        "{domain:?} can't be the domain of a resource: give small letters, digits, - and ., such as \
         gpus.example.com"
    )
    .into())
}

fn status(args: &NodeStatusArgs) -> Result<(), Failure> {
    let tree = host(&args.host)?;
    let inventory = Inventory::of(&tree, Extent::Served)?;
    let pool = Pool::new(&inventory.facts, &Observed::default());
    let holds = match tree.is_live() {
        true => Holds::load(&bind::Live::to_read(tree, &args.state))?,
        false => Holds::none(&tree),
    };
    print(&varia_node::status(
        &inventory.facts,
        &pool,
        &holds,
        &args.resource_domain,
    ))
}
