//! What runs beside the control loop: storing a round, then committing it.

use std::sync::Arc;
use std::time::Duration;

use regraft_model::id::{CheckpointId, OperatorUid};

use super::{Background, Controller, totals};
use crate::checkpoint::round::Acknowledged;
use crate::checkpoint::store::{StoreAs, Stored, store};
use crate::dataflow::control::{Control, locked};
use crate::dataflow::sink::SinkCommitter;
use crate::environment::{Environment, run_blocking};
use crate::savepoint::metadata::{Owner, Trigger};
use crate::savepoint::publish::remove_partial;
use crate::storage::{Storage, StoreError, paths};
use regraft_model::snapshot::SnapshotKind;

/// A commit is tried this often before the job fails.
const COMMIT_ATTEMPTS: u32 = 5;

impl Controller {
    /// Writes the round's files, beside the loop.
    pub(super) fn store(&mut self, round: Acknowledged) {
        let id = round.id;
        let Some(active) = self.active.as_mut() else { return };
        let target = match &active.request.savepoint_dir {
            Some(dir) => {
                let name = paths::savepoint(self.p.shared.job_id, self.p.environment.random() as u64);
                self.p.stores.open(dir).and_then(|dir| dir.child(&name))
            }
            None => self.p.checkpoints.child(&paths::checkpoint(self.p.shared.job_id, id)),
        };
        let target = match target {
            Ok(target) => target,
            Err(error) => return self.abort_round(id, &error.to_string()),
        };
        active.target = Some(target.clone());
        let user = active.request.savepoint_dir.is_some();
        let how = StoreAs {
            layout: active.request.layout,
            trigger: trigger(round.kind),
            owner: if user { Owner::User } else { Owner::Host },
            completed_ms: self.p.clock.now_ms(),
        };
        // The version that goes on behind an upgrade's barrier is not yet that of the state before it.
        let facts = self.p.facts.clone();
        let done = self.background.0.clone();
        self.in_background += 1;
        let environment = self.p.environment.clone();
        self.p.environment.spawn(Box::pin(async move {
            let stored = store(&*environment, round, &facts, &target, how)
                .await
                .map_err(|error| error.to_string());
            let _ = done.send(Background::Stored(id, user, stored));
        }));
    }

    pub(super) async fn background_done(&mut self, done: Background) {
        self.in_background -= 1;
        match done {
            // The job ended meanwhile: nothing is committed any more, but what the savepoint names stays.
            Background::Stored(_, user, Ok(_)) if !self.running() => self.savepoint_names_pending |= user,
            Background::Stored(id, _, Ok(stored)) => self.stored(id, stored).await,
            Background::Stored(id, _, Err(error)) => self.abort_round(id, &error),
            Background::Committed(id, Ok(())) => self.completed(id),
            Background::Committed(id, Err(error)) => {
                let path = self
                    .active
                    .as_ref()
                    .and_then(|active| active.report.as_ref())
                    .map(|r| r.path.clone());
                let message = format!(
                    "checkpoint {id} is complete at {}, but its output could not be committed: {error}",
                    path.unwrap_or_default()
                );
                self.fail(message, None);
            }
        }
    }

    async fn stored(&mut self, id: CheckpointId, stored: Stored) {
        let now = self.now_ns();
        let Some(active) = self.active.as_mut().filter(|active| active.id == id) else {
            return;
        };
        if let (Some(report), Some(target)) = (&mut active.report, &active.target) {
            report.path = target.url();
            report.bytes = stored.bytes;
            report.duration_ms = (now - active.started_ns) / 1_000_000;
        }
        let (kind, swaps) = (active.request.kind, active.request.swap.is_some());
        if swaps && let Err(error) = self.flip_version().await {
            return self.abort_round(id, &error.to_string());
        }
        locked(&self.p.shared.state).sink_totals = totals(&stored.sink_states);
        if !kind.commits() {
            return self.completed(id);
        }
        let commits: Vec<_> = stored
            .handles
            .into_iter()
            .filter(|(_, handles)| !handles.is_empty())
            .filter_map(|(uid, handles)| Some((uid.clone(), self.p.committers.get(&uid)?.clone(), handles)))
            .collect();
        let done = self.background.0.clone();
        self.in_background += 1;
        let environment = self.p.environment.clone();
        self.p.environment.spawn(Box::pin(async move {
            let result = commit_all(&*environment, Arc::new(commits)).await;
            let _ = done.send(Background::Committed(id, result));
        }));
    }

    /// The durable record that the job now runs other modules: created, never overwritten.
    async fn flip_version(&mut self) -> Result<(), StoreError> {
        let Some(active) = self.active.as_mut() else {
            return Ok(());
        };
        let Some(swap) = &active.request.swap else {
            return Ok(());
        };
        let version = regraft_model::id::JobVersion(self.p.facts.version.0 + 1);
        let modules: serde_json::Map<String, serde_json::Value> = self
            .p
            .facts
            .modules
            .iter()
            .map(|(uid, module)| (uid, swap.modules.get(uid).unwrap_or(module)))
            .map(|(uid, module)| (uid.to_string(), module.digest().to_string().into()))
            .collect();
        let record = serde_json::json!({ "version": version, "checkpoint_id": active.id, "modules": modules });
        let name = format!("{}/versions/{version}.json", self.p.shared.job_id);
        self.p.checkpoints.create_if_absent(&name, record.to_string()).await?;
        for (uid, module) in &swap.modules {
            self.p.facts.modules.insert(uid.clone(), module.clone());
        }
        self.p.facts.version = version;
        if let Some(report) = &mut active.report {
            report.version = version;
        }
        let mut state = locked(&self.p.shared.state);
        state.version = version;
        state.modules.clone_from(&self.p.facts.modules);
        for (uid, module) in &state.modules.clone() {
            state
                .descriptions
                .insert(uid.clone(), module.description().clone().into());
        }
        Ok(())
    }

    /// The newest checkpoint takes the place of the one before it, which goes.
    pub(super) fn replace_checkpoint(&mut self, new: Option<Storage>) {
        if let Some(old) = std::mem::replace(&mut self.last_checkpoint, new) {
            self.p.environment.spawn(Box::pin(async move {
                if let Err(error) = old.delete_prefix("").await {
                    tracing::warn!("an old checkpoint could not be removed: {error}");
                }
            }));
        }
    }

    /// Removes what a given-up round has written.
    pub(super) fn remove_partial(&self, storage: Storage) {
        self.p.environment.spawn(Box::pin(async move {
            if let Err(error) = remove_partial(&storage).await {
                tracing::warn!("files of a failed checkpoint could not be removed: {error}");
            }
        }));
    }

    /// Messages that are no longer of use.
    pub(super) fn terminate(&self) {
        self.broadcast(&Control::Terminate);
    }
}

type Commits = Vec<(OperatorUid, Arc<dyn SinkCommitter>, Vec<serde_json::Value>)>;

/// Commits what every sink has prepared; tried again a few times where that fails.
async fn commit_all(environment: &dyn Environment, commits: Arc<Commits>) -> Result<(), String> {
    let mut result = Ok(());
    for attempt in 0..COMMIT_ATTEMPTS {
        let all = commits.clone();
        let commit = move || {
            all.iter().try_for_each(|(uid, committer, handles)| {
                let committed = committer.commit(handles);
                committed.map_err(|error| format!("sink \"{uid}\": {error}"))
            })
        };
        result = run_blocking(environment, commit)
            .await
            .unwrap_or_else(|panicked| Err(panicked.to_string()));
        if result.is_ok() {
            break;
        }
        environment.sleep(Duration::from_millis(50 << attempt)).await;
    }
    result
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
