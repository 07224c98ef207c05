//! The conformance suite of keyed-state backends; a backend calls it with a function that makes one.
//!
//! [`run`] plays a script of arbitrary calls, marks, sweeps, rebinds and restores on a backend and on a plain model.
//! It compares all that calls read, what each round hands out, and the state that its rows restore.

mod script;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use regraft_guest_runtime::call::TIMER_REGISTER;
use regraft_model::batch::Keys;
use regraft_model::describe::StateKind;
use regraft_model::id::CheckpointId;
use regraft_model::key_group::{KeyGroupRange, hash32, key_group, range_of};

use super::backend::{BoundState, Cells, DueTimers, StateBackend, TimeDomain, TimerOps, Writes};
use super::rows::{REMOVED, StateRows};
use model::{Model, check_read, from_rows};
use script::{Op, Step, Written, key_bytes, keys_of, renamed, states, timers};
pub use script::{Script, scripts};

/// A function that makes an empty backend at max parallelism [`GROUPS`].
pub type Make<'a> = &'a dyn Fn(KeyGroupRange) -> Box<dyn StateBackend>;

/// Max parallelism of all backends in this suite.
pub const GROUPS: u32 = 8;

/// Keys that were written; `None` if any key may have been.
type TouchedKeys = Option<BTreeSet<Vec<u8>>>;

/// A round, from its mark on.
struct Round {
    id: CheckpointId,
    base: Option<CheckpointId>,
    bound: Vec<BoundState>,
    rows: Vec<StateRows>,
    /// The model as of the mark.
    model: Model,
    swept: bool,
    completed: bool,
    /// Keys touched between the previous mark and this one.
    touched: TouchedKeys,
}

struct Player<'a> {
    make: Make<'a>,
    backend: Box<dyn StateBackend>,
    bound: Vec<BoundState>,
    /// Number of declared timers.
    timers: usize,
    model: Model,
    now: i64,
    rounds: Vec<Round>,
    next_round: u64,
    /// The newest round that was a base.
    based: Option<CheckpointId>,
    touched: TouchedKeys,
}

/// Plays a script.
///
/// # Panics
/// Panics if the backend and the model differ.
pub fn run(make: Make<'_>, script: &Script) {
    let mut player = Player {
        make,
        backend: make(range_of(0, 1, GROUPS)),
        bound: script.states.clone(),
        timers: 3,
        model: Model::default(),
        now: 1_000,
        rounds: vec![],
        next_round: 1,
        based: None,
        touched: Some(BTreeSet::new()),
    };
    player.bind();
    player.backend.loaded(None);
    for step in &script.steps {
        player.step(step);
    }
    player.sweep(usize::MAX);
    player.mark(None);
    player.sweep(usize::MAX);
    player.end(usize::MAX, true);
    player.check_keys();
}

