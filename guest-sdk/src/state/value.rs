//! Keyed state of one value per key.

use super::cell::{HandleSide, RuntimeSide, share};
use super::column::{Op, StateColumn, StateInfo, Writes};
use super::reads::{self, Found};
use crate::bindings::regraft::operator::types::{CellWrites, Cells};
use crate::bytes::item;
use crate::error::Error;
use crate::schema::{self, State};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use std::time::Duration;

/// A value, as far as this call knows it.
pub(super) enum Slot<T> {
    Unread,
    Absent,
    Clean(T),
    Dirty(T),
    /// The host may have one, which is to go.
    Removed,
}

impl<T> Slot<T> {
    /// The value as the host has it.
    pub(super) fn read(bytes: Option<&[u8]>, info: &StateInfo) -> Self
    where
        T: State + DeserializeOwned,
    {
        match bytes.map(schema::decode) {
            None => Slot::Absent,
            Some(Ok(value)) => Slot::Clean(value),
            Some(Err(error)) => {
                info.broken(&error);
                Slot::Absent
            }
        }
    }

    #[inline]
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Slot::Clean(value) | Slot::Dirty(value) => Some(value),
            Slot::Unread | Slot::Absent | Slot::Removed => None,
        }
    }

    /// The value, to be changed in place: that of a slot that was read, or the initial one.
    #[inline]
    pub(super) fn change(&mut self, initial: impl FnOnce() -> T) -> &mut T {
        if !matches!(self, Slot::Dirty(_)) {
            *self = Slot::Dirty(match std::mem::replace(self, Slot::Absent) {
                Slot::Clean(value) | Slot::Dirty(value) => value,
                Slot::Unread | Slot::Absent | Slot::Removed => initial(),
            });
        }
        match self {
            Slot::Dirty(value) => value,
            _ => unreachable!("the slot was made dirty above"),
        }
    }

    /// Removes the value of a slot that was read.
    #[inline]
    pub(super) fn remove(&mut self) -> Option<T> {
        if matches!(self, Slot::Absent) {
            return None;
        }
        match std::mem::replace(self, Slot::Removed) {
            Slot::Clean(value) | Slot::Dirty(value) => Some(value),
            Slot::Unread | Slot::Absent | Slot::Removed => None,
        }
    }
}

/// A call's values of one state.
struct Values<T> {
    /// By key.
    slots: Vec<Slot<T>>,
    /// The cells of the call; `None` where the state does not travel, and between calls.
    cells: Option<Cells>,
    /// Only used where the state does not travel.
    ahead: Ahead,
}

/// A keyed state of one value per key. Made by [`Declare::value`](crate::Declare::value).
///
/// Every method means the value of the key at hand, in `process`, `on_timer` and `finish`. The call fails with a message
/// that names the state when a value cannot be decoded, and when no key is at hand (in `open`, `on_watermark` and
/// `finish_all`, or on another thread); until then the value reads as absent.
pub struct ValueState<T> {
    info: Arc<StateInfo>,
    values: HandleSide<Values<T>>,
    /// Fetches a value that does not travel. What is only named by it is in no component that does not set it.
    fetch: Option<Fetch>,
    /// Stands in for a slot where no key is at hand.
    spare: Slot<T>,
}

struct ValueColumn<T> {
    info: Arc<StateInfo>,
    values: RuntimeSide<Values<T>>,
}

