//! A job of two operators whose state is a map, and the result expected from restoring one of its checkpoints.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::trap::GuestError;
use regraft_model::describe::{Description, StateDescription, StateKind, WIT_VERSION};
use regraft_model::id::{AttemptId, CheckpointId, JobId, JobVersion, OperatorUid};
use regraft_model::key_group::{KeyGroup, hash32, key_group, range_of};
use regraft_model::schema::{Field, Type};
use regraft_model::snapshot::SnapshotKind;
use serde_json::json;

use crate::checkpoint::facts::{JobFacts, StoreAs};
use crate::checkpoint::round::Acknowledged;
use crate::connector::source::SplitState;
use crate::connectors::BUILT_IN;
use crate::dataflow::control::{KeyedSnapshot, Positions, SubtaskId, SubtaskSnapshot};
use crate::dataflow::operator::{Modules, Operator, OperatorModule};
use crate::graph::plan::Plan;
use crate::graph::{Overrides, parse_job};
use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{EntryKind, Owner, SplitEntry, Trigger};
use crate::savepoint::positions;
use crate::savepoint::restore::{NewJob, NewNode, Part, RestoreOptions, plan_restore};
use crate::savepoint::rows::Layout;
use crate::state::rows::{REMOVED, RowsOf, StateRows};

