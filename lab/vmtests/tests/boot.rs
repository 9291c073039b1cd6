//! The lab itself: machines of both architectures boot, do what they are asked, end, and
//! say why when they don't.

#[path = "boot/hot_plug.rs"]
mod hot_plug;

use std::time::Duration;

use varia_lab::iasl::compile_asl;
use varia_lab::{
    Arch, ArchNames, Ending, GuestCommand, HANG, LabError, Result, Running, Set, Vm, packages,
};

/// Checks the kernel's release, and that the module which loads at boot is there.
fn has_booted(vm: &Running, arch: Arch) -> Result<()> {
    assert_eq!(vm.sh("uname -r")?, vm.release());
    assert!(vm.release().ends_with(arch.debian()), "{}", vm.release());
    assert!(
        vm.list("/sys/bus/pci/drivers")?
            .contains(&"vfio-pci".to_owned())
    );
    Ok(())
}

#[test]
fn an_arm_machine_has_its_module_programs_and_acpi_table() -> Result<()> {
    let arch = Arch::Aarch64;
    let userland = packages::ensure(Set::Userland(arch))?;
    let source = "DefinitionBlock (\"\", \"SSDT\", 2, \"VARIA\", \"LABTEST\", 1) { \
                  Name (\\VLAB, 42) }";
    let vm = Vm::new(arch)
        .module("vfio-pci")
        .acpi_table(compile_asl(source)?)
        .programs(&userland, &["/usr/bin/lspci"])?
        .boot()?;
    has_booted(&vm, arch)?;
    let list = vm.sh("/usr/bin/lspci -n")?;
    // the root bridge: Red Hat's generic one
    assert!(list.contains("1b36:0008"), "{list}");
    let mut found = false;
    for name in vm.list("/sys/firmware/acpi/tables")? {
        if name.starts_with("SSDT") {
            let table = vm.read(&format!("/sys/firmware/acpi/tables/{name}"))?;
            found |= table.windows(7).any(|window| window == b"LABTEST");
        }
    }
    assert!(found, "no SSDT of the machine is ours");
    vm.power_off()
}

#[test]
fn an_x86_machine_has_its_module_files_commands_tasks_a_userland_and_a_port() -> Result<()> {
    let arch = Arch::X86_64;
    let tree = packages::ensure(Set::Userland(arch))?;
    let port = hot_plug::Port::new();
    let vm = Vm::new(arch)
        .module("vfio-pci")
        .file("/lab/given", "a gift")
        .share(tree.root(), "root")
        .module_later("overlay");
    let vm = port.of(vm).boot()?;
    has_booted(&vm, arch)?;
    files_commands_and_tasks(&vm)?;

    // a shared root is a writable userland
    assert!(!vm.list("/sys/module")?.contains(&"overlay".to_owned()));
    let root = vm.userland("root")?;
    assert!(vm.list("/sys/module")?.contains(&"overlay".to_owned()));
    let command = GuestCommand::new(["/usr/bin/lspci", "-n"]).in_root(&root);
    // the root bridge: Intel's Q35
    assert!(vm.run(&command)?.checked()?.text().contains("8086:29c0"));
    vm.write(&format!("{root}/etc/own"), "written")?;
    assert_eq!(vm.read_text(&format!("{root}/etc/own"))?, "written");
    assert!(
        !tree.path("/etc/own").exists(),
        "the shared folder stays as it was"
    );
    port.gpus_come_and_go(&vm)?;
    vm.power_off()
}

fn files_commands_and_tasks(vm: &Running) -> Result<()> {
    assert_eq!(vm.read_text("/lab/given")?, "a gift");

    let large: Vec<u8> = (0..5 << 20).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
    vm.write("/tmp/large", &large)?;
    assert_eq!(vm.read("/tmp/large")?, large);
    assert_eq!(vm.read_at("/tmp/large", 1000, 10)?, large[1000..1010]);
    assert_eq!(vm.applet("hexcopy", &[], b"\x00\xff!")?, b"00ff21");

    let failed = vm.run(&GuestCommand::sh("echo out; echo err >&2; exit 9"))?;
    assert_eq!(failed.ending, Ending::Exit(9));
    assert_eq!(
        (failed.text().as_str(), failed.stderr.as_slice()),
        ("out", b"err\n".as_slice())
    );
    let error = failed.checked().unwrap_err().to_string();
    assert!(
        error.contains("exit code 9") && error.contains("err"),
        "{error}"
    );

    let slow = GuestCommand::sh("sleep 100").limit(Duration::from_millis(300));
    assert_eq!(vm.run(&slow)?.ending, Ending::TimedOut);
    let task = vm.spawn(&GuestCommand::sh("read line; echo got $line").input("this\n"))?;
    assert_eq!(vm.wait(&task, HANG)?.text(), "got this");

    let error = vm.read("/no/such/file").unwrap_err();
    assert!(
        matches!(error, LabError::Agent { errno: Some(2), .. }),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_machine_that_panics_says_so_with_its_console_and_command_line() {
    let error = Vm::new(Arch::X86_64)
        .cmdline("rdinit=/no/such/init")
        .boot()
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the machine ended"), "{text}");
    assert!(text.contains("Kernel panic"), "{text}");
    assert!(
        text.contains("-append") && text.contains("rdinit=/no/such/init"),
        "{text}"
    );
}

#[test]
fn a_machine_that_hangs_is_ended_at_its_time_limit() {
    let vm = Vm::new(Arch::X86_64)
        .qemu_args(["-S"])
        .timeout(Duration::from_secs(1));
    let text = vm.boot().unwrap_err().to_string();
    assert!(
        text.contains("no answer from the agent within 1s while it booted"),
        "{text}"
    );
}

#[test]
fn a_machine_that_can_not_start_shows_what_qemu_says() {
    let vm = Vm::new(Arch::X86_64).qemu_args(["-device", "no-such-device"]);
    let text = vm.boot().unwrap_err().to_string();
    assert!(text.contains("exit status: 1"), "{text}");
    assert!(
        text.contains("'no-such-device' is not a valid device model name"),
        "{text}"
    );
}

#[test]
fn a_machine_that_dies_in_mid_request_fails_the_request() -> Result<()> {
    let vm = Vm::new(Arch::X86_64).boot()?;
    let text = vm
        .sh("echo c > /proc/sysrq-trigger; sleep 100")
        .unwrap_err()
        .to_string();
    assert!(text.contains("the machine ended"), "{text}");
    assert!(text.contains("sysrq"), "{text}");
    Ok(())
}