impl<T> ValueState<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(info: StateInfo) -> (Self, Box<dyn StateColumn>) {
        let info = Arc::new(info);
        let (handle, runtime) = share(
            &info.call,
            Values {
                slots: Vec::new(),
                cells: None,
                ahead: Ahead::default(),
            },
        );
        let column = ValueColumn {
            info: info.clone(),
            values: runtime,
        };
        let state = ValueState {
            info,
            values: handle,
            fetch: None,
            spare: Slot::Absent,
        };
        (state, Box::new(column))
    }

    /// The state does not travel with every batch: a value is fetched when it is first touched. For large values of
    /// which a call touches few. To be said in `declare`: `d.value("profile").far()`.
    pub fn far(self) -> Self {
        self.info.set_far();
        ValueState {
            fetch: Some(Ahead::read),
            ..self
        }
    }

    /// A value lives for `ttl` of processing time after it was last written. To be said in `declare`.
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.info.set_ttl(ttl);
        self
    }

    /// The value, copied. `None` where there is none.
    #[inline]
    pub fn get(&mut self) -> Option<T>
    where
        T: Clone,
    {
        self.read(|value| value.cloned())
    }

    /// The value, copied, or the type's default where there is none.
    #[inline]
    pub fn get_or_default(&mut self) -> T
    where
        T: Clone + Default,
    {
        self.read(|value| value.cloned().unwrap_or_default())
    }

    /// Returns true if there is a value.
    #[inline]
    pub fn exists(&mut self) -> bool {
        self.read(|value| value.is_some())
    }

    /// Looks at the value without copying it.
    #[inline]
    pub fn read<R>(&mut self, look: impl FnOnce(Option<&T>) -> R) -> R {
        look(self.slot().get())
    }

    /// Writes the value.
    #[inline]
    pub fn set(&mut self, value: T) {
        *self.unread_slot() = Slot::Dirty(value);
    }

    /// Changes the value in place, starting from the type's default where there is none. Returns what `change` does.
    #[inline]
    pub fn update<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R
    where
        T: Default,
    {
        self.update_or_else(T::default, change)
    }

    /// Changes the value in place, starting from `initial()` where there is none. Returns what `change` does.
    #[inline]
    pub fn update_or_else<R>(&mut self, initial: impl FnOnce() -> T, change: impl FnOnce(&mut T) -> R) -> R {
        change(self.slot().change(initial))
    }

    /// Removes the value and returns it.
    #[inline]
    pub fn remove(&mut self) -> Option<T> {
        self.slot().remove()
    }

    /// Removes the value, without looking at it.
    #[inline]
    pub fn clear(&mut self) {
        let slot = self.unread_slot();
        if !matches!(slot, Slot::Absent) {
            *slot = Slot::Removed;
        }
    }

    /// The current key's slot, decoded.
    #[inline(always)]
    pub(super) fn slot(&mut self) -> &mut Slot<T> {
        if let Some((key, values)) = self.values.at_key()
            && let Some(slot) = values.slots.get_mut(key)
        {
            if matches!(slot, Slot::Unread) {
                *slot = match self.fetch {
                    None => travelled(&self.info, values.cells.as_ref(), key),
                    Some(fetch) => fetched(fetch(&mut values.ahead, &self.info, key), &self.info),
                };
            }
            return slot;
        }
        without_key(&self.info, &mut self.spare)
    }

    /// The current key's slot, as it is.
    #[inline(always)]
    fn unread_slot(&mut self) -> &mut Slot<T> {
        if let Some((key, values)) = self.values.at_key()
            && let Some(slot) = values.slots.get_mut(key)
        {
            return slot;
        }
        without_key(&self.info, &mut self.spare)
    }
}

/// Fails the call, and makes the slot that stands in read as absent.
#[cold]
pub(super) fn without_key<'a, T>(info: &StateInfo, spare: &'a mut Slot<T>) -> &'a mut Slot<T> {
    info.without_key();
    *spare = Slot::Absent;
    spare
}

/// Decodes a value that came with the call.
#[inline(always)]
fn travelled<T: State + DeserializeOwned>(info: &StateInfo, cells: Option<&Cells>, key: usize) -> Slot<T> {
    let Some(cells) = cells else {
        return Slot::Absent;
    };
    if cells.present[key] == 0 {
        return Slot::Absent;
    }
    match schema::decode(item(&cells.data, &cells.ends, key)) {
        Ok(value) => Slot::Clean(value),
        Err(error) => broken(info, &error),
    }
}

/// Decodes a value that was fetched.
fn fetched<T: State + DeserializeOwned>(bytes: Encoded<'_>, info: &StateInfo) -> Slot<T> {
    match bytes {
        Ok(bytes) => Slot::read(bytes, info),
        Err(why) => {
            info.fail(why);
            Slot::Absent
        }
    }
}

#[cold]
fn broken<T>(info: &StateInfo, error: &Error) -> Slot<T> {
    info.broken(error);
    Slot::Absent
}

