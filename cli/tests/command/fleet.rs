//! Several devices in one process: a socket each, administration, counters.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use varia_vfio_user::client::Client;

use crate::process::{Folder, Serving, ended, varia};

const CONFIG: &str = r#"
[[device]]
profile = "gb200"
name = "gpu"
count = 2
memory = "1G"

[[device]]
profile = "nic"
fault = ["gone-after=100000"]
"#;

/// A server of two cards and what [`CONFIG`] says.
fn start(folder: &Folder) -> Serving {
    std::fs::write(folder.path("fleet.toml"), CONFIG).unwrap();
    let mut command = varia(["serve", "virtio-net:2"]);
    command.args(["--config", &folder.argument("fleet.toml")]);
    command.args(["--directory", &folder.argument("run")]);
    Serving::of(command, folder.path("run/nic.sock"))
}

fn ctl(folder: &Folder, args: &[&str]) -> Result<Value, String> {
    let mut command = varia(["ctl", "--directory", &folder.argument("run")]);
    command.args(args);
    let ended = ended(command);
    match ended.status.success() {
        true if ended.stdout.is_empty() => Ok(Value::Null),
        true => Ok(serde_json::from_str(&ended.stdout).unwrap()),
        false => Err(ended.stderr),
    }
}

fn names(folder: &Folder) -> Vec<String> {
    let list = ctl(folder, &["list"]).unwrap();
    let name = |device: &Value| device["name"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(name).collect()
}

/// The server's counters.
pub(crate) fn metrics(folder: &Folder) -> String {
    let mut stream = UnixStream::connect(folder.path("run/metrics.sock")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn devices_are_listed_added_broken_reset_counted_and_removed_inside_the_sandbox() {
    let folder = Folder::new();
    let serving = start(&folder);
    let first = ["gpu-0", "gpu-1", "nic", "virtio-net-0", "virtio-net-1"];
    assert_eq!(names(&folder), first);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", serving.pid().as_raw_nonzero()));
    assert!(status.unwrap().contains("Seccomp:\t2"));

    // each device has its own socket and its own state
    let socket = |name: &str| folder.path(&format!("run/{name}.sock"));
    let mut gpus: Vec<_> = ["gpu-0", "gpu-1"]
        .iter()
        .map(|name| Client::connect(&socket(name)).unwrap())
        .collect();
    for (gpu, value) in gpus.iter_mut().zip([7, 9]) {
        assert_eq!(gpu.region_write(4, 0, &[value]).unwrap(), 1);
    }
    let mut seen = [0];
    for (gpu, value) in gpus.iter_mut().zip([7, 9]) {
        gpu.region_read(4, 0, &mut seen).unwrap();
        assert_eq!(seen, [value]);
    }

    // a device that is added is served at once, and its name is taken
    let added = ctl(&folder, &["add", "nic", "--name", "extra"]).unwrap();
    assert_eq!(added["socket"], socket("extra").to_str().unwrap());
    let mut extra = Client::connect(&socket("extra")).unwrap();
    extra.device_info().unwrap();
    let taken = ctl(&folder, &["add", "nic", "--name", "extra"]).unwrap_err();
    assert!(taken.contains("extra already"), "{taken}");
    ctl(&folder, &["add", "nic"]).unwrap();
    assert!(names(&folder).contains(&"nic-0".to_owned()));

    // faults come and go while a client is there; the other device does not notice
    ctl(&folder, &["fault", "gpu-0", "c2c-down"]).unwrap();
    assert_eq!(
        ctl(&folder, &["inspect", "gpu-0"]).unwrap()["faults"][0],
        "c2c-down"
    );
    assert!(gpus[0].region_read(4, 0, &mut seen).is_err());
    gpus[1].region_read(4, 0, &mut seen).unwrap();
    ctl(&folder, &["fault", "gpu-0"]).unwrap();
    assert_eq!(gpus[0].region_read(4, 0, &mut seen).unwrap(), 1);
    ctl(&folder, &["reset", "gpu-0"]).unwrap();
    ctl(&folder, &["reset", "nic"]).unwrap();

    // what was done is counted
    let inspected = ctl(&folder, &["inspect", "gpu-0"]).unwrap();
    let counts = inspected["messages"].as_array().unwrap();
    let reads = counts
        .iter()
        .find(|count| count["command"] == "REGION_READ");
    assert_eq!(
        (&reads.unwrap()["messages"], &reads.unwrap()["errors"]),
        (&3.into(), &1.into())
    );
    assert_eq!(inspected["clients"], 1);
    let text = metrics(&folder);
    for line in [
        "HTTP/1.1 200 OK",
        "# TYPE varia_message_seconds histogram",
        "varia_client_connected{device=\"gpu-1\",profile=\"gb200\"} 1",
        "varia_message_errors_total{device=\"gpu-0\",profile=\"gb200\",command=\"REGION_READ\"} 1",
        "varia_message_seconds_count{device=\"gpu-1\",profile=\"gb200\",command=\"REGION_READ\"} 2",
        "varia_dma_mappings{device=\"nic\",profile=\"nic\"} 0",
    ] {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }

    // a device that is removed takes its client's connection with it, and its socket
    ctl(&folder, &["remove", "extra"]).unwrap();
    assert!(extra.device_info().is_err());
    assert!(!socket("extra").exists());
    let unknown = ctl(&folder, &["remove", "extra"]).unwrap_err();
    assert!(
        unknown.contains("there is no device extra: there are gpu-0"),
        "{unknown}"
    );
    gpus[1].device_info().unwrap();

    let (status, output) = serving.end(Signal::TERM);
    assert!(status.success(), "{output}");
    let left = std::fs::read_dir(folder.path("run")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn malformed_requests_on_the_control_socket_are_refused_and_the_server_lives() {
    let folder = Folder::new();
    let _serving = start(&folder);
    let mut stream = UnixStream::connect(folder.path("run/control.sock")).unwrap();
    let mut ask = |line: &str| {
        writeln!(stream, "{line}").unwrap();
        let mut reply = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" && stream.read(&mut byte).unwrap() == 1 {
            reply.push(byte[0]);
        }
        serde_json::from_slice::<Value>(&reply).unwrap()
    };
    for line in [
        "",
        "no json",
        "[]",
        "{}",
        r#"{"command":"explode"}"#,
        r#"{"command":"remove"}"#,
        r#"{"command":"add","profile":"nix"}"#,
        r#"{"command":"add","profile":"nic","name":"../nic"}"#,
        r#"{"command":"add","profile":"nic","warp":9}"#,
        r#"{"command":"add","profile":"nic","backing":"/etc/passwd"}"#,
        r#"{"command":"fault","device":"nic","fault":["melted"]}"#,
    ] {
        let reply = ask(line);
        assert_eq!(reply["ok"], false, "{line}");
        assert!(reply["error"].is_string(), "{line}");
    }
    assert_eq!(ask(r#"{"command":"list"}"#)["ok"], true);
    // a line without an end is not read for ever
    let mut endless = UnixStream::connect(folder.path("run/control.sock")).unwrap();
    let _ = endless.write_all(&[b'x'; 70 << 10]);
    let mut reply = String::new();
    let _ = endless.read_to_string(&mut reply);
    assert!(reply.contains("at most"), "{reply}");
    assert_eq!(names(&folder).len(), 5);
}

#[test]
fn command_lines_and_files_that_describe_no_fleet() {
    let folder = Folder::new();
    let config = |name: &str, text: &str| {
        std::fs::write(folder.path(name), text).unwrap();
        folder.argument(name)
    };
    let unknown = config("unknown.toml", "[[device]]\nprofile = \"nic\"\nwarp = 9\n");
    let empty = config("empty.toml", "");
    let shared = config(
        "shared.toml",
        "[[device]]\nprofile = \"gb200\"\ncount = 2\nbacking = \"memory\"\n",
    );
    for (args, named) in [
        (&["nic:0"][..], "0 devices"),
        (&["nic:many"], "\"many\" is not a number"),
        (&["nic", "nic"], "two devices have the name nic"),
        (&["nic:2", "--socket", "x.sock"], "--directory"),
        (&["--config", &unknown], "warp"),
        (&["--config", &empty], "[[device]]"),
        (&["--config", &shared], "backing file"),
        (&["--config", "missing.toml"], "missing.toml"),
        (&["nic", "--listen", "fd:2"], "fd:3"),
        (&["nic", "--listen", "fd:99"], "descriptor 99"),
        (&[], "PROFILE"),
    ] {
        let mut command = varia(["serve"]);
        command.args(args).stdin(Stdio::null());
        ended(command).refused(&[named]);
    }
}

#[test]
fn the_manuals_configuration_file_is_served() {
    let folder = Folder::new();
    let manual = include_str!("../../../docs/serve.md");
    let (_, example) = manual.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    std::fs::write(folder.path("fleet.toml"), example).unwrap();
    let mut command = varia(["serve", "--config", &folder.argument("fleet.toml")]);
    command.args(["--directory", &folder.argument("run"), "--no-sandbox"]);
    let serving = Serving::of(command, folder.path("run/late.sock"));
    assert_eq!(names(&folder), ["gpu-0", "gpu-1", "late", "virtio-net"]);
    let status = format!("/proc/{}/status", serving.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains("Seccomp:\t0"), "--no-sandbox: {status}");
    // the requests that the manual shows
    let (_, requests) = manual.split_once("```json\n").unwrap();
    let (requests, _) = requests.split_once("```").unwrap();
    let mut stream = UnixStream::connect(folder.path("run/control.sock")).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert_eq!(replies.lines().count(), requests.lines().count());
    for reply in replies.lines() {
        assert!(reply.starts_with("{\"ok\":true"), "{reply}");
    }
    assert_eq!(serving.end(Signal::INT).0.code(), Some(0));
}

#[test]
fn sockets_of_a_service_manager_are_served_and_it_is_told_when_they_are_ready() {
    let folder = Folder::new();
    let listening = std::os::unix::net::UnixListener::bind(folder.path("given.sock")).unwrap();
    let manager = std::os::unix::net::UnixDatagram::bind(folder.path("notify.sock")).unwrap();
    // as systemd does: the socket is descriptor 3, and the process's own id is in LISTEN_PID
    let script = format!(
        "exec 3<&0 0</dev/null; export LISTEN_PID=$$; exec {} serve nic",
        env!("CARGO_BIN_EXE_varia")
    );
    let mut command = crate::process::command("sh");
    command.args(["-c", &script]);
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "nic");
    command.env("NOTIFY_SOCKET", folder.path("notify.sock"));
    command.stdin(std::os::fd::OwnedFd::from(listening));
    let serving = Serving::of(command, folder.path("given.sock"));
    serving.client().device_info().unwrap();
    let mut told = [0; 64];
    let count = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..count], b"READY=1\n");
    assert!(serving.end(Signal::TERM).0.success());
    let count = manager.recv(&mut told).unwrap();
    assert_eq!(&told[..count], b"STOPPING=1\n");
    assert!(folder.path("given.sock").exists(), "it is the manager's");
}
