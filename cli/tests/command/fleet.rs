//! Several devices in one process: a socket each, administration, counters.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use varia_sys::socket::{Limit, Stream};
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
fn a_device_that_is_added_has_its_files() {
    let folder = Folder::in_ram();
    let mut serving = start(&folder);
    serving.wait_for("  variant nvgrace-gpu, selected by ids 10de:2941");
    let memory = folder.argument("memory");
    let add = |name: &str, more: &[&str]| {
        let device = ["add", "gb200", "--memory", "1G", "--name", name];
        ctl(&folder, &[&device, more].concat())
    };
    add("kept", &["--backing", &memory]).unwrap();
    assert_eq!(std::fs::metadata(&memory).unwrap().len(), 1 << 30);
    let mut client = Client::connect(&folder.path("run/kept.sock")).unwrap();
    client.region_write(4, 8192, b"kept").unwrap();
    drop(client);
    // a file that has a device, under whatever name
    let hard = folder.argument("hard");
    std::fs::hard_link(&memory, &hard).unwrap();
    let refused = add("other", &["--backing", &hard]).unwrap_err();
    assert!(refused.contains("is that of the device kept"), "{refused}");
    ctl(&folder, &["remove", "kept"]).unwrap();
    add("again", &["--backing", &hard]).unwrap();
    let mut client = Client::connect(&folder.path("run/again.sock")).unwrap();
    let mut bytes = [0; 4];
    client.region_read(4, 8192, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");

    // a device that is refused leaves no new file
    let fresh = folder.argument("fresh");
    let refused = add("again", &["--backing", &fresh]).unwrap_err();
    assert!(refused.contains("there is a device again"), "{refused}");
    assert!(!folder.path("fresh").exists());
    let card = ["add", "nic", "--backing", &fresh];
    let refused = ctl(&folder, &card).unwrap_err();
    assert!(
        refused.contains("a nic has no coherent memory"),
        "{refused}"
    );
    // nor does a device without a socket, whose file another one can have then
    std::fs::write(folder.path("run/taken.sock"), "").unwrap();
    let refused = add("taken", &["--backing", &fresh]).unwrap_err();
    assert!(refused.contains("taken.sock"), "{refused}");
    assert!(!folder.path("fresh").exists());
    std::fs::File::create(&fresh)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let refused = add("taken", &["--backing", &fresh]).unwrap_err();
    assert!(refused.contains("taken.sock"), "{refused}");
    add("free", &["--backing", &fresh]).unwrap();
    ctl(&folder, &["remove", "free"]).unwrap();
    std::fs::File::create(&fresh).unwrap();
    let refused = add("small", &["--backing", &fresh]).unwrap_err();
    assert!(refused.contains("1 GiB"), "{refused}");

    // facts of a platform, and every option of a device
    let facts = ended(varia(["inspect", "ism", "--json"])).success().stdout;
    let facts: Value = serde_json::from_str(&facts).unwrap();
    let platform = folder.argument("platform.json");
    std::fs::write(&platform, facts["platform"].to_string()).unwrap();
    let ism = ["add", "ism", "--platform", &platform, "--extension", "zdev"];
    ctl(&folder, &ism).unwrap();
    let inspected = ctl(&folder, &["inspect", "ism"]).unwrap();
    assert_eq!(inspected["inspection"]["platform"], facts["platform"]);
    add("region", &["--layout", "region", "--gpudirect-clique", "3"]).unwrap();
    add("base", &["--base", "0x80000000", "--as", "physical"]).unwrap();
    let refused = add("clique", &["--gpudirect-clique", "16"]).unwrap_err();
    assert!(refused.contains("16"), "{refused}");
}

/// Descriptors that come with requests on the control socket.
#[test]
fn descriptors_that_are_no_backing_are_refused() {
    let folder = Folder::new();
    let _serving = start(&folder);
    let file = std::fs::File::create(folder.path("memory")).unwrap();
    file.set_len(1 << 30).unwrap();
    let reads = std::fs::File::open(folder.path("memory")).unwrap();
    let (pipe, _kept) = std::io::pipe().unwrap();
    let ask = |line: &str, fds: &[BorrowedFd<'_>]| {
        let stream = Stream::connect(&folder.path("run/control.sock")).unwrap();
        let line = format!("{line}\n");
        stream.send(line.as_bytes(), fds, &Limit::none()).unwrap();
        let mut reply = String::new();
        let mut lines = BufReader::new(UnixStream::from(OwnedFd::from(stream)));
        lines.read_line(&mut reply).unwrap();
        let reply: Value = serde_json::from_str(&reply).unwrap();
        reply["error"].as_str().unwrap_or_default().to_owned()
    };
    let add = r#"{"command":"add","profile":"gb200","memory":"1G","name":"a","backing":"name"}"#;
    for (line, fds, says) in [
        (
            r#"{"command":"list"}"#,
            vec![file.as_fd()],
            "that is added alone",
        ),
        (
            r#"{"command":"add","profile":"nic"}"#,
            vec![file.as_fd()],
            "that is added alone",
        ),
        (add, vec![], "send the descriptor"),
        (
            add,
            vec![file.as_fd(), file.as_fd()],
            "one descriptor at most",
        ),
        (
            add,
            vec![reads.as_fd()],
            "open the file for reading and writing",
        ),
        (add, vec![pipe.as_fd()], "not a regular file"),
    ] {
        let error = ask(line, &fds);
        assert!(error.contains(says), "{line}: {error}");
    }
    assert_eq!(names(&folder).len(), 5);
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
fn a_socket_that_was_stale_at_the_start_is_replaced_and_a_later_one_is_left() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("run")).unwrap();
    let socket = |name: &str| folder.path(&format!("run/{name}.sock"));
    drop(UnixListener::bind(socket("stale")).unwrap());
    let mut command = varia(["serve", "nic", "--directory"]);
    command.arg(folder.path("run"));
    let _serving = Serving::of(command, socket("nic"));
    let _other = UnixListener::bind(socket("later")).unwrap();
    ctl(&folder, &["add", "nic", "--name", "stale"]).unwrap();
    let mut client = Client::connect(&socket("stale")).unwrap();
    client.device_info().unwrap();
    let refused = ctl(&folder, &["add", "nic", "--name", "later"]).unwrap_err();
    assert!(refused.contains("choose another path"), "{refused}");
    drop(UnixStream::connect(socket("later")).unwrap());
    ctl(&folder, &["remove", "stale"]).unwrap();
    assert!(!socket("stale").exists());
    // the name is free again
    ctl(&folder, &["add", "nic", "--name", "stale"]).unwrap();
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
        crate::process::program().display()
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
