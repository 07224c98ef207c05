//! Bounds of the keyed state of an operator, and of all state of a host.
//!
//! Each subtask keeps an account of its own, and passes on what has come and gone from time to time: a batch costs it two reads
//! of shared counters, and a record nothing.
//!
//! Where the state of the host is nearly full, an operator that has more than an equal share of it grows no more, and the others
//! have what is left: a greedy job does not fail its neighbours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regraft_guest_runtime::trap::{StateOwner, TrapCause};

use crate::environment::memory::StateBudget;

/// Bytes that a subtask may gain before it passes them on.
const UNTOLD_MAX: u64 = 64 << 10;
/// Bytes that a subtask may write before its state is counted anew: writes count as growth until then.
const UNCOUNTED_MAX: u64 = 1 << 20;

/// The state of one operator, over all its subtasks.
#[derive(Debug, Default)]
pub struct OperatorStateBytes {
    /// `limits.state`; `None` where there is only the limit of the host.
    limit: Option<u64>,
    used: AtomicU64,
    host: Arc<StateBudget>,
}

impl OperatorStateBytes {
    /// Returns the empty state of an operator.
    #[must_use]
    pub const fn new(limit: Option<u64>, host: Arc<StateBudget>) -> Self {
        let used = AtomicU64::new(0);
        Self { limit, used, host }
    }

    /// Returns its bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// The account of one subtask.
#[derive(Debug)]
pub struct Account {
    of: Arc<OperatorStateBytes>,
    /// Bytes at the last count.
    counted: u64,
    /// Bytes written since.
    written: u64,
    /// Bytes that the shared counters know of.
    told: u64,
}

impl Account {
    /// Opens the account of a subtask with so many bytes of state.
    #[must_use]
    pub fn new(of: Arc<OperatorStateBytes>, bytes: u64) -> Self {
        let mut account = Self {
            of,
            counted: 0,
            written: 0,
            told: 0,
        };
        account.count(bytes);
        account
    }

    /// Enters the writes of a call, before they are applied. `written`: an upper bound of their bytes; `count`: returns the
    /// bytes of the state as it is; `growth`: returns an upper bound of what they add, with what they take away.
    ///
    /// # Errors
    /// [`TrapCause::StateFull`] where they add something and there is no room for it; nothing is entered then.
    pub fn enter(
        &mut self,
        written: u64,
        count: impl Fn() -> u64,
        growth: impl FnOnce() -> u64,
    ) -> Result<(), TrapCause> {
        if written == 0 {
            return Ok(());
        }
        if self.written.saturating_add(written) > UNCOUNTED_MAX {
            self.count(count());
        }
        let mut more = written;
        if self.full(more).is_some() {
            self.count(count());
            more = growth().min(written);
            if let (Some(full), true) = (self.full(more), more > 0) {
                return Err(full);
            }
        }
        self.written = self.written.saturating_add(more);
        if self.bytes().saturating_sub(self.told) > UNTOLD_MAX {
            self.tell();
        }
        Ok(())
    }

    /// Returns the error of a call that would add so many bytes, if there is no room for them.
    fn full(&self, more: u64) -> Option<TrapCause> {
        let untold = |used: u64| used.saturating_sub(self.told).saturating_add(self.bytes());
        let full = |whose, held: u64, limit: u64| {
            (held.saturating_add(more) > limit).then_some(TrapCause::StateFull {
                whose,
                held,
                more,
                limit,
            })
        };
        let (host, own) = (&self.of.host, untold(self.of.used()));
        let of_operator = |limit| full(StateOwner::Operator, own, limit);
        let of_host = || {
            let (held, share) = (untold(host.used()), host.share());
            if own.saturating_add(more) > share {
                full(StateOwner::HostShare { own, share }, held, host.contested_max())
            } else {
                full(StateOwner::Host, held, host.state_max())
            }
        };
        self.of.limit.and_then(of_operator).or_else(of_host)
    }

    fn bytes(&self) -> u64 {
        self.counted.saturating_add(self.written)
    }

    /// Takes over a count of the state's bytes.
    pub fn count(&mut self, bytes: u64) {
        (self.counted, self.written) = (bytes, 0);
        self.tell();
    }

