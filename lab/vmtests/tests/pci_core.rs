//! The kernel's vfio-pci judges the user-space core: the same random operations on two equal
//! devices in one machine, one behind each.
//!
//! QEMU's VFIO layer stands between the silicon and the machine's raw configuration space, but
//! both cores run over what is on the same side of it.

#[path = "pci_core/igd.rs"]
mod igd;
#[path = "pci_core/zdev.rs"]
mod zdev;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use varia_agent::applets::pci_core::Outcome;
use varia_differential::pci::{Answer, Coverage, Op, allowed, compare, operations, places};
use varia_differential::series_of;
use varia_lab::{Arch, Flavour, GuestCommand, HANG, Running, Task, VfioUser, Vm};
use varia_serve::View;
use varia_silicon::profile::Body;
use varia_silicon::{Options, Profile, profile};
use varia_spec::pci::ext_cap;
use varia_vmtests::gpu::Gpu;

const SEED: u64 = 20_261_121;

/// Number of operations on each; `./x soak` asks for more.
fn count() -> usize {
    let asked = std::env::var("VARIA_COUNT").ok();
    asked.map_or(6000, |count| {
        count.parse().expect("VARIA_COUNT is a number")
    })
}

/// The function behind the root port in this slot of the root bus.
fn behind_port(vm: &Running, slot: usize) -> Result<String, Box<dyn Error>> {
    let port = format!("/sys/bus/pci/devices/0000:00:{slot:02x}.0");
    let names = vm.list(&port)?;
    let function = |name: &&String| name.starts_with("0000:") && name.ends_with(":00.0");
    let found = names.iter().find(function);
    found
        .cloned()
        .ok_or_else(|| format!("there is no function behind {port}").into())
}

/// Starts the operations on both cores over two devices of a profile.
fn start(vm: &Running, (kernel, ours): (&str, &str), count: usize) -> Result<Task, Box<dyn Error>> {
    vm.bind(kernel, "vfio-pci")?;
    // the machine's own virtio driver takes any card, and its BARs with it
    let driver = format!("/sys/bus/pci/devices/{ours}/driver");
    if vm.link_name(&driver).is_ok() {
        vm.write(&format!("{driver}/unbind"), ours)?;
    }
    let (seed, count) = (SEED.to_string(), count.to_string());
    let command = GuestCommand::applet("pci-core", &[kernel, ours, &seed, &count]).limit(limit());
    Ok(vm.spawn(&command)?)
}

fn limit() -> Duration {
    HANG * (1 + count() as u32 / 10_000)
}

/// Number of hot resets that the kernel carried out; `None` if the device has none.
fn hot_resets(ops: &[Op], kernel: &[Answer]) -> Option<usize> {
    let answers = |wanted: Op| {
        let all = ops.iter().zip(kernel);
        all.filter(move |(op, _)| **op == wanted)
            .map(|(_, answer)| answer.result)
    };
    answers(Op::HotResetInfo).next()?.ok()?;
    let succeeded = answers(Op::HotReset { owned: true }).filter(Result::is_ok);
    Some(succeeded.count())
}

/// A machine with vfio-pci and room for the BARs of every profile.
fn machine(flavour: Flavour) -> Vm {
    Vm::new(flavour)
        .name("pci-core")
        .cpu("max,phys-bits=48")
        .iommu()
        .module("vfio_pci")
        .module("vfio_iommu_type1")
}

fn device(index: usize, socket: &Path) -> VfioUser {
    let mut device = VfioUser::new(format!("device{index}"), socket);
    // After a bus reset Linux waits for a faster port to say that its link is active, which QEMU's
    // does not say again.
    device.port_options = vec!["x-speed=5".to_owned()];
    device
}

fn card() -> Profile {
    profile::find("nic")
        .expect("a profile of the catalogue")
        .clone()
}

/// The network card as a conventional function: without PCI Express, and without the capabilities
/// that only a function with it has.
fn conventional() -> Profile {
    let mut card = card();
    card.name = "conventional";
    card.capabilities.retain(|capability| {
        let capability = capability.value;
        capability.offset < ext_cap::START && !matches!(capability.body, Body::Express { .. })
    });
    card
}

#[test]
fn the_core_answers_as_the_kernels_but_for_named_differences() -> Result<(), Box<dyn Error>> {
    cores_agree(Flavour::Debian(Arch::X86_64), &profile::ALL, count())
}

