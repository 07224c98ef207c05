//! Plans the calls to repeat after one failed, so that the rest of a batch goes on without the record at fault. Pure.
//!
//! A failed call has changed nothing. Its rows are run again in order, in parts that get smaller until each part passes or
//! is a single row that fails alone: that row is guilty. A call with one row is repeated too: what earlier calls have left
//! in the instance, such as memory, may be at fault, and the instance that repeats it is a new one. Its time is its own,
//! so a single row that is too slow is not repeated, and parts with several rows get little time in the search for one.
//! The effects of a part must be applied before the next one is run.
//! Each part gets the header of the whole, but for `first_row`, which is the part's first row: so clock and randomness are
//! what they were.

use std::ops::Range;

/// Failure of a call on some rows. Rows are counted within that call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing says which row it was.
    Unknown,
    /// Nothing says which row it was, and the call had no time left.
    Slow,
    /// It was ended in this row. What came before may have led to it, so the row is only suspected.
    At(u32),
    /// The guest ran, and says that it cannot process this row.
    Declared(u32),
}

/// The rows of one batch that are still to be run.
#[derive(Debug)]
pub struct Isolation {
    /// Parts in reverse order; none is empty.
    todo: Vec<Range<u32>>,
    /// True if some call had no time left.
    slow: bool,
}

impl Isolation {
    /// The plan after the call on all `rows` of a batch failed, and the row that is guilty already, if any.
    #[must_use]
    pub fn new(rows: u32, fault: Fault) -> (Self, Option<u32>) {
        let mut isolation = Self {
            todo: vec![],
            slow: false,
        };
        if rows == 1 && !matches!(fault, Fault::Declared(_) | Fault::Slow) {
            isolation.todo.push(0..1);
            return (isolation, None);
        }
        let guilty = isolation.failed(0..rows, fault);
        (isolation, guilty)
    }

    /// The next rows to run. Their effects, if they pass, come before those of all that follows.
    pub fn next_part(&mut self) -> Option<Range<u32>> {
        self.todo.pop()
    }

    /// Returns true if the call on a part is only to find the row that is too slow, and must not take long. A part with one
    /// row has all the time, since it may be found guilty.
    #[must_use]
    pub fn is_search(&self, part: &Range<u32>) -> bool {
        self.slow && part.len() > 1
    }

