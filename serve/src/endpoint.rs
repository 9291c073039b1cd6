//! A device as a VFIO user sees it.

use std::{fmt, os::fd::BorrowedFd, sync::Arc};

use varia_core::{ConfigRegister, Core, Device, DeviceRegion, Dma, Refused, RegionInfo, View};
use varia_spec::{
    Errno,
    pci::header,
    vfio::{self, DeviceCapability, DeviceInfo, RegionIndex, SparseArea, region_flags},
};
use varia_sys::limits::return_free_memory;
use varia_variant::{
    Answers, BarIndex, ConfigOwner, Decline, Describe, Direction, Environment, Event, Extended,
    Feature, FeatureSource, MemoryLayout, Millis, Outcome, PageShift, Refusal, Region, Variant,
    Wait,
};
use varia_variants::{
    AnyVariant, Clique, CliqueError, Entry, Plain, Selected, Zdev,
    table::{self, Chosen},
};

use crate::{
    access::{Attempt, Operation, Progress, attempt},
    clock::{Clock, SystemClock},
    discover,
    own_region::OwnRegion,
};

/// Options for serving a device.
pub struct Options {
    /// View of the device: behind its variant, or bare.
    pub view: View,
    /// Reads and writes of memory regions fail with `EIO` while memory is disabled, but for a
    /// write that starts beyond the memory: it is dropped in any case. No BAR can be mapped then,
    /// because a client's mapping can't be withdrawn.
    pub honour_memory_enable: bool,
    /// Form in which memory outside every BAR is presented.
    pub layout: MemoryLayout,
    /// GPUDirect clique of the device, 0 to 15, which a guest's driver sees as a capability.
    pub gpudirect_clique: Option<u32>,
    /// A device that the core alone could serve is refused.
    pub strict: bool,
    /// The extension zdev is asked for: a device is refused on a platform without its facts. Where the
    /// platform has them, the extension is laid over any device.
    pub zdev: bool,
    /// Timeout of an operation for a device that is not ready: the operation fails with
    /// `ETIMEDOUT`, and the next access polls again. Clients have timeouts too, QEMU of 5 s.
    pub timeout: Millis,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            view: View::Virtual,
            honour_memory_enable: false,
            layout: MemoryLayout::Bar,
            gpudirect_clique: None,
            strict: false,
            zdev: false,
            timeout: Millis(4000),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A device that can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The layout can't be presented.
    #[error("the {variant} variant refuses the device: {refusal}")]
    Refused {
        /// The variant's name.
        variant: &'static str,
        /// Reason.
        refusal: Refusal,
    },
    /// The extension can't describe the device.
    #[error("the extension zdev refuses the device: {0}")]
    Zdev(Refusal),
    /// The device can't be in the GPUDirect clique.
    #[error(transparent)]
    Clique(#[from] CliqueError),
    /// The device contradicts itself.
    #[error(transparent)]
    Malformed(#[from] Refused),
    /// The device did not become ready.
    #[error("{}", Refusal::NotReady { errno: *.0 })]
    NotReady(Errno),
    /// The device does not answer.
    #[error("the device does not answer ({}): check its link and power", .0.name())]
    Dead(Errno),
}

impl Error {
    /// The errno that a driver's probe would return.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Refused { refusal, .. } | Self::Zdev(refusal) => refusal.errno(),
            Self::Clique(_) => Errno::EINVAL,
            Self::Malformed(refused) => refused.errno(),
            Self::NotReady(errno) | Self::Dead(errno) => *errno,
        }
    }
}

/// A region as a user sees it, and the file behind it.
#[derive(Debug)]
pub struct ServedRegion<'a> {
    /// The region's info.
    pub info: RegionInfo,
    /// A descriptor that can be mapped, and the offset of the region's first byte in it.
    pub file: Option<(BorrowedFd<'a>, u64)>,
}

/// Mappings of a user after which the server gives the memory of its table back: a fraction of a
/// MiB is worth no look at the whole heap.
const MANY_MAPPINGS: usize = 4096;

/// The page size of this host, which maps the memory.
fn host_page() -> PageShift {
    PageShift::new(varia_sys::mapping::page_size().ilog2()).unwrap_or(PageShift::KIB_64)
}