impl Player<'_> {
    fn bind(&mut self) {
        self.backend.bind(&self.bound, &timers(self.timers));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Call { wait, ops } => {
                self.now += wait;
                self.call(ops);
            }
            Step::Mark { base } => {
                self.sweep(usize::MAX);
                let completed: Vec<_> = self.rounds.iter().filter(|r| r.completed).map(|r| r.id).collect();
                let base = base.and_then(|back| completed.iter().nth_back(usize::from(back)).copied());
                self.mark(base);
            }
            Step::Sweep(groups) => self.sweep(usize::from(*groups)),
            Step::End { which, completed } => self.end(usize::from(*which), *completed),
            Step::Fire { domain, by, max, again } => self.fire(*domain, *by, *max, *again),
            Step::Rebind {
                rotate,
                flip,
                ttl_ms,
                timers,
            } => {
                for state in self.bound.iter_mut().filter(|state| state.ttl_ms.is_some()) {
                    state.ttl_ms = Some(*ttl_ms);
                }
                self.rebind(usize::from(*rotate), *flip, *timers);
            }
            Step::Restore { parts } => self.restore(u32::from(*parts)),
        }
    }

    fn touch(&mut self, key: &[u8]) {
        if let Some(touched) = &mut self.touched {
            touched.insert(key.to_vec());
        }
    }

    /// Looks up keys, and checks that a call reads the state as it was before the call.
    fn resolve(&mut self, keys: &Keys) -> Cells {
        let mut cells = Cells::default();
        self.backend.resolve(keys, self.now, &mut cells).expect("in range");
        let visible = self.model.visible(self.now);
        let travelling = self.bound.iter().enumerate().filter(|(_, state)| state.travels);
        assert_eq!(cells.columns.len(), travelling.clone().count());
        for (column, (position, state)) in cells.columns.iter().zip(travelling) {
            assert_eq!(column.state as usize, position);
            for (k, key) in keys.column.iter().enumerate() {
                let expected = visible.value(&state.name, key);
                assert_eq!(column.present[k] != 0, expected.is_some(), "{} of {key:?}", state.name);
                assert_eq!(column.values.get(k), expected.unwrap_or_default());
            }
        }
        let Some(access) = self.backend.access() else {
            assert!(self.bound.iter().all(|state| state.travels));
            return cells;
        };
        for (position, state) in self.bound.iter().enumerate().filter(|(_, state)| !state.travels) {
            for (k, key) in keys.column.iter().enumerate() {
                let expected = visible.entries(&state.name, key);
                check_read(&*access, position as u32, k as u32, state.kind, expected);
            }
        }
        cells
    }

    fn call(&mut self, ops: &BTreeMap<u8, Vec<Op>>) {
        let keys = keys_of(ops.keys().map(|key| key_bytes(*key)));
        let cells = self.resolve(&keys);
        let written = Written::new(ops, &self.bound, self.timers);
        self.backend.apply(&keys, &cells, self.now, written.writes());
        for (key, ops) in ops {
            let key = key_bytes(*key);
            self.touch(&key);
            self.model.apply(&key, ops, &self.bound, self.timers, self.now);
        }
        self.check_timers();
    }

    fn check_timers(&self) {
        for domain in [TimeDomain::Event, TimeDomain::Processing] {
            let first = self
                .model
                .due(domain, i64::MAX, self.timers)
                .first()
                .map(|first| first.0);
            assert_eq!(self.backend.next_timer(domain), first);
        }
    }

    /// Checks that due timers come in order, at most one per key, and stay pending until they have fired.
    fn fire(&mut self, domain: TimeDomain, up_to: i64, max: usize, again: bool) {
        let mut expected = self.model.due(domain, up_to, self.timers);
        let mut keys = BTreeSet::new();
        let distinct = expected
            .iter()
            .take_while(|(_, key, _)| keys.insert(key.clone()))
            .count();
        expected.truncate(distinct.min(max));
        let due = self.backend.due_timers(domain, up_to, max);
        assert_eq!(due, self.backend.due_timers(domain, up_to, max));
        let Some(due) = due else {
            assert_eq!(expected, []);
            return;
        };
        let names = timers(self.timers);
        let timer = |i: usize| {
            let key = due.keys.column.get(due.key_index[i] as usize).to_vec();
            (due.times[i], key, names[due.timer_ids[i] as usize].name.clone())
        };
        assert_eq!((0..due.times.len()).map(timer).collect::<Vec<_>>(), expected);
        assert_eq!(due.keys.hashes, due.keys.column.iter().map(hash32).collect::<Vec<_>>());
        for (time, key, name) in expected {
            self.touch(&key);
            self.model.timers.remove(&(name, key, time));
        }
        self.answer(&due, again);
        self.check_timers();
    }

    /// Plays the call that timers fire in. A timer that registers itself again for the same time is a new one.
    fn answer(&mut self, due: &DueTimers, again: bool) {
        let cells = self.resolve(&due.keys);
        self.backend.fired(due);
        let count = usize::from(again);
        let timers_written = TimerOps {
            ops: &[TIMER_REGISTER][..count],
            keys: &due.key_index[..count],
            ids: &due.timer_ids[..count],
            times: &due.times[..count],
        };
        let schemas = vec![1; self.bound.len()];
        let writes = Writes {
            cells: &[],
            entries: None,
            timers: timers_written,
            schemas: &schemas,
        };
        self.backend.apply(&due.keys, &cells, self.now, writes);
        if again {
            let name = timers(self.timers)[due.timer_ids[0] as usize].name.clone();
            let key = due.keys.column.get(due.key_index[0] as usize).to_vec();
            self.model.timers.insert((name, key, due.times[0]));
        }
    }

    fn mark(&mut self, base: Option<CheckpointId>) {
        let id = CheckpointId(self.next_round);
        self.next_round += 1;
        let can = base.filter(|base| self.backend.can_base(*base));
        let newest = self.rounds.iter().rev().find(|round| round.completed);
        assert!(
            base != newest.map(|round| round.id) || base == can,
            "the newest completed round is a base"
        );
        assert_eq!(self.backend.begin_snapshot(id, base), can);
        assert!(!self.backend.can_base(id), "it is not completed");
        self.based = self.based.max(can);
        self.rounds.push(Round {
            id,
            base: can,
            bound: self.bound.clone(),
            rows: vec![],
            model: self.model.clone(),
            swept: false,
            completed: false,
            touched: self.touched.replace(BTreeSet::new()),
        });
    }

    fn sweep(&mut self, groups: usize) {
        let at = self.rounds.len().wrapping_sub(1);
        let Some(round) = self.rounds.get_mut(at).filter(|round| !round.swept) else {
            return;
        };
        for _ in 0..groups {
            let Some(rows) = self.backend.next_snapshot_rows() else {
                round.swept = true;
                self.check_round(at);
                return;
            };
            assert!(!rows.is_empty() && rows.iter().all(|rows| !rows.is_empty()));
            assert!(
                rows.iter().all(|one| one.group == rows[0].group),
                "one key group at a time"
            );
            assert!(
                round.rows.last().is_none_or(|last| last.group < rows[0].group),
                "in order"
            );
            let expired = rows
                .iter()
                .flat_map(|rows| &rows.expires)
                .any(|expires| *expires <= self.now);
            assert!(!expired, "what has expired is not handed out");
            round.rows.extend(rows);
        }
    }

    /// Checks that rows are distinct and in their key groups, and that an increment has no rows of untouched keys.
    fn check_round(&self, at: usize) {
        let round = &self.rounds[at];
        let since = self.rounds[..=at].iter().filter(|other| Some(other.id) > round.base);
        let touched = since
            .map(|round| round.touched.clone())
            .reduce(both)
            .flatten()
            .filter(|_| round.base.is_some());
        let mut seen = BTreeSet::new();
        for rows in &round.rows {
            for i in 0..rows.len() {
                let (key, entry) = (rows.keys.get(i), rows.entry_key(i));
                assert_eq!(key_group(hash32(key), GROUPS), rows.group);
                assert!(seen.insert((rows.of, key, entry)), "{key:?} is there twice");
                assert!(
                    rows.schemas[i] != REMOVED || round.base.is_some(),
                    "a removal in a full snapshot"
                );
                let expected = touched.as_ref().is_none_or(|touched| touched.contains(key));
                assert!(expected, "{key:?} has not changed since the base");
            }
        }
    }

    /// Ends one of the rounds in progress. A completed one is restored and compared.
    fn end(&mut self, which: usize, completed: bool) {
        let open: Vec<usize> = (0..self.rounds.len()).filter(|i| !self.rounds[*i].completed).collect();
        let Some(&at) = open.get(which.min(open.len().saturating_sub(1))) else {
            return;
        };
        let id = self.rounds[at].id;
        if completed && self.rounds[at].swept {
            self.backend.completed(id);
            // A round that a later base has overtaken may have been dropped.
            assert!(self.based > Some(id) || self.backend.can_base(id));
            self.rounds[at].completed = true;
            let round = &self.rounds[at];
            for parts in [1, 3] {
                let rows = self.load(at, parts, &round.bound, None);
                // Values that have expired since the mark may be gone or not.
                let (found, timers) = from_rows(&rows.1, &round.bound, self.now);
                assert_eq!(found, round.model.visible(self.now), "by way of {parts} backends");
                assert_eq!(timers, round.model.timers);
            }
        } else if !completed {
            self.backend.aborted(id);
            assert!(!self.backend.can_base(id));
            // The keys touched before its mark now belong to the next round.
            let gone = self.rounds.remove(at).touched;
            let next = self
                .rounds
                .get_mut(at)
                .map_or(&mut self.touched, |next| &mut next.touched);
            *next = both(gone, next.take());
        }
    }

    /// Loads the rows of a round, after those of all its bases, into `parts` backends.
    ///
    /// Returns the backends and all rows that are in them then.
    fn load(
        &self,
        at: usize,
        parts: u32,
        bound: &[BoundState],
        as_round: Option<CheckpointId>,
    ) -> (Vec<Box<dyn StateBackend>>, Vec<StateRows>) {
        let mut chain = vec![&self.rounds[at]];
        while let Some(base) = chain.last().and_then(|round| round.base) {
            chain.push(
                self.rounds
                    .iter()
                    .find(|round| round.id == base)
                    .expect("its base is kept"),
            );
        }
        let (mut backends, mut rows) = (vec![], vec![]);
        for part in 0..parts {
            let range = range_of(part, parts, GROUPS);
            let mut backend = (self.make)(range);
            backend.bind(bound, &timers(self.timers));
            for round in chain.iter().rev() {
                for rows in round.rows.iter().filter(|rows| range.contains(rows.group)) {
                    backend.load(&renamed(rows, &round.bound, bound)).expect("in range");
                }
            }
            backend.loaded(as_round);
            assert_eq!(backend.begin_snapshot(CheckpointId(1 << 40), None), None);
            rows.extend(std::iter::from_fn(|| backend.next_snapshot_rows()).flatten());
            backend.aborted(CheckpointId(1 << 40));
            backends.push(backend);
        }
        (backends, rows)
    }

    /// Restarts the job from its newest completed round: into one backend with that round as a base, or by way of
    /// several backends.
    fn restore(&mut self, parts: u32) {
        let Some(at) = self.rounds.iter().rposition(|round| round.completed) else {
            return;
        };
        let (id, bound) = (self.rounds[at].id, self.bound.clone());
        let (mut backends, rows) = self.load(at, parts, &bound, Some(id));
        self.model = self.rounds[at].model.clone();
        self.rounds.truncate(at + 1);
        self.rounds.retain(|round| round.completed);
        if parts == 1 {
            self.backend = backends.remove(0);
            assert!(self.backend.can_base(id));
        } else {
            self.backend = (self.make)(range_of(0, 1, GROUPS));
            self.bind();
            for rows in &rows {
                self.backend.load(rows).expect("in range");
            }
            self.backend.loaded(None);
            self.rounds.clear();
        }
        self.touched = Some(BTreeSet::new());
        self.check_timers();
        self.check_keys();
    }

    /// Plays an upgrade: other positions, a state that starts or stops travelling, timers that are not declared.
    fn rebind(&mut self, rotate: usize, flip: bool, timers: usize) {
        let count = self.bound.len();
        self.bound.rotate_left(rotate % count);
        self.timers = timers;
        let values = |state: &&mut BoundState| !matches!(state.kind, StateKind::Map | StateKind::List);
        if flip && let Some(state) = self.bound.iter_mut().find(values) {
            state.travels = !state.travels;
            // All of its values may be written anew.
            self.touched = None;
        }
        self.bind();
        self.check_timers();
    }

    fn check_keys(&mut self) {
        self.resolve(&Keys::default());
        let mut found = BTreeSet::new();
        for position in 0..self.backend.range().count() {
            let keys = self.backend.keys_of(position);
            assert_eq!(keys.hashes, keys.column.iter().map(hash32).collect::<Vec<_>>());
            found.extend(keys.column.iter().map(<[u8]>::to_vec));
        }
        assert_eq!(found, self.model.visible(self.now).keys());
        assert!(self.backend.len() >= found.len());
        if self.bound.iter().all(|state| state.ttl_ms.is_none()) {
            assert_eq!(self.backend.len(), found.len());
        }
    }
}

