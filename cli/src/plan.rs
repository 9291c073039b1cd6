//! `varia plan` and `varia tables`: configurations of VMs, for a host or for chips on a made-up
//! host.

use std::fs;
use std::path::Path;

use varia_facts::{Bdf, CoherentMemory, Facts, PciFunction};
use varia_firmware::{DeviceProperties, Oem, hmat, slit, srat, ssdt};
use varia_linux::inventory::{Extent, Inventory};
use varia_linux::{layout, users};
use varia_plan::{
    Argument, Kernel, Part, Plan, Request, Source, What, WhatError, affinity, arguments, domain,
    egm_domain_note, explain, features, make, svg,
};
use varia_silicon::machine::GB200_EGM;
use varia_silicon::{Machine, profile};
use varia_spec::fact::Mark;
use varia_spec::nvidia::chip;

use crate::{
    Failure,
    args::{KnownHostArgs, PlanArgs, TablesArgs, VmArgs, Vmm},
    assume,
    device::known_profile,
    files::{self, unwritten, write_all},
    list::host,
    output::print,
};

/// A VM with less RAM in bytes was meant to have more: its size lacks a unit.
const LEAST_MEMORY: u64 = 1 << 20;

/// Prints a VM's configuration.
pub(crate) fn plan(args: &PlanArgs) -> Result<(), Failure> {
    if args.vmm == Vmm::Libvirt && !args.qemu_arg.is_empty() {
        return Err("--qemu-arg is for QEMU's command line: leave out --vmm libvirt".into());
    }
    if args.json && (args.vmm == Vmm::Libvirt || !args.qemu_arg.is_empty()) {
        let other = match args.vmm {
            Vmm::Libvirt => "--vmm libvirt",
            Vmm::Qemu => "--qemu-arg",
        };
        return Err(format!(
            "--json prints the plan, which is the same for every VMM: leave out {other}, or --json"
        )
        .into());
    }
    let (facts, mut plan) = planned(&args.vm)?;
    features::check(&facts.vmm, &plan, args.vmm == Vmm::Libvirt)?;
    if args.vmm == Vmm::Libvirt {
        let note = egm_domain_note(&plan);
        plan.notes.extend(note);
    }
    if let Some(file) = &args.svg {
        files::write(file, svg(&plan).as_bytes())?;
    }
    for note in &plan.notes {
        log::warn!("{note}");
    }
    if args.json {
        return print(&(serde_json::to_string_pretty(&plan)? + "\n"));
    }
    if args.explain {
        return print(&explained(&plan, args.vmm));
    }
    print(&match args.vmm {
        Vmm::Qemu => command_line(&program(&facts, &plan), &plan, &args.qemu_arg),
        Vmm::Libvirt => domain(&plan).ok_or("libvirt has no element for a vfio-user device")?,
    })
}

/// Facts of the host, and the plan of the requested VM.
pub(crate) fn planned(args: &VmArgs) -> Result<(Facts, Plan), Failure> {
    if args.memory.0 < LEAST_MEMORY {
        return Err(format!(
            "--memory {} is {} bytes: give a unit, as in --memory {}G",
            args.memory.0, args.memory.0, args.memory.0
        )
        .into());
    }
    let (facts, gpus, note) = facts(args)?;
    let kernel = match &args.kernel {
        None => None,
        Some(image) => Some(Kernel {
            image: absolute(image)?,
            initrd: args.initrd.as_deref().map(absolute).transpose()?,
            append: args.append.clone().unwrap_or_default(),
        }),
    };
    let request = Request {
        name: args.name.clone(),
        cpus: args.cpus,
        memory: args.memory,
        hugepages: args.hugepages,
        nodes_per_gpu: args.nodes_per_gpu,
        iommu: args.iommu.into(),
        pin: !args.no_pin,
        egm: args.egm,
        firmware: args.firmware.as_deref().map(absolute).transpose()?,
        kernel,
        disks: args
            .disk
            .iter()
            .map(|file| absolute(file))
            .collect::<Result<_, _>>()?,
        ..Request::new(gpus)
    };
    let mut plan = make(&facts, &request)?;
    plan.notes.extend(note);
    Ok((facts, plan))
}

/// Absolute path of a file, because the VM may be started in another directory.
fn absolute(file: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(file)
        .map_err(|error| format!("{file:?} can't be made an absolute path: {error}"))?;
    path.into_os_string().into_string().map_err(|path| {
        format!("{path:?} is not UTF-8, as a plan needs: rename the file, or link to it").into()
    })
}

