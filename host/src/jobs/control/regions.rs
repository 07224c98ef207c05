//! The subtasks of each region: set running, told things, stopped, and joined when they have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regraft_model::id::{AttemptId, CheckpointId, OperatorUid};

use super::failover::JobFailure;
use super::{Background, Controller, Ending, Stage};
use crate::dataflow::control::{Control, Event, Mailbox, SubtaskId, locked};
use crate::dataflow::executor::Running;
use crate::environment::run_blocking;
use crate::graph::job_graph::NodeKind;
use crate::jobs::attempt::{Ready, descriptions};
use crate::jobs::deploy::Deployed;
use crate::jobs::handle::JobError;
use crate::jobs::status::JobStatus;

/// What runs of one region.
#[derive(Default)]
pub(super) struct RegionRun {
    /// The attempt that it is of.
    attempt: Option<AttemptId>,
    /// The way into each subtask, of those that run or have ended.
    pub(super) mailboxes: BTreeMap<SubtaskId, Arc<Mailbox>>,
    /// Subtasks that have ended.
    gone: BTreeSet<SubtaskId>,
    cancelled: Arc<AtomicBool>,
    running: Option<Box<dyn Running>>,
    joining: bool,
}

impl RegionRun {
    /// Whether nothing of it runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && !self.joining
    }

    /// Ends its subtasks between two steps.
    pub(super) fn stop(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        for mailbox in self.mailboxes.values() {
            mailbox.wake.wake();
        }
    }
}

impl Drop for RegionRun {
    /// Nobody listens to its subtasks any more.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Controller {
    /// Sets an attempt running.
    pub(super) fn launch(&mut self, ready: Ready) {
        let Ready {
            attempt,
            version,
            modules,
            restored,
            from,
            lineage,
            last_id,
            mut checkpoints,
            savepoints,
            deployed,
        } = ready;
        self.facts.attempt = attempt;
        self.facts.version = version;
        self.facts.modules.clone_from(&modules);
        self.facts.lineage = lineage;
        {
            let mut state = locked(&self.shared.state);
            state.attempt = attempt;
            state.version = version;
            state.descriptions = descriptions(&modules);
            state.modules = modules;
        }
        self.rounds.skip_to(last_id);
        checkpoints.reverse();
        self.kept = checkpoints.into();
        self.savepoints = savepoints;
        self.committed = restored;
        self.schedule.restarted(self.now_ns());
        if let Some(id) = restored {
            // Regions that ran on may not know that what they had prepared is committed.
            self.broadcast(&Control::Completed { id, committed: true });
        }
        let restarted = matches!(self.stage, Stage::Restarting(_));
        if restarted {
            tracing::info!(
                "Job {} ({}) goes on from {from}, attempt {attempt}.",
                self.shared.graph.name,
                self.job.job_id
            );
        }
        let before = std::mem::replace(&mut self.stage, Stage::Running);
        for (region, deployed) in deployed {
            self.run_region(region, attempt, deployed);
        }
        if self.is_running() {
            self.set_status(JobStatus::Running);
        }
        self.restarted(before, version, &from);
    }

    fn run_region(&mut self, number: usize, attempt: AttemptId, deployed: Deployed) {
        let Deployed {
            subtasks,
            mailboxes,
            sources,
        } = deployed;
        let ids: Vec<SubtaskId> = mailboxes.keys().copied().collect();
        self.exhausted.retain(|subtask| !mailboxes.contains_key(subtask));
        let events = self.job.event_sink(attempt);
        let cancelled = Arc::new(AtomicBool::new(false));
        let started = self.job.host.executor.start(subtasks, &self.clock, &events, &cancelled);
        let draining = self.after_end.is_some();
        let Some(region) = self.regions.get_mut(number) else {
            return;
        };
        region.attempt = Some(attempt);
        region.mailboxes = mailboxes;
        region.gone.clear();
        region.cancelled = cancelled;
        self.rounds.started(&ids, &sources);
        match started {
            Ok(running) => {
                region.running = Some(running);
                if draining {
                    for mailbox in region.mailboxes.values() {
                        mailbox.send(Control::Drain);
                    }
                }
            }
            Err(error) => {
                // Those that were started end by themselves; nobody listens to them.
                region.stop();
                region.attempt = None;
                let message = format!("cannot start a thread: {error}");
                self.fail(JobFailure::new(message, [number]));
            }
        }
    }

