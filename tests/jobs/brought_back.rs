//! Jobs that another process brings back. Processes are runtimes that are dropped at any moment.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use regraft::dataflow::control::locked;
use regraft::dataflow::operator::{Modules, OperatorModule};
use regraft::dataflow::workers::Workers;
use regraft::environment::real::RealEnvironment;
use regraft::graph::Overrides;
use regraft::graph::job_graph::JobGraph;
use regraft::jobs::bring_back::{RecoverJob, Recovered, forget, recover};
use regraft::jobs::handle::{JobHandle, SavepointTarget, SnapshotRequest};
use regraft::jobs::start::{HostContext, LoadModule, NewJob, start};
use regraft::jobs::status::JobStatus;
use regraft::savepoint::rows::Layout;
use regraft::storage::LocalStores;
use regraft::upgrade::upgrade;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_model::id::{JobId, OperatorUid};
use tokio::runtime::Runtime;

use crate::setup::{BLACKHOLE, FILE_SINK, component, graph, made_up_job};
use crate::support::{committed, wait_until};

const ROWS: u64 = 30_000;
const HELD: &str = " is held by another process";

/// Loads components from their files.
struct Loader(GuestEngine);

impl LoadModule for Loader {
    fn load(&self, _: &OperatorUid, component: Bytes) -> Result<Arc<dyn OperatorModule>, String> {
        let loaded = self.0.load(component.to_vec()).map_err(|error| error.to_string())?;
        Ok(Arc::new(loaded.module))
    }
}

/// The disk of a host, and what its processes share.
struct Lab {
    dir: tempfile::TempDir,
    engine: GuestEngine,
    text: String,
}

impl Lab {
    fn new(sink: &str, checkpoint: &str) -> Self {
        let job = made_up_job("words", ROWS, 500, 4_000, "update", sink);
        Self {
            dir: tempfile::tempdir().expect("temp dir"),
            engine: GuestEngine::new(&EngineSettings { cache_dir: None }).expect("an engine"),
            text: job.replace("interval = \"off\"", checkpoint),
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn graph(&self) -> JobGraph {
        let overrides = Overrides {
            parallelism: Some(2),
            ..Overrides::default()
        };
        graph(&self.text, self.path(), &overrides)
    }

    fn host(&self) -> HostContext {
        HostContext {
            environment: Arc::new(RealEnvironment::default()),
            stores: Arc::new(LocalStores::default()),
            executor: Arc::new(Workers::default()),
            checkpoint_dir: self.path().join("checkpoints"),
            recovers: true,
        }
    }

    fn module(&self, guest: &str) -> Modules {
        let bytes = std::fs::read(component(guest)).expect("built");
        let loaded = self.engine.load(bytes).expect("a component");
        Modules::from([(uid("count"), Arc::new(loaded.module) as Arc<dyn OperatorModule>)])
    }

    async fn start(&self) -> JobHandle {
        let job = NewJob {
            graph: self.graph(),
            modules: self.module("count"),
            restore: None,
            savepoint_at_end: None,
            job_id: None,
        };
        start(&self.host(), job).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Brings a job back. A process that was killed may take a moment to let go of its lock.
    async fn recover(&self, job_id: JobId) -> Result<Recovered, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.recover_at_once(job_id).await {
                Err(error) if error.contains(HELD) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                recovered => return recovered,
            }
        }
    }

    async fn recover_at_once(&self, job_id: JobId) -> Result<Recovered, String> {
        let job = RecoverJob {
            job_id,
            graph: self.graph(),
            loader: Arc::new(Loader(self.engine.clone())),
            savepoint_at_end: None,
        };
        recover(&self.host(), job).await.map_err(|error| error.to_string())
    }

    async fn recovered(&self, job_id: JobId) -> JobHandle {
        match self.recover(job_id).await.unwrap_or_else(|error| panic!("{error}")) {
            Recovered::Running(job) => job,
            Recovered::Ended(ended) => panic!("{ended:?}"),
            Recovered::NeverBegun => panic!("never begun"),
        }
    }

    fn output(&self, dir: &str) -> Vec<String> {
        // The second version appends a column.
        let columns = |line: String| line.splitn(3, '\t').take(2).collect::<Vec<_>>().join("\t");
        let mut lines: Vec<String> = committed(&self.path().join(dir)).into_iter().map(columns).collect();
        lines.sort();
        lines
    }

    /// Returns the output of an undisturbed run: one line per record.
    fn undisturbed(&self) -> Vec<String> {
        let text = self.text.replace("path = \"out\"", "path = \"undisturbed\"");
        let job = Self {
            dir: tempfile::tempdir().expect("temp dir"),
            engine: self.engine.clone(),
            text: text.replace("rate = 6000", "rate = 10000000"),
        };
        process().block_on(async { job.start().await.done().await });
        job.output("undisturbed")
    }

    /// Returns true if output of that checkpoint is visible.
    fn has_committed(&self, checkpoint: u64) -> bool {
        let parts = std::fs::read_dir(self.path().join("out")).expect("output");
        let mut names = parts.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
        names.any(|name| name.split('-').nth(4) == Some(checkpoint.to_string().as_str()))
    }

    fn records(&self, job_id: JobId) -> std::path::PathBuf {
        self.path().join("checkpoints").join(job_id.to_string())
    }
}

fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).expect("uid")
}

