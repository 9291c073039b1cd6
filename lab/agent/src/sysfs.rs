//! A PCI function without a driver, as a device for the user-space core: its raw configuration
//! space, resources and reset as sysfs offers them.
//!
//! Not here: interrupts, which the kernel gives to drivers only, and memory outside the BARs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use varia_core::{
    BarSpace, BarSpec, BusFunction, ConfigRegister, Device, Errno, Interrupts, SharedFd,
};
use varia_spec::pci::header::{self, command};
use varia_sys::mapping::{Access, Mapping, Share, page_size};

/// `IORESOURCE_IO`, Linux 7.2 `include/linux/ioport.h`, as the flags below.
const IO: u64 = 0x100;
/// `IORESOURCE_PREFETCH`.
const PREFETCH: u64 = 0x2000;
/// `IORESOURCE_MEM_64`.
const MEM_64: u64 = 0x10_0000;

/// A BAR and its file.
#[derive(Debug)]
struct Resource {
    spec: BarSpec,
    file: File,
    /// It has its pages for itself.
    mappable: bool,
}

/// A function at its place in sysfs.
#[derive(Debug)]
pub struct SysfsDevice {
    folder: PathBuf,
    config: File,
    /// Bytes of the configuration space: 256 without PCI Express.
    space: u16,
    bars: [Option<Resource>; 6],
    /// Bytes that the ROM decodes: its image, then ones.
    rom: Option<Vec<u8>>,
    resets: AtomicU64,
}

impl SysfsDevice {
    /// The function at `bdf`, for example `0000:01:00.0`. It must have no driver.
    ///
    /// # Errors
    /// Error of the system for a file, with the file's path.
    pub fn open(bdf: &str) -> Result<Self, String> {
        let folder = Path::new("/sys/bus/pci/devices").join(bdf);
        let path = folder.join("config");
        let config = open(&path)?;
        let space = config.metadata().map_err(failed(&path))?.len();
        let space = u16::try_from(space).map_err(|e| format!("{}: {e}", path.display()))?;
        let path = folder.join("resource");
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        let mut bars = [const { None }; 6];
        let mut rom = None;
        for (index, line) in text.lines().enumerate().take(7) {
            let Some((start, size, flags)) = resource(line) else {
                continue;
            };
            match bars.get_mut(index) {
                Some(bar) => {
                    *bar = Some(Resource {
                        spec: spec(size, flags),
                        file: open(&folder.join(format!("resource{index}")))?,
                        mappable: flags & IO == 0
                            && (size >= page_size() as u64
                                || start.is_multiple_of(page_size() as u64)),
                    });
                }
                None => rom = Some(size),
            }
        }
        let mut device = Self {
            folder,
            config,
            space,
            bars,
            rom: None,
            resets: AtomicU64::new(0),
        };
        if let Some(size) = rom {
            device.rom = Some(device.read_rom(size)?);
        }
        Ok(device)
    }

    /// Raw configuration space of the function; zeros where there is none.
    ///
    /// # Errors
    /// Error of the system.
    pub fn raw(&self) -> Result<Vec<u8>, String> {
        let mut raw = vec![0; usize::from(varia_spec::pci::CFG_SPACE_EXP_SIZE)];
        let path = self.folder.join("config");
        let there = raw
            .get_mut(..usize::from(self.space))
            .ok_or("a space of its own")?;
        self.config.read_exact_at(there, 0).map_err(failed(&path))?;
        Ok(raw)
    }

    /// The kernel gives the image alone, and only while memory is decoded.
    fn read_rom(&self, size: u64) -> Result<Vec<u8>, String> {
        let path = self.folder.join("rom");
        let register = ConfigRegister::word(header::COMMAND);
        let dead = |errno: Errno| format!("{}: {}", self.folder.display(), errno.name());
        let before = self.config_read(register).map_err(dead)?;
        let memory = before | u32::from(command::MEMORY);
        self.config_write(register, memory).map_err(dead)?;
        fs::write(&path, "1").map_err(failed(&path))?;
        let mut image = Vec::new();
        // a ROM without a valid image can't be read
        let _ = File::open(&path).and_then(|mut file| file.read_to_end(&mut image));
        fs::write(&path, "0").map_err(failed(&path))?;
        self.config_write(register, before).map_err(dead)?;
        image.resize(usize::try_from(size).map_err(|e| e.to_string())?, 0xff);
        Ok(image)
    }

    fn resource(&self, bar: u8) -> Result<&Resource, Errno> {
        let bar = self.bars.get(usize::from(bar)).and_then(Option::as_ref);
        bar.ok_or(Errno::EINVAL)
    }

