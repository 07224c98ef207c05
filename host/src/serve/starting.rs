//! Notes of the starts that are under way, so that the next process knows which job took this one with it.
//!
//! A note is written before a start begins, and removed when the job has run for a moment, or the start has failed without
//! harm. A note that cannot be written is no reason not to start a job: then the next process knows less.

use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::JobId;

use super::catalog::Catalog;
use super::host::Host;
use super::start_order::StartNote;
use crate::dataflow::control::locked;
use crate::jobs::handle::JobHandle;

/// Time after which a job that runs has started, if no checkpoint of it was complete before.
const SETTLED: Duration = Duration::from_secs(5);
/// Time between two looks at a job that has just started.
const LOOK: Duration = Duration::from_millis(50);
/// Time that a start waits for the end of others.
const OTHERS_MAX: Duration = Duration::from_secs(60);

impl Host {
    /// Notes that a job is being started.
    pub(super) async fn begin_start(&self, catalog: &Catalog, job: JobId, deaths: u32) {
        locked(&self.starting).insert(job);
        let note = StartNote { starting: true, deaths };
        if let Err(error) = catalog.note_start(job, note).await {
            tracing::warn!(
                "that job {job} is being started could not be noted: {error}. If this takes the process with it, the next one does not know."
            );
        }
    }

    /// Notes that the start of a job is over: it runs, or has failed.
    pub(super) async fn end_start(&self, catalog: &Catalog, job: JobId) {
        // A later process that finds the note starts the job alone, which is slower and does no harm.
        if let Err(error) = catalog.forget_start(job).await {
            tracing::warn!("that job {job} has started could not be noted: {error}");
        }
        locked(&self.starting).remove(&job);
        self.changed.notify_waiters();
    }

    /// Watches a job that runs until its start is over.
    pub(super) fn watch_start(self: &Arc<Self>, job: JobHandle) {
        let host = self.clone();
        tokio::spawn(async move {
            let mut waited = Duration::ZERO;
            while waited < SETTLED && !job.status().is_terminal() && job.shared.observe().rounds == 0 {
                tokio::time::sleep(LOOK).await;
                waited += LOOK;
            }
            if let Some(serving) = &host.serving {
                host.end_start(&serving.catalog, job.job_id()).await;
            }
        });
    }

    /// Waits until no job is being started, or for a long time.
    pub(super) async fn none_starting(&self) {
        let waiting = async {
            loop {
                let change = self.changed.notified();
                if locked(&self.starting).is_empty() {
                    return;
                }
                change.await;
            }
        };
        let _ = tokio::time::timeout(OTHERS_MAX, waiting).await;
    }

    /// Removes the notes of all starts: this process has not died of them.
    pub(super) async fn forget_starts(&self, catalog: &Catalog) {
        let starting: Vec<JobId> = locked(&self.starting).iter().copied().collect();
        for job in starting {
            self.end_start(catalog, job).await;
        }
    }
}
