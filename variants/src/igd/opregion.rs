//! The OpRegion as a region: header and mailboxes of the host, and an extended VBT behind them,
//! wherever the host has it.

use varia_spec::{
    intel::{self, opregion},
    vfio::RegionType,
};
use varia_variant::{
    Answers, Bytes, Composed, ComposedSegment, Decline, HostPhys, Question, Refusal, Source,
};

use super::{Not, region_type};

/// Address of the OpRegion.
pub(super) const ASLS: Question = Question::ConfigDword(intel::ASLS);
/// The signature, in two words.
pub(super) const SIGNATURE: [Question; 2] = [word(0), word(8)];
/// Size in the low half; the version is in the two highest bytes.
pub(super) const SIZE_AND_VERSION: Question = word(opregion::SIZE);
/// Place of the extended VBT.
pub(super) const RVDA: Question = word(opregion::RVDA);
/// Size of the extended VBT in the low half.
pub(super) const RVDS: Question = word(opregion::RVDS);

const fn word(offset: u16) -> Question {
    Question::PointedWord {
        pointer: intel::ASLS,
        offset,
    }
}

/// The region.
#[derive(Debug)]
pub(super) struct OpRegion {
    base: HostPhys,
    /// Bytes of header and mailboxes that the region shows.
    len: u64,
    version: u16,
    vbt: Option<Vbt>,
}

/// An extended VBT.
#[derive(Debug)]
struct Vbt {
    base: HostPhys,
    len: u64,
}

impl OpRegion {
    /// The region, and the value of the register with its address.
    pub(super) fn of(answers: &Answers) -> Result<(Self, u32), Not> {
        let unknown = |errno| Not::Refused(Refusal::AslsUnreadable { errno });
        let asls = answers.to(ASLS).map_err(unknown)? as u32;
        if asls == 0 || asls == u32::MAX {
            return Err(Not::Declined(Decline::NoOpRegion { asls }));
        }
        let base = HostPhys(u64::from(asls));
        let word = |question| {
            let unreadable = |errno| Refusal::OpRegionUnreadable { at: base, errno };
            answers
                .to(question)
                .map_err(unreadable)
                .map_err(Not::Refused)
        };
        let [first, second] = SIGNATURE;
        if [word(first)?, word(second)?] != opregion::SIGNATURE {
            return Err(Not::Refused(Refusal::NoSignature { at: base }));
        }
        let header = word(SIZE_AND_VERSION)?;
        let (len, version) = (u64::from(header as u32) << 10, (header >> 48) as u16);
        if len == 0 || len > opregion::LEN {
            return Err(Not::Refused(Refusal::OpRegionSize {
                size: Bytes(len),
                most: Bytes(opregion::LEN),
            }));
        }
        let mut region = Self {
            base,
            len,
            version,
            vbt: None,
        };
        if version >= opregion::VERSION_2_0 {
            let (place, size) = (word(RVDA)?, u64::from(word(RVDS)? as u32));
            region.vbt = region.extended(place, size)?;
        }
        if region.vbt.is_some() {
            region.len = opregion::LEN;
        }
        Ok((region, asls))
    }

    /// The extended VBT, if the header names one.
    fn extended(&self, place: u64, size: u64) -> Result<Option<Vbt>, Not> {
        if place == 0 || size == 0 {
            return Ok(None);
        }
        let base = match self.version {
            opregion::VERSION_2_0 => Some(place),
            _ => self.base.0.checked_add(place),
        };
        let base = base.filter(|base| base.checked_add(size).is_some());
        let beyond = Refusal::VbtBeyondAddresses {
            place,
            size: Bytes(size),
        };
        let base = HostPhys(base.ok_or(Not::Refused(beyond))?);
        Ok(Some(Vbt { base, len: size }))
    }

    /// Version that a guest reads: RVDA is an offset there.
    const fn shown_version(&self) -> u16 {
        match (self.version, &self.vbt) {
            (opregion::VERSION_2_0, Some(_)) => opregion::VERSION_2_1,
            (version, _) => version,
        }
    }

    /// Fields with another value than the host's: offset, length and value.
    const fn fields(&self) -> [(u64, u64, u64); 2] {
        let place = if self.vbt.is_some() { opregion::LEN } else { 0 };
        [
            (opregion::VERSION as u64, 2, self.shown_version() as u64),
            (opregion::RVDA as u64, 8, place),
        ]
    }
}

impl Composed for OpRegion {
    fn name(&self) -> &'static str {
        "OpRegion"
    }

    fn size(&self) -> u64 {
        let vbt = self.vbt.as_ref().map_or(0, |vbt| vbt.len);
        self.len.saturating_add(vbt)
    }

    fn region_type(&self) -> RegionType {
        region_type(intel::region::OPREGION)
    }

    fn segment(&self, offset: u64, len: u64) -> ComposedSegment {
        // where the host's bytes end: at a field, or at the end of the mailboxes
        let mut end = self.len;
        for (at, width, value) in self.fields() {
            if offset >= at + width {
                continue;
            }
            if offset >= at {
                let skipped = offset - at;
                return ComposedSegment {
                    len: len.min(width - skipped),
                    source: Source::Variant((value >> (8 * skipped)).to_le_bytes()),
                };
            }
            end = end.min(at);
        }
        match (&self.vbt, offset.checked_sub(self.len)) {
            (Some(vbt), Some(inside)) => ComposedSegment {
                len,
                source: Source::Platform(HostPhys(vbt.base.0.saturating_add(inside))),
            },
            _ => ComposedSegment {
                len: len.min(end.saturating_sub(offset)).max(1),
                source: Source::Platform(HostPhys(self.base.0.saturating_add(offset))),
            },
        }
    }
}
