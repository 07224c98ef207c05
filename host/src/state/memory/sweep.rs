//! The mark of a snapshot, and the sweep that hands out its rows one key group at a time.

use regraft_model::id::CheckpointId;

use super::super::blob::{LINK, items, link_in};
use super::super::mark::Mark;
use super::super::ordered::Entry;
use super::super::rows::{NEVER, REMOVED, RowsOf, StateRows};
use super::super::short;
use super::{MemoryBackend, Shape, Sweep};

/// Number of changes up to which a snapshot may be an increment, no matter how few keys there are.
///
/// With more keys, the limit is half of their number: beyond it, a full snapshot costs less than an increment that has
/// to be merged.
const CHANGES_MIN: u64 = 4096;

/// A row on its way out.
struct Row<'a> {
    state: u16,
    key: &'a [u8],
    entry_key: &'a [u8],
    value: &'a [u8],
    schema: u16,
    expires: i64,
}

impl<'a> Row<'a> {
    fn of_entry(state: u16, key: &'a [u8], entry: &'a Entry) -> Self {
        Self {
            state,
            key,
            entry_key: &entry.key,
            value: &entry.value,
            schema: entry.schema,
            expires: entry.expires,
        }
    }
}

/// Size of a key group's rows, by which that of the next one is estimated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    rows: usize,
    keys: usize,
    values: usize,
}

impl Size {
    const fn of(rows: &StateRows) -> Self {
        Self {
            rows: rows.schemas.len(),
            keys: rows.keys.data.len(),
            values: rows.values.data.len(),
        }
    }

    /// Reserves this much memory and some more.
    fn reserve(self, rows: &mut StateRows) {
        let more = |size: usize| size + size / 16;
        rows.schemas.reserve(more(self.rows));
        rows.keys.ends.reserve(more(self.rows));
        rows.keys.data.reserve(more(self.keys));
        rows.values.ends.reserve(more(self.rows));
        rows.values.data.reserve(more(self.values));
    }
}

/// The rows of one key group, by state.
struct Output<'a> {
    sweep: &'a Sweep,
    now: i64,
    rows: Vec<StateRows>,
}

impl Output<'_> {
    fn push(&mut self, row: &Row<'_>) {
        let Some(position) = self.sweep.bound.iter().position(|bound| bound.number == row.state) else {
            return;
        };
        // A value that has expired since the base must be recorded as removed: the base's files still have it with its
        // old time.
        let gone = row.schema == REMOVED || row.expires <= self.now;
        if gone && !self.sweep.increment {
            return;
        }
        let (value, schema, expires) = if gone {
            (&[][..], REMOVED, NEVER)
        } else {
            (row.value, row.schema, row.expires)
        };
        let rows = &mut self.rows[position];
        if expires != NEVER && rows.expires.is_empty() {
            rows.expires.resize(rows.len(), NEVER);
        }
        short::push(&mut rows.keys, row.key);
        short::push(&mut rows.values, value);
        rows.schemas.push(schema);
        if self.sweep.bound[position].shape != Shape::Value {
            rows.entry_keys.push(row.entry_key);
        }
        if expires != NEVER || !rows.expires.is_empty() {
            rows.expires.push(expires);
        }
    }
}

impl MemoryBackend {
    pub(super) fn mark_state(&mut self, round: CheckpointId, base: Option<CheckpointId>) -> Option<CheckpointId> {
        debug_assert!(self.snapshot.is_none(), "a snapshot is under way");
        self.drop_sweep();
        let most = CHANGES_MIN.max(self.keys as u64 / 2);
        let (base, from) = self.marks.begin(round, base, self.changes(), most);
        self.snapshot = Some(Sweep {
            round,
            bound: self.bound.clone(),
            next: 0,
            from,
            increment: base.is_some(),
            last: vec![],
        });
        base
    }

    /// Ends the sweep in progress and drops its rows.
    pub(super) fn drop_sweep(&mut self) {
        let Some(sweep) = self.snapshot.take() else { return };
        let mut store = self.shared.write();
        for position in sweep.next..self.tables.len() {
            self.tables[position].drop_saved();
            self.timers.drop_saved(position);
            store.groups[position].take_saved();
        }
    }

    pub(super) fn sweep_next(&mut self) -> Option<Vec<StateRows>> {
        loop {
            let position = self.snapshot.as_ref()?.next;
            if position >= self.tables.len() {
                self.snapshot = None;
                return None;
            }
            let mark = self.mark(position);
            let mut rows = self.sweep_group(position, mark);
            if let Some(sweep) = &mut self.snapshot {
                sweep.next += 1;
            }
            self.clean_table(position);
            rows.retain(|rows| !rows.is_empty());
            if !rows.is_empty() {
                return Some(rows);
            }
        }
    }

    /// Returns all rows of a key group as of the mark.
    fn sweep_group(&mut self, position: usize, mark: Mark) -> Vec<StateRows> {
        let group = self.group_at(position);
        let Some(sweep) = &self.snapshot else { return vec![] };
        let states = 0..sweep.bound.len();
        let mut out = Output {
            sweep,
            now: self.now,
            rows: states
                .map(|at| {
                    let mut rows = StateRows::new(group, RowsOf::State(at as u16));
                    if let Some(last) = sweep.last.get(at) {
                        last.reserve(&mut rows);
                    }
                    rows
                })
                .collect(),
        };
        let table = &mut self.tables[position];
        table.sweep(mark, |key, blob| {
            for item in items(blob).filter(|item| item.state != LINK) {
                out.push(&Row {
                    state: item.state,
                    key,
                    entry_key: &[],
                    value: item.value,
                    schema: item.schema,
                    expires: item.expires,
                });
            }
        });
        if self.has_entries {
            let mut store = self.shared.write();
            let entries = &mut store.groups[position];
            for (_, key, blob) in table.iter() {
                if let Some(at) = link_in(blob) {
                    entries.sweep(at, mark, |state, entry| out.push(&Row::of_entry(state, key, entry)));
                }
            }
            for saved in entries.take_saved() {
                out.push(&Row::of_entry(saved.state, &saved.key, &saved.entry));
            }
        }
        let mut rows = out.rows;
        let (sizes, increment) = (rows.iter().map(Size::of).collect(), sweep.increment);
        if let Some(sweep) = &mut self.snapshot {
            sweep.last = sizes;
        }
        rows.push(self.timers.sweep(position, group, mark, increment));
        rows
    }
}
