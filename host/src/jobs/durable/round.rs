//! The writes behind a round, beside the control loop: its files, its records, the version that an upgrade makes.

use regraft_model::id::{CheckpointId, JobVersion};
use regraft_model::snapshot::SnapshotKind;

use super::job::Job;
use super::records::{RecordError, SavepointRecord, VersionRecord, digests};
use crate::checkpoint::round::Acknowledged;
use crate::checkpoint::store::{JobFacts, StoreAs, store};
use crate::dataflow::operator::Modules;
use crate::environment::cancel::Cancellation;
use crate::jobs::life::effect::StoreOutcome;
use crate::savepoint::metadata::{Owner, Trigger};
use crate::savepoint::permit::Handles;
use crate::savepoint::publish::remove_partial;
use crate::savepoint::rows::Layout;
use crate::storage::{Storage, StoreError, paths};

/// Why a savepoint of an attempt that has lost the job is none.
const TAKEN: &str = "another host runs this job now, and two must not";

/// Writes a checkpoint. Files of one that fails are removed again.
pub(in crate::jobs) async fn store_checkpoint(
    job: &Job,
    round: Acknowledged,
    facts: &JobFacts,
    now_ms: i64,
    cancellation: &Cancellation,
) -> StoreOutcome {
    let how = StoreAs {
        layout: Layout::Native,
        trigger: trigger(round.kind),
        owner: Owner::Host,
        completed_ms: now_ms,
    };
    match job.checkpoints.store(round, facts, how, cancellation).await {
        Ok(stored) => StoreOutcome::Durable(Box::new(stored)),
        Err(error) if error.is_occupied() && matches!(job.is_still_ours().await, Ok(true)) => StoreOutcome::Occupied(
            format!("{error}: a process that has lost the job has written it; the next checkpoint gets another number"),
        ),
        Err(error) => StoreOutcome::Failed {
            why: error.to_string(),
            at_fault: error.at_fault().cloned(),
        },
    }
}

/// Writes a savepoint, and its record first: so an attempt that goes on with the job keeps the output that the savepoint
/// names, and knows of one that ends the job. One that is cancelled or fails is removed again.
pub(in crate::jobs) async fn store_savepoint(
    job: &Job,
    round: Acknowledged,
    facts: &JobFacts,
    target: &Storage,
    layout: Layout,
    now_ms: i64,
    cancellation: &Cancellation,
) -> StoreOutcome {
    let how = StoreAs {
        layout,
        trigger: trigger(round.kind),
        owner: Owner::User,
        completed_ms: now_ms,
    };
    let mut handles = Handles::new();
    for (uid, snapshot) in round.snapshots.iter().flat_map(|part| &part.sinks) {
        let of_sink = handles.entry(uid.clone()).or_default();
        of_sink.extend(snapshot.handles.iter().cloned());
    }
    let mut record = SavepointRecord {
        checkpoint_id: round.id,
        attempt: facts.attempt,
        kind: round.kind,
        path: target.url(),
        handles,
        complete: false,
        dropped: false,
    };
    let (why, at_fault) = match job.directory.write_savepoint(&record).await {
        Err(error) => {
            let why = format!("it cannot be written down in the checkpoint directory: {error}");
            (why, None)
        }
        Ok(()) => match store(&*job.host.environment, round, facts, target, how, cancellation).await {
            Err(error) => (error.to_string(), error.at_fault().cloned()),
            // Another attempt may have found it and ended the job with it, or may have dropped the output that it names.
            Ok(_) if matches!(job.is_still_ours().await, Ok(false)) => {
                let path = &record.path;
                return StoreOutcome::Unclear(format!(
                    "{path} is complete, but {TAKEN}; use it only if that host says that it is a savepoint of the job"
                ));
            }
            Ok(stored) => {
                record.complete = true;
                if let Err(error) = job.directory.write_savepoint(&record).await {
                    tracing::warn!("a savepoint could not be marked as complete: {error}");
                }
                return StoreOutcome::Durable(Box::new(stored));
            }
        },
    };
    // Complete or not: the requester is told that there is none.
    match drop_savepoint(job, record, target).await {
        Ok(()) => StoreOutcome::Failed { why, at_fault },
        Err(error) => {
            tracing::warn!("files of a failed savepoint could not be removed: {error}");
            StoreOutcome::Unclear(why)
        }
    }
}

