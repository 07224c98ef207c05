//! What a savepoint holds, for people (`regraft state show`) and for `--json`. From `_metadata` alone, but for entries that
//! are asked for.

use std::collections::BTreeMap;
use std::fmt::Write;

use regraft_model::id::{CheckpointId, JobId, OperatorUid};
use serde::Serialize;

use crate::savepoint::entries::{self, ShownEntry};
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::{
    Ancestor, EntryKind, Metadata, MetadataError, OperatorEntry, Owner, SavedStateKind, SnapshotKind, SplitEntry,
    Trigger,
};
use crate::savepoint::rows::Layout;

/// A savepoint at a glance. Uids without state are left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSavepoint {
    /// Where it is.
    pub path: String,
    /// How state files are laid out.
    pub format: Layout,
    /// What it was made for.
    pub kind: SnapshotKind,
    /// Why it was made.
    pub trigger: Trigger,
    /// Who may delete it.
    pub owner: Owner,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The job's name.
    pub job_name: String,
    /// The run that made it.
    pub job_id: JobId,
    /// What that run goes back to, newest first.
    pub lineage: Vec<Ancestor>,
    /// The round that made it.
    pub checkpoint_id: CheckpointId,
    /// In milliseconds since the Unix epoch.
    pub triggered_at_ms: i64,
    /// From the trigger until all state was durable.
    pub duration_ms: i64,
    /// The version of Regraft that wrote it.
    pub host_version: String,
    /// The version of the WIT package.
    pub wit_version: String,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// What stood after `--`.
    pub arguments: Vec<String>,
    /// The job file's text.
    pub job_file: String,
    /// The size of all files beside `_metadata`.
    pub bytes: u64,
    /// The SHA-256 of every operator's component, also of those without state.
    pub modules: BTreeMap<OperatorUid, String>,
    /// What has state, in order of the job.
    pub operators: Vec<ShownOperator>,
}

/// One uid that has state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownOperator {
    /// Its uid.
    pub uid: OperatorUid,
    /// What it is.
    pub kind: EntryKind,
    /// How many subtasks wrote it.
    pub parallelism: u32,
    /// The SHA-256 of its component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The connector of a source or sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Its states.
    pub states: Vec<ShownState>,
    /// At least how many keys.
    pub keys: u64,
    /// The size of its state files.
    pub bytes: u64,
    /// The least watermark of its subtasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Where a source stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitEntry>,
    /// Written by a sink and not committed; may lie outside the savepoint.
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
    /// The type of its key, as people write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The type of a map's keys, as people write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_key: Option<String>,
    /// The names of pending timers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<String>,
    /// The type of its values, as people write it.
    pub schema: String,
    /// The digest of that type.
    pub digest: String,
    /// How many rows.
    pub keys: u64,
    /// The size of its files.
    pub bytes: u64,
    /// Its files, relative to the savepoint.
    pub files: Vec<String>,
    /// Its entries, where they were asked for: in order of key group, key and entry, so in the same one at any parallelism.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<ShownEntry>>,
}

/// Whose entries are to be shown; none of one: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntriesOf {
    /// The uid.
    pub uid: Option<OperatorUid>,
    /// Its state.
    pub state: Option<String>,
}

/// Gathers what there is to show.
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
        bytes: metadata.files().map(|(_, bytes)| bytes).sum(),
        modules: modules(metadata),
        operators: operators(metadata),
    }
}

fn modules(metadata: &Metadata) -> BTreeMap<OperatorUid, String> {
    let module = |entry: &OperatorEntry| Some((entry.uid.clone(), entry.module.clone()?));
    metadata.operators.iter().filter_map(module).collect()
}