#[test]
fn the_core_answers_as_the_kernels_of_linux_7_3() -> Result<(), Box<dyn Error>> {
    let profiles = [card(), conventional()];
    cores_agree(Flavour::Next(Arch::X86_64), &profiles, count() / 2)
}

#[test]
#[ignore = "for ./x soak: two functions show what the series decides"]
fn the_core_answers_as_the_kernels_of_linux_7_3_over_every_profile() -> Result<(), Box<dyn Error>> {
    cores_agree(Flavour::Next(Arch::X86_64), &profile::ALL, count())
}

fn cores_agree(flavour: Flavour, profiles: &[Profile], count: usize) -> Result<(), Box<dyn Error>> {
    let mut gpus: Vec<Gpu> = Vec::new();
    for profile in profiles {
        for _ in 0..2 {
            gpus.push(Gpu::serve(profile, View::Physical, Options::default())?);
        }
    }
    let graphics = profile::find("igd").expect("a profile of this name");
    gpus.push(Gpu::serve(graphics, View::Physical, Options::default())?);
    let sockets: Vec<PathBuf> = gpus.iter().map(Gpu::socket).collect();
    let mut vm = machine(flavour);
    for (index, socket) in sockets.iter().enumerate() {
        vm = vm.device(device(index, socket));
    }
    let vm = vm.boot()?;
    // all at once: each spends a part of its time waiting for resets
    let mut tasks = Vec::new();
    for index in 0..profiles.len() {
        let kernel = behind_port(&vm, 2 * index + 1)?;
        let ours = behind_port(&vm, 2 * index + 2)?;
        tasks.push(start(&vm, (&kernel, &ours), count)?);
    }
    let release = vm.sh("uname -r")?;
    let series = series_of(&release).ok_or_else(|| format!("a release is {release:?}"))?;
    let mut failures = Vec::new();
    for (profile, task) in profiles.iter().zip(&tasks) {
        let name = profile.name;
        let output = vm.wait(task, limit())?.checked()?;
        let outcome: Outcome = postcard::from_bytes(&output.stdout)?;
        let places = places(&outcome.raw);
        let ops = operations(SEED, count, &places, &outcome.sizes);
        let report = compare(
            &ops,
            &outcome.kernel,
            &outcome.ours,
            &allowed(series, &places),
        );
        let coverage = Coverage::of(&places, &ops);
        let hot_resets = hot_resets(&ops, &outcome.kernel);
        println!(
            "result: Linux {release}, {name}, seed {SEED}: {report}, {hot_resets:?} hot resets\n{coverage}"
        );
        if hot_resets == Some(0) {
            failures.push(format!("{name}: no hot reset succeeded"));
        }
        if !report.is_clean() {
            failures.push(format!("{name}, seed {SEED}: {report}"));
        }
        for (place, kind) in coverage.empty() {
            failures.push(format!("{name}: no {kind:?} of the {place}"));
        }
    }
    let graphics = behind_port(&vm, sockets.len())?;
    vm.bind(&graphics, "vfio-pci")?;
    if let Err(error) = igd::regions_agree(&vm, &graphics) {
        failures.push(error.to_string());
    }
    vm.power_off()?;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// header-size: a fresh machine, since its kernel takes a fault. The applet ends with the fault.
#[test]
#[ignore = "a boot of its own for a fault of the kernel's driver: ./x soak pci_core"]
fn the_kernel_reads_an_opregion_above_8_kib_through_a_null_pointer() -> Result<(), Box<dyn Error>> {
    let graphics = profile::find("igd").expect("a profile of this name");
    let gpu = Gpu::serve(graphics, View::Physical, Options::default())?;
    let vm = machine(Flavour::Debian(Arch::X86_64)).device(device(0, &gpu.socket()));
    let vm = vm.boot()?;
    let graphics = behind_port(&vm, 1)?;
    vm.bind(&graphics, "vfio-pci")?;
    igd::above_8_kib(&vm, &graphics)?;
    let log = vm.sh("dmesg")?;
    // Debian's kernel checks what it copies to a user
    let fault = "Kernel memory exposure attempt detected from null address";
    assert!(log.contains(fault), "{log}");
    Ok(vm.kill()?)
}
