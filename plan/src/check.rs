//! Checks of a request before planning: texts that a VMM does not take, and functions that can't be
//! assigned.

use std::path::Path;

use varia_facts::{Arch, Facts, PciFunction};

use crate::error::Error;
use crate::request::Request;

/// Slots of the first root bus that are not for disks: the host bridge, QEMU's default devices, and
/// the ISA bridge of q35.
const OTHER_SLOTS: usize = 4;
const SLOTS: usize = 32;
/// Drivers that do no DMA for the host.
const HARMLESS: [&str; 3] = ["vfio-pci", "pci-stub", "pcieport"];
/// Class and subclass of a PCI bridge.
const BRIDGE: u32 = 0x06_04;

/// Checks a name that needs no quotes in a VMM or a shell.
pub(crate) fn name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
        return Err(Error::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// Files and the kernel's command line. libvirt's schema wants absolute paths (`absFilePath`), and
/// XML has no control characters, however they are written.
pub(crate) fn texts(request: &Request) -> Result<(), Error> {
    let kernel = request.kernel.as_ref();
    let kernels = kernel.map(|kernel| ("--kernel", &kernel.image));
    let initrds = kernel.and_then(|kernel| Some(("--initrd", kernel.initrd.as_ref()?)));
    let firmware = request.firmware.iter().map(|file| ("--firmware", file));
    let disks = request.disks.iter().map(|file| ("--disk", file));
    for (option, file) in firmware.chain(kernels).chain(initrds).chain(disks) {
        printable(option, file)?;
        if !Path::new(file).is_absolute() {
            return Err(Error::RelativeFile {
                option,
                file: file.clone(),
            });
        }
    }
    match kernel {
        Some(kernel) => printable("--append", &kernel.append),
        None => Ok(()),
    }
}

/// Source: XML 1.0, section 2.2 (`Char`).
fn printable(option: &'static str, text: &str) -> Result<(), Error> {
    let wrong = |c: &char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    match text.chars().find(wrong) {
        None => Ok(()),
        Some(character) => Err(Error::Character {
            option,
            text: text.to_owned(),
            character,
        }),
    }
}

/// The most virtual CPUs that a machine of QEMU 11.1 takes (`-smp` says so when it is given more);
/// KVM on arm64 takes as many (`KVM_MAX_VCPUS`).
pub(crate) fn cpus(facts: &Facts, arch: Arch, cpus: u32) -> Result<(), Error> {
    let machine = match arch {
        Arch::Aarch64 => 512,
        Arch::X86_64 => 4096,
    };
    let kvm = facts.kernel.kvm.max_vcpus.unwrap_or(machine);
    let most = machine.min(kvm);
    if cpus > most {
        return Err(Error::TooManyCpus { cpus, most });
    }
    Ok(())
}

/// Each disk and each GPU's root bus or port has a place on the first root bus.
pub(crate) fn disks(disks: usize, gpus: usize) -> Result<(), Error> {
    let most = SLOTS.saturating_sub(OTHER_SLOTS + gpus);
    if disks > most {
        return Err(Error::TooManyDisks { disks, gpus, most });
    }
    Ok(())
}

/// The host can give all of these to one VM; what has to be done before that can start.
pub(crate) fn functions(facts: &Facts, chosen: &[&PciFunction]) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for function in chosen {
        let bdf = function.bdf;
        let group = function.iommu_group.ok_or(Error::NoGroup { bdf })?;
        let groups = &facts.host.iommu.groups;
        let members = groups.iter().find(|one| one.id == group);
        let members = members.map_or(&[][..], |group| &group.members);
        let others = members
            .iter()
            .filter(|member| chosen.iter().all(|one| one.bdf != **member))
            .filter_map(|member| facts.function(*member))
            .filter(|member| !leaves_its_group(member));
        let others: Vec<_> = others
            .map(|one| {
                format!(
                    "{} ({})",
                    one.bdf,
                    one.driver.as_deref().unwrap_or_default()
                )
            })
            .collect();
        if !others.is_empty() {
            return Err(Error::Group {
                bdf,
                group,
                others: others.join(", "),
            });
        }
        if function.open == Some(true) {
            // perhaps by the very VM that this is the plan of
            let user = function.user.as_deref().unwrap_or("an unknown process");
            notes.push(format!(
                "{bdf} is in use by {user}: end the process before this VM starts, or request \
                 another GPU"
            ));
        }
    }
    Ok(notes)
}

/// True if the driver of `function` leaves the other functions of the IOMMU group to a VM: a
/// function without a driver, with the bridge driver or with a VFIO driver does no DMA for the
/// host. The kernel accepts both spellings of a driver's name.
#[must_use]
pub fn leaves_its_group(function: &PciFunction) -> bool {
    let Some(driver) = &function.driver else {
        return true;
    };
    let driver = driver.replace('-', "_");
    let best = function.best_driver.as_deref();
    let mut harmless = HARMLESS.into_iter().chain(best);
    function.class >> 8 == BRIDGE || harmless.any(|one| one.replace('-', "_") == driver)
}
