//! File that keeps the coherent memory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::process::{Ended, Folder, Serving, ended, varia};

const MIB: u64 = 1 << 20;
/// Size of the test devices' memory; the file is sparse.
const MEMORY: &str = "1G+512M";
const BYTES: u64 = 1536 * MIB;

fn serve(folder: &Folder, backing: &str) -> Ended {
    let socket = folder.argument("gpu.sock");
    let args = ["--memory", MEMORY, "--socket", &socket];
    let mut command = varia(["serve", "gh200"]);
    command.args(args).args(["--backing", backing]);
    ended(command)
}

#[test]
fn a_file_that_is_too_small() {
    let folder = Folder::new();
    let path = folder.argument("memory");
    fs::write(&path, "precious").unwrap();
    let need = BYTES.to_string();
    let remedy = format!("truncate -s {need}");
    serve(&folder, &path).refused(&[&path, "8 bytes", &need, &remedy]);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(folder.names(), ["memory"], "and no socket");
}

#[test]
fn a_file_that_is_read_only() {
    let folder = Folder::new();
    let path = folder.argument("memory");
    let file = fs::File::create(&path).unwrap();
    file.set_len(BYTES).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let args = ["inspect", "gh200", "--memory", MEMORY, "--backing", &path];
    let refusal = ended(folder.ordinary_user(&args));
    refusal.refused(&[&path, "ermission denied", "write permission"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), BYTES);
}

#[test]
fn a_file_in_a_directory_that_is_closed_or_not_there() {
    let folder = Folder::new();
    let path = folder.argument("none/memory");
    let remedy = format!("mkdir -p {}", folder.argument("none"));
    serve(&folder, &path).refused(&[&path, &remedy]);
    fs::create_dir(folder.path("closed")).unwrap();
    fs::set_permissions(folder.path("closed"), Permissions::from_mode(0o555)).unwrap();
    let path = folder.argument("closed/memory");
    let args = ["inspect", "gh200", "--memory", MEMORY, "--backing", &path];
    ended(folder.ordinary_user(&args)).refused(&[&path, "ermission denied"]);
}

#[test]
fn what_is_not_a_file() {
    let folder = Folder::new();
    let path = folder.root().to_str().unwrap().to_owned();
    serve(&folder, &path).refused(&[&path, "not a regular file", "name a regular file"]);
    serve(&folder, "/dev/null").refused(&["/dev/null", "not a regular file"]);
}

#[test]
fn a_new_file_is_made_sparse_and_stays_with_its_bytes() {
    let folder = Folder::in_ram();
    let path = folder.argument("memory");
    let args = ["gh200", "--memory", MEMORY, "--backing", &path];
    for round in 1..=3_u8 {
        let serving = Serving::start(&folder, &args);
        let mut client = serving.client();
        let mut seen = [0; 4];
        client.region_read(4, 4096, &mut seen).unwrap();
        assert_eq!(seen, [round - 1; 4], "round {round}");
        client.region_write(4, 4096, &[round; 4]).unwrap();
        // resmem, from 512 MiB on
        client.region_write(2, 0, &[0x40 | round; 4]).unwrap();
        drop(client);
        // killed as well as stopped
        serving.end(if round == 2 {
            Signal::KILL
        } else {
            Signal::TERM
        });
        let bytes = |at: u64| {
            use std::os::unix::fs::FileExt;
            let mut bytes = [0; 4];
            let file = fs::File::open(&path).unwrap();
            file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        assert_eq!(bytes(4096), [round; 4]);
        assert_eq!(bytes(512 * MIB), [0x40 | round; 4]);
    }
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), BYTES);
    assert!(meta.blocks() * 512 < 16 * MIB, "sparse");
}

#[test]
fn a_larger_file_is_used_and_keeps_its_length() {
    let folder = Folder::in_ram();
    let path = folder.argument("memory");
    fs::File::create(&path)
        .unwrap()
        .set_len(BYTES + 4096)
        .unwrap();
    let args = ["gh200", "--memory", MEMORY, "--backing", &path];
    let serving = Serving::start(&folder, &args);
    serving.client().device_info().unwrap();
    serving.end(Signal::TERM);
    assert_eq!(fs::metadata(&path).unwrap().len(), BYTES + 4096);
}

#[test]
fn a_command_that_serves_nothing_leaves_no_new_file() {
    let folder = Folder::new();
    let path = folder.argument("memory");
    let args = ["inspect", "gh200", "--memory", MEMORY, "--backing", &path];
    ended(varia(args)).success();
    assert_eq!(folder.names(), [""; 0]);
    // and a file that was there stays
    fs::File::create(&path).unwrap().set_len(BYTES).unwrap();
    ended(varia(args)).success();
    assert_eq!(folder.names(), ["memory"]);
}

#[test]
fn a_server_that_gets_no_socket_leaves_no_new_file() {
    let folder = Folder::new();
    fs::write(folder.path("gpu.sock"), "").unwrap();
    serve(&folder, &folder.argument("memory")).refused(&["not a socket"]);
    assert_eq!(folder.names(), ["gpu.sock"]);
}
