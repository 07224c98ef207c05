//! The permit to make output visible: proof that the snapshot which names the output is durable.
//!
//! A sink's pending output may be committed only after `_metadata` is durable; committed earlier it would be written again
//! by the next attempt. So a commit takes no handles but a permit, which comes from a `_metadata` that has been published
//! or read back. There is one exception, by convention and not by type: the record of a savepoint that is complete, whose
//! files its user may have moved away.

use std::collections::BTreeMap;

use regraft_model::id::OperatorUid;

use super::metadata::Metadata;

/// Pending output by sink, in the connector's own words.
pub type Handles = BTreeMap<OperatorUid, Vec<serde_json::Value>>;

/// Permission to commit the output that one durable snapshot names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitPermit {
    handles: Handles,
}

impl CommitPermit {
    /// Of a `_metadata` that has been published or read.
    pub(super) fn of(metadata: &Metadata) -> Self {
        let sinks = metadata.operators.iter().filter_map(|entry| {
            let sink = entry.sink.as_ref()?;
            Some((entry.uid.clone(), sink.handles.clone()))
        });
        Self {
            handles: sinks.collect(),
        }
    }

    /// Of the record of a savepoint that is known to be complete, wherever its user has moved it. The caller has looked:
    /// nothing here can.
    #[must_use]
    pub const fn of_complete_record(handles: Handles) -> Self {
        Self { handles }
    }

    /// A permit for nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The pending output of each sink.
    #[must_use]
    pub const fn handles(&self) -> &Handles {
        &self.handles
    }

    /// True if there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handles.values().all(Vec::is_empty)
    }

    /// The same for some of the sinks only.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&OperatorUid) -> bool) -> Self {
        self.handles.retain(|uid, _| wanted(uid));
        self
    }

    /// A permit that proves nothing, for faults that tests plant.
    #[must_use]
    pub fn planted() -> Option<Self> {
        cfg!(any(test, feature = "planted-mistakes")).then(Self::default)
    }
}
