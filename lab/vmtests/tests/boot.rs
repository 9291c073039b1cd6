//! The lab itself: machines of both architectures boot, do what they are asked, end, and
//! say why when they don't.

use std::time::{Duration, Instant};

use varia_lab::{Arch, Ending, GuestCommand, LabError, Result, Vm};

fn boots_loads_vfio_pci_and_powers_off(arch: Arch) -> Result<()> {
    let vm = Vm::new(arch).module("vfio-pci").boot()?;
    assert_eq!(vm.sh("uname -r")?, vm.release());
    assert!(vm.release().ends_with(arch.debian()), "{}", vm.release());
    assert!(
        vm.list("/sys/bus/pci/drivers")?
            .contains(&"vfio-pci".to_owned())
    );
    vm.power_off()
}

#[test]
fn an_arm_machine_boots_loads_vfio_pci_and_powers_off() -> Result<()> {
    boots_loads_vfio_pci_and_powers_off(Arch::Aarch64)
}

#[test]
fn an_x86_machine_boots_loads_vfio_pci_and_powers_off() -> Result<()> {
    boots_loads_vfio_pci_and_powers_off(Arch::X86_64)
}

#[test]
fn files_commands_and_tasks_work_over_the_channel() -> Result<()> {
    let vm = Vm::new(Arch::X86_64)
        .file("/lab/given", "a gift")
        .module_later("vfio")
        .boot()?;
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
    assert_eq!(vm.wait(&task, Duration::from_secs(20))?.text(), "got this");

    let error = vm.read("/no/such/file").unwrap_err();
    assert!(
        matches!(error, LabError::Agent { errno: Some(2), .. }),
        "{error}"
    );
    assert!(!vm.list("/sys/module")?.contains(&"vfio".to_owned()));
    vm.modprobe("vfio", "")?;
    assert!(vm.list("/sys/module")?.contains(&"vfio".to_owned()));
    vm.power_off()
}

#[test]
fn a_machine_that_panics_says_so_with_its_console_and_command_line() {
    let started = Instant::now();
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
    assert!(
        started.elapsed() < Duration::from_secs(80),
        "it did not wait for the time limit"
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
