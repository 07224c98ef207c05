//! Tests of a node with a native operator that fails on command: what is rerun, what is kept, and what happens to the
//! record.

use std::sync::Mutex;

use regraft_guest_runtime::call::{BatchView, CellWrites, Failure, Output, TimerView};
use regraft_guest_runtime::trap::TrapCause;
use regraft_model::batch::BytesColumn;
use regraft_model::describe::{
    OperatorStateDescription, StateDescription, StateKind, TimerDescription, WIT_VERSION, interface,
};
use regraft_model::key_group::{MAX_PARALLELISM_DEFAULT, range_of};
use regraft_model::origin::Origin;
use regraft_model::schema::{Field, Type};
use regraft_model::time::NO_TIMESTAMP;

use super::*;
use crate::connector::sink::{SinkError, SinkWriter};
use crate::dataflow::control::locked;
use crate::dataflow::failure::Shown;
use crate::dataflow::operator::Operator;
use crate::dataflow::operator::dead_letters::{Budget, count_of};
use crate::state::memory::MemoryBackend;
use crate::state::rows::RowsOf;

/// A log of all instances of a node.
#[derive(Debug, Default)]
struct Seen {
    opened: usize,
    /// Header and values of each `process` call.
    calls: Vec<(Header, Vec<String>)>,
}

/// Counts records by key, and emits each record's value. A value is also a command for other things to happen.
#[derive(Debug)]
struct Script {
    seen: Arc<Mutex<Seen>>,
    /// True if a panic names its row.
    names: bool,
    /// Limit of records that it can take at once.
    rows_max: usize,
    /// Operator state: one byte for each record processed.
    own: Vec<u8>,
    open: bool,
    poisoned: bool,
    /// True if it cannot save its operator state.
    unsaved: bool,
    /// Number of times that its timer sets itself again.
    ticks: u32,
    /// Time that it sets itself for, by the time that has come.
    next: fn(i64) -> i64,
}

impl Script {
    fn new(seen: &Arc<Mutex<Seen>>) -> Self {
        Self {
            seen: seen.clone(),
            names: true,
            rows_max: usize::MAX,
            own: vec![],
            open: false,
            poisoned: false,
            unsaved: false,
            ticks: 0,
            next: |time| time + 10,
        }
    }

    fn trap(&mut self, cause: TrapCause) -> GuestError {
        self.poisoned = true;
        GuestError::Trapped {
            cause,
            backtrace: vec![],
        }
    }

    fn check(&mut self, row: u32, value: &[u8]) -> Result<(), GuestError> {
        match value {
            b"panic" => Err(self.trap(TrapCause::Panic {
                message: "no".into(),
                file: "src/lib.rs".into(),
                line: 3,
                column: 5,
                row: self.names.then_some(row),
            })),
            b"fail" => Err(GuestError::Failed {
                failure: Failure {
                    row: Some(row),
                    message: "not this one".into(),
                },
            }),
            b"undecodable" => Err(GuestError::Failed {
                failure: Failure {
                    row: None,
                    message: "state \"count\" cannot be decoded".into(),
                },
            }),
            b"store" => Err(GuestError::Engine {
                doing: "reading state",
                message: "gone".into(),
            }),
            _ => Ok(()),
        }
    }
}

/// Sets the timer of a key, or none.
fn set_timer(key: Option<u32>, time: i64) -> Outcome {
    let Some(key) = key else { return Outcome::default() };
    Outcome {
        timer_ops: vec![0],
        timer_keys: vec![key],
        timer_ids: vec![0],
        timer_times: vec![time],
        ..Outcome::default()
    }
}

impl Operator for Script {
    fn open(&mut self, _: Header, _: &OpenContext) -> Result<(), GuestError> {
        assert!(!self.open && !self.poisoned, "opened twice");
        self.open = true;
        locked(&self.seen).opened += 1;
        Ok(())
    }

