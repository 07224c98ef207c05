//! Properties of the protocol over random histories, and the faults that turn each of them red.
//!
//! A history is made from a seed: a simulated world answers effects in any order and with any result, subtasks acknowledge,
//! fail and end, users ask for things, time passes. Every effect is checked when it is given. At the end the world becomes
//! benign, and the job must end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::{Description, WIT_VERSION};
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::snapshot::SnapshotKind;

use super::effect::{
    CommitFailure, Effect, Input, Moment, Next, Over, PrepareFailure, Ready, RecordFailure, Shown, SinkStates,
    StoreOutcome, Told, Wish,
};
use super::mistakes::{Mistake, Planted};
use super::restart::Restarts;
use super::{Life, Settings};
use crate::checkpoint::store::{JobFacts, Stored};
use crate::connectors::BUILT_IN;
use crate::dataflow::control::{Event, SubtaskSnapshot, SwapGap};
use crate::dataflow::element::SwapSet;
use crate::dataflow::failure::{Cause, SubtaskFailure};
use crate::dataflow::operator::{Modules, Operator, OperatorModule};
use crate::graph::job_graph::{JobGraph, RestartStrategy};
use crate::graph::plan::{Plan, RegionIndex, SubtaskId};
use crate::graph::{Overrides, parse_job};
use crate::jobs::handle::{JobError, SnapshotReport};
use crate::jobs::observe::PastRound;
use crate::jobs::request::{RequestId, SavepointTarget, SnapshotRequest, SwapRequest};
use crate::jobs::status::JobStatus;
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::rows::Layout;

/// Histories that a run plays.
const HISTORIES: u64 = 100_000;

/// Histories in which a planted fault must be found.
const TO_FIND: u64 = 30_000;

/// Two regions, one of them of two chains.
const JOB: &str = r#"name = "life"
parallelism = 2
[checkpoint]
interval = "1s"
timeout = "5s"
tolerable-failures = 1
max-concurrent = 2
[restart]
strategy = "fixed-delay"
attempts = 3
delay = "1s"
[[source]]
uid = "a"
connector = "generator"
key = "id"
fields = [{ name = "id", type = "u64", range = [0, 9] }]
[[operator]]
uid = "count"
module = "count.wasm"
inputs = [{ from = "a", by = "key" }]
[[sink]]
uid = "x"
connector = "blackhole"
inputs = ["count"]
[[source]]
uid = "b"
connector = "generator"
parallelism = 1
key = "id"
fields = [{ name = "id", type = "u64", range = [0, 9] }]
[[sink]]
uid = "y"
connector = "blackhole"
parallelism = 1
inputs = ["b"]
"#;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }
}

#[derive(Debug)]
struct Module(Description, u8);

impl OperatorModule for Module {
    fn digest(&self) -> ModuleDigest {
        ModuleDigest::of(&[self.1])
    }
    fn description(&self) -> &Description {
        &self.0
    }
    fn bytes(&self) -> &[u8] {
        &[]
    }
    fn instantiate(&self, _: &InstanceSettings) -> Result<Box<dyn Operator>, GuestError> {
        unreachable!("it is not run")
    }
}

fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).expect("a uid")
}

fn module(number: u8) -> Modules {
    let description = Description {
        wit: WIT_VERSION.into(),
        ..Description::default()
    };
    let module: Arc<dyn OperatorModule> = Arc::new(Module(description, number));
    Modules::from([(uid("count"), module)])
}

/// Parts that all histories share.
struct Shared {
    graph: Arc<JobGraph>,
    plan: Arc<Plan>,
    modules: Vec<Modules>,
}

impl Shared {
    fn new() -> Self {
        let graph = parse_job(JOB, "job.toml", Path::new("."), &Overrides::default(), BUILT_IN);
        let graph = graph.unwrap_or_else(|error| panic!("{error}")).0;
        Self {
            plan: Arc::new(Plan::new(&graph)),
            graph: Arc::new(graph),
            modules: (0..4).map(module).collect(),
        }
    }
}

/// An effect that runs beside the loop.
#[derive(Debug)]
enum Beside {
    Join(RegionIndex),
    Store(CheckpointId),
    Record(CheckpointId),
    Commit(CheckpointId),
    RemoveOld,
    RemoveSavepoint(CheckpointId),
    Prepare(Wish),
    Other,
}

/// A round as the world has seen it.
#[derive(Debug)]
struct Seen {
    kind: SnapshotKind,
    acked: BTreeSet<SubtaskId>,
    durable: bool,
    recorded: bool,
    open: bool,
}

/// Everything around the protocol.
struct World<'a> {
    shared: &'a Shared,
    random: Random,
    life: Life,
    at: Moment,
    version: u32,
    modules: usize,
    beside: Vec<Beside>,
    /// Subtasks that run, each with its attempt and whether it has been told to end.
    running: BTreeMap<SubtaskId, (AttemptId, bool)>,
    ended: BTreeSet<SubtaskId>,
    rounds: BTreeMap<CheckpointId, Seen>,
    committed: Option<CheckpointId>,
    requests: BTreeMap<RequestId, u32>,
    /// The last answer.
    answer: Option<Result<SnapshotReport, JobError>>,
    /// Rounds that are over, in order.
    past: Vec<PastRound>,
    given_up: BTreeSet<CheckpointId>,
    /// Savepoints whose directories are forgotten.
    forgotten: BTreeSet<CheckpointId>,
    /// The failure that ended the job, as it is shown.
    failed: Option<String>,
    /// Digests of the modules that are kept since the last upgrade.
    kept_modules: BTreeSet<String>,
    /// Rounds whose storing is cancelled.
    cancelled: BTreeSet<CheckpointId>,
    status: JobStatus,
    over: bool,
    problems: Vec<String>,
}

