//! Keyed state of one value per key.

use super::call::outside;
use super::column::{Op, StateColumn, StateInfo, Writes};
use super::reads::{self, Values};
use crate::bytes::item;
use crate::error::Error;
use crate::schema::{self, State};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::UnsafeCell;
use std::sync::{Arc, OnceLock};
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

struct Slots<T> {
    info: StateInfo,
    slots: UnsafeCell<Vec<Slot<T>>>,
    /// Only where the state does not travel.
    far: OnceLock<Far>,
}

// SAFETY: as for `Call`; values may be made on one thread and dropped on another, hence `T: Send`.
unsafe impl<T: Send> Sync for Slots<T> {}
unsafe impl<T: Send> Send for Slots<T> {}

/// A keyed state of one value per key. Made by [`Declare::value`](crate::Declare::value).
///
/// Every method means the value of the key at hand, in `process`, `on_timer` and `finish`. A value that cannot be
/// decoded fails the call with a message that names the state; until then it reads as absent.
///
/// # Panics
///
/// All methods, where no key is at hand (in `open`, `on_watermark`, `finish_all`, or on another thread).
pub struct ValueState<T>(Arc<Slots<T>>);

impl<T> ValueState<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(info: StateInfo) -> Self {
        ValueState(Arc::new(Slots {
            info,
            slots: UnsafeCell::default(),
            far: OnceLock::new(),
        }))
    }

    pub(crate) fn column(&self) -> Arc<dyn StateColumn> {
        self.0.clone()
    }

    /// The state does not travel with every batch: a value is fetched when it is first touched. For large values of
    /// which a call touches few. To be said in `declare`: `d.value("profile").far()`.
    pub fn far(self) -> Self {
        self.0.info.set_far();
        // What is only named here is in no component that does not come here.
        self.0.far.get_or_init(|| Far {
            ahead: UnsafeCell::default(),
            read: Ahead::read,
        });
        self
    }

    /// A value lives for `ttl` of processing time after it was last written. To be said in `declare`.
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.0.info.set_ttl(ttl);
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

    /// Whether there is a value.
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
        *self.0.at_key().1 = Slot::Dirty(value);
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
        let (_, slot, _) = self.0.at_key();
        if !matches!(slot, Slot::Absent) {
            *slot = Slot::Removed;
        }
    }

    /// The current key's slot, decoded.
    #[inline(always)]
    pub(super) fn slot(&mut self) -> &mut Slot<T> {
        let (shared, slot, key) = self.0.at_key();
        if matches!(slot, Slot::Unread) {
            *slot = shared.load(key);
        }
        slot
    }
}

impl<T> Slots<T> {
    /// The current key's slot, as it is. To be called through the one handle, borrowed mutably for as long as the slot.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    fn at_key(&self) -> (&Self, &mut Slot<T>, usize) {
        let key = self.info.call.enter(&self.info.name);
        // SAFETY: `enter` has made sure that this thread runs the operator's code, so the runtime is not in the slots;
        // and the caller has the only handle.
        let slots = unsafe { &mut *self.slots.get() };
        let Some(slot) = slots.get_mut(key) else {
            outside(&self.info.name)
        };
        (self, slot, key)
    }
}

impl<T: State + DeserializeOwned> Slots<T> {
    /// Decodes a value.
    fn load(&self, key: usize) -> Slot<T> {
        let bytes = if let Some(far) = self.far.get() {
            // SAFETY: as for the slots in `at_key`, by which this is reached.
            let ahead = unsafe { &mut *far.ahead.get() };
            match (far.read)(ahead, &self.info, key) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Slot::Absent,
                Err(why) => {
                    self.info.fail(why);
                    return Slot::Absent;
                }
            }
        } else {
            let cells = self.info.call.cells();
            let cell = self.info.place() * cells.keys + key;
            if cells.schemas[cell] == 0 {
                return Slot::Absent;
            }
            item(&cells.data, &cells.ends, cell)
        };
        match schema::decode(bytes) {
            Ok(value) => Slot::Clean(value),
            Err(error) => self.broken(&error),
        }
    }

    #[cold]
    fn broken(&self, error: &Error) -> Slot<T> {
        self.info.broken(error);
        Slot::Absent
    }
}

