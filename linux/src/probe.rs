//! Probe of a device's registers, the only register access of an inventory.
//!
//! Configuration space is read through sysfs, which wakes the device; registers in BAR 0 are read
//! through a mapping, if the device decodes memory. A probe leaves an open device alone, because
//! its user may be resetting the device.

use std::fs::File;

use varia_facts::PciFunction;
use varia_spec::Errno;
use varia_spec::nvidia::chip::Identity;
use varia_spec::pci::header;
use varia_sys::mapping::{Access, Mapping, Share, page_size};
use varia_variant::{After, Before, Monotonic, Ready, Register, Sample, Wait};

use crate::error::Error;
use crate::inventory::{Inventory, functions_folder};
use crate::layout;
use crate::tree::Tree;
use crate::users::users;

/// Reads the registers of the devices that Varia's variants serve, and completes the facts of these
/// devices. No device is read if one of them is open.
///
/// # Errors
/// [`Error::InUse`] if a device is open, [`Error::ProbeOfCapture`] if the host is not this machine.
pub fn probe(tree: &Tree, inventory: &mut Inventory) -> Result<(), Error> {
    if !tree.is_live() {
        return Err(Error::ProbeOfCapture);
    }
    let functions = &mut inventory.facts.functions;
    let ours = |function: &&mut PciFunction| {
        let (vendor, device) = (function.vendor, function.device);
        function.variant.is_some()
            || Identity::of(vendor, device, function.class) == Identity::Unknown
    };
    for function in functions.iter_mut().filter(ours) {
        let users = users(tree, function.bdf, function.iommu_group);
        function.open = Some(!users.is_empty());
        if let Some(user) = users.first() {
            return Err(Error::InUse {
                bdf: function.bdf,
                users: user.to_string(),
                remedy: "a probe does not read the registers of an open device: leave out \
                         --probe, or close the device",
            });
        }
    }
    let page = inventory.facts.kernel.page_size;
    for function in functions.iter_mut().filter(ours) {
        if let Err(why) = read_registers(tree, function, page) {
            inventory.notes.push(format!("{}: {why}", function.bdf));
            function.unprobed = Some(why);
        }
    }
    Ok(())
}

/// Reads the registers of one device, which must not be open, and completes the facts of it.
///
/// # Errors
/// Reason why the readiness can't be read, with the remedy.
pub fn read_registers(
    tree: &Tree,
    function: &mut PciFunction,
    page: Option<varia_facts::Bytes>,
) -> Result<(), String> {
    let folder = functions_folder(function.bdf);
    let config = tree
        .read(&format!("{folder}/config"))
        .map_err(|error| format!("configuration space can't be read: {error}"))?;
    if config.len() <= 256 {
        return Err(
            "only root may read more than 64 bytes of configuration space: run this command as root"
                .to_owned(),
        );
    }
    let Some(variant) = layout::lay_out(function, Some(&config), page) else {
        return Ok(());
    };
    let word = |at: u16| {
        let bytes = config.get(usize::from(at)..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let command = word(header::COMMAND).unwrap_or_default();
    if word(header::VENDOR_ID) == Some(u32::MAX) {
        return Err("all reads return ones: check that the device has power".to_owned());
    }
    let sample = Sample {
        now: Monotonic(0),
        memory_enabled: command & u32::from(header::command::MEMORY) != 0,
    };
    let mut wait = Wait::default();
    let Before::Poll {
        generation,
        registers,
    } = variant.ready_before(&mut wait, sample)
    else {
        return Err(
            "memory is off in the command register, so that readiness can't be read: a driver \
             that uses the device enables memory"
                .to_owned(),
        );
    };
    // registers of a suspended device return no values, and vfio-pci suspends a device that is not
    // open
    if let Some(state) = asleep(tree, function.bdf) {
        return Err(format!(
            "the device is in {state}, so that its registers can't be read: echo on > \
             /sys/bus/pci/devices/{}/power/control wakes the device until auto is \
             written there",
            function.bdf
        ));
    }
    let mut values = [0; varia_variant::ready::MAX_REGISTERS];
    for (value, register) in values.iter_mut().zip(registers) {
        *value = match register {
            None => continue,
            Some(Register::Config(at)) => word(at).ok_or("configuration space is too short")?,
            Some(Register::Bar0(at)) => bar0(tree, function, at)
                .map_err(|errno| format!("BAR 0 can't be read ({})", errno.name()))?,
        };
    }
    function.ready = Some(matches!(
        variant.ready_after(&mut wait, generation, values, sample),
        After::Ready
    ));
    Ok(())
}

/// Power state of a suspended device, of which no register can be read; `None` if the device is
/// awake.
#[must_use]
pub fn asleep(tree: &Tree, bdf: varia_facts::Bdf) -> Option<String> {
    let state = tree.text(&format!("{}/power_state", functions_folder(bdf)));
    state.filter(|state| state.starts_with("D3"))
}

/// Reads a register in BAR 0.
fn bar0(tree: &Tree, function: &PciFunction, at: u64) -> Result<u32, Errno> {
    let path = format!("{}/resource0", functions_folder(function.bdf));
    let path = tree.path(&path).map_err(|_| Errno::ENOENT)?;
    let file = File::open(path).map_err(|error| varia_sys::errno::of_io(&error))?;
    let page = page_size() as u64;
    let start = at - at % page;
    let mapping = Mapping::new(&file, start, page, Access::ReadOnly, Share::Shared)?;
    let mut bytes = [0; 4];
    mapping.read((at - start) as usize, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