fn stored() -> Stored {
    Stored {
        bytes: 1,
        full_bytes: 1,
        permit: CommitPermit::none(),
        sink_states: SinkStates::new(),
        subtasks: BTreeMap::new(),
    }
}

impl<'a> World<'a> {
    fn new(shared: &'a Shared, seed: u64, mistake: Option<Mistake>) -> Self {
        let mut random = Random(seed);
        let at = Moment {
            now_ns: 1_000_000_000,
            now_ms: 0,
            random: random.next(),
            to_be_removed: 0,
        };
        let facts = JobFacts {
            graph: shared.graph.clone(),
            plan: shared.plan.clone(),
            job_id: JobId::from_bits(7),
            attempt: AttemptId(1),
            version: JobVersion(1),
            lineage: vec![],
            modules: shared.modules[0].clone(),
        };
        let settings = Settings {
            savepoint_at_end: random.one_in(4).then(|| "end".to_owned()),
            recovers: false,
        };
        let ready = Ready {
            attempt: AttemptId(1),
            version: JobVersion(1),
            modules: shared.modules[0].clone(),
            restored: None,
            from: "the beginning".to_owned(),
            lineage: vec![],
            last_id: CheckpointId(0),
            checkpoints: VecDeque::new(),
            savepoints: BTreeSet::new(),
            regions: shared.plan.region_indices().collect(),
        };
        let (mut life, effects) = Life::begin(settings, facts, ready, at);
        life.planted = Planted::plant(mistake);
        let mut world = Self {
            shared,
            random,
            life,
            at,
            version: 1,
            modules: 0,
            beside: vec![],
            running: BTreeMap::new(),
            ended: BTreeSet::new(),
            rounds: BTreeMap::new(),
            committed: None,
            requests: BTreeMap::new(),
            answer: None,
            past: vec![],
            given_up: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            failed: None,
            kept_modules: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            status: JobStatus::Created,
            over: false,
            problems: vec![],
        };
        world.check_all(effects);
        world
    }

    fn input(&mut self, input: Input) {
        self.at.random = self.random.next();
        let effects = self.life.handle(self.at, input);
        self.check_all(effects);
    }

    fn check_all(&mut self, effects: Vec<Effect>) {
        let launched = effects.iter().any(|effect| matches!(effect, Effect::Start { .. }));
        let before: Vec<CheckpointId> = self.rounds.keys().copied().collect();
        let mut located = vec![];
        for effect in effects {
            if let Effect::Store(store) = &effect {
                located.push(store.round.id);
            }
            self.check(effect);
        }
        if launched {
            let left = before.iter().filter(|id| self.rounds[id].open);
            let left: Vec<String> = left.map(ToString::to_string).collect();
            self.expect(left.is_empty(), || {
                format!("rounds {left:?} were left behind by a failover")
            });
        }
        for id in located {
            self.input(Input::Located(id, format!("file:///{id}")));
        }
    }

    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    fn preparing(&self) -> bool {
        self.beside.iter().any(|beside| matches!(beside, Beside::Prepare(_)))
    }

    fn runs(&self, region: RegionIndex) -> bool {
        let joining = |beside: &Beside| matches!(beside, Beside::Join(joining) if *joining == region);
        let mut running = self.running.keys();
        running.any(|subtask| self.shared.plan.region_of(*subtask) == Some(region)) || self.beside.iter().any(joining)
    }

