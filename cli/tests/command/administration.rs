//! Start and end of a server of several devices: what is shared or another user's is refused, and
//! nothing is left behind.

use std::fs::{OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::Signal;

use crate::process::{Folder, Serving, command, ended, program, varia};

/// A server of a card in the directory `run`.
fn start(folder: &Folder) -> Serving {
    let command = varia(["serve", "nic", "--directory", &folder.argument("run")]);
    Serving::of(command, folder.path("run/nic.sock"))
}

#[test]
fn a_server_whose_output_is_full_ends_and_leaves_no_socket() {
    let folder = Folder::new();
    let run = folder.argument("run");
    for args in [
        &["--socket", &folder.argument("nic.sock")][..],
        &["--directory", &run],
    ] {
        let mut command = varia(["serve", "nic"]);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        command.args(args).stdout(full);
        ended(command).refused(&["No space left"]);
    }
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
    assert_eq!(folder.names(), ["run"]);
}

#[test]
fn devices_that_would_share_a_backing_file_are_refused() {
    let folder = Folder::new();
    let (memory, link) = (folder.argument("memory"), folder.argument("link"));
    let hard = folder.argument("hard");
    let file = std::fs::File::create(&memory).unwrap();
    file.set_len(1 << 30).unwrap();
    symlink(&memory, &link).unwrap();
    std::fs::hard_link(&memory, &hard).unwrap();
    let run = folder.argument("run");
    for other in [&memory, &link, &hard] {
        let device = |name: &str, backing: &str| {
            format!(
                "[[device]]\nprofile = \"gb200\"\nname = \"{name}\"\nmemory = \"1G\"\n\
                 backing = \"{backing}\"\n"
            )
        };
        let config = folder.argument("fleet.toml");
        std::fs::write(&config, device("one", &memory) + &device("two", other)).unwrap();
        let command = varia(["serve", "--config", &config, "--directory", &run]);
        ended(command).refused(&["two: the backing file", other, "device one"]);
        assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
    }
    // a file that does not exist before, and the command line
    let fresh = folder.argument("fresh");
    let mut command = varia(["serve", "gb200", "gh200", "--memory", "1G"]);
    command.args(["--backing", &fresh, "--directory", &run]);
    ended(command).refused(&["gh200: the backing file", "device gb200"]);
    assert!(!folder.path("fresh").exists());
}

#[test]
fn inherited_sockets_that_would_be_ignored_or_shared_are_refused() {
    let folder = Folder::new();
    let serve = |given: &str, args: &[&str], environment: &[(&str, &str)]| {
        let path = folder.path("given.sock");
        let _ = std::fs::remove_file(&path);
        let listening = UnixListener::bind(path).unwrap();
        let script = format!(
            "{given} 0</dev/null; export LISTEN_PID=$$; exec {} serve \"$@\"",
            program().display()
        );
        let mut command = command("sh");
        command.args(["-c", &script, "sh"]).args(args);
        command.envs(environment.iter().copied());
        command.stdin(std::os::fd::OwnedFd::from(listening));
        ended(command)
    };
    let run = folder.argument("run");
    let both = serve(
        "exec 3<&0",
        &["nic", "--listen", "fd:3", "--socket", "x"],
        &[],
    );
    assert!(!both.status.success());
    assert!(both.stderr.contains("--socket"), "{}", both.stderr);
    for (first, second) in [("fd:3", "fd:3"), ("fd:3", "fd:4")] {
        let args = [
            "nic:2",
            "--directory",
            &run,
            "--listen",
            first,
            "--listen",
            second,
        ];
        serve("exec 3<&0 4<&0", &args, &[]).refused(&["are one socket"]);
    }
    // systemd's sockets, with each other and with --listen
    let manager = [("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "nic:control")];
    let args = ["nic", "--directory", &run];
    serve("exec 3<&0 4<&0", &args, &manager).refused(&["3 and 4 are one socket"]);
    let manager = [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "nic-0")];
    let args = ["nic:2", "--directory", &run, "--listen", "fd:4"];
    serve("exec 3<&0 4<&0", &args, &manager).refused(&["4 and 3 are one socket"]);
    let args = ["nic", "--socket", "x"];
    let manager = [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "nic")];
    serve("exec 3<&0", &args, &manager).refused(&["--socket", "nic"]);
}

#[test]
fn a_default_directory_that_others_can_change_is_refused() {
    let folder = Folder::new();
    let directory = folder.path("varia");
    let refused = |named: &str| {
        for args in [&["serve", "nic:2"][..], &["ctl", "list"]] {
            let mut command = varia(args);
            command.env("XDG_RUNTIME_DIR", folder.root());
            ended(command).refused(&["varia", named, "--directory"]);
        }
    };
    std::fs::create_dir(folder.path("elsewhere")).unwrap();
    symlink(folder.path("elsewhere"), &directory).unwrap();
    refused("is no directory");
    std::fs::remove_file(&directory).unwrap();
    std::fs::create_dir(&directory).unwrap();
    for mode in [0o777, 0o1777, 0o720, 0o702] {
        std::fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
        refused("can be written to by other users");
    }
    if rustix::process::geteuid().is_root() {
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&directory, Some(65534), None).unwrap();
        refused("belongs to user 65534");
        std::os::unix::fs::chown(&directory, Some(0), None).unwrap();
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    std::fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let mut serve = varia(["serve", "nic:2"]);
    serve.env("XDG_RUNTIME_DIR", folder.root());
    let serving = Serving::of(serve, folder.path("varia/nic-0.sock"));
    let mut ctl = varia(["ctl", "list"]);
    ctl.env("XDG_RUNTIME_DIR", folder.root());
    assert!(ended(ctl).success().stdout.contains("nic-1"));
    assert!(serving.end(Signal::TERM).0.success());
}

#[test]
fn the_control_socket_is_the_users_alone_whatever_the_umask() {
    let folder = Folder::new();
    let mut command = command("sh");
    command.args(["-c", "umask 0; exec \"$@\"", "sh"]);
    command.arg(program());
    command.args(["serve", "nic", "--directory", &folder.argument("run")]);
    let _serving = Serving::of(command, folder.path("run/nic.sock"));
    let mode = |name: &str| {
        let metadata = std::fs::metadata(folder.path(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("run/control.sock"), 0o600);
    assert_eq!(mode("run/nic.sock"), 0o777, "the umask is used");
}

#[test]
fn idle_connections_delay_neither_the_end_nor_readers_and_one_too_many_is_named() {
    let folder = Folder::new();
    let serving = start(&folder);
    let control = folder.path("run/control.sock");
    let idle: Vec<_> = (0..16)
        .map(|_| UnixStream::connect(&control).unwrap())
        .collect();
    let ctl = || {
        let args = ["ctl", "--directory", &folder.argument("run"), "list"];
        ended(varia(args))
    };
    for _ in 0..20 {
        ctl().refused(&["16 connections are open"]);
    }
    let mut told = String::new();
    let mut stream = UnixStream::connect(&control).unwrap();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("{\"") && told.ends_with("}\n"), "{told}");
    let slow = UnixStream::connect(folder.path("run/metrics.sock")).unwrap();
    let (status, text) = serving.end(Signal::TERM);
    assert!(status.success(), "{text}");
    drop((idle, slow));
}
