//! Starts a job: components checked against the graph, a savepoint read, subtasks made and set running.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion};
use tokio::sync::{mpsc, watch};

use super::admission::{self, Descriptions};
use super::control::{Controller, Parts};
use super::deploy::{DeployContext, DeployError, Deployed, Identity, committer, deploy};
use super::handle::{JobError, JobHandle, JobShared, JobState, SnapshotRequest};
use super::restore::{self, Loaded};
use super::status::JobStatus;
use crate::checkpoint::round::Rounds;
use crate::checkpoint::store::JobFacts;
use crate::dataflow::control::EventSink;
use crate::dataflow::executor::Executor;
use crate::dataflow::operator::Modules;
use crate::dataflow::sink::file::later_parts;
use crate::environment::files::FileSystem;
use crate::environment::{Environment, run_blocking};
use crate::graph::job_graph::{JobGraph, NodeKind, SinkConnector};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Ancestor;
use crate::savepoint::restore::{RestoreOptions, plan_restore};
use crate::savepoint::rows::Layout;
use crate::storage::{Storage, Stores};
use regraft_model::snapshot::SnapshotKind;

/// What a host lends every job.
#[derive(Clone)]
pub struct HostContext {
    /// The machine.
    pub environment: Arc<dyn Environment>,
    /// Where objects are.
    pub stores: Arc<dyn Stores>,
    /// What runs subtasks.
    pub executor: Arc<dyn Executor>,
    /// Where checkpoints go by default.
    pub checkpoint_dir: PathBuf,
}

/// A job to start.
pub struct NewJob {
    /// Its graph.
    pub graph: JobGraph,
    /// Its components.
    pub modules: Modules,
    /// Where its state comes from.
    pub restore: Option<RestoreFrom>,
    /// Where to save it when all input is read, rather than to end it (`--savepoint-at-end`).
    pub savepoint_at_end: Option<String>,
}

/// A savepoint to start from.
#[derive(Debug, Clone)]
pub struct RestoreFrom {
    /// Its directory or `_metadata` file, as a path or URL.
    pub location: String,
    /// What may be lost.
    pub options: RestoreOptions,
    /// Whether output directories may hold parts of a later state.
    pub allow_later_output: bool,
}

/// Starts a job and gives the way to talk to it.
///
/// # Errors
/// [`JobError`], of kind usage where job file or modules must change; nothing has run then.
pub async fn start(host: &HostContext, job: NewJob) -> Result<JobHandle, JobError> {
    let NewJob {
        graph,
        modules,
        restore,
        savepoint_at_end,
    } = job;
    let descriptions: Descriptions = modules
        .iter()
        .map(|(uid, module)| (uid.clone(), Arc::new(module.description().clone())))
        .collect();
    admission::check(&graph, &descriptions).map_err(|refused| JobError {
        uid: refused.uid.as_ref().map(ToString::to_string),
        ..JobError::usage(refused.to_string())
    })?;
    let job_id = JobId::from_bits(host.environment.random());
    let restored = match restore {
        Some(from) => Some(read_savepoint(host, &graph, &descriptions, &from, job_id).await?),
        None => None,
    };
    let (loaded, lineage, next, from) = match restored {
        Some(Restored {
            loaded,
            lineage,
            next,
            url,
        }) => (loaded, lineage, next, Some(url)),
        None => (Loaded::default(), vec![], CheckpointId(1), None),
    };
    let identity = Identity {
        job_id,
        attempt: AttemptId(1),
        version: JobVersion(1),
    };
    let checkpoint_dir = graph.checkpoint.dir.clone();
    let checkpoint_dir = checkpoint_dir.unwrap_or_else(|| host.checkpoint_dir.to_string_lossy().into_owned());
    let checkpoints = host
        .stores
        .open(&checkpoint_dir)
        .map_err(|error| JobError::failed(error.to_string()))?;
    let graph = Arc::new(graph);
    let (event_sender, events) = mpsc::unbounded_channel();
    let sink: EventSink = Arc::new(move |event| {
        // After the control loop has ended nobody listens any more.
        let _ = event_sender.send(event);
    });
    let hold_at_end = savepoint_at_end.is_some();
    let plan = DeployPlan {
        graph: graph.clone(),
        modules: modules.clone(),
        descriptions: descriptions.clone(),
    };
    let (environment, events_to) = (host.environment.clone(), sink.clone());
    let deploying = move || plan.deploy(loaded, identity, &*environment, events_to, hold_at_end);
    let deployed = run_blocking(&*host.environment, deploying).await;
    let deployed = deployed
        .map_err(|error| JobError::failed(error.to_string()))?
        .map_err(|error| deploy_error(&error))?;
    let shared = Arc::new(JobShared {
        job_id,
        graph: graph.clone(),
        started_at: host.environment.clock().now_ms(),
        restored_from: from,
        counters: deployed.counters.clone(),
        state: Mutex::new(JobState {
            status: JobStatus::Created,
            version: identity.version,
            modules: modules.clone(),
            descriptions,
            last_round: None,
            rounds: 0,
            failure: None,
            failed_uid: None,
            sink_totals: std::collections::BTreeMap::new(),
            final_savepoint: None,
        }),
    });
    let facts = JobFacts {
        graph,
        job_id,
        attempt: identity.attempt,
        version: identity.version,
        lineage,
        modules,
    };
    let at_end = savepoint_at_end.map(|dir| SnapshotRequest {
        kind: SnapshotKind::Stop,
        savepoint_dir: Some(dir),
        layout: Layout::Canonical,
        drain: false,
        swap: None,
        reply: None,
    });
    let channels = (events, sink, checkpoints);
    launch(host, shared, facts, deployed, next, channels, at_end)
}

