//! A machine that plays the one which owns the GPUs: bare silicon, an IOMMU, firmware's
//! properties, and VFIO drivers to bind.
//!
//! Each GPU is behind a root port of its own, or on a root bus of its own near a socket. Its coherent
//! memory is either [`Memory::Real`], a part of the machine's RAM that its kernel leaves alone and
//! that the silicon shares, or [`Memory::Absent`]: addresses where nothing is, for a test that never
//! touches them.

mod driver;

pub use driver::Driver;

use serde::de::DeserializeOwned;
use tempfile::TempDir;
use varia_lab::iasl::compile_asl;
use varia_lab::vm::MEMORY_FOLDER;
use varia_lab::{
    Arch, Flavour, GuestCommand, HANG, LabError, MemoryNode, RootBus, Running, Task, VfioUser, Vm,
    kernel_modules,
};
use varia_serve::View;
use varia_silicon::profile::{BarModel, Fact, Mark};
use varia_silicon::{Backing, Options, Profile, Silicon};
use varia_sys::memory::SharedMemory;
use varia_variant::HostPhys;

use crate::acpi::{self, Seat};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::log;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// Start of the machine's own RAM.
const RAM_START: [(Arch, u64); 2] = [(Arch::Aarch64, GIB), (Arch::X86_64, 0)];
/// Where absent memory begins, and how far that of the next GPU is away.
const ABSENT_START: u64 = 0x4200_0000_0000;
const ABSENT_STRIDE: u64 = 4 << 40;
/// RAM at the end of a machine for what its firmware puts there: tables, and on arm64 the
/// initramfs, which the kernel then takes for RAM in spite of `mem=`. With one of 200 MiB more than
/// 512 MiB are taken.
const FIRMWARE_MIB: u64 = 768;
/// The same on x86, where only tables go there.
const FIRMWARE_MIB_X86: u64 = 64;
/// Most RAM that QEMU places below 4 GiB on x86 without splitting the RAM.
const X86_LOW_RAM: u64 = 2816 * MIB;
/// The number of the first GPU's own root bus, and how far that of the next GPU is away.
const FIRST_ROOT_BUS: u8 = 32;
const ROOT_BUS_STRIDE: u8 = 8;
/// Bytes of BAR 2 where the chip's own is too large.
const SMALL_BAR2: u64 = 64 * MIB;

/// Memory behind the addresses of a GPU's coherent memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// RAM that the silicon shares.
    Real,
    /// Nothing.
    Absent,
    /// The memory is in BARs: the virtual GPU, as a VM gets it, without firmware's properties.
    Bars,
    /// RAM that is real for an earlier GPU too. The two can't be open at the same time.
    Within {
        /// The earlier GPU's number, from 0.
        gpu: usize,
        /// Distance from the beginning of the earlier GPU's memory to this GPU's, in bytes.
        shift: u64,
    },
}

/// A machine to be.
#[derive(Debug)]
pub struct HostPlan {
    vm: Vm,
    kernel_mib: u64,
    sockets: u32,
    wishes: Vec<Wish>,
    port_options: Vec<String>,
}

#[derive(Debug)]
struct Wish {
    profile: Profile,
    options: Options,
    memory: Memory,
    root_bus: Option<RootBus>,
}

/// A machine that runs, with its GPUs.
#[derive(Debug)]
pub struct Host {
    /// The machine.
    pub vm: Running,
    gpus: Vec<Gpu>,
    addresses: Vec<String>,
    _memory: TempDir,
}

impl HostPlan {
    /// A machine without GPUs, whose kernel has 1 GiB, or 2 GiB with KASAN.
    #[must_use]
    pub fn new(flavour: impl Into<Flavour>, name: &str) -> Self {
        let mut vm = Vm::new(flavour).name(name).iommu();
        let kernel_mib = if vm.flavour().is_debug() { 2048 } else { 1024 };
        if vm.arch() == Arch::Aarch64 {
            // Room for the BARs of twenty GPUs.
            vm = vm.machine("highmem-mmio-size=8T");
        }
        Self {
            vm,
            kernel_mib,
            sockets: 1,
            wishes: Vec::new(),
            port_options: Vec::new(),
        }
    }

