//! Changing a running job: the hot swap.
//!
//! The change is prepared beside the job ([`prepare`]), travels in the barrier of one round, and is measured afterwards
//! ([`report`]). The job never notices a change that is refused before the barrier.

use std::time::Instant;

use crate::dataflow::operator::Modules;
use crate::jobs::handle::{JobError, JobHandle, SnapshotRequest, SwapRequest};

pub mod report;
pub mod prepare;

use prepare::prepare;
use report::UpgradeReport;

/// Swaps modules into a running job. `loading` is the moment at which the caller began to load them.
///
/// # Errors
/// [`JobError`]; the job goes on as it was.
/// Of kind usage where there is no such operator, or where the modules do not fit the graph; failed where they cannot take
/// over the state, or where an instance or the round fails.
pub async fn upgrade(job: &JobHandle, modules: Modules, loading: Instant) -> Result<UpgradeReport, JobError> {
    let (set, uids) = prepare(job, &modules).await?;
    let prepare_ms = loading.elapsed().as_secs_f64() * 1e3;
    let round = job
        .snapshot(SnapshotRequest::Upgrade(SwapRequest { set, modules }))
        .await?;
    Ok(UpgradeReport::new(&round, uids, prepare_ms))
}
