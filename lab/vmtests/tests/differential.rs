//! The same random operations on the original driver, on Varia's kernel module and on the
//! user-space runtime: equal answers, but for the differences that have a name.
//!
//! One machine has a device for each layout. Layouts that share no memory are used at the same
//! time, because what takes most of the time is waiting for resets.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use varia_differential::compare::Report;
use varia_differential::op::FEATURE;
use varia_differential::predicate::{AGAINST_ORIGINAL, ON_AMD64, ON_ARM64, USER_SPACE};
use varia_differential::{Answer, Op, Predicate, Shape, Surface, operations, series_of};
use varia_lab::{Arch, Flavour, GuestCommand, HANG, Task, kernel_modules};
use varia_serve::View;
use varia_spec::Errno;
use varia_spec::vfio::device_feature;
use varia_vmtests::faulty::{self, Fault};
use varia_vmtests::gpu::Gpu;
use varia_vmtests::host::{Driver, Host, HostPlan};
use varia_vmtests::layouts::{self, Layout};
use varia_vmtests::user;

const SEED: u64 = 20_260_921;
/// The layouts on which the user-space runtime is compared: with and without the bug.
const USER_SPACE_LAYOUTS: [usize; 2] = [0, 4];

/// Kinds of operation that may fail always: numbers that no ioctl of such a device has, and features
/// of migration, which it has not either.
const MAY_FAIL: [&str; 2] = ["other feature", "unknown ioctl"];

/// After a bus reset Linux waits for a faster root port to say that its link is active, which
/// QEMU's does not say again.
const PORT_SPEED: &str = "x-speed=5";
/// The ids of GH200, whose bus Linux 7.2 does not reset
/// (`drivers/pci/quirks.c:quirk_nvidia_no_bus_reset`).
const NO_BUS_RESET: std::ops::Range<u16> = 0x2340..0x2380;

/// A warning of Linux's interrupt code on arm64, once, when a user who had several MSI turns to
/// MSI-X. It comes from below vfio-pci-core, whose `SET_IRQS` both drivers pass on as it is.
const ITS_TEARDOWN: &str = "at its_msi_teardown+";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Number of operations over all layouts; `./x soak` asks for more.
fn count() -> usize {
    let asked = std::env::var("VARIA_COUNT").ok();
    asked.map_or(LEAST, |count| {
        count.parse().expect("VARIA_COUNT is a number")
    })
}

/// Number of operations, over all layouts, of the shortest run: fewer leave out rare kinds.
const LEAST: usize = 10_000;

/// Number of operations, over all layouts, that together are of every kind that is generated.
const EVERY_KIND: usize = 100_000;

/// Run of operations on one layout.
#[derive(Clone, Copy)]
struct Run {
    layout: usize,
    seed: u64,
    count: usize,
    surface: Surface,
}

impl Run {
    /// Everything that a user of the kernel does.
    fn kernel(layout: usize, count: usize) -> Self {
        Self {
            layout,
            seed: SEED + layout as u64,
            count,
            surface: Surface::Kernel,
        }
    }

    /// Run of the operations that the user-space runtime has as well.
    fn portable(layout: usize) -> Self {
        Self {
            layout,
            seed: SEED + 100 + layout as u64,
            count: (count() / 20).max(1500),
            surface: Surface::Portable,
        }
    }

    fn ops(&self, shape: &Shape) -> Vec<Op> {
        operations(self.seed, self.count, shape, self.surface)
    }

    /// Ten thousand operations take half a minute on an idle machine.
    fn limit(&self) -> Duration {
        HANG * (1 + self.count as u32 / 10_000)
    }

    fn start(&self, host: &Host, layout: &Layout) -> Result<Task> {
        host.silicon(self.layout).forget()?;
        let (seed, count) = (self.seed.to_string(), self.count.to_string());
        let surface = match self.surface {
            Surface::Kernel => "kernel",
            Surface::Portable => "portable",
        };
        let arguments = [host.address(self.layout), &seed, &count, surface];
        let command = GuestCommand::applet("differential", &arguments)
            .input(serde_json::to_vec(&layout.shape)?)
            .limit(self.limit());
        Ok(host.vm.spawn(&command)?)
    }

    fn end(&self, host: &Host, task: &Task) -> Result<Vec<Answer>> {
        let output = host.vm.wait(task, self.limit())?.checked()?;
        println!("{}", String::from_utf8_lossy(&output.stderr));
        let mut rest = output.stdout.as_slice();
        let mut answers = Vec::new();
        while !rest.is_empty() {
            let (answer, behind) = postcard::take_from_bytes(rest)?;
            answers.push(answer);
            rest = behind;
        }
        Ok(answers)
    }
}