fn process() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

/// Ends a process without notice to its jobs.
fn kill(process: Runtime) {
    process.shutdown_background();
}

#[test]
fn the_same_job_goes_on_and_its_output_is_that_of_an_undisturbed_run() {
    let lab = Lab::new(FILE_SINK, "interval = \"60ms\"");
    let expected = lab.undisturbed();
    assert_eq!(expected.len() as u64, ROWS);
    let first = process();
    let job_id = first.block_on(async {
        let job = lab.start().await;
        wait_until("output", || lab.output("out").len() > 500);
        job.job_id()
    });
    kill(first);
    let mut version = 1;
    for life in 0..12 {
        let next = process();
        let over = next.block_on(async {
            let job = lab.recovered(job_id).await;
            assert_eq!(job.job_id(), job_id);
            let view = job.shared.observe();
            // What the process before had under way may still turn up, and then an attempt begins anew.
            assert!(view.attempt.0 >= life + 2, "{}", view.attempt);
            assert_eq!(view.version.0, version);
            if life % 3 == 1 {
                let guest = if version % 2 == 1 { "count-v2" } else { "count" };
                if upgrade(&job, lab.module(guest), Instant::now()).await.is_ok() {
                    version += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(97 * u64::from(life) % 400)).await;
            job.status().is_terminal()
        });
        kill(next);
        assert!(!over, "killed in the middle");
    }
    let last = process();
    last.block_on(async {
        let job = lab.recovered(job_id).await;
        job.done().await;
        assert_eq!(job.status(), JobStatus::Finished);
    });
    assert!(version > 2, "there were upgrades in between");
    assert!(lab.output("out") == expected, "each record counts once");
    assert!(!lab.path().join("out/.pending").exists(), "nothing is left pending");
}

#[test]
fn a_job_that_has_ended_does_not_run_again() {
    let lab = Lab::new(BLACKHOLE, "interval = \"60ms\"");
    let process = process();
    process.block_on(async {
        let unknown = JobId::from_bits(1);
        assert!(matches!(lab.recover(unknown).await, Ok(Recovered::NeverBegun)));
        for stops in [false, true] {
            let job = lab.start().await;
            let job_id = job.job_id();
            if stops {
                let target = SavepointTarget {
                    dir: lab.path().join("savepoints").to_string_lossy().into_owned(),
                    layout: Layout::Canonical,
                };
                let request = SnapshotRequest::Stop { target, drain: false };
                job.snapshot(request).await.expect("stopped");
            } else {
                job.cancel();
            }
            job.done().await;
            let left = std::fs::read_dir(lab.records(job_id)).expect("there").count();
            assert_eq!(left, 1, "only that it has ended");
            let Ok(Recovered::Ended(ended)) = lab.recover(job_id).await else {
                panic!("it had ended")
            };
            assert_eq!(ended.status, job.status());
            assert_eq!(ended.savepoint.is_some(), stops);
            forget(&lab.host(), job_id, lab.graph()).await.expect("forgotten");
            assert!(!lab.records(job_id).exists());
        }
    });
}

/// Two hosts, one of which believes that the other is dead.
#[test]
fn whoever_began_the_last_attempt_has_the_job() {
    let restart = "interval = \"60ms\"\ntolerable-failures = 0\n[restart]\nstrategy = \"fixed-delay\"\nattempts = 100\ndelay = \"10ms\"";
    let lab = Lab::new(FILE_SINK, restart);
    let process = process();
    process.block_on(async {
        let first = lab.start().await;
        wait_until("output", || lab.output("out").len() > 500);
        let refused = lab
            .recover_at_once(first.job_id())
            .await
            .err()
            .expect("its lock is held");
        let held = format!(
            " is held by another process (pid {}): it runs this job",
            std::process::id()
        );
        assert!(refused.contains(&held), "{refused}");
        std::fs::remove_file(lab.records(first.job_id()).with_extension("lock")).expect("the lock is bypassed");
        let second = lab.recovered(first.job_id()).await;
        // The first one lives: it may complete a checkpoint while the second one starts, which then begins anew.
        assert!(second.shared.observe().attempt.0 >= 2);
        // The first one fails, and must not go on: its next attempt is refused.
        let out = lab.path().join("out");
        std::fs::rename(&out, lab.path().join("away")).expect("renamed");
        std::fs::write(&out, "").expect("written");
        wait_until("both have failed", || {
            first.status() == JobStatus::Failed || second.status() == JobStatus::Failed
        });
        std::fs::remove_file(&out).expect("removed");
        std::fs::rename(lab.path().join("away"), &out).expect("renamed");
        let (lost, kept) = if first.status() == JobStatus::Failed {
            (&first, &second)
        } else {
            (&second, &first)
        };
        let failure = locked(&lost.shared.state).failure.clone().expect("a reason");
        assert!(
            failure.contains("another host") && failure.contains("it runs this job now, and two must not"),
            "{failure}"
        );
        kept.cancel();
        kept.done().await;
    });
}

#[test]
fn a_damaged_checkpoint_is_gone_behind_only_where_nothing_is_doubled() {
    for (sink, goes_on) in [(FILE_SINK, false), (BLACKHOLE, true)] {
        let lab = Lab::new(sink, "interval = \"60ms\"\nretain = 3");
        let first = process();
        let job_id = first.block_on(async {
            let job = lab.start().await;
            wait_until("checkpoints", || job.shared.observe().rounds > 4);
            job.job_id()
        });
        kill(first);
        std::thread::sleep(Duration::from_millis(300));
        // It may have died just before the commit. Then the next process commits instead, and dies, too.
        while !goes_on && !lab.has_committed(newest_checkpoint(&lab.records(job_id))) {
            let next = process();
            next.block_on(async {
                let job = lab.recovered(job_id).await;
                wait_until("a checkpoint", || job.shared.observe().rounds > 0);
            });
            kill(next);
            std::thread::sleep(Duration::from_millis(300));
        }
        let newest = newest_checkpoint(&lab.records(job_id));
        let metadata = lab.records(job_id).join(format!("chk-{newest}/_metadata"));
        let mut text = std::fs::read_to_string(&metadata).expect("text");
        text.truncate(text.len() / 2);
        std::fs::write(&metadata, text).expect("written");
        let second = process();
        second.block_on(async {
            match lab.recover(job_id).await {
                Ok(Recovered::Running(job)) if goes_on => {
                    job.done().await;
                    let view = job.shared.observe();
                    assert_eq!(view.status, JobStatus::Finished);
                    let totals = locked(&job.shared.state).sink_totals.clone();
                    assert_eq!(totals[&uid("out")].0, ROWS);
                }
                Err(error) if !goes_on => {
                    let started = format!("checkpoint {newest} of job {job_id} cannot be used: ");
                    assert!(error.starts_with(&started), "{error}");
                    assert!(error.contains("would write again what "), "{error}");
                    assert!(
                        error.contains("start the job from that checkpoint with run -s"),
                        "{error}"
                    );
                }
                Ok(_) => panic!("{sink}: it goes on"),
                Err(error) => panic!("{sink}: {error}"),
            }
        });
    }
}

fn newest_checkpoint(job: &Path) -> u64 {
    let names = std::fs::read_dir(job)
        .expect("there")
        .map(|entry| entry.expect("entry").file_name());
    let ids = names.filter_map(|name| name.to_str()?.strip_prefix("chk-")?.parse().ok());
    ids.filter(|id: &u64| job.join(format!("chk-{id}/_metadata")).exists())
        .max()
        .expect("one")
}