    /// So many sockets, each a node with its share of the processors and of the kernel's memory.
    #[must_use]
    pub fn sockets(mut self, count: u32) -> Self {
        self.sockets = count;
        self.vm = self.vm.sockets(count);
        self
    }

    /// Sets the memory of the machine's kernel, in MiB.
    #[must_use]
    pub fn kernel_memory(mut self, mib: u64) -> Self {
        self.kernel_mib = mib;
        self
    }

    /// Adds a GPU. The base and backing of `options` are chosen by the machine. With KASAN its
    /// physical BAR 2 is small: see [`Flavour::Debug64k`].
    #[must_use]
    pub fn gpu(mut self, profile: &Profile, options: Options, memory: Memory) -> Self {
        self.wishes.push(Wish {
            profile: profile.clone(),
            options,
            memory,
            root_bus: None,
        });
        self
    }

    /// Adds a GPU on a root bus of its own, near the socket `node`.
    #[must_use]
    pub fn gpu_near(self, node: u32, profile: &Profile, options: Options, memory: Memory) -> Self {
        let mut plan = self.gpu(profile, options, memory);
        let number = FIRST_ROOT_BUS + ROOT_BUS_STRIDE * (plan.wishes.len() as u8 - 1);
        if let Some(wish) = plan.wishes.last_mut() {
            wish.root_bus = Some(RootBus { number, node });
        }
        plan
    }

    /// Gives the root port of each GPU a property, such as `x-speed=5`.
    #[must_use]
    pub fn port_option(mut self, option: &str) -> Self {
        self.port_options.push(option.to_owned());
        self
    }

