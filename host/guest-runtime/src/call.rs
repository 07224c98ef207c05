//! The plain types of a call: what an operator is given, and what it answers.
//!
//! They are the records of `wit/types.wit`, with inputs as borrowed slices and effects as owned columns. A native
//! operator of the host uses the same types as a component does, so that the dataflow knows only one kind of operator.
//! Nothing here knows wasm.

use regraft_model::batch::BytesColumn;
use regraft_model::describe::{Description, Port, PortValue};
use regraft_model::schema::Type;
use regraft_model::value::parts::PartsBound;

/// Values that hold for a whole call, and are the same when the same records are run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The processing time of the call, in milliseconds since the Unix epoch.
    pub now: i64,
    /// The operator's watermark: no event time at or below it is still to come. `i64::MIN`: none yet.
    pub watermark: i64,
    /// The start of the call's random stream; row `i` has number `first_row + i` in it.
    pub seed: u64,
    /// The number of the call's first row in the batch that it was cut from: not 0 only in a rerun of a part.
    pub first_row: u32,
}

/// Records of one input, in order. Every column has one entry per record, but for `key_index` without keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchView<'a> {
    /// Number of the operator's input that they came by.
    pub input: u32,
    /// For each record the index of its key in [`KeyedView`]; empty when the call has no keys.
    pub key_index: &'a [u32],
    /// All values, one after the other.
    pub value_data: &'a [u8],
    /// End of each value.
    pub value_ends: &'a [u32],
    /// Event times; `i64::MIN` where a record has none. Never left out.
    pub timestamps: &'a [i64],
}

impl BatchView<'_> {
    /// The number of records.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.value_ends.len()
    }
}

/// The distinct keys of a call, and the state that travels with them. The default has no key.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyedView<'a> {
    /// All keys, one after the other.
    pub key_data: &'a [u8],
    /// End of each key.
    pub key_ends: &'a [u32],
    /// The states that travel, in the order of their declarations, each with one cell for each key.
    pub cells: &'a [CellColumn],
}

impl KeyedView<'_> {
    /// The number of keys.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.key_ends.len()
    }
}

/// The values of one state for the keys of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellColumn {
    /// The number of the state's declaration.
    pub state: u32,
    /// For each key 1 where there is a value, 0 where there is none.
    pub present: Vec<u8>,
    /// For each key the value, encoded; no bytes where there is none.
    pub values: BytesColumn,
}

/// Writes of a call to the cells of one state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellWrites {
    /// The number of the state's declaration.
    pub state: u32,
    /// Indices of the keys whose cells are written, each at most once.
    pub keys: Vec<u32>,
    /// Their new values.
    pub values: BytesColumn,
    /// Indices of the keys whose cells are cleared; none of them is also in `keys`.
    pub cleared: Vec<u32>,
}

/// Timers that are due, at most one of a key in a call. All columns have the same length.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimerView<'a> {
    /// The index of each timer's key in [`KeyedView`].
    pub key_index: &'a [u32],
    /// The number of each timer's declaration.
    pub timer_ids: &'a [u32],
    /// The times they were registered for.
    pub times: &'a [i64],
}

impl TimerView<'_> {
    /// The number of timers.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.times.len()
    }
}

/// All effects of a call. They are applied together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Emitted records. A port may come more than once; the order of the list is the order of emission.
    pub outputs: Vec<Output>,
    /// Writes to states that travel: each state at most once.
    pub cells: Vec<CellWrites>,
    /// Writes to states that do not travel.
    pub entries: Option<EntryWrites>,
    /// Timer operations in order, [`TIMER_REGISTER`] or [`TIMER_DELETE`]. All four columns have the same length.
    pub timer_ops: Vec<u8>,
    /// The index of the key of each.
    pub timer_keys: Vec<u32>,
    /// The number of the timer's declaration of each.
    pub timer_ids: Vec<u32>,
    /// The time of each.
    pub timer_times: Vec<i64>,
}

/// A timer operation: register.
pub const TIMER_REGISTER: u8 = 0;
/// A timer operation: delete.
pub const TIMER_DELETE: u8 = 1;

/// An entry write: put a value.
pub const ENTRY_PUT: u8 = 0;
/// An entry write: append to a list.
pub const ENTRY_APPEND: u8 = 1;
/// An entry write: remove one map key.
pub const ENTRY_REMOVE: u8 = 2;
/// An entry write: clear the whole state of the key.
pub const ENTRY_CLEAR: u8 = 3;

