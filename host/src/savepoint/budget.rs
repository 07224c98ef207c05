//! The memory that reading a snapshot may take.
//!
//! A file may unpack to any multiple of its size, and honest state may do so as well, such as values of zeros.
//! So its size says nothing, and what is unpacked is counted while it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::environment::memory;

/// Share of the usable memory that a snapshot may take, in percent.
const SHARE_PERCENT: u64 = 60;
/// Usable memory where the system does not tell it, in bytes.
const USABLE_DEFAULT: u64 = 4 << 30;
/// Bytes that a row takes in memory beside its key, entry key and value, approximately.
const ROW_BYTES: u64 = 64;

/// Bytes of memory that reading may take. Clones share them.
#[derive(Debug, Clone)]
pub struct Budget {
    most: u64,
    taken: Arc<AtomicU64>,
}

/// More memory was needed than a budget has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it unpacks to more than the {most} bytes that it may take")]
pub struct OverBudget {
    /// Bytes that the budget had at first.
    pub most: u64,
}

impl Budget {
    /// Returns a budget of `most` bytes.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// Returns the budget for a snapshot that may come from anyone: 60 % of the memory that this process may use.
    #[must_use]
    pub fn of_machine() -> Self {
        let usable = memory::usable_bytes().unwrap_or(USABLE_DEFAULT);
        Self::new(usable / 100 * SHARE_PERCENT)
    }

    /// Returns the budget for checkpoints of the job itself, which it has written out of memory.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Returns a budget of at most `most` bytes; an unlimited one stays unlimited.
    #[must_use]
    pub fn at_most(&self, most: u64) -> Self {
        Self::new(if self.most == u64::MAX {
            u64::MAX
        } else {
            self.most.min(most)
        })
    }

    /// Returns the bytes that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.most.saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    /// Takes bytes for good.
    ///
    /// # Errors
    /// Returns [`OverBudget`] if there are not so many left; then none are taken.
    pub fn take(&self, bytes: u64) -> Result<(), OverBudget> {
        let take = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.most);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(|_| ()).map_err(|_| OverBudget { most: self.most })
    }

    /// Takes the bytes of a row whose parts have these bytes.
    ///
    /// # Errors
    /// As [`Budget::take`].
    pub fn take_row(&self, bytes: usize) -> Result<(), OverBudget> {
        self.take((bytes as u64).saturating_add(ROW_BYTES))
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

/// Bytes that are taken for a while.
#[derive(Debug)]
pub struct Loan {
    of: Budget,
    bytes: u64,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.of.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let budget = Budget::new(1000);
        budget.take(600).expect("enough");
        let loan = budget.clone().lend(400).expect("enough");
        assert_eq!(budget.take(1), Err(OverBudget { most: 1000 }));
        assert_eq!(budget.take(u64::MAX), Err(OverBudget { most: 1000 }));
        drop(loan);
        assert_eq!(budget.left(), 400);
        budget.take_row(336).expect("enough");
        assert_eq!(budget.left(), 0);
        assert_eq!(
            (budget.at_most(10).left(), Budget::unlimited().at_most(10).left()),
            (10, u64::MAX)
        );
        assert!(Budget::of_machine().left() > 1 << 20);
    }
}