/// Kinds of operation that longer runs ask for, and `runs` do not.
fn missing(layouts: &[Layout], runs: &[Run]) -> BTreeSet<&'static str> {
    let kinds = |least: usize| -> BTreeSet<_> {
        let ops = runs.iter().flat_map(|run| {
            let count = run.count.max(least);
            Run { count, ..*run }.ops(&layouts[run.layout].shape)
        });
        ops.map(|op| op.kind()).collect()
    };
    &kinds(EVERY_KIND / runs.len()) - &kinds(0)
}

/// Runs of `total` operations on all layouts.
fn runs(layouts: &[Layout], total: usize) -> Vec<Run> {
    let count = total.div_ceil(layouts.len());
    (0..layouts.len())
        .map(|layout| Run::kernel(layout, count))
        .collect()
}

/// The answers of the driver that is loaded, to each of `runs`.
fn answers(host: &Host, layouts: &[Layout], runs: &[Run]) -> Result<Vec<Vec<Answer>>> {
    let begin = Instant::now();
    let mut lanes: Vec<Vec<usize>> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let lane = layouts[run.layout].lane;
        let same = |known: &&mut Vec<usize>| layouts[runs[known[0]].layout].lane == lane;
        match lanes.iter_mut().find(same) {
            Some(lane) => lane.push(index),
            None => lanes.push(vec![index]),
        }
    }
    let start = |index: usize| runs[index].start(host, &layouts[runs[index].layout]);
    let mut first = Vec::new();
    for lane in &lanes {
        first.push(start(lane[0])?);
    }
    let mut all = vec![Vec::new(); runs.len()];
    for (lane, task) in lanes.iter().zip(first) {
        let mut task = Some(task);
        for index in lane {
            let running = match task.take() {
                Some(task) => task,
                None => start(*index)?,
            };
            all[*index] = runs[*index].end(host, &running)?;
        }
    }
    println!("{} runs in {:.1?}", runs.len(), begin.elapsed());
    Ok(all)
}

/// Number of attempts after which an operation must have succeeded once.
const OFTEN: usize = 25;

/// Counts of the ends of each kind of operation: 0 for success, else the error number.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, BTreeMap<i32, usize>>);

impl Tally {
    fn add(&mut self, ops: &[Op], answers: &[Answer]) {
        for (op, answer) in ops.iter().zip(answers) {
            let ending = answer.result.err().unwrap_or(0);
            let endings = self.0.entry(op.kind()).or_default();
            *endings.entry(ending).or_default() += 1;
        }
    }

    /// Number of successes of a kind, and number of attempts.
    fn done(&self, kind: &str) -> (usize, usize) {
        let Some(endings) = self.0.get(kind) else {
            return (0, 0);
        };
        let done = endings.get(&0).copied().unwrap_or(0);
        (done, endings.values().sum())
    }

