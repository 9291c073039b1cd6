//! The machine: the aperture and its place, the interrupt controller, what runs the CPUs, ACPI
//! and firmware.

use varia_facts::Bytes;

use crate::case::Case;
use crate::edit::fix::Fix;
use crate::finding::{Code, Findings};
use varia_plan::Arch;
use varia_plan::limits::ADDRESS_BITS;
use varia_plan::limits::VIRT_APERTURE;
use varia_plan::size;
use varia_plan::{aperture_end, aperture_for};

pub(super) fn check(case: &Case<'_>, out: &mut Findings) {
    let machine = &case.definition.machine;
    let line = machine.place.line;
    let is_arm = case.definition.arch == Arch::Aarch64;
    if !machine.has_acpi {
        out.add(
            Code::AcpiOff,
            line,
            "ACPI is off",
            "switch it on: nodes and Generic Initiators are in its tables",
            Fix::Acpi,
        );
    }
    if is_arm && !machine.has_firmware && case.has_hardware() {
        out.add(
            Code::FirmwareMissing,
            line,
            "the VM has no firmware",
            "start it with UEFI, which gives an arm64 guest its ACPI tables",
            Fix::Firmware,
        );
    }
    if case.has_hardware() {
        processor(case, out);
    }
    if case.is_qemu() && machine.kind.is_empty() {
        out.add(
            Code::MachineMissing,
            line,
            "the command line names no machine (-machine)",
            match is_arm {
                true => "name it: virt",
                false => "name it: q35",
            },
            Fix::Machine,
        );
        return;
    }
    // KVM has what the host has, which is a GICv3
    let is_guessed = machine.gic.is_none() && machine.accelerator.as_deref() != Some("kvm");
    if is_arm && (machine.gic.as_deref() == Some("2") || is_guessed) {
        let what = match &machine.gic {
            Some(version) => format!("the interrupt controller is a GICv{version}"),
            None => "nothing is said of the interrupt controller, and without KVM it is a GICv2"
                .to_owned(),
        };
        out.add(
            Code::GicVersion,
            line,
            what,
            "make it a GICv3 (gic-version=3), which has message-signalled interrupts",
            Fix::Gic,
        );
    }
    if machine.smmu {
        out.add(
            Code::MachineSmmu,
            line,
            "the machine has an SMMUv3 for all its devices (iommu=smmuv3), which is emulated",
            "take it away; an arm-smmuv3 device with accel=on on each GPU's root bus serves GPUs",
            Fix::NoMachineSmmu,
        );
    }
    aperture(case, out);
}

fn processor(case: &Case<'_>, out: &mut Findings) {
    let machine = &case.definition.machine;
    if machine.accelerator.as_deref() != Some("kvm") {
        let what = match &machine.accelerator {
            Some(other) => format!("the VM is run by {other:?}"),
            None => "nothing says what runs the VM, so that software does".to_owned(),
        };
        out.add(
            Code::Accelerator,
            machine.place.line,
            what,
            "run it by KVM: only that maps the GPU's memory into the guest as it is",
            Fix::Kvm,
        );
    }
    let model = machine.cpu.as_ref().map(|(model, _)| model.as_str());
    let is_arm = case.definition.arch == Arch::Aarch64;
    if is_arm && !matches!(model, Some("host" | "max")) {
        let what = match model {
            Some(model) => format!("the CPU is a {model}"),
            None => "nothing is said of the CPU".to_owned(),
        };
        out.add(
            Code::CpuModel,
            machine
                .cpu
                .as_ref()
                .map_or(machine.place.line, |(_, place)| place.line),
            what,
            "make it the host's, which KVM on arm64 runs alone",
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
    let windows: Vec<_> = planned.iter().map(|gpu| size(gpu.window.0)).collect();
    let need = match windows.is_empty() {
        true => "the machine takes no less than".to_owned(),
        false => format!(
            "the GPUs' root ports need {}, other devices more:",
            windows.join(" + ")
        ),
    };
    let fix = u64::try_from(wanted)
        .ok()
        .map(|wanted| Fix::Aperture(Bytes(wanted)));
    let wanted_text = u64::try_from(wanted).map_or_else(|_| format!("{wanted:#x} bytes"), size);
    let given = match (machine.aperture, definition.arch) {
        _ if machine.is_low => Some(0),
        (Some((Some(given), _)), _) => Some(u128::from(given.0)),
        // a number that only its author knows
        (Some((None, _)), _) => None,
        (None, Arch::Aarch64) => Some(u128::from(VIRT_APERTURE)),
        // firmware makes it as large as the addresses allow
        (None, Arch::X86_64) => None,
    };
    match given {
        Some(given) if given < wanted => out.add(
            Code::ApertureTooSmall,
            line,
            format!(
                "the aperture has {}{}; {need} {wanted_text}",
                u64::try_from(given).map_or_else(|_| format!("{given:#x} bytes"), size),
                match (machine.is_low, machine.aperture) {
                    (true, _) => " (highmem=off)",
                    (false, Some(_)) => "",
                    (false, None) => ", as none is given",
                },
            ),
            format!("make it {wanted_text}"),
            fix,
        ),
        Some(given) if definition.arch == Arch::Aarch64 && !given.is_power_of_two() => out.add(
            Code::ApertureSize,
            line,
            format!("the aperture has {given:#x} bytes, which is no power of two"),
            format!("make it {wanted_text}"),
            fix,
        ),
        _ => width(case, given.unwrap_or(0).max(wanted), wanted, out),
    }
}

/// Whether an aperture of this size ends below the last address.
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
    let (remedy, fix) = match (smaller, place) {
        (Some(wanted), _) => (
            format!("make the aperture {}", size(wanted)),
            Some(Fix::Aperture(Bytes(wanted))),
        ),
        (None, Some(_)) => (
            format!("give the guest {width} address bits"),
            Some(Fix::AddressBits(width)),
        ),
        (None, None) => ("give the VM fewer GPUs".to_owned(), None),
    };
    out.add(
        Code::AddressWidth,
        place
            .or(machine.aperture.map(|(_, place)| place))
            .unwrap_or(machine.place)
            .line,
        format!(
            "the aperture ends at {:#x}, and the guest's addresses have {bits} bits",
            aperture_end(ram, given)
        ),
        remedy,
        fix,
    );
}
