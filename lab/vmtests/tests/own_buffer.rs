//! no-fault-under-lock: our module takes no user fault with a lock held.

use varia_lab::{Arch, GuestCommand};
use varia_silicon::{Options, profile};
use varia_vmtests::Result;
use varia_vmtests::host::{Driver, HostPlan, Memory};

const MIB: u64 = 1 << 20;

#[test]
fn no_fault_under_lock_a_read_into_a_mapping_of_the_same_region_ends() -> Result<()> {
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let host = HostPlan::new(Arch::Aarch64, "own buffer")
        .gpu(gh200, options, Memory::Real)
        .boot()?;
    host.load(Driver::Ours)?;
    assert_eq!(host.bind(0, Driver::Ours)?, Ok(()));
    let command = GuestCommand::applet("own-buffer", &[host.address(0), "2000"]);
    let said = host.vm.run(&command)?.checked()?.text();
    let counts: Vec<u32> = said
        .split_whitespace()
        .map(|count| count.parse().expect("a number"))
        .collect();
    let &[done, faulted] = counts.as_slice() else {
        panic!("the applet says {said:?}");
    };
    assert!(done + faulted >= 2000, "{done} done, {faulted} faulted");
    assert!(
        done > 0 && faulted > 0,
        "{done} done, {faulted} faulted: not raced"
    );
    host.power_off()
}
