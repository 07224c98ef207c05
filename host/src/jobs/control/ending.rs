//! The end of a job: threads joined, what is pending cleaned, checkpoints kept or removed, and at last the status.

use super::{Controller, Ending, reply};
use crate::environment::run_blocking;
use crate::jobs::handle::JobError;
use crate::jobs::status::JobStatus;

impl Controller {
    /// All subtasks are gone.
    pub(super) async fn end(mut self) {
        self.terminate();
        self.report_upgrade();
        for mut request in self.waiting.drain(..) {
            let message = format!("job {} has ended: nothing more can be saved", self.p.shared.job_id);
            reply(&mut request, Err(JobError::failed(message)));
        }
        if let Some(running) = self.p.running.take() {
            // They have told that they are done: this does not wait.
            let _ = run_blocking(&*self.p.environment, move || running.join()).await;
        }
        // A round that is still being stored or committed must not write behind what is cleaned up here.
        while self.in_background > 0 {
            let Some(done) = self.background.1.recv().await else {
                break;
            };
            self.background_done(done).await;
        }
        let status = match self.ending {
            Some(Ending::Cancel) => JobStatus::Canceled,
            Some(Ending::Fail) => JobStatus::Failed,
            Some(Ending::Finish) | None => JobStatus::Finished,
        };
        for committer in self.p.committers.values() {
            // A savepoint may name pending parts, and so may the checkpoints that a failed job leaves.
            if status == JobStatus::Canceled && !self.savepoint_names_pending {
                committer.abort();
            }
            committer.clean();
        }
        // As in Flink: a failed job's checkpoints stay, those of one that ended otherwise go.
        if status != JobStatus::Failed {
            let of_job = self.p.shared.job_id.to_string();
            if let Err(error) = self.p.checkpoints.delete_prefix(&of_job).await {
                tracing::warn!("checkpoints of job {of_job} could not be removed: {error}");
            }
        }
        self.set_status(status);
        let _ = self.p.done.send(true);
    }
}
