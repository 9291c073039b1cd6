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
    /// What the oracle answered.
    pub reference: Answer,
    /// What ours answered.
    pub ours: Answer,
}

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many operations were compared.
    pub compared: usize,
    /// How often each predicate explained a difference.
    pub fired: BTreeMap<&'static str, usize>,
    /// Differences that nothing explains.
    pub unexplained: Vec<Difference>,
    /// Whether the runs had different lengths.
    pub truncated: bool,
}

impl Report {
    /// Whether every difference is explained and every predicate has fired.
    pub fn is_clean(&self) -> bool {
        !self.truncated
            && self.unexplained.is_empty()
            && self.fired.values().all(|count| *count > 0)
    }
}

/// Compares the answers to `ops`, in order.
pub fn compare(
    shape: &Shape,
    ops: &[Op],
    reference: &[Answer],
    ours: &[Answer],
    predicates: &[Predicate],
) -> Report {
    let mut report = Report {
        compared: 0,
        fired: predicates
            .iter()
            .map(|predicate| (predicate.name, 0))
            .collect(),
        unexplained: Vec::new(),
        truncated: reference.len() != ops.len() || ours.len() != ops.len(),
    };
    for (index, ((op, reference), ours)) in ops.iter().zip(reference).zip(ours).enumerate() {
        report.compared += 1;
        if reference == ours {
            continue;
        }
        let case = Case {
            shape,
            op,
            reference,
            ours,
        };
        match predicates
            .iter()
            .find(|predicate| (predicate.explains)(&case))
        {
            Some(predicate) => *report.fired.entry(predicate.name).or_default() += 1,
            None => report.unexplained.push(Difference {
                index,
                op: op.clone(),
                reference: reference.clone(),
                ours: ours.clone(),
            }),
        }
    }
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
        match self.0 {
            Op::Write {
                region,
                offset,
                data,
            } => {
                write!(
                    f,
                    "Write {{ region: {region}, offset: {offset:#x}, {} bytes }}",
                    data.len()
                )
            }
            Op::Read {
                region,
                offset,
                len,
            } => {
                write!(
                    f,
                    "Read {{ region: {region}, offset: {offset:#x}, len: {len} }}"
                )
            }
            op => write!(f, "{op:?}"),
        }
    }
}

struct BriefAnswer<'a>(&'a Answer);

impl fmt::Debug for BriefAnswer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer {
            result,
            data,
            advance,
        } = self.0;
        let head = data.get(..data.len().min(32)).unwrap_or_default();
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
    use crate::{op::MemoryShape, predicate::AGAINST_ORIGINAL};

    const SHAPE: Shape = Shape {
        usemem: MemoryShape {
            length: 0x1000,
            size: 0x2000,
        },
        resmem: Some(MemoryShape {
            length: 0x1000,
            size: 0x2000,
        }),
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
        assert_eq!(judge(write(0x30, 4), kept, whole).unexplained.len(), 1);
    }

    #[test]
    fn a_predicate_that_never_fires_is_not_clean() {
        let report = judge(Op::Reset, Answer::done(0), Answer::done(0));
        assert!(report.unexplained.is_empty());
        assert!(!report.is_clean());
    }

    #[test]
    fn a_run_that_ends_early_is_not_clean() {
        let report = compare(&SHAPE, &[Op::Reset], &[], &[], &[]);
        assert!(!report.is_clean());
    }
}