    /// Checks an effect, and does it.
    fn check(&mut self, effect: Effect) {
        self.expect(!self.over, || format!("{effect:?} after the end"));
        match effect {
            Effect::Status(status) => {
                let before = self.status;
                self.expect(before.may_become(status), || format!("{status} follows {before}"));
                self.status = status;
            }
            Effect::Answer(answer) => {
                let count = self.requests.entry(answer.request).or_insert(100);
                *count += 1;
                let count = *count;
                self.expect(count == 1, || {
                    format!("request {:?} answered {count} times", answer.request)
                });
                self.answer = Some(answer.result);
            }
            Effect::Start { region, attempt, .. } => {
                let runs = self.runs(region);
                self.expect(!runs, || format!("{region:?} is started while it runs"));
                for subtask in self.shared.plan.subtasks_of(region) {
                    self.running.insert(subtask, (attempt, false));
                    self.ended.remove(&subtask);
                }
            }
            Effect::Stop(region) => {
                for (subtask, (_, told)) in &mut self.running {
                    *told |= self.shared.plan.region_of(*subtask) == Some(region);
                }
            }
            Effect::Broadcast(told) => self.told(told),
            Effect::Join(region) => {
                let runs = self.runs(region);
                self.expect(!runs, || format!("{region:?} is joined while it runs"));
                self.beside.push(Beside::Join(region));
            }
            Effect::Begin(begin) => self.begun(begin.id, begin.kind),
            Effect::Store(store) => {
                let (id, all) = (store.round.id, self.shared.plan.subtasks().count());
                let acked = self.rounds[&id].acked.len();
                self.expect(acked == all, || format!("{id} is stored with {acked} of {all} parts"));
                self.beside.push(Beside::Store(id));
            }
            Effect::RecordVersion { id, .. } => {
                let durable = self.rounds[&id].durable;
                self.expect(durable, || {
                    format!("a version is recorded before its snapshot {id} is durable")
                });
                self.beside.push(Beside::Record(id));
            }
            Effect::Commit(id, _) => self.committing(id),
            Effect::Confirm(id) => {
                let durable = self.rounds[&id].durable;
                self.expect(durable, || format!("{id} counts before it is durable"));
            }
            Effect::ForgetSavepoint(id) => {
                let later = self.committed > Some(id);
                self.expect(later, || {
                    format!("savepoint {id} is forgotten before its output is committed")
                });
                self.beside.push(Beside::Other);
            }
            Effect::Close(id) => {
                let seen = self.rounds.get_mut(&id).expect("it had begun");
                let was_open = std::mem::take(&mut seen.open);
                self.expect(was_open, || format!("{id} is closed twice"));
            }
            Effect::Prepare(wish) => {
                let beside = format!("{:?}", self.beside);
                self.expect(self.beside.is_empty(), || {
                    format!("an attempt is prepared beside {beside}")
                });
                let running: Vec<_> = wish.regions.iter().filter(|region| self.runs(**region)).collect();
                let running = format!("{running:?}");
                self.expect(running == "[]", || {
                    format!("an attempt is prepared while {running} run")
                });
                self.beside.push(Beside::Prepare(wish));
            }
            Effect::RemoveOld => self.beside.push(Beside::RemoveOld),
            Effect::RemoveSavepoint(id) => self.beside.push(Beside::RemoveSavepoint(id)),
            Effect::NoteCommitted(_) | Effect::MergeLong => self.beside.push(Beside::Other),
            Effect::GiveUp(id) => {
                self.given_up.insert(id);
                self.beside.push(Beside::Other);
            }
            Effect::CancelStoring(id) => {
                let is_stored = self
                    .beside
                    .iter()
                    .any(|beside| matches!(beside, Beside::Store(of) if *of == id));
                self.expect(is_stored, || {
                    format!("{id} is not being stored, so it cannot be cancelled")
                });
                self.cancelled.insert(id);
            }
            Effect::Forget(id) => {
                self.forgotten.insert(id);
            }
            Effect::Show(Shown::Round(past)) => self.past.push(past),
            Effect::End(status) => self.end(status),
            Effect::Show(Shown::Failed(failure)) => {
                self.failed = Some(failure.to_string());
                self.expect(!failure.to_string().is_empty(), || {
                    "a failure without a text".to_owned()
                });
            }
            Effect::KeepModules(digests) => self.kept_modules = digests,
            Effect::Show(_)
            | Effect::Log(..)
            | Effect::Trigger(..)
            | Effect::CancelPreparing
            | Effect::EndMerging
            | Effect::Careful(_) => {}
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Terminate => self.running.values_mut().for_each(|(_, told)| *told = true),
            Told::Completed { id, committed: true } => {
                let is = self.committed >= Some(id);
                self.expect(is, || format!("{id} is said to be committed, and is not"));
            }
            Told::Completed { .. } | Told::Aborted(_) | Told::Drain => {}
        }
    }

    fn begun(&mut self, id: CheckpointId, kind: SnapshotKind) {
        let last = self.rounds.keys().next_back().copied();
        self.expect(last < Some(id), || format!("{id} follows {last:?}"));
        let open: Vec<SnapshotKind> = self
            .rounds
            .values()
            .filter(|seen| seen.open)
            .map(|seen| seen.kind)
            .collect();
        let alone = kind != SnapshotKind::Checkpoint || open.iter().any(|kind| *kind != SnapshotKind::Checkpoint);
        let allowed = if alone { 1 } else { 2 };
        self.expect(open.len() < allowed, || format!("{kind} {id} begins beside {open:?}"));
        let (status, preparing) = (self.status, self.preparing());
        self.expect(status == JobStatus::Running && !preparing, || {
            format!("{kind} {id} begins while the job is {status}")
        });
        let seen = Seen {
            kind,
            acked: BTreeSet::new(),
            durable: false,
            recorded: false,
            open: true,
        };
        self.rounds.insert(id, seen);
    }

    fn committing(&mut self, id: CheckpointId) {
        let seen = &self.rounds[&id];
        let (kind, durable, recorded) = (seen.kind, seen.durable, seen.recorded);
        self.expect(durable, || format!("{id} is committed before it is durable"));
        self.expect(kind.commits(), || format!("{kind} {id} is committed"));
        self.expect(kind != SnapshotKind::Upgrade || recorded, || {
            format!("upgrade {id} is committed before its version is recorded")
        });
        let committed = self.committed;
        self.expect(committed < Some(id), || {
            format!("{id} is committed after {committed:?}")
        });
        let another = self
            .beside
            .iter()
            .any(|beside| matches!(beside, Beside::Commit(_) | Beside::Prepare(_)));
        self.expect(!another, || {
            format!("{id} is committed beside another commit or attempt")
        });
        self.beside.push(Beside::Commit(id));
    }