    /// The region of a subtask.
    pub(super) fn region_of(&self, subtask: SubtaskId) -> Option<usize> {
        let chain = subtask.chain as usize;
        self.job
            .regions
            .iter()
            .position(|region| region.chains.contains(&chain))
    }

    /// The region of a node.
    pub(super) fn region_of_uid(&self, uid: &OperatorUid) -> Option<usize> {
        self.job.regions.iter().position(|region| region.nodes.contains(uid))
    }

    /// Whether an event is of the attempt that runs: what an earlier one still tells is of no interest.
    pub(super) fn is_of_its_region(&self, attempt: AttemptId, event: &Event) -> bool {
        let region = match event {
            Event::Exhausted(subtask) | Event::Ended(subtask) | Event::Finished(subtask) => self.region_of(*subtask),
            Event::Snapshot(snapshot) => self.region_of(snapshot.subtask),
            Event::SwapGap(gap) => self.region_of_uid(&gap.uid),
            Event::Failed(failure) => self.region_of_uid(&failure.uid),
        };
        region
            .and_then(|region| self.regions.get(region))
            .is_some_and(|region| region.attempt == Some(attempt))
    }

    /// A subtask has ended.
    pub(super) fn gone(&mut self, subtask: SubtaskId) {
        if let Some(region) = self.region_of(subtask).and_then(|region| self.regions.get_mut(region)) {
            region.gone.insert(subtask);
        }
    }

    /// The subtask that a node's subtask is in.
    pub(super) fn subtask_of(&self, uid: &OperatorUid, index: u32) -> Option<SubtaskId> {
        let chain = self.job.chains.iter().position(|uids| uids.contains(uid))?;
        Some(SubtaskId {
            chain: chain as u32,
            index,
        })
    }

    /// Joins the threads of regions whose subtasks have all ended. They have told that they are done: it does not take long.
    pub(super) fn join_ended(&mut self) {
        for number in 0..self.regions.len() {
            let Some(region) = self.regions.get_mut(number) else {
                continue;
            };
            if region.gone.len() < region.mailboxes.len() {
                continue;
            }
            if let Some(running) = region.running.take() {
                region.joining = true;
                let environment = self.job.host.environment.clone();
                self.beside(async move {
                    let _ = run_blocking(&*environment, move || running.join()).await;
                    Background::Joined(number)
                });
            }
        }
    }

    pub(super) fn joined(&mut self, number: usize) {
        if let Some(region) = self.regions.get_mut(number) {
            region.joining = false;
            region.attempt = None;
        }
    }

    /// Sends a message to every subtask.
    pub(super) fn broadcast(&self, message: &Control) {
        for mailbox in self.regions.iter().flat_map(|region| region.mailboxes.values()) {
            mailbox.send(message.clone());
        }
    }

    /// Sends a message to one subtask.
    pub(super) fn send(&self, subtask: SubtaskId, message: Control) {
        let mailbox = self.regions.iter().find_map(|region| region.mailboxes.get(&subtask));
        if let Some(mailbox) = mailbox {
            mailbox.send(message);
        }
    }

    /// How many subtasks have a source.
    pub(super) fn sources(&self) -> usize {
        let sources = self.job.graph.nodes.iter();
        let sources = sources.filter(|node| matches!(node.kind, NodeKind::Source(_)));
        sources.map(|node| node.parallelism as usize).sum()
    }

    /// A subtask as people know it: the uids of its chain, and its index.
    pub(super) fn subtask_name(&self, id: SubtaskId) -> String {
        let uids = self.job.chains.get(id.chain as usize);
        let uids = uids.map(|uids| uids.iter().map(OperatorUid::as_str).collect::<Vec<_>>().join("+"));
        format!("{}#{}", uids.unwrap_or_default(), id.index)
    }

    /// Ends everything: no round begins any more, and those that are not yet being stored are given up.
    pub(super) fn stop_all(&mut self, ending: Ending, why: &str) {
        self.stage = Stage::Ending(ending);
        self.job.checkpoints.end();
        for region in &self.regions {
            region.stop();
        }
        let given_up: Vec<CheckpointId> = self.flights.keys().copied().collect();
        for id in given_up {
            if self.rounds.abort(id).is_some() {
                self.round_failed(id, why);
            }
        }
        let mut waiting: Vec<_> = self.waiting.drain(..).chain(self.after_end.take()).collect();
        for request in &mut waiting {
            super::reply(request, Err(JobError::failed(why)));
        }
    }
}