/// A requested GPU: a function of the host, or a chip.
enum Asked {
    Host(What),
    /// A number of chips, each on a superchip of its own or all on one superchip.
    Chip {
        name: &'static str,
        count: u32,
        together: bool,
    },
}

impl Asked {
    fn read(text: &str) -> Result<Self, Failure> {
        if let Ok(what) = text.parse() {
            return Ok(Self::Host(what));
        }
        if is_short_address(text) {
            return Err(format!(
                "{text:?} is not a whole PCI address: add the function, as in {text}.0"
            )
            .into());
        }
        let (name, what) = match text.split_once(':') {
            Some((name, what)) => (name, Some(what.parse::<What>()?)),
            None => (text, None),
        };
        let known = chip::CHIPS
            .iter()
            .any(|chip| chip.name.eq_ignore_ascii_case(name));
        let chip = known_profile(name).map_err(|error| match known {
            true => error.to_string(),
            false => {
                let chips = chip::CHIPS.iter().filter(|chip| chip.coherent.is_some());
                let chips: Vec<_> = chips.map(|chip| chip.name.to_lowercase()).collect();
                let chips = chips.join(", ");
                format!("{}, or a chip: {chips}", WhatError(text.to_owned()))
            }
        })?;
        if chip.coherent.is_none() {
            return Err(format!(
                "{} has no coherent memory to plan for: give the device to a VM as any PCI device",
                chip.name
            )
            .into());
        }
        let chip = chip.name;
        Ok(match what {
            None => Self::Chip {
                name: chip,
                count: 1,
                together: false,
            },
            Some(What::OneSuperchip(count)) => Self::Chip {
                name: chip,
                count,
                together: true,
            },
            Some(What::Function(bdf)) => {
                return Err(format!(
                    "{text:?}: {bdf} is a function of the host, whose chip can't be chosen: \
                     leave out the chip"
                )
                .into());
            }
        })
    }
}

/// True for a PCI address without its function: `0008:01:00`, `01:00`.
fn is_short_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let is_hex = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    matches!(parts.len(), 2 | 3) && parts.iter().all(is_hex)
}

/// Facts of the host and its requested GPUs; for requested chips a made-up host, and a remark on it.
fn facts(args: &VmArgs) -> Result<(Facts, Vec<What>, Option<String>), Failure> {
    let asked = args
        .gpu
        .iter()
        .map(|text| Asked::read(text))
        .collect::<Result<Vec<_>, _>>()?;
    let of_host: Vec<_> = asked
        .iter()
        .filter_map(|asked| match asked {
            Asked::Host(what) => Some(*what),
            Asked::Chip { .. } => None,
        })
        .collect();
    if of_host.len() == asked.len() {
        return Ok((host_facts(&args.known)?, of_host, None));
    }
    if !of_host.is_empty() || args.known.facts.is_some() || args.known.host.sysfs.is_some() {
        return Err(
            "a chip such as gh200 is planned for a made-up host: request chips alone, or functions \
             of a host alone"
                .into(),
        );
    }
    let (mut facts, gpus) = made_up(&asked, args.egm)?;
    assume::apply(&mut facts, &args.known.assume);
    let note = asked.iter().find_map(|asked| match asked {
        Asked::Chip { name, .. } => Some(assumed(name)),
        Asked::Host(_) => None,
    });
    Ok((facts, gpus, note.transpose()?))
}

/// Remark of a plan for a chip's made-up host: which facts are assumed.
fn assumed(chip: &str) -> Result<String, Failure> {
    let marks = profile::find(chip)?.marks();
    // ids and capabilities do not reach a plan
    let is_planned = |name: &str| {
        ["memory", "BAR"]
            .iter()
            .any(|begin| name.starts_with(begin))
    };
    let assumed = marks
        .iter()
        .filter(|(name, mark)| is_planned(name) && matches!(mark, Mark::Assumed(_)));
    let assumed: Vec<_> = assumed.map(|(name, _)| name.as_str()).collect();
    let of_chip = match assumed.as_slice() {
        [] => String::new(),
        names => format!(
            ", and of the chip {} (varia inspect {chip} --json has the reasons)",
            names.join(", ")
        ),
    };
    Ok(format!(
        "the host of {chip} is made up: its CPUs, RAM, addresses, kernel and QEMU are assumed{of_chip}"
    ))
}

