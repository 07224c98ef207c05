//! The memory that reading a snapshot may take.
//!
//! A file may unpack to any multiple of its size, and honest state may do so as well, such as values of zeros.
//! So its size says nothing, and what is unpacked is counted while it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::environment::memory::{self, StateBudget};
use crate::state::weight::{RowKind, row_bytes};

/// Share of the usable memory that a snapshot may take, in percent.
const SHARE_PERCENT: u64 = 60;
/// Usable memory where the system does not tell it, in bytes.
const USABLE_DEFAULT: u64 = 4 << 30;

/// Bytes of memory that reading may take. Clones share them. All are given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: u64,
    taken: AtomicU64,
    from: Source,
}

/// The owner of a budget's bytes.
#[derive(Debug)]
enum Source {
    /// No other budget.
    Own,
    /// The budget that it is a part of.
    Part(Budget),
    /// The state of all jobs of a host.
    Host(Arc<StateBudget>),
}

impl Source {
    fn take(&self, bytes: u64) -> Result<(), OverBudget> {
        match self {
            Self::Own => Ok(()),
            Self::Part(of) => of.take(bytes),
            Self::Host(host) if host.reserve(bytes) => Ok(()),
            Self::Host(host) => Err(OverBudget::Host {
                most: host.state_max(),
                used: host.used(),
            }),
        }
    }

    fn give_back(&self, bytes: u64) {
        match self {
            Self::Own => {}
            Self::Part(of) => of.give_back(bytes),
            Self::Host(host) => host.release(bytes),
        }
    }
}

/// More memory was needed than a budget has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// It has too little by itself.
    #[error(
        "it unpacks to more than the {most} bytes that it may take. Use a machine or a control group with more memory."
    )]
    Own {
        /// Bytes that the budget had at first.
        most: u64,
    },
    /// The host has too little, with the state of its jobs.
    #[error(
        "it takes more than is left of the {most} bytes that the state of all jobs of this host may take, of which running jobs use {used}. End a job of this host, or use one with more memory."
    )]
    Host {
        /// Bytes that all state may take.
        most: u64,
        /// Bytes that the state of jobs takes.
        used: u64,
    },
}

impl Budget {
    /// Returns a budget of `most` bytes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self::from(most, Source::Own)
    }

    fn from(most: u64, from: Source) -> Self {
        let taken = AtomicU64::new(0);
        Self(Arc::new(Shared { most, taken, from }))
    }

    /// Returns the budget for a snapshot that is read beside no job: 60 % of the memory that this process may use.
    #[must_use]
    pub fn of_machine() -> Self {
        let usable = memory::usable_bytes().unwrap_or(USABLE_DEFAULT);
        Self::new(usable / 100 * SHARE_PERCENT)
    }

    /// Returns the budget for state that a job of a host restores, which all restores share with the state of its jobs.
    #[must_use]
    pub fn of_host(host: Arc<StateBudget>) -> Self {
        Self::from(u64::MAX, Source::Host(host))
    }

    /// Returns the budget for checkpoints of the job itself, which it has written out of memory.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Returns a part of this budget with at most `most` bytes, which are taken from this one as well, until the part is
    /// dropped; that of an unlimited one is unlimited.
    #[must_use]
    pub fn at_most(&self, most: u64) -> Self {
        if self.is_unlimited() {
            return Self::unlimited();
        }
        Self::from(most, Source::Part(self.clone()))
    }

    fn is_unlimited(&self) -> bool {
        matches!(self.0.from, Source::Own) && self.0.most == u64::MAX
    }

    /// Takes bytes for good.
    ///
    /// # Errors
    /// Returns [`OverBudget`] if there are not so many left; then none are taken.
    pub fn take(&self, bytes: u64) -> Result<(), OverBudget> {
        let Shared { most, taken, from } = &*self.0;
        let take = |taken: u64| taken.checked_add(bytes).filter(|taken| taken <= most);
        if taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(OverBudget::Own { most: *most });
        }
        from.take(bytes).inspect_err(|_| {
            taken.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    fn give_back(&self, bytes: u64) {
        self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        self.0.from.give_back(bytes);
    }

    /// Takes the bytes of a row whose parts have these bytes.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn take_row(&self, kind: RowKind, bytes: usize) -> Result<(), OverBudget> {
        self.take(row_bytes(kind, bytes))
    }

    /// Takes bytes until the loan is dropped.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn lend(&self, bytes: u64) -> Result<Loan, OverBudget> {
        self.take(bytes)?;
        Ok(Loan {
            of: self.clone(),
            bytes,
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.from.give_back(*self.taken.get_mut());
    }
}

/// Bytes that are taken for a while.
#[derive(Debug)]
pub struct Loan {
    of: Budget,
    bytes: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.of.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(budget: &Budget) -> u64 {
        (0..64)
            .rev()
            .map(|bit| 1 << bit)
            .filter(|bytes| budget.take(*bytes).is_ok())
            .sum()
    }

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::new(1000);
        budget.take(600).expect("enough");
        let loan = budget.clone().lend(400).expect("enough");
        let over = Err(OverBudget::Own { most: 1000 });
        assert_eq!((budget.take(1), budget.take(u64::MAX)), (over, over));
        drop(loan);
        budget.take_row(RowKind::Value, 40).expect("a slot");
        assert_eq!(left(&budget), 400 - 64);
        assert!(Budget::of_machine().take(1 << 20).is_ok());
    }

    #[test]
    fn a_part_takes_from_the_whole_until_it_is_dropped() {
        let whole = Budget::new(100);
        let part = whole.at_most(60);
        part.take(50).expect("enough");
        assert_eq!(part.take(11), Err(OverBudget::Own { most: 60 }));
        assert_eq!(whole.take(51), Err(OverBudget::Own { most: 100 }));
        whole.take(45).expect("enough");
        assert_eq!(part.take(6), Err(OverBudget::Own { most: 100 }));
        drop(part);
        assert_eq!(left(&whole), 55);
        assert!(Budget::unlimited().at_most(1).take(2).is_ok());
    }

    #[test]
    fn restores_of_a_host_share_its_memory() {
        let host = Arc::new(StateBudget::new(2000));
        host.add(100);
        let [one, other] = [(); 2].map(|()| Budget::of_host(host.clone()));
        one.take(600).expect("enough");
        assert_eq!(other.take(301), Err(OverBudget::Host { most: 1000, used: 100 }));
        let rows = other.at_most(1 << 20);
        rows.take(300).expect("enough");
        drop(one.clone());
        assert!(rows.take(1).is_err());
        drop(one);
        assert_eq!(left(&rows), 600);
        drop((rows, other));
        assert!(host.reserve(900));
    }
}
