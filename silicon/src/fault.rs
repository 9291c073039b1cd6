//! Faults that a device has on purpose.

use std::time::Duration;

/// Faults of a device; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The chip-to-chip link is down: its register never says ready, a CXL DVSEC never says
    /// active, firmware gives the memory a size of 0, and the memory does not answer.
    pub c2c_down: bool,
    /// Firmware gives the memory a size of 0, but the link and the memory work.
    pub size_zero: bool,
    /// Firmware gives no properties, as inside a VM.
    pub no_properties: bool,
    /// Once there have been so many resets, the memory never becomes ready again. A runtime resets
    /// too, when it opens and closes a device.
    pub lost_after_resets: Option<u64>,
    /// The page with this offset in the coherent memory is poisoned: reads and writes of any of
    /// its bytes fail, and no range with it can be mapped.
    pub poisoned_page: Option<u64>,
    /// Time after power-on at which the function leaves the bus: registers read as all ones,
    /// writes go nowhere, the memory does not answer, a reset fails. A mapping that was made
    /// before stays, which a real one would not.
    pub gone_after: Option<Duration>,
}

impl Faults {
    /// Nothing is broken.
    pub const NONE: Self = Self {
        c2c_down: false,
        size_zero: false,
        no_properties: false,
        lost_after_resets: None,
        poisoned_page: None,
        gone_after: None,
    };

    /// True if any of them is a fault of coherent memory, which not every device has.
    pub fn are_of_memory(self) -> bool {
        let elsewhere = Self {
            gone_after: self.gone_after,
            ..Self::NONE
        };
        self != elsewhere
    }
}
