//! A QEMU without a guest, whose configuration space and memory a test drives (`-qtest`).

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use varia_lab::qemu::Qemu;
use varia_lab::{Arch, ArchNames, HANG, Set, host_arch, packages};

use crate::gpu::Gpu;

/// The device is function 5.0 of the root bus.
const FUNCTION: u32 = 5 << 11;
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
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    messages: std::path::PathBuf,
}

impl Machine {
    /// Starts it, with the device attached and nothing set up.
    ///
    /// # Panics
    /// If there is no QEMU or it does not start.
    #[must_use]
    pub fn start(gpu: &Gpu) -> Self {
        let messages = gpu.folder().join("qemu.log");
        let device = format!(
            r#"{{"driver":"vfio-user-pci","bus":"pcie.0","addr":"5.0","x-msg-timeout":{},"socket":{{"type":"unix","path":"{}"}}}}"#,
            HANG.as_millis(),
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
        Self {
            qemu,
            to,
            from,
            messages,
        }
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

    /// Reads a dword of the device's configuration space.
    pub fn config_read(&mut self, register: u32) -> u64 {
        self.ask(&format!("outl 0xcf8 {:#x}", 1 << 31 | FUNCTION | register));
        self.number("inl 0xcfc")
    }

    /// Writes a dword of the device's configuration space.
    pub fn config_write(&mut self, register: u32, value: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", 1 << 31 | FUNCTION | register));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// Checks the size of a 64-bit prefetchable BAR, and places the BAR, as firmware would.
    ///
    /// # Panics
    /// If the BAR has another size.
    pub fn place_bar(&mut self, index: u32, size: u64, address: u64) {
        let register = 0x10 + 4 * index;
        for half in [register, register + 4] {
            self.config_write(half, u32::MAX);
        }
        let found = self.config_read(register) | self.config_read(register + 4) << 32;
        assert_eq!(found, !(size - 1) | 0xc, "BAR{index}");
        self.config_write(register, address as u32);
        self.config_write(register + 4, (address >> 32) as u32);
    }

    /// Enables the BARs.
    pub fn enable_memory(&mut self) {
        self.config_write(4, 2);
    }

    /// Reads eight bytes at a physical address.
    pub fn read(&mut self, address: u64) -> u64 {
        self.number(&format!("readq {address:#x}"))
    }

    /// Writes eight bytes at a physical address.
    pub fn write(&mut self, address: u64, value: u64) {
        self.ask(&format!("writeq {address:#x} {value:#x}"));
    }

    /// SIGKILL, while it is attached.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn kill(mut self) {
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
