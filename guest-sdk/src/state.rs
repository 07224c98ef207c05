//! Keyed state of one value per key, as a handle.
//!
//! A call brings the encoded values of all its keys. A handle decodes the current key's value when it is first touched,
//! keeps it for the rest of the call, and what was written is encoded once at the call's end. Between calls a handle
//! holds nothing: the host has the state.
//!
//! # How access stays sound
//!
//! The runtime and the handle share the slots. A handle is not `Clone` and its methods take `&mut self`, so no two
//! borrows of a slot can exist; values are handed out by copy or to a closure, never by reference, so none outlives a
//! call; and a handle works only on the thread that is in a call of its instance ([`Call::enter`]), during which the
//! runtime does not touch the slots.

use crate::codec;
use crate::error::Error;
use crate::schema::State;
use serde::{Serialize, de::DeserializeOwned};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// The current call of an instance: which key it is at, and the encoded cells it came with.
#[derive(Default)]
pub(crate) struct Call {
    /// Which thread runs the operator's code, 0 when none does.
    owner: AtomicUsize,
    key: AtomicUsize,
    failed: AtomicBool,
    /// Why a cell could not be decoded: the first one of the call.
    failure: Mutex<Option<String>>,
    inner: UnsafeCell<Cells>,
}

// SAFETY: `inner` is reached by the runtime, which has the instance mutably, between stretches of the operator's code,
// and by handles within such a stretch, on its thread only (`enter` panics elsewhere). `Cells` is `Send`.
unsafe impl Sync for Call {}

/// The cells of a call, as they came.
#[derive(Default)]
struct Cells {
    keys: usize,
    data: Vec<u8>,
    ends: Vec<u32>,
    schemas: Vec<u16>,
}

/// Ends the stretch of operator code when dropped, also by a panic.
pub(crate) struct Running<'a>(&'a Call);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.owner.store(0, Relaxed);
    }
}

impl Call {
    /// Takes over a call's cells. Fails when their number is not the one declared, or when a value was written by
    /// another schema than this operator's own. `names` are the states'.
    ///
    /// # Safety
    ///
    /// No operator code of the instance may be running.
    pub(crate) unsafe fn begin(
        &self,
        keys: usize,
        (data, ends, schemas): (Vec<u8>, Vec<u32>, Vec<u16>),
        names: &[String],
    ) -> Result<(), String> {
        let states = names.len();
        let cells = keys * states;
        if ends.len() != cells || schemas.len() != cells {
            return Err(format!(
                "the call has {} cells and {} cell schemas, not {cells}: {keys} keys and {states} states",
                ends.len(),
                schemas.len()
            ));
        }
        if let Some(cell) = schemas.iter().position(|schema| *schema > 1) {
            return Err(format!(
                "state `{}`: a value was written by another schema (number {}), and this operator reads its own only",
                names[cell / keys],
                schemas[cell]
            ));
        }
        self.failed.store(false, Relaxed);
        // SAFETY: by the contract, nobody else is in the cells.
        unsafe {
            *self.inner.get() = Cells {
                keys,
                data,
                ends,
                schemas,
            }
        };
        Ok(())
    }

    /// Lets handles work on this thread until the guard is dropped.
    pub(crate) fn run(&self) -> Running<'_> {
        self.owner.store(thread(), Relaxed);
        Running(self)
    }

    /// Sets the key that handles mean.
    #[inline(always)]
    pub(crate) fn set_key(&self, key: usize) {
        self.key.store(key, Relaxed);
    }

    /// Whether a cell could not be decoded in this call.
    #[inline(always)]
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Drops the cells, and says why one could not be decoded, if so.
    ///
    /// # Safety
    ///
    /// As for `begin`.
    pub(crate) unsafe fn end(&self) -> Option<String> {
        // SAFETY: by the contract, nobody else is in the cells.
        unsafe { *self.inner.get() = Cells::default() };
        if self.failed() {
            self.failure.lock().ok().and_then(|mut failure| failure.take())
        } else {
            None
        }
    }

    #[cold]
    fn fail(&self, message: String) {
        if let Ok(mut failure) = self.failure.lock() {
            failure.get_or_insert(message);
        }
        self.failed.store(true, Relaxed);
    }

    /// The current key's index, for a handle on the thread of the call.
    ///
    /// # Panics
    ///
    /// Outside of a call.
    #[inline(always)]
    fn enter(&self, name: &str) -> usize {
        if self.owner.load(Relaxed) != thread() {
            outside(name);
        }
        self.key.load(Relaxed)
    }
}

/// A number that no other running thread has; not 0.
#[cfg(not(target_family = "wasm"))]
#[inline(always)]
fn thread() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place) as usize)
}

/// There is one thread only.
#[cfg(target_family = "wasm")]
#[inline(always)]
fn thread() -> usize {
    1
}

#[cold]
fn outside(name: &str) -> ! {
    panic!("state `{name}` was touched where no key is at hand: it can be in `process` and `finish` only")
}

/// The value of one key, as far as this call knows it.
enum Slot<T> {
    Unread,
    Absent,
    Clean(T),
    Dirty(T),
    Removed,
}

struct Slots<T> {
    call: Arc<Call>,
    name: String,
    index: usize,
    slots: UnsafeCell<Vec<Slot<T>>>,
}

// SAFETY: as for `Call`; values may be made on one thread and dropped on another, hence `T: Send`.
unsafe impl<T: Send> Sync for Slots<T> {}
unsafe impl<T: Send> Send for Slots<T> {}

