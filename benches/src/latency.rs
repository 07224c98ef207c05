//! End-to-end latency of a keyed count, in a whole job within this process: alone, with a checkpoint every second, and
//! during upgrades, at parts of the rate that the job can do.
//!
//! - [`histogram`]: counts of times.
//! - [`stamps`]: the source and the sink, which stand in for those of a job file.

mod histogram;
mod stamps;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regraft::connectors::BUILT_IN;
use regraft::dataflow::operator::Modules;
use regraft::dataflow::workers::Workers;
use regraft::environment::real::RealEnvironment;
use regraft::graph::job_graph::{JobGraph, NodeKind};
use regraft::graph::{Overrides, parse_job};
use regraft::jobs::handle::JobHandle;
use regraft::jobs::start::{HostContext, NewJob, start};
use regraft::storage::object::LocalStores;
use regraft::upgrade::upgrade;
use regraft_guest_runtime::module::GuestModule;
use regraft_model::id::OperatorUid;

use crate::Failure;
use crate::guests::{Guests, Op};
use crate::settings::Settings;
use histogram::Histogram;
use stamps::{LOOKS_EVERY_NS, Recorder, StampSink, StampSource, now};

/// The job. Its source and sink are replaced by those of [`stamps`].
const JOB: &str = r#"
name = "bench-latency"
parallelism = PARALLELISM
[checkpoint]
interval = "INTERVAL"
[[source]]
uid = "events"
connector = "generator"
key = "id"
fields = [{ name = "id", type = "u64", range = [0, 9] }, { name = "payload", type = "bytes", len = 32 }]
[[operator]]
uid = "count"
module = "unused.wasm"
inputs = [{ from = "events", by = "key" }]
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#;

/// The parts of the greatest rate.
const LOADS: [f64; 3] = [0.1, 0.5, 0.8];
/// Time that a job runs at its rate before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time between two upgrades.
const UPGRADE_EVERY: Duration = Duration::from_secs(2);
/// Limit of every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// Activity of the job beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Checkpoints,
    Upgrades,
}

/// Measures latencies. Returns a table.
pub(crate) fn table(settings: &Settings, guests: &Guests) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut text = String::new();
    for parallelism in &settings.parallelism {
        text.push_str(&runtime.block_on(at(settings, guests, *parallelism))?);
        text.push('\n');
    }
    Ok(text)
}

async fn at(settings: &Settings, guests: &Guests, parallelism: u32) -> Result<String, Failure> {
    let lab = Lab {
        settings,
        versions: guests.versions(Op::Passing)?,
        parallelism,
    };
    let most = lab.most().await?;
    let mut text = format!(
        "Latency of a keyed count, parallelism {parallelism}, {} keys, {} s each, from the time that a record is due until it has reached the sink. \
         The most that the job can do: {:.2} M records/s. The source looks for due records every {} ms.\n\n\
         | load | beside it | M records/s | p50 ms | p99 ms | p99.9 ms | max ms |\n|---|---|---|---|---|---|---|\n",
        settings.keys,
        settings.seconds,
        most / 1e6,
        LOOKS_EVERY_NS / 1_000_000,
    );
    for load in LOADS {
        for beside in [Beside::Nothing, Beside::Checkpoints, Beside::Upgrades] {
            eprintln!(
                "latency: parallelism {parallelism}, {:.0} % of the rate, beside: {beside:?}",
                load * 100.0
            );
            let (all, upgrades) = lab.latencies(most * load, beside).await?;
            let mut line = |words: &str, times: &Histogram| {
                let ms = |part: f64| times.quantile(part) as f64 / 1e6;
                let _ = writeln!(
                    text,
                    "| {:.0} % | {words} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
                    load * 100.0,
                    all.total() as f64 / settings.seconds as f64 / 1e6,
                    ms(0.5),
                    ms(0.99),
                    ms(0.999),
                    times.max() as f64 / 1e6
                );
            };
            match beside {
                Beside::Nothing => line("nothing", &all),
                Beside::Checkpoints => line("a checkpoint every second", &all),
                Beside::Upgrades => {
                    line("checkpoints, and an upgrade every 2 s", &all);
                    line("… only records due during an upgrade", &upgrades);
                }
            }
        }
    }
    Ok(text)
}

/// Everything that the runs share.
struct Lab<'a> {
    settings: &'a Settings,
    /// Two versions of the operator, which do the same.
    versions: [GuestModule; 2],
    parallelism: u32,
}