#[derive(Debug)]
struct Module(Description, &'static [u8]);

impl OperatorModule for Module {
    fn digest(&self) -> ModuleDigest {
        ModuleDigest::of(self.1)
    }
    fn description(&self) -> &Description {
        &self.0
    }
    fn bytes(&self) -> &[u8] {
        self.1
    }
    fn instantiate(&self, _: &InstanceSettings) -> Result<Box<dyn Operator>, GuestError> {
        unimplemented!("it is not run")
    }
}

fn description(states: &[&str]) -> Description {
    let state = |name: &&str| StateDescription {
        name: (*name).to_owned(),
        kind: StateKind::Value,
        schema: Type::U64,
        map_key: None,
        travels: true,
        ttl_ms: None,
        version: None,
    };
    Description {
        wit: WIT_VERSION.into(),
        key: Some(Field {
            name: "id".into(),
            ty: Type::U64,
            aliases: vec![],
            default: false,
        }),
        states: states.iter().map(state).collect(),
        ..Description::default()
    }
}

pub(super) fn uid(text: &str) -> OperatorUid {
    OperatorUid::new(text).expect("uid")
}

/// Entries by state and key.
pub(super) type State = BTreeMap<(u16, u64), u64>;

/// A job with its present state, and its state at each round.
pub(super) struct Job {
    pub(super) facts: JobFacts,
    pub(super) state: State,
    pub(super) marks: BTreeMap<CheckpointId, State>,
    /// True if each key of the first state is also a split of the source, and its value the position.
    pub(super) has_positions: bool,
    next: u64,
}

impl Job {
    pub(super) fn new(parallelism: u32, states: &[&str]) -> Self {
        let text = format!(
            "name = \"kept\"\nparallelism = {parallelism}\n[[source]]\nuid = \"in\"\nconnector = \"generator\"\nkey = \"id\"\nfields = [{{ name = \"id\", type = \"u64\", range = [0, 9] }}]\n[[operator]]\nuid = \"count\"\nmodule = \"count.wasm\"\ninputs = [{{ from = \"in\", by = \"key\" }}]\n[[sink]]\nuid = \"out\"\nconnector = \"blackhole\"\ninputs = [\"count\"]\n"
        );
        let graph = parse_job(&text, "job.toml", Path::new("."), &Overrides::default(), BUILT_IN);
        let graph = graph.unwrap_or_else(|error| panic!("{error}")).0;
        let module: Arc<dyn OperatorModule> = Arc::new(Module(description(states), b"count"));
        Self {
            facts: JobFacts {
                plan: Arc::new(Plan::new(&graph)),
                graph: Arc::new(graph),
                job_id: JobId::from_bits(7),
                attempt: AttemptId(1),
                version: JobVersion(1),
                lineage: vec![],
                modules: Modules::from([(uid("count"), module)]),
            },
            state: State::new(),
            marks: BTreeMap::new(),
            has_positions: false,
            next: 1,
        }
    }

    /// Replaces the modules of the job.
    pub(super) fn declare(&mut self, states: &[&str], component: &'static [u8]) {
        let module: Arc<dyn OperatorModule> = Arc::new(Module(description(states), component));
        self.facts.modules = Modules::from([(uid("count"), module)]);
    }

    fn parallelism(&self) -> u32 {
        self.facts.graph.nodes[0].parallelism
    }

    pub(super) fn next_id(&mut self) -> CheckpointId {
        let id = CheckpointId(self.next);
        self.next += 1;
        self.marks.insert(id, self.state.clone());
        id
    }

    pub(super) fn how(&self) -> StoreAs {
        StoreAs {
            layout: Layout::Native,
            trigger: Trigger::Periodic,
            owner: Owner::Host,
            completed_ms: 20,
        }
    }

    /// Returns the snapshots of a round's subtasks: all state, or the changes since its base.
    pub(super) fn round(&self, id: CheckpointId, kind: SnapshotKind, base: Option<CheckpointId>) -> Acknowledged {
        let parallelism = self.parallelism();
        let part = |chain: u32, index: u32| {
            let keyed = KeyedSnapshot {
                uid: uid("count"),
                base,
                rows: self.rows(id, base, index),
            };
            SubtaskSnapshot {
                keyed: if chain == 1 { vec![keyed] } else { vec![] },
                source: (chain == 0 && self.has_positions).then(|| (uid("in"), self.positions(id, base, index))),
                align_ns: 3_000,
                sync_ns: 2_000,
                async_ns: 1_000,
                ..SubtaskSnapshot::new(SubtaskId { chain, index }, id)
            }
        };
        let parts = (0..2).flat_map(|chain| (0..parallelism).map(move |index| (chain, index)));
        Acknowledged {
            id,
            kind,
            triggered_ms: 10,
            snapshots: parts.map(|(chain, index)| part(chain, index)).collect(),
        }
    }

    fn positions(&self, id: CheckpointId, base: Option<CheckpointId>, index: u32) -> Positions {
        let is_own = |(state, key): (u16, u64)| state == 0 && key % u64::from(self.parallelism()) == u64::from(index);
        let changes = self.changes(id, base).into_iter().filter(|(key, _)| is_own(*key));
        let (mut splits, mut removed) = (vec![], vec![]);
        for ((_, key), value) in changes {
            match value {
                Some(offset) => splits.push(SplitState {
                    split: key.to_string(),
                    position: json!({ "offset": offset }),
                }),
                None => removed.push(key.to_string().into()),
            }
        }
        Positions::Filed { base, splits, removed }
    }

    /// Returns the changes of a round since its base: keys with their new values.
    fn changes(&self, id: CheckpointId, base: Option<CheckpointId>) -> Vec<((u16, u64), Option<u64>)> {
        let nothing = State::new();
        let before = base.map_or(&nothing, |base| &self.marks[&base]);
        let now = &self.marks[&id];
        let mut changes: Vec<((u16, u64), Option<u64>)> = vec![];
        changes.extend(
            now.iter()
                .filter(|(key, value)| before.get(key) != Some(value))
                .map(|(k, v)| (*k, Some(*v))),
        );
        changes.extend(
            before
                .keys()
                .filter(|key| !now.contains_key(key))
                .map(|key| (*key, None)),
        );
        changes
    }

    fn rows(&self, id: CheckpointId, base: Option<CheckpointId>, index: u32) -> Vec<StateRows> {
        let changes = self.changes(id, base);
        let range = range_of(index, self.parallelism(), 128);
        let mut groups: BTreeMap<(u16, u16), StateRows> = BTreeMap::new();
        for ((state, key), value) in changes {
            let key = key.to_le_bytes();
            let group = key_group(hash32(&key), 128);
            if !range.contains(group) {
                continue;
            }
            let rows = groups.entry((group.0, state));
            let rows = rows.or_insert_with(|| StateRows::new(KeyGroup(group.0), RowsOf::State(state)));
            rows.keys.push(&key);
            match value {
                // As bincode encodes small and large numbers.
                Some(value) => rows.values.push(&[[253].as_slice(), &value.to_le_bytes()].concat()),
                None => rows.values.push(&[]),
            }
            rows.schemas.push(if value.is_some() { 1 } else { REMOVED });
        }
        groups.into_values().collect()
    }

    /// Reads the positions of a checkpoint, as the entries of the first state that they mirror.
    pub(super) async fn positions_of(checkpoint: &Savepoint) -> State {
        let entry = checkpoint.metadata.operator("in").expect("entry");
        let splits = positions::read(checkpoint, entry, &Budget::unlimited())
            .await
            .expect("positions");
        let entry = |split: SplitEntry| {
            let key = split.split.parse().expect("a number");
            ((0, key), split.position["offset"].as_u64().expect("a number"))
        };
        splits.into_iter().map(entry).collect()
    }

    /// Restores a checkpoint at the given parallelism and returns the state.
    pub(super) async fn restored(&self, checkpoint: &Savepoint, parallelism: u32) -> State {
        let metadata = &checkpoint.metadata;
        let node = |node: &crate::savepoint::metadata::GraphNode| NewNode {
            uid: node.uid.clone(),
            kind: node.kind,
            parallelism,
            description: (node.kind == EntryKind::Operator)
                .then(|| self.facts.modules[&node.uid].description().clone()),
            connector: None,
            identity: serde_json::Value::Null,
        };
        let mut new = NewJob {
            nodes: metadata.graph.iter().map(node).collect(),
            max_parallelism: 128,
        };
        for node in &mut new.nodes {
            let entry = metadata.operator(node.uid.as_str()).expect("entry");
            let of_source = entry
                .source
                .as_ref()
                .map(|source| (&source.connector, &source.identity));
            let of_sink = entry.sink.as_ref().map(|sink| (&sink.connector, &sink.identity));
            if let Some((connector, identity)) = of_source.or(of_sink) {
                (node.connector, node.identity) = (Some(connector.clone()), identity.clone());
            }
        }
        let plan = plan_restore("x", metadata, &new, &RestoreOptions::default());
        let plan = plan.unwrap_or_else(|refusal| panic!("{refusal}"));
        let names = self.facts.modules[&uid("count")]
            .description()
            .states
            .iter()
            .map(|state| state.name.clone());
        let names: VecDeque<String> = names.collect();
        let mut restored = State::new();
        for subtask in plan
            .operators
            .iter()
            .filter(|o| o.kind == EntryKind::Operator)
            .flat_map(|o| &o.subtasks)
        {
            let mut own: BTreeMap<(u16, u64), (u16, u64)> = BTreeMap::new();
            for read in &subtask.reads {
                let entry = metadata.operator("count").expect("entry");
                let state = entry
                    .states
                    .iter()
                    .find(|state| state.name == read.state)
                    .expect("state");
                let position = names.iter().position(|name| *name == read.state).expect("declared") as u16;
                let Part::KeyGroups(range) = read.part else {
                    panic!("keyed state")
                };
                for rows in checkpoint
                    .read_rows(state, &read.file, range, &Budget::unlimited())
                    .await
                    .expect("rows")
                {
                    for i in 0..rows.len() {
                        let key = u64::from_le_bytes(rows.keys.get(i).try_into().expect("a number"));
                        assert!(subtask.key_groups.contains(key_group(hash32(&key.to_le_bytes()), 128)));
                        let value = rows.values.get(i);
                        let value = value
                            .get(1..)
                            .map_or(0, |value| u64::from_le_bytes(value.try_into().expect("8")));
                        own.insert((position, key), (rows.schemas[i], value));
                    }
                }
            }
            let kept = own.into_iter().filter(|(_, (schema, _))| *schema != REMOVED);
            for (key, (_, value)) in kept {
                assert!(restored.insert(key, value).is_none(), "each key once");
            }
        }
        restored
    }
}
