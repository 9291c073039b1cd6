//! The server's confinement on kernels with landlock and without.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::process::{Folder, Serving, command, program, varia};

/// Environment variable that gives the socket to a server that is to find no landlock.
const SOCKET: &str = "VARIA_TEST_WITHOUT_LANDLOCK";
const NAME: &str = "confinement::a_kernel_without_landlock_is_told_of_and_one_with_it_is_not";
const WARNING: &str = "this kernel has no landlock";

/// Becomes a server to which the kernel answers as one without landlock.
fn serve_without_landlock(socket: &std::ffi::OsStr) -> ! {
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let filter = BpfProgram::try_from(filter.unwrap()).unwrap();
    seccompiler::apply_filter(&filter).unwrap();
    let mut server = Command::new(program());
    server.args(["serve", "nic", "--socket"]).arg(socket);
    panic!("{}", server.exec());
}

#[test]
fn a_kernel_without_landlock_is_told_of_and_one_with_it_is_not() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        serve_without_landlock(&socket);
    }
    let kernel_has_landlock = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .is_ok_and(|ruleset| ruleset.create().is_ok());
    let folder = Folder::new();
    let socket = folder.path("plain.sock");
    let mut plain = varia(["serve", "nic", "--socket"]);
    plain.arg(&socket);
    let (status, text) = Serving::of(plain, socket).end(Signal::TERM);
    assert!(status.success(), "{text}");
    assert_ne!(text.contains(WARNING), kernel_has_landlock, "{text}");
    let mut hidden = command(std::env::current_exe().unwrap());
    hidden.args(["--exact", NAME, "--nocapture"]);
    hidden.env(SOCKET, folder.path("hidden.sock"));
    let mut served = Serving::of(hidden, folder.path("hidden.sock"));
    served.wait_for(WARNING);
    served.client().device_info().unwrap();
    let status = format!("/proc/{}/status", served.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    assert!(
        status.contains("Seccomp:\t2"),
        "system calls are filtered: {status}"
    );
}
