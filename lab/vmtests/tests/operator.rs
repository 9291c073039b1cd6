//! docs/operator.md, followed word for word: each of its lines is typed, in order, in a machine
//! that owns a GPU, and prints what the page says, from the bare host to guests with KVM that QEMU
//! and libvirt start, and back.

use std::time::{Duration, Instant};

use varia_lab::{Arch, GuestCommand, HANG, Set, Task, agent_build, packages};
use varia_silicon::{Options, profile};
use varia_vmtests::host::{Driver, Host, HostPlan, Memory};
use varia_vmtests::page::{Block, Place, blocks, matches};
use varia_vmtests::{Error, Result, inner_guest, libvirt_daemon};

const MIB: u64 = 1 << 20;
/// Where everything is typed.
const HOME: &str = "/root";
/// Names for PCI ids, on the host and in the guest.
const PCI_IDS: &str = "/usr/share/misc/pci.ids";
/// The terminal that the guest's console is on: what is typed, and what is shown.
const TYPED: &str = "/tmp/typed";
const SHOWN: &str = "/tmp/shown";
/// Prompt of the guest's shell.
const PROMPT: &str = "guest# ";
/// Waits for the end of a QEMU, and of libvirt's file for it, as a person does who types the next line.
const IS_OVER: &str = "while pidof qemu-system-aarch64 >/dev/null || [ -e /run/libvirt/qemu/*.xml ]
    do sleep 0.1; done";
/// Diagnosis of a guest that does not answer: processes, logs of libvirt's daemon and of QEMU.
const WHY: &str = "ps; tail -n 20 /tmp/daemon.log /var/log/libvirt/qemu/*.log; dmesg | tail -n 20";
/// The IOMMU group that QEMU has open.
const OPEN_GROUP: &str =
    "ls -l /proc/$(pidof qemu-system-aarch64)/fd | grep -o '/dev/vfio/[0-9]*$'";
/// The guest's first process leaves the console to a shell.
const SHELL: &str = "export PS1='guest# '; setsid cttyhack sh";

fn host() -> Result<Host> {
    let varia = agent_build::program(Arch::Aarch64, "varia", "varia")?;
    let names = packages::ensure(Set::Userland(Arch::Aarch64))?.path(PCI_IDS);
    let options = Options {
        memory: Some(1536 * MIB),
        ..Options::default()
    };
    let gh200 = profile::find("gh200").expect("a profile of the catalogue");
    let host = HostPlan::new(Arch::Aarch64, "operator")
        .kernel_memory(3072)
        .gpu(gh200, options, Memory::Real)
        .try_with(|vm| {
            let vm = vm
                .machine("virtualization=on")
                .cpu("neoverse-v1")
                .host_file("/usr/bin/varia", varia)
                .host_file(PCI_IDS, names);
            libvirt_daemon::equip(inner_guest::equip(vm, SHELL)?)
        })?
        .boot()?;
    host.install_kernel()?;
    host.vm.sh(&format!(
        "cp {} {HOME}/nvgrace-gpu-vfio-pci.ko; mkfifo {TYPED}",
        Driver::Ours.file()
    ))?;
    libvirt_daemon::install(&host.vm)?;
    libvirt_daemon::start(&host.vm, "/")?;
    Ok(host)
}

/// Types a block on the host: what its lines print.
fn on_host(host: &Host, block: &Block) -> Result<String> {
    let mut printed = String::new();
    for line in &block.lines {
        let begin = Instant::now();
        let command = GuestCommand::sh(line).cwd(HOME);
        let output = host.vm.run(&command)?.checked()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("# {line}   ({:?})\n{text}", begin.elapsed());
        printed.push_str(&text);
    }
    Ok(printed)
}

/// A guest's console, on the host's terminal.
struct Console {
    task: Task,
    /// Bytes of the console that have been read.
    read: usize,
}

