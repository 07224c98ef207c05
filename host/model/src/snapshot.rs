//! What a snapshot is taken for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a snapshot is taken for; it decides what commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotKind {
    /// Periodic; commits sinks.
    Checkpoint,
    /// The user's, while the job goes on; commits nothing.
    Savepoint,
    /// A savepoint that ends the job; sources emit nothing after its barrier.
    Stop,
    /// The final one, after all input has ended.
    EndOfInput,
    /// Swaps modules at its barrier.
    Upgrade,
}

impl SnapshotKind {
    /// Whether sinks commit once it is durable.
    #[must_use]
    pub const fn commits(self) -> bool {
        !matches!(self, Self::Savepoint)
    }

    /// The word in log lines.
    #[must_use]
    pub const fn log_word(self) -> &'static str {
        match self {
            Self::Checkpoint | Self::EndOfInput => "CHECKPOINT",
            Self::Savepoint | Self::Stop => "SAVEPOINT",
            Self::Upgrade => "UPGRADE",
        }
    }
}

/// As in `_metadata`.
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