    /// Changes the machine.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(Vm) -> Vm) -> Self {
        self.vm = change(self.vm);
        self
    }

    /// Changes the machine, if that can be done.
    ///
    /// # Errors
    /// Errors of the change.
    pub fn try_with(mut self, change: impl FnOnce(Vm) -> Result<Vm>) -> Result<Self> {
        self.vm = change(self.vm)?;
        Ok(self)
    }

    /// Starts the GPUs and the machine, and checks that its kernel keeps off their memory.
    ///
    /// # Errors
    /// Reason why a GPU or the machine does not start, or [`Error::Unexpected`].
    pub fn boot(self) -> Result<Host> {
        let (arch, flavour) = (self.vm.arch(), self.vm.flavour());
        let memory = tempfile::Builder::new()
            .prefix("varia-host-")
            .tempdir_in(MEMORY_FOLDER)
            .map_err(Error::io("create a folder in /dev/shm"))?;
        let start = RAM_START
            .iter()
            .find_map(|(known, start)| (*known == arch).then_some(*start))
            .unwrap_or_default();
        let node = MemoryNode {
            mib: self.kernel_mib / u64::from(self.sockets),
            file: None,
        };
        let mut nodes = vec![node; self.sockets as usize];
        let mut free = start + self.kernel_mib * MIB;
        let root_buses: Vec<_> = self.wishes.iter().map(|wish| wish.root_bus).collect();
        let mut gpus: Vec<(View, Gpu)> = Vec::new();
        for (wish, number) in self.wishes.into_iter().zip(0_u64..) {
            let mut options = wish.options;
            match wish.memory {
                Memory::Absent | Memory::Bars => {
                    let base = HostPhys(ABSENT_START + number * ABSENT_STRIDE);
                    options.base = wish.profile.coherent.as_ref().map(|_| base);
                }
                Memory::Real => {
                    let size = options
                        .memory
                        .or(wish.profile.coherent.map(|memory| memory.size.value));
                    let size = size.unwrap_or_default();
                    let file = memory.path().join(number.to_string());
                    let node = MemoryNode {
                        mib: size.div_ceil(MIB),
                        file: Some(file.clone()),
                    };
                    // QEMU takes whole MiB; the silicon has the first part of the file.
                    std::fs::File::create(&file)
                        .and_then(|file| file.set_len(node.mib * MIB))
                        .map_err(Error::io("make a file for memory"))?;
                    options.base = Some(HostPhys(free));
                    options.backing = Backing::File(file);
                    free += node.mib * MIB;
                    nodes.push(node);
                }
                Memory::Within { gpu, shift } => {
                    let Some((_, earlier)) = gpus.get(gpu) else {
                        let why = format!("GPU {number} shares memory with {gpu}, a later one");
                        return Err(Error::Unexpected(why));
                    };
                    let start = earlier
                        .silicon()
                        .coherent_memory()
                        .map(|memory| memory.base);
                    options.base = start.map(|start| HostPhys(start.0 + shift));
                    let file = memory.path().join(gpu.to_string());
                    options.backing = Backing::PartOfFile(file, shift);
                }
            }
            let view = match wish.memory {
                Memory::Bars => View::Virtual,
                Memory::Real | Memory::Absent | Memory::Within { .. } => View::Physical,
            };
            let mut profile = wish.profile;
            if flavour.is_debug() {
                shrink_bar2(&mut profile.bars);
            }
            gpus.push((view, Gpu::serve(&profile, view, options)?));
        }
        if nodes.len() > self.sockets as usize {
            let mib = match arch {
                Arch::Aarch64 => FIRMWARE_MIB,
                Arch::X86_64 => FIRMWARE_MIB_X86,
            };
            nodes.push(MemoryNode { mib, file: None });
            if arch == Arch::X86_64 && free + mib * MIB > X86_LOW_RAM {
                return Err(Error::Unexpected(format!(
                    "an x86 machine's tables can't name memory that ends at {free:#x}"
                )));
            }
        }

        let described = (1..)
            .zip(&root_buses)
            .zip(&gpus)
            .map(|((slot, root_bus), (view, gpu))| {
                let seat = root_bus.map_or(Seat::Slot(slot), Seat::RootBus);
                (seat, (*view == View::Physical).then(|| gpu.silicon()))
            });
        let table = compile_asl(&acpi::properties(described))?;
        let gpus: Vec<_> = gpus.into_iter().map(|(_, gpu)| gpu).collect();
        let mut vm = self
            .vm
            .cmdline(format!("nokaslr mem={}M", self.kernel_mib))
            .memory_nodes(nodes)
            .acpi_table(table)
            .module("vfio_pci_core")
            .module("vfio_iommu_type1")
            .module_later("vfio_pci")
            .host_file(Driver::Original.file(), kernel_modules::original(flavour)?)
            .host_file(
                Driver::ours_on(flavour).file(),
                kernel_modules::ours(flavour)?,
            );
        for (index, (gpu, root_bus)) in gpus.iter().zip(&root_buses).enumerate() {
            let mut device = VfioUser::new(format!("gpu{index}"), gpu.socket());
            device.root_bus = *root_bus;
            device.port_options.clone_from(&self.port_options);
            vm = vm.device(device);
        }
        let vm = vm.boot()?;
        let addresses = (1..)
            .zip(&root_buses)
            .map(|(slot, root_bus)| {
                behind_port(
                    &vm,
                    &match root_bus {
                        None => format!("0000:00:{slot:02x}.0"),
                        Some(bus) => format!("0000:{:02x}:00.0", bus.number),
                    },
                )
            })
            .collect::<Result<_>>()?;
        let host = Host {
            vm,
            gpus,
            addresses,
            _memory: memory,
        };
        host.check_memory()?;
        Ok(host)
    }
}

impl Host {
    /// The silicon of a GPU, by its number from 0.
    ///
    /// # Panics
    /// If there is no such GPU: the test is wrong.
    #[must_use]
    pub fn silicon(&self, gpu: usize) -> &Silicon {
        self.gpus[gpu].silicon()
    }

    /// The coherent memory of a GPU, by its number from 0.
    ///
    /// # Panics
    /// If there is no such GPU, or it has no coherent memory: the test is wrong.
    #[must_use]
    pub fn memory(&self, gpu: usize) -> &SharedMemory {
        let memory = self.silicon(gpu).coherent_memory();
        &memory.expect("a GPU with coherent memory").bytes
    }

