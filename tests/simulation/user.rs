//! Actions of the user on a running job, and what must be true when one is reported as done.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use regraft::dataflow::control::locked;
use regraft::environment::Environment as _;
use regraft::jobs::durable::records::EndRecord;
use regraft::jobs::handle::{JobError, JobHandle, SavepointTarget, SnapshotReport, SnapshotRequest};
use regraft::jobs::start::HostContext;
use regraft::jobs::status::JobStatus;
use regraft::savepoint::rows::Layout;
use regraft::upgrade::error::UpgradeError;
use regraft::upgrade::upgrade;

use crate::boot::{Boot, Follower, From};
use crate::check::{is_of, part_of, visible};
use crate::fate::Action;
use crate::machine::Process;
use crate::play::{Life, Play, SAVEPOINTS, take};
use crate::world::OUT;

type Slot<T> = Arc<Mutex<Option<T>>>;

/// A request that the user waits for.
enum Asked {
    Snapshot(Action, Slot<Result<SnapshotReport, JobError>>),
    Upgrade(Slot<Result<(), UpgradeError>>),
}

impl Play {
    /// Attends a running job until it ends. `faults` is the number of faults when its process began.
    pub fn attend(
        &mut self,
        process: &Process,
        host: &HostContext,
        handle: &JobHandle,
        faults: Option<u64>,
    ) -> Result<Life, String> {
        let mut asked: Vec<Asked> = vec![];
        let follower = self.arm_successor();
        loop {
            self.step()?;
            if self.is_dead() {
                return Ok(Life::Over);
            }
            if let Some(follower) = take(&follower) {
                return self.follow(follower, faults);
            }
            if let Some(action) = self.fate.take_action() {
                asked.extend(self.ask(process, handle, action));
            }
            let now = self.machine.now_ns();
            if asked.is_empty() && self.world.input.is_to_be_stopped(now) {
                asked.extend(self.ask(process, handle, Action::Stop));
            }
            for waiting in std::mem::take(&mut asked) {
                asked.extend(self.answered(handle, waiting)?);
            }
            // Every request is answered before the end.
            let status = handle.status();
            if !asked.is_empty() || !status.is_terminal() {
                continue;
            }
            if status == JobStatus::Suspended {
                return Ok(Life::Over);
            }
            if self.sleeper.is_some() && locked(&handle.shared.state).lost {
                // One that slept before it had begun an attempt is as good as a host that is started anew.
                self.count("lost to one that slept");
                return Ok(Life::Over);
            }
            let end = {
                let state = locked(&handle.shared.state);
                EndRecord {
                    status,
                    ended_at: 0,
                    savepoint: state.final_savepoint.clone(),
                    failure: state.failure.clone(),
                    failure_kind: state.failure_kind,
                    keeps: false,
                }
            };
            return self.ended(process, host, &end, faults);
        }
    }

    /// Turns to the process that runs the job while another one has slept, and now runs beside it. Requests to that one are not
    /// waited for any more.
    pub fn follow(&mut self, follower: Follower, faults: Option<u64>) -> Result<Life, String> {
        let Follower { process, host, booted } = follower;
        self.note(format_args!(
            "process {} follows process {}",
            process.number, self.process
        ));
        self.sleeper = Some(self.process);
        self.process = process.number;
        let boot = loop {
            if let Some(boot) = take(&booted) {
                break boot;
            }
            self.step()?;
            if self.is_dead() {
                return Ok(Life::Over);
            }
        };
        match boot {
            Boot::Runs(handle) => {
                self.count("brought back beside one that slept");
                self.entry.accepted = true;
                self.runs_one_version(&handle)?;
                self.attend(&process, &host, &handle, faults)
            }
            Boot::Ended(end) => {
                self.count("ended by one that slept");
                self.ended(&process, &host, &end, faults)
            }
            Boot::Failed(error) => {
                self.count("not brought back beside one that slept");
                self.note(format_args!("the job does not start: {error}"));
                Ok(Life::Over)
            }
        }
    }

