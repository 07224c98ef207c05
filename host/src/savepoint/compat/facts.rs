//! The facts that a verdict rests on: state that exists, and the job that is to take it over.

use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;
use serde_json::Value as Json;

use crate::savepoint::metadata::{EntryKind, Metadata, OperatorEntry, SavedStateKind, StateEntry};

/// A job that is to take over state, as far as state is concerned.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Every source, operator and sink.
    pub nodes: Vec<NewNode>,
    /// The number of key groups.
    pub max_parallelism: u32,
}

/// A node of such a job.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Its uid.
    pub uid: OperatorUid,
    /// Source, operator or sink.
    pub kind: EntryKind,
    /// The number of its subtasks.
    pub parallelism: u32,
    /// Declarations of its component; `None` for a source or sink.
    pub description: Option<Description>,
    /// The connector of a source or sink, or of an operator's dead letters.
    pub connector: Option<String>,
    /// The settings that make it the same source, sink or output for dead letters; null where it has none.
    pub identity: Json,
}

/// State that the user allows to be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// `-n`: all state of uids that the new job does not have.
    pub allow_non_restored: bool,
    /// `--drop-state`: `uid`, `uid/state` or `uid/timer`.
    pub drop_state: Vec<String>,
}

impl RestoreOptions {
    /// Returns true if the user gave `--drop-state` for exactly this uid, or for this state or timer of it.
    #[must_use]
    pub fn drops(&self, uid: &OperatorUid, state: Option<&str>) -> bool {
        let wanted = state.map_or_else(|| uid.to_string(), |state| format!("{uid}/{state}"));
        self.drop_state.contains(&wanted)
    }
}

/// State that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct Existing {
    /// The place that has it.
    pub place: Place,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// Every uid, in the order of the savepoint or job.
    pub uids: Vec<ExistingUid>,
}

/// The place that has the existing state. It decides the words of a problem, never the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A savepoint or checkpoint, as a URL.
    Savepoint(String),
    /// The job that runs and is to be changed.
    RunningJob,
}

impl Place {
    /// Returns the words that every refusal begins with.
    #[must_use]
    pub fn refused(&self) -> String {
        match self {
            Self::Savepoint(url) => format!("cannot restore from {url}"),
            Self::RunningJob => "the upgrade is refused, and the job goes on as it was".to_owned(),
        }
    }
}

/// A uid that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct ExistingUid {
    /// The uid.
    pub uid: OperatorUid,
    /// Source, operator or sink.
    pub kind: EntryKind,
    /// True if something is lost when it is not taken over.
    pub is_stateful: bool,
    /// The connector of a source or sink with state.
    pub connector: Option<String>,
    /// The settings that make it the same source or sink; null where it has none.
    pub identity: Json,
    /// Keyed states, timers and operator states.
    pub states: Vec<ExistingState>,
    /// The number of output parts that are not committed.
    pub pending_parts: usize,
    /// Size of its state; `None` where that is not known.
    pub size: Option<Size>,
}

/// A state that exists. All timers of a uid are one state.
#[derive(Debug, Clone, PartialEq)]
pub struct ExistingState {
    /// Unique among the keyed states of the uid, or among its operator states.
    pub name: String,
    /// Its kind.
    pub kind: SavedStateKind,
    /// The type of its keys; `None` for operator state.
    pub key: Option<Type>,
    /// The type of a map's keys.
    pub map_key: Option<Type>,
    /// The types that its values may have, the newest last.
    pub schemas: Vec<Type>,
    /// Timers that may be pending; empty for other kinds.
    pub timers: Vec<ExistingTimer>,
    /// Its size; `None` where that is not known.
    pub size: Option<Size>,
}

/// A timer that may be pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingTimer {
    /// The name of the timer.
    pub name: String,
    /// The clock it waits for, `event` or `processing`; `None` where that is not known.
    pub time: Option<String>,
}

/// An amount of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Keys, or items of operator state.
    pub keys: u64,
    /// Bytes of state files.
    pub bytes: u64,
}

impl Existing {
    /// Returns the state of the savepoint or checkpoint at `url`.
    #[must_use]
    pub fn saved(url: &str, metadata: &Metadata) -> Self {
        Self {
            place: Place::Savepoint(url.to_owned()),
            max_parallelism: metadata.max_parallelism,
            uids: metadata.operators.iter().map(ExistingUid::saved).collect(),
        }
    }