    fn process(&mut self, header: Header, batch: BatchView<'_>, keyed: KeyedView<'_>) -> Result<Outcome, GuestError> {
        assert!(self.open && !self.poisoned, "called after a trap");
        let item = |data: &[u8], ends: &[u32], i: usize| {
            let start = if i == 0 { 0 } else { ends[i - 1] as usize };
            data[start..ends[i] as usize].to_vec()
        };
        let values: Vec<Vec<u8>> = (0..batch.rows())
            .map(|i| item(batch.value_data, batch.value_ends, i))
            .collect();
        let texts = values.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        locked(&self.seen).calls.push((header, texts));
        if values.len() > self.rows_max {
            return Err(self.trap(TrapCause::Deadline {
                limit: std::time::Duration::from_secs(1),
            }));
        }
        let mut counts: Vec<u8> = (0..keyed.keys())
            .map(|key| {
                let cells = &keyed.cells[0].values;
                item(&cells.data, &cells.ends, key).first().copied().unwrap_or(0)
            })
            .collect();
        for (row, value) in values.iter().enumerate() {
            self.own.push(b'.');
            self.check(row as u32, value)?;
            counts[batch.key_index[row] as usize] += 1;
        }
        let mut written = CellWrites {
            keys: (0..keyed.keys() as u32).collect(),
            ..CellWrites::default()
        };
        counts.iter().for_each(|count| written.values.push(&[*count]));
        let ticking = values.iter().position(|value| value == b"tick");
        let key = ticking.map(|row| batch.key_index[row]);
        Ok(Outcome {
            cells: vec![written],
            outputs: vec![Output {
                parents: (0..values.len() as u32).collect(),
                ..Output::default()
            }],
            ..set_timer(key, 10)
        })
    }

    fn on_timers(&mut self, _: Header, timers: TimerView<'_>, _: KeyedView<'_>) -> Result<Outcome, GuestError> {
        let again = self.ticks > 0;
        self.ticks = self.ticks.saturating_sub(1);
        Ok(set_timer(again.then_some(0), (self.next)(timers.times[0])))
    }

    fn finish_keys(&mut self, _: Header, _: KeyedView<'_>) -> Result<Outcome, GuestError> {
        Err(self.trap(TrapCause::StackOverflow))
    }

    fn finish(&mut self, _: Header) -> Result<Outcome, GuestError> {
        Err(self.trap(TrapCause::StackOverflow))
    }

    fn snapshot(&mut self, _: Header, _: CheckpointId) -> Result<Vec<OperatorState>, GuestError> {
        if self.unsaved {
            return Err(self.trap(TrapCause::StackOverflow));
        }
        let mut items = BytesColumn::default();
        items.push(&self.own);
        let name = "own".to_owned();
        Ok(vec![OperatorState { name, items }])
    }

    fn restore(&mut self, _: Header, states: &[OperatorState]) -> Result<(), GuestError> {
        self.own = states[0].items.get(0).to_vec();
        Ok(())
    }

    fn reset(&mut self) -> Result<(), GuestError> {
        (self.open, self.poisoned) = (false, false);
        self.own.clear();
        Ok(())
    }
}

/// A clock that advances with every reading.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicU64);

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed) as i64
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A sink that keeps lines.
#[derive(Debug, Default, Clone)]
struct Lines(Arc<Mutex<Vec<serde_json::Value>>>);

impl SinkWriter for Lines {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let line = |value: &[u8]| serde_json::from_slice(value).expect("a line of JSON");
        locked(&self.0).extend(batch.values.iter().map(line));
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) {}

    fn abort(&mut self) {}

    fn set_input(&mut self, _: &regraft_model::describe::PortValue) -> Result<(), SinkError> {
        Ok(())
    }
}

struct World {
    node: OperatorNode,
    seen: Arc<Mutex<Seen>>,
    letters: Lines,
}

fn description(own_state: bool) -> Description {
    let state = StateDescription {
        name: "count".into(),
        kind: StateKind::Value,
        schema: Type::U8,
        map_key: None,
        travels: true,
        ttl_ms: None,
        version: None,
    };
    let own = OperatorStateDescription {
        name: "own".into(),
        kind: "list".into(),
        schema: Type::Bytes,
    };
    Description {
        wit: WIT_VERSION.into(),
        key: Some(Field {
            name: "word".into(),
            ty: Type::String,
            aliases: vec![],
            default: false,
        }),
        states: vec![state],
        operator_states: if own_state { vec![own] } else { vec![] },
        calls: Some(vec![interface::ENDING.into()]),
        ..Description::default()
    }
}