    /// Checks if an answer has come, and returns the request if it has not.
    fn answered(&mut self, handle: &JobHandle, asked: Asked) -> Result<Option<Asked>, String> {
        match asked {
            Asked::Snapshot(action, slot) => match take(&slot) {
                None => return Ok(Some(Asked::Snapshot(action, slot))),
                Some(result) => self.saved(handle, action, result)?,
            },
            Asked::Upgrade(slot) => match take(&slot) {
                None => return Ok(Some(Asked::Upgrade(slot))),
                Some(result) => self.upgraded(&result),
            },
        }
        Ok(None)
    }

    fn ask(&mut self, process: &Process, handle: &JobHandle, action: Action) -> Option<Asked> {
        self.note(format_args!("the user asks: {action:?}"));
        let job = handle.clone();
        match action {
            Action::Cancel => {
                handle.cancel();
                None
            }
            Action::Suspend => {
                handle.suspend();
                None
            }
            // One at a time, so that the expected version is known.
            Action::Upgrade if self.upgrading => None,
            Action::Upgrade => {
                let slot = Slot::default();
                let result = slot.clone();
                let modules = self.modules(&handle.shared.graph, self.version + 1);
                self.upgrading = true;
                process.spawn(Box::pin(async move {
                    let done = upgrade(&job, modules, Instant::now()).await.map(|_| ());
                    *locked(&result) = Some(done);
                }));
                Some(Asked::Upgrade(slot))
            }
            Action::Savepoint | Action::Stop | Action::Drain => {
                let slot = Slot::default();
                let result = slot.clone();
                let intermediate = action == Action::Savepoint;
                let target = SavepointTarget {
                    dir: SAVEPOINTS.to_owned(),
                    layout: *self.random.pick(&[Layout::Canonical, Layout::Native]),
                };
                let drain = action == Action::Drain;
                let request = if intermediate {
                    SnapshotRequest::Savepoint(target)
                } else {
                    SnapshotRequest::Stop { target, drain }
                };
                process.spawn(Box::pin(async move {
                    let done = job.snapshot(request).await;
                    *locked(&result) = Some(done);
                }));
                Some(Asked::Snapshot(action, slot))
            }
        }
    }

    fn upgraded(&mut self, result: &Result<(), UpgradeError>) {
        self.upgrading = false;
        match result {
            Ok(()) => {
                self.version += 1;
                self.count("upgrade done");
            }
            // The job goes on as it was; only a crash leaves the user without an answer.
            Err(error) => {
                self.count("upgrade failed");
                self.note(format_args!("upgrade: {error}"));
            }
        }
    }

    fn saved(
        &mut self,
        handle: &JobHandle,
        action: Action,
        result: Result<SnapshotReport, JobError>,
    ) -> Result<(), String> {
        let report = match result {
            Ok(report) => report,
            Err(error) => {
                self.count(format!("{action:?} failed"));
                self.note(format_args!("{action:?}: {error}"));
                return Ok(());
            }
        };
        self.count(format!("{action:?} done"));
        self.note(format_args!("{action:?}: {}", report.path));
        self.savepoints
            .push((report.path.clone(), handle.job_id(), report.checkpoint_id));
        if action != Action::Savepoint {
            // It is reported as committed, so its output must be visible.
            self.stopped(&report.path)?;
        }
        Ok(())
    }

    /// Goes back to a savepoint or to the beginning, as a user does, and removes the output written since.
    pub fn go_back(&mut self) -> From {
        let at = self.random.below(self.savepoints.len() as u64 + 1) as usize;
        let to = self.savepoints.get(at).cloned();
        // What it wrote is removed below, so later ones cannot be restored any more.
        self.savepoints.truncate(if to.is_some() { at + 1 } else { 0 });
        self.newest.clone_from(&to);
        let (jobs, of, from) = match to {
            None => (self.jobs.clone(), None, From::Nothing),
            Some((path, job, id)) => {
                let after = self.jobs.iter().skip_while(|other| **other != job).skip(1);
                (after.copied().collect(), Some((job, id)), From::Snapshot(path))
            }
        };
        for (sink, parts) in visible(&self.disk) {
            for name in parts.keys() {
                let (short, id) = part_of(name).unwrap_or_default();
                let later = of.is_some_and(|(job, at)| is_of(job, short) && id > at.0);
                if later || jobs.iter().any(|job| is_of(*job, short)) {
                    self.note(format_args!("the user removes {sink}/{name}"));
                    self.disk.remove(&Path::new(OUT).join(&sink).join(name));
                }
            }
        }
        from
    }
}