    /// Kinds of which the original has done nothing, though asked often enough: a comparison of
    /// them says little.
    fn vain(&self) -> Vec<&'static str> {
        let is_vain = |endings: &BTreeMap<i32, usize>| {
            !endings.contains_key(&0) && endings.values().sum::<usize>() >= OFTEN
        };
        let vain = self.0.iter().filter(|(_, endings)| is_vain(endings));
        vain.map(|(kind, _)| *kind).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, endings) in &self.0 {
            write!(f, "  {kind}: {}", endings.values().sum::<usize>())?;
            for (ending, times) in endings {
                match (*ending, Errno::new(*ending)) {
                    (0, _) => write!(f, ", {times} done")?,
                    (_, Some(errno)) => write!(f, ", {} {times}", errno.name())?,
                    (signal, None) => write!(f, ", signal {} {times}", -signal)?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn load(host: &Host, layouts: &[Layout], driver: Driver) -> Result<()> {
    host.load(driver)?;
    for (gpu, layout) in layouts.iter().enumerate() {
        let name = layout.name;
        host.bind(gpu, driver)?
            .map_err(|errno| format!("the probe of {driver:?}, {name}: errno {errno}"))?;
    }
    Ok(())
}

/// Compares run by run.
fn judge(
    what: &str,
    layouts: &[Layout],
    runs: &[Run],
    original: &[Vec<Answer>],
    ours: &[Vec<Answer>],
    predicates: &[Predicate],
) {
    let mut total = Report::new(predicates);
    let mut tally = Tally::default();
    for (index, run) in runs.iter().enumerate() {
        let layout = &layouts[run.layout];
        let ops = run.ops(&layout.shape);
        tally.add(&ops, &original[index]);
        check_hot_resets(layout, &ops, &original[index]);
        let mut alone = Report::new(predicates);
        for report in [&mut total, &mut alone] {
            report.add(
                &layout.shape,
                &ops,
                &original[index],
                &ours[index],
                predicates,
            );
        }
        println!("{what} against the original, {}: {alone}", layout.name);
    }
    println!("{what} against the original, all layouts: {total}");
    println!("result: {what}: {}", total.summary());
    println!("what the original was asked for:\n{tally}");
    let missing = missing(layouts, runs);
    let mut vain = tally.vain();
    vain.retain(|kind| !MAY_FAIL.contains(kind));
    assert!(total.is_clean(), "{what} against the original: {total}");
    assert!(missing.is_empty(), "{what}: no {missing:?}");
    assert!(vain.is_empty(), "the original never did {vain:?}");
}

/// No hot reset succeeds where Linux allows none. That some succeed where it does, [`judge`] finds.
fn check_hot_resets(layout: &Layout, ops: &[Op], original: &[Answer]) {
    let mut tally = Tally::default();
    tally.add(ops, original);
    let (done, asked) = tally.done("hot reset");
    let name = layout.name;
    println!("{name}: {done} of {asked} hot resets");
    if NO_BUS_RESET.contains(&layout.profile.device_id.value) {
        assert_eq!(done, 0, "{name}: Linux resets the bus of no GH200");
    }
}

/// The differences that have a name, on one architecture and a kernel of this release.
fn against_original(arch: Arch, release: &str) -> Vec<Predicate> {
    let its_own = match arch {
        Arch::Aarch64 => ON_ARM64,
        Arch::X86_64 => ON_AMD64,
    };
    let series = series_of(release).unwrap_or_else(|| panic!("a release is {release:?}"));
    let mut named = [AGAINST_ORIGINAL, its_own].concat();
    named.retain(|predicate| predicate.holds_on(series));
    named
}

/// Our module against the original, with `total` operations over all layouts, and perhaps the
/// user-space runtime.
fn compare(flavour: Flavour, total: usize, with_user_space: bool) -> Result<()> {
    let layouts = layouts::all(flavour);
    let position = kernel_modules::position(flavour)?;
    let begin = Instant::now();
    let mut plan = HostPlan::new(flavour, "differential")
        .with(|vm| vm.module_file(position))
        .port_option(PORT_SPEED);
    for layout in &layouts {
        plan = plan.gpu(&layout.profile, layout.options.clone(), layout.memory);
    }
    if with_user_space {
        let older = kernel_modules::ours_without(flavour.arch(), OPTIONAL)?;
        plan = plan.with(|vm| vm.host_file(OLDER, older));
    }
    let host = plan.boot()?;
    let release = host.vm.sh("uname -r")?;
    println!("Linux {release} booted in {:.1?}", begin.elapsed());
    let runs = runs(&layouts, total);
    let portable: Vec<_> = USER_SPACE_LAYOUTS.map(Run::portable).into();

    load(&host, &layouts, Driver::ours_on(flavour))?;
    let ours = answers(&host, &layouts, &runs)?;
    let older: Vec<_> = USER_SPACE_LAYOUTS
        .map(|layout| Run {
            count: (count() / 30).max(1000),
            ..Run::kernel(layout, total)
        })
        .into();
    let of_older = match with_user_space {
        true => answers_of_older(&host, &layouts, &older)?,
        false => Vec::new(),
    };
    for gpu in 0..layouts.len() {
        host.unbind(gpu)?;
    }
    load(&host, &layouts, Driver::Original)?;
    // After the last, a device that is declined, the original opens no other.
    let (declined, others) = runs.split_last().expect("there are layouts");
    let mut original = answers(&host, &layouts, others)?;
    let of_portable = match with_user_space {
        true => answers(&host, &layouts, &portable)?,
        false => Vec::new(),
    };
    original.extend(answers(&host, &layouts, &[*declined])?);
    host.power_off_but_for(ITS_TEARDOWN)?;
    let what = format!("our module on {flavour}");
    let named = against_original(flavour.arch(), &release);
    judge(&what, &layouts, &runs, &original, &ours, &named);
    if with_user_space {
        as_the_original_began(&layouts, &older, &original, &of_older, &named);
        user_space(&layouts, &portable, of_portable)?;
    }
    println!("all in {:.1?}", begin.elapsed());
    Ok(())
}

/// The one feature without which our module has another path, and that module in the machine.
const OPTIONAL: &str = "get_dmabuf_phys";
const OLDER: &str = "/lab/drivers/older.ko";

/// Without the feature vfio-pci-core exports no dma-buf and says so, whatever is asked for.
const NO_DMA_BUF: Predicate = Predicate {
    name: "no-dma-buf",
    explains: |case| {
        let Op::Ioctl {
            number, argument, ..
        } = case.op
        else {
            return false;
        };
        // behind the size of the argument stand flags, whose lower half is the feature
        let asked = argument.get(4..6) == Some(&(device_feature::DMA_BUF as u16).to_le_bytes());
        *number == FEATURE
            && asked
            && case.ours.result == Err(Errno::EOPNOTSUPP.get())
            && case.ours.advance == 0
    },
    per_mille: 20,
    gone_in: None,
};
/// The answers of our module as it is built for a kernel without the optional feature.
fn answers_of_older(host: &Host, layouts: &[Layout], runs: &[Run]) -> Result<Vec<Vec<Answer>>> {
    host.unload()?;
    host.vm.sh(&format!("insmod {OLDER}"))?;
    for run in runs {
        let bound = host.bind(run.layout, Driver::Ours)?;
        assert_eq!(bound, Ok(()), "{}", layouts[run.layout].name);
    }
    answers(host, layouts, runs)
}

/// Compares shorter runs with the beginnings of the original's longer ones of the same seed.
fn as_the_original_began(
    layouts: &[Layout],
    runs: &[Run],
    original: &[Vec<Answer>],
    older: &[Vec<Answer>],
    predicates: &[Predicate],
) {
    let predicates = &[predicates, &[NO_DMA_BUF]].concat();
    for (run, older) in runs.iter().zip(older) {
        let layout = &layouts[run.layout];
        // what a shorter run ends with may be the begin of more in a longer one
        let count = run.count.min(older.len()).min(original[run.layout].len());
        let mut ops = run.ops(&layout.shape);
        ops.truncate(count);
        let mut report = Report::new(predicates);
        let reference = &original[run.layout][..count];
        report.add(&layout.shape, &ops, reference, &older[..count], predicates);
        println!(
            "result: without {OPTIONAL}, {}: {}",
            layout.name,
            report.summary()
        );
        assert!(report.unexplained.is_empty(), "{}: {report}", layout.name);
        assert!(count > 200, "{count} operations");
    }
}

/// The user-space runtime. Whether a mapping is private is not the server's to decide.
fn user_space(layouts: &[Layout], runs: &[Run], mut original: Vec<Vec<Answer>>) -> Result<()> {
    let mut total = Report::new(USER_SPACE);
    for (run, original) in runs.iter().zip(&mut original) {
        let layout = &layouts[run.layout];
        let gpu = Gpu::serve(&layout.profile, View::Virtual, layout.options.clone())?;
        let (ops, original): (Vec<_>, Vec<_>) = run
            .ops(&layout.shape)
            .into_iter()
            .zip(original.drain(..))
            .filter(|(op, _)| !matches!(op, Op::MapPrivate { .. }))
            .unzip();
        let ours = user::run(&gpu.socket(), &ops)?;
        let mut alone = Report::new(USER_SPACE);
        for report in [&mut total, &mut alone] {
            report.add(&layout.shape, &ops, &original, &ours, USER_SPACE);
        }
        println!(
            "the user-space runtime against the original, {}: {alone}",
            layout.name
        );
    }
    println!("the user-space runtime against the original: {total}");
    println!("result: the user-space runtime: {}", total.summary());
    assert!(total.is_clean(), "the user-space runtime: {total}");
    Ok(())
}

#[test]
fn the_shortest_run_has_operations_of_every_kind() {
    for flavour in [
        Arch::Aarch64.into(),
        Arch::X86_64.into(),
        Flavour::Debian16k,
    ] {
        let layouts = layouts::all(flavour);
        let none = BTreeSet::new();
        assert_eq!(missing(&layouts, &runs(&layouts, LEAST)), none, "{flavour}");
        assert_ne!(missing(&layouts, &runs(&layouts, 100)), none, "{flavour}");
    }
}

#[test]
fn both_runtimes_answer_as_the_original_but_for_named_differences() -> Result<()> {
    compare(Arch::Aarch64.into(), count(), true)
}

#[test]
fn our_module_for_x86_answers_as_the_original_but_for_named_differences() -> Result<()> {
    compare(Arch::X86_64.into(), count(), false)
}

/// A third of the operations: what the page size decides is asked for by each.
#[test]
#[ignore = "for ./x soak: the same with pages of 16 KiB"]
fn our_module_with_pages_of_16_kib_answers_as_the_original_but_for_named_differences() -> Result<()>
{
    compare(Flavour::Debian16k, (count() / 3).max(LEAST), false)
}

/// A third of the operations on the next series, whose original driver differs from that of Linux
/// 7.2.
#[test]
fn our_module_on_linux_7_3_answers_as_the_original_but_for_named_differences() -> Result<()> {
    compare(
        Flavour::Next(Arch::Aarch64),
        (count() / 3).max(LEAST),
        false,
    )
}

/// The driver in the kernel's own Rust, beside the original in one kernel.
#[test]
#[ignore = "for ./x soak: it builds a kernel with Rust"]
fn the_driver_in_the_kernels_own_rust_answers_as_the_original() -> Result<()> {
    compare(Flavour::RustAmd64, count(), false)
}

/// Faults in what our module decides; none makes it touch what is not the device's.
const FAULTS: [Fault; 4] = [
    Fault {
        name: "clipped-too-much",
        file: "variant/src/memory.rs",
        right: "count: if count < room { count } else { room },",
        wrong: "count: if count < room { count } else { room - 1 },",
    },
    Fault {
        name: "bar-flags-written",
        file: "variant/src/config.rs",
        right: "(u64::from_le_bytes(raw) & self.size.address_mask()) |",
        wrong: "u64::from_le_bytes(raw) |",
    },
    Fault {
        name: "last-page-not-mapped",
        file: "variant/src/mmap.rs",
        right: "if end > self.length() ||",
        wrong: "if end >= self.length() ||",
    },
    Fault {
        name: "bar-one-byte-on",
        file: "variant/src/config.rs",
        right: "self.start.saturating_sub(offset)",
        wrong: "(self.start + 1).saturating_sub(offset)",
    },
];
/// Operations that each is given.
const ENOUGH: usize = 1500;

/// The faults of `lab/mutants` are caught by tests of the decisions alone; these by the whole module
/// beside the original.
#[test]
#[ignore = "for ./x soak: it builds a module for each fault"]
fn faults_in_the_decisions_of_our_module_are_seen_beside_the_original() -> Result<()> {
    let begin = Instant::now();
    let layout = layouts::all(Arch::Aarch64.into()).remove(0);
    let path = |fault: &Fault| format!("/lab/drivers/{}.ko", fault.name);
    let position = kernel_modules::position(Arch::Aarch64)?;
    let mut plan = HostPlan::new(Arch::Aarch64, "differential of faults")
        .with(|vm| vm.module_file(position))
        .gpu(&layout.profile, layout.options.clone(), layout.memory);
    for fault in &FAULTS {
        let module = faulty::build(Arch::Aarch64, fault)?;
        plan = plan.with(|vm| vm.host_file(path(fault), module));
    }
    println!("{} modules in {:.1?}", FAULTS.len(), begin.elapsed());
    let host = plan.boot()?;
    let (layouts, runs) = ([layout], [Run::kernel(0, ENOUGH)]);
    let ops = runs[0].ops(&layouts[0].shape);
    let unexplained = |reference: &[Vec<Answer>], other: &[Vec<Answer>]| {
        let mut report = Report::new(AGAINST_ORIGINAL);
        let shape = &layouts[0].shape;
        report.add(shape, &ops, &reference[0], &other[0], AGAINST_ORIGINAL);
        report.unexplained.len()
    };
    load(&host, &layouts, Driver::Original)?;
    let original = answers(&host, &layouts, &runs)?;
    load(&host, &layouts, Driver::Ours)?;
    let ours = answers(&host, &layouts, &runs)?;
    assert_eq!(unexplained(&original, &ours), 0, "without a fault");
    for fault in &FAULTS {
        host.unload()?;
        host.vm.sh(&format!("insmod {}", path(fault)))?;
        assert_eq!(host.bind(0, Driver::Ours)?, Ok(()), "{fault:?}");
        let faulty = answers(&host, &layouts, &runs)?;
        let seen = unexplained(&original, &faulty);
        println!(
            "result: {}: {seen} of {ENOUGH} operations differ",
            fault.name
        );
        assert!(seen > 0, "{fault:?} is not seen");
    }
    host.power_off_but_for(ITS_TEARDOWN)?;
    println!("all in {:.1?}", begin.elapsed());
    Ok(())
}
