//! A failure of the whole job or of some of its regions, kept with its cause until it is shown.

use std::collections::BTreeSet;
use std::fmt;

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::OperatorUid;

use crate::dataflow::failure::{Cause as SubtaskCause, Record, SubtaskFailure};
use crate::graph::plan::RegionIndex;
use crate::jobs::handle::JobError;

/// A failure after which a job cannot go on as it is.
#[derive(Debug)]
pub struct JobFailure {
    cause: Cause,
    /// Regions that must go back to the last checkpoint; empty for all.
    pub(super) regions: BTreeSet<RegionIndex>,
    /// True if a restart may get over it.
    pub(super) restartable: bool,
    /// Reason for which no restart follows, although its kind allows one.
    refused: Option<NoRestart>,
    /// Advice on going back to the modules before the last upgrade, if that may be at fault.
    way_back: Option<String>,
}

#[derive(Debug)]
enum Cause {
    /// A subtask failed.
    Subtask(Box<SubtaskFailure>),
    /// Anything else: about an operator, or about the job.
    Job(JobError),
}

/// Reason for which no other restart follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoRestart {
    /// The same record failed before.
    SameRecord,
    /// The strategy allows no more; the number of restarts there were.
    Exhausted(u32),
}

impl JobFailure {
    /// A failure of a subtask, which belongs to a region.
    pub(super) fn of_subtask(failure: SubtaskFailure, region: Option<RegionIndex>) -> Self {
        Self {
            restartable: failure.restartable(),
            cause: Cause::Subtask(Box::new(failure)),
            regions: region.into_iter().collect(),
            refused: None,
            way_back: None,
        }
    }

    /// A failure that a restart of some regions may get over.
    pub(super) fn passing(error: JobError, regions: impl IntoIterator<Item = RegionIndex>) -> Self {
        Self {
            cause: Cause::Job(error),
            regions: regions.into_iter().collect(),
            restartable: true,
            refused: None,
            way_back: None,
        }
    }

    /// A failure that no restart gets over.
    pub(super) fn fatal(error: JobError) -> Self {
        Self {
            restartable: false,
            ..Self::passing(error, [])
        }
    }

    /// The same failure, which is not answered by a restart since its record has failed before.
    pub(super) fn again(mut self) -> Self {
        (self.restartable, self.refused) = (false, Some(NoRestart::SameRecord));
        self
    }

    /// The same failure, after which the strategy allows no more restarts.
    pub(super) fn exhausted(mut self, restarts: u32) -> Self {
        if restarts > 0 {
            self.refused = Some(NoRestart::Exhausted(restarts));
        }
        self
    }

    /// Returns true if it is only that the job does not come to the end of its timers.
    pub(super) fn is_endless(&self) -> bool {
        matches!(&self.cause, Cause::Subtask(failure) if matches!(failure.cause, SubtaskCause::Endless { .. }))
    }

    /// The same failure, with a text on how to go back to the modules before the last upgrade.
    pub(super) fn with_way_back(mut self, way_back: Option<String>) -> Self {
        self.way_back = way_back;
        self
    }

    /// The record that a guest failed on, and its operator.
    pub(super) fn guilty(&self) -> Option<(&OperatorUid, &Record)> {
        match &self.cause {
            Cause::Subtask(failure) => match (&failure.cause, &failure.record) {
                (SubtaskCause::Guest(_), Some(record)) => Some((&failure.uid, record)),
                _ => None,
            },
            Cause::Job(_) => None,
        }
    }

    /// The kind of error, which decides the exit status.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.cause {
            Cause::Subtask(failure) => match &failure.cause {
                SubtaskCause::Bug(_) | SubtaskCause::Panic(_) => ErrorKind::Bug,
                _ => ErrorKind::Failed,
            },
            Cause::Job(error) => error.kind,
        }
    }

    /// The operator that it is about.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        match &self.cause {
            Cause::Subtask(failure) => Some(failure.uid.as_str()),
            Cause::Job(error) => error.uid.as_deref(),
        }
    }

    /// The first line of its text.
    pub(super) fn first_line(&self) -> String {
        let text = self.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Subtask(failure) => write!(f, "{failure}")?,
            Cause::Job(error) => write!(f, "{error}")?,
        }
        match self.refused {
            None => {}
            Some(NoRestart::SameRecord) => {
                f.write_str("\n  the same record failed before the job was restarted, so it is not restarted again")?;
            }
            Some(NoRestart::Exhausted(count)) => {
                let times = if count == 1 {
                    "once".to_owned()
                } else {
                    format!("{count} times")
                };
                write!(f, "\n  restarted {times}; [restart] allows no more")?;
            }
        }
        match &self.way_back {
            None => Ok(()),
            Some(text) => write!(f, "\n  {text}"),
        }
    }
}