/// Records emitted on one port, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// The position in the operator's outputs.
    pub port: u32,
    /// For each record the row it came from. Where the call has no rows (`on-watermark`, `finish`): empty, and
    /// then values are given for each record, and timestamps for each or for none.
    pub parents: Vec<u32>,
    /// The records' keys; empty: the parents' keys.
    pub keys: BytesColumn,
    /// The records' values; empty: the parents' values.
    pub values: BytesColumn,
    /// The records' event times; empty: the parents'.
    pub timestamps: Vec<i64>,
}

impl Output {
    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.parents.is_empty() {
            self.values.len()
        } else {
            self.parents.len()
        }
    }

    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Writes to states that do not travel, in order. All columns have one entry per write, but for the two noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryWrites {
    /// [`ENTRY_PUT`], [`ENTRY_APPEND`], [`ENTRY_REMOVE`] or [`ENTRY_CLEAR`].
    pub ops: Vec<u8>,
    /// The number of the state's declaration.
    pub states: Vec<u32>,
    /// The index of the key.
    pub keys: Vec<u32>,
    /// The map keys; empty where no write has one.
    pub entry_keys: BytesColumn,
    /// The values; empty where no write has one.
    pub values: BytesColumn,
}

/// Context of an instance, given once, before any other call but `describe`. The header has the watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenContext {
    /// The operator's uid.
    pub uid: String,
    /// Its subtask, from 0.
    pub subtask: u32,
    /// The number of subtasks.
    pub parallelism: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
}

/// One named operator state (not keyed): its items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorState {
    /// As declared.
    pub name: String,
    /// Its items, encoded.
    pub items: BytesColumn,
}

/// An operator's declared failure: it ran, and says that it cannot process this. Not a trap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The row at fault, where it is one row's.
    pub row: Option<u32>,
    /// For people.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.row {
            Some(row) => write!(f, "row {row}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The numbers of an operator's declarations: what its answers are checked against, together with a call's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// For each declared state, in order, whether it travels.
    pub travels: Vec<bool>,
    /// The number of output ports.
    pub ports: u32,
    /// The number of timers.
    pub timers: u32,
    /// The names of the operator states, in order.
    pub operator_states: Vec<String>,
    /// For each output, in order, its name and the bound of its values; `None` for raw values.
    pub output_values: Vec<Option<Bounded>>,
    /// For each declared state, in order, its name and the bound of its values.
    pub state_values: Vec<Bounded>,
    /// For each operator state, in order, the bound of its items.
    pub item_values: Vec<PartsBound>,
}

/// A port or state, and the bound of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// Its name.
    pub name: String,
    /// The bound.
    pub parts: PartsBound,
}

impl From<&Description> for Declared {
    fn from(description: &Description) -> Self {
        Self {
            travels: description.states.iter().map(|state| state.travels).collect(),
            ports: description.outputs.len() as u32,
            timers: description.timers.len() as u32,
            operator_states: description
                .operator_states
                .iter()
                .map(|state| state.name.clone())
                .collect(),
            output_values: description.outputs.iter().map(bounded_output).collect(),
            state_values: description
                .states
                .iter()
                .map(|state| Bounded {
                    name: state.name.clone(),
                    parts: PartsBound::new(state.schema.clone()),
                })
                .collect(),
            item_values: description
                .operator_states
                .iter()
                .map(|state| PartsBound::new(state.schema.clone()))
                .collect(),
        }
    }
}

fn bounded_output(port: &Port) -> Option<Bounded> {
    let PortValue::Record(record) = &port.value else {
        return None;
    };
    let (name, parts) = (port.name.clone(), PartsBound::new(Type::Struct(record.clone())));
    Some(Bounded { name, parts })
}

/// Bounds of the references in an outcome.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The operator's description.
    pub declared: &'a Declared,
    /// Number of rows that `parents` refer to: records in `process`, timers in `on-timers`, keys in `finish-keys`,
    /// else 0.
    pub rows: u32,
    /// The number of keys of the call.
    pub keys: u32,
    /// True if rows have values that outputs can take over: only in `process`.
    pub values_inherited: bool,
}
