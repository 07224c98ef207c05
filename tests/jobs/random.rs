//! Snapshots at random moments of a job in this process, restored at random parallelism until the job ends: nothing is
//! lost, and nothing is doubled.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regraft::dataflow::operator::{Modules, OperatorModule};
use regraft::dataflow::workers::Workers;
use regraft::environment::real::RealEnvironment;
use regraft::graph::Overrides;
use regraft::jobs::handle::{JobError, JobHandle, SavepointTarget, SnapshotReport, SnapshotRequest};
use regraft::jobs::start::{HostContext, NewJob, RestoreFrom, start};
use regraft::jobs::status::JobStatus;
use regraft::savepoint::load::Savepoint;
use regraft::savepoint::restore::RestoreOptions;
use regraft::savepoint::rows::Layout;
use regraft::storage::LocalStores;
use regraft::upgrade::upgrade;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_guest_runtime::module::GuestModule;
use regraft_model::id::OperatorUid;
use regraft_model::snapshot::SnapshotKind;

use crate::setup::{BLACKHOLE, FILE_SINK, component, graph, made_up_job};
use crate::support::committed;

const ROWS: u64 = 24_000;
const KEYS: u64 = 300;
const RATE: u64 = 300_000;
/// Minimum number of snapshots from which some run is restored, over all seeds.
const RESTORES_MIN: u32 = 100;

/// Repeatable random numbers: SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

/// The final output of a job.
struct Output {
    /// Committed lines of a file sink, without the column that only the second version has.
    lines: Vec<String>,
    /// Records and checksum of each blackhole.
    totals: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Tally {
    restores: u32,
    upgrades: u32,
    too_late: u32,
}

struct Lab {
    host: HostContext,
    /// `count`, and its second version.
    versions: [GuestModule; 2],
}

/// The job of one seed.
struct Play<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    emit: &'static str,
    sink: &'static str,
}

impl Play<'_> {
    async fn run(&self, rate: u64, interval: &str, p: u64, version: usize, from: Option<String>) -> JobHandle {
        let text = made_up_job("random", ROWS, KEYS, rate, self.emit, self.sink);
        let set = vec![format!("checkpoint.interval={interval}")];
        let graph = graph(
            &text,
            &self.dir,
            &Overrides {
                parallelism: Some(p),
                set,
                ..Overrides::default()
            },
        );
        let modules = Modules::from([(
            uid("count"),
            Arc::new(self.lab.versions[version].clone()) as Arc<dyn OperatorModule>,
        )]);
        let restore = from.map(|location| RestoreFrom {
            location,
            options: RestoreOptions::default(),
            allow_later_output: false,
        });
        let job = NewJob {
            graph,
            modules,
            restore,
            savepoint_at_end: None,
            job_id: None,
        };
        start(&self.lab.host, job)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn snapshot(&self, job: &JobHandle, kind: SnapshotKind, layout: Layout) -> Result<SnapshotReport, JobError> {
        let dir = self.dir.join("savepoints").to_string_lossy().into_owned();
        let target = SavepointTarget { dir, layout };
        job.snapshot(match kind {
            SnapshotKind::Stop => SnapshotRequest::Stop { target, drain: false },
            _ => SnapshotRequest::Savepoint(target),
        })
        .await
    }

    fn output(&self, job: &JobHandle) -> Output {
        let columns = |line: String| line.splitn(3, '\t').take(2).collect::<Vec<_>>().join("\t");
        let mut lines: Vec<String> = committed(&self.dir.join("out")).into_iter().map(columns).collect();
        lines.sort();
        let state = job.shared.state.lock().expect("not poisoned");
        Output {
            lines,
            totals: state.sink_totals.values().copied().collect(),
        }
    }

    /// Runs the job to its end without a break.
    async fn uninterrupted(&self) -> Output {
        let job = self.run(100_000_000, "off", 1, 0, None).await;
        ended(&job).await;
        self.output(&job)
    }

    /// Runs the job with snapshots at random moments. Only a job with a file sink is upgraded, since a blackhole's
    /// checksum covers whole records, which an upgrade changes.
    async fn interrupted(&self, random: &mut Random, tally: &mut Tally) -> Output {
        let (mut from, mut version, mut read) = (None::<String>, 0, 0);
        loop {
            let with_checkpoints = random.below(2) == 0;
            let interval = if with_checkpoints { "3ms" } else { "off" };
            let p = 1 + random.below(8);
            let job = self.run(RATE, interval, p, version, from.clone()).await;
            // Now and then, choose a moment near the end of input, where operators finish one after the other.
            let wanted = random.below(ROWS / 2);
            reach(&job, wanted.min(ROWS - read - random.below(100).min(ROWS - read))).await;
            if self.sink == FILE_SINK && random.below(3) == 0 {
                version = 1 - version;
                let modules = Modules::from([(
                    uid("count"),
                    Arc::new(self.lab.versions[version].clone()) as Arc<dyn OperatorModule>,
                )]);
                match upgrade(&job, modules, Instant::now()).await {
                    Ok(_) => tally.upgrades += 1,
                    Err(error) => assert_too_late(&error),
                }
            }
            let layout = if random.below(4) == 0 {
                Layout::Native
            } else {
                Layout::Canonical
            };
            // Output after an intermediate savepoint must not be committed, since the restored run commits it again.
            let intermediate = !with_checkpoints && random.below(2) == 0;
            let kind = if intermediate {
                SnapshotKind::Savepoint
            } else {
                SnapshotKind::Stop
            };
            match self.snapshot(&job, kind, layout).await {
                Ok(report) => {
                    if intermediate {
                        reach(&job, wanted + random.below(1000)).await;
                        job.cancel();
                    }
                    job.done().await;
                    if intermediate && job.status() == JobStatus::Finished {
                        tally.too_late += 1;
                        return self.output(&job);
                    }
                    let expected = if intermediate {
                        JobStatus::Canceled
                    } else {
                        JobStatus::Finished
                    };
                    assert_eq!(job.status(), expected);
                    tally.restores += 1;
                    read = offsets(&report.path).await;
                    from = Some(report.path);
                }
                Err(error) => {
                    ended(&job).await;
                    assert_too_late(&error);
                    tally.too_late += 1;
                    return self.output(&job);
                }
            }
        }
    }
}

