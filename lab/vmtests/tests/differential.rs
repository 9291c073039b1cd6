//! The same random operations on the original driver, on Varia's kernel module and on the
//! user-space runtime: equal answers, but for the differences that have a name.

use std::error::Error;
use std::time::Duration;

use varia_differential::predicate::{AGAINST_ORIGINAL, USER_SPACE};
use varia_differential::{Answer, MemoryShape, Op, Predicate, Shape, compare, operations};
use varia_lab::{Arch, GuestCommand, kernel_modules};
use varia_serve::View;
use varia_silicon::{Options, profile};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::user;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// usemem 512 MiB behind 1 GiB, resmem 1 GiB and 12 KiB behind 2 GiB: both BARs have padding.
const MEMORY: u64 = GIB + 512 * MIB + 0x3000;
const SEED: u64 = 20_260_921;

fn shape() -> Shape {
    Shape {
        usemem: MemoryShape {
            length: 512 * MIB,
            size: GIB,
        },
        resmem: Some(MemoryShape {
            length: GIB + 0x3000,
            size: 2 * GIB,
        }),
        page: 4096,
    }
}

/// How many operations; `./x soak` asks for more.
fn count() -> usize {
    let asked = std::env::var("VARIA_COUNT").ok();
    asked.map_or(10_000, |count| {
        count.parse().expect("VARIA_COUNT is a number")
    })
}

fn options() -> Options {
    Options {
        memory: Some(MEMORY),
        ..Options::default()
    }
}

/// Runs the operations on a kernel driver, from memory that holds zeros.
fn in_kernel(host: &Host, driver: Driver) -> Result<Vec<Answer>, Box<dyn Error>> {
    host.memory(0).discard(0, MEMORY)?;
    host.load(driver)?;
    host.bind(0, driver)?
        .map_err(|errno| format!("the probe of {driver:?} fails: errno {errno}"))?;
    let shape = serde_json::to_vec(&shape())?;
    let (seed, count) = (SEED.to_string(), count().to_string());
    let arguments = [host.address(0), &seed, &count];
    // One operation in a hundred is a reset, which takes a tenth of a second.
    let limit = Duration::from_secs(60) + Duration::from_millis(10) * count.parse()?;
    let command = GuestCommand::applet("differential", &arguments)
        .input(shape)
        .limit(limit);
    let output = host.vm.run(&command)?.checked()?;
    host.unbind(0)?;
    Ok(postcard::from_bytes(&output.stdout)?)
}

fn judge(what: &str, ops: &[Op], original: &[Answer], ours: &[Answer], predicates: &[Predicate]) {
    let report = compare(&shape(), ops, original, ours, predicates);
    println!("{what} against the original: {report}");
    assert!(report.is_clean(), "{what} against the original: {report}");
}

/// The answers of the original driver and of our module, on the same silicon in one machine.
fn drivers(arch: Arch) -> Result<(Vec<Answer>, Vec<Answer>), Box<dyn Error>> {
    let position = kernel_modules::position(arch)?;
    let host = HostPlan::new(arch, "differential")
        .gpu(profile::find("gh200")?, options(), Memory::Real)
        .with(|vm| vm.module_file(position))
        .boot()?;
    let original = in_kernel(&host, Driver::Original)?;
    let ours = in_kernel(&host, Driver::Ours)?;
    host.power_off()?;
    Ok((original, ours))
}

#[test]
fn both_runtimes_answer_as_the_original_but_for_named_differences() -> Result<(), Box<dyn Error>> {
    let (original, ours) = drivers(Arch::Aarch64)?;
    let ops = operations(SEED, count(), &shape());
    judge("our module", &ops, &original, &ours, AGAINST_ORIGINAL);

    // Whether a mapping is private is not the server's to decide.
    let (ops, original): (Vec<_>, Vec<_>) = ops
        .into_iter()
        .zip(original)
        .filter(|(op, _)| !matches!(op, Op::MapPrivate { .. }))
        .unzip();
    let gpu = Gpu::serve(profile::find("gh200")?, View::Virtual, options())?;
    let user = user::run(&gpu.socket(), &ops)?;
    judge("the user-space runtime", &ops, &original, &user, USER_SPACE);
    Ok(())
}

#[test]
fn our_module_for_x86_answers_as_the_original_but_for_named_differences()
-> Result<(), Box<dyn Error>> {
    let (original, ours) = drivers(Arch::X86_64)?;
    let ops = operations(SEED, count(), &shape());
    judge(
        "our module for x86",
        &ops,
        &original,
        &ours,
        AGAINST_ORIGINAL,
    );
    Ok(())
}