impl Lab<'_> {
    /// Returns the greatest rate, in records per second.
    async fn most(&self) -> Result<f64, Failure> {
        let running = self.start(None, Beside::Nothing).await?;
        let (before, start) = (running.recorder.seen().records, Instant::now());
        tokio::time::sleep(Duration::from_secs(self.settings.seconds.min(5))).await;
        let rate = (running.recorder.seen().records - before) as f64 / start.elapsed().as_secs_f64();
        running.end().await?;
        Ok(rate)
    }

    /// Returns the latencies at this rate: of all records, and of those that are due during an upgrade.
    async fn latencies(&self, rate: f64, beside: Beside) -> Result<(Histogram, Histogram), Failure> {
        let running = self.start(Some(rate), beside).await?;
        let recorder = &running.recorder;
        let from = now();
        let until = from + self.settings.seconds * 1_000_000_000;
        recorder.measure(from, until);
        let mut version = 0;
        while now() < until {
            let left = Duration::from_nanos(until.saturating_sub(now()));
            tokio::time::sleep(left.min(UPGRADE_EVERY)).await;
            if beside == Beside::Upgrades && now() < until {
                version = 1 - version;
                let begun = now();
                recorder.upgrade(begun, u64::MAX);
                let upgraded = upgrade(&running.job, self.modules(version)?, Instant::now()).await;
                upgraded.map_err(|error| error.to_string())?;
                recorder.upgrade(begun, now());
            }
        }
        // All that were due by then have arrived when a later one has, at least from the same subtask.
        running
            .wait(|| recorder.seen().latest > until + WARM_UP.as_nanos() as u64 / 2)
            .await?;
        let seen = recorder.seen().clone();
        running.end().await?;
        Ok((seen.all, seen.upgrades))
    }

    fn modules(&self, version: usize) -> Result<Modules, Failure> {
        let module: Arc<dyn regraft::dataflow::operator::OperatorModule> = Arc::new(self.versions[version].clone());
        Ok(Modules::from([(OperatorUid::new("count")?, module)]))
    }

    /// Starts the job, and waits until it has all keys and runs at its rate.
    async fn start(&self, rate: Option<f64>, beside: Beside) -> Result<Running, Failure> {
        let dir = tempfile::tempdir()?;
        let recorder = Arc::<Recorder>::default();
        let interval = if beside == Beside::Nothing { "off" } else { "1s" };
        let text = JOB
            .replace("PARALLELISM", &self.parallelism.to_string())
            .replace("INTERVAL", interval);
        let parsed = parse_job(&text, "job.toml", dir.path(), &Overrides::default(), BUILT_IN);
        let (mut graph, _) = parsed.map_err(|error| error.to_string())?;
        let source = StampSource {
            keys: self.settings.keys,
            splits: u64::from(self.parallelism),
            rate,
        };
        replace_ends(&mut graph, source, &recorder);
        let new = NewJob {
            graph,
            modules: self.modules(0)?,
            restore: None,
            savepoint_at_end: None,
            job_id: None,
        };
        let job = start(&host(dir.path()), new).await.map_err(|error| error.to_string())?;
        let running = Running {
            job,
            recorder,
            _dir: dir,
        };
        running.wait(|| running.recorder.seen().records > 0).await?;
        tokio::time::sleep(WARM_UP).await;
        Ok(running)
    }
}

/// Returns the context of a host with everything in one directory, as the program makes it.
fn host(dir: &Path) -> HostContext {
    HostContext {
        environment: Arc::new(RealEnvironment::default()),
        stores: Arc::new(LocalStores::private_below(dir)),
        executor: Arc::new(Workers::default()),
        checkpoint_dir: dir.join("checkpoints"),
        recovers: false,
    }
}

fn replace_ends(graph: &mut JobGraph, stamps: StampSource, recorder: &Arc<Recorder>) {
    for node in &mut graph.nodes {
        match &mut node.kind {
            NodeKind::Source(source) => source.connector = Arc::new(stamps),
            NodeKind::Sink(sink) => sink.connector = Arc::new(StampSink(recorder.clone())),
            NodeKind::Operator(_) => {}
        }
    }
}

/// A running job.
struct Running {
    job: JobHandle,
    recorder: Arc<Recorder>,
    _dir: tempfile::TempDir,
}

impl Running {
    /// Waits until something holds.
    ///
    /// # Errors
    /// The job has failed, or it takes too long.
    async fn wait(&self, until: impl Fn() -> bool) -> Result<(), Failure> {
        let start = Instant::now();
        while !until() {
            if let Some(failure) = self.job.failure() {
                return Err(failure.to_string().into());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("nothing has come in {PATIENCE:?}; the job is {}", self.job.status()).into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn end(self) -> Result<(), Failure> {
        let failure = self.job.failure();
        self.job.cancel();
        self.job.done().await;
        failure.map_or(Ok(()), |failure| Err(failure.to_string().into()))
    }
}
