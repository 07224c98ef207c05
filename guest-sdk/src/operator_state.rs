//! Operator state: what an instance has as a whole, not by key.
//!
//! It is in the handles. The host takes it at every snapshot and hands it back after `open`, to as many instances as
//! there are then. A call that fails changes none of it: a handle keeps what it needs to undo the call at hand.
//!
//! Access is sound as it is for keyed state (`state`): values go to closures, the runtime touches a handle's values only
//! while no operator code runs, and handles refuse then.

use crate::bytes::item;
use crate::codec;
use crate::error::Error;
use crate::schema::State;
use crate::state::Call;
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Borrow;
use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The items of a snapshot, as a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Items {
    pub(crate) data: Vec<u8>,
    pub(crate) ends: Vec<u32>,
}

impl Items {
    pub(crate) fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        codec::encode(item, &mut self.data)?;
        if self.data.len() > u32::MAX as usize {
            return Err("it has more than 4 GiB".into());
        }
        self.ends.push(self.data.len() as u32);
        Ok(())
    }

    pub(crate) fn decoded<T: DeserializeOwned>(&self) -> impl Iterator<Item = Result<T, Error>> {
        (0..self.ends.len()).map(|at| codec::decode(item(&self.data, &self.ends, at)))
    }
}

/// What the runtime does with an operator state, whatever its kind and type.
///
/// To be called by the owner of the instance.
pub(crate) trait OperatorColumn: Send + Sync {
    /// # Safety
    ///
    /// No operator code of the instance may be running. So for all.
    unsafe fn save(&self) -> Result<Items, Error>;

    /// Replaces what there is.
    unsafe fn load(&self, items: &Items) -> Result<(), Error>;

    /// Ends a call: what it changed stays, or is undone.
    unsafe fn end(&self, keep: bool);
}

struct Shared<T> {
    call: Arc<Call>,
    name: String,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by the runtime while no operator code runs, and by handles while it runs, on its thread
// only (`Shared::get`), with a borrow of the one handle that fits. It may move between threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The value. To be borrowed no longer than the handle is, and written only with the handle borrowed mutably.
    #[inline(always)]
    fn get(&self) -> *mut T {
        if !self.call.is_running() {
            outside(&self.name);
        }
        self.value.get()
    }
}

#[cold]
fn outside(name: &str) -> ! {
    panic!(
        "operator state `{name}` was touched outside of a call: in `open` it is not there yet, and it belongs to one thread"
    )
}

/// Items, and what undoes the call at hand.
struct List<T> {
    items: Vec<T>,
    undo: ListUndo<T>,
}

enum ListUndo<T> {
    /// Items behind these many are new.
    Shorten(usize),
    /// The items were others.
    Replace(Vec<T>),
}

/// Operator state that is a list of items.
///
/// - Made by [`Declare::list_state`](crate::Declare::list_state): when the number of instances changes, the items are
///   dealt out evenly.
/// - Made by [`Declare::union_state`](crate::Declare::union_state): after a restore every instance has the items of all.
///   Each then keeps its own in [`Operator::restored`](crate::Operator::restored); what all keep is there as many times
///   after the next restore.
///
/// It can be used in every call but `open`. A call that fails changes nothing.
///
/// # Panics
///
/// All methods, outside of a call, and on another thread than the call's.
pub struct OperatorList<T>(Arc<Shared<List<T>>>);

impl<T> OperatorList<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(call: Arc<Call>, name: &str) -> Self {
        OperatorList(Arc::new(Shared {
            call,
            name: name.into(),
            value: UnsafeCell::new(List {
                items: Vec::new(),
                undo: ListUndo::Shorten(0),
            }),
        }))
    }

    pub(crate) fn column(&self) -> Arc<dyn OperatorColumn> {
        self.0.clone()
    }

    /// Appends an item.
    pub fn push(&mut self, item: T) {
        self.list().items.push(item);
    }

    /// Appends items.
    pub fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        for item in items {
            self.push(item);
        }
    }

    /// Replaces all items.
    pub fn set(&mut self, items: Vec<T>) {
        let list = self.list();
        let mut before = std::mem::replace(&mut list.items, items);
        if let ListUndo::Shorten(len) = list.undo {
            before.truncate(len);
            list.undo = ListUndo::Replace(before);
        }
    }

    /// Removes all items.
    pub fn clear(&mut self) {
        self.set(Vec::new());
    }

    /// Removes all items and returns them.
    pub fn take(&mut self) -> Vec<T>
    where
        T: Clone,
    {
        let items = self.read(<[T]>::to_vec);
        self.clear();
        items
    }

    /// Keeps those items that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool)
    where
        T: Clone,
    {
        let kept = self.read(|items| items.iter().filter(|item| keep(item)).cloned().collect());
        self.set(kept);
    }

    /// Looks at the items.
    pub fn read<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        // SAFETY: for as long as `look` runs, the handle is borrowed, so nobody writes.
        look(unsafe { &(*self.0.get()).items })
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.read(<[T]>::len)
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn list(&mut self) -> &mut List<T> {
        // SAFETY: the handle is borrowed mutably for as long.
        unsafe { &mut *self.0.get() }
    }
}

impl<T: Serialize + DeserializeOwned + Send> OperatorColumn for Shared<List<T>> {
    unsafe fn save(&self) -> Result<Items, Error> {
        // SAFETY: by the contract, nobody else is in it.
        let list = unsafe { &*self.value.get() };
        let mut items = Items::default();
        for item in &list.items {
            items.push(item)?;
        }
        Ok(items)
    }