fn world(
    on_trap: Policy,
    on_failure: Policy,
    budget: Option<u64>,
    set: impl FnOnce(&mut Script, &mut Description),
) -> World {
    let (seen, letters) = (Arc::default(), Lines::default());
    let (mut script, mut description) = (Script::new(&seen), description(false));
    set(&mut script, &mut description);
    let uid = OperatorUid::new("count").expect("uid");
    let context = open_context(&uid, 1, 2, MAX_PARALLELISM_DEFAULT);
    script.open(plain_header(0, NO_TIMESTAMP), &context).expect("opened");
    let range = range_of(0, 1, MAX_PARALLELISM_DEFAULT);
    let backend = MemoryBackend::new(uid.clone(), range, MAX_PARALLELISM_DEFAULT);
    let node = OperatorNode::new(NodeParts {
        uid,
        subtask: 1,
        prepared: PreparedOperator {
            operator: Box::new(script),
            description: Arc::new(description),
            context,
        },
        backend: Some(Box::new(backend)),
        clock: Arc::<Ticking>::default(),
        counters: Arc::default(),
        watermark: NO_TIMESTAMP,
        strategy: None,
        policy: NodePolicy {
            on_trap,
            on_failure,
            dead_letters: Some(DeadLetters::new(
                Box::new(letters.clone()),
                Arc::new(Budget::new(budget, 0)),
                0,
            )),
            ..NodePolicy::default()
        },
        seed: 7,
    });
    World { node, seen, letters }
}

impl World {
    /// Processes records `key=value`, positioned from line 11 of a file on. Returns the emitted values.
    fn process(&mut self, records: &[&str]) -> Result<Vec<String>, SubtaskFailure> {
        let mut batch = Batch::default();
        for record in records {
            let (key, value) = record.split_once('=').expect("key=value");
            batch.keys.column.push(key.as_bytes());
            batch.values.push(value.as_bytes());
        }
        batch.origin = Some(Origin::sequence("in.txt".into(), 11));
        let mut out = vec![];
        self.node.process(0, batch, false, true, &mut out)?;
        let record = |batch: &Batch, i| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let position = batch.origin.as_ref().and_then(|origin| origin.text(i as u32));
            format!(
                "{}={} {}",
                text(batch.key(i)),
                text(batch.values.get(i)),
                position.unwrap_or_default()
            )
        };
        let of = |(_, batch): &(u32, Batch)| (0..batch.len()).map(|i| record(batch, i)).collect::<Vec<_>>();
        Ok(out.iter().flat_map(of).collect())
    }

    /// Returns the count of each key, in order of key.
    fn counts(&mut self) -> Vec<(String, u8)> {
        let backend = self.node.backend().expect("keyed");
        let base = backend.begin_snapshot(CheckpointId(1), None);
        assert_eq!(base, None);
        let mut counts = vec![];
        while let Some(all) = backend.next_snapshot_rows() {
            for rows in all.iter().filter(|rows| rows.of == RowsOf::State(0)) {
                let row = |i| {
                    (
                        String::from_utf8_lossy(rows.keys.get(i)).into_owned(),
                        rows.values.get(i)[0],
                    )
                };
                counts.extend((0..rows.len()).map(row));
            }
        }
        counts.sort();
        counts
    }

    fn letters(&self) -> Vec<serde_json::Value> {
        locked(&self.letters.0).clone()
    }
}

