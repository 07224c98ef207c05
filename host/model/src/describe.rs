//! What a component declares: the JSON of its `describe` export (`docs/formats/describe.md`).

use serde::{Deserialize, Serialize};

use crate::schema::{Field, StructType, Type};

/// The version of the WIT package that this host offers.
pub const WIT_VERSION: &str = "0.1.0";

/// Everything that a component says of itself. The default says nothing, not even a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The version of the WIT package it was built for.
    pub wit: String,
    /// What made it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sdk: String,
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
    /// Wants `on-watermark` calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_watermark: bool,
    /// Wants `finish` calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finish: bool,
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
#[serde(deny_unknown_fields)]
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
    /// Whether its values travel with each batch.
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
#[serde(deny_unknown_fields)]
pub struct Port {
    /// For people.
    pub name: String,
    /// The key that records carry, where it is declared.
    #[serde(default)]
    pub key: Option<Field>,
    /// The value.
    pub value: PortValue,
}

/// What the value of a record is.
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
#[serde(deny_unknown_fields)]
pub struct TimerDescription {
    /// Part of a timer's identity.
    pub name: String,
    /// `event` or `processing`.
    pub time: String,
}

/// Operator (not keyed) state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorStateDescription {
    /// Unique in the operator.
    pub name: String,
    /// `list`, `union` or `broadcast`.
    pub kind: String,
    /// The type of an item.
    pub schema: Type,
}

impl Description {
    /// Whether it has keyed state, and so needs its inputs by key.
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