    /// Maps the pages of a memory BAR that hold these bytes, and says where they begin there.
    fn map(&self, bar: &Resource, offset: u64, len: usize) -> Result<(Mapping, usize), Errno> {
        let page = page_size() as u64;
        let start = offset - offset % page;
        let end = offset.checked_add(len as u64).ok_or(Errno::EINVAL)?;
        if end > bar.spec.size {
            return Err(Errno::EINVAL);
        }
        let bytes = (end - start).next_multiple_of(page);
        let (access, share) = (Access::ReadWrite, Share::Shared);
        let mapping = Mapping::new(&bar.file, start, bytes, access, share)?;
        Ok((mapping, (offset - start) as usize))
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Errno> {
        fs::write(self.folder.join(file), text).map_err(|e| errno(&e))
    }

    /// The function in this folder of sysfs.
    fn function(folder: &Path) -> Option<BusFunction> {
        let name = folder.file_name()?.to_str()?;
        let (segment, rest) = name.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let number = |text| u8::from_str_radix(text, 16).ok();
        let group = fs::read_link(folder.join("iommu_group")).ok()?;
        Some(BusFunction {
            segment: u16::from_str_radix(segment, 16).ok()?,
            bus: number(bus)?,
            devfn: number(device)? << 3 | number(function)?,
            group: group.file_name()?.to_str()?.parse().ok()?,
        })
    }
}

impl Device for SysfsDevice {
    fn config_read(&self, register: ConfigRegister) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        let len = usize::from(register.width().bytes());
        let part = bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
        if register.offset() >= self.space {
            // as a bus answers for what is not there
            part.fill(0xff);
            return Ok(u32::from_le_bytes(bytes));
        }
        self.config
            .read_exact_at(part, register.offset().into())
            .map_err(|e| errno(&e))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn config_write(&self, register: ConfigRegister, value: u32) -> Result<(), Errno> {
        let bytes = value.to_le_bytes();
        let len = usize::from(register.width().bytes());
        let part = bytes.get(..len).ok_or(Errno::EINVAL)?;
        if register.offset() >= self.space {
            return Ok(());
        }
        self.config
            .write_all_at(part, register.offset().into())
            .map_err(|e| errno(&e))
    }

    fn bar(&self, bar: u8) -> Option<BarSpec> {
        self.resource(bar).ok().map(|bar| bar.spec)
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let bar = self.resource(bar)?;
        if bar.spec.space != BarSpace::Io {
            let (mapping, at) = self.map(bar, offset, data.len())?;
            return mapping.read(at, data);
        }
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (now, later) = rest
                .split_at_mut_checked(port_width(at, rest.len()))
                .ok_or(Errno::EINVAL)?;
            bar.file.read_exact_at(now, at).map_err(|e| errno(&e))?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let bar = self.resource(bar)?;
        if bar.spec.space != BarSpace::Io {
            let (mapping, at) = self.map(bar, offset, data.len())?;
            return mapping.write(at, data);
        }
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (now, later) = rest
                .split_at_checked(port_width(at, rest.len()))
                .ok_or(Errno::EINVAL)?;
            bar.file.write_all_at(now, at).map_err(|e| errno(&e))?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn bar_fd(&self, bar: u8) -> Option<SharedFd<'_>> {
        let bar = self.resource(bar).ok().filter(|bar| bar.mappable)?;
        Some(SharedFd {
            fd: bar.file.as_fd(),
            offset: 0,
        })
    }

    fn rom(&self) -> Option<u64> {
        self.rom.as_ref().map(|rom| rom.len() as u64)
    }

    fn rom_read(&self, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        let start = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let end = start.checked_add(data.len()).ok_or(Errno::EINVAL)?;
        let bytes = self.rom.as_ref().and_then(|rom| rom.get(start..end));
        data.copy_from_slice(bytes.ok_or(Errno::EINVAL)?);
        Ok(())
    }

    /// The kernel keeps the registers, which is more than is asked for.
    fn reset(&self) -> Result<(), Errno> {
        self.write("reset", "1")?;
        self.resets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// The kernel knows of functions that a bus reset does not suit.
    fn bus_functions(&self) -> Vec<BusFunction> {
        let methods = fs::read_to_string(self.folder.join("reset_method")).unwrap_or_default();
        if !methods.split_whitespace().any(|method| method == "bus") {
            return Vec::new();
        }
        let Some(me) = Self::function(&self.folder) else {
            return Vec::new();
        };
        let all = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten();
        all.filter_map(|entry| Self::function(&entry.ok()?.path()))
            .filter(|other| (other.segment, other.bus) == (me.segment, me.bus))
            .collect()
    }

    fn bus_reset(&self) -> Result<(), Errno> {
        self.write("reset_method", "bus")?;
        let done = self.reset();
        self.write("reset_method", "default")?;
        done
    }

    fn reset_count(&self) -> u64 {
        self.resets.load(Ordering::SeqCst)
    }

    fn connect(&self, _sink: Option<Arc<dyn Interrupts>>) {}
}

/// Start, size and flags in a line of the file `resource`; `None` for no address.
fn resource(line: &str) -> Option<(u64, u64, u64)> {
    let mut words = line.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (start, end, flags) = (number()?, number()?, number()?);
    (start != 0).then(|| (start, end - start + 1, flags))
}

fn spec(size: u64, flags: u64) -> BarSpec {
    let space = if flags & IO != 0 {
        BarSpace::Io
    } else if flags & MEM_64 != 0 {
        BarSpace::Memory64
    } else {
        BarSpace::Memory32
    };
    BarSpec {
        size,
        space,
        prefetchable: flags & PREFETCH != 0,
    }
}

/// Bytes of an access to I/O ports that go at once.
fn port_width(at: u64, len: usize) -> usize {
    [4, 2]
        .into_iter()
        .find(|width| len >= *width && at.is_multiple_of(*width as u64))
        .unwrap_or(1)
}

fn open(path: &Path) -> Result<File, String> {
    let open = OpenOptions::new().read(true).write(true).open(path);
    open.map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn errno(error: &io::Error) -> Errno {
    let number = error.raw_os_error().and_then(Errno::new);
    number.unwrap_or(Errno::EIO)
}