fn both(a: TouchedKeys, b: TouchedKeys) -> TouchedKeys {
    Some(&a? | &b?)
}

/// Groups operations by key, one for each.
fn ops<const N: usize>(all: [(u8, Op); N]) -> BTreeMap<u8, Vec<Op>> {
    all.into_iter().map(|(key, op)| (key, vec![op])).collect()
}

fn call(ops: BTreeMap<u8, Vec<Op>>) -> Step {
    Step::Call { wait: 1, ops }
}

/// Steps of a round that is swept and completed, based on the newest completed round or full.
fn round(increment: bool) -> [Step; 3] {
    let completed = Step::End {
        which: 9,
        completed: true,
    };
    let base = increment.then_some(0);
    [Step::Mark { base }, Step::Sweep(u8::MAX), completed]
}

/// Runs scripts for cases that random scripts seldom reach.
pub fn run_rare(make: Make<'_>) {
    let put = |state, value: u8| Op::Put {
        state,
        entry: 1,
        value: vec![value],
    };
    let play = |names: &[&str], steps: Vec<Step>| {
        let states = states(names);
        run(make, &Script { states, steps });
    };
    // A loaded list goes on behind its last item.
    let mut steps = vec![call(ops([(1, put("log", 1))])), call(ops([(1, put("log", 2))]))];
    steps.extend(round(false));
    steps.extend([
        Step::Restore { parts: 1 },
        call(ops([(1, put("log", 3))])),
        call(ops([(1, put("log", 4))])),
    ]);
    steps.extend(round(true));
    steps.extend([
        Step::Restore { parts: 2 },
        call(ops([(1, put("log", 5))])),
        call(ops([])),
    ]);
    play(&["log"], steps);
    // A timer deleted before a mark is registered again before its key group is swept.
    let timer = |register| Op::Timer {
        register,
        id: 0,
        time: 1,
    };
    let mut steps = vec![call(ops([(1, timer(true))]))];
    steps.extend(round(false));
    let [mark, sweep, completed] = round(true);
    steps.extend([
        call(ops([(1, timer(false))])),
        mark,
        call(ops([(1, timer(true))])),
        sweep,
        completed,
    ]);
    steps.extend(round(true));
    play(&["count"], steps);
    // A call clears one value of a key and writes another.
    let both = |op| BTreeMap::from([(1, vec![put("count", 2), op])]);
    let mut steps = vec![call(both(put("sum", 1)))];
    steps.extend(round(false));
    steps.push(call(both(Op::Clear { state: "sum" })));
    steps.extend(round(true));
    play(&["count", "sum"], steps);
    // More values expire than one call cleans.
    let all = |state| (0..60).map(|key| (key, vec![put(state, key)])).collect();
    for state in ["last", "cache", "seen", "recent"] {
        let mut steps = vec![
            call(all(state)),
            Step::Call {
                wait: 100,
                ops: ops([]),
            },
        ];
        steps.extend(round(false));
        play(&[state], steps);
    }
    // A value rewritten with a shorter time to live expires, and must not reappear with its old time of expiry.
    for state in ["last", "cache", "seen", "recent"] {
        let mut steps = vec![call(ops([(1, put(state, 1))]))];
        steps.extend(round(false));
        let rebind = Step::Rebind {
            rotate: 0,
            flip: false,
            ttl_ms: 5,
            timers: 3,
        };
        steps.extend([
            rebind,
            call(ops([(1, Op::Clear { state })])),
            call(ops([(1, put(state, 2))])),
        ]);
        steps.extend([Step::Call { wait: 10, ops: ops([]) }, call(ops([(2, put(state, 2))]))]);
        steps.extend(round(true));
        play(&[state], steps);
    }
}
