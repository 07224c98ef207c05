//! Operators that hold records back: windows of event time in a map, and delayed records in a list.
//!
//! Each checks by itself what must never happen: a record that comes too late, a timer that fires too early or for
//! nothing.

use std::collections::{BTreeMap, BTreeSet};

use regraft_guest_runtime::call::{
    BatchView, ENTRY_APPEND, ENTRY_CLEAR, ENTRY_PUT, ENTRY_REMOVE, EntryWrites, Header, KeyedView, Outcome, Output,
    TIMER_DELETE, TIMER_REGISTER, TimerView,
};
use regraft_guest_runtime::state_access::StateAccess;
use regraft_model::batch::BytesColumn;
use regraft_model::schema::Type;
use regraft_model::value::{Value, decode, decode_key, encode, encode_key};

use super::{Logic, item, number};

/// Name of the state of open windows: the number of records by the window's end.
pub const MAP: &str = "open";
/// Name of the state of delayed records.
pub const LIST: &str = "later";
/// Name of the timer that both wait for.
pub const TIMER: &str = "due";

/// Length of a window, in milliseconds of event time.
const WINDOW_MS: i64 = 16;

/// Returns the end of the window that an event time belongs to.
pub const fn window_of(time: i64) -> i64 {
    time - time.rem_euclid(WINDOW_MS) + WINDOW_MS - 1
}

/// Renders the line that a window emits at its end.
pub fn window_line(key: &[u8], end: i64, count: u64) -> Vec<u8> {
    [key, format!("@{end} {count}").as_bytes()].concat()
}

fn sum(value: &[u8]) -> u32 {
    value.iter().map(|byte| u32::from(*byte)).sum()
}

/// Returns the delay of a record, in milliseconds.
fn delay_of(value: &[u8]) -> i64 {
    [1, 3, 20, 20, 90, 400, 5_000, 300_000][sum(value) as usize % 8]
}

/// Returns true for a record that does not wait, and releases all waiting records of its key.
fn is_hasty(value: &[u8]) -> bool {
    sum(value) % 17 == 3
}

/// A waiting record: the time when it is due, and its value.
pub type Waiting = (i64, Vec<u8>);

/// Decodes a waiting record from its list item.
pub fn waiting(bytes: &[u8]) -> Result<Waiting, String> {
    match decode(&Type::Bytes, bytes) {
        Ok(Value::Bytes(bytes)) => {
            let (due, value) = bytes.split_first_chunk().ok_or("an item that is too short")?;
            Ok((i64::from_be_bytes(*due), value.to_vec()))
        }
        other => Err(format!("{other:?} is no item")),
    }
}

fn item_of(due: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    let inner = [&due.to_be_bytes()[..], value].concat();
    encode(&Type::Bytes, &Value::Bytes(inner), &mut bytes).unwrap_or_else(|error| panic!("{error}"));
    bytes
}

/// Encodes the map key of a window.
fn end_key(end: i64) -> Vec<u8> {
    let mut bytes = vec![];
    encode_key(&Type::U64, &Value::Unsigned(end as u64), &mut bytes).unwrap_or_else(|error| panic!("{error}"));
    bytes
}

/// Decodes the end of a window from its map key.
pub fn end_of(key: &[u8]) -> Result<i64, String> {
    match decode_key(&Type::U64, key) {
        Ok(Value::Unsigned(end)) => Ok(end as i64),
        other => Err(format!("{other:?} is no end of a window")),
    }
}

/// A call of an operator that holds records back, and its effects.
pub struct Call<'a> {
    access: Option<&'a dyn StateAccess>,
    keyed: &'a KeyedView<'a>,
    out: Output,
    writes: EntryWrites,
    outcome: Outcome,
}

impl<'a> Call<'a> {
    pub fn new(access: Option<&'a dyn StateAccess>, keyed: &'a KeyedView<'a>) -> Self {
        Self {
            access,
            keyed,
            out: Output::default(),
            writes: EntryWrites::default(),
            outcome: Outcome::default(),
        }
    }

    fn done(self) -> Outcome {
        Outcome {
            outputs: vec![self.out],
            entries: (!self.writes.ops.is_empty()).then_some(self.writes),
            ..self.outcome
        }
    }

