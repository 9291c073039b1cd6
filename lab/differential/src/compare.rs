//! Compares two runs of the same operations.

use std::{collections::BTreeMap, fmt};

use crate::{
    op::{Answer, Op, Shape},
    predicate::{Case, Predicate},
};

/// A difference that no predicate explains.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The operation's place in the run.
    pub index: usize,
    /// The operation.
    pub op: Op,
    /// Answer of the oracle.
    pub reference: Answer,
    /// Answer of our driver.
    pub ours: Answer,
}

/// Result of a comparison.
#[derive(Clone, Debug)]
pub struct Report {
    /// Number of operations that were compared.
    pub compared: usize,
    /// Number of differences that each predicate explained.
    pub fired: BTreeMap<&'static str, usize>,
    /// Predicates that explained more than their share of all operations.
    pub too_broad: Vec<&'static str>,
    /// Differences that nothing explains.
    pub unexplained: Vec<Difference>,
    /// True if the runs had different lengths.
    pub truncated: bool,
}

impl Report {
    /// Nothing compared yet.
    pub fn new(predicates: &[Predicate]) -> Self {
        Self {
            compared: 0,
            fired: predicates
                .iter()
                .map(|predicate| (predicate.name, 0))
                .collect(),
            too_broad: Vec::new(),
            unexplained: Vec::new(),
            truncated: false,
        }
    }

    /// Returns true if every difference is explained.
    pub fn is_explained(&self) -> bool {
        !self.truncated && self.unexplained.is_empty()
    }

    /// Returns true if every difference is explained, every predicate has fired, and none too often.
    pub fn is_clean(&self) -> bool {
        self.is_explained()
            && self.too_broad.is_empty()
            && self.fired.values().all(|count| *count > 0)
    }

    /// The numbers in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let (compared, unexplained) = (self.compared, self.unexplained.len());
        let mut line = format!("{compared} operations, {unexplained} unexplained");
        for (name, count) in &self.fired {
            line += &format!(", {name} {count}");
        }
        line
    }

    /// Compares the answers to `ops`, in order, and adds what it finds.
    pub fn add(
        &mut self,
        shape: &Shape,
        ops: &[Op],
        reference: &[Answer],
        ours: &[Answer],
        predicates: &[Predicate],
    ) {
        self.truncated |= reference.len() != ops.len() || ours.len() != ops.len();
        for (index, ((op, reference), ours)) in ops.iter().zip(reference).zip(ours).enumerate() {
            self.compared += 1;
            if reference == ours {
                continue;
            }
            let case = Case {
                shape,
                op: op.deed(),
                reference,
                ours,
            };
            match predicates
                .iter()
                .find(|predicate| (predicate.explains)(&case))
            {
                Some(predicate) => *self.fired.entry(predicate.name).or_default() += 1,
                None => self.unexplained.push(Difference {
                    index,
                    op: op.clone(),
                    reference: reference.clone(),
                    ours: ours.clone(),
                }),
            }
        }
        let is_broad = |predicate: &&Predicate| {
            let fired = self.fired.get(predicate.name).copied().unwrap_or(0);
            // A few in a short run say nothing.
            fired > FEW && fired.saturating_mul(1000) > self.compared * predicate.per_mille
        };
        self.too_broad = predicates
            .iter()
            .filter(is_broad)
            .map(|predicate| predicate.name)
            .collect();
    }
}

/// Number of times that a predicate may fire however few operations there are.
const FEW: usize = 20;

/// Compares the answers to `ops`, in order.
pub fn compare(
    shape: &Shape,
    ops: &[Op],
    reference: &[Answer],
    ours: &[Answer],
    predicates: &[Predicate],
) -> Report {
    let mut report = Report::new(predicates);
    report.add(shape, ops, reference, ours, predicates);
    report
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} operations compared", self.compared)?;
        if self.truncated {
            writeln!(f, "a run ended early: the numbers of answers differ")?;
        }
        for (name, count) in &self.fired {
            writeln!(f, "  {name}: {count} differences")?;
        }
        for name in &self.too_broad {
            writeln!(f, "  {name} explains more than its share")?;
        }
        writeln!(f, "{} unexplained", self.unexplained.len())?;
        for difference in self.unexplained.iter().take(10) {
            writeln!(f, "  #{}: {:?}", difference.index, Brief(&difference.op))?;
            writeln!(f, "    reference {:?}", BriefAnswer(&difference.reference))?;
            writeln!(f, "    ours      {:?}", BriefAnswer(&difference.ours))?;
            let (a, b) = (&difference.reference.data, &difference.ours.data);
            for (at, (a, b)) in a
                .iter()
                .zip(b)
                .enumerate()
                .filter(|(_, (a, b))| a != b)
                .take(8)
            {
                writeln!(f, "    byte {at:#x}: reference {a:02x}, ours {b:02x}")?;
            }
        }
        Ok(())
    }
}

/// An operation without most of its data.
struct Brief<'a>(&'a Op);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut op = self.0.clone();
        let more = match &mut op {
            Op::Write { data, .. } | Op::BadWrite { data, .. } if data.len() > SHOWN => {
                let more = data.len() - SHOWN;
                data.truncate(SHOWN);
                more
            }
            _ => 0,
        };
        write!(f, "{op:x?}")?;
        match more {
            0 => Ok(()),
            more => write!(f, " and {more} bytes more"),
        }
    }
}

/// Bytes of an operation's data that are shown.
const SHOWN: usize = 32;

struct BriefAnswer<'a>(&'a Answer);

