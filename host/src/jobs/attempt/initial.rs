//! The state that an attempt begins with: that of a checkpoint, of the savepoint that the job started from, or none.
//!
//! Reading changes nothing.

use std::collections::BTreeSet;

use regraft_model::id::{AttemptId, CheckpointId, JobId, OperatorUid};

use super::load::{self, Loaded};
use crate::graph::plan::RegionIndex;
use crate::jobs::admission::Descriptions;
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::job::Job;
use crate::jobs::durable::point::Durable;
use crate::jobs::durable::records::Origin;
use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::MetadataError;
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::restore::{RestoreOptions, RestorePlan, plan_restore};

/// State that an attempt begins with.
pub struct Begin {
    /// State of the subtasks.
    pub loaded: Loaded,
    /// Checkpoint that it is from.
    pub restored: Option<CheckpointId>,
    /// Attempt that took that checkpoint.
    pub taken_by: Option<AttemptId>,
    /// Its origin, for people.
    pub from: String,
    /// Permission to commit the output that is pending in it.
    pub pending: CommitPermit,
    /// Job that wrote the pending output.
    pub writer: JobId,
    /// Smallest number of a round behind it.
    pub next: CheckpointId,
}

/// Returns no state at all.
#[must_use]
pub fn beginning(job: &Job) -> Begin {
    Begin {
        loaded: Loaded::default(),
        restored: None,
        taken_by: None,
        from: "the beginning".to_owned(),
        pending: CommitPermit::none(),
        writer: job.job_id,
        next: CheckpointId(1),
    }
}

/// Reads the state of some regions from a checkpoint of the job. Returns `None` if its files are damaged, and notes that in
/// `durable`.
///
/// # Errors
/// [`AttemptError`].
pub async fn from_checkpoint(
    job: &Job,
    descriptions: &Descriptions,
    checkpoint: &Savepoint,
    regions: &[RegionIndex],
    durable: &mut Durable,
) -> Result<Option<Begin>, AttemptError> {
    let id = checkpoint.metadata.checkpoint_id;
    let new = load::new_job(&job.graph, descriptions);
    let planned = plan_restore(
        &checkpoint.url(),
        &checkpoint.metadata,
        &new,
        &RestoreOptions::default(),
    );
    let mut plan = planned.map_err(|refusal| AttemptError::Restore {
        url: checkpoint.url(),
        refusal,
    })?;
    let wanted: BTreeSet<&OperatorUid> = regions
        .iter()
        .filter_map(|region| job.plan.region(*region))
        .flat_map(|region| &region.uids)
        .collect();
    plan.operators.retain(|operator| wanted.contains(&operator.uid));
    // The job has had all of it in memory.
    let budget = Budget::unlimited();
    match load::load(&*job.host.environment, checkpoint, &plan, &budget, &job.ending).await {
        Ok(mut loaded) => {
            let same = |uid: &OperatorUid, subtasks: usize| {
                let saved = checkpoint.metadata.operator(uid.as_str());
                saved.is_some_and(|saved| saved.parallelism as usize == subtasks)
            };
            let operators = plan.operators.iter();
            let as_it_was = operators.filter(|operator| same(&operator.uid, operator.subtasks.len()));
            loaded.state.rounds = as_it_was.map(|operator| (operator.uid.clone(), id)).collect();
            Ok(Some(Begin {
                loaded,
                restored: Some(id),
                taken_by: Some(checkpoint.metadata.attempt),
                from: format!("checkpoint {id} at {}", checkpoint.url()),
                pending: checkpoint.permit(),
                writer: job.job_id,
                next: id.next(),
            }))
        }
        Err(MetadataError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::error!("Checkpoint {id} of job {} cannot be used: {error}", job.job_id);
            durable.pass_over(id, error.to_string());
            Ok(None)
        }
    }
}

/// Reads the savepoint that the job starts from.
///
/// # Errors
/// [`AttemptError`].
pub async fn from_origin(
    job: &Job,
    descriptions: &Descriptions,
    savepoint: &Savepoint,
    origin: &Origin,
) -> Result<Begin, AttemptError> {
    let (plan, _) = plan_origin(job, descriptions, savepoint, origin)?;
    let budget = Budget::of_host(job.host.environment.state_budget());
    let loaded = load::load(&*job.host.environment, savepoint, &plan, &budget, &job.ending).await?;
    Ok(Begin {
        restored: None,
        taken_by: None,
        from: format!("savepoint {}", savepoint.url()),
        pending: savepoint.permit().only(|uid| loaded.state.sinks.contains_key(uid)),
        loaded,
        writer: savepoint.metadata.job_id,
        next: plan.next_checkpoint,
    })
}

/// Plans what a job takes from a savepoint that another one wrote. Returns the plan, and the sinks that write somewhere else
/// now.
///
/// # Errors
/// [`AttemptError::Restore`] lists all obstacles.
pub fn plan_origin(
    job: &Job,
    descriptions: &Descriptions,
    savepoint: &Savepoint,
    origin: &Origin,
) -> Result<(RestorePlan, Vec<OperatorUid>), AttemptError> {
    let retargeted = load::retargeted_sinks(&job.graph, savepoint);
    let mut options = RestoreOptions {
        allow_non_restored: origin.allow_non_restored,
        drop_state: origin.drop_state.clone(),
    };
    options.drop_state.extend(retargeted.iter().map(ToString::to_string));
    let new = load::new_job(&job.graph, descriptions);
    let planned = plan_restore(&savepoint.url(), &savepoint.metadata, &new, &options);
    let mut plan = planned.map_err(|refusal| AttemptError::Restore {
        url: savepoint.url(),
        refusal,
    })?;
    plan.dropped.retain(|dropped| !retargeted.contains(&dropped.uid));
    Ok((plan, retargeted))
}
