//! Words of refusals that users found wanting: each names the fault and the remedy, and nothing else.

use crate::cases::{CASES, host};
use crate::process::{Folder, ended, varia};

#[test]
fn a_refusal_names_what_was_asked_for() {
    // arguments, what is said, what is not
    let rows: &[(&[&str], &[&str], &[&str])] = &[
        (
            &["plan", "--gpu", "0008:01:00"],
            &["\"0008:01:00\" is not a whole PCI address", "0008:01:00.0"],
            &["\"01:00\"", "is not a GPU"],
        ),
        (
            &["plan", "--gpu", "h100"],
            &["H100 has no coherent memory", "vfio-pci", "256 GiB"],
            &["nic", "is not a GPU"],
        ),
        (
            &["plan", "--gpu", "rtx4090"],
            &["\"rtx4090\" is not a GPU", "gh200"],
            &["nic,", "or nic"],
        ),
        (
            &["plan", "--gpu", "gh200", "--memory", "64"],
            &["--memory 64 is 64 bytes", "--memory 64G"],
            &["multiple"],
        ),
    ];
    for (args, said, unsaid) in rows {
        let shown = ended(varia(args.iter().copied()));
        assert_eq!(shown.status.code(), Some(2), "{args:?}: {}", shown.stderr);
        for text in *said {
            assert!(shown.stderr.contains(text), "{text}: {}", shown.stderr);
        }
        for text in *unsaid {
            assert!(!shown.stderr.contains(text), "{text}: {}", shown.stderr);
        }
        assert_eq!(shown.stderr.lines().count(), 1, "{}", shown.stderr);
    }
}

/// The doctor reads a domain's XML, and says of a text that is neither plan nor definition what it
/// is not.
#[test]
fn the_doctor_names_the_file_that_it_can_not_use() {
    let folder = Folder::new();
    let host = host("gb200", &folder);
    let doctor = |file: &str| ended(varia(["doctor", file, "--sysfs", host.to_str().unwrap()]));
    let checked = doctor(&format!("{CASES}/managed-no.xml"));
    assert!(
        checked.stdout.contains("definition-drivers"),
        "{}",
        checked.stderr
    );
    for (text, said) in [
        (
            "nonsense\n",
            "neither a plan of `varia plan --json` nor a definition of a VM",
        ),
        ("<network/>\n", "<network> where a <domain> is expected"),
        (
            "{\"schema\": \"varia-plan/9\"}",
            "is not a plan that `varia plan --json` printed",
        ),
    ] {
        let file = folder.path("file");
        std::fs::write(&file, text).unwrap();
        let shown = doctor(file.to_str().unwrap());
        assert_eq!(shown.status.code(), Some(2), "{text}: {}", shown.stderr);
        assert!(shown.stderr.contains(said), "{text}: {}", shown.stderr);
        assert!(!shown.stderr.contains("expected value"), "{}", shown.stderr);
    }
}

/// Sizes in the texts of a host have binary units; addresses alone are hexadecimal.
#[test]
fn sizes_have_units() {
    let folder = Folder::new();
    let host = host("gb200", &folder);
    let host = host.to_str().unwrap();
    for args in [
        &["list", "--sysfs", host] as &[&str],
        &["doctor", "--sysfs", host],
        &[
            "doctor",
            &format!("{CASES}/managed-no.xml"),
            "--sysfs",
            host,
        ],
        &["inspect", "gh200"],
    ] {
        let shown = ended(varia(args.iter().copied()));
        for line in shown.stdout.lines() {
            for (before, _) in line.match_indices("0x").map(|(at, _)| line.split_at(at)) {
                let is_size = ["of ", "size ", "needs ", "is "]
                    .iter()
                    .any(|end| before.ends_with(end));
                assert!(!is_size, "{args:?}: {line}");
            }
        }
        assert!(shown.stdout.contains(" GiB"), "{args:?}: {}", shown.stdout);
    }
}