type Channels = (
    mpsc::UnboundedReceiver<crate::dataflow::control::Event>,
    EventSink,
    Storage,
);

/// Sets the threads and the control loop running.
fn launch(
    host: &HostContext,
    shared: Arc<JobShared>,
    facts: JobFacts,
    deployed: Deployed,
    next: CheckpointId,
    (events, sink, checkpoints): Channels,
    savepoint_at_end: Option<SnapshotRequest>,
) -> Result<JobHandle, JobError> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let rounds = Rounds::new(deployed.mailboxes.keys().copied().collect(), deployed.sources, next);
    let clock = host.environment.clock();
    let running = host
        .executor
        .start(deployed.subtasks, &clock, &sink, &cancelled)
        .map_err(|error| JobError::failed(format!("cannot start a thread: {error}")))?;
    let (commands, receiver) = mpsc::unbounded_channel();
    let (done, is_done) = watch::channel(false);
    let controller = Controller::new(Parts {
        shared: shared.clone(),
        clock,
        environment: host.environment.clone(),
        stores: host.stores.clone(),
        facts,
        rounds,
        mailboxes: deployed.mailboxes,
        chains: deployed.chains,
        committers: deployed.committers,
        checkpoints,
        events,
        commands: receiver,
        cancelled,
        running: Some(running),
        done,
        savepoint_at_end,
    });
    host.environment.spawn(Box::pin(controller.run()));
    Ok(JobHandle {
        environment: host.environment.clone(),
        shared,
        commands,
        done: is_done,
    })
}

struct DeployPlan {
    graph: Arc<JobGraph>,
    modules: Modules,
    descriptions: Descriptions,
}

impl DeployPlan {
    fn deploy(
        &self,
        mut loaded: Loaded,
        identity: Identity,
        environment: &dyn Environment,
        events: EventSink,
        hold_at_end: bool,
    ) -> Result<Deployed, DeployError> {
        let context = DeployContext {
            identity,
            clock: environment.clock(),
            files: environment.files(),
            events,
            modules: &self.modules,
            descriptions: &self.descriptions,
            hold_at_end,
        };
        deploy(&self.graph, &mut loaded.state, &context)
    }
}

/// A component that does not open is the job's configuration; a missing file is a failed operation.
fn deploy_error(error: &DeployError) -> JobError {
    let message = error.to_string();
    match error {
        DeployError::Open { uid, .. } => JobError::failed(message).on(uid),
        DeployError::Source { uid, error } => JobError {
            path: error.path().map(str::to_owned),
            ..JobError::failed(message).on(uid)
        },
        DeployError::Sink { uid, .. } => JobError::failed(message).on(uid),
        DeployError::Bug(_) => JobError {
            kind: ErrorKind::Bug,
            ..JobError::failed(message)
        },
        DeployError::Shape(_) => JobError::usage(message),
    }
}

struct Restored {
    loaded: Loaded,
    lineage: Vec<Ancestor>,
    next: CheckpointId,
    url: String,
}