impl<T> StateColumn for Slots<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    fn info(&self) -> &StateInfo {
        &self.info
    }

    unsafe fn begin(&self, keys: usize) {
        // SAFETY: by the contract, nobody else is in the slots.
        let slots = unsafe { &mut *self.slots.get() };
        slots.clear();
        slots.resize_with(keys, || Slot::Unread);
        if let Some(far) = self.far.get() {
            // SAFETY: as above.
            unsafe { &mut *far.ahead.get() }.begin(keys);
        }
    }

    unsafe fn end(&self, writes: Option<&mut Writes>) -> Result<(), String> {
        // SAFETY: by the contract, nobody else is in the slots or in the cells. They are taken out, so that whatever
        // code `T` runs when it is encoded or dropped finds none.
        let mut slots = std::mem::take(unsafe { &mut *self.slots.get() });
        match writes {
            Some(writes) if self.info.travels() => self.write_cells(&slots, writes)?,
            Some(writes) => self.write_entries(&slots, writes)?,
            None => {}
        }
        slots.clear();
        // SAFETY: as above; given back for its room.
        unsafe { *self.slots.get() = slots };
        Ok(())
    }
}

impl<T: State + Serialize> Slots<T> {
    fn write_cells(&self, slots: &[Slot<T>], writes: &mut Writes) -> Result<(), String> {
        let schemas = &self.info.call.cells().schemas;
        let first = self.info.place() * slots.len();
        for (key, slot) in slots.iter().enumerate() {
            let cell = first + key;
            match slot {
                Slot::Dirty(value) => {
                    schema::encode(value, &mut writes.data)
                        .map_err(|error| format!("state `{}`: {error}", self.info.name))?;
                    writes.cells.push(cell as u32);
                    writes.ends.push(writes.data.len() as u32);
                }
                Slot::Removed if schemas[cell] != 0 => writes.cleared.push(cell as u32),
                Slot::Unread | Slot::Absent | Slot::Clean(_) | Slot::Removed => {}
            }
        }
        Ok(())
    }

    fn write_entries(&self, slots: &[Slot<T>], writes: &mut Writes) -> Result<(), String> {
        for (key, slot) in slots.iter().enumerate() {
            let entries = &mut writes.entries;
            match slot {
                Slot::Dirty(value) => {
                    entries.push(Op::Put, &self.info, key, &[], |to| schema::encode(value, to))?;
                }
                Slot::Removed => entries.push_bare(Op::Clear, &self.info, key, &[])?,
                Slot::Unread | Slot::Absent | Slot::Clean(_) => {}
            }
        }
        Ok(())
    }
}

/// How values are read that do not travel.
struct Far {
    ahead: UnsafeCell<Ahead>,
    read: for<'a> fn(&'a mut Ahead, &StateInfo, usize) -> Encoded<'a>,
}

/// A value as the host has it, or why it cannot be read.
type Encoded<'a> = Result<Option<&'a [u8]>, String>;

/// Values that were fetched: of some keys in a row, since a call's keys are in the order in which its records come.
#[derive(Default)]
struct Ahead {
    /// The number of keys of the call.
    keys: usize,
    first: usize,
    values: Option<Values>,
    /// How many values the next fetch asks for: more and more for as long as each key is touched in turn. Kept from
    /// call to call.
    window: usize,
}

/// The most values that one fetch asks for. An import costs as much as reading some ten small values.
const WINDOW_MAX: usize = 32;
/// What a fetch should bring at most, by the size of the last one's values.
const FETCH_BYTES: usize = 64 << 10;

impl Ahead {
    fn begin(&mut self, keys: usize) {
        self.keys = keys;
        self.first = 0;
        self.values = None;
    }

    /// The value of a key.
    fn read(&mut self, info: &StateInfo, key: usize) -> Encoded<'_> {
        let fetched = self.first..self.first + self.values.as_ref().map_or(0, |values| values.schemas.len());
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
pub(super) fn stored(values: &Values, at: usize) -> Encoded<'_> {
    match values.schemas.get(at) {
        Some(0) => Ok(None),
        Some(1) => Ok(Some(item(&values.data, &values.ends, at))),
        Some(other) => Err(super::call::other_schema(*other)),
        None => Err("the host gave too few values".into()),
    }
}