    fn key(&self, at: u32) -> &'a [u8] {
        item(self.keyed.key_data, self.keyed.key_ends, at as usize)
    }

    fn emit(&mut self, row: u32, value: &[u8]) {
        self.out.parents.push(row);
        self.out.values.push(value);
    }

    /// Adds a write to the operator's first state.
    fn write(&mut self, op: u8, key: u32, entry_key: &[u8], value: &[u8]) {
        self.writes.ops.push(op);
        self.writes.states.push(0);
        self.writes.keys.push(key);
        self.writes.entry_keys.push(entry_key);
        self.writes.values.push(value);
    }

    fn timer(&mut self, op: u8, key: u32, time: i64) {
        self.outcome.timer_ops.push(op);
        self.outcome.timer_keys.push(key);
        self.outcome.timer_ids.push(0);
        self.outcome.timer_times.push(time);
    }

    fn access(&self) -> &'a dyn StateAccess {
        self.access.unwrap_or_else(|| panic!("no way to read state"))
    }

    /// Reads the list of a key, a few items at a time.
    fn list(&self, key: u32) -> Vec<Waiting> {
        let mut list = vec![];
        loop {
            let part = self.access().list_scan(0, key, list.len() as u32, 64, usize::MAX);
            let part = part.unwrap_or_else(|error| panic!("{error}"));
            list.extend(
                part.iter()
                    .map(|item| waiting(item).unwrap_or_else(|error| panic!("{error}"))),
            );
            if part.data.len() < 64 {
                return list;
            }
        }
    }

    /// Returns the number of records in each of these windows.
    fn open(&self, windows: &[(u32, i64)]) -> Vec<Option<u64>> {
        let keys: Vec<u32> = windows.iter().map(|(key, _)| *key).collect();
        let mut ends = BytesColumn::default();
        windows.iter().for_each(|(_, end)| ends.push(&end_key(*end)));
        let found = self.access().map_get_many(0, &keys, &ends, usize::MAX);
        let found = found.unwrap_or_else(|error| panic!("{error}"));
        let count = |(bytes, present): (&[u8], &u8)| match (present, decode(&Type::U64, bytes)) {
            (0, _) => None,
            (_, Ok(Value::Unsigned(count))) => Some(count),
            (_, other) => panic!("a window that was never written: {other:?}"),
        };
        found.values.iter().zip(&found.present).map(count).collect()
    }

    /// Checks that timers that were due when the instance began have fired before its first record.
    pub fn nothing_is_overdue(&self, began: i64) {
        for key in 0..self.keyed.keys() as u32 {
            if let Some((due, _)) = self.list(key).iter().find(|(due, _)| *due <= began) {
                panic!("a record came before a timer that was due at {due}, and the first call was at {began}");
            }
        }
    }

    pub fn process(mut self, logic: Logic, header: Header, batch: &BatchView<'_>) -> Outcome {
        match logic {
            Logic::Window => self.count_windows(header, batch),
            _ => self.put_off(header, batch),
        }
        self.done()
    }

    fn count_windows(&mut self, header: Header, batch: &BatchView<'_>) {
        let mut counts: BTreeMap<(u32, i64), u64> = BTreeMap::new();
        for (key, time) in batch.key_index.iter().zip(batch.timestamps) {
            assert!(
                *time > header.watermark,
                "a record of {time} came behind the watermark {}",
                header.watermark
            );
            *counts.entry((*key, window_of(*time))).or_default() += 1;
        }
        let windows: Vec<(u32, i64)> = counts.keys().copied().collect();
        let before = self.open(&windows);
        for (((key, end), count), before) in counts.into_iter().zip(before) {
            let count = before.unwrap_or(0) + count;
            self.write(ENTRY_PUT, key, &end_key(end), &number(count));
            self.timer(TIMER_REGISTER, key, end);
        }
    }

    fn put_off(&mut self, header: Header, batch: &BatchView<'_>) {
        // Items that this call has appended, by key, and true if the list was cleared before.
        let mut appended: BTreeMap<u32, (bool, Vec<Waiting>)> = BTreeMap::new();
        for (row, key) in batch.key_index.iter().enumerate() {
            let value = item(batch.value_data, batch.value_ends, row);
            let (cleared, own) = appended.entry(*key).or_default();
            if !is_hasty(value) {
                let due = header.now + delay_of(value);
                own.push((due, value.to_vec()));
                self.write(ENTRY_APPEND, *key, b"", &item_of(due, value));
                self.timer(TIMER_REGISTER, *key, due);
                continue;
            }
            let mut all = if *cleared { vec![] } else { self.list(*key) };
            all.append(own);
            *cleared = true;
            self.give(row as u32, *key, &all);
            self.emit(row as u32, value);
        }
    }

    /// Emits all waiting records of a key.
    fn give(&mut self, row: u32, key: u32, all: &[Waiting]) {
        all.iter().for_each(|(_, value)| self.emit(row, value));
        self.write(ENTRY_CLEAR, key, b"", b"");
        let times: BTreeSet<i64> = all.iter().map(|(due, _)| *due).collect();
        times.into_iter().for_each(|due| self.timer(TIMER_DELETE, key, due));
    }

    pub fn fire(mut self, logic: Logic, header: Header, timers: &TimerView<'_>) -> Outcome {
        let now = if logic == Logic::Window {
            header.watermark
        } else {
            header.now
        };
        for (row, (key, time)) in timers.key_index.iter().zip(timers.times).enumerate() {
            assert!(*time <= now, "a timer of {time} fired at {now}");
            match logic {
                Logic::Window => self.close(row as u32, *key, *time),
                _ => self.give_due(row as u32, *key, *time),
            }
        }
        self.done()
    }

    fn close(&mut self, row: u32, key: u32, end: i64) {
        match self.open(&[(key, end)])[..] {
            [Some(count)] => self.emit(row, &window_line(self.key(key), end, count)),
            _ => self.emit(row, &[self.key(key), b" has no window"].concat()),
        }
        self.write(ENTRY_REMOVE, key, &end_key(end), b"");
    }

    fn give_due(&mut self, row: u32, key: u32, time: i64) {
        let (due, rest): (Vec<_>, Vec<_>) = self.list(key).into_iter().partition(|(due, _)| *due == time);
        if due.is_empty() {
            self.emit(row, &[self.key(key), b" has nothing due"].concat());
        }
        due.iter().for_each(|(_, value)| self.emit(row, value));
        self.write(ENTRY_CLEAR, key, b"", b"");
        rest.iter()
            .for_each(|(due, value)| self.write(ENTRY_APPEND, key, b"", &item_of(*due, value)));
    }

    /// Handles the end of input. Windows have been emitted by their timers; records that wait for processing time are
    /// emitted now.
    pub fn finish(mut self, logic: Logic) -> Outcome {
        for key in 0..self.keyed.keys() as u32 {
            if logic == Logic::Later {
                let all = self.list(key);
                self.give(key, key, &all);
                continue;
            }
            let left = self.access().map_scan(0, key, None, 64, usize::MAX);
            if !left.unwrap_or_else(|error| panic!("{error}")).keys.is_empty() {
                self.emit(key, &[self.key(key), b" has a window at the end"].concat());
            }
        }
        self.done()
    }
}
