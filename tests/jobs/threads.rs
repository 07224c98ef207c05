//! A machine that has no thread for a subtask: the job fails and restarts, and its process lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use regraft::dataflow::control::EventSink;
use regraft::dataflow::executor::{Executor, NotStarted, Running};
use regraft::dataflow::operator::{Modules, OperatorModule};
use regraft::dataflow::subtask::Subtask;
use regraft::dataflow::workers::Workers;
use regraft::environment::real::RealEnvironment;
use regraft::graph::Overrides;
use regraft::jobs::start::{HostContext, NewJob, start};
use regraft::jobs::status::JobStatus;
use regraft::storage::LocalStores;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_model::id::OperatorUid;
use regraft_model::time::Clock;

use crate::setup::{BLACKHOLE, component, graph, made_up_job};

/// Has threads for all subtasks but one at its first start.
#[derive(Default)]
struct OneShort {
    workers: Workers,
    starts: AtomicUsize,
    /// True once the subtasks of the first start have been joined.
    joined: Arc<AtomicBool>,
}

struct Joining(Box<dyn Running>, Arc<AtomicBool>);

impl Running for Joining {
    fn join(self: Box<Self>) {
        self.0.join();
        self.1.store(true, Ordering::Relaxed);
    }
}

impl Executor for OneShort {
    fn start(
        &self,
        mut subtasks: Vec<Subtask>,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Box<dyn Running>, NotStarted> {
        if self.starts.fetch_add(1, Ordering::Relaxed) > 0 {
            assert!(
                self.joined.load(Ordering::Relaxed),
                "no attempt begins beside the last one"
            );
            return self.workers.start(subtasks, clock, events, cancelled);
        }
        drop(subtasks.pop());
        let started = self.workers.start(subtasks, clock, events, cancelled)?;
        Err(NotStarted {
            message: "no thread for subtask count#1".to_owned(),
            running: Box::new(Joining(started, self.joined.clone())),
        })
    }
}

#[test]
fn a_job_whose_subtasks_get_no_thread_restarts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let text = made_up_job("words", 2_000, 50, 1_000_000, "update", BLACKHOLE);
    // A job without checkpoints is not restarted.
    let text = text.replace("interval = \"off\"", "interval = \"1h\"");
    let overrides = Overrides {
        parallelism: Some(2),
        ..Overrides::default()
    };
    let executor = Arc::new(OneShort::default());
    let host = HostContext {
        environment: Arc::new(RealEnvironment::default()),
        stores: Arc::new(LocalStores::default()),
        executor: executor.clone(),
        checkpoint_dir: dir.path().join("checkpoints"),
        recovers: true,
    };
    let engine = GuestEngine::new(&EngineSettings { cache_dir: None }).expect("an engine");
    let module = engine.load(std::fs::read(component("count")).expect("built"));
    let module = Arc::new(module.expect("a component").module) as Arc<dyn OperatorModule>;
    let job = NewJob {
        graph: graph(&text, dir.path(), &overrides),
        modules: Modules::from([(OperatorUid::new("count").expect("a uid"), module)]),
        restore: None,
        savepoint_at_end: None,
        job_id: None,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let job = start(&host, job).await.expect("started");
        let ended = tokio::time::timeout(Duration::from_secs(60), job.done()).await;
        ended.expect("it ends");
        let seen = job.shared.observe();
        let failure = seen.last_failure.unwrap_or_default();
        let said = "the job's subtasks cannot be started: no thread for subtask count#1";
        assert!(failure.contains(said), "{failure}");
        assert_eq!((job.status(), seen.restarts), (JobStatus::Finished, 1));
    });
    assert_eq!(executor.starts.load(Ordering::Relaxed), 2);
}
