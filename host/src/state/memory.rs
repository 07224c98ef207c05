//! The backend that keeps everything in memory: one table per key group.
//!
//! A snapshot is a mark, not a copy: `begin_snapshot` flips the generation, and key groups are swept one at a time by the
//! owning thread, between batches. Design note 0003 has the reasons and the measurements.

use std::sync::Arc;

use regraft_guest_runtime::state_access::StateAccess;
use regraft_model::batch::Keys;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::{KeyGroup, KeyGroupRange, hash32, key_group};

use super::arena::Arena;
use super::backend::{BackendError, BoundState, BoundTimer, Cells, DueTimers, StateBackend, TimeDomain, Writes};
use super::rows::{RowsOf, StateRows};
use super::short;
use super::table::{Mark, Table, copy_values, push_value, value_in};

/// How many keys ahead the tables are prefetched.
const PREFETCH_AHEAD: usize = 24;

/// No slot: the key has no entry.
const NOWHERE: u32 = u32::MAX;

/// Keyed state in memory.
#[derive(Debug)]
pub struct MemoryBackend {
    uid: OperatorUid,
    range: KeyGroupRange,
    max_parallelism: u32,
    /// All states ever bound; the position is the state's number in blobs.
    names: Vec<String>,
    /// Numbers of the states that cells stand for.
    bound: Vec<u16>,
    tables: Vec<Table>,
    generation: u32,
    snapshot: Option<Sweep>,
    blob: Vec<u8>,
    touched: Vec<Touched>,
}

/// A snapshot under way.
#[derive(Debug)]
struct Sweep {
    /// The states bound at the mark.
    bound: Vec<u16>,
    /// The next table to sweep.
    next: usize,
}

/// What a call did to the cell of one key, where there are several states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touched {
    Not,
    Written(u32),
    Cleared,
}

