//! The zPCI extension: what a guest on s390 has to know of a PCI function, as capabilities in the
//! device's info, and error records of the function as a device feature.
//!
//! The extension depends on the platform and not on the device: it lies over any variant, and over a
//! device without one. Source: the behaviour of Linux 7.2 `drivers/vfio/pci/vfio_pci_zdev.c`, and of
//! Linux 7.3 for error records. The differences are in docs/variants.md.

use varia_spec::{
    vfio::{DeviceCapability, device_cap, device_feature},
    zpci::{Facts, MAX_INTERRUPTS, MAX_STORE, PFIP_LEN, REFRESH, UTIL_LEN, version},
};
use varia_variant::{Extension, Feature, FeatureSource, Refusal, WrongFact};

/// The longest error record in bytes: a page. Assumed, since an architecture's limit is not known.
const MAX_RECORD: u64 = 4096;

/// The extension's state: facts of the platform, each in its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Zdev {
    start_dma: u64,
    end_dma: u64,
    pchid: u16,
    vfn: u16,
    fmb_length: u16,
    pft: u8,
    gid: u8,
    fh: u32,
    error_length: Option<u32>,
    dasm: u64,
    msi_addr: u64,
    mui: u16,
    noi: u16,
    maxstbl: u16,
    imaxstbl: u16,
    version: u8,
    util_string: Option<[u8; UTIL_LEN]>,
    pfip: [u8; PFIP_LEN],
}

/// A number in its range, as its field holds it.
fn field<T: TryFrom<u64>>(
    fact: &'static str,
    value: u64,
    least: u64,
    most: u64,
) -> Result<T, Refusal> {
    let range = Refusal::Platform(WrongFact::Range {
        fact,
        value,
        least,
        most,
    });
    if value < least || value > most {
        return Err(range);
    }
    T::try_from(value).map_err(|_| range)
}

impl Zdev {
    /// The extension for a function with these facts.
    ///
    /// # Errors
    /// A fact outside its range, with the value.
    pub fn new(facts: &Facts) -> Result<Self, Refusal> {
        let (byte, half, word) = (u8::MAX.into(), u16::MAX.into(), u32::MAX.into());
        let error_length = match facts.error_length {
            Some(len) => Some(field("ccdf_err_length", len, 1, MAX_RECORD)?),
            None => None,
        };
        let end_dma = field("end_dma", facts.end_dma, facts.start_dma, u64::MAX)?;
        Ok(Self {
            start_dma: facts.start_dma,
            end_dma,
            pchid: field("pchid", facts.pchid, 0, half)?,
            vfn: field("vfn", facts.vfn, 0, half)?,
            fmb_length: u16::from(field::<u8>("fmb_length", facts.fmb_length, 0, byte)?),
            pft: field("pft", facts.pft, 0, byte)?,
            gid: field("gid", facts.gid, 0, byte)?,
            fh: field("fh", facts.fh, 0, word)?,
            error_length,
            dasm: facts.dasm,
            msi_addr: facts.msi_addr,
            mui: field("mui", facts.mui, 0, half)?,
            noi: field("noi", facts.noi, 0, MAX_INTERRUPTS)?,
            maxstbl: field("maxstbl", facts.maxstbl, 1, MAX_STORE)?,
            imaxstbl: field("imaxstbl", facts.imaxstbl, 1, MAX_STORE)?,
            version: field("version", facts.version, 0, byte)?,
            util_string: facts.util_string,
            pfip: facts.pfip,
        })
    }

    fn base(&self) -> DeviceCapability {
        let version = match self.error_length {
            Some(_) => version::BASE_WITH_ERRORS,
            None => version::BASE,
        };
        let base = DeviceCapability::new(device_cap::ZPCI_BASE, version)
            .with(&self.start_dma.to_ne_bytes())
            .with(&self.end_dma.to_ne_bytes())
            .with(&self.pchid.to_ne_bytes())
            .with(&self.vfn.to_ne_bytes())
            .with(&self.fmb_length.to_ne_bytes())
            .with(&[self.pft, self.gid])
            .with(&self.fh.to_ne_bytes());
        match self.error_length {
            Some(len) => base.with(&len.to_ne_bytes()),
            None => base,
        }
    }

    fn group(&self) -> DeviceCapability {
        DeviceCapability::new(device_cap::ZPCI_GROUP, version::GROUP)
            .with(&self.dasm.to_ne_bytes())
            .with(&self.msi_addr.to_ne_bytes())
            .with(&REFRESH.to_ne_bytes())
            .with(&self.mui.to_ne_bytes())
            .with(&self.noi.to_ne_bytes())
            .with(&self.maxstbl.to_ne_bytes())
            .with(&[self.version, 0])
            .with(&self.imaxstbl.to_ne_bytes())
    }
}

/// A capability of a text: its length, and its bytes.
fn text(id: u16, version: u16, bytes: &[u8]) -> DeviceCapability {
    let len = bytes.len() as u32;
    DeviceCapability::new(id, version)
        .with(&len.to_ne_bytes())
        .with(bytes)
}

impl Extension for Zdev {
    fn capabilities(&self, add: &mut dyn FnMut(DeviceCapability)) {
        add(self.base());
        add(self.group());
        if let Some(string) = &self.util_string {
            add(text(device_cap::ZPCI_UTIL, version::UTIL, string));
        }
        add(text(device_cap::ZPCI_PFIP, version::PFIP, &self.pfip));
    }

    fn features(&self, add: &mut dyn FnMut(Feature)) {
        if let Some(len) = self.error_length {
            add(Feature {
                index: device_feature::ZPCI_ERROR,
                source: FeatureSource::ErrorRecord { len },
            });
        }
    }
}

#[cfg(test)]
mod tests;
