//! Changing a running job: the hot swap.
//!
//! The change is prepared beside the job ([`prepare`]), travels in the barrier of one round, and is measured afterwards
//! ([`report`]); [`error`] has why it may not happen. The job never notices a change that is refused before the barrier;
//! one whose records and components have no room in the checkpoint directory is.

use std::time::Instant;

use crate::dataflow::operator::Modules;
use crate::jobs::handle::{JobHandle, SnapshotRequest, SwapRequest};

pub mod error;
pub mod report;
pub mod prepare;

use error::UpgradeError;
use prepare::prepare;
use report::UpgradeReport;

/// Room for the records of a new version and of the next attempt, beside its components, in bytes.
const RECORDS: usize = 64 << 10;

/// Swaps modules into a running job. `loading` is the moment at which the caller began to load them.
///
/// # Errors
/// [`UpgradeError`]; the job goes on as it was.
/// Of kind usage where there is no such operator, or where the modules do not fit the graph; failed where they cannot take
/// over the state, or where an instance or the round fails.
pub async fn upgrade(job: &JobHandle, modules: Modules, loading: Instant) -> Result<UpgradeReport, UpgradeError> {
    let (set, uids) = prepare(job, &modules).await?;
    // Behind the barrier, a change that cannot be recorded takes the whole job back.
    let room = modules.values().map(|module| module.bytes().len()).sum::<usize>() + RECORDS;
    job.check_room(room).await.map_err(UpgradeError::NoRoom)?;
    let prepare_ms = loading.elapsed().as_secs_f64() * 1e3;
    let round = job
        .snapshot(SnapshotRequest::Upgrade(SwapRequest { set, modules }))
        .await?;
    Ok(UpgradeReport::new(&round, uids, prepare_ms))
}