    fn end(&mut self, status: JobStatus) {
        self.over = true;
        let beside = format!("{:?}", self.beside);
        self.expect(self.beside.is_empty(), || format!("the job ends beside {beside}"));
        let running = self.running.len();
        self.expect(running == 0, || format!("the job ends while {running} subtasks run"));
        let open: Vec<&CheckpointId> = self
            .rounds
            .iter()
            .filter(|(_, seen)| seen.open)
            .map(|(id, _)| id)
            .collect();
        let open = format!("{open:?}");
        self.expect(open == "[]", || format!("the job ends with rounds {open}"));
        let unanswered: Vec<_> = self.requests.iter().filter(|(_, count)| **count == 0).collect();
        let unanswered = format!("{unanswered:?}");
        self.expect(unanswered == "[]", || {
            format!("requests {unanswered} are never answered")
        });
        let before = self.status;
        self.expect(before.may_become(status), || format!("{status} follows {before}"));
    }

    /// Something happens.
    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.request(),
            1 if self.random.one_in(3) => self.fail_a_subtask(),
            2 => self.pass(1 + self.random.0 % 3_000_000_000),
            3 if self.random.one_in(8) => self.input(Input::Cancel),
            4 if self.random.one_in(12) => self.input(Input::Suspend),
            5 => self.end_a_subtask(),
            6 => self.report_something_old(),
            7 => self.pass(1_000_000_000),
            8..=12 => self.answer_one(false),
            _ => self.acknowledge_one(),
        }
    }

    fn pass(&mut self, ns: u64) {
        self.at.now_ns += ns;
        self.at.now_ms += (ns / 1_000_000) as i64;
        self.at.to_be_removed = self.random.below(4);
        self.input(Input::Tick);
    }

    fn request(&mut self) {
        let id = RequestId(self.requests.len() as u64);
        self.requests.insert(id, 0);
        let target = SavepointTarget {
            dir: "savepoints".to_owned(),
            layout: Layout::Canonical,
        };
        let request = match self.random.below(6) {
            0 | 1 => SnapshotRequest::Savepoint(target),
            2 => SnapshotRequest::Stop { target, drain: false },
            3 => SnapshotRequest::Stop { target, drain: true },
            _ => {
                let number = self.random.below(self.shared.modules.len());
                SnapshotRequest::Upgrade(SwapRequest {
                    set: SwapSet::default(),
                    modules: self.shared.modules[number].clone(),
                })
            }
        };
        self.input(Input::Asked(id, request));
    }

    /// Lets time pass; old checkpoints are removed as fast as they come.
    fn wait(&mut self, ns: u64) {
        self.at.now_ns += ns;
        self.at.to_be_removed = 0;
        self.input(Input::Tick);
    }

    /// The newest round, which is open.
    fn newest(&self) -> CheckpointId {
        let (id, newest) = self.rounds.iter().next_back().expect("a round has begun");
        assert!(newest.open);
        *id
    }

    fn acknowledge_all(&mut self, id: CheckpointId) {
        for subtask in self.shared.plan.subtasks() {
            self.acknowledge(id, subtask);
        }
    }

    /// Answers the effect of which this is true.
    fn answer_as(&mut self, is: impl Fn(&Beside) -> bool, input: Input) {
        let at = self.beside.iter().position(is).expect("it is under way");
        self.beside.swap_remove(at);
        self.input(input);
    }

    fn stored(&mut self, id: CheckpointId, outcome: StoreOutcome) {
        self.answer_as(|beside| matches!(beside, Beside::Store(_)), Input::Stored(id, outcome));
    }

    fn ask_for_savepoint(&mut self, request: impl FnOnce(SavepointTarget) -> SnapshotRequest) {
        let id = RequestId(self.requests.len() as u64);
        self.requests.insert(id, 0);
        let dir = "savepoints".to_owned();
        let layout = Layout::Canonical;
        self.input(Input::Asked(id, request(SavepointTarget { dir, layout })));
    }

    fn a_subtask(&mut self) -> Option<SubtaskId> {
        let running: Vec<SubtaskId> = self.running.keys().copied().collect();
        self.random.pick(&running)
    }

    fn fail_a_subtask(&mut self) {
        let Some(subtask) = self.a_subtask() else { return };
        let Some((attempt, _)) = self.running.remove(&subtask) else {
            return;
        };
        let of = self.shared.plan.uids(subtask)[0].clone();
        let cause = if self.random.one_in(4) {
            Cause::Guest(GuestError::InvalidOutcome { what: "x".into() })
        } else {
            Cause::Panic("x".to_owned())
        };
        let failure = SubtaskFailure::new(of, subtask.index, "process", cause);
        self.input(Input::Event(attempt, Event::Failed(Box::new(failure))));
    }

    fn end_a_subtask(&mut self) {
        let Some(subtask) = self.a_subtask() else { return };
        let (attempt, told) = self.running[&subtask];
        if told {
            self.running.remove(&subtask);
            self.input(Input::Event(attempt, Event::Finished(subtask)));
        } else if self.shared.plan.reads(subtask) && self.random.one_in(2) {
            self.input(Input::Event(attempt, Event::Exhausted(subtask)));
        } else if self.ended.insert(subtask) {
            self.input(Input::Event(attempt, Event::Ended(subtask)));
        }
    }

    fn report_something_old(&mut self) {
        let Some(subtask) = self.a_subtask() else { return };
        let old = AttemptId(self.running[&subtask].0.0.saturating_sub(1));
        let event = match self.random.below(3) {
            0 => Event::Finished(subtask),
            1 => Event::SwapGap(SwapGap {
                uid: uid("count"),
                index: 0,
                id: CheckpointId(1),
                gap_ns: 1,
                usual_ns: 1,
            }),
            _ => Event::Ended(subtask),
        };
        self.input(Input::Event(old, event));
    }

    fn acknowledge_one(&mut self) {
        let open: Vec<CheckpointId> = self
            .rounds
            .iter()
            .filter(|(_, seen)| seen.open)
            .map(|(id, _)| *id)
            .collect();
        let (Some(id), Some(subtask)) = (self.random.pick(&open), self.a_subtask()) else {
            return;
        };
        self.acknowledge(id, subtask);
    }

    fn acknowledge(&mut self, id: CheckpointId, subtask: SubtaskId) {
        self.rounds.get_mut(&id).expect("it began").acked.insert(subtask);
        let event = Event::Snapshot(Box::new(SubtaskSnapshot::new(subtask, id)));
        self.input(Input::Event(self.running[&subtask].0, event));
    }

    /// Answers an effect that runs beside the loop; well, where the world is benign.
    fn answer_one(&mut self, benign: bool) {
        if self.beside.is_empty() {
            return;
        }
        let at = self.random.below(self.beside.len());
        let fails = !benign && self.random.one_in(3);
        let input = match self.beside.swap_remove(at) {
            Beside::Join(region) => Input::Joined(region),
            Beside::Store(id) => Input::Stored(id, self.store(id, fails)),
            Beside::Record(id) => {
                let may_pass = self.random.one_in(2);
                let message = "the store failed".to_owned();
                // A put whose answer was lost may have happened.
                if !fails || (may_pass && self.random.one_in(2)) {
                    self.version += 1;
                }
                self.rounds.get_mut(&id).expect("it began").recorded = !fails;
                let failure = RecordFailure { message, may_pass };
                Input::Recorded(id, if fails { Err(failure) } else { Ok(()) })
            }
            Beside::Commit(id) => {
                let failure = CommitFailure {
                    uid: Some(uid("x")),
                    message: "a full disk".to_owned(),
                    may_pass: self.random.one_in(2),
                };
                if !fails {
                    self.committed = Some(id);
                }
                let something = self.random.one_in(2);
                Input::Committed(id, if fails { Err(failure) } else { Ok(something) })
            }
            Beside::RemoveOld => Input::OldRemoved,
            Beside::RemoveSavepoint(id) if fails => Input::StillThere(id),
            Beside::RemoveSavepoint(_) | Beside::Other => Input::Noted,
            Beside::Prepare(wish) => Input::Prepared(self.prepare(wish, fails)),
        };
        self.input(input);
    }

    fn store(&mut self, id: CheckpointId, fails: bool) -> StoreOutcome {
        let why = "the store failed".to_owned();
        if fails {
            return match self.random.below(4) {
                0 => StoreOutcome::NotBegun(why),
                1 => StoreOutcome::Unclear(why),
                2 => StoreOutcome::Failed {
                    why,
                    at_fault: Some(uid("count")),
                },
                _ => StoreOutcome::Failed { why, at_fault: None },
            };
        }
        self.rounds.get_mut(&id).expect("it began").durable = true;
        StoreOutcome::Durable(Box::new(stored()))
    }

    fn prepare(&mut self, wish: Wish, fails: bool) -> Result<Next, PrepareFailure> {
        if fails {
            return Err(PrepareFailure {
                error: JobError::failed("the store failed"),
                may_pass: self.random.one_in(2),
            });
        }
        let durable = self
            .rounds
            .iter()
            .filter(|(_, seen)| seen.durable && seen.kind.commits());
        let newest = durable.map(|(id, seen)| (*id, seen.kind)).next_back();
        if let Some((id, SnapshotKind::Stop | SnapshotKind::EndOfInput)) = newest {
            self.committed = Some(id);
            return Ok(Next::Over(Box::new(Over {
                checkpoint_id: id,
                savepoint: None,
                sink_states: SinkStates::new(),
            })));
        }
        let restored = newest.map(|(id, _)| id);
        self.committed = restored;
        Ok(Next::Run(Box::new(Ready {
            attempt: AttemptId(wish.after.0 + 1),
            version: JobVersion(self.version),
            modules: self.shared.modules[self.modules].clone(),
            restored,
            from: "a checkpoint".to_owned(),
            lineage: vec![],
            last_id: wish.last_id,
            checkpoints: restored.into_iter().collect(),
            savepoints: BTreeSet::new(),
            regions: wish.regions,
        })))
    }

    /// The world becomes benign: input ends, or the job is cancelled. It must end.
    fn settle(&mut self) {
        if self.random.one_in(2) {
            self.input(Input::Cancel);
        }
        for _ in 0..400 {
            if self.over || !self.problems.is_empty() {
                return;
            }
            while !self.beside.is_empty() && self.problems.is_empty() {
                self.answer_one(true);
            }
            let running: Vec<SubtaskId> = self.running.keys().copied().collect();
            for subtask in running {
                let (attempt, told) = self.running[&subtask];
                if told {
                    self.running.remove(&subtask);
                    self.input(Input::Event(attempt, Event::Finished(subtask)));
                } else if self.ended.insert(subtask) {
                    self.input(Input::Event(attempt, Event::Ended(subtask)));
                } else if let Some((id, _)) = self.rounds.iter().find(|(_, seen)| seen.open) {
                    let id = *id;
                    self.acknowledge(id, subtask);
                }
            }
            self.pass(1_000_000_000);
        }
        let (status, beside) = (self.status, format!("{:?}", self.beside));
        self.problems
            .push(format!("the job does not end: it is {status}, beside {beside}"));
    }
}

