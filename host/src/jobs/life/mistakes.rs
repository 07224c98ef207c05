//! Faults that tests plant into the protocol, to see that a property turns red. Outside tests there are none, and asking for
//! one costs nothing.

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(any(test, feature = "planted-mistakes")), allow(dead_code))]
pub(super) enum Mistake {
    /// Output of a round that the store failed to write is committed.
    CommitBeforeDurable,
    /// A round is committed although a later one is on its way.
    CommitOutOfOrder,
    /// A round is stored when the first subtask has acknowledged it.
    StoreBeforeAcknowledged,
    /// A checkpoint begins beside a round that must be alone.
    CheckpointBesideUpgrade,
    /// A request is answered twice.
    AnswerTwice,
    /// Requests that wait are dropped by a failure, unanswered.
    DropWaiting,
    /// A round that is under way is left behind by a failover.
    KeepRoundOverFailover,
    /// The next attempt is prepared while a round of the last one is being written.
    PrepareWhileStoring,
    /// Threads that have ended are never joined, so a restart waits for ever.
    NeverJoin,
    /// The job ends while something is still being written for it.
    EndWhileBusy,
    /// A version is recorded when its snapshot has been acknowledged, before it is durable.
    VersionBeforeSnapshot,
}

/// The fault that is planted, if any.
#[derive(Debug, Default)]
pub(super) struct Planted {
    #[cfg(any(test, feature = "planted-mistakes"))]
    mistake: Option<Mistake>,
}

impl Planted {
    /// True if this fault is planted.
    #[inline]
    #[cfg_attr(not(any(test, feature = "planted-mistakes")), allow(clippy::unused_self))]
    pub(super) fn is(&self, mistake: Mistake) -> bool {
        #[cfg(any(test, feature = "planted-mistakes"))]
        return self.mistake == Some(mistake);
        #[cfg(not(any(test, feature = "planted-mistakes")))]
        {
            let _ = mistake;
            false
        }
    }

    /// Plants a fault.
    #[cfg(test)]
    pub(super) const fn plant(mistake: Option<Mistake>) -> Self {
        Self { mistake }
    }
}