/// A keyed state of one value per key. Made by [`Declare::value`](crate::Declare::value).
///
/// Every method means the value of the key at hand, in `process` and `finish`. A value that cannot be decoded fails
/// the call with a message that names the state; until then it reads as absent.
///
/// # Panics
///
/// All methods, where no key is at hand (in `open`, `on_watermark`, `finish_all`, or on another thread).
pub struct ValueState<T>(Arc<Slots<T>>);

impl<T> ValueState<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(name: &str, index: usize, call: Arc<Call>) -> Self {
        ValueState(Arc::new(Slots {
            call,
            name: name.into(),
            index,
            slots: UnsafeCell::default(),
        }))
    }

    pub(crate) fn column(&self) -> Arc<dyn StateColumn> {
        self.0.clone()
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
        match self.slot() {
            Slot::Clean(value) | Slot::Dirty(value) => look(Some(value)),
            Slot::Unread | Slot::Absent | Slot::Removed => look(None),
        }
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
        let slot = self.slot();
        if !matches!(slot, Slot::Dirty(_)) {
            *slot = Slot::Dirty(match std::mem::replace(slot, Slot::Absent) {
                Slot::Clean(value) | Slot::Dirty(value) => value,
                Slot::Unread | Slot::Absent | Slot::Removed => initial(),
            });
        }
        match slot {
            Slot::Dirty(value) => change(value),
            _ => unreachable!("the slot was made dirty above"),
        }
    }

    /// Removes the value and returns it.
    #[inline]
    pub fn remove(&mut self) -> Option<T> {
        match std::mem::replace(self.slot(), Slot::Removed) {
            Slot::Clean(value) | Slot::Dirty(value) => Some(value),
            Slot::Unread | Slot::Absent | Slot::Removed => None,
        }
    }

    /// Removes the value.
    #[inline]
    pub fn clear(&mut self) {
        self.remove();
    }

    /// The current key's slot, decoded.
    #[inline(always)]
    fn slot(&mut self) -> &mut Slot<T> {
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
        let key = self.call.enter(&self.name);
        // SAFETY: `enter` has made sure that this thread runs the operator's code, so the runtime is not in the slots;
        // and the caller has the only handle.
        let slots = unsafe { &mut *self.slots.get() };
        let Some(slot) = slots.get_mut(key) else {
            outside(&self.name)
        };
        (self, slot, key)
    }
}

impl<T: DeserializeOwned> Slots<T> {
    /// Decodes a cell.
    fn load(&self, key: usize) -> Slot<T> {
        // SAFETY: this thread runs the operator's code (`ValueState::slot`), during which the cells are only read.
        let cells = unsafe { &*self.call.inner.get() };
        let cell = self.index * cells.keys + key;
        if cells.schemas[cell] == 0 {
            return Slot::Absent;
        }
        match codec::decode(crate::bytes::item(&cells.data, &cells.ends, cell)) {
            Ok(value) => Slot::Clean(value),
            Err(error) => {
                self.fail(error);
                Slot::Absent
            }
        }
    }

    #[cold]
    fn fail(&self, error: Error) {
        self.call
            .fail(format!("state `{}`: a value is broken: {error}", self.name));
    }
}

/// The cells that a call writes.
#[derive(Default)]
pub(crate) struct CellWrites {
    pub(crate) cells: Vec<u32>,
    pub(crate) data: Vec<u8>,
    pub(crate) ends: Vec<u32>,
    pub(crate) cleared: Vec<u32>,
}

/// What the runtime does with a state, whatever its type.
///
/// To be called by the owner of the instance outside of the operator's code.
pub(crate) trait StateColumn: Send + Sync {
    /// Makes a fresh slot for each key.
    ///
    /// # Safety
    ///
    /// No operator code of the instance may be running.
    unsafe fn begin(&self, keys: usize);

    /// Encodes what was written and drops all slots.
    ///
    /// # Safety
    ///
    /// As for `begin`.
    unsafe fn end(&self, writes: Option<&mut CellWrites>) -> Result<(), String>;
}

impl<T> StateColumn for Slots<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    unsafe fn begin(&self, keys: usize) {
        // SAFETY: by the contract, nobody else is in the slots.
        let slots = unsafe { &mut *self.slots.get() };
        slots.clear();
        slots.resize_with(keys, || Slot::Unread);
    }

    unsafe fn end(&self, writes: Option<&mut CellWrites>) -> Result<(), String> {
        // SAFETY: by the contract, nobody else is in the slots or in the cells. They are taken out, so that whatever
        // code `T` runs when it is encoded or dropped finds none.
        let mut slots = std::mem::take(unsafe { &mut *self.slots.get() });
        if let Some(writes) = writes {
            let cells = unsafe { &*self.call.inner.get() };
            for (key, slot) in slots.iter().enumerate() {
                let cell = self.index * slots.len() + key;
                match slot {
                    Slot::Dirty(value) => {
                        codec::encode(value, &mut writes.data)
                            .map_err(|error| format!("state `{}`: {error}", self.name))?;
                        writes.cells.push(cell as u32);
                        writes.ends.push(writes.data.len() as u32);
                    }
                    Slot::Removed if cells.schemas[cell] != 0 => writes.cleared.push(cell as u32),
                    Slot::Unread | Slot::Absent | Slot::Clean(_) | Slot::Removed => {}
                }
            }
        }
        slots.clear();
        // SAFETY: as above; given back for its room.
        unsafe { *self.slots.get() = slots };
        Ok(())
    }
}