impl fmt::Debug for BriefAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer {
            result,
            data,
            advance,
        } = self.0;
        let head = data.get(..data.len().min(SHOWN)).unwrap_or_default();
        write!(
            f,
            "{result:?}, position +{advance}, {} bytes {head:02x?}",
            data.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{MemoryShape, Pointer, Protection};
    use crate::predicate::{AGAINST_ORIGINAL, SHARED_ONLY};

    const SHAPE: Shape = Shape {
        usemem: Some(MemoryShape {
            length: 0x1000,
            size: 0x2000,
        }),
        resmem: Some(MemoryShape {
            length: 0x1000,
            size: 0x2000,
        }),
        bars: [0x1000, 0, 0x1_0000, 0, 0x1_0000, 0],
        page: 4096,
    };

    fn answer(value: u64, data: &[u8], advance: u64) -> Answer {
        Answer {
            result: Ok(value),
            data: data.into(),
            advance,
        }
    }

    fn judge(op: Op, reference: Answer, ours: Answer) -> Report {
        compare(&SHAPE, &[op], &[reference], &[ours], AGAINST_ORIGINAL)
    }

    fn name(report: &Report) -> Option<&'static str> {
        report
            .fired
            .iter()
            .find(|(_, count)| **count > 0)
            .map(|(name, _)| *name)
    }

    #[test]
    fn resmem_count_explains_a_short_original_read_and_nothing_else() {
        let read = |region| Op::Read {
            region,
            offset: 0xffe,
            len: 4,
        };
        let short = answer(2, &[1, 2], 0);
        let whole = answer(4, &[1, 2, 0xff, 0xff], 4);
        assert_eq!(
            name(&judge(read(2), short.clone(), whole.clone())),
            Some("resmem-count")
        );
        assert_eq!(judge(read(4), short.clone(), whole).unexplained.len(), 1);
        let zero_padding = answer(4, &[1, 2, 0, 0], 4);
        assert_eq!(
            judge(read(2), short.clone(), zero_padding)
                .unexplained
                .len(),
            1
        );
        let other_data = answer(4, &[1, 3, 0xff, 0xff], 4);
        assert_eq!(judge(read(2), short, other_data).unexplained.len(), 1);
    }

    #[test]
    fn resmem_count_explains_padding_without_room_and_no_other_fault() {
        let read = |room| Op::BadRead {
            region: 2,
            offset: 0xffe,
            len: 4,
            pointer: Pointer::Cut(room),
        };
        let (short, fault) = (answer(2, &[1, 2], 0), Answer::failed(14));
        let without_room = judge(read(3), short.clone(), fault.clone());
        assert_eq!(name(&without_room), Some("resmem-count"));
        assert_eq!(judge(read(4), short, fault).unexplained.len(), 1);
    }

    #[test]
    fn whole_config_access_explains_a_kept_overlap_and_nothing_else() {
        let write = |offset, len| Op::Write {
            region: 7,
            offset,
            data: vec![0; len],
        };
        let (kept, whole) = (answer(2, &[], 2), answer(4, &[], 4));
        let crossing = judge(write(0x16, 4), kept.clone(), whole.clone());
        assert_eq!(name(&crossing), Some("whole-config-access"));
        assert_eq!(
            judge(write(0x18, 4), kept.clone(), whole.clone())
                .unexplained
                .len(),
            1
        );
        assert_eq!(
            judge(write(0x30, 4), kept.clone(), whole).unexplained.len(),
            1
        );
        let less = judge(write(0x16, 4), kept, answer(3, &[], 3));
        assert_eq!(less.unexplained.len(), 1);
    }

    #[test]
    fn whole_config_access_foretells_where_a_bad_address_ends_a_write() {
        let write = |room| Op::BadWrite {
            region: 7,
            offset: 0x17,
            data: vec![0; 16],
            pointer: Pointer::Cut(room),
        };
        let fault = Answer::failed(14);
        for (room, reference, ours) in [
            (16, answer(8, &[], 8), answer(16, &[], 16)),
            (15, answer(8, &[], 8), answer(9, &[], 9)),
            (8, fault.clone(), answer(1, &[], 1)),
        ] {
            let report = judge(write(room), reference.clone(), ours.clone());
            assert_eq!(name(&report), Some("whole-config-access"), "{room}");
            let report = judge(write(room), ours, reference);
            assert_eq!(report.unexplained.len(), 1, "{room}, the other way round");
        }
    }

    #[test]
    fn a_predicate_that_never_fires_is_not_clean() {
        let report = judge(Op::Reset, Answer::done(0), Answer::done(0));
        assert!(report.unexplained.is_empty());
        assert!(!report.is_clean());
    }

    #[test]
    fn what_a_child_does_is_judged_as_what_its_parent_does() {
        let read = Op::Read {
            region: 2,
            offset: 0xffe,
            len: 4,
        };
        let short = answer(2, &[1, 2], 0);
        let whole = answer(4, &[1, 2, 0xff, 0xff], 4);
        let report = judge(Op::Child(Box::new(read)), short, whole);
        assert_eq!(name(&report), Some("resmem-count"));
    }

    #[test]
    fn a_predicate_that_explains_too_much_is_not_clean() {
        let op = Op::MapPrivate {
            region: 4,
            offset: 0,
            protection: Protection {
                read: true,
                write: false,
                execute: false,
            },
        };
        let ops = vec![op; 1000];
        let (reference, ours) = (vec![Answer::done(0); 1000], vec![Answer::failed(22); 1000]);
        let report = compare(&SHAPE, &ops, &reference, &ours, &[SHARED_ONLY]);
        assert!(report.is_explained());
        assert_eq!(report.too_broad, ["shared-only"]);
        assert!(!report.is_clean());
    }

    #[test]
    fn a_run_that_ends_early_is_not_clean() {
        let report = compare(&SHAPE, &[Op::Reset], &[], &[], &[]);
        assert!(!report.is_clean());
    }
}