/// A device, its core and its variant.
pub struct Endpoint {
    pub(crate) core: Core,
    dma: Arc<Dma>,
    name: Option<&'static str>,
    selected: Option<Selected>,
    offset_shift: u32,
    pub(crate) variant: Option<Arc<Chosen>>,
    pub(crate) options: Options,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("variant", &self.variant)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Chooses a device's variant, waits until the device is ready and lays it out.
    ///
    /// In the physical view, and for a device without a variant, the core serves it alone.
    ///
    /// # Errors
    /// If the variant fails the probe, or the device is not ready in time or does not answer.
    pub fn new(device: Arc<dyn Device>, options: Options) -> Result<Self, Error> {
        let found = discover::variant(&*device).map_err(Error::Dead)?;
        // messages name region and offset apart: a BAR may be as large as any driver of it allows
        let largest = found.map_or(vfio::OFFSET_SHIFT, |(entry, _)| entry.offset_shift);
        let (entry, selected) = found.filter(|_| options.view == View::Virtual).unzip();
        let zdev = match options.view {
            View::Physical => None,
            View::Virtual => {
                table::zdev(device.zpci().as_ref(), options.zdev).map_err(Error::Zdev)?
            }
        };
        let mut core = Core::with_offset_shift(device, options.view, largest)?;
        let clique = clique(&core, &options)?;
        let variant = match entry {
            Some(entry) => probe(&**core.device(), entry, &options),
            None if clique.is_some() || zdev.is_some() => AnyVariant::Plain(Plain),
            None => {
                return Ok(Self {
                    core,
                    dma: Arc::default(),
                    name: None,
                    selected: None,
                    offset_shift: vfio::OFFSET_SHIFT,
                    variant: None,
                    options,
                });
            }
        };
        let variant: Chosen = Extended::new(Extended::new(variant, clique), zdev);
        let variant = Arc::new(variant);
        let hook = Arc::clone(&variant);
        core.on_reset(move || hook.event(Event::ResetDone));
        core.open().map_err(Error::Dead)?;
        let ready = wait_until_ready(&core, &variant, &*options.clock);
        core.close();
        ready.map_err(Error::NotReady)?;
        let name = entry.map(|entry| entry.name);
        let offset_shift = match (variant.outcome(), entry) {
            (Outcome::Fail(refusal), _) => {
                let variant = name.unwrap_or_default();
                return Err(Error::Refused { variant, refusal });
            }
            (Outcome::Serve, Some(entry)) => entry.offset_shift,
            _ => vfio::OFFSET_SHIFT,
        };
        for region in OwnRegion::all(&variant, core.device()) {
            if let Some(region) = region.without_memory() {
                log::warn!(
                    "the platform names no {region}: the region is empty, and each access to it fails; \
                     correct the platform's firmware, or the file with its facts"
                );
            }
            core.add_region(Box::new(region));
        }
        Ok(Self {
            core,
            dma: Arc::default(),
            name,
            selected,
            offset_shift,
            variant: Some(variant),
            options,
        })
    }

    /// The variant, if one was chosen.
    pub fn variant(&self) -> Option<&AnyVariant> {
        let chosen = self.variant.as_deref()?;
        self.name.and(Some(chosen.variant().variant()))
    }

