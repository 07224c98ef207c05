//! Summarizes the content of a savepoint, for `regraft state show`.
//!
//! Reads only `_metadata`, except for entries that are asked for.

use std::collections::BTreeMap;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use serde::Serialize;

use crate::savepoint::budget::Budget;
use crate::savepoint::entries::{self, ShownEntry};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{
    Ancestor, EntryKind, Metadata, MetadataError, OperatorEntry, Owner, SavedSettings, SavedStateKind, SnapshotKind,
    SplitEntry, StateEntry, Trigger,
};
use crate::savepoint::positions;
use crate::savepoint::rows::Layout;

/// Summary of a savepoint. Uids without state are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSavepoint {
    /// Its URL.
    pub path: String,
    /// Layout of the state files.
    pub format: Layout,
    /// Purpose of the snapshot.
    pub kind: SnapshotKind,
    /// Cause of the snapshot.
    pub trigger: Trigger,
    /// Party that may delete it.
    pub owner: Owner,
    /// Label for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Name of the job.
    pub job_name: String,
    /// Job that made it.
    pub job_id: JobId,
    /// Jobs that this one descends from, newest first.
    pub lineage: Vec<Ancestor>,
    /// Id of the checkpoint or savepoint.
    pub checkpoint_id: CheckpointId,
    /// Time at which the round began, in milliseconds since the Unix epoch.
    pub triggered_at_ms: i64,
    /// Time from the trigger until all state was durable, in milliseconds.
    pub duration_ms: i64,
    /// Version of Regraft that wrote it.
    pub host_version: String,
    /// Version of the WIT package.
    pub wit_version: String,
    /// Number of key groups.
    pub max_parallelism: u32,
    /// Arguments that followed `--`.
    pub arguments: Vec<String>,
    /// Text of the job file.
    pub job_file: String,
    /// Settings in effect; none in savepoints of format versions before 3.
    pub settings: SavedSettings,
    /// Size of all files except `_metadata`, in bytes.
    pub bytes: u64,
    /// SHA-256 of every operator's component, including operators without state.
    pub modules: BTreeMap<OperatorUid, String>,
    /// Uids with state, in order of the job.
    pub operators: Vec<ShownOperator>,
}

/// A uid with state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownOperator {
    /// Its uid.
    pub uid: OperatorUid,
    /// Its kind.
    pub kind: EntryKind,
    /// Number of subtasks that wrote it.
    pub parallelism: u32,
    /// SHA-256 of its component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Connector of a source or sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Its states.
    pub states: Vec<ShownState>,
    /// Lower bound of the number of keys.
    pub keys: u64,
    /// Size of its state files, in bytes.
    pub bytes: u64,
    /// Least watermark of its subtasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Positions of a source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitEntry>,
    /// Output that a sink has written and not committed. It may be outside the savepoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<serde_json::Value>,
}

/// One state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownState {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SavedStateKind,
    /// Name and type of its key, as people write them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Type of a map's keys, as people write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_key: Option<String>,
    /// Names of pending timers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<String>,
    /// Type of its values, as people write it.
    pub schema: String,
    /// Digest of that type.
    pub digest: String,
    /// Number of rows.
    pub keys: u64,
    /// Size of its files, in bytes.
    pub bytes: u64,
    /// Its files, relative to the savepoint.
    pub files: Vec<String>,
    /// Its entries, if asked for: in order of key group, key and entry, which is the same at any parallelism.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<ShownEntry>>,
}

/// Selects the states whose entries are shown. An absent field selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntriesOf {
    /// The uid.
    pub uid: Option<OperatorUid>,
    /// Its state.
    pub state: Option<String>,
}

/// Iterates over the states of an entry that a component has declared. Positions are shown as those of the source.
fn declared(entry: &OperatorEntry) -> impl Iterator<Item = &StateEntry> {
    let is_declared = |state: &&StateEntry| state.kind != SavedStateKind::Positions;
    entry.states.iter().filter(is_declared)
}

