//! Applies the writes of a call: cells, entries and timers.

use regraft_guest_runtime::call::{CellWrites, ENTRY_CLEAR, ENTRY_REMOVE, EntryWrites, TIMER_REGISTER};
use regraft_model::batch::Keys;

use super::super::access::{NONE, Store};
use super::super::backend::{Cells, TimerOps, Writes};
use super::super::blob::{copy_values, head, items, push_removal, push_value};
use super::super::entries::{At, NewValue};
use super::super::rows::{NEVER, REMOVED};
use super::{MemoryBackend, NOWHERE, PREFETCH_AHEAD, Shape, Touched, split};

impl MemoryBackend {
    /// Applies cells if one state travels: a written cell is the whole blob, unless the slots hold something else.
    pub(super) fn apply_single(&mut self, keys: &Keys, cells: &Cells, writes: &CellWrites, schemas: &[u16]) {
        let position = usize::from(self.travelling[0]);
        let (bound, schema) = (self.bound[position], schemas[position]);
        let (state, expires) = (bound.number, bound.expires(self.now));
        let alone = self.known.len() == 1 && !self.has_entries;
        // Otherwise the slot may be that of a removed key.
        let simple = alone && self.removed == 0;
        let mut blob = std::mem::take(&mut self.blob);
        let mut inserts = 0;
        // Update first, since inserting may move entries.
        for (i, &key) in writes.keys.iter().enumerate() {
            if let Some(&ahead) = writes.keys.get(i + PREFETCH_AHEAD) {
                let (table, slot) = split(cells.places[ahead as usize]);
                self.tables[table].prefetch_slot(slot);
            }
            let (table, slot) = split(cells.places[key as usize]);
            if slot == NOWHERE {
                inserts += 1;
                continue;
            }
            let value = writes.values.get(i);
            if simple && expires == NEVER {
                let mark = self.mark(table);
                if self.tables[table].update_value(slot, head(state, schema, value.len()), value, mark) {
                    continue;
                }
            }
            blob.clear();
            if !alone {
                copy_values(self.tables[table].blob(slot), &mut blob, |other| other != state);
            }
            push_value(&mut blob, state, schema, expires, value);
            if simple {
                let mark = self.mark(table);
                self.tables[table].update(slot, &blob, mark);
            } else {
                self.replace(table, slot, 0, &[], &blob);
            }
        }
        if inserts > 0 {
            for (i, &key) in writes.keys.iter().enumerate() {
                let key = key as usize;
                let (table, slot) = split(cells.places[key]);
                if slot == NOWHERE {
                    blob.clear();
                    push_value(&mut blob, state, schema, expires, writes.values.get(i));
                    self.replace(table, slot, keys.hashes[key], keys.column.get(key), &blob);
                }
            }
        }
        for &key in &writes.cleared {
            self.clear_cells(keys, key as usize, &mut blob, |other| other == state);
        }
        self.blob = blob;
    }

    /// Removes the values of the states that `cleared` accepts.
    fn clear_cells(&mut self, keys: &Keys, key: usize, blob: &mut Vec<u8>, cleared: impl Fn(u16) -> bool) {
        let (hash, bytes) = (keys.hashes[key], keys.column.get(key));
        let Ok(table) = self.position(hash) else { return };
        let Some(slot) = self.tables[table].find(hash, bytes) else {
            return;
        };
        let remembers = self.mark(table).remembers(self.tables[table].stamp(slot));
        let mut changed = false;
        blob.clear();
        for item in items(self.tables[table].blob(slot)) {
            if item.schema == REMOVED || !cleared(item.state) {
                blob.extend_from_slice(item.raw);
                continue;
            }
            changed = true;
            if remembers {
                push_removal(blob, item.state);
            }
        }
        if changed {
            self.replace(table, slot, hash, bytes, blob);
        }
    }