    unsafe fn load(&self, items: &Items) -> Result<(), Error> {
        let items: Vec<T> = items.decoded().collect::<Result<_, _>>()?;
        let undo = ListUndo::Shorten(items.len());
        // SAFETY: as above; what is dropped finds handles that refuse.
        unsafe { *self.value.get() = List { items, undo } };
        Ok(())
    }

    unsafe fn end(&self, keep: bool) {
        // SAFETY: as above.
        let list = unsafe { &mut *self.value.get() };
        match std::mem::replace(&mut list.undo, ListUndo::Shorten(0)) {
            ListUndo::Shorten(len) if !keep => list.items.truncate(len),
            ListUndo::Replace(items) if !keep => list.items = items,
            _ => {}
        }
        list.undo = ListUndo::Shorten(list.items.len());
    }
}

/// A map, and what undoes the call at hand, newest last.
struct Table<K, V> {
    map: BTreeMap<K, V>,
    undo: Vec<TableUndo<K, V>>,
}

enum TableUndo<K, V> {
    /// The key had this value, or none.
    Entry(K, Option<V>),
    /// The map was another.
    All(BTreeMap<K, V>),
}

/// Operator state that is a table which all instances have alike: filled from an input that comes `by = "broadcast"`, so
/// that each instance sees the same records in the same order. One copy of it is kept. Made by
/// [`Declare::broadcast_state`](crate::Declare::broadcast_state).
///
/// To write it from any other input makes the instances' tables differ, which fails the next snapshot.
///
/// It can be used in every call but `open`. A call that fails changes nothing.
///
/// # Panics
///
/// All methods, outside of a call, and on another thread than the call's.
pub struct BroadcastState<K, V>(Arc<Shared<Table<K, V>>>);

impl<K, V> BroadcastState<K, V>
where
    K: State + Serialize + DeserializeOwned + Ord + Clone + Send + 'static,
    V: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(call: Arc<Call>, name: &str) -> Self {
        BroadcastState(Arc::new(Shared {
            call,
            name: name.into(),
            value: UnsafeCell::new(Table {
                map: BTreeMap::new(),
                undo: Vec::new(),
            }),
        }))
    }

    pub(crate) fn column(&self) -> Arc<dyn OperatorColumn> {
        self.0.clone()
    }

    /// Writes an entry.
    pub fn insert(&mut self, key: K, value: V) {
        let table = self.table();
        let before = table.map.insert(key.clone(), value);
        table.undo.push(TableUndo::Entry(key, before));
    }

    /// Removes an entry. Returns whether there was one.
    pub fn remove<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let table = self.table();
        match table.map.remove_entry(key) {
            Some((key, value)) => {
                table.undo.push(TableUndo::Entry(key, Some(value)));
                true
            }
            None => false,
        }
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        let table = self.table();
        let before = std::mem::take(&mut table.map);
        table.undo.push(TableUndo::All(before));
    }

    /// The value of an entry, copied. `None` where there is none.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
        V: Clone,
    {
        self.read(key, |value| value.cloned())
    }

    /// Looks at an entry without copying it.
    #[inline]
    pub fn read<Q, R>(&self, key: &Q, look: impl FnOnce(Option<&V>) -> R) -> R
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.read_all(|map| look(map.get(key)))
    }

    /// Looks at all entries, which are in order of their keys.
    #[inline]
    pub fn read_all<R>(&self, look: impl FnOnce(&BTreeMap<K, V>) -> R) -> R {
        // SAFETY: for as long as `look` runs, the handle is borrowed, so nobody writes.
        look(unsafe { &(*self.0.get()).map })
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.read_all(BTreeMap::len)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&mut self) -> &mut Table<K, V> {
        // SAFETY: the handle is borrowed mutably for as long.
        unsafe { &mut *self.0.get() }
    }
}

impl<K, V> OperatorColumn for Shared<Table<K, V>>
where
    K: Serialize + DeserializeOwned + Ord + Send,
    V: Serialize + DeserializeOwned + Send,
{
    unsafe fn save(&self) -> Result<Items, Error> {
        // SAFETY: by the contract, nobody else is in it.
        let table = unsafe { &*self.value.get() };
        let mut items = Items::default();
        // In order of the keys: equal tables have equal bytes.
        for entry in &table.map {
            items.push(&entry)?;
        }
        Ok(items)
    }

    unsafe fn load(&self, items: &Items) -> Result<(), Error> {
        let map: BTreeMap<K, V> = items.decoded().collect::<Result<_, _>>()?;
        let undo = Vec::new();
        // SAFETY: as above; what is dropped finds handles that refuse.
        unsafe { *self.value.get() = Table { map, undo } };
        Ok(())
    }

    unsafe fn end(&self, keep: bool) {
        // SAFETY: as above.
        let table = unsafe { &mut *self.value.get() };
        if keep {
            table.undo.clear();
            return;
        }
        while let Some(undo) = table.undo.pop() {
            match undo {
                TableUndo::Entry(key, Some(value)) => _ = table.map.insert(key, value),
                TableUndo::Entry(key, None) => _ = table.map.remove(&key),
                TableUndo::All(map) => table.map = map,
            }
        }
    }
}
