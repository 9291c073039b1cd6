//! Ends of a process in the middle of the guest's work: the guest outlives its server, and the bytes
//! outlive the guest.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use varia_lab::{HANG, Running};
use varia_spec::copy_engine::{register, status};
use varia_vfio_user::client::Client;
use varia_vmtests::Result;
use varia_vmtests::command::varia;
use varia_vmtests::gpu::Gpu;
use varia_vmtests::qtest::Machine;

use crate::copies::{Engine, PAGE};
use crate::{DRIVER, GIB, MODULE, USEMEM, User, bar4, bind, with_memory};

/// 512 MiB of usemem.
const MEMORY: &str = "1536M";
/// Where the test's own machine has the BARs, above all RAM.
const BAR2: u64 = 0x60_0000_0000;
const BAR4: u64 = 0x80_0000_0000;

/// `varia serve` with a GPU.
pub(crate) struct Process {
    child: Child,
    folder: PathBuf,
}

impl Process {
    /// Serves a GPU whose memory is a file that stays.
    pub(crate) fn serve(folder: &Path) -> Result<Self> {
        let mut command = Command::new(varia()?);
        command
            .args(["serve", "gh200", "--copy-engine", "--memory", MEMORY])
            .arg("--backing")
            .arg(folder.join("process.memory"))
            .arg("--socket")
            .arg(folder.join("process.sock"))
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null());
        let process = Self {
            child: command.spawn().expect("varia starts"),
            folder: folder.to_owned(),
        };
        let begun = Instant::now();
        while Client::connect(&process.socket()).is_err() {
            assert!(begun.elapsed() < HANG, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(process)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("process.sock")
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server is killed while the guest uses the memory, and started again: registers of the device
/// read as all ones from then on, because QEMU does not connect again. The memory goes on, because
/// QEMU has mapped it, and can be given back.
pub(crate) fn guest_whose_server_is_killed(
    vm: &Running,
    process: Process,
    bdf: &str,
) -> Result<()> {
    let engine = Engine { vm, bdf };
    let log = bind(vm, bdf, "first")?;
    assert_eq!(with_memory(vm)?, "0,3", "{log}");
    let user = User::start(vm, "hold")?;
    assert_eq!(engine.register(register::ID, 4)?, "56434531", "VCE1");
    let folder = process.folder.clone();
    process.kill();
    let is_gone = || -> Result<()> {
        assert_eq!(engine.register(register::ID, 4)?, "ffffffff");
        let config = vm.read_at(&format!("/sys/bus/pci/devices/{bdf}/config"), 0, 4)?;
        assert_eq!(config, [0xff; 4]);
        Ok(())
    };
    is_gone()?;

    let again = Process::serve(&folder)?;
    let mut client = Client::connect(&again.socket()).expect("a place for a client");
    let mut id = [0; 4];
    let read = client.region_read(7, 0, &mut id);
    read.expect("configuration space");
    assert_eq!(id, [0xde, 0x10, 0x42, 0x23]);
    is_gone()?;

    vm.write(&format!("{DRIVER}/unbind"), bdf)?;
    assert_eq!(with_memory(vm)?, "0", "{}", vm.sh("dmesg | tail")?);
    let said = user.end()?;
    assert!(said.ends_with("as before, on node 0"), "{said}");
    vm.write(&format!("/sys/bus/pci/devices/{bdf}/driver_override"), "\n")?;
    vm.sh("rmmod varia_coherent_memory")?;
    Ok(())
}

/// QEMU is killed while the guest uses the memory. The next QEMU finds the bytes that CPU and engine
/// have written, because the memory is a file that stays.
pub(crate) fn bytes_of_a_guest_that_is_killed(vm: Running, gpu: &Gpu, bdf: &str) -> Result<()> {
    const PATTERN: u64 = 0x1122_3344_5566_7788;
    // binds the GPU, which names the driver
    vm.sh(&format!("insmod {MODULE}"))?;
    assert_eq!(with_memory(&vm)?, "0-1");
    let user = User::start(&vm, "hold")?;
    let by_cpu = user.address()? - bar4(&vm, bdf)?;
    let memory = &gpu.silicon().coherent_memory().expect("a GH200").bytes;
    let mut word = [0; 8];
    memory.read(by_cpu, &mut word).expect("inside the memory");
    assert_ne!(word, [0; 8], "the process has written");
    // in resmem, which is no memory of the guest's kernel
    let engine = Engine { vm: &vm, bdf };
    let by_engine = 3 * PAGE;
    let answer = engine.fill(USEMEM + by_engine, PATTERN)?;
    assert_eq!(answer, (status::DONE, 0));
    vm.kill()?;
    drop(user);
    drop(vm);

    let mut machine = Machine::start(gpu);
    machine.place_bar(2, 2 * GIB, BAR2);
    machine.place_bar(4, 2 * GIB, BAR4);
    machine.enable_memory();
    for (address, expected) in [
        (BAR4 + by_cpu, u64::from_le_bytes(word)),
        (BAR2 + by_engine, PATTERN),
        (BAR2 + by_engine + PAGE - 8, PATTERN),
    ] {
        assert_eq!(machine.read(address), expected, "at {address:#x}");
    }
    Ok(())
}