/// Plays a history, and returns the problems that were found in it.
fn play(shared: &Shared, seed: u64, mistake: Option<Mistake>) -> Vec<String> {
    let mut world = World::new(shared, seed, mistake);
    let steps = 4 + world.random.below(40);
    for _ in 0..steps {
        if world.over || !world.problems.is_empty() {
            break;
        }
        world.step();
    }
    world.settle();
    world.problems
}

#[test]
fn every_history_keeps_the_properties() {
    let shared = Shared::new();
    let next = AtomicU64::new(0);
    let found = std::sync::Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(500, Ordering::Relaxed);
                    if first >= HISTORIES {
                        return;
                    }
                    for seed in first..first + 500 {
                        let problems = play(&shared, seed, None);
                        if !problems.is_empty() {
                            found.lock().expect("not poisoned").push((seed, problems));
                            next.store(HISTORIES, Ordering::Relaxed);
                            return;
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner().expect("not poisoned");
    assert!(found.is_empty(), "{found:#?}");
}

/// Each planted fault, and words of the property that it breaks.
const PLANTED: [(Mistake, &str); 11] = [
    (Mistake::CommitBeforeDurable, "is committed before it is durable"),
    (Mistake::CommitOutOfOrder, "is committed after"),
    (Mistake::StoreBeforeAcknowledged, "is stored with"),
    (Mistake::CheckpointBesideUpgrade, "begins beside"),
    (Mistake::AnswerTwice, "answered 2 times"),
    (Mistake::DropWaiting, "are never answered"),
    (Mistake::KeepRoundOverFailover, "left behind by a failover"),
    (Mistake::PrepareWhileStoring, "an attempt is prepared beside"),
    (Mistake::NeverJoin, "the job does not end"),
    (Mistake::EndWhileBusy, "the job ends beside"),
    (
        Mistake::VersionBeforeSnapshot,
        "a version is recorded before its snapshot",
    ),
];

#[test]
fn each_planted_mistake_turns_its_property_red() {
    let shared = Shared::new();
    for (mistake, words) in PLANTED {
        let red = (0..TO_FIND).any(|seed| {
            let problems = play(&shared, seed, Some(mistake));
            problems.iter().any(|problem| problem.contains(words))
        });
        assert!(red, "{mistake:?} is not noticed in {TO_FIND} histories");
    }
}

/// A job of which all has ended for `stop --drain`, and whose last round is under way.
fn drained(shared: &Shared) -> (World<'_>, CheckpointId) {
    let mut world = World::new(shared, 1, None);
    world.life.settings.savepoint_at_end = None;
    world.ask_for_savepoint(|target| SnapshotRequest::Stop { target, drain: true });
    for subtask in shared.plan.subtasks() {
        let attempt = world.running[&subtask].0;
        world.ended.insert(subtask);
        world.input(Input::Event(attempt, Event::Ended(subtask)));
    }
    let (id, last) = world.rounds.iter().next_back().expect("the last round has begun");
    assert_eq!(last.kind, SnapshotKind::Stop);
    let id = *id;
    (world, id)
}

#[test]
fn a_failed_drain_goes_back_also_where_a_savepoint_waits() {
    let shared = Shared::new();
    let (mut world, id) = drained(&shared);
    world.acknowledge_all(id);
    world.ask_for_savepoint(SnapshotRequest::Savepoint);
    let why = "a full disk".to_owned();
    world.stored(id, StoreOutcome::Failed { why, at_fault: None });
    assert_eq!(
        world.status,
        JobStatus::Restarting,
        "input behind the drain is not read yet"
    );
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn a_failure_after_a_drain_takes_all_regions_back() {
    let shared = Shared::new();
    let (mut world, _) = drained(&shared);
    let (subtask, attempt) = world
        .running
        .iter()
        .map(|(id, run)| (*id, run.0))
        .next()
        .expect("one runs");
    world.running.remove(&subtask);
    let of = shared.plan.uids(subtask)[0].clone();
    let failure = SubtaskFailure::new(of, subtask.index, "process", Cause::Panic("x".to_owned()));
    world.input(Input::Event(attempt, Event::Failed(Box::new(failure))));
    assert_eq!(world.status, JobStatus::Restarting);
    assert!(
        world.running.values().all(|(_, told)| *told),
        "those that have ended do not read on"
    );
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

const SECOND: u64 = 1_000_000_000;

/// A job whose first checkpoint has begun.
fn saving(shared: &Shared) -> (World<'_>, CheckpointId) {
    let mut world = World::new(shared, 1, None);
    world.life.settings.savepoint_at_end = None;
    world.wait(SECOND);
    let id = world.newest();
    assert_eq!(world.rounds[&id].kind, SnapshotKind::Checkpoint);
    (world, id)
}

/// The same, when it has expired while it was being stored.
fn overdue(shared: &Shared) -> (World<'_>, CheckpointId) {
    let (mut world, id) = saving(shared);
    world.acknowledge_all(id);
    world.wait(5 * SECOND);
    assert!(!world.rounds[&id].open && world.given_up.is_empty());
    (world, id)
}

#[test]
fn a_checkpoint_that_is_durable_after_it_expired_is_given_up() {
    let shared = Shared::new();
    let (mut world, id) = overdue(&shared);
    world.stored(id, StoreOutcome::Durable(Box::new(stored())));
    assert!(world.given_up.contains(&id));
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn a_checkpoint_that_was_not_begun_and_has_expired_is_given_up() {
    let shared = Shared::new();
    let (mut world, id) = overdue(&shared);
    world.stored(id, StoreOutcome::NotBegun("no such directory".to_owned()));
    assert!(world.given_up.contains(&id));
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn the_directory_of_an_expired_savepoint_of_which_nothing_is_left_is_forgotten() {
    let shared = Shared::new();
    let mut world = World::new(&shared, 1, None);
    world.ask_for_savepoint(SnapshotRequest::Savepoint);
    let id = world.newest();
    world.acknowledge_all(id);
    world.wait(5 * SECOND);
    assert!(!world.rounds[&id].open);
    assert!(world.cancelled.contains(&id), "it is not written any further");
    assert!(world.life.may_remove(id), "its files may still be there");
    let why = "a full disk".to_owned();
    world.stored(id, StoreOutcome::Failed { why, at_fault: None });
    assert!(world.forgotten.contains(&id) && !world.life.may_remove(id));
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn a_cancelled_job_stops_writing_and_says_so() {
    let shared = Shared::new();
    let targets: [fn(SavepointTarget) -> SnapshotRequest; 2] = [SnapshotRequest::Savepoint, |target| {
        SnapshotRequest::Stop { target, drain: false }
    }];
    for request in targets {
        let mut world = World::new(&shared, 1, None);
        world.ask_for_savepoint(request);
        let id = world.newest();
        world.acknowledge_all(id);
        assert!(world.cancelled.is_empty());
        world.input(Input::Cancel);
        assert_eq!(world.cancelled, [id].into());
        let why = "it was cancelled while it was being written".to_owned();
        world.stored(id, StoreOutcome::Failed { why, at_fault: None });
        let error = world.answer.take().expect("answered").expect_err("there is none");
        let job = world.life.job_id();
        let expected = format!("savepoint {id} of job {job} FAILED (job {job} was cancelled)");
        assert_eq!(error.message, expected);
        world.settle();
        assert_eq!((world.over, world.problems), (true, vec![]));
    }
}

#[test]
fn a_savepoint_that_a_failing_job_leaves_to_complete_is_given_up_by_cancel() {
    let shared = Shared::new();
    let mut world = World::new(&shared, 1, None);
    world.ask_for_savepoint(SnapshotRequest::Savepoint);
    let id = world.newest();
    world.acknowledge_all(id);
    let (subtask, attempt) = world.running.iter().map(|(id, run)| (*id, run.0)).next().expect("one");
    world.running.remove(&subtask);
    let of = shared.plan.uids(subtask)[0].clone();
    let cause = Cause::Guest(GuestError::InvalidOutcome { what: "x".into() });
    let failure = SubtaskFailure::new(of, subtask.index, "process", cause);
    world.input(Input::Event(attempt, Event::Failed(Box::new(failure))));
    assert_eq!((world.status, world.cancelled.len()), (JobStatus::Failing, 0));
    world.input(Input::Cancel);
    assert_eq!(world.cancelled, [id].into());
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn a_round_that_expires_when_it_is_acknowledged_names_its_directory() {
    let shared = Shared::new();
    let (mut world, id) = saving(&shared);
    let mut subtasks: Vec<SubtaskId> = shared.plan.subtasks().collect();
    let last = subtasks.pop().expect("a subtask");
    for subtask in subtasks {
        world.acknowledge(id, subtask);
    }
    world.at.now_ns += 5 * SECOND;
    world.acknowledge(id, last);
    let past = world.past.last().expect("it has expired");
    let url = format!("file:///{id}");
    let failure = format!("expired before completing; all acked, but not wholly written to {url}");
    assert_eq!((past.checkpoint_id, past.path.as_ref()), (id, Some(&url)));
    assert_eq!(past.failure, Some(failure));
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

/// A job whose version 2 is being recorded.
fn upgrading(shared: &Shared) -> (World<'_>, CheckpointId) {
    let (mut world, first) = saving(shared);
    world.acknowledge_all(first);
    while !world.beside.is_empty() {
        world.answer_one(true);
    }
    world.requests.insert(RequestId(0), 0);
    let swap = SwapRequest {
        set: SwapSet::default(),
        modules: shared.modules[1].clone(),
    };
    world.input(Input::Asked(RequestId(0), SnapshotRequest::Upgrade(swap)));
    let id = world.newest();
    world.acknowledge_all(id);
    world.rounds.get_mut(&id).expect("it began").durable = true;
    world.stored(id, StoreOutcome::Durable(Box::new(stored())));
    (world, id)
}

fn recorded(world: &mut World<'_>, id: CheckpointId) {
    world.rounds.get_mut(&id).expect("it began").recorded = true;
    world.answer_as(
        |beside| matches!(beside, Beside::Record(_)),
        Input::Recorded(id, Ok(())),
    );
}

/// The job is suspended while it restarts, and its upgrade has come about.
fn suspended(mut world: World<'_>, id: CheckpointId) {
    assert_eq!(world.status, JobStatus::Restarting);
    assert_eq!(world.requests[&RequestId(0)], 0);
    world.input(Input::Suspend);
    let report = world.answer.take().expect("answered").expect("it has come about");
    assert_eq!((report.checkpoint_id, report.version), (id, JobVersion(2)));
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn an_upgrade_recorded_during_a_restart_has_come_about_when_the_job_is_suspended() {
    let shared = Shared::new();
    let (mut world, id) = upgrading(&shared);
    world.fail_a_subtask();
    recorded(&mut world, id);
    suspended(world, id);
}

#[test]
fn an_upgrade_whose_output_waits_for_the_next_attempt_has_come_about_when_the_job_is_suspended() {
    let shared = Shared::new();
    let (mut world, id) = upgrading(&shared);
    recorded(&mut world, id);
    let failure = CommitFailure {
        uid: Some(uid("x")),
        message: "a full disk".to_owned(),
        may_pass: true,
    };
    world.answer_as(
        |beside| matches!(beside, Beside::Commit(_)),
        Input::Committed(id, Err(failure)),
    );
    suspended(world, id);
}

#[test]
fn an_upgrade_that_cannot_be_recorded_does_not_end_a_job_that_is_never_restarted() {
    let shared = Shared::new();
    let (mut world, id) = upgrading(&shared);
    world.life.restarts = Restarts::new(RestartStrategy::None);
    let full = RecordFailure {
        message: "no space left".to_owned(),
        may_pass: true,
    };
    world.answer_as(
        |beside| matches!(beside, Beside::Record(_)),
        Input::Recorded(id, Err(full)),
    );
    for (subtask, (attempt, _)) in std::mem::take(&mut world.running) {
        world.input(Input::Event(attempt, Event::Finished(subtask)));
    }
    for _ in 0..3 {
        while !world.beside.iter().any(|beside| matches!(beside, Beside::Prepare(_))) {
            if world.beside.is_empty() {
                world.wait(10 * SECOND);
            } else {
                world.answer_one(true);
            }
        }
        let error = JobError::failed("no space left");
        world.answer_as(
            |beside| matches!(beside, Beside::Prepare(_)),
            Input::Prepared(Err(PrepareFailure { error, may_pass: true })),
        );
        assert_eq!(world.status, JobStatus::Restarting);
    }
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}

#[test]
fn a_failure_of_an_upgraded_operator_says_how_to_go_back() {
    let shared = Shared::new();
    let uid_of = |world: &World<'_>, id: CheckpointId| {
        let of = world.life.rounds[&id].asked.request.swaps().expect("an upgrade");
        of.keys().next().expect("a module").clone()
    };
    let fail = |world: &mut World<'_>, uid: &OperatorUid| {
        let subtask = shared.plan.subtask_of(uid, 0).expect("it runs");
        let (attempt, _) = world.running.remove(&subtask).expect("it runs");
        let cause = Cause::Guest(GuestError::InvalidOutcome { what: "x".into() });
        let failure = SubtaskFailure::new(uid.clone(), 0, "process", cause);
        world.input(Input::Event(attempt, Event::Failed(Box::new(failure))));
        world.failed.take().expect("it has failed")
    };
    let (mut world, id) = upgrading(&shared);
    let uid = uid_of(&world, id);
    let before = world.life.facts.modules[&uid].digest().to_string();
    recorded(&mut world, id);
    while !world.beside.is_empty() {
        world.answer_one(true);
    }
    let shown = fail(&mut world, &uid);
    let expected = format!(
        "\n  \"{uid}\" runs the module of version 2, by the upgrade at checkpoint {id}. To go back to the module before it: regraft run -s file:///{id} JOB.toml --module {uid}=/shared/{before}.wasm"
    );
    assert!(shown.ends_with(&expected), "{shown}\n{expected}");
    // It stays there, also when no checkpoint needs it any more.
    let now = world
        .life
        .facts
        .modules
        .values()
        .map(|module| module.digest().to_string());
    assert_eq!(world.kept_modules, now.chain([before]).collect());
    world.settle();
    // Without an upgrade there is nothing to go back to.
    let (mut world, _) = saving(&shared);
    assert!(!fail(&mut world, &uid).contains("To go back"));
}

#[test]
fn a_drain_whose_timers_have_no_end_fails_and_the_job_goes_back() {
    let shared = Shared::new();
    let (mut world, id) = saving(&shared);
    world.acknowledge_all(id);
    while !world.beside.is_empty() {
        world.answer_one(true);
    }
    world.ask_for_savepoint(|target| SnapshotRequest::Stop { target, drain: true });
    let (subtask, attempt) = world.running.iter().map(|(id, run)| (*id, run.0)).next().expect("one");
    world.running.remove(&subtask);
    let of = shared.plan.uids(subtask)[0].clone();
    let timers = vec!["\"tick\"".to_owned()];
    let failure = SubtaskFailure::new(of, subtask.index, "on-timers", Cause::Endless { timers, times: 7 });
    world.input(Input::Event(attempt, Event::Failed(Box::new(failure))));
    assert_eq!(world.status, JobStatus::Restarting);
    let told = world.answer.take().expect("answered").expect_err("not drained").message;
    assert!(
        told.contains(" is not drained, and goes on from its last checkpoint: ")
            && told.contains("again 7 times: \"tick\"."),
        "{told}"
    );
    world.settle();
    assert_eq!(world.problems, [""; 0]);
}
