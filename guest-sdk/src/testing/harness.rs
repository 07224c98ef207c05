//! An operator under test, with its state, its timers and the time.

use super::records::{Emitted, Input};
use super::store::{Declared, SharedStore, Store};
use crate::codec;
use crate::error::{Error, Result};
use crate::key::FromKey;
use crate::native::{self, Batch, Failure, Header, Instance, Keyed, OpenRecord, Outcome, StateItems, TimerBatch};
use crate::operator::Operator;
use crate::output::NO_TIMESTAMP;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

/// The most calls that timers may lead to: more, and they set each other without end.
const TIMER_CALLS_MAX: usize = 100_000;

/// A timer that was set: time, key, number.
type SetTimer = (i64, Vec<u8>, u32);

/// Everything of an operator at rest: what a harness can be made from again, also one of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    store: Store,
    /// Name, time and key.
    timers: BTreeSet<(String, i64, Vec<u8>)>,
    operator_states: Vec<(String, Vec<u8>, Vec<u32>)>,
    watermark: i64,
}

/// An operator under test, with its state, its timers and the time.
pub struct Harness<O: Operator> {
    config: String,
    arguments: Vec<String>,
    header: Header,
    /// The answer of `describe`.
    inputs: Vec<String>,
    ports: Vec<String>,
    /// Name, and whether it goes by event time.
    timer_names: Vec<(String, bool)>,
    finish: bool,
    on_watermark: bool,
    private_state: bool,
    store: Arc<SharedStore>,
    timers: BTreeSet<SetTimer>,
    operator_state_names: Vec<String>,
    operator_states: Option<Vec<StateItems>>,
    /// Kept from call to call only where it has private state.
    instance: Option<Instance<O>>,
    operator: PhantomData<fn() -> O>,
}

impl<O: Operator> Default for Harness<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Operator> Harness<O> {
    /// A new job: no state, no config, processing time 0, no watermark yet.
    ///
    /// # Panics
    ///
    /// When the operator's declaration contradicts itself.
    pub fn new() -> Self {
        let json = native::describe::<O>();
        let describe: Value = serde_json::from_str(&json).expect("describe writes JSON");
        let list = |key: &str| describe[key].as_array().cloned().unwrap_or_default();
        let name = |of: &Value| of["name"].as_str().unwrap_or_default().to_owned();
        let states = list("states").iter().map(Declared::read).collect();
        let timers = list("timers");
        let calls = |name: &str| list("calls").iter().any(|call| call == name);
        Harness {
            config: "null".into(),
            arguments: Vec::new(),
            header: native::header(),
            inputs: list("inputs").iter().map(name).collect(),
            ports: list("outputs").iter().map(name).collect(),
            timer_names: timers.iter().map(|of| (name(of), of["time"] == "event")).collect(),
            finish: calls("ending"),
            on_watermark: calls("watermarks"),
            private_state: describe["private_state"] == true,
            store: Arc::new(SharedStore(Mutex::new(Store::new(states)))),
            timers: BTreeSet::new(),
            operator_state_names: list("operator_states").iter().map(name).collect(),
            operator_states: None,
            instance: None,
            operator: PhantomData,
        }
    }