    /// Adds the change since the last report to the shared counters.
    fn tell(&mut self) {
        let bytes = self.bytes();
        let (more, less) = (bytes.saturating_sub(self.told), self.told.saturating_sub(bytes));
        if more > 0 {
            if self.of.used.fetch_add(more, Ordering::Relaxed) == 0 {
                self.of.host.add_holder();
            }
            self.of.host.add(more);
        }
        if less > 0 {
            if self.of.used.fetch_sub(less, Ordering::Relaxed) == less {
                self.of.host.remove_holder();
            }
            self.of.host.sub(less);
        }
        self.told = bytes;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.count(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(account: &mut Account, written: u64, held: u64, growth: u64) -> Option<String> {
        let entered = account.enter(written, || held, || growth);
        entered.err().map(|error| error.to_string())
    }

    #[test]
    fn an_operator_grows_to_its_limit_over_all_subtasks() {
        let of = Arc::new(OperatorStateBytes::new(Some(1 << 20), Arc::default()));
        let mut one = Account::new(of.clone(), 0);
        let mut other = Account::new(of.clone(), 600 << 10);
        assert_eq!(refused(&mut one, 300 << 10, 0, 300 << 10), None);
        assert_eq!(of.used(), 900 << 10);
        assert_eq!(
            refused(&mut one, 200 << 10, 300 << 10, 200 << 10).expect("full"),
            "the operator's keyed state would grow from 900 KiB to 1.1 MiB, by 204800 bytes, and the limit is 1 MiB; remove what is not needed, let it expire (`ttl`), or raise `limits.state`"
        );
        // What replaces as much as it writes goes on, and so does what only removes.
        assert_eq!(refused(&mut one, 200 << 10, 300 << 10, 0), None);
        assert_eq!(refused(&mut one, 0, 300 << 10, 0), None);
        assert_eq!(refused(&mut other, 200 << 10, 100 << 10, 200 << 10), None);
        drop((one, other));
        assert_eq!(of.used(), 0);
    }

    #[test]
    fn jobs_share_the_budget_of_the_host() {
        let host = Arc::new(StateBudget::new(4 << 20));
        let of = || Arc::new(OperatorStateBytes::new(None, host.clone()));
        let first = Account::new(of(), 1 << 20);
        let mut second = Account::new(of(), 512 << 10);
        let full = refused(&mut second, 1 << 20, 512 << 10, 1 << 20).expect("full");
        assert!(
            full.starts_with("the keyed state of all jobs of this host, with room for its snapshots, would grow from 1.5 MiB to 2.5 MiB, by 1048576 bytes, and the limit is 1.9 MiB for an operator that has more than its share (it has 512 KiB, and the share is 1 MiB); "),
            "{full}"
        );
        drop(first);
        assert_eq!(refused(&mut second, 1 << 20, 512 << 10, 1 << 20), None);
    }

    /// Grows an account until it is refused.
    fn fill(account: &mut Account, held: &mut u64, step: u64) -> String {
        loop {
            if let Some(full) = refused(account, step, *held, step) {
                return full;
            }
            *held += step;
        }
    }

    #[test]
    fn a_greedy_operator_leaves_room_for_those_below_their_share() {
        let host = Arc::new(StateBudget::new(40 << 20));
        let of = || Arc::new(OperatorStateBytes::new(None, host.clone()));
        let mut small = Account::new(of(), 64 << 10);
        let (mut greedy, mut held) = (Account::new(of(), 0), 0);
        let full = fill(&mut greedy, &mut held, 1 << 20);
        assert!(
            full.contains("more than its share (it has 17 MiB, and the share is 10 MiB)"),
            "{full}"
        );
        // The small one still grows, by the tenth that is kept; the greedy one does not, by a byte.
        assert_eq!(refused(&mut small, 1 << 20, 64 << 10, 1 << 20), None);
        assert!(refused(&mut greedy, 1 << 20, held, 1 << 20).is_some());
        // One that comes later, too.
        let (mut late, mut of_late) = (Account::new(of(), 0), 0);
        let full = fill(&mut late, &mut of_late, 256 << 10);
        assert!(
            of_late >= 512 << 10 && full.contains("snapshots, would grow"),
            "{of_late}: {full}"
        );
        assert!(full.contains("by 262144 bytes, and the limit is 20 MiB; "), "{full}");
        // What the greedy one gives back is theirs again.
        greedy.count(0);
        assert_eq!(refused(&mut late, 5 << 20, of_late, 5 << 20), None);
    }

    #[test]
    fn writes_in_place_are_no_growth_for_long() {
        let of = Arc::new(OperatorStateBytes::new(Some(4 << 20), Arc::default()));
        let mut account = Account::new(of.clone(), 1 << 20);
        for _ in 0..1000 {
            assert_eq!(refused(&mut account, 100 << 10, 1 << 20, 0), None);
        }
        assert!(of.used() <= (1 << 20) + UNCOUNTED_MAX, "{}", of.used());
    }
}