impl<T> StateColumn for ValueColumn<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    fn info(&self) -> &StateInfo {
        &self.info
    }

    fn begin(&mut self, keys: usize, cells: Option<Cells>) {
        self.values.with(|values| {
            values.slots.clear();
            values.slots.resize_with(keys, || Slot::Unread);
            values.cells = cells;
            values.ahead.begin(keys);
        });
    }

    fn end(&mut self, writes: Option<&mut Writes>) -> Result<(), String> {
        self.values.with(|values| {
            let written = match writes {
                Some(writes) if self.info.travels() => write_cells(&self.info, values, writes),
                Some(writes) => write_entries(&self.info, &values.slots, writes),
                None => Ok(()),
            };
            values.slots.clear();
            values.cells = None;
            written
        })
    }
}

fn write_cells<T: State + Serialize>(info: &StateInfo, values: &Values<T>, writes: &mut Writes) -> Result<(), String> {
    let Some(cells) = &values.cells else {
        return Ok(());
    };
    let mut written = CellWrites {
        state: info.number,
        keys: Vec::new(),
        data: Vec::new(),
        ends: Vec::new(),
        cleared: Vec::new(),
    };
    for (key, slot) in values.slots.iter().enumerate() {
        match slot {
            Slot::Dirty(value) => {
                schema::encode(value, &mut written.data).map_err(|error| format!("state `{}`: {error}", info.name))?;
                written.keys.push(key as u32);
                written.ends.push(written.data.len() as u32);
            }
            Slot::Removed if cells.present[key] != 0 => written.cleared.push(key as u32),
            Slot::Unread | Slot::Absent | Slot::Clean(_) | Slot::Removed => {}
        }
    }
    if !written.keys.is_empty() || !written.cleared.is_empty() {
        writes.cells.push(written);
    }
    Ok(())
}

fn write_entries<T: State + Serialize>(info: &StateInfo, slots: &[Slot<T>], writes: &mut Writes) -> Result<(), String> {
    for (key, slot) in slots.iter().enumerate() {
        let entries = &mut writes.entries;
        match slot {
            Slot::Dirty(value) => entries.push(Op::Put, info, key, &[], |to| schema::encode(value, to))?,
            Slot::Removed => entries.push_bare(Op::Clear, info, key, &[])?,
            Slot::Unread | Slot::Absent | Slot::Clean(_) => {}
        }
    }
    Ok(())
}

/// Fetches the value of a key that does not travel.
type Fetch = for<'a> fn(&'a mut Ahead, &StateInfo, usize) -> Encoded<'a>;

/// A value as the host has it, or why it cannot be read.
type Encoded<'a> = Result<Option<&'a [u8]>, String>;

/// Values that were fetched: of some keys in a row, since a call's keys are in the order in which its records come.
#[derive(Default)]
struct Ahead {
    /// The number of keys of the call.
    keys: usize,
    first: usize,
    values: Option<Found>,
    /// Number of values that the next fetch asks for: more and more for as long as each key is touched in turn. Kept
    /// from call to call.
    window: usize,
}

/// The most values that one fetch asks for. An import costs as much as reading some ten small values.
const WINDOW_MAX: usize = 32;
/// Size that a fetch should not exceed, estimated by the size of the last one's values.
const FETCH_BYTES: usize = 64 << 10;

impl Ahead {
    fn begin(&mut self, keys: usize) {
        self.keys = keys;
        self.first = 0;
        self.values = None;
    }

    /// The value of a key.
    fn read(&mut self, info: &StateInfo, key: usize) -> Encoded<'_> {
        let fetched = self.first..self.first + self.values.as_ref().map_or(0, |values| values.present.len());
        if !fetched.contains(&key) {
            if self.values.is_some() {
                let in_turn = key == fetched.end;
                self.window = if in_turn { self.window * 2 } else { 1 };
            }
            let end = (key + self.window.clamp(1, WINDOW_MAX)).min(self.keys);
            let keys: Vec<u32> = (key as u32..end as u32).collect();
            let values = reads::value_get_many(&info.call, info.number, &keys)?;
            let each = values.data.len() / keys.len() + 1;
            self.window = keys.len().min(FETCH_BYTES / each).max(1);
            self.first = key;
            self.values = Some(values);
        }
        let at = key - self.first;
        match &self.values {
            Some(values) => stored(values, at),
            None => Ok(None),
        }
    }
}

/// Value number `at` of an answer.
pub(super) fn stored(values: &Found, at: usize) -> Encoded<'_> {
    match values.present.get(at) {
        Some(0) => Ok(None),
        Some(_) => Ok(Some(item(&values.data, &values.ends, at))),
        None => Err("the host gave too few values".into()),
    }
}