    /// A job restored from a snapshot, possibly of another version of the operator: states and timers are found by name.
    ///
    /// # Errors
    ///
    /// When the snapshot has a state or a timer that the operator does not, or a state with another schema: a host may
    /// resolve that, a harness does not.
    pub fn restore(snapshot: &Snapshot) -> Result<Self> {
        let mut harness = Self::new();
        let mut store = harness.store.get();
        let mut places = Vec::new();
        for state in &snapshot.store.states {
            let place = place(&store, &state.name)?;
            let own = &store.states[place];
            if own.kind != state.kind {
                return Err(format!(
                    "state `{}` is a {} state, it was a {} state",
                    own.name, own.kind, state.kind
                )
                .into());
            }
            if own.schema != state.schema || own.map_key != state.map_key {
                return Err(format!(
                    "state `{}` has values of {}, it had values of {}; a harness does not change them",
                    own.name, own.schema, state.schema
                )
                .into());
            }
            places.push(place);
        }
        for (key, states) in &snapshot.store.keys {
            let mut own = vec![BTreeMap::new(); store.states.len()];
            for (place, entry) in places.iter().zip(states) {
                own[*place].clone_from(entry);
            }
            store.keys.insert(key.clone(), own);
        }
        store.now = snapshot.store.now;
        drop(store);
        for (name, time, key) in &snapshot.timers {
            let number = harness.timer_names.iter().position(|(own, _)| own == name);
            let number = number.ok_or_else(|| Error::from(format!("the operator has no timer `{name}`")))?;
            harness.timers.insert((*time, key.clone(), number as u32));
        }
        let mut states = Vec::new();
        for (name, data, ends) in &snapshot.operator_states {
            let number = harness.operator_state_names.iter().position(|own| own == name);
            let number = number.ok_or_else(|| Error::from(format!("the operator has no operator state `{name}`")))?;
            states.push(StateItems {
                state: number as u32,
                item_data: data.clone(),
                item_ends: ends.clone(),
            });
        }
        harness.operator_states = Some(states);
        harness.header.watermark = snapshot.watermark;
        harness.header.now = snapshot.store.now;
        Ok(harness)
    }

    /// Sets the operator's config.
    pub fn config(mut self, config: impl Into<Value>) -> Self {
        self.config = config.into().to_string();
        self
    }

    /// Sets the job's arguments.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the processing time of the calls that follow, in milliseconds since the Unix epoch. No timer fires before the
    /// next call; [`advance`](Self::advance) is for that.
    pub fn set_now(&mut self, now: i64) {
        self.header.now = now;
        self.store.get().now = now;
    }

    /// The JSON of `describe`.
    pub fn describe(&self) -> String {
        native::describe::<O>()
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        let timers = self.timers.iter();
        let timers = timers.map(|(time, key, number)| {
            let (name, _) = &self.timer_names[*number as usize];
            (name.clone(), *time, key.clone())
        });
        let states = self.operator_states.iter().flatten();
        Snapshot {
            store: self.store.get().at_rest(),
            timers: timers.collect(),
            operator_states: states
                .map(|state| {
                    let name = self.operator_state_names[state.state as usize].clone();
                    (name, state.item_data.clone(), state.item_ends.clone())
                })
                .collect(),
            watermark: self.header.watermark,
        }
    }

    /// All values of a state of one value per key, by key.
    ///
    /// # Errors
    ///
    /// When there is no such state, or its keys or values are of other types.
    pub fn state<K, T>(&self, name: &str) -> Result<BTreeMap<K, T>>
    where
        K: for<'a> FromKey<'a> + Ord,
        T: DeserializeOwned,
    {
        self.all(name, |entries| {
            entries.next().map(|(_, value)| codec::decode(value)).transpose()
        })
    }

    /// All lists of a list state, by key.
    ///
    /// # Errors
    ///
    /// As [`state`](Self::state).
    pub fn list_state<K, T>(&self, name: &str) -> Result<BTreeMap<K, Vec<T>>>
    where
        K: for<'a> FromKey<'a> + Ord,
        T: DeserializeOwned,
    {
        self.all(name, |entries| {
            let items: Vec<T> = entries.map(|(_, value)| codec::decode(value)).collect::<Result<_>>()?;
            Ok(Some(items).filter(|items| !items.is_empty()))
        })
    }

    /// All maps of a map state, by key.
    ///
    /// # Errors
    ///
    /// As [`state`](Self::state).
    pub fn map_state<K, M, V>(&self, name: &str) -> Result<BTreeMap<K, BTreeMap<M, V>>>
    where
        K: for<'a> FromKey<'a> + Ord,
        M: for<'a> FromKey<'a> + Ord,
        V: DeserializeOwned,
    {
        self.all(name, |entries| {
            let entries = entries.map(|(entry_key, value)| Ok((read_key(entry_key)?, codec::decode(value)?)));
            let map: BTreeMap<M, V> = entries.collect::<Result<_>>()?;
            Ok(Some(map).filter(|map| !map.is_empty()))
        })
    }