    /// The call on a part failed. Gives the row that is guilty, if that is known now.
    pub fn failed(&mut self, part: Range<u32>, fault: Fault) -> Option<u32> {
        self.slow |= fault == Fault::Slow;
        let (guilty, parts) = match fault {
            _ if part.len() <= 1 => return (!part.is_empty()).then_some(part.start),
            Fault::Declared(row) if part.len() as u32 > row => {
                let row = part.start + row;
                (Some(row), [part.start..row, row + 1..part.end, 0..0])
            }
            // Alone after those before it: where it passes, it was not its fault.
            Fault::At(row) if part.len() as u32 > row => {
                let row = part.start + row;
                (None, [part.start..row, row..row + 1, row + 1..part.end])
            }
            _ => {
                let middle = part.start + part.len() as u32 / 2;
                (None, [part.start..middle, middle..part.end, 0..0])
            }
        };
        self.todo
            .extend(parts.into_iter().rev().filter(|part| !part.is_empty()));
        guilty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A guest: what it does with rows, and what it has done.
    #[derive(Debug, Default)]
    struct Guest {
        /// Rows that fail, whatever runs with them.
        bad: BTreeSet<u32>,
        /// The most rows that it has memory or time for.
        rows_max: usize,
        /// The row that it names.
        named: Option<fn(u32) -> Fault>,
        /// Names a row that has nothing to do with it.
        lies: bool,
        /// Rows it has processed, in order: its effects.
        done: Vec<u32>,
        calls: usize,
    }

    impl Guest {
        fn call(&mut self, rows: Range<u32>) -> Result<(), Fault> {
            self.calls += 1;
            if rows.len() > self.rows_max {
                return Err(Fault::Unknown);
            }
            if let Some(bad) = rows.clone().find(|row| self.bad.contains(row)) {
                let row = if self.lies {
                    rows.len() as u32 / 2
                } else {
                    bad - rows.start
                };
                return Err(self.named.map_or(Fault::Unknown, |named| named(row)));
            }
            self.done.extend(rows);
            Ok(())
        }

        /// As a node does it. Returns the guilty rows.
        fn run(&mut self, rows: u32) -> Vec<u32> {
            let mut guilty = vec![];
            let Err(fault) = self.call(0..rows) else { return guilty };
            let (mut isolation, first) = Isolation::new(rows, fault);
            guilty.extend(first);
            while let Some(part) = isolation.next_part() {
                if let Err(fault) = self.call(part.clone()) {
                    guilty.extend(isolation.failed(part, fault));
                }
            }
            guilty.sort_unstable();
            guilty
        }
    }

    fn arb_named() -> impl Strategy<Value = Option<fn(u32) -> Fault>> {
        prop_oneof![
            Just(None),
            Just(Some(Fault::At as fn(u32) -> Fault)),
            Just(Some(Fault::Declared as fn(u32) -> Fault)),
        ]
    }

    proptest! {
        #[test]
        fn only_bad_rows_are_guilty_and_all_others_are_processed_in_order(
            rows in 1u32..300,
            bad in prop::collection::btree_set(0u32..300, 0..8),
            rows_max in 1usize..400,
            named in arb_named(),
        ) {
            let bad: BTreeSet<u32> = bad.into_iter().filter(|row| *row < rows).collect();
            let mut guest = Guest { bad: bad.clone(), rows_max, named, ..Guest::default() };
            let guilty = guest.run(rows);
            prop_assert_eq!(guilty, bad.iter().copied().collect::<Vec<_>>());
            let good: Vec<u32> = (0..rows).filter(|row| !bad.contains(row)).collect();
            prop_assert_eq!(&guest.done, &good);
            // A row is halved out in 2 × log2 calls, one that is named in at most 3; and parts that are too large.
            let halvings = 2 * (rows.ilog2() as usize + 1);
            prop_assert!(guest.calls <= 1 + bad.len() * halvings + 4 * (rows as usize / rows_max + 1), "{}", guest.calls);
        }

        #[test]
        fn a_lie_about_a_trap_makes_nobody_else_guilty(
            rows in 1u32..300,
            bad in prop::collection::btree_set(0u32..300, 1..8),
        ) {
            let bad: BTreeSet<u32> = bad.into_iter().filter(|row| *row < rows).collect();
            let named = Some(Fault::At as fn(u32) -> Fault);
            let mut guest = Guest { bad: bad.clone(), rows_max: 300, named, lies: true, ..Guest::default() };
            prop_assert_eq!(guest.run(rows), bad.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(guest.done.len(), rows as usize - bad.len());
            prop_assert!(guest.done.is_sorted());
        }
    }

    #[test]
    fn a_single_row_is_guilty_once_it_fails_a_second_time() {
        for fault in [Fault::Unknown, Fault::At(0)] {
            let (mut isolation, guilty) = Isolation::new(1, fault);
            assert_eq!(guilty, None);
            assert_eq!(isolation.next_part(), Some(0..1));
            assert_eq!(isolation.failed(0..1, fault), Some(0));
            assert_eq!(isolation.next_part(), None);
        }
        assert_eq!(Isolation::new(1, Fault::Declared(0)).1, Some(0));
    }

    #[test]
    fn a_named_row_costs_three_calls_more() {
        let named = Some(Fault::At as fn(u32) -> Fault);
        let mut guest = Guest {
            bad: [700].into(),
            rows_max: 1024,
            named,
            ..Guest::default()
        };
        assert_eq!(guest.run(1024), [700]);
        assert_eq!(guest.calls, 4);
        guest.named = Some(Fault::Declared);
        guest.calls = 0;
        assert_eq!(guest.run(1024), [700]);
        assert_eq!(guest.calls, 3);
        guest.named = None;
        guest.calls = 0;
        assert_eq!(guest.run(1024), [700]);
        assert_eq!(guest.calls, 21);
    }

    /// Runs rows of which some never end. Returns the guilty rows, and the time of all failed calls in sixteenths of the limit.
    fn endless(rows: u32, bad: &[u32]) -> (Vec<u32>, u32) {
        let (mut plan, guilty) = Isolation::new(rows, Fault::Slow);
        let mut guilty: Vec<u32> = guilty.into_iter().collect();
        let mut time = 16;
        while let Some(part) = plan.next_part() {
            let search = plan.is_search(&part);
            if bad.iter().any(|row| part.contains(row)) {
                time += if search { 1 } else { 16 };
                guilty.extend(plan.failed(part, Fault::Slow));
            }
        }
        (guilty, time)
    }

    #[test]
    fn an_endless_row_is_found_in_little_more_than_twice_the_limit() {
        assert_eq!(endless(1, &[0]), (vec![0], 16), "alone, it is not run again");
        assert_eq!(endless(3, &[2]), (vec![2], 16 + 1 + 16));
        assert_eq!(endless(4096, &[1234]), (vec![1234], 16 + 11 + 16));
        assert_eq!(endless(4096, &[7, 4000]).0, [7, 4000]);
    }
}
