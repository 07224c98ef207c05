//! The backend that keeps all state in memory: one table per key group, with the entries of maps and lists and the
//! timers beside it.
//!
//! A snapshot is a mark, not a copy: `begin_snapshot` begins a new generation, and the owning thread sweeps one key
//! group at a time, between batches.
//! Design notes 0003 and 0007 have the reasons.

mod slots;
mod apply;
mod load;
mod growth;
mod sweep;
mod clean;

use std::sync::Arc;

use regraft_guest_runtime::call::CellColumn;
use regraft_guest_runtime::state_access::StateAccess;
use regraft_model::batch::Keys;
use regraft_model::describe::StateKind;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::{KeyGroup, KeyGroupRange, key_group};

use super::access::{MemoryAccess, Shared};
use super::arena::Arena;
use super::backend::{BackendError, BoundState, BoundTimer, Cells, DueTimers, StateBackend, TimeDomain, Writes};
use super::blob::{LINK, STATES_MAX, is_live, items, link_in, value_in};
use super::mark::{Mark, Marks, Stamp};
use super::rows::{NEVER, REMOVED, StateRows};
use super::short;
use super::table::Table;
use super::timers::Timers;

/// Number of keys by which table lookups are prefetched ahead.
const PREFETCH_AHEAD: usize = 24;

/// Slot of a key that is not in the table.
const NOWHERE: u32 = u32::MAX;

/// Keyed state in memory.
#[derive(Debug)]
pub struct MemoryBackend {
    uid: OperatorUid,
    range: KeyGroupRange,
    max_parallelism: u32,
    /// All states that were ever bound; the position is the state's number in blobs and entries.
    known: Vec<Known>,
    /// The states that the operator declares.
    bound: Vec<Bound>,
    /// Positions of the bound states whose values are cells.
    travelling: Vec<u16>,
    tables: Vec<Table>,
    /// Entries of all states that do not travel.
    shared: Shared,
    /// True if there are, or may be, entries.
    has_entries: bool,
    timers: Timers,
    marks: Marks,
    snapshot: Option<Sweep>,
    /// Number of keys that have a value or an entry.
    keys: usize,
    /// Number of removals in blobs.
    removed: usize,
    /// Time of the last call.
    now: i64,
    cleaner: Cleaner,
    blob: Vec<u8>,
    touched: Vec<Touched>,
}

/// A state that is or was bound.
#[derive(Debug)]
struct Known {
    name: String,
    shape: Shape,
    /// True if its values are in the slots, false if they are among the entries.
    in_slots: bool,
}

/// The structure of a state's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Value,
    List,
    Map,
}

impl From<StateKind> for Shape {
    fn from(kind: StateKind) -> Self {
        match kind {
            StateKind::Value | StateKind::Reducing | StateKind::Aggregating => Self::Value,
            StateKind::List => Self::List,
            StateKind::Map => Self::Map,
        }
    }
}

/// A declared state.
#[derive(Debug, Clone, Copy)]
struct Bound {
    number: u16,
    shape: Shape,
    ttl_ms: Option<u64>,
}

impl Bound {
    /// Returns the time at which a value written now expires.
    fn expires(&self, now: i64) -> i64 {
        self.ttl_ms
            .map_or(NEVER, |ttl| now.saturating_add(i64::try_from(ttl).unwrap_or(NEVER)))
    }
}

/// A snapshot in progress.
#[derive(Debug)]
struct Sweep {
    round: CheckpointId,
    /// States bound at the mark.
    bound: Vec<Bound>,
    /// Position of the next table to sweep.
    next: usize,
    /// The oldest stamp that is handed out.
    from: Stamp,
    /// True if the snapshot is an increment, which also has removals.
    increment: bool,
    /// Size of the last key group's rows, by bound state.
    last: Vec<sweep::Size>,
}

/// The position of the background cleaner, which goes round and drops expired values.
#[derive(Debug, Default)]
struct Cleaner {
    table: usize,
    slot: u32,
    /// Number of slots and entries it may still examine; negative if it had to examine more.
    credit: i64,
    /// True if values can expire.
    expiring: bool,
    /// Calls since removals were last counted.
    calls: u32,
    /// True if there are removals that are no longer needed.
    forgotten: bool,
}

/// The effect of a call on the cell of one key, if there are several states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touched {
    Not,
    Written(u32),
    Cleared,
}

const fn split(place: u64) -> (usize, u32) {
    ((place >> 32) as usize, place as u32)
}

