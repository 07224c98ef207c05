//! Runs an operator in an ordinary unit test, as the host would: keys grouped, state kept as encoded bytes between
//! calls, a new instance for every call, so that whatever an operator keeps in itself shows.

use crate::codec;
use crate::context::NO_TIMESTAMP;
use crate::error::{Error, Result};
use crate::key::FromKey;
use crate::native::{self, Batch, Failure, Header, Instance, Keyed, OpenRecord, Outcome};
use crate::operator::Operator;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;

pub use crate::host::{Captured, take_captured};
pub use serde_json::json;

/// One record that goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The key's bytes; empty for operators that read none.
    pub key: Vec<u8>,
    /// The value's bytes.
    pub value: Vec<u8>,
    /// Event time in milliseconds; [`NO_TIMESTAMP`] for none.
    pub timestamp: i64,
}

impl Input {
    /// A record without a key.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        Self::keyed("", value)
    }

    /// A record with a raw key and value (an integer key: `7u64.to_le_bytes()`).
    pub fn keyed(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        Input {
            key: key.as_ref().to_vec(),
            value: value.as_ref().to_vec(),
            timestamp: NO_TIMESTAMP,
        }
    }

    /// A typed record with a raw key.
    ///
    /// # Errors
    ///
    /// When the record's `Serialize` refuses.
    pub fn typed<T: serde::Serialize>(key: impl AsRef<[u8]>, record: &T) -> Result<Self> {
        let mut value = Vec::new();
        codec::encode(record, &mut value)?;
        Ok(Self::keyed(key, value))
    }

    /// The record at an event time, in milliseconds.
    pub fn at(self, timestamp: i64) -> Self {
        Input { timestamp, ..self }
    }
}

/// One record that came out, with everything it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The name of the output.
    pub port: String,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The value's bytes.
    pub value: Vec<u8>,
    /// Event time in milliseconds; [`NO_TIMESTAMP`] for none.
    pub timestamp: i64,
}

impl Emitted {
    /// The key as text.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8.
    pub fn key_text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.key)?)
    }

    /// The value as text.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.value)?)
    }

    /// The value as a typed record.
    ///
    /// # Errors
    ///
    /// When it is none of this type.
    pub fn record<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        codec::decode(&self.value)
    }
}

/// The cells of one key, in the order of the states. `None`: no value.
type Cells = Vec<Option<Vec<u8>>>;

/// Keyed state at rest: what a harness can be made from again, also one of another version of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Name and schema of each state.
    states: Vec<(String, String)>,
    keys: BTreeMap<Vec<u8>, Cells>,
}

/// An operator under test with its state.
pub struct Harness<O: Operator> {
    config: String,
    arguments: Vec<String>,
    header: Header,
    states: Vec<(String, String)>,
    ports: Vec<String>,
    finish: bool,
    on_watermark: bool,
    keys: BTreeMap<Vec<u8>, Cells>,
    /// For each state whether its values are in the operator's own schema.
    own_schema: Vec<bool>,
    operator: PhantomData<fn() -> O>,
}

impl<O: Operator> Default for Harness<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Operator> Harness<O> {
    /// A new job: no state, no config.
    ///
    /// # Panics
    ///
    /// When the operator's declaration contradicts itself.
    pub fn new() -> Self {
        let json = native::describe::<O>();
        let describe: Value = serde_json::from_str(&json).expect("describe writes JSON");
        let list = |key: &str| describe[key].as_array().cloned().unwrap_or_default();
        let name = |of: &Value| of["name"].as_str().unwrap_or_default().to_owned();
        let states: Vec<_> = list("states")
            .iter()
            .map(|state| (name(state), state["schema"].to_string()))
            .collect();
        Harness {
            config: "null".into(),
            arguments: Vec::new(),
            header: native::header(),
            own_schema: vec![true; states.len()],
            states,
            ports: list("outputs").iter().map(name).collect(),
            finish: describe["finish"] == true,
            on_watermark: describe["on_watermark"] == true,
            keys: BTreeMap::new(),
            operator: PhantomData,
        }
    }

    /// A job restored from a snapshot, possibly of another version of the operator: states are found by name, and a
    /// value of another schema is passed as such.
    ///
    /// # Errors
    ///
    /// When the snapshot has a state that the operator does not.
    pub fn restore(snapshot: &Snapshot) -> Result<Self> {
        let mut harness = Self::new();
        let mut places = Vec::new();
        for (name, schema) in &snapshot.states {
            let place = harness.states.iter().position(|(own, _)| own == name);
            let place = place.ok_or_else(|| Error::from(format!("the operator has no state `{name}`")))?;
            harness.own_schema[place] = harness.states[place].1 == *schema;
            places.push(place);
        }
        for (key, cells) in &snapshot.keys {
            let mut own: Cells = vec![None; harness.states.len()];
            for (place, cell) in places.iter().zip(cells) {
                own[*place].clone_from(cell);
            }
            harness.keys.insert(key.clone(), own);
        }
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

    /// Sets the processing time of the calls that follow, in milliseconds since the Unix epoch.
    pub fn set_now(&mut self, now: i64) {
        self.header.now = now;
    }

    /// The JSON of `describe`.
    pub fn describe(&self) -> String {
        native::describe::<O>()
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            states: self.states.clone(),
            keys: self.keys.clone(),
        }
    }