    /// Applies cells if several states travel: the blob of each touched key is built anew.
    pub(super) fn apply_several(&mut self, keys: &Keys, cells: &Cells, writes: Writes<'_>) {
        let count = keys.column.len();
        let mut touched = std::mem::take(&mut self.touched);
        touched.clear();
        touched.resize(count * self.travelling.len(), Touched::Not);
        // What each state that travels is written, by position among these.
        let mut written: Vec<Option<&CellWrites>> = vec![None; self.travelling.len()];
        for writes in writes.cells {
            let travels = |position: &u16| u32::from(*position) == writes.state;
            let Some(state) = self.travelling.iter().position(travels) else {
                continue;
            };
            written[state] = Some(writes);
            let touched = &mut touched[state * count..][..count];
            for (i, &key) in writes.keys.iter().enumerate() {
                touched[key as usize] = Touched::Written(i as u32);
            }
            for &key in &writes.cleared {
                touched[key as usize] = Touched::Cleared;
            }
        }
        let bound: Vec<_> = self
            .travelling
            .iter()
            .map(|p| (*p, self.bound[usize::from(*p)]))
            .collect();
        let of = |state: usize, key: usize| touched[state * count + key];
        let is_written = |key| (0..bound.len()).any(|s| matches!(of(s, key), Touched::Written(_)));
        let mut blob = std::mem::take(&mut self.blob);
        // Update first, since inserting and removing may move entries.
        for insert in [false, true] {
            for key in 0..count {
                let (table, slot) = split(cells.places[key]);
                if (slot == NOWHERE) != insert || !is_written(key) {
                    continue;
                }
                blob.clear();
                if slot != NOWHERE {
                    let place = |number: u16| bound.iter().position(|(_, b)| b.number == number);
                    let remembers = self.mark(table).remembers(self.tables[table].stamp(slot));
                    for item in items(self.tables[table].blob(slot)) {
                        match place(item.state).map_or(Touched::Not, |s| of(s, key)) {
                            Touched::Not => blob.extend_from_slice(item.raw),
                            Touched::Cleared if item.schema == REMOVED || remembers => {
                                push_removal(&mut blob, item.state);
                            }
                            Touched::Cleared | Touched::Written(_) => {}
                        }
                    }
                }
                for (s, (position, state)) in bound.iter().enumerate() {
                    if let (Touched::Written(i), Some(written)) = (of(s, key), written[s]) {
                        let (schema, expires) = (writes.schemas[usize::from(*position)], state.expires(self.now));
                        push_value(&mut blob, state.number, schema, expires, written.values.get(i as usize));
                    }
                }
                self.replace(table, slot, keys.hashes[key], keys.column.get(key), &blob);
            }
        }
        for key in 0..count {
            let cleared = |s: usize| of(s, key) == Touched::Cleared;
            if (0..bound.len()).any(cleared) && !is_written(key) {
                let accepts = |number: u16| {
                    let place = bound.iter().position(|(_, b)| b.number == number);
                    place.is_some_and(cleared)
                };
                self.clear_cells(keys, key, &mut blob, accepts);
            }
        }
        self.blob = blob;
        self.touched = touched;
    }

    /// Writes entries. Returns the keys whose slots may have to gain, change or lose their link.
    pub(super) fn apply_entries(
        &mut self,
        keys: &Keys,
        cells: &Cells,
        writes: &EntryWrites,
        schemas: &[u16],
    ) -> Vec<u32> {
        let shared = self.shared.clone();
        let mut store = shared.write();
        let Store { groups, links, .. } = &mut *store;
        let mut touched = vec![];
        for (i, &op) in writes.ops.iter().enumerate() {
            let (position, key) = (writes.states[i] as usize, writes.keys[i]);
            let bound = self.bound[position];
            let table = split(cells.places[key as usize]).0;
            let (_, link) = &mut links[key as usize];
            if *link == NONE {
                if op >= ENTRY_REMOVE {
                    continue;
                }
                *link = groups[table].add();
            }
            let (group, mark) = (&mut groups[table], self.mark(table));
            if group.touch(*link) {
                touched.push(key);
            }
            let at = At {
                entries: *link,
                key: keys.column.get(key as usize),
                state: bound.number,
            };
            let new = || NewValue {
                value: writes.values.get(i),
                schema: schemas[position],
                expires: bound.expires(self.now),
            };
            // If no write has a map key, there is no column of them.
            let entry_key = match bound.shape {
                Shape::Map if !writes.entry_keys.is_empty() => writes.entry_keys.get(i),
                _ => &[],
            };
            // The check of the guest's answer has made sure that each operation fits the kind of its state.
            match (bound.shape, op) {
                (_, ENTRY_CLEAR) => group.clear(at, mark),
                (Shape::Map, ENTRY_REMOVE) => group.remove(at, entry_key, mark),
                (_, ENTRY_REMOVE) => group.clear(at, mark),
                (Shape::List, _) => group.append(at, new(), mark),
                _ => group.put(at, entry_key, new(), mark),
            }
        }
        touched
    }

    /// Updates the links from the slots of written keys to their entries.
    pub(super) fn link_touched(&mut self, keys: &Keys, touched: &[u32]) {
        for &key in touched {
            let key = key as usize;
            let (table, entries) = self.shared.read().links[key];
            self.shared.write().groups[table as usize].untouch(entries);
            self.link(table as usize, keys.hashes[key], keys.column.get(key), entries);
        }
    }

    /// Registers and deletes timers, in order.
    pub(super) fn apply_timers(&mut self, keys: &Keys, ops: TimerOps<'_>) {
        for (i, &op) in ops.ops.iter().enumerate() {
            let key = ops.keys[i] as usize;
            if let Ok(position) = self.position(keys.hashes[key]) {
                let mark = self.mark(position);
                let register = op == TIMER_REGISTER;
                let (id, time) = (ops.ids[i], ops.times[i]);
                self.timers
                    .apply(position, register, id, time, keys.column.get(key), mark);
            }
        }
    }
}
