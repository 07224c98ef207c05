//! Operations on jobs that take time: one request begins them, and others ask how they are going.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use regraft_model::id::JobId;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::error::HostError;
use super::logs::job_span;
use crate::dataflow::control::locked;
use crate::environment::real::random;
use crate::jobs::handle::SnapshotReport;
use crate::jobs::observe::ObservedJob;
use crate::jobs::profile::ProfileReport;
use crate::upgrade::report::UpgradeReport;

/// Number of operations that are remembered; the oldest is dropped first.
const REMEMBERED_MAX: usize = 256;
/// Number of profiles among them, whose results are large.
const PROFILES_MAX: usize = 8;

/// Kind of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// Takes a savepoint.
    Savepoint,
    /// Takes a savepoint and ends the job.
    Stop,
    /// Ends the job.
    Cancel,
    /// Swaps modules in.
    Upgrade,
    /// Samples a guest.
    Profile,
}

/// Result of an operation that is complete.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The savepoint.
    Saved(SnapshotReport),
    /// The job, which has ended.
    Ended(Box<ObservedJob>),
    /// The upgrade.
    Upgraded(UpgradeReport),
    /// The profile.
    Profiled(Box<ProfileReport>),
}

/// Progress of an operation.
#[derive(Debug, Clone)]
pub enum OperationProgress {
    /// It is under way.
    InProgress,
    /// It is complete.
    Completed(Outcome),
    /// It has failed.
    Failed(Arc<HostError>),
}

/// An operation that has begun.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Id to ask about it with.
    pub id: String,
    /// Id of the job.
    pub job: JobId,
    /// Its kind.
    pub kind: OperationKind,
    progress: watch::Receiver<OperationProgress>,
}

impl Operation {
    /// Returns its progress.
    #[must_use]
    pub fn progress(&self) -> OperationProgress {
        self.progress.borrow().clone()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// [`HostError`] of the operation.
    pub async fn ended(&mut self) -> Result<Outcome, Arc<HostError>> {
        let ended = self
            .progress
            .wait_for(|progress| !matches!(progress, OperationProgress::InProgress))
            .await;
        match ended.as_deref() {
            Ok(OperationProgress::Completed(outcome)) => Ok(outcome.clone()),
            Ok(OperationProgress::Failed(error)) => Err(error.clone()),
            // Its task has panicked.
            Ok(OperationProgress::InProgress) | Err(_) => Err(Arc::new(HostError::Broken(self.job))),
        }
    }
}

/// Operations of a host that are remembered.
#[derive(Debug, Default)]
pub struct Operations(Mutex<VecDeque<Operation>>);

impl Operations {
    /// Begins an operation in a task of its own, which goes on after the connection of the requester breaks.
    pub fn begin(
        &self,
        job: JobId,
        kind: OperationKind,
        work: impl Future<Output = Result<Outcome, HostError>> + Send + 'static,
    ) -> Operation {
        let (tell, progress) = watch::channel(OperationProgress::InProgress);
        let operation = Operation {
            id: format!("{:032x}", random()),
            job,
            kind,
            progress,
        };
        let mut remembered = locked(&self.0);
        let is_profile = |operation: &Operation| operation.kind == OperationKind::Profile;
        let profiles = remembered.iter().filter(|operation| is_profile(operation)).count();
        if kind == OperationKind::Profile && profiles >= PROFILES_MAX {
            let oldest = remembered.iter().position(is_profile);
            oldest.and_then(|oldest| remembered.remove(oldest));
        } else if remembered.len() >= REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(operation.clone());
        drop(remembered);
        let told = async move {
            let ended = match work.await {
                Ok(outcome) => OperationProgress::Completed(outcome),
                Err(error) => OperationProgress::Failed(Arc::new(error)),
            };
            tell.send_replace(ended);
        };
        tokio::spawn(told.instrument(job_span(job)));
        operation
    }

    /// Returns an operation that is remembered.
    #[must_use]
    pub fn get(&self, job: &str, id: &str) -> Option<Operation> {
        let remembered = locked(&self.0);
        let found = remembered
            .iter()
            .find(|operation| operation.id == id && operation.job.to_string() == job);
        found.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_bits(7);

    #[tokio::test]
    async fn an_operation_is_remembered_with_its_end() {
        let operations = Operations::default();
        let failing = async { Err(HostError::NoSuchJob("7".to_owned())) };
        let mut begun = operations.begin(JOB, OperationKind::Cancel, failing);
        assert!(matches!(begun.progress(), OperationProgress::InProgress));
        assert_eq!(
            begun.ended().await.expect_err("it fails").to_string(),
            "there is no job 7 on this host"
        );
        let found = operations.get(&JOB.to_string(), &begun.id).expect("remembered");
        assert!(matches!(found.progress(), OperationProgress::Failed(_)));
        assert!(operations.get("8", &begun.id).is_none() && operations.get(&JOB.to_string(), "x").is_none());
        for _ in 0..REMEMBERED_MAX {
            operations.begin(JOB, OperationKind::Cancel, std::future::pending());
        }
        assert!(operations.get(&JOB.to_string(), &begun.id).is_none(), "the oldest");
    }

    #[tokio::test]
    async fn only_the_last_profiles_are_remembered() {
        let operations = Operations::default();
        let begin = |kind| operations.begin(JOB, kind, std::future::pending()).id;
        let stop = begin(OperationKind::Stop);
        let profiles: Vec<String> = (0..=PROFILES_MAX).map(|_| begin(OperationKind::Profile)).collect();
        let is_known = |id: &String| operations.get(&JOB.to_string(), id).is_some();
        assert!(is_known(&stop) && !is_known(&profiles[0]));
        assert!(profiles[1..].iter().all(is_known));
    }

    #[tokio::test]
    async fn one_that_panics_has_ended() {
        let mut begun = Operations::default().begin(JOB, OperationKind::Stop, async { panic!("planted") });
        assert!(matches!(
            *begun.ended().await.expect_err("it fails"),
            HostError::Broken(JOB)
        ));
    }
}
