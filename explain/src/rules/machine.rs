//! The machine: aperture, interrupt controller, accelerator, CPU model, ACPI and firmware.

use std::fmt::Display;

use varia_facts::Bytes;

use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings, Value, optional};
use crate::model::Unknown;
use varia_facts::Arch;
use varia_plan::limits::ADDRESS_BITS;
use varia_plan::limits::VIRT_APERTURE;
use varia_plan::{aperture_end, aperture_for, size};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let machine = &case.definition.machine;
    let line = machine.place.line;
    let is_arm = case.definition.arch == Arch::Aarch64;
    let is_known = |part: Unknown| !machine.open.contains(&part);
    if !machine.has_acpi {
        out.add(Code::AcpiOff, line, &[], Fix::Acpi);
    }
    let lacks_firmware = !machine.has_firmware && is_known(Unknown::Firmware);
    if is_arm && lacks_firmware && case.has_hardware() {
        out.add(Code::FirmwareMissing, line, &[], Fix::Firmware);
    }
    if case.has_hardware() {
        processor(case, out);
    }
    if case.is_qemu() && machine.kind.is_empty() && is_known(Unknown::Kind) {
        let kind = if is_arm { "virt" } else { "q35" };
        out.add(
            Code::MachineMissing,
            line,
            &[("machine", &kind)],
            Fix::Machine,
        );
        return;
    }
    // with KVM the default is the host's, a GICv3
    let is_guessed = machine.gic.is_none()
        && machine.accelerator.as_deref() != Some("kvm")
        && is_known(Unknown::InterruptController)
        && is_known(Unknown::Accelerator);
    if is_arm && (machine.gic.as_deref() == Some("2") || is_guessed) {
        let version = optional(machine.gic.as_ref());
        out.add(Code::GicVersion, line, &[("version", &version)], Fix::Gic);
    }
    if machine.smmu {
        out.add(Code::MachineSmmu, line, &[], Fix::NoMachineSmmu);
    }
    aperture(case, out);
}

fn processor(case: &Case<'_>, out: &mut Findings) {
    let machine = &case.definition.machine;
    let accelerator = machine.accelerator.as_deref();
    let guest = case.definition.arch;
    let host = case.facts.and_then(|facts| facts.host.arch);
    if let Some(host) = host.filter(|host| *host != guest && accelerator == Some("kvm")) {
        let machine_of_host = match host {
            Arch::Aarch64 => "virt",
            Arch::X86_64 => "q35",
        };
        let values: &[Value<'_>] = &[
            ("guest", &guest),
            ("host", &host),
            ("machine", &machine_of_host),
        ];
        out.add(Code::MachineArch, machine.place.line, values, None);
    }
    let is_known = |part: Unknown| !machine.open.contains(&part);
    if accelerator != Some("kvm") && is_known(Unknown::Accelerator) {
        out.add(
            Code::Accelerator,
            machine.place.line,
            &[("accelerator", &optional(accelerator))],
            Fix::Kvm,
        );
    }
    let cpu = machine.cpu.as_ref();
    let model = cpu.map(|(model, _)| model.as_str());
    let is_arm = case.definition.arch == Arch::Aarch64;
    let is_wrong = !matches!(model, Some("host" | "max")) && is_known(Unknown::Cpu);
    if is_arm && is_wrong {
        out.add(
            Code::CpuModel,
            cpu.map_or(machine.place, |(_, place)| *place).line,
            &[("model", &optional(model))],
            Fix::HostCpu,
        );
    }
}

fn aperture(case: &Case<'_>, out: &mut Findings) {
    let definition = case.definition;
    let machine = &definition.machine;
    let planned = case.planned();
    let wanted = aperture_for(definition.arch, planned.iter().map(|gpu| gpu.window));
    let line = machine
        .aperture
        .map_or(machine.place.line, |(_, place)| place.line);
    let windows: Vec<_> = planned.iter().map(|gpu| gpu.window.to_string()).collect();
    let fix = u64::try_from(wanted)
        .ok()
        .map(|wanted| Fix::Aperture(Bytes(wanted)));
    let given = match (machine.aperture, definition.arch) {
        _ if machine.is_low => Some(0),
        (Some((Some(given), _)), _) => Some(u128::from(given.0)),
        // a number that a shell expands
        (Some((None, _)), _) => None,
        (None, Arch::Aarch64) if machine.open.contains(&Unknown::Aperture) => None,
        (None, Arch::Aarch64) => Some(u128::from(VIRT_APERTURE)),
        // firmware makes it as large as the guest's addresses allow
        (None, Arch::X86_64) => None,
    };
    match given {
        Some(given) if given < wanted => {
            let windows = windows.join(" + ");
            let given = size(given);
            let found = match (machine.is_low, machine.aperture) {
                (true, _) => ("off", &"highmem=off" as &dyn Display),
                (false, Some(_)) => ("given", &given as &dyn Display),
                (false, None) => ("default", &given as &dyn Display),
            };
            let values = [found, ("wanted", &size(wanted)), ("windows", &windows)];
            out.add(Code::ApertureTooSmall, line, &values, fix);
        }
        Some(given) if definition.arch == Arch::Aarch64 && !given.is_power_of_two() => out.add(
            Code::ApertureSize,
            line,
            &[("given", &size(given)), ("wanted", &size(wanted))],
            fix,
        ),
        _ => width(case, given.unwrap_or(0).max(wanted), wanted, out),
    }
}

/// Checks that an aperture of this size ends below the guest's last address.
fn width(case: &Case<'_>, given: u128, wanted: u128, out: &mut Findings) {
    let definition = case.definition;
    let machine = &definition.machine;
    let ram = machine.ram.unwrap_or_default();
    let of_kvm = case.facts.and_then(|facts| facts.kernel.kvm.ipa_bits);
    let (bits, place) = match (machine.address_bits, definition.arch) {
        (Some((bits, place)), Arch::X86_64) => (bits, Some(place)),
        (None, Arch::X86_64) => return,
        (_, Arch::Aarch64) => (of_kvm.unwrap_or(ADDRESS_BITS), None),
    };
    let beyond = |size: u128| aperture_end(ram, size) > 1 << bits.min(64);
    if !beyond(given) {
        return;
    }
    let width = (aperture_end(ram, wanted) - 1)
        .checked_ilog2()
        .map_or(1, |bit| bit + 1);
    let smaller = u64::try_from(wanted)
        .ok()
        .filter(|_| wanted < given && !beyond(wanted));
    let fix = match (smaller, place) {
        (Some(wanted), _) => Some(Fix::Aperture(Bytes(wanted))),
        (None, Some(_)) => Some(Fix::AddressBits(width)),
        (None, None) => None,
    };
    let end = aperture_end(ram, given);
    out.add(
        Code::AddressWidth,
        place
            .or(machine.aperture.map(|(_, place)| place))
            .unwrap_or(machine.place)
            .line,
        &[
            ("end", &size(end)),
            ("bits", &bits),
            ("smaller", &optional(smaller.map(Bytes))),
            ("width", &optional(place.map(|_| width))),
        ],
        fix,
    );
}