impl MemoryBackend {
    /// An empty backend for the key groups of one subtask.
    #[must_use]
    pub fn new(uid: OperatorUid, range: KeyGroupRange, max_parallelism: u32) -> Self {
        let arena = Arena::default();
        Self {
            uid,
            range,
            max_parallelism,
            names: vec![],
            bound: vec![],
            tables: (0..range.count()).map(|_| Table::new(arena.clone())).collect(),
            generation: 1,
            snapshot: None,
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

    #[inline]
    fn mark(&self, table: usize) -> Mark {
        let sweeping = self.snapshot.as_ref().is_some_and(|sweep| table >= sweep.next);
        Mark {
            generation: self.generation,
            sweeping,
        }
    }

    /// Finds every key and tells `each` its table and slot; a place is table × 2³² + slot.
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
        for (i, &hash) in keys.hashes.iter().enumerate() {
            if let (Some(&place), Some(&hash)) = (places.get(i + PREFETCH_AHEAD), keys.hashes.get(i + PREFETCH_AHEAD)) {
                prefetch(place, hash);
            }
            let table = &self.tables[split(places[i]).0];
            let slot = table.find(hash, keys.column.get(i)).unwrap_or(NOWHERE);
            places[i] |= u64::from(slot);
            each(table, slot);
        }
        Ok(())
    }

    /// The cell of a state in a slot.
    #[inline]
    fn push_cell(cells: &mut Cells, table: &Table, slot: u32, state: u16) {
        let found = if slot == NOWHERE {
            None
        } else {
            value_in(table.blob(slot), state)
        };
        let (schema, value) = found.unwrap_or((0, &[]));
        short::push(&mut cells.values, value);
        cells.schemas.push(schema);
    }

    /// One state: a written cell is the whole blob.
    fn apply_single(&mut self, keys: &Keys, cells: &Cells, writes: Writes<'_>) {
        let (state, schema) = (self.bound[0], writes.schemas[0]);
        let mut blob = std::mem::take(&mut self.blob);
        let mut inserts = 0;
        // Updates first, since inserting may move entries.
        for (i, &key) in writes.cells.iter().enumerate() {
            if let Some(&ahead) = writes.cells.get(i + PREFETCH_AHEAD) {
                let (table, slot) = split(cells.places[ahead as usize]);
                self.tables[table].prefetch_slot(slot);
            }
            let (table, slot) = split(cells.places[key as usize]);
            if slot == NOWHERE {
                inserts += 1;
                continue;
            }
            blob.clear();
            if self.names.len() > 1 {
                copy_values(self.tables[table].blob(slot), &mut blob, |other| other != state);
            }
            push_value(&mut blob, state, schema, writes.values.get(i));
            let mark = self.mark(table);
            self.tables[table].update(slot, &blob, mark);
        }
        if inserts > 0 {
            for (i, &key) in writes.cells.iter().enumerate() {
                let (table, slot) = split(cells.places[key as usize]);
                if slot == NOWHERE {
                    blob.clear();
                    push_value(&mut blob, state, schema, writes.values.get(i));
                    self.put(table, slot, keys, key as usize, &blob);
                }
            }
        }
        for &key in writes.cleared {
            self.clear(keys, key as usize, &mut blob, |other| other != state);
        }
        self.blob = blob;
    }

    fn put(&mut self, table: usize, slot: u32, keys: &Keys, key: usize, blob: &[u8]) {
        let mark = self.mark(table);
        if slot == NOWHERE {
            self.tables[table].insert(keys.hashes[key], keys.column.get(key), blob, mark.generation);
        } else {
            self.tables[table].update(slot, blob, mark);
        }
    }

    /// Keeps of a key only the states that `keep` accepts; a key without any is removed.
    fn clear(&mut self, keys: &Keys, key: usize, blob: &mut Vec<u8>, keep: impl Fn(u16) -> bool) {
        let (hash, bytes) = (keys.hashes[key], keys.column.get(key));
        let Ok(table) = self.position(hash) else { return };
        let Some(slot) = self.tables[table].find(hash, bytes) else {
            return;
        };
        let mark = self.mark(table);
        blob.clear();
        copy_values(self.tables[table].blob(slot), blob, keep);
        if blob.is_empty() {
            self.tables[table].remove(hash, bytes, mark);
        } else {
            self.tables[table].update(slot, blob, mark);
        }
    }

    /// Several states: the blob of each touched key is made again.
    fn apply_several(&mut self, keys: &Keys, cells: &Cells, writes: Writes<'_>) {
        let count = keys.column.len();
        let mut touched = std::mem::take(&mut self.touched);
        touched.clear();
        touched.resize(count * self.bound.len(), Touched::Not);
        for (i, &cell) in writes.cells.iter().enumerate() {
            touched[cell as usize] = Touched::Written(i as u32);
        }
        for &cell in writes.cleared {
            touched[cell as usize] = Touched::Cleared;
        }
        let bound = self.bound.clone();
        let of = |state: usize, key: usize| touched[state * count + key];
        let mut blob = std::mem::take(&mut self.blob);
        // Updates first, since inserting and removing may move entries.
        for insert in [false, true] {
            for key in 0..count {
                let (table, slot) = split(cells.places[key]);
                let written = (0..bound.len()).any(|s| matches!(of(s, key), Touched::Written(_)));
                if !written || (slot == NOWHERE) != insert {
                    continue;
                }
                blob.clear();
                if slot != NOWHERE {
                    let untouched = |n: u16| {
                        bound
                            .iter()
                            .position(|b| *b == n)
                            .is_none_or(|s| of(s, key) == Touched::Not)
                    };
                    copy_values(self.tables[table].blob(slot), &mut blob, untouched);
                }
                for (s, &state) in bound.iter().enumerate() {
                    if let Touched::Written(i) = of(s, key) {
                        push_value(&mut blob, state, writes.schemas[s], writes.values.get(i as usize));
                    }
                }
                self.put(table, slot, keys, key, &blob);
            }
        }
        for key in 0..count {
            let cleared = (0..bound.len()).any(|s| of(s, key) == Touched::Cleared);
            let written = (0..bound.len()).any(|s| matches!(of(s, key), Touched::Written(_)));
            if cleared && !written {
                let keep = |n: u16| {
                    bound
                        .iter()
                        .position(|b| *b == n)
                        .is_none_or(|s| of(s, key) != Touched::Cleared)
                };
                self.clear(keys, key, &mut blob, keep);
            }
        }
        self.blob = blob;
        self.touched = touched;
    }
}

const fn split(place: u64) -> (usize, u32) {
    ((place >> 32) as usize, place as u32)
}

impl StateBackend for MemoryBackend {
    fn bind(&mut self, states: &[BoundState], _timers: &[BoundTimer]) {
        self.bound.clear();
        for BoundState { name, .. } in states {
            let number = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
                self.names.push(name.clone());
                self.names.len() - 1
            });
            self.bound.push(number as u16);
        }
    }

    fn resolve(&mut self, keys: &Keys, _now: i64, cells: &mut Cells) -> Result<(), BackendError> {
        let mut places = std::mem::take(&mut cells.places);
        cells.values.clear();
        cells.schemas.clear();
        if let [state] = self.bound[..] {
            // The slot is at hand when it has been found.
            self.find_places(keys, &mut places, |table, slot| {
                Self::push_cell(cells, table, slot, state)
            })?;
        } else {
            self.find_places(keys, &mut places, |_, _| {})?;
            for &state in &self.bound {
                for &place in &places {
                    let (table, slot) = split(place);
                    Self::push_cell(cells, &self.tables[table], slot, state);
                }
            }
        }
        cells.places = places;
        Ok(())
    }

    fn apply(&mut self, keys: &Keys, cells: &Cells, _now: i64, writes: Writes<'_>) {
        match self.bound.len() {
            0 => {}
            1 => self.apply_single(keys, cells, writes),
            _ => self.apply_several(keys, cells, writes),
        }
    }

    fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    fn range(&self) -> KeyGroupRange {
        self.range
    }

    fn keys_of(&self, position: usize) -> Keys {
        let mut keys = Keys::default();
        if let Some(table) = self.tables.get(position) {
            for (hash, key, _) in table.iter() {
                keys.column.push(key);
                keys.hashes.push(hash);
            }
        }
        keys
    }

    fn access(&self) -> Option<Arc<dyn StateAccess>> {
        None
    }

    fn due_timers(&mut self, _domain: TimeDomain, _up_to: i64, _max: usize) -> Option<DueTimers> {
        None
    }

    fn fired(&mut self, _due: &DueTimers) {}

    fn next_timer(&self, _domain: TimeDomain) -> Option<i64> {
        None
    }

    fn load(&mut self, rows: &StateRows) -> Result<(), BackendError> {
        let RowsOf::State(state) = rows.of else { return Ok(()) };
        let number = self.bound[usize::from(state)];
        let mut blob = Vec::new();
        for i in 0..rows.len() {
            let key = rows.keys.get(i);
            let hash = hash32(key);
            let table = self.position(hash)?;
            blob.clear();
            let slot = self.tables[table].find(hash, key);
            if let Some(slot) = slot {
                copy_values(self.tables[table].blob(slot), &mut blob, |n| n != number);
            }
            if rows.schemas[i] != 0 {
                push_value(&mut blob, number, rows.schemas[i], rows.values.get(i));
            }
            let mark = self.mark(table);
            match slot {
                Some(_) if blob.is_empty() => self.tables[table].remove(hash, key, mark),
                Some(slot) => self.tables[table].update(slot, &blob, mark),
                None if blob.is_empty() => {}
                None => self.tables[table].insert(hash, key, &blob, self.generation),
            }
        }
        Ok(())
    }

    fn loaded(&mut self, _round: Option<CheckpointId>) {}

    fn begin_snapshot(&mut self, _round: CheckpointId, _base: Option<CheckpointId>) -> Option<CheckpointId> {
        debug_assert!(self.snapshot.is_none(), "a snapshot is under way");
        self.generation += 1;
        self.snapshot = Some(Sweep {
            bound: self.bound.clone(),
            next: 0,
        });
        None
    }

    fn next_snapshot_rows(&mut self) -> Option<Vec<StateRows>> {
        loop {
            let sweep = self.snapshot.as_mut()?;
            let position = sweep.next;
            if position >= self.tables.len() {
                self.snapshot = None;
                return None;
            }
            sweep.next += 1;
            let group = KeyGroup(self.range.first + position as u16);
            let empty = |state| StateRows::new(group, RowsOf::State(state as u16));
            let mut all: Vec<StateRows> = (0..sweep.bound.len()).map(empty).collect();
            let bound = &sweep.bound;
            self.tables[position].sweep(self.generation, |key, blob| {
                for (state, rows) in bound.iter().zip(&mut all) {
                    if let Some((schema, value)) = value_in(blob, *state) {
                        rows.keys.push(key);
                        rows.values.push(value);
                        rows.schemas.push(schema);
                    }
                }
            });
            all.retain(|rows| !rows.is_empty());
            if !all.is_empty() {
                return Some(all);
            }
        }
    }

    fn completed(&mut self, _round: CheckpointId) {}

    fn aborted(&mut self, _round: CheckpointId) {}

    fn can_base(&self, _round: CheckpointId) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