/// Returns the number of records that had been read when a snapshot was taken.
async fn offsets(savepoint: &str) -> u64 {
    let savepoint = Savepoint::open(&LocalStores::default(), savepoint)
        .await
        .expect("a savepoint");
    let sources = savepoint
        .metadata
        .operators
        .iter()
        .filter_map(|entry| entry.source.as_ref());
    sources
        .flat_map(|source| &source.splits)
        .map(|split| split.position["offset"].as_u64().expect("offset"))
        .sum()
}

/// Waits until this run has read this many records, or has ended.
async fn reach(job: &JobHandle, records: u64) {
    while job.shared.observe().records_in < records && !job.status().is_terminal() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Asserts that a snapshot failed since the job was about to end or had ended.
fn assert_too_late(error: &impl ToString) {
    let said = error.to_string();
    assert!(
        said.ends_with("nothing more can be saved") || said.contains(" is FINISHED, "),
        "{said}"
    );
}

async fn ended(job: &JobHandle) {
    job.done().await;
    let failure = job.shared.observe().failure;
    assert_eq!(job.status(), JobStatus::Finished, "{}", failure.unwrap_or_default());
}

fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).expect("uid")
}

fn lab(dir: &Path) -> Lab {
    let engine = GuestEngine::new(&EngineSettings { cache_dir: None }).expect("an engine");
    let load = |guest| {
        engine
            .load(std::fs::read(component(guest)).expect("built"))
            .expect("a component")
            .module
    };
    let host = HostContext {
        environment: Arc::new(RealEnvironment::default()),
        stores: Arc::new(LocalStores::default()),
        executor: Arc::new(Workers::default()),
        checkpoint_dir: dir.join("checkpoints"),
        recovers: false,
    };
    Lab {
        host,
        versions: [load("count"), load("count-v2")],
    }
}

#[test]
fn nothing_is_lost_or_doubled_at_random_moments() {
    let dir = tempfile::tempdir().expect("temp dir");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let lab = lab(dir.path());
        let play = |name: String, emit, sink| Play {
            lab: &lab,
            dir: dir.path().join(name),
            emit,
            sink,
        };
        let mut tally = Tally::default();
        let mut expected = vec![];
        let kinds = [
            ("update", FILE_SINK),
            ("final", FILE_SINK),
            ("update", BLACKHOLE),
            ("final", BLACKHOLE),
        ];
        for (emit, sink) in kinds {
            expected.push(
                play(format!("whole-{}", expected.len()), emit, sink)
                    .uninterrupted()
                    .await,
            );
        }
        assert_eq!(expected[0].lines.len() as u64, ROWS);
        assert_eq!(expected[1].lines.len() as u64, KEYS);
        // REGRAFT_TEST_SEED=N begins with seed N, to replay one or to play others.
        let first = std::env::var("REGRAFT_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let mut seed = first;
        while tally.restores < RESTORES_MIN {
            let kind = (seed % 4) as usize;
            let (emit, sink) = kinds[kind];
            println!("seed {seed}: emit {emit}, {}", sink.lines().next().unwrap_or_default());
            let play = play(format!("seed-{seed}"), emit, sink);
            let found = play.interrupted(&mut Random(seed), &mut tally).await;
            let wrong: Vec<_> = differing(&expected[kind].lines, &found.lines)
                .into_iter()
                .take(10)
                .collect();
            assert!(
                wrong.is_empty(),
                "seed {seed}: lines that come too often or not often enough: {wrong:?}"
            );
            assert_eq!(found.totals, expected[kind].totals, "seed {seed}: records and checksum");
            let _ = std::fs::remove_dir_all(&play.dir);
            seed += 1;
        }
        println!(
            "{} seeds, {} restores, {} upgrades, {} snapshots too late",
            seed - first,
            tally.restores,
            tally.upgrades,
            tally.too_late
        );
    });
}

/// Returns the lines whose numbers of occurrences differ. Both lists are sorted.
fn differing(expected: &[String], found: &[String]) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<&String, i64>::new();
    expected.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    found.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    counts
        .into_iter()
        .filter(|(_, n)| *n != 0)
        .map(|(line, n)| format!("{line:?} {n:+}"))
        .collect()
}
