//! A server of many devices that has no descriptor left: it lives, tells, and answers again when
//! descriptors are free.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::fleet::metrics;
use crate::held::descriptors;
use crate::process::{Folder, Serving, varia};

/// A server that has this number of descriptors left, until this is dropped.
struct Scarce {
    pid: Pid,
    before: Rlimit,
}

impl Scarce {
    fn new(serving: &Serving, free: usize) -> Self {
        let taken = descriptors(serving);
        let mut unused = (0..).filter(|number| !taken.contains(number));
        let limit = Rlimit {
            current: Some(unused.nth(free).unwrap() as u64),
            // as the server inherited it
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        let pid = serving.pid();
        let before = prlimit(Some(pid), Resource::Nofile, limit).unwrap();
        Self { pid, before }
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        prlimit(Some(self.pid), Resource::Nofile, self.before).unwrap();
    }
}

/// A server of two devices with a directory.
fn start(folder: &Folder) -> Serving {
    let mut command = varia(["serve", "nic:2", "--directory", &folder.argument("run")]);
    command.env("RUST_LOG", "info");
    Serving::of(command, folder.path("run/nic-0.sock"))
}

/// A connection to the control socket.
struct Control(BufReader<UnixStream>);

impl Control {
    fn connect(folder: &Folder) -> Self {
        let stream = UnixStream::connect(folder.path("run/control.sock")).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.0.get_ref(), "{request}").unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn names(&mut self) -> Vec<String> {
        let reply = self.ask(&json!({ "command": "list" }));
        let list = reply["result"].as_array().unwrap().iter();
        list.map(|device| device["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn control_connections_without_a_descriptor_do_not_end_the_administration() {
    let folder = Folder::new();
    let mut serving = start(&folder);
    let mut client = serving.client();
    let mut before = Control::connect(&folder);
    assert_eq!(before.names(), ["nic-0", "nic-1"]);
    let scarce = Scarce::new(&serving, 0);
    let unserved: Vec<_> = (0..3).map(|_| Control::connect(&folder)).collect();
    serving.wait_for("control: ");
    assert_eq!(before.names(), ["nic-0", "nic-1"]);
    client.device_info().unwrap();
    drop((scarce, unserved));
    assert_eq!(Control::connect(&folder).names(), ["nic-0", "nic-1"]);
}

#[test]
fn readers_of_counters_without_a_descriptor_do_not_end_the_counters() {
    let folder = Folder::new();
    let mut serving = start(&folder);
    let mut client = serving.client();
    let scarce = Scarce::new(&serving, 0);
    let connect = |_| UnixStream::connect(folder.path("run/metrics.sock")).unwrap();
    let unserved: Vec<_> = (0..3).map(connect).collect();
    serving.wait_for("metrics: ");
    client.device_info().unwrap();
    drop((scarce, unserved));
    let text = metrics(&folder);
    assert!(
        text.contains("varia_client_connected{device=\"nic-0\",profile=\"nic\"} 1"),
        "{text}"
    );
}

/// Each descriptor that a new device takes is the one that is missing once.
#[test]
fn a_device_for_which_a_descriptor_is_missing_is_refused_as_a_whole() {
    for profile in ["nic", "gb200", "virtio-net"] {
        let folder = Folder::new();
        let serving = start(&folder);
        let mut control = Control::connect(&folder);
        let names = control.names();
        let request = json!({ "command": "add", "profile": profile, "name": "late" });
        let socket = folder.path("run/late.sock");
        let taken = descriptors(&serving);
        let mut refusals = 0;
        loop {
            let scarce = Scarce::new(&serving, refusals);
            let reply = control.ask(&request);
            drop(scarce);
            if reply["ok"] == true {
                break;
            }
            let error = reply["error"].as_str().unwrap();
            assert!(
                error.contains("os error 24") || error.contains("EMFILE"),
                "{error}"
            );
            assert_eq!(control.names(), names);
            assert!(!socket.exists());
            assert_eq!(descriptors(&serving), taken, "{refusals}: {error}");
            refusals += 1;
            assert!(refusals < 100, "{error}");
        }
        assert!(refusals >= 4, "{refusals} descriptors");
        serving.client_of(&socket).device_info().unwrap();
        control.ask(&json!({ "command": "remove", "device": "late" }));
        assert_eq!(control.names(), names);
        assert!(!socket.exists());
    }
}