    /// Returns the state that a running job declares. It may have all of it: its timers count as pending.
    #[must_use]
    pub fn running(job: &NewJob) -> Self {
        Self {
            place: Place::RunningJob,
            max_parallelism: job.max_parallelism,
            uids: job.nodes.iter().map(ExistingUid::running).collect(),
        }
    }
}

impl ExistingUid {
    fn saved(entry: &OperatorEntry) -> Self {
        let output = match (entry.kind, &entry.source, &entry.sink) {
            // An operator's output of dead letters is no part of what the operator is.
            (EntryKind::Operator, ..) => None,
            (_, Some(source), _) => Some((&source.connector, &source.identity)),
            (_, None, Some(sink)) => Some((&sink.connector, &sink.identity)),
            (_, None, None) => None,
        };
        let size = Size {
            keys: entry.keys(),
            bytes: entry.bytes(),
        };
        Self {
            uid: entry.uid.clone(),
            kind: entry.kind,
            is_stateful: entry.is_stateful(),
            connector: output.map(|(connector, _)| connector.clone()),
            identity: output.map_or(Json::Null, |(_, identity)| identity.clone()),
            states: entry
                .states
                .iter()
                .filter(|state| state.kind != SavedStateKind::Positions)
                .map(|state| ExistingState::saved(state, entry.description.as_ref()))
                .collect(),
            pending_parts: entry.pending_parts(),
            size: Some(size),
        }
    }

    fn running(node: &NewNode) -> Self {
        let states = node
            .description
            .as_ref()
            .map(ExistingState::declared)
            .unwrap_or_default();
        let is_operator = node.kind == EntryKind::Operator;
        Self {
            uid: node.uid.clone(),
            kind: node.kind,
            is_stateful: !is_operator || !states.is_empty(),
            connector: node.connector.clone().filter(|_| !is_operator),
            identity: if is_operator { Json::Null } else { node.identity.clone() },
            states,
            pending_parts: 0,
            size: None,
        }
    }
}

impl ExistingState {
    fn saved(state: &StateEntry, description: Option<&Description>) -> Self {
        let timer = |name: &String| ExistingTimer {
            name: name.clone(),
            time: time_of(description, name).map(str::to_owned),
        };
        let size = Size {
            keys: state.entries(),
            bytes: state.bytes(),
        };
        Self {
            name: state.name.clone(),
            kind: state.kind,
            key: state.key.as_ref().map(|key| key.ty.clone()),
            map_key: state.map_key.clone(),
            schemas: state.schemas.clone(),
            timers: state.timers.iter().map(timer).collect(),
            size: Some(size),
        }
    }

    /// All states of a component that runs.
    fn declared(description: &Description) -> Vec<Self> {
        let key = description.key.as_ref().map(|key| key.ty.clone());
        let state = |name: &str, kind: SavedStateKind, schema: &Type| Self {
            name: name.to_owned(),
            kind,
            key: key.clone().filter(|_| kind.is_keyed()),
            map_key: None,
            schemas: vec![schema.clone()],
            timers: Vec::new(),
            size: None,
        };
        let keyed = description.states.iter().map(|declared| Self {
            map_key: declared.map_key.clone(),
            ..state(&declared.name, declared.kind.into(), &declared.schema)
        });
        let timers = description.timers.iter().map(|timer| ExistingTimer {
            name: timer.name.clone(),
            time: Some(timer.time.clone()),
        });
        let timers = Self {
            timers: timers.collect(),
            ..state("timers", SavedStateKind::Timers, &Type::Unit)
        };
        let operator = description.operator_states.iter().map(|declared| {
            state(
                &declared.name,
                SavedStateKind::of_operator(&declared.kind),
                &declared.schema,
            )
        });
        keyed
            .chain((!timers.timers.is_empty()).then_some(timers))
            .chain(operator)
            .collect()
    }
}

/// Returns the clock that a declared timer waits for, `event` or `processing`; `None` where it is not declared.
pub(super) fn time_of<'a>(description: Option<&'a Description>, name: &str) -> Option<&'a str> {
    let mut timers = description.into_iter().flat_map(|description| &description.timers);
    timers.find(|timer| timer.name == name).map(|timer| timer.time.as_str())
}
