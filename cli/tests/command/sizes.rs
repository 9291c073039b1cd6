//! Refused sizes of memory, and unknown profiles.

use crate::process::{Folder, ended, varia};

/// Checks that each command refuses the device before it creates anything.
fn refused(device: &[&str], named: &[&str]) {
    let folder = Folder::new();
    let (socket, backing) = (folder.argument("gpu.sock"), folder.argument("memory"));
    let serve = ["--socket", &socket, "--backing", &backing];
    let inspect = ["--backing", &backing];
    let run = ["--dry-run", "--backing", &backing];
    for (command, extra) in [("serve", &serve[..]), ("inspect", &inspect), ("run", &run)] {
        let mut command = varia([command]);
        command.args(device).args(extra);
        ended(command).refused(named);
    }
    assert_eq!(folder.names(), [""; 0], "nothing is left behind");
}

#[test]
fn no_memory() {
    refused(
        &["gh200", "--memory", "0"],
        &["gh200", "without memory", "96G"],
    );
    refused(&["gb200", "--memory", "0G"], &["gb200", "184G"]);
}

#[test]
fn memory_that_is_too_small_for_the_bug() {
    let remedy = "--memory 1G+512M";
    refused(&["gh200", "--memory", "1G"], &["1 GiB", "gh200", remedy]);
    refused(&["gh200", "--memory", "4K"], &["4 KiB", "gh200", remedy]);
    refused(
        &["gh200", "--memory", "1G+508M"],
        &["1 GiB + 508 MiB", remedy],
    );
    // what is advised is served
    ended(varia(["inspect", "gh200", "--memory", "1G+512M"])).success();
}

#[test]
fn memory_that_ends_in_a_page() {
    refused(
        &["gh200", "--memory", "96G+1"],
        &["96 GiB + 1 byte", "4 KiB", "nearest smaller size is 96 GiB"],
    );
    ended(varia(["inspect", "gh200", "--memory", "96 GiB"])).success();
    refused(&["gb200", "--memory", "1"], &["1 byte", "4 KiB"]);
}

#[test]
fn memory_beyond_the_address_width() {
    refused(
        &["gh200", "--memory", "300T"],
        &["300 TiB", "0x420000000000", "48-bit", "at most"],
    );
    let end = ["--base", "0xfffffffff000", "--memory", "2G"];
    refused(
        &[&["gh200"], &end[..]].concat(),
        &["0xfffffffff000", "48-bit", "at most 4 KiB"],
    );
    refused(
        &["gb200", "--base", "0xfffffffffffff000"],
        &["0xfffffffffffff000", "48-bit"],
    );
}

#[test]
fn memory_that_no_bar_can_show() {
    refused(
        &["gb200", "--memory", "1T+4K"],
        &["1 TiB + 4 KiB", "1 TiB", "--memory 1T"],
    );
    ended(varia(["inspect", "gb200", "--memory", "1T"])).success();
}

#[test]
fn an_address_in_a_page() {
    refused(
        &["gh200", "--base", "0x80000123"],
        &["0x80000123", "4 KiB", "0x80000000"],
    );
}

#[test]
fn a_size_that_can_not_be_read() {
    for size in ["lots", "96X", "1.5G", "", "96G+", "0xzz"] {
        refused(&["gh200", &format!("--memory={size}")], &[size, "96G"]);
    }
    refused(
        &["gh200", "--memory", "99999999999T"],
        &["99999999999T", "beyond 64 bits", "smaller"],
    );
}

#[test]
fn an_unknown_profile_and_the_nearest_there_is() {
    for (name, nearest) in [
        ("gh300", "gh200"),
        ("GH200", "gh200"),
        ("gb20", "gb200"),
        ("gb-200", "gb200"),
        ("bg200", "gb200"),
    ] {
        let meant = format!("did you mean \"{nearest}\"?");
        refused(
            &[name],
            &[name, &meant, "gh200-120gb (gh200), gh200-480gb, gb200"],
        );
    }
    let far = ended(varia(["inspect", "hopper"]));
    far.refused(&["hopper", "gh200-120gb (gh200), gh200-480gb, gb200"]);
    assert!(!far.stderr.contains("did you mean"), "{}", far.stderr);
}

#[test]
fn readiness_and_faults_that_there_are_not() {
    refused(&["gh200", "--ready-after", "soon"], &["soon", "never"]);
    refused(
        &["gh200", "--fault", "coffee"],
        &["coffee", "c2c-down", "no-properties"],
    );
}

#[test]
fn commands_and_options_that_there_are_not() {
    ended(varia(["serv", "gh200"])).refused(&["serv", "serve"]);
    ended(varia(["inspect"])).refused(&["<PROFILE>", "--help"]);
    ended(varia(["inspect", "gh200", "--memroy", "96G"])).refused(&["--memroy", "--memory"]);
}