    /// All values of a state by key.
    ///
    /// # Errors
    ///
    /// When there is no such state, or its keys or values are of other types.
    pub fn state<K, T>(&self, name: &str) -> Result<BTreeMap<K, T>>
    where
        K: for<'a> FromKey<'a> + Ord,
        T: DeserializeOwned,
    {
        let place = self.states.iter().position(|(own, _)| own == name);
        let place = place.ok_or_else(|| Error::from(format!("the operator has no state `{name}`")))?;
        let mut values = BTreeMap::new();
        for (key, cells) in &self.keys {
            if let Some(bytes) = &cells[place] {
                K::check(key, &[key.len() as u32]).map_err(|(_, message)| Error::from(message))?;
                // SAFETY: `check` has passed the key, as a column of one.
                values.insert(unsafe { K::read(key) }?, codec::decode(bytes)?);
            }
        }
        Ok(values)
    }

    /// Processes records as one batch, and keeps what it writes to state.
    ///
    /// # Errors
    ///
    /// The operator's failure; nothing of the call is kept then.
    pub fn process(&mut self, records: impl IntoIterator<Item = Input>) -> Result<Vec<Emitted>, Failure> {
        let records: Vec<Input> = records.into_iter().collect();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut batch = Batch {
            header: self.header,
            input: 0,
            key_index: Vec::new(),
            value_data: Vec::new(),
            value_ends: Vec::new(),
            timestamps: Vec::new(),
        };
        for record in &records {
            if <O::Key<'static> as FromKey<'static>>::READS {
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
        let outcome = self.open()?.process(batch, self.keyed(&keys))?;
        let parents: Vec<Input> = records;
        Ok(self.apply(&keys, outcome, &parents))
    }

    /// The end of all inputs: every key, then the end of them. Nothing where the operator did not ask for it.
    ///
    /// # Errors
    ///
    /// The operator's failure; what the failing call did is not kept.
    pub fn finish(&mut self) -> Result<Vec<Emitted>, Failure> {
        let mut emitted = Vec::new();
        if !self.finish {
            return Ok(emitted);
        }
        self.header.watermark = i64::MAX;
        let mut instance = self.open()?;
        if <O::Key<'static> as FromKey<'static>>::READS {
            let all: Vec<Vec<u8>> = self.keys.keys().cloned().collect();
            for keys in all.chunks(1024) {
                let outcome = instance.finish(self.header, self.keyed(keys), false)?;
                let parents: Vec<Input> = keys.iter().map(|key| Input::keyed(key, "")).collect();
                emitted.extend(self.apply(keys, outcome, &parents));
            }
        }
        let outcome = instance.finish(self.header, self.keyed(&[]), true)?;
        emitted.extend(self.apply(&[], outcome, &[]));
        Ok(emitted)
    }

    /// Advances the watermark, in milliseconds. The operator is called where it asked for it.
    ///
    /// # Errors
    ///
    /// The operator's failure.
    pub fn watermark(&mut self, watermark: i64) -> Result<Vec<Emitted>, Failure> {
        self.header.watermark = watermark;
        if !self.on_watermark {
            return Ok(Vec::new());
        }
        let outcome = self.open()?.on_watermark(self.header)?;
        Ok(self.apply(&[], outcome, &[]))
    }

    /// Opens the operator, and no more: whether it takes its config.
    ///
    /// # Errors
    ///
    /// The operator's failure.
    pub fn check_open(&self) -> Result<(), Failure> {
        self.open().map(|_| ())
    }

    fn open(&self) -> Result<Instance<O>, Failure> {
        let schemas: Vec<String> = self.states.iter().map(|(_, schema)| format!("[{schema}]")).collect();
        let context = OpenRecord {
            uid: "operator".into(),
            subtask: 0,
            parallelism: 1,
            max_parallelism: 128,
            watermark: self.header.watermark,
            schemas: format!("[{}]", schemas.join(",")),
        };
        Instance::open(&context, &self.config, &self.arguments)
    }

    fn keyed(&self, keys: &[Vec<u8>]) -> Keyed {
        let mut keyed = Keyed {
            key_data: Vec::new(),
            key_ends: Vec::new(),
            cell_data: Vec::new(),
            cell_ends: Vec::new(),
            cell_schemas: Vec::new(),
        };
        for key in keys {
            keyed.key_data.extend_from_slice(key);
            keyed.key_ends.push(keyed.key_data.len() as u32);
        }
        for state in 0..self.states.len() {
            for key in keys {
                let value = self.keys.get(key).and_then(|cells| cells[state].as_ref());
                keyed.cell_data.extend_from_slice(value.map_or(&[], Vec::as_slice));
                keyed.cell_ends.push(keyed.cell_data.len() as u32);
                keyed.cell_schemas.push(match value {
                    None => 0,
                    Some(_) if self.own_schema[state] => 1,
                    Some(_) => 2,
                });
            }
        }
        keyed
    }

    /// Keeps a call's writes, and resolves what its records inherit.
    fn apply(&mut self, keys: &[Vec<u8>], outcome: Outcome, parents: &[Input]) -> Vec<Emitted> {
        let states = self.states.len();
        let writes = outcome.cells.iter().enumerate().map(|(at, cell)| {
            (
                *cell,
                Some(crate::bytes::item(&outcome.cell_data, &outcome.cell_ends, at).to_vec()),
            )
        });
        for (cell, value) in writes.chain(outcome.cleared.iter().map(|cell| (*cell, None))) {
            let (state, key) = (cell as usize / keys.len(), &keys[cell as usize % keys.len()]);
            self.keys.entry(key.clone()).or_insert_with(|| vec![None; states])[state] = value;
        }
        self.keys.retain(|_, cells| cells.iter().any(Option::is_some));
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
