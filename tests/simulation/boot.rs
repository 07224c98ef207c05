//! The start of a process of the host: it brings the job of its list back, or starts it if it had never begun.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use regraft::dataflow::control::locked;
use regraft::dataflow::operator::{Modules, OperatorModule};
use regraft::environment::Environment as _;
use regraft::graph::job_graph::{JobGraph, NodeKind};
use regraft::jobs::admission::Descriptions;
use regraft::jobs::bring_back::{RecoverJob, Recovered, forget, recover};
use regraft::jobs::durable::records::EndRecord;
use regraft::jobs::handle::JobHandle;
use regraft::jobs::start::{HostContext, LoadModule, NewJob, RestoreFrom, start};
use regraft::savepoint::restore::RestoreOptions;
use regraft_model::id::{JobId, OperatorUid};

use crate::disk::{Files, MachineRef};
use crate::fate::Fate;
use crate::guests::Native;
use crate::machine::Process;
use crate::play::{CHECKPOINTS, Play, SAVEPOINTS};
use crate::store::SimStore;
use crate::world::{Kind, graph};

/// The point from which a job starts.
#[derive(Debug, Clone)]
pub enum From {
    Nothing,
    Snapshot(String),
}

/// A job in the host's list.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: JobId,
    pub from: From,
    /// The job file.
    pub text: String,
    /// True if its end of input is a savepoint (`--savepoint-at-end`).
    pub at_end: bool,
    /// True if its submitter was told that it runs.
    pub accepted: bool,
    /// The end of the job, once it is noted.
    pub ended: Option<EndRecord>,
}

/// Loads the modules that a job has kept.
struct Loader(Fate);

impl LoadModule for Loader {
    fn load(&self, _: &OperatorUid, component: Bytes) -> Result<Arc<dyn OperatorModule>, String> {
        Native::load(&component, &self.0).ok_or_else(|| format!("no module: {component:?}"))
    }
}

/// The result of a start of the host.
pub enum Boot {
    Runs(JobHandle),
    Ended(EndRecord),
    Failed(String),
}

/// A process that has followed one that sleeps, and the result of its start once it is there.
pub struct Follower {
    pub process: Process,
    pub host: HostContext,
    pub booted: Arc<Mutex<Option<Boot>>>,
}

impl Play {
    /// Returns the modules of a graph's operators, in a version.
    pub fn modules(&self, graph: &JobGraph, version: u32) -> Modules {
        let mut modules = Modules::new();
        for node in &graph.nodes {
            let kind = self
                .world
                .nodes
                .iter()
                .find(|of| of.uid == node.uid.as_str())
                .map(|of| of.kind);
            if let (NodeKind::Operator(_), Some(Kind::Operator(logic))) = (&node.kind, kind) {
                let picky = self.world.fails(node.uid.as_str());
                modules.insert(node.uid.clone(), Native::module(logic, picky, version, &self.fate));
            }
        }
        modules
    }

    /// Starts the next process.
    pub fn host(&mut self) -> (Process, HostContext) {
        self.process += 1;
        self.machine.begin(self.process);
        self.host_of(self.process)
    }

    /// Returns the host of a process.
    fn host_of(&self, number: u64) -> (Process, HostContext) {
        let files = Files {
            disk: self.disk.clone(),
            fate: self.fate.clone(),
            machine: MachineRef(self.machine.clone()),
            process: number,
        };
        let process = Process {
            machine: self.machine.clone(),
            number,
            files: Arc::new(files),
            names: self.names.clone(),
            listed_splits_most: self.world.listed_splits_most,
        };
        let store = SimStore {
            objects: self.objects.clone(),
            of: Some((process.clone(), self.fate.clone())),
        };
        let host = HostContext {
            environment: Arc::new(process.clone()),
            stores: Arc::new(store),
            executor: Arc::new(process.clone()),
            checkpoint_dir: CHECKPOINTS.into(),
            recovers: true,
        };
        (process, host)
    }

