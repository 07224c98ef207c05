//! Loads rows from files, and moves the values of a state whose way of travelling has changed.

use regraft_model::key_group::hash32;

use super::super::backend::BackendError;
use super::super::blob::{copy_values, items, link_in, push_value};
use super::super::entries::{At, NewValue};
use super::super::mark::Mark;
use super::super::rows::{NEVER, REMOVED, RowsOf, StateRows, split_timer_entry};
use super::{Bound, MemoryBackend, NOWHERE, Shape};

impl MemoryBackend {
    pub(super) fn load_rows(&mut self, rows: &StateRows) -> Result<(), BackendError> {
        let uid = self.uid.clone();
        let wrong = |reason: String| BackendError::Rows {
            uid: uid.clone(),
            group: rows.group.0,
            reason,
        };
        let len = rows.len();
        let bound = match rows.of {
            RowsOf::Timers => None,
            RowsOf::State(state) => {
                let bound = self.bound.get(usize::from(state)).copied();
                let count = self.bound.len();
                Some(bound.ok_or_else(|| wrong(format!("they are of state {state}, there are {count}")))?)
            }
        };
        let has_entry_keys = bound.is_none_or(|bound| bound.shape != Shape::Value);
        let columns = [
            ("keys", rows.keys.len(), len),
            ("values", rows.values.len(), len),
            (
                "entry keys",
                rows.entry_keys.len(),
                if has_entry_keys { len } else { 0 },
            ),
            ("expiry times", rows.expires.len(), rows.expires.len().min(1) * len),
        ];
        if let Some((column, found, expected)) = columns.iter().find(|(_, found, expected)| found != expected) {
            return Err(wrong(format!("expected {expected} {column}, found {found}")));
        }
        for i in 0..len {
            let key = rows.keys.get(i);
            let hash = hash32(key);
            let position = self.position(hash)?;
            if self.group_at(position) != rows.group {
                let found = self.group_at(position).0;
                return Err(wrong(format!("row {i} has a key of key group {found}")));
            }
            let new = NewValue {
                value: rows.values.get(i),
                schema: rows.schemas[i],
                expires: rows.expires_at(i),
            };
            self.cleaner.expiring |= new.expires != NEVER;
            match bound {
                None => self.load_timer(position, key, rows.entry_keys.get(i), new.schema)?,
                Some(bound) if self.known[usize::from(bound.number)].in_slots => {
                    self.load_value(position, hash, key, bound.number, new);
                }
                Some(bound) => {
                    let entry_key = rows.entry_key(i).unwrap_or_default();
                    if bound.shape == Shape::List && entry_key.len() != 8 {
                        return Err(wrong(format!("row {i} has a list index of {} bytes", entry_key.len())));
                    }
                    let mark = self.mark(position);
                    self.load_entry(position, hash, key, bound, entry_key, new, mark);
                }
            }
        }
        Ok(())
    }

    fn load_timer(&mut self, position: usize, key: &[u8], entry: &[u8], schema: u16) -> Result<(), BackendError> {
        let Some((time, name)) = split_timer_entry(entry) else {
            return Err(BackendError::Rows {
                uid: self.uid.clone(),
                group: self.group_at(position).0,
                reason: format!("{} bytes are no time and name of a timer", entry.len()),
            });
        };
        let mark = self.mark(position);
        self.timers.load(position, name, time, key, schema, mark);
        Ok(())
    }

    fn load_value(&mut self, position: usize, hash: u32, key: &[u8], number: u16, new: NewValue<'_>) {
        let slot = self.tables[position].find(hash, key).unwrap_or(NOWHERE);
        let mut blob = std::mem::take(&mut self.blob);
        blob.clear();
        if slot != NOWHERE {
            copy_values(self.tables[position].blob(slot), &mut blob, |other| other != number);
        }
        if new.schema != REMOVED {
            push_value(&mut blob, number, new.schema, new.expires, new.value);
        }
        self.replace(position, slot, hash, key, &blob);
        self.blob = blob;
    }

