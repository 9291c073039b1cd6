//! Compares the answers of two cores.

use std::collections::BTreeMap;
use std::fmt;

use super::difference::{Case, Predicate};
use super::operation::{Answer, Op};

/// Result of a comparison.
#[derive(Clone, Debug)]
pub struct Report {
    compared: usize,
    fired: BTreeMap<&'static str, usize>,
    unexplained: Vec<(usize, Op, Answer, Answer)>,
    truncated: bool,
}

impl Report {
    /// No difference without a name, no name without a difference, nothing left out.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let all_fired = self.fired.values().all(|count| *count > 0);
        self.unexplained.is_empty() && all_fired && !self.truncated && self.compared > 0
    }
}

/// Compares what the kernel's core and ours answered to `ops`.
#[must_use]
pub fn compare(ops: &[Op], kernel: &[Answer], ours: &[Answer], predicates: &[Predicate]) -> Report {
    let mut report = Report {
        compared: 0,
        fired: predicates.iter().map(|p| (p.name, 0)).collect(),
        unexplained: Vec::new(),
        truncated: kernel.len() != ops.len() || ours.len() != ops.len(),
    };
    for (index, ((op, kernel), ours)) in ops.iter().zip(kernel).zip(ours).enumerate() {
        report.compared += 1;
        if kernel == ours {
            continue;
        }
        let case = Case { op, kernel, ours };
        match predicates.iter().find(|p| (p.explains)(&case)) {
            Some(predicate) => *report.fired.entry(predicate.name).or_default() += 1,
            None => {
                let difference = (index, op.clone(), kernel.clone(), ours.clone());
                report.unexplained.push(difference);
            }
        }
    }
    report
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} operations compared", self.compared)?;
        if self.truncated {
            write!(f, ", a run ended early: the numbers of answers differ")?;
        }
        for (name, count) in &self.fired {
            write!(f, ", {name}: {count}")?;
        }
        write!(f, ", {} unexplained", self.unexplained.len())?;
        for (index, op, kernel, ours) in self.unexplained.iter().take(20) {
            write!(f, "\n  #{index}: {op:x?}")?;
            write!(f, "\n    kernel {:?} {:02x?}", kernel.result, kernel.data)?;
            write!(f, "\n    ours   {:?} {:02x?}", ours.result, ours.data)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Op = Op::Read { at: 0, len: 1 };

    fn answer(byte: u8) -> Answer {
        Answer {
            result: Ok(1),
            data: vec![byte],
        }
    }

    #[test]
    fn a_difference_needs_a_name_and_a_name_a_difference() {
        let (one, two) = ([answer(1)], [answer(2)]);
        assert!(compare(&[READ], &one, &one, &[]).is_clean());
        assert!(!compare(&[READ], &one, &two, &[]).is_clean());
        assert!(!compare(&[READ], &one, &[], &[]).is_clean());
        let named = [Predicate {
            name: "named",
            explains: |case| case.ours.data == [2],
            since: (7, 2),
            shows: |_| true,
        }];
        assert!(compare(&[READ], &one, &two, &named).is_clean());
        assert!(!compare(&[READ], &one, &one, &named).is_clean());
    }
}