    /// Lets a process that sleeps from now on be followed by another one, as where its lock has been bypassed. Returns where that
    /// one is put.
    pub fn arm_successor(&self) -> Arc<Mutex<Option<Follower>>> {
        let number = self.process + 1;
        let (process, host) = self.host_of(number);
        let (machine, entry, submission) = (self.machine.clone(), self.entry.clone(), self.submission());
        let slot: Arc<Mutex<Option<Follower>>> = Arc::default();
        let follower = slot.clone();
        self.machine.set_successor(Some(Box::new(move || {
            machine.begin(number);
            let booted = Arc::default();
            let done: Arc<Mutex<Option<Boot>>> = Arc::clone(&booted);
            let booting = boot(host.clone(), entry, submission);
            process.spawn(Box::pin(async move {
                let boot = booting.await;
                *locked(&done) = Some(boot);
            }));
            *locked(&follower) = Some(Follower { process, host, booted });
        })));
        slot
    }

    /// Returns the entry of the list in the two forms that bring a job back and start it.
    pub fn submission(&self) -> (RecoverJob, NewJob) {
        let graph = graph(&self.entry.text);
        let restore = |location: &String| RestoreFrom {
            location: location.clone(),
            options: RestoreOptions::default(),
            allow_later_output: false,
        };
        let recover = RecoverJob {
            job_id: self.entry.id,
            graph: graph.clone(),
            loader: Arc::new(Loader(self.fate.clone())),
            savepoint_at_end: self.entry.at_end.then(|| SAVEPOINTS.to_owned()),
        };
        let start = NewJob {
            modules: self.modules(&graph, self.version),
            graph,
            restore: match &self.entry.from {
                From::Nothing => None,
                From::Snapshot(location) => Some(restore(location)),
            },
            savepoint_at_end: self.entry.at_end.then(|| SAVEPOINTS.to_owned()),
            job_id: Some(self.entry.id),
        };
        (recover, start)
    }

    /// Checks that a job runs a single version, and not an older one than was reported.
    pub fn runs_one_version(&mut self, handle: &JobHandle) -> Result<(), String> {
        let running = locked(&handle.shared.state).modules.clone();
        let graph = graph(&self.entry.text);
        let is = |version: u32| {
            let digest = |modules: &Modules| modules.values().map(|module| module.digest()).collect::<Vec<_>>();
            digest(&self.modules(&graph, version)) == digest(&running)
        };
        if is(self.version) {
            return Ok(());
        }
        if self.upgrading && is(self.version + 1) {
            (self.version, self.upgrading) = (self.version + 1, false);
            return Ok(());
        }
        let found: Vec<_> = running
            .values()
            .map(|module| String::from_utf8_lossy(module.bytes()).into_owned())
            .collect();
        Err(format!(
            "the job runs {found:?}, and should run version {}",
            self.version
        ))
    }

    /// Removes what the job has left behind, as a host does once it has noted the end.
    pub fn forget(&mut self, process: &Process, host: &HostContext) -> Result<Option<()>, String> {
        let (host, id, graph) = (host.clone(), self.entry.id, graph(&self.entry.text));
        let done = self.wait(process, async move {
            forget(&host, id, graph).await.map_err(|error| error.to_string())
        })?;
        if let Some(Err(error)) = &done {
            self.note(format_args!("not forgotten: {error}"));
        }
        Ok(done.map(|_| ()))
    }
}

/// Brings the job back, or starts it.
pub async fn boot(host: HostContext, entry: Entry, (back, new): (RecoverJob, NewJob)) -> Boot {
    match recover(&host, back).await {
        Ok(Recovered::Running(handle)) => Boot::Runs(handle),
        Ok(Recovered::Ended(end)) => Boot::Ended(end),
        Ok(Recovered::NeverBegun) if entry.accepted => {
            Boot::Failed("nothing is there of a job that was said to run".to_owned())
        }
        Ok(Recovered::NeverBegun) => match start(&host, new).await {
            Ok(handle) => Boot::Runs(handle),
            Err(error) => Boot::Failed(error.to_string()),
        },
        Err(error) => Boot::Failed(error.to_string()),
    }
}

/// Returns the description of each module.
pub fn descriptions(modules: &Modules) -> Descriptions {
    let description = |module: &Arc<dyn OperatorModule>| module.description().clone().into();
    modules
        .iter()
        .map(|(uid, module)| (uid.clone(), description(module)))
        .collect()
}
