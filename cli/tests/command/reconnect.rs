//! A client that is killed, and started again on the same server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use varia_sys::mapping::Access;
use varia_vfio_user::client::Client;

use crate::process::{Folder, HANG, Serving};

/// Environment variable that gives the killed process the server's socket.
const SOCKET: &str = "VARIA_TEST_KILLED_CLIENT";
const NAME: &str = "reconnect::a_client_that_is_killed_and_started_again_finds_its_bytes";

#[test]
fn a_client_that_is_killed_and_started_again_finds_its_bytes() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        attach_until_killed(Path::new(&socket));
    }
    let folder = Folder::in_ram();
    let memory = folder.argument("memory");
    let args = ["gh200", "--memory", "2G", "--backing", &memory];
    let mut serving = Serving::start(&folder, &args);
    for round in 1..=3_u8 {
        let mut killed = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(SOCKET, &serving.socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        // it has mapped usemem, and says so there
        while byte(Path::new(&memory), 0) != round {
            assert!(begin.elapsed() < HANG, "{}", serving.text());
            std::thread::sleep(Duration::from_millis(5));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        // no pause: the server may not have seen that it is gone
        let mut client = serving.client();
        for (region, at) in [(4, 0), (4, 8192), (2, 4096)] {
            let mut seen = [0];
            assert_eq!(client.region_read(region, at, &mut seen).unwrap(), 1);
            assert_eq!(seen, [round], "region {region} at {at:#x}");
        }
        assert_eq!(byte(Path::new(&memory), 8192), round);
        // one GiB of usemem lies before resmem
        assert_eq!(byte(Path::new(&memory), (1 << 30) + 4096), round);
    }
    serving.wait_for("closed its connection");
}

/// The client that is killed: it adds one to bytes in both regions, through a mapping and through
/// messages, and then waits.
fn attach_until_killed(socket: &Path) -> ! {
    let mut client = Client::connect(socket).unwrap();
    let usemem = client.region_info(4).unwrap();
    let mapping = usemem.map(0, 1 << 20, Access::ReadWrite).unwrap();
    let mut seen = [0];
    mapping.read(0, &mut seen).unwrap();
    let next = [seen[0] + 1];
    client.region_write(2, 4096, &next).unwrap();
    client.region_write(4, 8192, &next).unwrap();
    mapping.write(0, &next).unwrap();
    std::thread::sleep(HANG);
    panic!("nobody killed it");
}

fn byte(file: &Path, at: u64) -> u8 {
    use std::os::unix::fs::FileExt;
    let mut byte = [0];
    let file = std::fs::File::open(file).unwrap();
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0]
}