/// Facts of the host of the VM; for this machine with the output of its programs and the users of
/// its GPUs.
fn host_facts(known: &KnownHostArgs) -> Result<Facts, Failure> {
    if let Some(file) = &known.facts {
        let mut facts = read_facts(file)?;
        assume::apply(&mut facts, &known.assume);
        return Ok(facts);
    }
    let tree = host(&known.host)?;
    let mut inventory = Inventory::of(&tree, Extent::All)?;
    inventory.ask_programs(&tree, None);
    let gpus: Vec<_> = inventory
        .facts
        .functions
        .iter()
        .filter(|one| one.variant.is_some())
        .map(|one| one.bdf)
        .collect();
    users::note(&tree, &mut inventory.facts, &gpus);
    assume::apply(&mut inventory.facts, &known.assume);
    Ok(inventory.facts)
}

/// Facts of a host, from the given file or read from the host.
pub(crate) fn known_facts(known: &KnownHostArgs, extent: Extent) -> Result<Facts, Failure> {
    let mut facts = match &known.facts {
        Some(file) => read_facts(file)?,
        None => Inventory::of(&host(&known.host)?, extent)?.facts,
    };
    assume::apply(&mut facts, &known.assume);
    Ok(facts)
}

pub(crate) fn read_facts(file: &Path) -> Result<Facts, Failure> {
    let text = files::read_json(file)
        .map_err(|error| format!("can't read the facts in {}: {error}", file.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| format!("{} is not a file of facts: {error}", file.display()).into())
}

/// A GPU of this chip, as a made-up host shows the GPU.
pub(crate) fn function_of(chip: &str) -> Result<PciFunction, Failure> {
    let asked = Asked::read(chip)?;
    if matches!(asked, Asked::Host(_)) {
        let chips = chip::CHIPS.iter().filter(|chip| chip.coherent.is_some());
        let chips: Vec<_> = chips.map(|chip| chip.name).collect();
        return Err(format!("{chip:?} is not a chip: give one of {}", chips.join(", ")).into());
    }
    let (facts, gpus) = made_up(&[asked], false)?;
    let first = gpus.iter().find_map(|what| match what {
        What::Function(bdf) => facts.function(*bdf),
        What::OneSuperchip(_) => facts
            .functions
            .iter()
            .find(|one| one.coherent_memory.is_some()),
    });
    first
        .cloned()
        .ok_or_else(|| format!("no known host has a {chip:?}: name another chip").into())
}

/// A made-up host with the requested chips, which must be of one kind.
fn made_up(asked: &[Asked], egm: bool) -> Result<(Facts, Vec<What>), Failure> {
    let (mut chip, mut alone, mut together) = (None, 0, 0);
    for asked in asked {
        let Asked::Chip {
            name,
            count,
            together: one,
        } = asked
        else {
            continue;
        };
        if chip.is_some_and(|chip| chip != *name) {
            return Err("no host has chips of two kinds: request one kind".into());
        }
        chip = Some(*name);
        if *one {
            together = together.max(*count);
        } else {
            alone += count;
        }
    }
    let Some(chip) = chip else {
        return Err("no chip was requested: give a chip, as in --gpu gh200".into());
    };
    let most = profile::find(chip)?.per_superchip();
    if together > most {
        return Err(format!(
            "{chip}:{together}-of-one-superchip is not possible: a superchip has {most}, so \
             request at most {most}"
        )
        .into());
    }
    let gpus = if alone > 0 { most.min(alone) } else { together };
    let mut machine = Machine::with(chip, alone.div_ceil(gpus.max(1)).max(1), gpus)?;
    if egm {
        machine.memory = GB200_EGM.memory;
        machine.egm = GB200_EGM.egm;
    }
    let mut facts = machine.facts()?;
    let page = facts.kernel.page_size;
    let config = machine.config_space()?;
    let gpus: Vec<Bdf> = machine
        .gpus()
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    for function in &mut facts.functions {
        if gpus.contains(&function.bdf) {
            layout::lay_out(function, config.as_deref(), page);
        }
    }
    let wanted = alone.max(together) as usize;
    let gpus = gpus.into_iter().take(wanted).map(What::Function);
    Ok((facts, gpus.collect()))
}

/// Path of the host's QEMU, or else QEMU's name.
fn program(facts: &Facts, plan: &Plan) -> String {
    match &facts.vmm.qemu {
        Some(qemu) if facts.host.arch.is_some() => qemu.path.clone(),
        _ => format!("qemu-system-{}", plan.arch),
    }
}

/// A command for a shell, an option on each line.
fn command_line(program: &str, plan: &Plan, more: &[String]) -> String {
    let mut text = keeper(plan).unwrap_or_default();
    text += &shell_words::quote(program);
    for Argument { option, value, .. } in &arguments(plan) {
        text += &format!(" \\\n  {option} {}", shell_words::quote(value));
    }
    for argument in more {
        text += &format!(" \\\n  {}", shell_words::quote(argument));
    }
    text + "\n"
}

/// Prefix of a command whose threads are to stay on the pinned host CPUs, in the form that busybox
/// also accepts.
fn keeper(plan: &Plan) -> Option<String> {
    affinity(plan).map(|cpus| format!("taskset -c {cpus} "))
}

/// Reason for each part of the plan, with the arguments for QEMU.
fn explained(plan: &Plan, vmm: Vmm) -> String {
    let arguments = arguments(plan);
    let mut text = String::new();
    for (part, why) in explain(plan) {
        text += &wrapped(&why);
        if vmm == Vmm::Qemu {
            if let (Part::Cpus, Some(keeper)) = (part, keeper(plan)) {
                text += &format!("    {}\n", keeper.trim_end());
            }
            for Argument { option, value, .. } in arguments.iter().filter(|one| one.part == part) {
                text += &format!("    {option} {}\n", shell_words::quote(value));
            }
        }
        text.push('\n');
    }
    for note in &plan.notes {
        text += &wrapped(&format!("Note: {note}."));
    }
    text
}

/// Breaks a text into lines of at most 88 characters.
pub(crate) fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > 88 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += length;
    }
    out.push('\n');
    out
}