    fn all<K, T>(
        &self,
        name: &str,
        read: impl Fn(&mut dyn Iterator<Item = (&[u8], &[u8])>) -> Result<Option<T>>,
    ) -> Result<BTreeMap<K, T>>
    where
        K: for<'a> FromKey<'a> + Ord,
    {
        let store = self.store.get();
        let place = place(&store, name)?;
        let mut values = BTreeMap::new();
        for key in store.keys.keys() {
            if let Some(value) = read(&mut store.live(place, key))? {
                values.insert(read_key(key)?, value);
            }
        }
        Ok(values)
    }

    /// The items of an operator state, as of the last call that succeeded. Those of a broadcast state are pairs.
    ///
    /// # Errors
    ///
    /// When there is no such state, or its items are of another type.
    pub fn operator_state<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>> {
        let number = self.operator_state_names.iter().position(|own| own == name);
        let mut states = self.operator_states.iter().flatten();
        let state = states.find(|state| Some(state.state as usize) == number);
        let Some(state) = state else {
            return Err(format!("there is no operator state `{name}`").into());
        };
        (0..state.item_ends.len())
            .map(|at| codec::decode(crate::bytes::item(&state.item_data, &state.item_ends, at)))
            .collect()
    }

    /// The timers that are set: time and key, in order.
    ///
    /// # Errors
    ///
    /// When there is no such timer, or its keys are of another type.
    pub fn timers<K>(&self, name: &str) -> Result<Vec<(i64, K)>>
    where
        K: for<'a> FromKey<'a>,
    {
        let number = self.timer_names.iter().position(|(own, _)| own == name);
        let number = number.ok_or_else(|| Error::from(format!("the operator has no timer `{name}`")))?;
        let timers = self.timers.iter().filter(|(_, _, of)| *of as usize == number);
        timers.map(|(time, key, _)| Ok((*time, read_key(key)?))).collect()
    }

    /// Processes records of the first input as one batch, keeps what it writes, and fires timers that are due by then.
    ///
    /// # Errors
    ///
    /// The operator's failure; nothing of the call is kept then.
    pub fn process(&mut self, records: impl IntoIterator<Item = Input>) -> Result<Vec<Emitted>, Failure> {
        self.process_number(0, records.into_iter().collect())
    }

    /// As [`process`](Self::process), with records of the input of that name.
    ///
    /// # Errors
    ///
    /// As `process`.
    ///
    /// # Panics
    ///
    /// When the operator declares no such input.
    pub fn process_input(
        &mut self,
        input: &str,
        records: impl IntoIterator<Item = Input>,
    ) -> Result<Vec<Emitted>, Failure> {
        let Some(number) = self.inputs.iter().position(|name| name == input) else {
            panic!("the operator has no input `{input}`, only {:?}", self.inputs);
        };
        self.process_number(number as u32, records.into_iter().collect())
    }

