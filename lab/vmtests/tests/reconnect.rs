//! A QEMU that is killed, and started again on the same server: the device serves, and a named
//! backing file still has its bytes.
//!
//! No guest runs: the test itself drives QEMU's configuration space and memory (`-qtest`).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use varia_lab::apt::host_arch;
use varia_lab::qemu::Qemu;
use varia_lab::{Arch, Set, packages};
use varia_serve::View;
use varia_silicon::{Backing, Options, profile};
use varia_vfio_user::client::Client;
use varia_vmtests::gpu::Gpu;

const GIB: u64 = 1 << 30;
/// Half a GiB of usemem behind a BAR of 1 GiB, and the rest behind one of 2 GiB.
const MEMORY: u64 = GIB + (512 << 20) + 4096;
const USEMEM: u64 = 512 << 20;
/// The device is function 5.0 of the root bus.
const FUNCTION: u32 = 5 << 11;
/// Where the test puts the BARs, above all RAM.
const BAR2: u64 = 0x60_0000_0000;
const BAR4: u64 = 0x80_0000_0000;

/// A QEMU that finds what it loads at run time, `-accel qtest` among it.
fn qemu() -> Command {
    let qemu = Qemu::find(Arch::X86_64).expect("a QEMU");
    let mut command = qemu.command();
    if !qemu.is_native {
        let tree = packages::ensure(Set::Qemu).expect("the lab's packages");
        let host = host_arch().expect("this machine's architecture");
        let modules = tree.path("/usr/lib").join(host.triplet()).join("qemu");
        command.env("QEMU_MODULE_DIR", modules);
    }
    command
}

/// A machine without processors that has the device, under the control of a test.
struct Machine {
    qemu: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    messages: std::path::PathBuf,
}

impl Machine {
    fn start(gpu: &Gpu) -> Self {
        let messages = gpu.folder().join("qemu.log");
        let device = format!(
            r#"{{"driver":"vfio-user-pci","bus":"pcie.0","addr":"5.0","socket":{{"type":"unix","path":"{}"}}}}"#,
            gpu.socket().display()
        );
        let mut qemu = qemu()
            .args(["-machine", "q35,memory-backend=ram0", "-m", "64M", "-S"])
            .args(["-object", "memory-backend-memfd,id=ram0,size=64M,share=on"])
            .args(["-accel", "qtest", "-qtest", "stdio", "-qtest-log", "none"])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-device", &device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages).expect("a log"))
            .spawn()
            .expect("QEMU starts");
        let to = qemu.stdin.take().expect("a pipe");
        let from = BufReader::new(qemu.stdout.take().expect("a pipe"));
        let mut machine = Self {
            qemu,
            to,
            from,
            messages,
        };
        machine.place_bars();
        machine
    }

    /// Sends a command; answers the words behind `OK`.
    fn ask(&mut self, command: &str) -> String {
        let sent = writeln!(self.to, "{command}").and_then(|()| self.to.flush());
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.from.read_line(&mut line);
            if sent.is_err() || !matches!(read, Ok(1..)) {
                let messages = fs::read_to_string(&self.messages).unwrap_or_default();
                panic!("QEMU ended at {command:?}:\n{messages}");
            }
            // an interrupt line has changed
            if line.starts_with("IRQ") {
                continue;
            }
            let answer = line.trim().strip_prefix("OK");
            return answer
                .unwrap_or_else(|| panic!("{command:?}: {line}"))
                .trim()
                .to_owned();
        }
    }

    fn number(&mut self, command: &str) -> u64 {
        let answer = self.ask(command);
        let digits = answer.strip_prefix("0x").unwrap_or(&answer);
        u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{command:?}: {answer:?}: {e}"))
    }

    fn config_read(&mut self, register: u32) -> u64 {
        self.ask(&format!("outl 0xcf8 {:#x}", 1 << 31 | FUNCTION | register));
        self.number("inl 0xcfc")
    }

    fn config_write(&mut self, register: u32, value: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", 1 << 31 | FUNCTION | register));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// What firmware would do: sizes BAR2 and BAR4, places them and enables memory.
    fn place_bars(&mut self) {
        assert_eq!(self.config_read(0), 0x2342_10de);
        for (register, at, expected) in [(0x18, BAR2, 2 * GIB), (0x20, BAR4, GIB)] {
            for half in [register, register + 4] {
                self.config_write(half, u32::MAX);
            }
            let size = self.config_read(register) | self.config_read(register + 4) << 32;
            assert_eq!(size, !(expected - 1) | 0xc);
            self.config_write(register, at as u32);
            self.config_write(register + 4, (at >> 32) as u32);
        }
        self.config_write(4, 2);
    }

    fn read(&mut self, address: u64) -> u64 {
        self.number(&format!("readq {address:#x}"))
    }

    fn write(&mut self, address: u64, value: u64) {
        self.ask(&format!("writeq {address:#x} {value:#x}"));
    }

    /// SIGKILL, while it is attached.
    fn kill(mut self) {
        self.qemu.kill().expect("it can be killed");
        self.qemu.wait().expect("it ends");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn word(file: &Path, at: u64) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open(file).expect("the backing file");
    file.read_exact_at(&mut bytes, at).expect("its bytes");
    u64::from_le_bytes(bytes)
}

#[test]
fn a_qemu_that_is_killed_and_started_again_finds_its_device_and_its_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let backing = folder.path().join("memory");
    let profile = profile::find("gh200").expect("a profile");
    let options = Options {
        memory: Some(MEMORY),
        backing: Backing::File(backing.clone()),
        ..Options::default()
    };
    let gpu = Gpu::serve(profile, View::Virtual, options.clone()).expect("a server");
    // where QEMU writes, and where that is in the memory
    let places = [
        (BAR4, 0),
        (BAR4 + USEMEM - 8, USEMEM - 8),
        (BAR2 + 4096, USEMEM + 4096),
    ];
    let before = |round: u64| {
        if round == 1 {
            0
        } else {
            (round - 1) << 32 | 0x5a
        }
    };
    for round in 1..=3 {
        let mut machine = Machine::start(&gpu);
        for (address, offset) in places {
            assert_eq!(machine.read(address), before(round), "round {round}");
            machine.write(address, before(round + 1));
            assert_eq!(word(&backing, offset), before(round + 1));
        }
        // beyond usemem, which the server answers
        machine.write(BAR4 + USEMEM, 7);
        assert_eq!(machine.read(BAR4 + USEMEM), u64::MAX);
        machine.kill();
    }
    let mut client = Client::connect(&gpu.socket()).expect("the device serves");
    let mut seen = [0; 8];
    client.region_read(4, 0, &mut seen).expect("a read");
    assert_eq!(u64::from_le_bytes(seen), before(4));
    drop(client);
    // the server is started again as well
    drop(gpu);
    let gpu = Gpu::serve(profile, View::Virtual, options).expect("a server");
    let mut machine = Machine::start(&gpu);
    for (address, _) in places {
        assert_eq!(machine.read(address), before(4));
    }
}