impl MemoryBackend {
    /// Returns an empty backend for the key groups of a subtask.
    #[must_use]
    pub fn new(uid: OperatorUid, range: KeyGroupRange, max_parallelism: u32) -> Self {
        let arena = Arena::default();
        let shared = Shared::default();
        shared.write().groups.resize_with(range.count(), Default::default);
        Self {
            uid,
            range,
            max_parallelism,
            known: vec![],
            bound: vec![],
            travelling: vec![],
            tables: (0..range.count()).map(|_| Table::new(arena.clone())).collect(),
            shared,
            has_entries: false,
            timers: Timers::new(range.count()),
            marks: Marks::default(),
            snapshot: None,
            keys: 0,
            removed: 0,
            now: i64::MIN,
            cleaner: Cleaner::default(),
            blob: vec![],
            touched: vec![],
        }
    }

    #[inline]
    fn position(&self, hash: u32) -> Result<usize, BackendError> {
        let group = key_group(hash, self.max_parallelism);
        if self.range.contains(group) {
            Ok(usize::from(group.0 - self.range.first))
        } else {
            Err(BackendError::Misplaced {
                uid: self.uid.clone(),
                group: group.0,
                range: self.range,
            })
        }
    }

    /// Returns the number of changes so far: insertions, removals, and first writes of keys after a mark.
    fn changes(&self) -> u64 {
        self.tables.iter().map(Table::changes).sum()
    }

    const fn group_at(&self, position: usize) -> KeyGroup {
        KeyGroup(self.range.first + position as u16)
    }

    #[inline]
    fn mark(&self, table: usize) -> Mark {
        let from = match &self.snapshot {
            Some(sweep) if table >= sweep.next => sweep.from,
            _ => Stamp::MAX,
        };
        Mark {
            now: self.marks.now(),
            from,
            keep: self.marks.keep(),
        }
    }

    /// Looks up every key and calls `each` with its table and slot. A place is `table << 32 | slot`.
    #[inline]
    fn find_places(
        &self,
        keys: &Keys,
        places: &mut Vec<u64>,
        mut each: impl FnMut(&Table, u32),
    ) -> Result<(), BackendError> {
        places.clear();
        places.reserve(keys.column.len());
        for &hash in &keys.hashes {
            places.push((self.position(hash)? as u64) << 32);
        }
        let prefetch = |place: u64, hash: u32| self.tables[split(place).0].prefetch(hash);
        for (&place, &hash) in places.iter().zip(&keys.hashes).take(PREFETCH_AHEAD) {
            prefetch(place, hash);
        }
        let data = &keys.column.data;
        for (i, &hash) in keys.hashes.iter().enumerate() {
            if let (Some(&place), Some(&hash)) = (places.get(i + PREFETCH_AHEAD), keys.hashes.get(i + PREFETCH_AHEAD)) {
                prefetch(place, hash);
            }
            let table = &self.tables[split(places[i]).0];
            let range = keys.column.range(i);
            let found = table.find_by_head(hash, short::head(data, &range), &data[range]);
            let slot = found.unwrap_or(NOWHERE);
            places[i] |= u64::from(slot);
            each(table, slot);
        }
        Ok(())
    }

    /// Appends the cell of a state in a slot.
    #[inline]
    fn push_cell(cells: &mut CellColumn, table: &Table, slot: u32, state: u16, now: i64) {
        let found = if slot == NOWHERE {
            None
        } else {
            value_in(table.blob(slot), state, now)
        };
        let found = found.filter(|(schema, _)| *schema != REMOVED);
        let (present, value) = found.map_or((0, &[][..]), |(_, value)| (1, value));
        short::push(&mut cells.values, value);
        cells.present.push(present);
    }

    /// Returns the number of a state. A known name with another shape is another state.
    fn number(&mut self, state: &BoundState) -> u16 {
        let shape = Shape::from(state.kind);
        let same = |known: &Known| known.name == state.name && known.shape == shape;
        let at = self.known.iter().position(same).unwrap_or_else(|| {
            self.known.push(Known {
                name: state.name.clone(),
                shape,
                in_slots: state.travels,
            });
            self.known.len() - 1
        });
        debug_assert!(at < STATES_MAX, "a state's number has 15 bits");
        at as u16
    }
}

impl StateBackend for MemoryBackend {
    fn bind(&mut self, states: &[BoundState], timers: &[BoundTimer]) {
        self.bound.clear();
        self.travelling.clear();
        for (position, state) in states.iter().enumerate() {
            let number = self.number(state);
            self.bound.push(Bound {
                number,
                shape: state.kind.into(),
                ttl_ms: state.ttl_ms,
            });
            self.cleaner.expiring |= state.ttl_ms.is_some();
            if state.travels {
                self.travelling.push(position as u16);
            } else {
                self.has_entries = true;
            }
            if self.known[usize::from(number)].in_slots != state.travels {
                self.move_values(number, state.travels);
            }
        }
        self.timers.bind(timers);
    }

