//! Faults in the middle of the guest's work: the device fails for the page concerned, or starts anew,
//! and the memory and the rest of the work stay as they are.

use varia_core::Device;
use varia_lab::{Ending, Running};
use varia_silicon::Faults;
use varia_spec::copy_engine::{register, status};
use varia_vmtests::Result;
use varia_vmtests::memory_error;
use varia_vmtests::qmp::Connection;

use crate::copies::{Engine, PAGE};
use crate::{DRIVER, GIB, Gpus, MIB, PROGRAM, User, bar4, bind, monitor, with_memory};

const SIGBUS: i32 = 7;
/// An address where the guest has no memory.
const NO_MEMORY: u64 = 0x4000_0000_0000;

pub(crate) fn faults(vm: &Running, gpus: &Gpus, bdf: &str) -> Result<()> {
    let engine = Engine { vm, bdf };
    let log = bind(vm, bdf, "even")?;
    assert_eq!(with_memory(vm)?, "0-2", "{log}");
    failed_page(gpus, &engine)?;
    failed_page_of_a_process(gpus, &engine)?;
    reset_by_the_guest(gpus, &engine)?;
    reset_by_the_host(gpus, &engine)?;
    vm.write(&format!("{DRIVER}/unbind"), bdf)?;
    assert_eq!(with_memory(vm)?, "0", "{}", vm.sh("dmesg | tail")?);
    Ok(())
}

/// The program of the guest has nothing to complain about, and each command has its interrupt.
fn works_on(engine: &Engine<'_>) -> Result<()> {
    assert_eq!(with_memory(engine.vm)?, "0-2");
    let table = engine.vm.sh(&format!("{PROGRAM} 1"))?;
    assert!(table.contains("66 commands, 66 interrupts"), "{table}");
    Ok(())
}

fn fail(gpus: &Gpus, page: Option<u64>) -> Result<()> {
    let faults = Faults {
        poisoned_page: page,
        ..Faults::NONE
    };
    Ok(gpus.first.silicon().set_faults(faults)?)
}

/// A page that has failed: the engine names it, its neighbours are as before.
fn failed_page(gpus: &Gpus, engine: &Engine<'_>) -> Result<()> {
    let page = 5 * PAGE;
    fail(gpus, Some(page))?;
    assert_eq!(engine.checksum(page - PAGE)?, (status::DONE, 0));
    assert_eq!(engine.checksum(page)?, (status::MEMORY_FAILED, page));
    fail(gpus, None)?;
    assert_eq!(engine.checksum(page)?, (status::DONE, 0));
    Ok(())
}

/// A page of a process that has failed: firmware tells the guest, who uses the page gets SIGBUS, and
/// the rest goes on.
///
/// An emulated CPU has no machine checks of the host's memory, so the notice stands for what KVM
/// and QEMU make of one on hardware: it comes to the guest in the same form.
fn failed_page_of_a_process(gpus: &Gpus, engine: &Engine<'_>) -> Result<()> {
    let vm = engine.vm;
    let user = User::start(vm, "fail")?;
    let address = user.address()?;
    let page = address - bar4(vm, engine.bdf)?;
    fail(gpus, Some(page))?;
    let mut monitor = Connection::open(monitor(&gpus.folder).as_ref());
    memory_error::notify(&mut monitor, address).expect("QEMU takes the notice");
    let frame = address / PAGE;
    vm.sh(&format!(
        "until dmesg | grep 'Memory failure: {frame:#x}: recovery action .*: Recovered'; \
         do sleep 0.1; done"
    ))?;
    let (said, output) = user.outcome()?;
    assert!(said.ends_with("the other pages are as before"), "{said}");
    assert_eq!(output.ending, Ending::Signal(SIGBUS), "{said}");

    assert_eq!(engine.checksum(page)?, (status::MEMORY_FAILED, page));
    assert_eq!(engine.checksum(page + PAGE)?, (status::DONE, 0));
    works_on(engine)?;
    fail(gpus, None)
}

/// Bytes in the memory, which no reset may change.
fn mark(gpus: &Gpus, bytes: &[u8; 16]) -> impl Fn() {
    let memory = &gpus
        .first
        .silicon()
        .coherent_memory()
        .expect("a GH200")
        .bytes;
    let place = GIB + 300 * MIB;
    memory.write(place, bytes).expect("inside the memory");
    let expected = *bytes;
    move || {
        let mut bytes = [0; 16];
        memory.read(place, &mut bytes).expect("inside the memory");
        assert_eq!(bytes, expected);
    }
}

/// A function-level reset by the guest, after which the memory is late: the engine's registers are
/// lost, and its commands fail until the memory is ready. The bytes are not lost, and the guest works
/// on.
fn reset_by_the_guest(gpus: &Gpus, engine: &Engine<'_>) -> Result<()> {
    let (vm, bdf, silicon) = (engine.vm, engine.bdf, gpus.first.silicon());
    let is_kept = mark(gpus, b"before the reset");
    let user = User::start(vm, "hold")?;
    let resets = silicon.reset_count();
    vm.write(&format!("/sys/bus/pci/devices/{bdf}/reset"), "1")?;
    assert!(silicon.reset_count() > resets, "a reset came to the device");
    assert_eq!(engine.register(register::COUNT, 4)?, "00000000");
    assert_eq!(engine.register(register::VECTOR, 4)?, "ffffffff");
    assert!(!silicon.is_ready());
    assert_eq!(engine.checksum(PAGE)?, (status::NOT_READY, PAGE));
    gpus.warm_up();
    assert_eq!(engine.checksum(PAGE)?, (status::DONE, 0));
    let said = user.end()?;
    assert!(said.ends_with("as before, on node 1"), "{said}");
    is_kept();
    works_on(engine)
}

/// A reset that does not come through the guest: the device has lost its registers, memory enable, bus
/// master and MSI-X among them, and has them again once the driver is bound again.
fn reset_by_the_host(gpus: &Gpus, engine: &Engine<'_>) -> Result<()> {
    let (vm, bdf, silicon) = (engine.vm, engine.bdf, gpus.first.silicon());
    let is_kept = mark(gpus, b"reset elsewhere.");
    let user = User::start(vm, "hold")?;
    silicon.reset().expect("a device that is there");
    gpus.warm_up();
    assert_eq!(engine.register(register::COUNT, 4)?, "00000000");
    assert_eq!(engine.checksum(PAGE)?, (status::DONE, 0));
    assert_eq!(engine.copy_to_bus(PAGE, NO_MEMORY)?, (status::NO_MASTER, 0));
    let said = user.end()?;
    assert!(said.ends_with("as before, on node 1"), "{said}");
    is_kept();

    vm.write(&format!("{DRIVER}/unbind"), bdf)?;
    assert_eq!(with_memory(vm)?, "0", "{}", vm.sh("dmesg | tail")?);
    bind(vm, bdf, "even")?;
    let answer = engine.copy_to_bus(PAGE, NO_MEMORY)?;
    assert_eq!(answer, (status::NOT_MAPPED, NO_MEMORY));
    works_on(engine)
}