/// Returns the summary of a savepoint, without positions in files of their own ([`read_positions`]).
#[must_use]
pub fn show(savepoint: &Savepoint) -> ShownSavepoint {
    let metadata = &savepoint.metadata;
    ShownSavepoint {
        path: savepoint.url(),
        format: metadata.format,
        kind: metadata.kind,
        trigger: metadata.trigger,
        owner: metadata.owner,
        label: metadata.label.clone(),
        job_name: metadata.job_name.clone(),
        job_id: metadata.job_id,
        lineage: metadata.lineage.clone(),
        checkpoint_id: metadata.checkpoint_id,
        triggered_at_ms: metadata.triggered_at_ms,
        duration_ms: metadata.completed_at_ms.saturating_sub(metadata.triggered_at_ms),
        host_version: metadata.host_version.clone(),
        wit_version: metadata.wit_version.clone(),
        max_parallelism: metadata.max_parallelism,
        arguments: metadata.arguments.clone(),
        job_file: metadata.job_file.clone(),
        settings: metadata.settings.clone(),
        bytes: metadata.files().map(|(_, bytes)| bytes).sum(),
        modules: modules(metadata),
        operators: operators(metadata),
    }
}

fn modules(metadata: &Metadata) -> BTreeMap<OperatorUid, String> {
    let module = |entry: &OperatorEntry| Some((entry.uid.clone(), entry.module.clone()?));
    metadata.operators.iter().filter_map(module).collect()
}

/// Adds the positions that are in files of their own to a summary.
///
/// # Errors
/// Returns [`MetadataError`] if a file cannot be read.
pub async fn read_positions(
    savepoint: &Savepoint,
    shown: &mut ShownSavepoint,
    budget: &Budget,
) -> Result<(), MetadataError> {
    for operator in &mut shown.operators {
        if let Some(entry) = savepoint.metadata.operator(operator.uid.as_str()) {
            operator.splits.extend(positions::read(savepoint, entry, budget).await?);
            operator.splits.sort_by(|a, b| a.split.cmp(&b.split));
        }
    }
    Ok(())
}

/// Returns the summary with the entries of the selected states, and true if any state was selected.
///
/// # Errors
/// Returns [`MetadataError`] if a state file cannot be read.
pub async fn show_entries(
    savepoint: &Savepoint,
    of: &EntriesOf,
    budget: &Budget,
) -> Result<(ShownSavepoint, bool), MetadataError> {
    let mut shown = show(savepoint);
    let mut found = false;
    for operator in &mut shown.operators {
        let entry = savepoint.metadata.operator(operator.uid.as_str());
        let saved = entry.into_iter().flat_map(declared);
        for (state, saved) in operator.states.iter_mut().zip(saved) {
            let is_uid = of.uid.as_ref().is_none_or(|uid| *uid == operator.uid);
            if is_uid && of.state.as_ref().is_none_or(|name| *name == state.name) {
                found = true;
                state.entries = Some(entries::read(savepoint, &operator.uid, saved, budget).await?);
            }
        }
    }
    Ok((shown, found))
}

fn operators(metadata: &Metadata) -> Vec<ShownOperator> {
    let shown = metadata
        .operators
        .iter()
        .filter(|entry| entry.is_stateful())
        .map(|entry| {
            let source = entry.source.as_ref().map(|source| &source.connector);
            let sink = entry.sink.as_ref().map(|sink| &sink.connector);
            let states = declared(entry).map(|state| ShownState {
                name: state.name.clone(),
                kind: state.kind,
                key: state.key.as_ref().map(|key| format!("{}: {}", key.name, key.ty)),
                map_key: state.map_key.as_ref().map(ToString::to_string),
                timers: state.timers.clone(),
                schema: state.schema.to_string(),
                digest: state.digest.clone(),
                keys: state.entries(),
                bytes: state.bytes(),
                files: state.files.iter().map(|file| file.path.clone()).collect(),
                entries: None,
            });
            ShownOperator {
                uid: entry.uid.clone(),
                kind: entry.kind,
                parallelism: entry.parallelism,
                module: entry.module.clone(),
                connector: source.or(sink).cloned(),
                states: states.collect(),
                keys: entry.keys(),
                bytes: entry.bytes(),
                watermark: entry.watermarks.iter().copied().min(),
                splits: entry.source.iter().flat_map(|source| source.splits.clone()).collect(),
                pending: entry.sink.iter().flat_map(|sink| sink.handles.clone()).collect(),
            }
        });
    shown.collect()
}

#[cfg(test)]
mod tests;