    #[allow(clippy::too_many_arguments, reason = "the columns of a row")]
    fn load_entry(
        &mut self,
        position: usize,
        hash: u32,
        key: &[u8],
        bound: Bound,
        entry_key: &[u8],
        new: NewValue<'_>,
        mark: Mark,
    ) {
        self.has_entries = true;
        let slot = self.tables[position].find(hash, key);
        let link = slot.and_then(|slot| link_in(self.tables[position].blob(slot)));
        let shared = self.shared.clone();
        let mut store = shared.write();
        let group = &mut store.groups[position];
        let at = At {
            entries: link.unwrap_or_else(|| group.add()),
            key,
            state: bound.number,
        };
        let before = group.counts_of(at.entries);
        if new.schema == REMOVED {
            group.remove(at, entry_key, mark);
        } else {
            group.put(at, entry_key, new, mark);
        }
        if bound.shape == Shape::List {
            group.settle_list(at);
        }
        let after = group.counts_of(at.entries);
        drop(store);
        if link.is_none() || (before.live > 0) != (after.live > 0) || after == Default::default() {
            self.link(position, hash, key, at.entries);
        }
    }

    /// Moves all values of a state between slots and entries, after it started or stopped travelling.
    ///
    /// Takes time in proportion to the number of keys, and is needed only for an upgrade that changes this.
    pub(super) fn move_values(&mut self, number: u16, to_slots: bool) {
        self.known[usize::from(number)].in_slots = to_slots;
        self.has_entries = true;
        let bound = Bound {
            number,
            shape: Shape::Value,
            ttl_ms: None,
        };
        for position in 0..self.tables.len() {
            let all: Vec<(u32, Box<[u8]>)> = self.tables[position]
                .iter()
                .map(|(hash, key, _)| (hash, key.into()))
                .collect();
            for (hash, key) in all {
                if to_slots {
                    self.move_to_slot(position, hash, &key, number);
                } else {
                    self.move_to_entries(position, hash, &key, bound);
                }
            }
        }
    }

    fn move_to_slot(&mut self, position: usize, hash: u32, key: &[u8], number: u16) {
        let slot = self.tables[position].find(hash, key).unwrap_or(NOWHERE);
        if slot == NOWHERE {
            return;
        }
        let mut blob = self.tables[position].blob(slot).to_vec();
        let Some(entries) = link_in(&blob) else { return };
        let shared = self.shared.clone();
        let mut store = shared.write();
        let at = At {
            entries,
            key,
            state: number,
        };
        let Some(entry) = store.groups[position].take(at, &[], self.mark(position)) else {
            return;
        };
        drop(store);
        push_value(&mut blob, number, entry.schema, entry.expires, &entry.value);
        self.replace(position, slot, hash, key, &blob);
        self.link(position, hash, key, entries);
    }

    fn move_to_entries(&mut self, position: usize, hash: u32, key: &[u8], bound: Bound) {
        let slot = self.tables[position].find(hash, key).unwrap_or(NOWHERE);
        if slot == NOWHERE {
            return;
        }
        let blob = self.tables[position].blob(slot).to_vec();
        let Some(item) = items(&blob).find(|item| item.state == bound.number) else {
            return;
        };
        let new = NewValue {
            value: item.value,
            schema: item.schema,
            expires: item.expires,
        };
        // The value is not new: its stamp must say that an earlier mark may have seen it.
        let mark = self.mark(position);
        let seen = Mark {
            now: mark.now + 1,
            ..mark
        };
        let schema = new.schema.max(1);
        self.load_entry(position, hash, key, bound, &[], NewValue { schema, ..new }, seen);
        if new.schema == REMOVED {
            self.load_entry(position, hash, key, bound, &[], new, mark);
        }
        let slot = self.tables[position].find(hash, key).unwrap_or(NOWHERE);
        let mut rest = vec![];
        copy_values(self.tables[position].blob(slot), &mut rest, |state| {
            state != bound.number
        });
        self.replace(position, slot, hash, key, &rest);
    }
}