    /// The variant's name, if one was chosen.
    pub fn variant_name(&self) -> Option<&'static str> {
        self.name
    }

    /// Reason for the selection of the variant, if one was chosen.
    pub fn selected(&self) -> Option<Selected> {
        self.selected
    }

    /// The extension zdev, on a platform with its facts.
    pub fn zdev(&self) -> Option<&Zdev> {
        self.variant.as_deref()?.extension().as_ref()
    }

    /// Capabilities in the device's info, in their order.
    pub fn capabilities(&self) -> Vec<DeviceCapability> {
        let mut capabilities = Vec::new();
        if let Some(variant) = &self.variant {
            variant.capabilities(&mut |capability| capabilities.push(capability));
        }
        capabilities
    }

    /// Features of the device.
    pub fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        if let Some(variant) = &self.variant {
            variant.features(&mut |feature| features.push(feature));
        }
        features
    }

    /// Data of a feature of the device. An error record is taken from the platform.
    ///
    /// # Errors
    /// `ENOTTY` if the device does not have the feature, `ENOMSG` without an error record.
    pub fn feature_get(&self, index: u32) -> Result<Vec<u8>, Errno> {
        let features = self.features();
        let feature = features.iter().find(|feature| feature.index == index);
        match feature.ok_or(Errno::ENOTTY)?.source {
            FeatureSource::ErrorRecord { len } => {
                let mut record = self.core.device().take_error_record();
                if let Some(record) = &mut record {
                    record.resize(len as usize, 0);
                }
                record.ok_or(Errno::ENOMSG)
            }
        }
    }

    /// Number of bits of a file position that hold the offset in a region, as the kernel's driver
    /// of the device has them: those of vfio-pci, unless a variant serves the device. A message names
    /// region and offset apart.
    pub fn offset_shift(&self) -> u32 {
        self.offset_shift
    }

    /// The extension of a GPUDirect clique, if one was asked for.
    pub fn clique(&self) -> Option<&Clique> {
        self.variant.as_deref()?.variant().extension().as_ref()
    }

    /// Reason why the core serves the device alone, if the variant declined.
    pub fn declined(&self) -> Option<Decline> {
        match self.variant.as_ref()?.outcome() {
            Outcome::Decline(reason) => Some(reason),
            _ => None,
        }
    }

    /// Adds a device-specific region behind those of the variant. Returns its index.
    pub fn add_region(&mut self, region: Box<dyn DeviceRegion>) -> RegionIndex {
        self.core.add_region(region)
    }

    /// The core below.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The user's memory, as the device reaches it while it is open.
    pub fn dma(&self) -> &Dma {
        &self.dma
    }

    /// A user opens the device.
    ///
    /// # Errors
    /// `EBUSY` if the device is open, `ENODEV` if the variant needs a BAR that does not exist; the
    /// errors of the device.
    pub fn open(&self) -> Result<(), Errno> {
        self.core.open()?;
        if let Some(variant) = &self.variant {
            let missing = |bar: &BarIndex| {
                variant.needs_bar(*bar) && self.core.device().bar(bar.get()).is_none()
            };
            if (0..6).filter_map(BarIndex::new).any(|bar| missing(&bar)) {
                self.core.close();
                return Err(Errno::ENODEV);
            }
            variant.event(Event::Opened);
        }
        self.core.device().attach(Some(Arc::clone(&self.dma)));
        Ok(())
    }

    /// The user has left.
    pub fn close(&self) {
        self.core.device().attach(None);
        self.dma.set_remote(None);
        self.unmap_all();
        self.core.close();
    }

    /// Removes all mappings of the user.
    pub(crate) fn unmap_all(&self) {
        if self.dma.clear() >= MANY_MAPPINGS {
            return_free_memory();
        }
    }

    /// `VFIO_DEVICE_GET_INFO`.
    pub fn info(&self) -> DeviceInfo {
        self.core.info()
    }

    /// The variant's decision on a region.
    pub fn region(&self, index: RegionIndex) -> Region<'_> {
        self.variant
            .as_ref()
            .map_or(Region::Base, |variant| variant.region(index))
    }

    /// `VFIO_DEVICE_GET_REGION_INFO`.
    ///
    /// # Errors
    /// `EINVAL` if the index does not exist.
    pub fn region_info(&self, index: RegionIndex) -> Result<ServedRegion<'_>, Errno> {
        let device = self.core.device();
        let (mut info, file) = match self.region(index) {
            Region::Memory(memory) => {
                let file = device.memory_fd(memory.base(), memory.length());
                (listed(memory.info()), file)
            }
            Region::Registers(registers) => (listed(registers.info()), None),
            Region::Absent => (RegionInfo::default(), None),
            Region::Base | Region::Composed(_) => {
                let file = index.bar().and_then(|bar| device.bar_fd(bar));
                (self.core.region_info(index)?, file)
            }
        };
        let is_bar = index.bar().is_some();
        let file = file.filter(|_| !(self.options.honour_memory_enable && is_bar));
        if file.is_none() {
            info.flags &= !region_flags::MMAP;
            info.areas.clear();
            info.msix_mappable = false;
        }
        let file = file.map(|file| (file.fd, file.offset));
        Ok(ServedRegion { info, file })
    }

    /// Reads a region. Returns how many bytes of `data` were filled. Sleeps while the device is not
    /// ready; [`try_read`](Self::try_read) does not.
    ///
    /// # Errors
    /// As the kernel's driver: `EINVAL`, `EIO`, `ENODEV`; `ETIMEDOUT` if the device is not ready
    /// within the timeout of this runtime.
    pub fn read(&self, index: RegionIndex, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        self.finish(|operation| self.try_read(index, offset, data, operation))
    }

    /// Writes a region. Returns how many bytes of `data` were written. Sleeps while the device is not
    /// ready; [`try_write`](Self::try_write) does not.
    ///
    /// # Errors
    /// As [`Endpoint::read`].
    pub fn write(&self, index: RegionIndex, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        self.finish(|operation| self.try_write(index, offset, data, operation))
    }

    /// An attempt at reading a region.
    ///
    /// # Errors
    /// As [`Endpoint::read`].
    pub fn try_read(
        &self,
        index: RegionIndex,
        offset: u64,
        data: &mut [u8],
        operation: &mut Operation,
    ) -> Result<Progress, Errno> {
        let count = match self.region(index) {
            Region::Memory(memory) => return self.memory_read(&memory, offset, data, operation),
            Region::Registers(registers) => self.register_read(registers, offset, data),
            Region::Base if index == RegionIndex::CONFIG => self.config_read(offset, data),
            Region::Absent => Err(Errno::EINVAL),
            Region::Base | Region::Composed(_) => self.core.region_read(index, offset, data),
        };
        count.map(Progress::Done)
    }

    /// An attempt at writing a region.
    ///
    /// # Errors
    /// As [`Endpoint::read`].
    pub fn try_write(
        &self,
        index: RegionIndex,
        offset: u64,
        data: &[u8],
        operation: &mut Operation,
    ) -> Result<Progress, Errno> {
        let count = match self.region(index) {
            Region::Memory(memory) => return self.memory_write(&memory, offset, data, operation),
            Region::Registers(registers) => self.register_write(registers, offset, data),
            Region::Base if index == RegionIndex::CONFIG => self.config_write(offset, data),
            Region::Absent => Err(Errno::EINVAL),
            Region::Base | Region::Composed(_) => self.core.region_write(index, offset, data),
        };
        count.map(Progress::Done)
    }

    /// The base's bytes first, then the variant's in their place.
    fn config_read(&self, offset: u64, data: &mut [u8]) -> Result<usize, Errno> {
        let count = self.core.config_read(offset, data)?;
        if let (Some(variant), Some(data)) = (&self.variant, data.get_mut(..count)) {
            variant.config_load(offset, data);
        }
        Ok(count)
    }

    /// Writes each segment to its owner, in rising order. If a segment fails, the bytes before the
    /// segment have been written and are counted; the error is returned if there are no such bytes.
    fn config_write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let Some(variant) = &self.variant else {
            return self.core.config_write(offset, data);
        };
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let segment = variant.config_segment(Direction::Write, at, rest.len() as u64);
            let len = usize::try_from(segment.len)
                .unwrap_or(rest.len())
                .clamp(1, rest.len());
            let bytes = rest.get(..len).unwrap_or(rest);
            if segment.owner != ConfigOwner::Keep {
                match self.core.config_write(at, bytes) {
                    Ok(_) => {}
                    Err(errno) if done == 0 => return Err(errno),
                    Err(_) => break,
                }
            }
            if segment.owner != ConfigOwner::Base {
                variant.config_store(at, bytes);
            }
            done += len;
        }
        Ok(done)
    }

    /// `VFIO_DEVICE_RESET`.
    ///
    /// # Errors
    /// `EINVAL` if the device can't be reset.
    pub fn reset(&self) -> Result<(), Errno> {
        if let Some(variant) = &self.variant {
            variant.event(Event::ResetRequested);
        }
        self.core.reset()
    }
}

