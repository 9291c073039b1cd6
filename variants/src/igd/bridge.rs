//! Configuration space of a bridge of the platform as a region.

use varia_spec::{intel, vfio::RegionType};
use varia_variant::{
    Answers, Composed, ComposedSegment, Decline, Question, Refusal, RootFunction, Source,
};

use super::{Not, region_type};

/// A bridge that belongs beside the graphics device.
#[derive(Debug)]
pub(super) struct Kind {
    name: &'static str,
    function: RootFunction,
    class: u32,
    subtype: u32,
}

/// The host bridge.
pub(super) const HOST: Kind = Kind {
    name: "host bridge 0000:00:00.0",
    function: RootFunction {
        device: 0,
        function: 0,
    },
    class: intel::class::HOST_BRIDGE,
    subtype: intel::region::HOST_BRIDGE,
};

/// The bridge to the LPC bus.
pub(super) const LPC: Kind = Kind {
    name: "LPC bridge 0000:00:1f.0",
    function: RootFunction {
        device: 0x1f,
        function: 0,
    },
    class: intel::class::LPC_BRIDGE,
    subtype: intel::region::LPC_BRIDGE,
};

impl Kind {
    /// Vendor and device id.
    pub(super) const fn id(&self) -> Question {
        self.dword(0)
    }

    /// Class, subclass and interface above the revision.
    pub(super) const fn class(&self) -> Question {
        self.dword(8)
    }

    /// Size of configuration space.
    pub(super) const fn size(&self) -> Question {
        Question::RootConfigSize(self.function)
    }

    const fn dword(&self, offset: u16) -> Question {
        Question::RootDword {
            function: self.function,
            offset,
        }
    }
}

/// The region.
#[derive(Debug)]
pub(super) struct Bridge {
    kind: &'static Kind,
    size: u64,
}

impl Bridge {
    pub(super) fn of(kind: &'static Kind, answers: &Answers) -> Result<Self, Not> {
        let absent = |errno| {
            Not::Declined(Decline::NoBridge {
                name: kind.name,
                errno,
            })
        };
        let vendor = answers.to(kind.id()).map_err(absent)? as u16;
        let class = answers.to(kind.class()).map_err(absent)? as u32 >> 8;
        let size = answers.to(kind.size()).map_err(absent)?;
        if vendor != intel::VENDOR_ID || class != kind.class {
            return Err(Not::Refused(Refusal::ForeignBridge {
                name: kind.name,
                vendor,
                class,
            }));
        }
        Ok(Self { kind, size })
    }
}

/// Width of the first access of a read: a byte at an odd offset, a word up to a multiple of four if
/// more than a word is wanted, then dwords, a word, a byte.
const fn width(offset: u64, len: u64) -> u64 {
    if !offset.is_multiple_of(2) || len == 1 {
        1
    } else if len < 4 || !offset.is_multiple_of(4) {
        2
    } else {
        4
    }
}

impl Composed for Bridge {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn region_type(&self) -> RegionType {
        region_type(self.kind.subtype)
    }

    fn segment(&self, offset: u64, len: u64) -> ComposedSegment {
        ComposedSegment {
            len: width(offset, len),
            source: Source::Config {
                function: self.kind.function,
                offset: u16::try_from(offset).unwrap_or(u16::MAX),
            },
        }
    }
}
