//! Deals out what the old subtasks wrote among the new ones.

use std::ops::Range;

use regraft_model::key_group::range_of;

use super::{NewNode, Part, RestoredSubtask, StateRead};
use crate::savepoint::metadata::{OperatorEntry, SavedStateKind, StateEntry, StateFile};

/// Returns the subtasks of a node, with their parts of the given states and of all splits.
pub(super) fn subtasks(
    node: &NewNode,
    entry: &OperatorEntry,
    states: &[&StateEntry],
    max_parallelism: u32,
) -> Vec<RestoredSubtask> {
    let parallelism = node.parallelism;
    let mut subtasks: Vec<RestoredSubtask> = (0..parallelism)
        .map(|index| RestoredSubtask {
            key_groups: range_of(index, parallelism, max_parallelism),
            reads: states
                .iter()
                .flat_map(|state| match state.kind {
                    SavedStateKind::Positions => positions(state, index),
                    SavedStateKind::OperatorList if !finished_alone(node, entry).is_empty() => own_reads(state, index),
                    _ => reads(state, index, parallelism, max_parallelism),
                })
                .collect(),
            splits: Vec::new(),
        })
        .collect();
    let mut splits: Vec<_> = entry.source.iter().flat_map(|source| &source.splits).collect();
    splits.sort_by(|a, b| a.split.cmp(&b.split));
    let count = subtasks.len();
    for (i, split) in splits.into_iter().enumerate() {
        if let Some(subtask) = subtasks.get_mut(i % count.max(1)) {
            subtask.splits.push(split.clone());
        }
    }
    subtasks
}

/// Returns the subtasks that had finished where others had not, at the parallelism that they had: they do not finish again.
pub(super) fn finished_alone<'a>(node: &NewNode, entry: &'a OperatorEntry) -> &'a [u32] {
    if node.parallelism == entry.parallelism {
        &entry.finished_subtasks
    } else {
        &[]
    }
}

/// Returns the subtask's own items of a list: one that has finished must not be given what another is to finish.
fn own_reads(state: &StateEntry, index: u32) -> Vec<StateRead> {
    let own = state
        .files
        .iter()
        .filter(|file| file.subtask.0 == index && file.entries > 0);
    own.map(|file| StateRead {
        state: state.name.clone(),
        kind: state.kind,
        file: file.clone(),
        part: Part::Items(0..file.entries),
    })
    .collect()
}

/// Returns all files of positions for the first subtask: sources deal out their splits themselves.
fn positions(state: &StateEntry, index: u32) -> Vec<StateRead> {
    let files = state.files.iter().filter(|_| index == 0);
    let read = |file: &StateFile| StateRead {
        state: state.name.clone(),
        kind: state.kind,
        file: file.clone(),
        part: Part::KeyGroups(file.key_groups),
    };
    files.map(read).collect()
}

/// Returns the parts of a state that one subtask reads, in order of the old subtasks.
fn reads(state: &StateEntry, index: u32, parallelism: u32, max_parallelism: u32) -> Vec<StateRead> {
    let mut files: Vec<&StateFile> = state.files.iter().filter(|file| file.entries > 0).collect();
    files.sort_by_key(|file| (file.subtask, file.schema));
    let read = |file: &StateFile, part| StateRead {
        state: state.name.clone(),
        kind: state.kind,
        file: file.clone(),
        part,
    };
    match state.kind {
        SavedStateKind::OperatorUnion => files
            .into_iter()
            .map(|file| read(file, Part::Items(0..file.entries)))
            .collect(),
        SavedStateKind::OperatorBroadcast => {
            // The copies are equal: that was checked when they were written.
            files
                .first()
                .map(|file| read(file, Part::Items(0..file.entries)))
                .into_iter()
                .collect()
        }
        SavedStateKind::OperatorList => {
            let total = files.iter().map(|file| file.entries).sum();
            let wanted = even_share(total, index, parallelism);
            let mut start = 0;
            let mut parts = Vec::new();
            for file in files {
                let (from, to) = (wanted.start.max(start), wanted.end.min(start + file.entries));
                if from < to {
                    parts.push(read(file, Part::Items(from - start..to - start)));
                }
                start += file.entries;
            }
            parts
        }
        _ => {
            let own = range_of(index, parallelism, max_parallelism);
            let wanted = |file: &StateFile| {
                let part = own.intersect(file.key_groups)?;
                file.groups
                    .iter()
                    .any(|extent| extent.range().intersect(part).is_some())
                    .then_some(part)
            };
            files
                .into_iter()
                .filter_map(|file| Some(read(file, Part::KeyGroups(wanted(file)?))))
                .collect()
        }
    }
}

/// Returns the items of one of `parallelism` subtasks: sizes differ by at most one.
fn even_share(total: u64, index: u32, parallelism: u32) -> Range<u64> {
    let at =
        |i: u32| u64::try_from(u128::from(total) * u128::from(i) / u128::from(parallelism.max(1))).unwrap_or(total);
    at(index)..at(index + 1)
}
