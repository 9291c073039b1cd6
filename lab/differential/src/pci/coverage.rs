//! Kinds of access that each capability had.

use std::fmt;

use super::operation::Op;
use super::places::Place;

/// A kind of access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A read of whole aligned words inside.
    Read,
    /// A write of ones inside.
    Ones,
    /// A write of zeros inside.
    Zeros,
    /// An access inside that covers a part of a word, or is not aligned.
    Partial,
    /// An access that begins or ends outside.
    Crossing,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Ones,
        Self::Zeros,
        Self::Partial,
        Self::Crossing,
    ];
}

/// Number of accesses of each kind to each place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage {
    rows: Vec<(Place, [usize; 5])>,
}

impl Coverage {
    /// Counts what `ops` do to `places`.
    #[must_use]
    pub fn of<'a>(places: &[Place], ops: impl IntoIterator<Item = &'a Op>) -> Self {
        let mut rows: Vec<_> = places.iter().map(|place| (place.clone(), [0; 5])).collect();
        for op in ops {
            let (at, len, data) = match op {
                Op::Read { at, len } => (*at, u16::from(*len), None),
                Op::Write { at, data } => (*at, data.len() as u16, Some(data)),
                _ => continue,
            };
            let last = at.saturating_add(len - 1);
            for (place, counts) in &mut rows {
                let (begins, ends) = (place.has(at), place.has(last));
                let all = |byte: u8| data.is_some_and(|data| data.iter().all(|b| *b == byte));
                let whole = at % 4 == 0 && len % 4 == 0;
                let inside = begins && ends;
                let hits = [
                    inside && whole && data.is_none(),
                    inside && all(0xff),
                    inside && all(0),
                    inside && !whole,
                    begins != ends,
                ];
                for (count, hit) in counts.iter_mut().zip(hits) {
                    *count += usize::from(hit);
                }
            }
        }
        Self { rows }
    }

    /// The cells without any access.
    #[must_use]
    pub fn empty(&self) -> Vec<(&str, Kind)> {
        let cells = self.rows.iter().flat_map(|(place, counts)| {
            let cells = counts.iter().zip(Kind::ALL);
            cells.map(move |(count, kind)| (place, *count, kind))
        });
        cells
            .filter(|(_, count, _)| *count == 0)
            .map(|(place, _, kind)| (place.name.as_str(), kind))
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(place, _)| place.name.len()).max();
        let width = width.unwrap_or_default();
        write!(f, "{:width$}", "")?;
        for kind in Kind::ALL {
            write!(f, " {:>8}", format!("{kind:?}").to_lowercase())?;
        }
        for (place, counts) in &self.rows {
            write!(f, "\n{:width$}", place.name)?;
            for count in counts {
                write!(f, " {count:>8}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_fills_its_cell_and_an_empty_one_is_named() {
        let place = Place {
            name: "x".into(),
            id: 0,
            start: 8,
            end: 16,
        };
        let mut ops = vec![
            Op::Read { at: 8, len: 4 },
            Op::Write {
                at: 8,
                data: vec![0xff; 4],
            },
            Op::Write {
                at: 12,
                data: vec![0; 4],
            },
            Op::Read { at: 9, len: 2 },
        ];
        let places = [place];
        assert_eq!(Coverage::of(&places, &ops).empty(), [("x", Kind::Crossing)]);
        ops.push(Op::Read { at: 6, len: 4 });
        assert!(Coverage::of(&places, &ops).empty().is_empty());
        assert_eq!(
            Coverage::of(&places, &ops[1..]).empty(),
            [("x", Kind::Read)]
        );
    }
}
