//! `./x bench kernel`: our module against the original driver, in turn in one machine.
//!
//! usage: bench-kernel ROUNDS [ONLY...]
//!
//! Prints docs/performance.md: for each operation the median time with either driver over all
//! rounds, and the ratio of ours to the original's, round by round: its median and its quartiles;
//! and how many instructions it takes, in a machine whose clock counts them. With 0
//! rounds, prints the instructions alone; with `ONLY`, of the operations alone whose names have one
//! of these texts in them. Progress goes to standard error.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use varia_agent::applets::bench::Times;
use varia_lab::Arch;
use varia_silicon::{Options, Readiness, profile};
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};

const GIB: u64 = 1 << 30;
/// usemem 8.5 GiB, resmem 1 GiB.
const SIZE: u64 = 9 * GIB + GIB / 2;
/// Time that the late GPU needs after each reset.
const LATE: Duration = Duration::from_secs(3);
/// Samples of an operation in a round.
const SAMPLES: usize = 25;
/// The same where the clock counts instructions, in each of two turns: there, only the machine's own
/// interrupts disturb.
const COUNTED: usize = 10;
/// Every process has its libraries, its heap and its mappings at the same addresses. Where they are
/// decides how many tables of pages a mapping needs.
const SAME_ADDRESSES: &str = "norandmaps";

const ABOUT: &str = include_str!("../../performance.md");

fn main() -> ExitCode {
    match run() {
        Ok(page) => {
            print!("{page}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .expect("the number of rounds");
    let only: Vec<String> = arguments.collect();
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let of_size = |memory, readiness| Options {
        memory: Some(memory),
        readiness,
        ..Options::default()
    };
    eprintln!("instructions");
    let host = HostPlan::new(Arch::Aarch64, "instructions of drivers")
        .with(|vm| vm.count_instructions().cpus(1).cmdline(SAME_ADDRESSES))
        .gpu(gh200, of_size(SIZE, Readiness::Immediate), Memory::Real)
        .boot()?;
    let counted = |driver| times(&host, driver, "processor", COUNTED, &only);
    let (mut original, mut ours) = (counted(Driver::Original)?, counted(Driver::Ours)?);
    fewest(&mut original, &counted(Driver::Original)?);
    fewest(&mut ours, &counted(Driver::Ours)?);
    host.power_off()?;
    let instructions = instructions(&original, &ours);
    if count == 0 {
        return Ok(instructions);
    }
    let host = HostPlan::new(Arch::Aarch64, "bench of drivers")
        .with(|vm| vm.cmdline(SAME_ADDRESSES))
        .gpu(gh200, of_size(SIZE, Readiness::Immediate), Memory::Real)
        .gpu(
            gh200,
            of_size(GIB + GIB / 2, Readiness::After(LATE)),
            Memory::Real,
        )
        .boot()?;
    let release = host.vm.release().to_owned();
    let mut rounds = Vec::new();
    for round in 0..count {
        eprintln!("round {} of {count}", round + 1);
        let timed = |driver| times(&host, driver, "wall", SAMPLES, &only);
        // Who is first has no advantage.
        let (ours, original);
        if round % 2 == 0 {
            original = timed(Driver::Original)?;
            ours = timed(Driver::Ours)?;
        } else {
            ours = timed(Driver::Ours)?;
            original = timed(Driver::Original)?;
        }
        rounds.push((original, ours));
    }
    host.power_off()?;
    Ok(page(&release, &rounds) + &instructions)
}

fn times(
    host: &Host,
    driver: Driver,
    clock: &str,
    samples: usize,
    only: &[String],
) -> Result<Times> {
    host.load(driver)?;
    let addresses = host.addresses();
    for gpu in 0..addresses.len() {
        assert_eq!(host.bind(gpu, driver)?, Ok(()), "{driver:?}");
    }
    let samples = samples.to_string();
    let first = addresses.first().expect("a GPU");
    let late = addresses.get(1).unwrap_or(&"-");
    let mut arguments = vec![*first, driver.name(), late, clock, &samples];
    arguments.extend(only.iter().map(String::as_str));
    host.ask("bench", &arguments)
}

/// The smaller of two numbers of each operation.
fn fewest(times: &mut Times, others: &Times) {
    for (name, time) in times {
        if let Some(other) = others.get(name) {
            *time = time.min(*other);
        }
    }
}

/// A table of instructions.
fn instructions(original: &Times, ours: &Times) -> String {
    let mut text = String::from(
        "\n## Instructions\nOf one operation, those of its thread, user and kernel together, in a machine \
         whose clock counts them: the same on every host.\n\n\
         | operation | the original | ours | ratio |\n|---|---|---|---|\n",
    );
    for (name, original) in original {
        let Some(ours) = ours.get(name) else {
            continue;
        };
        let ratio = ours / original;
        // writing to a String can't fail
        let _ = writeln!(text, "| {name} | {original:.0} | {ours:.0} | {ratio:.2} |");
    }
    text
}

/// The quartiles: lower, median, upper.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    [last / 4, last / 2, last - last / 4].map(|at| values.get(at).copied().unwrap_or(f64::NAN))
}

fn page(release: &str, rounds: &[(Times, Times)]) -> String {
    let mut text = ABOUT.to_owned();
    // writing to a String can't fail
    let _ = writeln!(
        text,
        "\n## Result\n{} rounds on Linux {release}.\n\n\
         | operation | the original | ours | ratio | quartiles |\n|---|---|---|---|---|",
        rounds.len()
    );
    let Some((first, _)) = rounds.first() else {
        return text;
    };
    for name in first.keys() {
        let pairs: Vec<_> = rounds
            .iter()
            .filter_map(|(original, ours)| Some((*original.get(name)?, *ours.get(name)?)))
            .collect();
        let [_, original, _] = quartiles(pairs.iter().map(|pair| pair.0).collect());
        let [_, ours, _] = quartiles(pairs.iter().map(|pair| pair.1).collect());
        let [low, ratio, high] = quartiles(pairs.iter().map(|(o, v)| v / o).collect());
        // Slower is what three rounds in four say.
        let mark = if low > 1.0 { " slower" } else { "" };
        let (original, ours) = (shown(original), shown(ours));
        let _ = writeln!(
            text,
            "| {name} | {original} | {ours} | {ratio:.2}{mark} | {low:.2} to {high:.2} |"
        );
    }
    text
}

fn shown(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{:.1} µs", n / 1e3),
        n if n < 1e9 => format!("{:.1} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}
