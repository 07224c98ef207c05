//! The status of a job, in Flink's words, and its transitions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "Flink's own words")]
pub enum JobStatus {
    Created,
    Running,
    Failing,
    Failed,
    Cancelling,
    Canceled,
    Finished,
    Restarting,
    Suspended,
}

impl JobStatus {
    /// Returns true if no other status follows in this process.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished | Self::Suspended)
    }

    /// Returns true if no other status follows in any process (Flink: globally terminal). A suspended job is brought
    /// back by the next one.
    #[must_use]
    pub const fn is_over(self) -> bool {
        self.is_terminal() && !matches!(self, Self::Suspended)
    }

    /// Returns true if `next` may follow.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Created => matches!(next, Self::Running | Self::Failing | Self::Cancelling | Self::Suspended),
            Self::Running => {
                matches!(
                    next,
                    Self::Failing | Self::Cancelling | Self::Finished | Self::Restarting | Self::Suspended
                )
            }
            Self::Restarting => {
                matches!(
                    next,
                    Self::Created | Self::Running | Self::Failing | Self::Cancelling | Self::Finished | Self::Suspended
                )
            }
            Self::Failing => matches!(next, Self::Failed | Self::Restarting),
            Self::Cancelling => matches!(next, Self::Canceled | Self::Failing),
            Self::Failed | Self::Canceled | Self::Finished | Self::Suspended => false,
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
            Self::Suspended => "SUSPENDED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_the_end() {
        use JobStatus::*;
        let all = [
            Created, Running, Failing, Failed, Cancelling, Canceled, Finished, Restarting, Suspended,
        ];
        for from in all {
            for to in all {
                assert!(!(from.is_terminal() && from.may_become(to)), "{from} -> {to}");
                assert!(from != to || !from.may_become(to), "{from} -> {to}");
            }
        }
        assert_eq!(serde_json::to_string(&Canceled).ok().as_deref(), Some("\"CANCELED\""));
    }
}