fn counted(counts: &[(&str, u8)]) -> Vec<(String, u8)> {
    counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

#[test]
fn a_record_that_panics_is_put_among_the_dead_letters_and_all_others_are_counted() {
    for names in [true, false] {
        let mut world = world(Policy::DeadLetter, Policy::Fail, None, |script, _| script.names = names);
        let out = world
            .process(&["a=1", "b=2", "a=panic", "a=3", "c=4", "b=5"])
            .expect("goes on");
        let expected = [
            "a=1 in.txt:11",
            "b=2 in.txt:12",
            "a=3 in.txt:14",
            "c=4 in.txt:15",
            "b=5 in.txt:16",
        ];
        assert_eq!(out, expected, "names: {names}");
        assert_eq!(world.counts(), counted(&[("a", 2), ("b", 2), ("c", 1)]));
        let expected = serde_json::json!({
            "uid": "count", "subtask": 1, "position": "in.txt:13", "key": "a", "value": "panic", "kind": "trap",
            "error": "the module panicked at src/lib.rs:3:5: no",
        });
        assert_eq!(world.letters(), [expected]);
        // The next batch is processed as if nothing had happened.
        assert_eq!(world.process(&["a=6"]).expect("goes on"), ["a=6 in.txt:11"]);
        assert_eq!(world.counts(), counted(&[("a", 3), ("b", 2), ("c", 1)]));
        assert_eq!(world.node.counters.dead_letters.load(Ordering::Relaxed), 1);
        assert_eq!(world.node.counters.records_in.load(Ordering::Relaxed), 7);
    }
}

#[test]
fn every_part_has_the_clock_and_the_randomness_of_the_whole() {
    let mut world = world(Policy::DeadLetter, Policy::DeadLetter, None, |script, _| {
        script.names = false
    });
    world
        .process(&["a=1", "b=fail", "c=3", "d=panic", "e=5"])
        .expect("goes on");
    let seen = locked(&world.seen);
    let (whole, _) = seen.calls[0];
    let mut last = 0;
    for (header, values) in &seen.calls {
        assert_eq!((header.now, header.seed), (whole.now, whole.seed));
        let row = ["1", "fail", "3", "panic", "5"]
            .iter()
            .position(|value| *value == values[0]);
        assert_eq!(Some(header.first_row as usize), row, "{values:?}");
        last = last.max(header.first_row);
    }
    assert_eq!(last, 4);
    assert!(seen.opened > 1, "a new instance after a trap");
}

#[test]
fn with_the_policy_fail_the_failure_shows_the_one_record() {
    for names in [true, false] {
        let mut world = world(Policy::Fail, Policy::Fail, None, |script, _| script.names = names);
        let failure = world.process(&["a=1", "b=panic", "a=3"]).expect_err("it fails");
        assert_eq!(
            failure.to_string(),
            "operator \"count\", subtask 1, failed in process: the module panicked at src/lib.rs:3:5: no\n  \
             record: key \"b\", value \"panic\", from in.txt:12\n  policy: on-trap = \"fail\": the job fails"
        );
        assert!(!failure.restartable());
    }
    let mut world = world(Policy::DeadLetter, Policy::Fail, None, |_, _| {});
    let failure = world.process(&["a=1", "b=fail", "a=3"]).expect_err("it fails");
    assert_eq!(
        failure.to_string(),
        "operator \"count\", subtask 1, failed in process: not this one\n  \
         record: key \"b\", value \"fail\", from in.txt:12\n  policy: on-failure = \"fail\": the job fails"
    );
    assert_eq!(world.letters(), [] as [serde_json::Value; 0]);
}

#[test]
fn a_batch_that_is_too_much_at_once_goes_on_in_parts() {
    let mut world = world(Policy::Fail, Policy::Fail, None, |script, _| script.rows_max = 2);
    let out = world.process(&["a=1", "b=2", "a=3", "a=4", "c=5"]).expect("goes on");
    assert_eq!(out.len(), 5);
    assert_eq!(world.counts(), counted(&[("a", 3), ("b", 1), ("c", 1)]));
}

#[test]
fn state_that_does_not_decode_is_no_records_fault() {
    let mut world = world(Policy::DeadLetter, Policy::DeadLetter, None, |_, _| {});
    let failure = world.process(&["a=1", "b=undecodable"]).expect_err("it fails");
    assert!(failure.to_string().ends_with(
        "failed in process: state \"count\" cannot be decoded\n  policy: an error that names no record always fails the job"
    ));
    assert!(!failure.restartable());
    assert_eq!(world.letters().len(), 0);
    assert_eq!(world.counts(), counted(&[]));
    // A failing store is not the guest's fault either, and may work again after a restart.
    assert!(world.process(&["a=store"]).expect_err("it fails").restartable());
    // Nor is there a record to blame at the end.
    let failure = world.node.end(true, &mut vec![]).expect_err("it fails");
    assert!(failure.to_string().contains("failed in finish"), "{failure}");
    assert!(
        failure
            .to_string()
            .ends_with("\n  policy: a failure here always fails the job"),
        "{failure}"
    );
}

#[test]
fn one_dead_letter_too_many_fails_the_job() {
    let mut world = world(Policy::DeadLetter, Policy::DeadLetter, Some(2), |_, _| {});
    world.process(&["a=fail", "b=panic", "c=3"]).expect("goes on");
    let failure = world.process(&["a=4", "b=fail"]).expect_err("it fails");
    assert_eq!(
        failure.to_string(),
        "operator \"count\", subtask 1, failed in dead-letter: the operator has more dead letters than \
         `dead-letter.budget` allows, which is 2; the next one would be: not this one\n  \
         record: key \"b\", value \"fail\", from in.txt:12"
    );
    assert!(!failure.restartable());
    assert_eq!(world.letters().len(), 2);
    let saved = world.node.prepare_dead_letters(CheckpointId(1)).expect("prepared");
    assert_eq!(saved.map(|saved| count_of(&saved.state)), Some(2));
}

#[test]
fn an_operator_with_state_of_its_own_goes_back_to_its_checkpoint_and_then_is_run_carefully() {
    let own = |_: &mut Script, description: &mut Description| *description = self::description(true);
    let mut first = world(Policy::Fail, Policy::Fail, None, own);
    let failure = first.process(&["a=1", "b=panic", "a=3"]).expect_err("it fails");
    assert!(failure.unisolated && failure.restartable(), "{failure}");
    let record = failure.record.as_ref().and_then(|record| record.content.clone());
    assert_eq!(record, Some(("\"b\"".to_owned(), Shown::Value("\"panic\"".to_owned()))));
    // After the restart.
    let mut second = world(Policy::Fail, Policy::Fail, None, own);
    second.node.policy.careful = true;
    let failure = second.process(&["a=1", "b=panic", "a=3"]).expect_err("it fails");
    assert!(!failure.unisolated && !failure.restartable(), "{failure}");
}

#[test]
fn state_of_its_own_is_what_it_was_before_the_call_that_failed() {
    let own = |_: &mut Script, description: &mut Description| *description = self::description(true);
    let mut world = world(Policy::DeadLetter, Policy::DeadLetter, None, own);
    world
        .process(&["a=1", "b=panic", "a=3", "c=fail", "c=5"])
        .expect("goes on");
    let own = world.node.snapshot(CheckpointId(1)).expect("saved");
    assert_eq!(own[0].items.get(0), b"...", "one for each record that was processed");
}

#[test]
fn a_new_instance_that_cannot_save_its_own_state_does_not_take_over() {
    let own = |_: &mut Script, description: &mut Description| *description = self::description(true);
    let mut world = world(Policy::Fail, Policy::Fail, None, own);
    world.process(&["a=1"]).expect("processed");
    let old = world.node.snapshot(CheckpointId(1)).expect("saved");
    let prepared = |unsaved: bool, world: &World| {
        let mut script = Script::new(&world.seen);
        script.unsaved = unsaved;
        PreparedOperator {
            operator: Box::new(script),
            description: Arc::new(description(true)),
            context: world.node.instance.context.clone(),
        }
    };
    let new = prepared(true, &world);
    let failure = world.node.swap(CheckpointId(1), new, &old).expect_err("refused");
    assert!(
        matches!(failure.cause, Cause::Swap(_)) && failure.restartable(),
        "{failure}"
    );
    let new = prepared(false, &world);
    world.node.swap(CheckpointId(1), new, &old).expect("taken over");
    let own = world.node.snapshot(CheckpointId(2)).expect("saved");
    assert_eq!(own[0].items.get(0), b".", "what the old one had");
}

/// Ends a node whose timer sets itself again so many times. Returns the number of steps.
fn ended(ticks: u32, next: fn(i64) -> i64) -> Result<u32, String> {
    let mut world = world(Policy::Fail, Policy::Fail, None, |script, description| {
        (script.ticks, script.next) = (ticks, next);
        description.calls = Some(vec![]);
        description.timers = vec![TimerDescription {
            name: "tick".into(),
            time: "event".into(),
        }];
    });
    world.process(&["a=tick"]).expect("processed");
    let mut steps = 0;
    loop {
        match world.node.end(false, &mut vec![]) {
            Ok(true) => steps += 1,
            Ok(false) => return Ok(steps),
            Err(failure) => return Err(failure.to_string()),
        }
    }
}

#[test]
fn timers_that_set_themselves_again_come_to_an_end_or_are_named() {
    let later = |time: i64| time + 10;
    assert_eq!((ended(0, later), ended(2_000, later)), (Ok(1), Ok(2_001)));
    // Later, at the end of time, for the same time, and for one that has passed: as `cx.watermark() + 10` may be.
    let told: [fn(i64) -> i64; 4] = [later, |_| i64::MAX, |time| time, |time| time.wrapping_sub(10)];
    for next in told {
        let told = ended(u32::MAX, next).expect_err("it has no end");
        assert_eq!(told, ENDLESS);
    }
}

const ENDLESS: &str = "operator \"count\", subtask 1, failed in on-timers: at the end of the input, when all event-time timers fire, these timers have set themselves again 1000000 times: \"tick\". There is no end to it: set none of them in `on_timer` once `cx.watermark()` is `i64::MAX`, or end the job with `stop`, without --drain, or with --savepoint-at-end";
