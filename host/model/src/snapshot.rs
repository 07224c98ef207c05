//! The purposes of a snapshot.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The purpose of a snapshot, which decides if the sinks commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    /// A periodic checkpoint; commits sinks.
    Checkpoint,
    /// A savepoint for the user while the job goes on; commits nothing.
    Savepoint,
    /// A savepoint that ends the job; the sources emit nothing after its barrier. Commits sinks.
    Stop,
    /// The final checkpoint, after all input has ended; commits sinks.
    EndOfInput,
    /// A checkpoint whose barrier swaps modules; commits sinks.
    Upgrade,
}

impl SnapshotKind {
    /// Returns true if sinks commit once the snapshot is durable.
    #[must_use]
    pub const fn commits(self) -> bool {
        !matches!(self, Self::Savepoint)
    }

    /// Returns the snapshot type as log lines have it, which is Flink's word.
    #[must_use]
    pub const fn log_word(self) -> &'static str {
        match self {
            Self::Checkpoint | Self::EndOfInput => "CHECKPOINT",
            Self::Savepoint | Self::Stop => "SAVEPOINT",
            Self::Upgrade => "UPGRADE",
        }
    }
}

/// Writes the kind as `_metadata` has it.
impl fmt::Display for SnapshotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Checkpoint => "checkpoint",
            Self::Savepoint => "savepoint",
            Self::Stop => "stop",
            Self::EndOfInput => "end-of-input",
            Self::Upgrade => "upgrade",
        })
    }
}