/// Likewise, with the entries of all states, or of some. False: there is no such state.
///
/// # Errors
/// [`MetadataError`] where a file cannot be read.
pub async fn show_entries(savepoint: &Savepoint, of: &EntriesOf) -> Result<(ShownSavepoint, bool), MetadataError> {
    let mut shown = show(savepoint);
    let mut found = false;
    for operator in &mut shown.operators {
        let entry = savepoint.metadata.operator(operator.uid.as_str());
        let saved = entry.iter().flat_map(|entry| &entry.states);
        for (state, saved) in operator.states.iter_mut().zip(saved) {
            let is_uid = of.uid.as_ref().is_none_or(|uid| *uid == operator.uid);
            if is_uid && of.state.as_ref().is_none_or(|name| *name == state.name) {
                found = true;
                state.entries = Some(entries::read(savepoint, &operator.uid, saved).await?);
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
            let states = entry.states.iter().map(|state| ShownState {
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

impl ShownSavepoint {
    /// As text: the facts of the job, the table of states, positions of sources, pending parts of sinks, the job file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        let mut fact = |name: &str, value: String| {
            let _ = writeln!(text, "{:<17}{value}", format!("{name}:"));
        };
        fact("path", self.path.clone());
        fact("job", format!("{} ({})", self.job_name, self.job_id));
        fact(
            "kind",
            format!(
                "{} ({}, {}, owner {})",
                self.kind, self.trigger, self.format, self.owner
            ),
        );
        if let Some(label) = &self.label {
            fact("label", label.clone());
        }
        fact("checkpoint", self.checkpoint_id.to_string());
        fact(
            "triggered at",
            format!("{} ms, took {} ms", self.triggered_at_ms, self.duration_ms),
        );
        fact("max parallelism", self.max_parallelism.to_string());
        fact(
            "written by",
            format!("regraft {}, WIT {}", self.host_version, self.wit_version),
        );
        if !self.arguments.is_empty() {
            fact("arguments", self.arguments.join(" "));
        }
        for ancestor in &self.lineage {
            fact(
                "restored from",
                format!("{} (job {})", ancestor.savepoint, ancestor.job_id),
            );
        }
        fact("bytes", self.bytes.to_string());
        for (uid, module) in &self.modules {
            fact("module", format!("{uid} {module}"));
        }
        text.push('\n');
        text.push_str(&table(&self.rows()));
        self.entries(text);
        self.positions(text);
        text.push_str("\njob file:\n");
        for line in self.job_file.lines() {
            let _ = writeln!(text, "{}", format!("  {line}").trim_end());
        }
    }

    fn rows(&self) -> Vec<[String; 6]> {
        let mut rows = vec![["UID", "KIND", "STATE", "SCHEMA", "KEYS", "BYTES"].map(str::to_owned)];
        for operator in &self.operators {
            let (uid, kind) = (operator.uid.to_string(), operator.kind.to_string());
            for state in &operator.states {
                let name = format!("{} ({})", state.name, state.kind);
                let (keys, bytes) = (state.keys.to_string(), state.bytes.to_string());
                rows.push([uid.clone(), kind.clone(), name, state.types(), keys, bytes]);
            }
            if operator.states.is_empty() {
                let connector = operator.connector.clone().unwrap_or_default();
                rows.push([uid, kind, connector, "-".into(), "-".into(), "-".into()]);
            }
        }
        rows
    }

    fn entries(&self, text: &mut String) {
        for operator in &self.operators {
            for state in &operator.states {
                let Some(entries) = &state.entries else { continue };
                let _ = writeln!(text, "\nentries of {}/{}:", operator.uid, state.name);
                for entry in entries {
                    let _ = writeln!(text, "  {}", entry.line());
                }
            }
        }
    }

    fn positions(&self, text: &mut String) {
        for operator in &self.operators {
            if !operator.splits.is_empty() {
                let _ = writeln!(text, "\npositions of {}:", operator.uid);
            }
            for split in &operator.splits {
                let end = if split.finished { " (finished)" } else { "" };
                let _ = writeln!(text, "  {}: {}{end}", split.split, split.position);
            }
            if !operator.pending.is_empty() {
                let _ = writeln!(
                    text,
                    "\npending parts of {} (they may lie outside the savepoint):",
                    operator.uid
                );
            }
            for handle in &operator.pending {
                let _ = writeln!(text, "  {handle}");
            }
        }
    }
}

impl ShownState {
    /// What its entries are, as people write types: of a list, its items; of a map, keys and values; of timers, their names.
    fn types(&self) -> String {
        match (self.kind, &self.map_key) {
            (SavedStateKind::Timers, _) => self.timers.join(", "),
            (SavedStateKind::List, _) => format!("[{}]", self.schema),
            (_, Some(key)) => format!("{{{key}: {}}}", self.schema),
            _ => self.schema.clone(),
        }
    }
}

/// Columns as wide as they need; numbers, in the last two, to the right.
fn table(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(i, (cell, width))| {
            if i < 4 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests;