impl Console {
    /// Types the line that starts the guest, and waits for its shell.
    fn open(host: &Host, line: &str) -> Result<Self> {
        let script = format!("exec 0<>{TYPED} >{SHOWN} 2>&1; exec script -qec \"$0\" /dev/null");
        let command = GuestCommand::new(["/bin/sh", "-c", &script, line]);
        let command = command.cwd(HOME).limit(10 * HANG);
        // what an earlier guest showed is not this one's
        host.vm.sh(&format!("rm -f {SHOWN}"))?;
        let task = host.vm.spawn(&command)?;
        let mut console = Self { task, read: 0 };
        console.until_prompt(host)?;
        Ok(console)
    }

    /// Waits for the next prompt and returns the text before the prompt.
    fn until_prompt(&mut self, host: &Host) -> Result<String> {
        let begin = Instant::now();
        loop {
            // it is made a moment after the line has been typed
            let shown = host.vm.read_text(SHOWN).unwrap_or_default();
            let shown = shown.replace('\r', "");
            let new = shown.get(self.read..).unwrap_or_default();
            if let Some((text, _)) = new.split_once(PROMPT) {
                self.read += text.len() + PROMPT.len();
                return Ok(text.to_owned());
            }
            if begin.elapsed() > HANG {
                let why = host.vm.sh(WHY)?;
                return Err(Error::Unexpected(format!(
                    "the guest says no more:\n{shown}\n{why}"
                )));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Types a line and gives what it prints; none when it is the guest's last.
    fn line(&mut self, host: &Host, line: &str) -> Result<String> {
        host.vm.sh(&format!("cat >{TYPED} <<'END'\n{line}\nEND"))?;
        if line == "poweroff -f" {
            let output = host.vm.wait(&self.task, HANG)?;
            assert!(output.success(), "{output:?}");
            host.vm.sh(IS_OVER)?;
            return Ok(String::new());
        }
        let shown = self.until_prompt(host)?;
        // before the echo the shell may ask the terminal where its cursor is
        let echoed = shown.split_once(&format!("{line}\n"));
        let printed = echoed.map(|(_, printed)| printed.to_owned());
        printed.ok_or_else(|| Error::Unexpected(format!("{line:?} is shown as {shown:?}")))
    }
}

#[test]
fn the_way_from_a_bare_host_to_a_vm_is_as_the_page_says() -> Result<()> {
    let blocks = blocks("docs/operator.md")?;
    let begin = Instant::now();
    let host = host()?;
    println!("the host is up after {:?}", begin.elapsed());
    let mut console = None;
    let mut guests = Vec::new();
    let mut wrong = Vec::new();
    let mut said = String::new();
    for block in &blocks {
        let printed = match block.place {
            Place::Host => on_host(&host, block)?,
            Place::Console => {
                console = Some(Console::open(&host, &block.lines.join("\n"))?);
                println!("the guest's shell is there after {:?}", begin.elapsed());
                guests.push(host.vm.sh(OPEN_GROUP)?);
                continue;
            }
            Place::Guest => {
                let console = console.as_mut().expect("a guest is started first");
                let typed = block.lines.iter().map(|line| console.line(&host, line));
                typed.collect::<Result<Vec<_>>>()?.concat()
            }
            // typed by package.rs
            Place::Soak => continue,
        };
        said.push_str(&printed);
        let promise = block.output.as_ref();
        if let Some(promise) = promise.filter(|promise| !matches(promise, &printed)) {
            wrong.push(format!(
                "{:?} promise\n{promise}\nand print\n{printed}",
                block.lines
            ));
        }
    }
    println!("followed after {:?}", begin.elapsed());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // doctor knows this host's libvirt, whichever it is
    let daemon = host.vm.sh("libvirtd --version")?;
    let version = daemon.rsplit(' ').next().unwrap_or_default();
    let told = said
        .lines()
        .find(|line| line.ends_with("(libvirtd --version)"));
    let told: Vec<_> = told.unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        told.join(" "),
        format!("ok libvirt {version} (libvirtd --version)")
    );
    // QEMU's guest and libvirt's, each with the GPU's IOMMU group
    assert_eq!(guests, ["/dev/vfio/4"; 2]);
    // what has been done is undone
    assert_eq!(
        host.vm
            .read_text("/sys/module/nvgrace_gpu_vfio_pci/refcnt")?,
        "0"
    );
    host.power_off()
}
