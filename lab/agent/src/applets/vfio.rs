//! Opens a device that a kernel's VFIO driver serves, with a type1 container of its own.

use std::fs;

use varia_sys::vfio::{Container, Device, Group, TYPE1V2_IOMMU};

/// A device, and what keeps it open.
pub(super) struct OpenDevice {
    pub(super) device: Device,
    pub(super) group: Group,
    pub(super) container: Container,
}

impl OpenDevice {
    /// Opens the function at `bdf`, for example `0000:01:00.0`.
    pub(super) fn open(bdf: &str) -> Result<Self, String> {
        let link = format!("/sys/bus/pci/devices/{bdf}/iommu_group");
        let group = fs::read_link(&link).map_err(|e| format!("{link}: {e}: is there an IOMMU?"))?;
        let number = group
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let number = number.ok_or_else(|| format!("{link}: not a group: {}", group.display()))?;
        let failed = |what: &str| {
            let what = format!("{bdf}, group {number}: {what}");
            move |errno| format!("{what}: {errno}")
        };
        let container = Container::open().map_err(failed("open a container"))?;
        let group = Group::open(number).map_err(failed("open the group"))?;
        group
            .set_container(&container)
            .map_err(failed("set the container"))?;
        container
            .set_iommu(TYPE1V2_IOMMU)
            .map_err(failed("set type1"))?;
        let device = group.device(bdf).map_err(failed("open the device"))?;
        Ok(Self {
            device,
            group,
            container,
        })
    }
}