async fn read_savepoint(
    host: &HostContext,
    graph: &JobGraph,
    descriptions: &Descriptions,
    from: &RestoreFrom,
    job_id: JobId,
) -> Result<Restored, JobError> {
    let damaged = |error: crate::savepoint::metadata::MetadataError| JobError {
        path: Some(from.location.clone()),
        kind: error.kind(),
        ..JobError::failed(error.to_string())
    };
    let savepoint = Savepoint::open(&*host.stores, &from.location).await.map_err(damaged)?;
    let metadata = &savepoint.metadata;
    let mut options = from.options.clone();
    let retargeted = restore::retargeted_sinks(graph, &savepoint);
    options.drop_state.extend(retargeted.iter().map(ToString::to_string));
    let mut plan = plan_restore(
        &savepoint.url(),
        metadata,
        &restore::new_job(graph, descriptions),
        &options,
    )
    .map_err(|refusal| JobError {
        path: Some(savepoint.url()),
        ..JobError::failed(refusal.to_string())
    })?;
    plan.dropped.retain(|dropped| !retargeted.contains(&dropped.uid));
    if !from.allow_later_output {
        refuse_later_output(&*host.environment.files(), graph, &savepoint)?;
    }
    tracing::info!(
        "Starting job {} ({job_id}) from savepoint {} (NO_CLAIM)",
        graph.name,
        savepoint.url()
    );
    for dropped in &plan.dropped {
        let state = dropped
            .state
            .as_ref()
            .map(|state| format!("/{state}"))
            .unwrap_or_default();
        tracing::warn!(
            "Dropped state of \"{}{state}\": {} keys, {} bytes.",
            dropped.uid,
            dropped.keys,
            dropped.bytes
        );
    }
    for uid in &retargeted {
        tracing::info!("Sink \"{uid}\" writes to another target than in the savepoint: it starts anew there.");
    }
    let loaded = restore::load(&*host.environment, &savepoint, &plan)
        .await
        .map_err(damaged)?;
    commit_pending(&*host.environment, graph, &savepoint, &loaded).await?;
    tracing::info!("Reset the checkpoint ID of job {job_id} to {}.", plan.next_checkpoint);
    let ancestor = Ancestor {
        job_id: metadata.job_id,
        savepoint: savepoint.url(),
    };
    let lineage = std::iter::once(ancestor)
        .chain(metadata.lineage.iter().cloned())
        .collect();
    Ok(Restored {
        loaded,
        lineage,
        next: plan.next_checkpoint,
        url: savepoint.url(),
    })
}

/// Output that the savepoint's run wrote after it.
fn refuse_later_output(files: &dyn FileSystem, graph: &JobGraph, savepoint: &Savepoint) -> Result<(), JobError> {
    let metadata = &savepoint.metadata;
    for node in &graph.nodes {
        let NodeKind::Sink(sink) = &node.kind else { continue };
        let SinkConnector::File(file) = &sink.connector else {
            continue;
        };
        let parts = later_parts(files, &file.path, &node.uid, metadata.job_id, metadata.checkpoint_id);
        if let Some(first) = parts.first() {
            let message = format!(
                "sink \"{}\": {} holds {} part(s) of a later state than checkpoint {} of the savepoint, {first} the first of them: restoring would write their records again. Remove them, write elsewhere (--set {}.path=…), or allow it with --allow-later-output",
                node.uid,
                file.path.display(),
                parts.len(),
                metadata.checkpoint_id,
                node.uid
            );
            return Err(JobError {
                path: Some(file.path.display().to_string()),
                ..JobError::failed(message).on(&node.uid)
            });
        }
    }
    Ok(())
}

/// Rename what is pending, accept what is already final, refuse what is neither.
async fn commit_pending(
    environment: &dyn Environment,
    graph: &JobGraph,
    savepoint: &Savepoint,
    loaded: &Loaded,
) -> Result<(), JobError> {
    for (uid, handles) in &loaded.pending {
        let Some(NodeKind::Sink(sink)) = graph.node(uid.as_str()).map(|node| &node.kind) else {
            continue;
        };
        let committer = committer(&environment.files(), &sink.connector, savepoint.metadata.job_id);
        let (handles, uid) = (handles.clone(), uid.clone());
        let committed = run_blocking(environment, move || {
            committer.commit(&handles).map(|()| committer.clean())
        });
        let committed = committed.await.map_err(|error| JobError::failed(error.to_string()))?;
        committed.map_err(|error| JobError::failed(format!("sink \"{uid}\": {error}")).on(&uid))?;
    }
    Ok(())
}
