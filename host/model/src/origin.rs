//! Source positions of a batch's records, for messages about a record and not for recovery.
//!
//! Positions are stored by columns: runs of records from the same split and, where the positions within a run are not
//! consecutive, one offset per record.
//! A record thus keeps its position through operators and exchanges at a cost of 4 bytes.

use std::ops::Range;
use std::sync::Arc;

/// Adjacent records from the same split.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    /// First row of the run.
    start: u32,
    /// Split that the records were read from; `None` if unknown.
    split: Option<Arc<str>>,
    /// Position (line or row number) that the run's offsets are relative to.
    first: u64,
}

/// Source positions of all records of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Runs in order of their rows. The first one starts at row 0.
    runs: Vec<Run>,
    /// For each row its offset from its run's `first`; empty if the rows of each run are consecutive.
    offsets: Vec<u32>,
}

impl Origin {
    /// Returns the origin of consecutive records of a split: row `i` has position `first + i`.
    #[must_use]
    pub fn sequence(split: Arc<str>, first: u64) -> Self {
        let split = Some(split);
        Self {
            runs: vec![Run { start: 0, split, first }],
            offsets: vec![],
        }
    }

    fn unknown() -> Self {
        Self {
            runs: vec![Run {
                start: 0,
                split: None,
                first: 0,
            }],
            offsets: vec![],
        }
    }

    /// Returns the index of the run that contains `row`.
    fn run_of(&self, row: u32) -> usize {
        self.runs.partition_point(|run| run.start <= row).saturating_sub(1)
    }

    fn offset(&self, row: u32, run: &Run) -> u32 {
        match self.offsets.get(row as usize) {
            Some(offset) => *offset,
            None => row - run.start,
        }
    }

    /// Returns the split and the position of a row, or `None` if they are unknown.
    #[must_use]
    pub fn position(&self, row: u32) -> Option<(&Arc<str>, u64)> {
        let run = self.runs.get(self.run_of(row))?;
        let split = run.split.as_ref()?;
        Some((split, run.first + u64::from(self.offset(row, run))))
    }

    /// Formats the position of a row as `SPLIT:POSITION`, or returns `None` if it is unknown.
    #[must_use]
    pub fn text(&self, row: u32) -> Option<String> {
        self.position(row)
            .map(|(split, position)| format!("{split}:{position}"))
    }

    /// Formats the least and the greatest position of the first `rows` rows as `SPLIT:LEAST-GREATEST`, or as
    /// `SPLIT:POSITION` if they are equal.
    ///
    /// Returns `None` if a position is unknown or the rows come from more than one split.
    #[must_use]
    pub fn text_of_all(&self, rows: usize) -> Option<String> {
        let (split, mut least) = self.position(0)?;
        let mut greatest = least;
        for row in 1..rows as u32 {
            let (other, position) = self.position(row)?;
            if other != split {
                return None;
            }
            least = least.min(position);
            greatest = greatest.max(position);
        }
        Some(if least == greatest {
            format!("{split}:{least}")
        } else {
            format!("{split}:{least}-{greatest}")
        })
    }

