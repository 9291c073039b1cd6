//! Socket of the server: unusable paths, existing files, and files left behind.

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::process::{Signal, geteuid};

use crate::process::{Ended, Folder, NOBODY, Serving, ended, varia};

/// A device that is created quickly.
const GPU: [&str; 3] = ["gb200", "--memory", "1G"];

fn serve(socket: &str) -> Ended {
    let mut command = varia(["serve"]);
    command.args(GPU).args(["--socket", socket]);
    ended(command)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

#[test]
fn a_path_that_is_too_long() {
    let folder = Folder::new();
    let path = folder.argument(&"s".repeat(120));
    let len = path.len().to_string();
    serve(&path).refused(&[&path, &len, "107", "shorter"]);
}

#[test]
fn a_path_in_no_directory() {
    let folder = Folder::new();
    let path = folder.argument("none/gpu.sock");
    let remedy = format!("mkdir -p {}", folder.argument("none"));
    serve(&path).refused(&[&path, &remedy]);
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_path_below_a_file() {
    let folder = Folder::new();
    std::fs::write(folder.path("file"), "").unwrap();
    let path = folder.argument("file/gpu.sock");
    serve(&path).refused(&[&path, "directory"]);
}

#[test]
fn a_path_without_permission() {
    let folder = Folder::new();
    let closed = folder.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    let path = folder.argument("closed/gpu.sock");
    let args = [&["serve"], &GPU[..], &["--socket", &path]].concat();
    let refusal = ended(folder.ordinary_user(&args));
    refusal.refused(&[&path, "ermission denied", "$XDG_RUNTIME_DIR"]);
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
}

#[test]
fn a_path_with_a_file_that_is_no_socket() {
    let folder = Folder::new();
    std::fs::write(folder.path("gpu.sock"), "precious").unwrap();
    let path = folder.argument("gpu.sock");
    serve(&path).refused(&[&path, "not a socket", "choose another"]);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    serve(folder.root().to_str().unwrap()).refused(&["not a socket"]);
}

#[test]
fn a_path_with_a_control_character_does_not_break_the_line() {
    let folder = Folder::new();
    serve(&folder.argument("a\nb/gpu.sock")).refused(&["a\\nb"]);
}

#[test]
fn a_stale_socket_is_replaced() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.path("gpu.sock")).unwrap());
    assert!(is_socket(&folder.path("gpu.sock")), "left behind");
    let serving = Serving::start(&folder, &GPU);
    serving.client().device_info().unwrap();
}

#[test]
fn a_stale_socket_of_another_user_is_left() {
    let folder = Folder::new();
    let path = folder.argument("gpu.sock");
    drop(UnixListener::bind(&path).unwrap());
    if !geteuid().is_root() {
        println!("only root can give a socket away: not judged");
        return;
    }
    chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    serve(&path).refused(&[&path, "user 65534", "remove the socket"]);
    assert!(is_socket(Path::new(&path)));
}

/// A file at the server's path that somebody else has put there is not the server's to remove, even
/// if the file system gives it the inode number of the server's socket.
#[test]
fn what_took_the_place_of_the_servers_socket_is_left() {
    for is_listener in [true, false] {
        let folder = Folder::new();
        let serving = Serving::start(&folder, &GPU);
        let path = serving.socket.clone();
        std::fs::remove_file(&path).unwrap();
        let other = is_listener.then(|| UnixListener::bind(&path).unwrap());
        if !is_listener {
            std::fs::write(&path, "precious").unwrap();
        }
        let (status, text) = serving.end(Signal::TERM);
        assert!(status.success(), "{text}");
        match other {
            Some(_) => drop(UnixStream::connect(&path).unwrap()),
            None => assert_eq!(std::fs::read(&path).unwrap(), b"precious"),
        }
    }
}

/// Several servers and several devices with sockets in one directory remove their own alone.
#[test]
fn servers_that_share_a_directory_remove_their_own_sockets_alone() {
    let folder = Folder::new();
    let run = folder.argument("run");
    std::fs::create_dir(&run).unwrap();
    let one = folder.argument("run/one.sock");
    let alone = varia(["serve", "nic", "--socket", &one]);
    let alone = Serving::of(alone, folder.path("run/one.sock"));
    std::fs::write(folder.path("run/file.sock"), "precious").unwrap();
    let fleet = varia(["serve", "nic:2", "--directory", &run]);
    let fleet = Serving::of(fleet, folder.path("run/nic-0.sock"));
    assert!(fleet.end(Signal::TERM).0.success());
    let left = || {
        let entries = std::fs::read_dir(&run).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(left(), ["file.sock", "one.sock"]);
    alone.client().device_info().unwrap();
    assert!(alone.end(Signal::TERM).0.success());
    assert_eq!(left(), ["file.sock"]);
}

#[test]
fn a_live_socket_is_refused_and_its_server_goes_on() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &GPU);
    let path = folder.argument("gpu.sock");
    let stop = "stop that server or choose another path";
    serve(&path).refused(&[&path, "another server", stop]);
    serving.client().device_info().unwrap();
    // with a client that is being served, too
    let mut client = serving.client();
    serve(&path).refused(&[&path, "another server"]);
    client.device_info().unwrap();
}

#[test]
fn a_server_that_is_told_to_stop_removes_its_socket() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        for with_client in [false, true] {
            let folder = Folder::new();
            let serving = Serving::start(&folder, &GPU);
            assert!(is_socket(&serving.socket));
            let client = with_client.then(|| serving.client());
            let (status, text) = serving.end(signal);
            assert!(status.success(), "{signal:?}: {status}\n{text}");
            assert!(text.contains("\nstopped"), "{text}");
            assert_eq!(folder.names(), [""; 0], "{signal:?}");
            drop(client);
        }
    }
}

#[test]
fn a_server_that_was_killed_is_followed_by_the_next_on_its_path() {
    let folder = Folder::new();
    let (status, _) = Serving::start(&folder, &GPU).end(Signal::KILL);
    assert!(!status.success());
    assert_eq!(folder.names(), ["gpu.sock"]);
    let serving = Serving::start(&folder, &GPU);
    serving.client().device_info().unwrap();
    serving.end(Signal::TERM);
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn without_a_path_the_socket_is_in_the_users_runtime_directory() {
    let folder = Folder::new();
    let mut command = varia(["serve"]);
    command.args(GPU).env("XDG_RUNTIME_DIR", folder.root());
    let mut serving = Serving::of(command, folder.path("varia-gb200.sock"));
    let line = serving.wait_for("serving ");
    assert!(
        line.ends_with(&folder.argument("varia-gb200.sock")),
        "{line}"
    );
    serving.client().device_info().unwrap();
}

#[test]
fn a_relative_path_is_in_the_working_directory() {
    let folder = Folder::new();
    let mut command = varia(["serve", "--socket", "here.sock"]);
    command.args(GPU).current_dir(folder.root());
    let serving = Serving::of(command, folder.path("here.sock"));
    serving.client().device_info().unwrap();
    serving.end(Signal::TERM);
    assert_eq!(folder.names(), [""; 0]);
}