/// Writes the ACPI tables of a VM, and the tables of the host's GPUs in the form of bare-metal
/// firmware.
pub(crate) fn tables(args: &TablesArgs) -> Result<(), Failure> {
    let (facts, plan) = planned(&args.vm)?;
    let oem = Oem::VARIA;
    let numa = plan.numa()?;
    let mut tables = vec![("SRAT", srat(&numa, oem)), ("SLIT", slit(&numa, oem))];
    let mut accesses = plan.accesses(&facts.host);
    if !args.access.is_empty() {
        accesses = args.access.iter().map(|access| access.0).collect();
    }
    if accesses.is_empty() {
        log::info!(
            "no HMAT: this host's firmware has no latencies and bandwidths of memory: give them \
             with --access"
        );
    } else {
        tables.push(("HMAT", hmat(&numa, &accesses, oem)?));
    }
    let properties = plan
        .gpus
        .iter()
        .filter_map(|gpu| match &gpu.memory.source {
            Source::Function(bdf) => properties(facts.function(*bdf)?),
            Source::VfioUser(_) => None,
        })
        .collect::<Result<Vec<_>, _>>()?;
    if !properties.is_empty() {
        tables.push(("SSDT", ssdt(&properties, oem)));
    }
    fs::create_dir_all(&args.out).map_err(|error| unwritten(&args.out, &error))?;
    let file = |table: &str| args.out.join(format!("{}.aml", table.to_lowercase()));
    let mut text = String::new();
    for (table, bytes) in &tables {
        text += &format!(
            "{table} {:>6} bytes {}\n",
            bytes.len(),
            file(table).display()
        );
    }
    let old = ["HMAT", "SSDT"]
        .into_iter()
        .filter(|table| !tables.iter().any(|(made, _)| made == table))
        .map(|table| (table, file(table)));
    let old: Vec<_> = old.filter(|(_, file)| is_ours(file)).collect();
    let tables: Vec<_> = tables
        .into_iter()
        .map(|(table, bytes)| (file(table), bytes))
        .collect();
    write_all(&tables)?;
    for (table, file) in old {
        // an old table would be taken for a table of this plan
        fs::remove_file(&file).map_err(|error| unwritten(&file, &error))?;
        text += &format!("{table} of another plan removed: {}\n", file.display());
    }
    print(&text)
}

/// True for a table that an earlier command wrote.
fn is_ours(file: &Path) -> bool {
    // OEM identity in a table's header
    let header = files::read(file, 16).unwrap_or_default();
    header.get(10..16) == Some(&Oem::VARIA.id[..])
}

/// Properties of a function's memory in the form of bare-metal firmware; `None` if the function's
/// ACPI path or memory is not known.
fn properties(function: &PciFunction) -> Option<Result<DeviceProperties, varia_firmware::Error>> {
    let CoherentMemory {
        base,
        size,
        pxm_start,
        pxm_count,
        ..
    } = function.coherent_memory.as_ref()?;
    let path = function.acpi_path.as_ref()?;
    let start = pxm_start.unwrap_or(0);
    let domains = start..start.saturating_add(pxm_count.unwrap_or(0));
    let device = path.parse();
    Some(device.map(|device| DeviceProperties::coherent_memory(device, base.0, size.0, domains)))
}