/// Removes the files and the record of a savepoint of this process that is said to have failed.
///
/// # Errors
/// [`RecordError`]; it can be tried again.
pub(in crate::jobs) async fn remove_savepoint(
    job: &Job,
    id: CheckpointId,
    target: &Storage,
) -> Result<(), RecordError> {
    let url = target.url();
    let is_it = |record: &SavepointRecord| record.checkpoint_id == id && record.path == url;
    match job.directory.savepoints().await?.into_iter().find(is_it) {
        Some(record) => drop_savepoint(job, record, target).await,
        // Its record goes last.
        None => Ok(()),
    }
}

/// Removes a savepoint. The record says so first, and then this host looks whether the job is still its own: so either it finds
/// the attempt of another host, which may have ended the job with this savepoint, or that one finds what the record says, and does
/// not count it.
async fn drop_savepoint(job: &Job, record: SavepointRecord, target: &Storage) -> Result<(), RecordError> {
    let dropped = SavepointRecord {
        complete: false,
        dropped: true,
        ..record
    };
    must_be_ours(job).await?;
    job.directory.write_savepoint(&dropped).await?;
    must_be_ours(job).await?;
    remove(target).await?;
    Ok(job.directory.forget_own_savepoint(&dropped).await?)
}

/// Fails with [`RecordError::Taken`] if another host runs the job.
async fn must_be_ours(job: &Job) -> Result<(), RecordError> {
    if job.is_still_ours().await? {
        return Ok(());
    }
    let path = job.directory.storage().url();
    Err(RecordError::Taken { path })
}

/// Makes the modules of a durable upgrade the job's: a record that is created, never overwritten.
///
/// # Errors
/// [`RecordError`]; the record may be there all the same where it may pass.
pub(in crate::jobs) async fn record_version(
    job: &Job,
    id: CheckpointId,
    version: JobVersion,
    modules: &Modules,
    new: &Modules,
) -> Result<(), RecordError> {
    let record = VersionRecord {
        version,
        checkpoint_id: Some(id),
        modules: digests(modules),
        nonce: format!("{:032x}", job.host.environment.random()),
    };
    job.checkpoints.keep_modules(new.values().map(|new| &**new)).await?;
    // Another host would run these modules without having been asked to.
    if matches!(job.is_still_ours().await, Ok(false)) {
        let path = job.directory.storage().url();
        return Err(RecordError::Taken { path });
    }
    job.directory.create_version(&record).await
}

/// Removes the files of a savepoint that does not count: it was never completed, or is dropped. Returns false, and removes nothing,
/// if it has been completed meanwhile.
///
/// # Errors
/// The store's; the remaining files stay.
pub(super) async fn remove_incomplete(record: &SavepointRecord, target: &Storage) -> Result<bool, StoreError> {
    if record.dropped {
        remove(target).await?;
        return Ok(true);
    }
    remove_partial(target).await
}

/// Removes the files of a snapshot that is said to have failed; should it be complete after all, it is not any more from the
/// first step on.
async fn remove(target: &Storage) -> Result<(), StoreError> {
    target.delete_durably(paths::METADATA).await?;
    target.delete_prefix("").await
}

const fn trigger(kind: SnapshotKind) -> Trigger {
    match kind {
        SnapshotKind::Checkpoint => Trigger::Periodic,
        SnapshotKind::Savepoint => Trigger::Manual,
        SnapshotKind::Stop => Trigger::Stop,
        SnapshotKind::EndOfInput => Trigger::EndOfInput,
        SnapshotKind::Upgrade => Trigger::Upgrade,
    }
}