    /// First address of a GPU's coherent memory.
    ///
    /// # Panics
    /// If there is no such GPU, or it has no coherent memory: the test is wrong.
    #[must_use]
    pub fn memory_base(&self, gpu: usize) -> HostPhys {
        let memory = self.silicon(gpu).coherent_memory();
        memory.expect("a GPU with coherent memory").base
    }

    /// The PCI address of a GPU in the machine.
    ///
    /// # Panics
    /// If there is no such GPU: the test is wrong.
    #[must_use]
    pub fn address(&self, gpu: usize) -> &str {
        &self.addresses[gpu]
    }

    /// The PCI addresses of all GPUs.
    #[must_use]
    pub fn addresses(&self) -> Vec<&str> {
        self.addresses.iter().map(String::as_str).collect()
    }

    /// Loads a driver, in the place of another one of the same name.
    ///
    /// # Errors
    /// Refusal by the kernel.
    pub fn load(&self, driver: Driver) -> Result<()> {
        if driver == Driver::VfioPci {
            return Ok(self.vm.modprobe("vfio_pci", "")?);
        }
        self.unload()?;
        self.vm.sh(&format!("insmod {}", driver.file()))?;
        Ok(())
    }

    /// Puts the modules that the machine has where those of an installed kernel are, and the
    /// `modprobe` that loads them where Linux looks for it.
    ///
    /// # Errors
    /// Errors of the machine.
    pub fn install_kernel(&self) -> Result<()> {
        self.vm
            .sh("set -e; mkdir -p /sbin /lib/modules/$(uname -r)/kernel
             ln -sf /bin/busybox /sbin/modprobe
             cp /lab/modules/*.ko /lib/modules/$(uname -r)/kernel/; depmod")?;
        Ok(())
    }

    /// Installs a driver that is no part of the machine's kernel, in the place of another one of
    /// the same name; [`Host::install_kernel`] comes first.
    ///
    /// # Errors
    /// Errors of the machine.
    pub fn install(&self, driver: Driver) -> Result<()> {
        self.unload()?;
        self.vm.sh(&format!(
            "set -e; modules=/lib/modules/$(uname -r); mkdir -p $modules/extra
             cp {} $modules/extra/nvgrace-gpu-vfio-pci.ko; depmod
             grep -q 'vfio_pci:v000010DEd00002941sv.* {}' $modules/modules.alias",
            driver.file(),
            driver.name()
        ))?;
        Ok(())
    }

    /// Unloads the original driver or ours, if one is there.
    ///
    /// # Errors
    /// Refusal by the kernel.
    pub fn unload(&self) -> Result<()> {
        let modules = self.vm.list("/sys/module")?;
        for name in [Driver::Ours, Driver::InTree].map(Driver::name) {
            if !modules.iter().any(|loaded| loaded == name) {
                continue;
            }
            // What stays behind in driver_override would bind the GPUs by itself.
            for address in &self.addresses {
                self.write(address, "driver_override", "\n")?;
            }
            self.vm.sh(&format!("rmmod {name}"))?;
        }
        Ok(())
    }

    /// Binds a GPU to a driver that has been loaded. The inner error is the error number of a
    /// probe that fails.
    ///
    /// # Errors
    /// Any other error of the machine.
    pub fn bind(&self, gpu: usize, driver: Driver) -> Result<std::result::Result<(), i32>> {
        match self.vm.bind(self.address(gpu), driver.name()) {
            Ok(()) => Ok(Ok(())),
            Err(LabError::Agent {
                errno: Some(errno), ..
            }) => Ok(Err(errno)),
            Err(other) => Err(other.into()),
        }
    }

    /// Takes a GPU's driver away, if it has one.
    ///
    /// # Errors
    /// Errors of the machine.
    pub fn unbind(&self, gpu: usize) -> Result<()> {
        let address = self.address(gpu);
        let folder = format!("/sys/bus/pci/devices/{address}/driver");
        if self.vm.link_name(&folder).is_ok() {
            self.vm.write(&format!("{folder}/unbind"), address)?;
        }
        Ok(())
    }

    /// Starts an applet of the agent that may take its time.
    ///
    /// # Errors
    /// Errors of the machine.
    pub fn start(&self, applet: &str, arguments: &[&str]) -> Result<Task> {
        let command = GuestCommand::applet(applet, arguments).limit(HANG);
        Ok(self.vm.spawn(&command)?)
    }

    /// Waits for an applet that was started, and reads its answer.
    ///
    /// # Errors
    /// If it fails or answers with something else.
    pub fn answer<T: DeserializeOwned>(&self, task: &Task) -> Result<T> {
        let output = self.vm.wait(task, HANG)?.checked()?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let text = output.text();
            Error::Unexpected(format!("{task:?} printed {text:?}: {error}"))
        })
    }

    /// Runs an applet and reads its answer.
    ///
    /// # Errors
    /// As for [`Host::answer`].
    pub fn ask<T: DeserializeOwned>(&self, applet: &str, arguments: &[&str]) -> Result<T> {
        self.answer(&self.start(applet, arguments)?)
    }

    /// Switches the machine off, then the GPUs, once its kernel's log shows no trouble.
    ///
    /// # Errors
    /// [`Error::Unexpected`] with the log if it shows some, or if the machine does not end.
    pub fn power_off(self) -> Result<()> {
        self.check_log()?;
        Ok(self.vm.power_off()?)
    }

    /// The same for a machine whose kernel may have warned of something `known`, which has nothing
    /// to do with the drivers.
    ///
    /// # Errors
    /// As for [`Host::power_off`].
    pub fn power_off_but_for(self, known: &str) -> Result<()> {
        check_log(&log::without(&self.vm.sh("dmesg")?, known))?;
        Ok(self.vm.power_off()?)
    }

    /// Looks for trouble in the kernel's log.
    ///
    /// # Errors
    /// [`Error::Unexpected`] with the lines that show it, and the whole log.
    pub fn check_log(&self) -> Result<()> {
        check_log(&self.vm.sh("dmesg")?)
    }

    fn write(&self, address: &str, attribute: &str, text: &str) -> Result<()> {
        let path = format!("/sys/bus/pci/devices/{address}/{attribute}");
        Ok(self.vm.write(&path, text)?)
    }

    /// The kernel must not use the GPUs' memory: with address space randomisation the
    /// firmware's loader ignores `mem=`.
    fn check_memory(&self) -> Result<()> {
        let map = self.vm.read_text("/proc/iomem")?;
        for gpu in &self.gpus {
            let Some(memory) = gpu.silicon().coherent_memory() else {
                continue;
            };
            let start = memory.base.0;
            let last = start + memory.bytes.len() - 1;
            for line in map.lines().filter(|line| !line.starts_with(' ')) {
                let taken = range(line)
                    .ok_or_else(|| Error::Unexpected(format!("/proc/iomem says {line:?}")))?;
                if taken.0 <= last && start <= taken.1 {
                    return Err(Error::Unexpected(format!(
                        "the machine uses {line:?}, where a GPU's memory is \
                         ({start:x}-{last:x}); its whole map:\n{map}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Makes BAR 2 one that a kernel with KASAN can map, and that is mapped for DMA in no time.
pub fn shrink_bar2(bars: &mut [Fact<BarModel>]) {
    for bar in bars.iter_mut().filter(|bar| bar.value.index == 2) {
        bar.value.spec.size = SMALL_BAR2;
        bar.mark = Mark::Assumed("no chip has it: for tests that map all of it");
    }
}

fn check_log(log: &str) -> Result<()> {
    let found = log::troubles(log);
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Unexpected(format!(
        "the kernel's log shows trouble: {found:#?}, in:\n{log}"
    )))
}

/// First and last address of a line of `/proc/iomem`.
fn range(line: &str) -> Option<(u64, u64)> {
    let (range, _) = line.split_once(" : ")?;
    let (first, last) = range.trim().split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(first)?, number(last)?))
}

/// The address of the function behind a root port.
fn behind_port(vm: &Running, port: &str) -> Result<String> {
    let port = format!("/sys/bus/pci/devices/{port}");
    let is_function = |name: &String| name.starts_with("0000:") && name.ends_with(":00.0");
    vm.list(&port)?
        .into_iter()
        .find(is_function)
        .ok_or_else(|| Error::Unexpected(format!("there is no function behind {port}")))
}
