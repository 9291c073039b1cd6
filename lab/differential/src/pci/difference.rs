//! The differences between the kernel's core and ours that are meant, each by name.

use varia_spec::Errno;
use varia_spec::pci::cap::id;
use varia_spec::pci::{CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE};
use varia_spec::vfio::{IrqIndex, RegionIndex, region_flags};

use super::operation::{Answer, Op};
use super::places::Place;

/// Operation with its two answers.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Operation.
    pub op: &'a Op,
    /// Answer of the kernel.
    pub kernel: &'a Answer,
    /// Answer of the user-space core.
    pub ours: &'a Answer,
}

/// A difference that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Predicate {
    /// The name under which docs/pci-core.md explains it.
    pub name: &'static str,
    /// Returns true if a case is exactly this difference.
    pub explains: fn(&Case<'_>) -> bool,
    /// The first kernel series (major, minor) that differs.
    pub since: (u16, u16),
    /// Returns true if a device with these capabilities shows the difference.
    pub shows: fn(&[Place]) -> bool,
}

/// Every device has the interrupt for errors, those without PCI Express as well, which get no report
/// of an error.
const ERROR_INTERRUPT: Predicate = Predicate {
    name: "error-interrupt",
    explains: error_interrupt,
    since: (7, 3),
    shows: is_conventional,
};

/// The configuration space of a function without PCI Express has 256 bytes, and 4096 here.
const CONFIG_SIZE: Predicate = Predicate {
    name: "config-size",
    explains: config_size,
    since: (7, 2),
    shows: is_conventional,
};

/// Differences that are meant.
pub const ALLOWED: &[Predicate] = &[ERROR_INTERRUPT, CONFIG_SIZE];

fn is_conventional(places: &[Place]) -> bool {
    places.iter().all(|place| place.id != id::EXP)
}

/// Differences of [`ALLOWED`] that show on a kernel of this series and a device with these capabilities.
#[must_use]
pub fn allowed(series: (u16, u16), places: &[Place]) -> Vec<Predicate> {
    let shows = |predicate: &&Predicate| series >= predicate.since && (predicate.shows)(places);
    ALLOWED.iter().filter(shows).copied().collect()
}

fn config_size(case: &Case<'_>) -> bool {
    const READ_WRITE: u32 = region_flags::READ | region_flags::WRITE;
    let of_size = |size: u16| Answer::fields([size.into(), READ_WRITE.into()]);
    *case.op == Op::RegionInfo(RegionIndex::CONFIG.0)
        && *case.kernel == of_size(CFG_SPACE_SIZE)
        && *case.ours == of_size(CFG_SPACE_EXP_SIZE)
}

fn error_interrupt(case: &Case<'_>) -> bool {
    let refused = Err(Errno::EINVAL.get());
    match case.op {
        Op::IrqInfo(index) | Op::SetIrqs { index, .. } if *index == IrqIndex::ERR.0 => {
            case.ours.result == refused && case.kernel.result != refused
        }
        // the answer counts the signals of every vector that has an eventfd
        Op::SetIrqs { .. } => {
            let of_error =
                |triple: &&[u8]| triple.starts_with(&u64::from(IrqIndex::ERR.0).to_le_bytes());
            let triples = case.kernel.data.chunks(24);
            let others: Vec<_> = triples.filter(|triple| !of_error(triple)).collect();
            case.kernel.result == case.ours.result
                && others.len() < case.kernel.data.len() / 24
                && others.concat() == case.ours.data
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERR: u32 = IrqIndex::ERR.0;

    fn set(index: u32) -> Op {
        Op::SetIrqs {
            index,
            action: 2,
            start: 0,
            count: 1,
            data: super::super::Data::Events,
        }
    }

    #[test]
    fn an_error_interrupt_is_allowed_where_the_kernel_gives_one_to_a_conventional_function() {
        let place = |id| Place {
            name: "x".into(),
            id,
            start: 0x40,
            end: 0x44,
        };
        let names = |series, id| {
            let allowed = allowed(series, &[place(0), place(id)]);
            allowed.iter().map(|p| p.name).collect::<Vec<_>>()
        };
        assert_eq!(names((7, 3), id::AF), ["error-interrupt", "config-size"]);
        assert_eq!(names((8, 0), id::AF), ["error-interrupt", "config-size"]);
        assert_eq!(names((7, 2), id::AF), ["config-size"]);
        assert!(names((7, 3), id::EXP).is_empty());
    }

    #[test]
    fn nothing_but_the_smaller_configuration_space_is_explained() {
        let of_size = |size| Answer::fields([size, 3]);
        let explains = |op: u32, kernel, ours| {
            let (kernel, ours) = (&of_size(kernel), &of_size(ours));
            config_size(&Case {
                op: &Op::RegionInfo(op),
                kernel,
                ours,
            })
        };
        assert!(explains(7, 256, 4096));
        assert!(!explains(7, 4096, 256));
        assert!(!explains(7, 256, 512));
        assert!(!explains(6, 256, 4096));
    }

    #[test]
    fn nothing_but_the_error_interrupt_is_explained() {
        let (refused, done) = (Answer::failed(22), Answer::fields([9, 1]));
        let explains =
            |op: &Op, kernel: &Answer, ours: &Answer| error_interrupt(&Case { op, kernel, ours });
        assert!(explains(&Op::IrqInfo(ERR), &done, &refused));
        assert!(!explains(&Op::IrqInfo(ERR), &refused, &done));
        assert!(!explains(&Op::IrqInfo(ERR), &done, &Answer::failed(25)));
        assert!(!explains(&Op::IrqInfo(0), &done, &refused));
        assert!(explains(&set(ERR), &Answer::failed(25), &refused));
        let (one, other) = ([0, 0, 1], [u64::from(ERR), 0, 2]);
        let (both, alone) = (Answer::fields([one, other].concat()), Answer::fields(one));
        assert!(explains(&set(0), &both, &alone));
        assert!(!explains(&set(0), &alone, &both));
        assert!(!explains(&set(0), &alone, &Answer::fields([0, 0, 2])));
        assert!(!explains(&set(0), &both, &Answer::fields([0, 0, 2])));
        assert!(!explains(&Op::Reset, &done, &refused));
    }
}
