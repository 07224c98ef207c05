//! Operator state: state of an instance as a whole, not by key.
//!
//! It is in the handles. The host takes it at every snapshot and hands it back after `open`, to as many instances as
//! there are then. A call that fails changes none of it: a handle keeps what it needs to undo the call at hand.
//!
//! The runtime and a handle share what there is, in a cell that lets them in by turns (`state::share`). A handle that is
//! used where it is not its turn fails the call.

use crate::bytes::item;
use crate::codec;
use crate::error::Error;
use crate::schema::State;
use crate::state::{Call, HandleSide, RuntimeSide, share};
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Borrow;
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

/// The runtime's side of an operator state, of any kind and type. To be called outside of the operator's code.
pub(crate) trait OperatorColumn: Send {
    /// Returns the items that there are.
    fn save(&mut self) -> Result<Items, Error>;

    /// Replaces what there is.
    fn load(&mut self, items: &Items) -> Result<(), Error>;

    /// Ends a call: what it changed stays, or is undone.
    fn end(&mut self, keep: bool);
}

/// Name of an operator state, and the calls that it fails.
struct Info {
    call: Arc<Call>,
    name: String,
}

impl Info {
    /// It was used where it is not there, so the call fails.
    #[cold]
    fn outside(&self) {
        self.call.fail(format!(
            "operator state `{}` was used outside of a call: in `declare` and `open` it is not there yet, and it belongs to \
             the thread that the operator is called on",
            self.name
        ));
    }
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
/// It can be used in every call but `open`. A call that fails changes nothing, and to use it elsewhere fails the call.
pub struct OperatorList<T> {
    info: Info,
    list: HandleSide<List<T>>,
    /// Stands in where the state is not there.
    spare: List<T>,
}

impl<T> OperatorList<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(call: Arc<Call>, name: &str) -> (Self, Box<dyn OperatorColumn>) {
        let (list, column) = share(&call, List::of(Vec::new()));
        let name = name.into();
        let state = OperatorList {
            info: Info { call, name },
            list,
            spare: List::of(Vec::new()),
        };
        (state, Box::new(column))
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
        let list = self.list.get().unwrap_or_else(|| {
            self.info.outside();
            &self.spare
        });
        look(&list.items)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.read(<[T]>::len)
    }

    /// Returns true if there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn list(&mut self) -> &mut List<T> {
        self.list.get_mut().unwrap_or_else(|| {
            self.info.outside();
            self.spare = List::of(Vec::new());
            &mut self.spare
        })
    }
}

impl<T> List<T> {
    fn of(items: Vec<T>) -> Self {
        let undo = ListUndo::Shorten(items.len());
        List { items, undo }
    }
}

impl<T: Serialize + DeserializeOwned + Send> OperatorColumn for RuntimeSide<List<T>> {
    fn save(&mut self) -> Result<Items, Error> {
        self.with(|list| {
            let mut items = Items::default();
            for item in &list.items {
                items.push(item)?;
            }
            Ok(items)
        })
    }

    fn load(&mut self, items: &Items) -> Result<(), Error> {
        let items: Vec<T> = items.decoded().collect::<Result<_, _>>()?;
        self.with(|list| *list = List::of(items));
        Ok(())
    }

    fn end(&mut self, keep: bool) {
        self.with(|list| {
            match std::mem::replace(&mut list.undo, ListUndo::Shorten(0)) {
                ListUndo::Shorten(len) if !keep => list.items.truncate(len),
                ListUndo::Replace(items) if !keep => list.items = items,
                _ => {}
            }
            list.undo = ListUndo::Shorten(list.items.len());
        });
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
/// It can be used in every call but `open`. A call that fails changes nothing, and to use it elsewhere fails the call.
pub struct BroadcastState<K, V> {
    info: Info,
    table: HandleSide<Table<K, V>>,
    /// Stands in where the state is not there.
    spare: Table<K, V>,
}

impl<K, V> BroadcastState<K, V>
where
    K: State + Serialize + DeserializeOwned + Ord + Clone + Send + 'static,
    V: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(call: Arc<Call>, name: &str) -> (Self, Box<dyn OperatorColumn>) {
        let (table, column) = share(&call, Table::of(BTreeMap::new()));
        let name = name.into();
        let state = BroadcastState {
            info: Info { call, name },
            table,
            spare: Table::of(BTreeMap::new()),
        };
        (state, Box::new(column))
    }

    /// Writes an entry.
    pub fn insert(&mut self, key: K, value: V) {
        let table = self.table();
        let before = table.map.insert(key.clone(), value);
        table.undo.push(TableUndo::Entry(key, before));
    }

    /// Removes an entry. Returns true if there was one.
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
        let table = self.table.get().unwrap_or_else(|| {
            self.info.outside();
            &self.spare
        });
        look(&table.map)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.read_all(BTreeMap::len)
    }

    /// Returns true if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&mut self) -> &mut Table<K, V> {
        self.table.get_mut().unwrap_or_else(|| {
            self.info.outside();
            self.spare = Table::of(BTreeMap::new());
            &mut self.spare
        })
    }
}

impl<K, V> Table<K, V> {
    fn of(map: BTreeMap<K, V>) -> Self {
        Table { map, undo: Vec::new() }
    }
}

impl<K, V> OperatorColumn for RuntimeSide<Table<K, V>>
where
    K: Serialize + DeserializeOwned + Ord + Send,
    V: Serialize + DeserializeOwned + Send,
{
    fn save(&mut self) -> Result<Items, Error> {
        self.with(|table| {
            let mut items = Items::default();
            // In order of the keys: equal tables have equal bytes.
            for entry in &table.map {
                items.push(&entry)?;
            }
            Ok(items)
        })
    }

    fn load(&mut self, items: &Items) -> Result<(), Error> {
        let map: BTreeMap<K, V> = items.decoded().collect::<Result<_, _>>()?;
        self.with(|table| *table = Table::of(map));
        Ok(())
    }

    fn end(&mut self, keep: bool) {
        self.with(|table| {
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
        });
    }
}
