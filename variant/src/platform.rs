//! Facts of a platform that a variant needs: what is missing, and what is wrong.

use varia_spec::Errno;
use varia_units::{Bytes, HostPhys};

use crate::text::{
    Sentence,
    TextSegment::{Decimal, Hexadecimal, Size, Text},
};

/// Fact of the platform that is missing: a device can be served without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingFact {
    /// Name of the fact.
    pub fact: &'static str,
    /// Error of the lookup.
    pub errno: Errno,
    /// The device as it is served then, for a message.
    pub without: &'static str,
    /// Remedy.
    pub remedy: &'static str,
}

impl MissingFact {
    pub(crate) fn sentence_with(self, then: &'static str) -> Sentence {
        Sentence::new([
            Text("the platform names no "),
            Text(self.fact),
            Text(" ("),
            Text(self.errno.name()),
            Text("): "),
            Text(then),
            Text(self.remedy),
        ])
    }
}

/// Fact of the platform with which a device can't be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongFact {
    /// The fact is missing, or has another size (the errno `returns`).
    Unreadable {
        /// Name of the fact.
        fact: &'static str,
        /// Error of the lookup.
        errno: Errno,
        /// Error of the probe.
        returns: Errno,
    },
    /// A number outside its range (`EINVAL`).
    Range {
        /// Name of the fact.
        fact: &'static str,
        /// The number.
        value: u64,
        /// The least that it can be.
        least: u64,
        /// The most that it can be.
        most: u64,
    },
    /// A size that is 0 or no multiple of the page size (`EINVAL`).
    NotPages {
        /// Name of the fact.
        fact: &'static str,
        /// The size.
        size: Bytes,
        /// Page size.
        page: Bytes,
    },
    /// An address that is no multiple of the page size (`EINVAL`).
    Misaligned {
        /// Name of the fact.
        fact: &'static str,
        /// The address.
        base: HostPhys,
        /// Page size.
        page: Bytes,
    },
    /// Memory that ends beyond 64 bits (`EOVERFLOW`).
    BeyondAddresses {
        /// Name of the fact.
        fact: &'static str,
        /// First address.
        base: HostPhys,
        /// Size of the memory.
        size: Bytes,
    },
    /// Memory of more bytes than a VFIO file position can address (`EOVERFLOW`).
    TooLarge {
        /// Name of the fact.
        fact: &'static str,
        /// Size of the memory.
        size: Bytes,
    },
}

const CORRECT: &str = "; correct the platform's firmware, or the file with its facts";

impl WrongFact {
    /// Errno that the probe returns.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unreadable { returns, .. } => returns,
            Self::Range { .. } | Self::NotPages { .. } | Self::Misaligned { .. } => Errno::EINVAL,
            Self::BeyondAddresses { .. } | Self::TooLarge { .. } => Errno::EOVERFLOW,
        }
    }

    pub(crate) fn sentence(self) -> Sentence {
        match self {
            Self::Unreadable { fact, errno, .. } => Sentence::new([
                Text("the platform's "),
                Text(fact),
                Text(" can't be read ("),
                Text(errno.name()),
                Text(")"),
                Text(CORRECT),
            ]),
            Self::Range {
                fact,
                value,
                least,
                most,
            } => Sentence::new([
                Text(fact),
                Text(", a fact of the platform, is "),
                Decimal(value),
                Text(", outside "),
                Decimal(least),
                Text(" to "),
                Decimal(most),
                Text(CORRECT),
            ]),
            Self::NotPages { fact, size, page } => Sentence::new([
                Text(fact),
                Text(", a fact of the platform, is "),
                Size(size),
                Text(", no multiple of the page size "),
                Size(page),
                Text(CORRECT),
            ]),
            Self::Misaligned { fact, base, page } => Sentence::new([
                Text("memory base "),
                Hexadecimal(base.0),
                Text(" is not a multiple of the page size "),
                Size(page),
                Text(", as the platform's "),
                Text(fact),
                Text(" gives it"),
                Text(CORRECT),
            ]),
            Self::BeyondAddresses { fact, base, size } => Sentence::new([
                Text("memory of "),
                Size(size),
                Text(" at "),
                Hexadecimal(base.0),
                Text(" ends beyond 64 bits, as the platform's "),
                Text(fact),
                Text(" gives it"),
                Text(CORRECT),
            ]),
            Self::TooLarge { fact, size } => Sentence::new([
                Text("memory of "),
                Size(size),
                Text(" needs a BAR above 1 TiB, which VFIO can't address, as the platform's "),
                Text(fact),
                Text(" gives it"),
                Text(CORRECT),
            ]),
        }
    }
}
