//! Fetched tools on a machine that refuses user namespaces, as Ubuntu does: they run under proot.
//!
//! A user namespace in which no further one can be made stands in for such a machine, or root without
//! the capability for mounts: the test starts itself again there.

use std::env;
use std::process::Command;

use varia_lab::chroot::{self, Chroot};
use varia_lab::{DebianError, Set, command, iasl, packages};
use varia_vmtests::Result;

/// Marks the process in the namespace.
const INSIDE: &str = "VARIA_TEST_INSIDE";

/// A table that the ACPI compiler takes.
const TABLE: &str = r#"
DefinitionBlock ("", "SSDT", 2, "VARIA", "TEST", 1) { Name (\TST0, 0x42) }
"#;

#[test]
fn fetched_tools_run_where_user_namespaces_are_refused() -> Result<()> {
    // Fetched before, by whoever may take long for it.
    packages::ensure(Set::Tools)?;
    if chroot::refusal().is_some() {
        return tools();
    }
    assert!(
        env::var_os(INSIDE).is_none(),
        "namespaces are still allowed"
    );
    let forbid = "for kind in user mnt; do echo 0 >/proc/sys/user/max_${kind}_namespaces; done; \
                exec \"$@\"";
    let user = ["--user", "--map-current-user", "--keep-caps"];
    let mut inside = if command::run(Command::new("unshare").args(user).arg("true")).is_ok() {
        let mut inside = Command::new("unshare");
        inside.args(user).args(["/bin/sh", "-ec", forbid, "sh"]);
        inside
    } else {
        // Root makes mount namespaces where there are no user namespaces, by this capability.
        let mut inside = Command::new("setpriv");
        inside.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
        inside
    };
    inside
        .arg(env::current_exe().expect("this program"))
        .args([
            "--exact",
            "fetched_tools_run_where_user_namespaces_are_refused",
        ])
        .env(INSIDE, "1");
    let said = command::text(&mut inside)?;
    assert!(said.contains("test result: ok. 1 passed"), "{said}");
    Ok(())
}

/// Compilers, a folder that both sides see, the environment, and the exit status.
fn tools() -> Result<()> {
    let table = iasl::compile_asl(TABLE)?;
    assert_eq!(table.get(..4), Some(&b"SSDT"[..]));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tools = packages::ensure(Set::Tools)?;
    let root = Chroot::new(&tools).bind(folder.path()).cwd(folder.path());
    let script = "test \"$(id -u)\" = 0 && test -c /dev/null && \
                  echo 'int main(void) { return 0; }' >/tmp/main.c && \
                  gcc=$(ls /usr/bin/aarch64-linux-gnu-gcc-[0-9]* /usr/bin/gcc-[0-9]* | head -n 1) && \
                  $gcc -static -o program /tmp/main.c && echo $NAME";
    let output = root
        .clone()
        .env("NAME", "told")
        .run(["/bin/sh", "-ec", script])?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "told\n");
    let program = std::fs::read(folder.path().join("program")).expect("a program");
    assert!(program.starts_with(b"\x7fELF"));
    let failed = root.run(["/bin/sh", "-c", "echo why >&2; exit 7"]);
    let Err(DebianError::Command { status, output, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert!(
        status.contains('7') && output.contains("why"),
        "{status}: {output}"
    );
    Ok(())
}
