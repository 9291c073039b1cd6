//! `./x bench kernel`: our module against the original driver, in turn in one machine.
//!
//! Prints docs/performance.md: for each operation the median time with either driver over all
//! rounds, and the ratio of ours to the original's, round by round: its median and its quartiles;
//! and how many instructions it takes, in a machine whose clock counts them. Without rounds, prints
//! the instructions alone. Progress goes to standard error.

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
/// What the late GPU takes after each reset.
const LATE: Duration = Duration::from_secs(3);
/// Rounds unless another number is the argument: each runs everything with either driver.
const ROUNDS: usize = 9;
/// Samples of an operation in a round.
const SAMPLES: usize = 25;
/// The same where the clock counts instructions: others on the host don't disturb it.
const COUNTED: usize = 2;

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
    let asked = std::env::args().nth(1);
    let count = asked.map_or(ROUNDS, |text| text.parse().expect("the number of rounds"));
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let of_size = |memory, readiness| Options {
        memory: Some(memory),
        readiness,
        ..Options::default()
    };
    eprintln!("instructions");
    let host = HostPlan::new(Arch::Aarch64, "instructions of drivers")
        .with(|vm| vm.count_instructions().cpus(1))
        .gpu(gh200, of_size(SIZE, Readiness::Immediate), Memory::Real)
        .boot()?;
    let counted = [Driver::Original, Driver::Ours].map(|driver| times(&host, driver, COUNTED));
    host.power_off()?;
    let [original, ours] = counted;
    let instructions = instructions(&original?, &ours?);
    if count == 0 {
        return Ok(instructions);
    }
    let host = HostPlan::new(Arch::Aarch64, "bench of drivers")
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
        // Who is first has no advantage.
        let (ours, original);
        if round % 2 == 0 {
            original = times(&host, Driver::Original, SAMPLES)?;
            ours = times(&host, Driver::Ours, SAMPLES)?;
        } else {
            ours = times(&host, Driver::Ours, SAMPLES)?;
            original = times(&host, Driver::Original, SAMPLES)?;
        }
        rounds.push((original, ours));
    }
    host.power_off()?;
    Ok(page(&release, &rounds) + &instructions)
}

fn times(host: &Host, driver: Driver, samples: usize) -> Result<Times> {
    host.load(driver)?;
    let addresses = host.addresses();
    for gpu in 0..addresses.len() {
        assert_eq!(host.bind(gpu, driver)?, Ok(()), "{driver:?}");
    }
    let samples = samples.to_string();
    let (first, late) = addresses.split_first().expect("a GPU");
    let arguments = [&[*first, driver.name(), &samples], late].concat();
    host.ask("bench", &arguments)
}

/// What has to do with a reset, a wait or another machine's doing: its instructions say nothing.
fn is_waiting(name: &str) -> bool {
    ["open", "bind", "command register"]
        .iter()
        .any(|word| name.contains(word))
}

/// A table of instructions.
fn instructions(original: &Times, ours: &Times) -> String {
    let mut text = String::from(
        "\n## Instructions\nOf one operation, user and kernel together, in a machine whose clock \
         counts them: the same on every host.\n\n\
         | operation | the original | ours | ratio |\n|---|---|---|---|\n",
    );
    for (name, original) in original.iter().filter(|(name, _)| !is_waiting(name)) {
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