    fn resolve(&mut self, keys: &Keys, now: i64, cells: &mut Cells) -> Result<(), BackendError> {
        self.now = now;
        let mut places = std::mem::take(&mut cells.places);
        cells.columns.resize_with(self.travelling.len(), CellColumn::default);
        for (column, &position) in cells.columns.iter_mut().zip(&self.travelling) {
            column.state = position.into();
            column.values.clear();
            column.present.clear();
        }
        if let ([position], [column]) = (&self.travelling[..], &mut cells.columns[..]) {
            let state = self.bound[usize::from(*position)].number;
            // The slot is in the cache right after it was found.
            self.find_places(keys, &mut places, |table, slot| {
                Self::push_cell(column, table, slot, state, now);
            })?;
        } else {
            self.find_places(keys, &mut places, |_, _| {})?;
            for (&position, column) in self.travelling.iter().zip(&mut cells.columns) {
                let state = self.bound[usize::from(position)].number;
                for &place in &places {
                    let (table, slot) = split(place);
                    Self::push_cell(column, &self.tables[table], slot, state, now);
                }
            }
        }
        if self.has_entries {
            self.link_call(&places);
        }
        cells.places = places;
        Ok(())
    }

    fn apply(&mut self, keys: &Keys, cells: &Cells, now: i64, writes: Writes<'_>) {
        self.now = now;
        let touched = writes
            .entries
            .map(|entries| self.apply_entries(keys, cells, entries, writes.schemas));
        match (self.travelling.len(), writes.cells) {
            (0, _) | (_, []) => {}
            (1, [written, ..]) => self.apply_single(keys, cells, written, writes.schemas),
            _ => self.apply_several(keys, cells, writes),
        }
        self.link_touched(keys, &touched.unwrap_or_default());
        self.apply_timers(keys, writes.timers);
        self.clean_some(keys.column.len());
    }

    fn access(&self) -> Option<Arc<dyn StateAccess>> {
        let numbers = self.bound.iter().map(|bound| bound.number).collect();
        let access = MemoryAccess::new(self.shared.clone(), numbers);
        (self.travelling.len() < self.bound.len()).then(|| Arc::new(access) as Arc<dyn StateAccess>)
    }

    fn due_timers(&mut self, domain: TimeDomain, up_to: i64, max: usize) -> Option<DueTimers> {
        self.timers.due(domain, up_to, max)
    }

    fn due_count(&self, domain: TimeDomain, up_to: i64) -> usize {
        self.timers.due_count(domain, up_to)
    }

    fn fired(&mut self, due: &DueTimers) {
        let mut timers = std::mem::take(&mut self.timers);
        for (i, &key) in due.key_index.iter().enumerate() {
            let (hash, bytes) = (due.keys.hashes[key as usize], due.keys.column.get(key as usize));
            if let Ok(position) = self.position(hash) {
                let mark = self.mark(position);
                timers.apply(position, false, due.timer_ids[i], due.times[i], bytes, mark);
            }
        }
        self.timers = timers;
    }

    fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.timers.next(domain)
    }

    fn last_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.timers.last(domain)
    }

    fn bytes(&self) -> u64 {
        let tables: usize = self.tables.iter().map(Table::bytes).sum();
        (tables + self.shared.read().bytes() + self.timers.bytes()) as u64
    }

    fn growth(&self, keys: &Keys, cells: &Cells, writes: Writes<'_>) -> u64 {
        self.growth_of(keys, cells, &writes)
    }

    fn len(&self) -> usize {
        self.keys
    }

    fn range(&self) -> KeyGroupRange {
        self.range
    }

    fn keys_of(&self, position: usize) -> Keys {
        let mut keys = Keys::default();
        let store = self.shared.read();
        for (hash, key, blob) in self.tables.get(position).iter().flat_map(|table| table.iter()) {
            let value = items(blob).any(|item| item.state != LINK && item.is_live(self.now));
            let entry = || link_in(blob).is_some_and(|at| store.groups[position].is_live(at, self.now));
            if is_live(blob) && (value || entry()) {
                keys.column.push(key);
                keys.hashes.push(hash);
            }
        }
        keys
    }

    fn load(&mut self, rows: &StateRows) -> Result<(), BackendError> {
        self.load_rows(rows)
    }

    fn loaded(&mut self, round: Option<CheckpointId>) {
        self.marks.loaded(round, self.changes());
    }

    fn begin_snapshot(&mut self, round: CheckpointId, base: Option<CheckpointId>) -> Option<CheckpointId> {
        self.mark_state(round, base)
    }

    fn next_snapshot_rows(&mut self) -> Option<Vec<StateRows>> {
        self.sweep_next()
    }

    fn completed(&mut self, round: CheckpointId) {
        self.marks.completed(round);
    }

    fn aborted(&mut self, round: CheckpointId) {
        self.marks.aborted(round);
        if self.snapshot.as_ref().is_some_and(|sweep| sweep.round == round) {
            self.drop_sweep();
        }
    }

    fn can_base(&self, round: CheckpointId) -> bool {
        self.marks.can_base(round)
    }
}

#[cfg(test)]
mod tests;