    /// Returns the approximate size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.runs.len() * size_of::<Run>() + self.offsets.len() * size_of::<u32>()
    }

    /// Iterates over the runs of a batch of `rows` records, each with the range of its rows.
    fn segments(&self, rows: usize) -> impl Iterator<Item = (&Run, Range<usize>)> {
        let ends = self.runs.iter().skip(1).map(|run| run.start as usize).chain([rows]);
        self.runs
            .iter()
            .zip(ends)
            .map(|(run, end)| (run, run.start as usize..end))
    }

    /// Returns the origin of derived records: record `i` has the position of row `parents[i]`.
    #[must_use]
    pub fn select(&self, parents: &[u32]) -> Self {
        if let [run] = &self.runs[..] {
            let offsets = if self.offsets.is_empty() {
                parents.to_vec()
            } else {
                parents.iter().map(|row| self.offsets[*row as usize]).collect()
            };
            return Self {
                runs: vec![run.clone()],
                offsets,
            };
        }
        let mut selected = Self::default();
        selected.offsets.reserve(parents.len());
        let (mut at, mut rows) = (usize::MAX, 0..0);
        for (i, &row) in parents.iter().enumerate() {
            if !rows.contains(&row) {
                at = self.run_of(row);
                rows = self.runs[at].start..self.runs.get(at + 1).map_or(u32::MAX, |next| next.start);
                selected.runs.push(Run {
                    start: i as u32,
                    ..self.runs[at].clone()
                });
            }
            selected.offsets.push(self.offset(row, &self.runs[at]));
        }
        selected
    }

    /// Returns the origin of the rows in `range`.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let rows: Vec<u32> = (range.start as u32..range.end as u32).collect();
        self.select(&rows)
    }

    /// Fills in an offset for each of `rows` rows, unless offsets are stored already.
    fn spell_out(&mut self, rows: usize) {
        if self.offsets.is_empty() {
            let mut offsets = Vec::with_capacity(rows);
            for (_, range) in self.segments(rows) {
                offsets.extend(0..range.len() as u32);
            }
            self.offsets = offsets;
        }
    }

    /// Prepares for records of `split` that are appended behind `rows` existing ones: extends the last run or starts a
    /// new one.
    ///
    /// Returns the amount to add to the appended records' offsets from `first`.
    fn begin_run(&mut self, rows: usize, split: Option<&Arc<str>>, first: u64) -> u32 {
        let same = |run: &&Run| match (&run.split, split) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            _ => false,
        };
        // A source's batch has far fewer than 2³¹ records, so a distance below that bound leaves room for all of its
        // offsets.
        let delta = |run: &Run| {
            let delta = first.checked_sub(run.first).and_then(|delta| u32::try_from(delta).ok());
            delta.filter(|delta| *delta < 1 << 31)
        };
        if let Some(delta) = self.runs.last().filter(same).and_then(delta) {
            return delta;
        }
        let start = rows as u32;
        self.runs.pop_if(|run| run.start == start);
        let split = split.cloned();
        self.runs.push(Run { start, split, first });
        0
    }

    /// Returns the origin of `own` records followed by `others` records, or `None` if nothing is known of either.
    #[must_use]
    pub fn joined(a: Option<Self>, own: usize, b: Option<&Self>, others: usize) -> Option<Self> {
        if a.is_none() && b.is_none() {
            return None;
        }
        let mut joined = a.unwrap_or_else(Self::unknown);
        let unknown;
        let b = match b {
            Some(b) => b,
            None => {
                unknown = Self::unknown();
                &unknown
            }
        };
        let goes_on = |last: &Run, next: &Run| {
            last.split == next.split && last.first + (own as u64 - u64::from(last.start)) == next.first
        };
        let both_in_order = joined.offsets.is_empty() && b.offsets.is_empty();
        if let ([.., last], [next], true) = (&joined.runs[..], &b.runs[..], both_in_order) {
            if next.split.is_some() && !goes_on(last, next) {
                joined.runs.push(Run {
                    start: own as u32,
                    ..next.clone()
                });
            } else if next.split.is_none() && last.split.is_some() {
                joined.begin_run(own, None, 0);
            }
            return Some(joined);
        }
        joined.spell_out(own);
        joined.offsets.reserve(others);
        for (run, rows) in b.segments(others) {
            let delta = joined.begin_run(own + rows.start, run.split.as_ref(), run.first);
            if b.offsets.is_empty() {
                joined.offsets.extend((0..rows.len() as u32).map(|i| i + delta));
            } else {
                joined
                    .offsets
                    .extend(b.offsets[rows].iter().map(|offset| offset + delta));
            }
        }
        Some(joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Split and position of each row, in the plain representation.
    type Positions = Vec<Option<(String, u64)>>;

    fn positions(origin: Option<&Origin>, rows: usize) -> Positions {
        let of = |row| origin.and_then(|origin| origin.position(row as u32));
        (0..rows)
            .map(|row| of(row).map(|(split, at)| (split.to_string(), at)))
            .collect()
    }

    /// The origin of a batch with random runs, some of them unknown, beside the positions expected of it.
    fn arb_origin() -> impl Strategy<Value = (Option<Origin>, Positions)> {
        let run = (prop::option::of(0u8..3), 0u64..50, 1usize..6);
        prop::collection::vec(run, 0..5).prop_map(|runs| {
            let (mut origin, mut expected) = (None, Positions::new());
            for (split, first, rows) in runs {
                let split = split.map(|split| format!("split-{split}"));
                let next = split.as_deref().map(|split| Origin::sequence(split.into(), first));
                origin = Origin::joined(origin, expected.len(), next.as_ref(), rows);
                expected.extend((0..rows as u64).map(|i| split.clone().map(|split| (split, first + i))));
            }
            (origin, expected)
        })
    }

    proptest! {
        #[test]
        fn every_row_keeps_its_position(
            a in arb_origin(), b in arb_origin(),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            to in prop::collection::vec(0usize..3, 60),
        ) {
            let ((a, expected_a), (b, expected_b)) = (a, b);
            prop_assert_eq!(positions(a.as_ref(), expected_a.len()), expected_a.clone());
            let mut expected = expected_a.clone();
            expected.extend(expected_b.clone());
            let joined = Origin::joined(a.clone(), expected_a.len(), b.as_ref(), expected_b.len());
            prop_assert_eq!(positions(joined.as_ref(), expected.len()), expected.clone());
            if let Some(joined) = joined.as_ref().filter(|_| !expected.is_empty()) {
                let parents: Vec<u32> = picks.iter().map(|pick| pick.index(expected.len()) as u32).collect();
                let selected = joined.select(&parents);
                let of_parents: Positions = parents.iter().map(|row| expected[*row as usize].clone()).collect();
                prop_assert_eq!(positions(Some(&selected), parents.len()), of_parents);
            }

            // Deal the batch out twice, as an exchange does, so that the second round appends to targets with records in them.
            let (mut targets, mut dealt) = (vec![None, None, None], vec![Positions::new(); 3]);
            for _ in 0..2 {
                for (at, target) in targets.iter_mut().enumerate() {
                    let rows: Vec<u32> = (0..expected.len()).filter(|row| to[*row] == at).map(|row| row as u32).collect();
                    let own = dealt[at].len();
                    let selected = joined.as_ref().filter(|_| !rows.is_empty()).map(|joined| joined.select(&rows));
                    *target = Origin::joined(target.take(), own, selected.as_ref(), rows.len());
                    dealt[at].extend(rows.iter().map(|row| expected[*row as usize].clone()));
                }
            }
            for (target, expected) in targets.iter().zip(&dealt) {
                prop_assert_eq!(&positions(target.as_ref(), expected.len()), expected);
            }
        }
    }

    #[test]
    fn positions_as_text() {
        let mut origin = Origin::sequence("in/a.txt".into(), 7);
        assert_eq!(origin.text(2).as_deref(), Some("in/a.txt:9"));
        assert_eq!(origin.text_of_all(3).as_deref(), Some("in/a.txt:7-9"));
        assert_eq!(origin.text_of_all(1).as_deref(), Some("in/a.txt:7"));
        let next = Origin::sequence("in/b.txt".into(), 1);
        origin = Origin::joined(Some(origin), 3, Some(&next), 1).expect("known");
        assert_eq!(origin.text(3).as_deref(), Some("in/b.txt:1"));
        assert_eq!(origin.text_of_all(4), None);
    }
}