    fn process_number(&mut self, input: u32, records: Vec<Input>) -> Result<Vec<Emitted>, Failure> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut batch = Batch {
            input,
            key_index: Vec::new(),
            value_data: Vec::new(),
            value_ends: Vec::new(),
            timestamps: Vec::new(),
        };
        for record in &records {
            if reads_key::<O>() {
                let index = *numbers.entry(record.key.clone()).or_insert_with(|| {
                    keys.push(record.key.clone());
                    keys.len() as u32 - 1
                });
                batch.key_index.push(index);
            }
            batch.value_data.extend_from_slice(&record.value);
            batch.value_ends.push(batch.value_data.len() as u32);
            batch.timestamps.push(record.timestamp);
        }
        let header = self.header;
        let mut emitted = self.call(&keys, &records, |instance, keyed| {
            instance.process(header, batch, keyed)
        })?;
        emitted.extend(self.fire()?);
        Ok(emitted)
    }

    /// Advances the watermark, in milliseconds: fires event-time timers up to it, and then tells the operator, where it
    /// asked for it.
    ///
    /// # Errors
    ///
    /// The operator's failure; what the failing call did is not kept.
    pub fn watermark(&mut self, watermark: i64) -> Result<Vec<Emitted>, Failure> {
        self.header.watermark = watermark;
        let mut emitted = self.fire()?;
        if self.on_watermark {
            let header = self.header;
            emitted.extend(self.call(&[], &[], |instance, _| instance.on_watermark(header))?);
        }
        Ok(emitted)
    }

    /// Advances the processing time, in milliseconds since the Unix epoch, and fires processing-time timers up to it.
    ///
    /// # Errors
    ///
    /// As [`watermark`](Self::watermark).
    pub fn advance(&mut self, now: i64) -> Result<Vec<Emitted>, Failure> {
        self.set_now(now);
        self.fire()
    }

    /// The end of all inputs: the last watermark and the timers that it fires; then every key, and the end of them, where
    /// the operator asked for it.
    ///
    /// # Errors
    ///
    /// As [`watermark`](Self::watermark).
    pub fn finish(&mut self) -> Result<Vec<Emitted>, Failure> {
        let mut emitted = self.watermark(i64::MAX)?;
        if !self.finish {
            return Ok(emitted);
        }
        let header = self.header;
        if reads_key::<O>() {
            let all: Vec<Vec<u8>> = self.store.get().keys.keys().cloned().collect();
            for keys in all.chunks(1024) {
                let parents: Vec<Input> = keys.iter().map(|key| Input::keyed(key, "")).collect();
                emitted.extend(self.call(keys, &parents, |instance, keyed| instance.finish_keys(header, keyed))?);
                // What this has set fires, too.
                emitted.extend(self.fire()?);
            }
        }
        emitted.extend(self.call(&[], &[], |instance, _| instance.finish(header))?);
        Ok(emitted)
    }

    /// Opens the operator, and no more: whether it takes its config.
    ///
    /// # Errors
    ///
    /// The operator's failure.
    pub fn check_open(&self) -> Result<(), Failure> {
        self.open().map(|_| ())
    }

    /// Fires all timers that are due, by event time and then by processing time: in order of time and key, at most one of
    /// a key in a call.
    fn fire(&mut self) -> Result<Vec<Emitted>, Failure> {
        let mut emitted = Vec::new();
        let mut last = BTreeSet::new();
        for call in 0..TIMER_CALLS_MAX {
            let due = match self.due(true, self.header.watermark) {
                due if due.is_empty() => self.due(false, self.header.now),
                due => due,
            };
            if due.is_empty() {
                return Ok(emitted);
            }
            if TIMER_CALLS_MAX - call <= self.timer_names.len() {
                last.extend(due.iter().map(|(_, _, number)| *number));
            }
            emitted.extend(self.fire_these(&due)?);
        }
        let names = last
            .iter()
            .map(|number| format!("{:?}", self.timer_names[*number as usize].0));
        let names = names.collect::<Vec<_>>().join(", ");
        let at_end = if self.header.watermark == i64::MAX {
            " at the end of the input: set none of them in `on_timer` once `cx.watermark()` is `i64::MAX`"
        } else {
            ", each time at a time that has been reached already"
        };
        Err(Failure {
            row: None,
            message: format!("timers have set themselves again {TIMER_CALLS_MAX} times: {names}{at_end}"),
        })
    }

    /// The first timers that are due, none behind a second one of a key.
    fn due(&self, event_time: bool, reached: i64) -> Vec<SetTimer> {
        let mut keys = BTreeSet::new();
        let timers = self.timers.iter();
        let timers = timers.filter(|(_, _, number)| self.timer_names[*number as usize].1 == event_time);
        timers
            .take_while(|(time, key, _)| *time <= reached && keys.insert(key))
            .cloned()
            .collect()
    }

    fn fire_these(&mut self, due: &[SetTimer]) -> Result<Vec<Emitted>, Failure> {
        let keys: Vec<Vec<u8>> = due.iter().map(|(_, key, _)| key.clone()).collect();
        let parents: Vec<Input> = keys.iter().map(|key| Input::keyed(key, "")).collect();
        let header = self.header;
        let timers = TimerBatch {
            key_index: (0..due.len() as u32).collect(),
            timer_ids: due.iter().map(|(_, _, number)| *number).collect(),
            times: due.iter().map(|(time, _, _)| *time).collect(),
        };
        // They are gone before the call, which may set them again.
        for timer in due {
            self.timers.remove(timer);
        }
        let result = self.call(&keys, &parents, |instance, keyed| {
            instance.on_timers(header, timers, keyed)
        });
        if result.is_err() {
            self.timers.extend(due.iter().cloned());
        }
        result
    }

    fn open(&self) -> Result<Instance<O>, Failure> {
        let context = OpenRecord {
            uid: "operator".into(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: 128,
        };
        let mut instance = Instance::open(self.header, &context, &self.config, &self.arguments)?;
        if let Some(states) = &self.operator_states {
            instance.restore(self.header, states)?;
        }
        instance.set_state(Some(self.store.clone()));
        Ok(instance)
    }

    /// Makes a call, and keeps its effects where it succeeds.
    fn call(
        &mut self,
        keys: &[Vec<u8>],
        parents: &[Input],
        call: impl FnOnce(&mut Instance<O>, Keyed) -> Result<Outcome, Failure>,
    ) -> Result<Vec<Emitted>, Failure> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.open()?,
        };
        let keyed = self.store.get().begin(keys);
        let outcome = call(&mut instance, keyed)?;
        let states = instance.snapshot()?;
        self.operator_states = Some(states).filter(|states| !states.is_empty());
        self.instance = Some(instance).filter(|_| self.private_state);
        self.store.get().apply(&outcome);
        for (at, op) in outcome.timer_ops.iter().enumerate() {
            let key = keys[outcome.timer_keys[at] as usize].clone();
            let timer = (outcome.timer_times[at], key, outcome.timer_ids[at]);
            match op {
                0 => _ = self.timers.insert(timer),
                _ => _ = self.timers.remove(&timer),
            }
        }
        Ok(self.emitted(outcome, parents))
    }

    /// Resolves what records inherit.
    fn emitted(&self, outcome: Outcome, parents: &[Input]) -> Vec<Emitted> {
        let mut emitted = Vec::new();
        for output in outcome.outputs {
            for at in 0..output.parents.len().max(output.value_ends.len()) {
                let parent = output.parents.get(at).and_then(|row| parents.get(*row as usize));
                let column = |data: &[u8], ends: &[u32], inherited: Option<&Vec<u8>>| {
                    if ends.is_empty() {
                        inherited.cloned().unwrap_or_default()
                    } else {
                        crate::bytes::item(data, ends, at).to_vec()
                    }
                };
                emitted.push(Emitted {
                    port: self.ports[output.port as usize].clone(),
                    key: column(&output.key_data, &output.key_ends, parent.map(|parent| &parent.key)),
                    value: column(
                        &output.value_data,
                        &output.value_ends,
                        parent.map(|parent| &parent.value),
                    ),
                    timestamp: match output.timestamps.get(at) {
                        Some(timestamp) => *timestamp,
                        None => parent.map_or(NO_TIMESTAMP, |parent| parent.timestamp),
                    },
                });
            }
        }
        emitted
    }
}

fn reads_key<O: Operator>() -> bool {
    <O::Key<'static> as FromKey<'static>>::READS
}

fn place(store: &Store, name: &str) -> Result<usize> {
    let place = store.states.iter().position(|state| state.name == name);
    place.ok_or_else(|| format!("the operator has no state `{name}`").into())
}

fn read_key<K: for<'a> FromKey<'a>>(bytes: &[u8]) -> Result<K> {
    K::check(bytes, &[bytes.len() as u32]).map_err(|(_, message)| Error::from(message))?;
    // SAFETY: `check` has passed it, as a column of one.
    unsafe { K::read(bytes) }
}
