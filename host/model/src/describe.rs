//! Declarations of a component: the JSON of its `describe` export (`docs/formats/describe.md`).

use serde::{Deserialize, Serialize};

use crate::schema::{Field, StructType, Type};

/// The version of the WIT package that this host offers.
pub const WIT_VERSION: &str = "0.2.0";

/// The encoding of values and records that this host reads and writes.
pub const ENCODING: &str = "bincode2";

/// The name of an encoding of values and records. The default is [`ENCODING`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Encoding(pub String);

impl Default for Encoding {
    fn default() -> Self {
        Self(ENCODING.to_owned())
    }
}

/// The optional interfaces of the WIT package, by name and in the order of `calls`.
pub mod interface {
    /// Fires timers.
    pub const TIMERS: &str = "timers";
    /// Is told of watermarks.
    pub const WATERMARKS: &str = "watermarks";
    /// Is told of the end of all inputs.
    pub const ENDING: &str = "ending";
    /// Saves and takes back operator state and private state.
    pub const OPERATOR_STATE: &str = "operator-state";
    /// Rewrites values of older schemas.
    pub const MIGRATION: &str = "migration";
    /// Folds records before the exchange.
    pub const COMBINING: &str = "combining";
    /// Makes records of state, offline.
    pub const READER: &str = "reader";
    /// Rewrites state, offline.
    pub const TRANSFORM: &str = "transform";
    /// Makes state of a bounded input, offline.
    pub const BOOTSTRAP: &str = "bootstrap";

    /// All of them.
    pub const ALL: [&str; 9] = [
        TIMERS,
        WATERMARKS,
        ENDING,
        OPERATOR_STATE,
        MIGRATION,
        COMBINING,
        READER,
        TRANSFORM,
        BOOTSTRAP,
    ];
}

/// Everything that a component says of itself. The default says nothing, not even a version.
///
/// A key that this host does not know is ignored, unless `must` names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The version of the WIT package it was built for.
    pub wit: String,
    /// Name and version of the tool that made it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sdk: String,
    /// Encoding of values and records.
    #[serde(default)]
    pub encoding: Encoding,
    /// Paths of keys that a reader must know, as `states.width`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must: Vec<String>,
    /// The optional interfaces that are to be called, by name. `None` in what a component returned: all that it exports.
    /// A loaded component always has `Some`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Vec<String>>,
    /// The key of its keyed state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Field>,
    /// Keyed states, in the order of the cells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<StateDescription>,
    /// One: used for every input. Several: one for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Port>,
    /// By port number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Port>,
    /// By timer number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerDescription>,
    /// Keeps something between calls that only `snapshot` can save.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private_state: bool,
    /// Not keyed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operator_states: Vec<OperatorStateDescription>,
    /// Uses `header.now`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_clock: bool,
    /// Uses `header.seed`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_random: bool,
}

/// The kinds of keyed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "Flink's own words")]
pub enum StateKind {
    Value,
    List,
    Map,
    Reducing,
    Aggregating,
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::List => "list",
            Self::Map => "map",
            Self::Reducing => "reducing",
            Self::Aggregating => "aggregating",
        })
    }
}

/// One keyed state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDescription {
    /// Unique in the operator.
    pub name: String,
    /// Its kind.
    pub kind: StateKind,
    /// The type of its values.
    pub schema: Type,
    /// The type of a map's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_key: Option<Type>,
    /// True if its values travel with each batch.
    #[serde(default)]
    pub travels: bool,
    /// Time to live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// For people.
    pub name: String,
    /// The key that records carry, where it is declared.
    #[serde(default)]
    pub key: Option<Field>,
    /// The value.
    pub value: PortValue,
}

/// Kind of a record's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortValue {
    /// Raw UTF-8.
    Text,
    /// Raw bytes.
    Bytes,
    /// Named columns, bincode by schema.
    Record(StructType),
}

impl std::fmt::Display for PortValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Record(s) => Type::Struct(s.clone()).fmt(f),
        }
    }
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerDescription {
    /// Part of a timer's identity.
    pub name: String,
    /// `event` or `processing`.
    pub time: String,
}

/// Operator (not keyed) state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStateDescription {
    /// Unique in the operator.
    pub name: String,
    /// `list`, `union` or `broadcast`.
    pub kind: String,
    /// The type of an item.
    pub schema: Type,
}

impl Description {
    /// Returns true if an optional interface, by its name, is to be called.
    #[must_use]
    pub fn calls(&self, interface: &str) -> bool {
        self.calls
            .as_ref()
            .is_some_and(|calls| calls.iter().any(|name| name == interface))
    }

    /// Returns true if it has keyed state, and so needs its inputs by key.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        !self.states.is_empty() || !self.timers.is_empty()
    }

    /// The port that describes input `index`.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<&Port> {
        if self.inputs.len() == 1 {
            self.inputs.first()
        } else {
            self.inputs.get(index)
        }
    }
}