/// The info of a variant's region, with its areas in a vector.
pub(crate) fn listed<const N: usize>(info: vfio::RegionInfo<[SparseArea; N]>) -> RegionInfo {
    RegionInfo {
        flags: info.flags,
        size: info.size,
        areas: info.areas.into(),
        region_type: info.region_type,
        msix_mappable: info.msix_mappable,
        capabilities: info.capabilities,
    }
}

/// The extension of the clique that is asked for.
fn clique(core: &Core, options: &Options) -> Result<Option<Clique>, Error> {
    let Some(number) = options.gpudirect_clique else {
        return Ok(None);
    };
    let dword = |at| {
        let register = ConfigRegister::dword(at);
        core.device().config_read(register).map_err(Error::Dead)
    };
    let vendor = dword(header::VENDOR_ID)? as u16;
    let class = dword(header::REVISION_ID)? >> 8;
    let clique = Clique::new(number, vendor, class, &core.capabilities())?;
    Ok(Some(clique))
}

/// The variant of an entry, from the device's answers.
fn probe(device: &dyn Device, entry: &Entry, options: &Options) -> AnyVariant {
    let answers = Answers::collect(entry.questions, |question| {
        discover::answer(device, question)
    });
    let environment = Environment {
        honour_memory_enable: options.honour_memory_enable,
        layout: options.layout,
        strict: options.strict,
        ..Environment::new(host_page())
    };
    (entry.probe)(&answers, environment)
}

/// Condition for readiness, for a message.
pub(crate) fn until(variant: &Chosen) -> String {
    let when = variant.variant().variant().ready_when();
    when.map_or_else(String::new, |when| format!(": it is ready when {when}"))
}

/// Waits as long as the variant allows.
fn wait_until_ready(core: &Core, variant: &Chosen, clock: &dyn Clock) -> Result<(), Errno> {
    let mut wait = Wait::default();
    let mut told = false;
    loop {
        match attempt(core, variant, &mut wait, clock)? {
            Attempt::Ready(_) => return Ok(()),
            Attempt::Wait(time) => {
                if !std::mem::replace(&mut told, true) {
                    log::info!("waiting for the device{}", until(variant));
                }
                clock.sleep(time);
            }
        }
    }
}
