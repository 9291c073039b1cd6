//! Capabilities and features of a device as a whole.

use varia_spec::vfio::DeviceCapability;

/// Feature of a device (`VFIO_DEVICE_FEATURE`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Index of the feature.
    pub index: u32,
    /// Source of the data that a user gets.
    pub source: FeatureSource,
}

/// Source of the data of a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeatureSource {
    /// The oldest error record of the function that the platform has kept, which is removed: so many
    /// bytes. `ENOMSG` without a record.
    ErrorRecord {
        /// Bytes of a record.
        len: u32,
    },
}

/// Description of a device beyond its regions, for a variant or an extension that adds to it. By
/// default nothing is added.
pub trait Describe {
    /// Passes each capability in the device's info to `add`, in their order.
    fn capabilities(&self, add: &mut dyn FnMut(DeviceCapability)) {
        let _ = add;
    }

    /// Passes each feature of the device to `add`.
    fn features(&self, add: &mut dyn FnMut(Feature)) {
        let _ = add;
    }
}
