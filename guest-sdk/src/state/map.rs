//! Keyed state of a map per key, which does not travel.

use super::cell::{HandleSide, RuntimeSide, share};
use super::column::{Op, StateColumn, StateInfo, Writes};
use super::overlay::{Overlay, push_column};
use super::reads;
use super::value::{Slot, stored, without_key};
use crate::bindings::regraft::operator::types::Cells;
use crate::bytes::item;
use crate::error::Error;
use crate::key::{FromKey, ToKey};
use crate::schema::{self, State};
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Approximate size of one page of a scan, in bytes.
const PAGE_BYTES: u32 = 256 << 10;

/// Types that the keys of a map may have: `String`, `Vec<u8>`, an integer, a tuple of such, or
/// [`Compound`](crate::Compound).
/// Encoded as keys are.
pub trait MapKey: ToKey + for<'a> FromKey<'a> + 'static {}

impl<K: ToKey + for<'a> FromKey<'a> + 'static> MapKey for K {}

/// A call's reads of and writes to one map state.
struct Known<V> {
    keys: usize,
    overlay: Overlay<Slot<V>>,
    /// Entries that were asked for and not read yet.
    wanted: Vec<u32>,
    /// For each key whether the whole map goes; empty where none does.
    cleared: Vec<bool>,
}

/// A keyed state of a map per key. Made by [`Declare::map`](crate::Declare::map).
///
/// It does not travel: an entry is read when it is first touched, by an import that costs as much as some ten updates.
/// [`Operator::prefetch`](crate::Operator::prefetch) makes that one read for a whole batch. An operator sees its own
/// writes at once; they leave at the end of the call.
///
/// Every method means the map of the key at hand, in `process`, `on_timer` and `finish`. The call fails with a message
/// that names the state when an entry cannot be decoded, and when no key is at hand (in `open`, `on_watermark` and
/// `finish_all`, or on another thread); until then the entry reads as absent.
pub struct MapState<K, V> {
    info: Arc<StateInfo>,
    known: HandleSide<Known<V>>,
    /// Stands in for an entry where no key is at hand.
    spare: Slot<V>,
    map_key: PhantomData<fn() -> K>,
}

struct MapColumn<V> {
    info: Arc<StateInfo>,
    known: RuntimeSide<Known<V>>,
}

impl<K, V> MapState<K, V>
where
    K: MapKey,
    V: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(info: StateInfo) -> (Self, Box<dyn StateColumn>) {
        let info = info.with_map_key(Some(<K as ToKey>::key_type().to_json()));
        info.set_far();
        let info = Arc::new(info);
        let known = Known {
            keys: 0,
            overlay: Overlay::default(),
            wanted: Vec::new(),
            cleared: Vec::new(),
        };
        let (handle, runtime) = share(&info.call, known);
        let column = MapColumn {
            info: info.clone(),
            known: runtime,
        };
        let state = MapState {
            info,
            known: handle,
            spare: Slot::Absent,
            map_key: PhantomData,
        };
        (state, Box::new(column))
    }

    /// An entry lives for `ttl` of processing time after it was last written. To be said in `declare`.
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.info.set_ttl(ttl);
        self
    }

    /// The value of an entry, copied. `None` where there is none.
    pub fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
        V: Clone,
    {
        self.read(key, |value| value.cloned())
    }

    /// Returns true if there is an entry.
    pub fn contains<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        self.read(key, |value| value.is_some())
    }

    /// Looks at an entry without copying it.
    pub fn read<Q, R>(&mut self, key: &Q, look: impl FnOnce(Option<&V>) -> R) -> R
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        look(self.slot(key, true).get())
    }

    /// Writes an entry, without looking whether it is there.
    pub fn insert<Q>(&mut self, key: &Q, value: V)
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        *self.slot(key, false) = Slot::Dirty(value);
    }

    /// Changes an entry in place, starting from the type's default where there is none. Returns what `change` does.
    pub fn update<Q, R>(&mut self, key: &Q, change: impl FnOnce(&mut V) -> R) -> R
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
        V: Default,
    {
        self.update_or_else(key, V::default, change)
    }

    /// Changes an entry in place, starting from `initial()` where there is none. Returns what `change` does.
    pub fn update_or_else<Q, R>(&mut self, key: &Q, initial: impl FnOnce() -> V, change: impl FnOnce(&mut V) -> R) -> R
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        change(self.slot(key, true).change(initial))
    }

    /// Removes an entry and returns its value.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        self.slot(key, true).remove()
    }

    /// Removes an entry, without looking whether it is there.
    pub fn delete<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        let slot = self.slot(key, false);
        if !matches!(slot, Slot::Absent) {
            *slot = Slot::Removed;
        }
    }

    /// Says that an entry will be touched, so that it is read together with others: to be called in
    /// [`Operator::prefetch`](crate::Operator::prefetch).
    pub fn prefetch<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: ToKey + ?Sized,
    {
        self.slot(key, false);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        let Some((_, known, key)) = self.at_key() else {
            return self.info.without_key();
        };
        known.cleared.resize(known.keys, false);
        known.cleared[key] = true;
        for entry in &mut known.overlay.entries {
            if entry.key as usize == key {
                entry.slot = Slot::Absent;
            }
        }
    }

    /// Looks at all entries, in order of the map keys' bytes: text and byte strings in their own order, integers by
    /// their lowest byte first. Reads them all.
    pub fn for_each(&mut self, mut look: impl FnMut(K, &V)) {
        self.walk(|entry_key, value| {
            look(entry_key, value);
            true
        });
    }

    /// The map keys, in the order of [`for_each`](Self::for_each).
    pub fn keys(&mut self) -> Vec<K> {
        let mut keys = Vec::new();
        self.for_each(|key, _| keys.push(key));
        keys
    }

    /// All entries, copied, in the order of [`for_each`](Self::for_each).
    pub fn entries(&mut self) -> Vec<(K, V)>
    where
        V: Clone,
    {
        let mut entries = Vec::new();
        self.for_each(|key, value| entries.push((key, value.clone())));
        entries
    }

    /// Returns true if there is no entry.
    pub fn is_empty(&mut self) -> bool {
        let mut empty = true;
        self.walk(|_, _| {
            empty = false;
            false
        });
        empty
    }

    /// Calls `look` for every entry until it returns false.
    fn walk(&mut self, mut look: impl FnMut(K, &V) -> bool) {
        let Some((info, known, key)) = self.at_key() else {
            return self.info.without_key();
        };
        if let Err(why) = known.walk(info, key, |entry_key, value| {
            K::check(entry_key, &[entry_key.len() as u32]).map_err(|(_, message)| Error::from(message))?;
            // SAFETY: `check` has passed it, as a column of one.
            Ok(look(unsafe { K::read(entry_key)? }, value))
        }) {
            info.fail(format_args!("its entries cannot be read: {why}"));
        }
    }

    /// The slot of an entry of the current key; `read`: with what the host has.
    fn slot<Q: ToKey + ?Sized>(&mut self, key: &Q, read: bool) -> &mut Slot<V> {
        let info = &*self.info;
        let (at, known) = match self.known.at_key() {
            Some((at, known)) if at < known.keys => (at, known),
            _ => return without_key(info, &mut self.spare),
        };
        let cleared = known.cleared.get(at) == Some(&true);
        let (overlay, wanted) = (&mut known.overlay, &mut known.wanted);
        let count = overlay.entries.len();
        let found = overlay.find_or_insert(
            at as u32,
            |to| key.write(to),
            || if cleared { Slot::Absent } else { Slot::Unread },
        );
        let number = found.unwrap_or_else(|error| {
            info.fail(format_args!("a map key: {error}"));
            // The call has failed, whatever this slot becomes.
            overlay
                .find_or_insert(at as u32, |_| Ok::<_, std::convert::Infallible>(()), || Slot::Absent)
                .unwrap_or(0)
        });
        if number == count && !cleared {
            wanted.push(number as u32);
        }
        if read
            && matches!(known.overlay.entries[number].slot, Slot::Unread)
            && let Err(why) = known.read_wanted(info)
        {
            info.fail(why);
        }
        &mut known.overlay.entries[number].slot
    }

    /// The call and its current key; `None` if it has no key.
    fn at_key(&mut self) -> Option<(&StateInfo, &mut Known<V>, usize)> {
        let (key, known) = self.known.at_key()?;
        (key < known.keys).then_some((&*self.info, known, key))
    }
}

impl<V: State + Serialize + DeserializeOwned> Known<V> {
    /// Reads all entries that were asked for, at once.
    fn read_wanted(&mut self, info: &StateInfo) -> Result<(), String> {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.retain(|number| matches!(self.overlay.entries[*number as usize].slot, Slot::Unread));
        let mut keys = Vec::with_capacity(wanted.len());
        let mut column = (Vec::new(), Vec::with_capacity(wanted.len()));
        for number in &wanted {
            let entry = &self.overlay.entries[*number as usize];
            keys.push(entry.key);
            push_column(&mut column, self.overlay.entry_key(entry));
        }
        let values = reads::map_get_many(&info.call, info.number, &keys, &column.0, &column.1)?;
        for (at, number) in wanted.iter().enumerate() {
            let bytes = stored(&values, at)?;
            self.overlay.entries[*number as usize].slot = Slot::read(bytes, info);
        }
        wanted.clear();
        self.wanted = wanted;
        Ok(())
    }

    /// Calls `look` with every entry of a key, in order of the map keys' bytes, until it returns false.
    fn walk(
        &self,
        info: &StateInfo,
        key: usize,
        mut look: impl FnMut(&[u8], &V) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        // What the call itself has written, to be put between what the host has.
        let mut own: BTreeMap<&[u8], &V> = BTreeMap::new();
        for entry in self.overlay.entries.iter().filter(|entry| entry.key as usize == key) {
            if let Slot::Dirty(value) = &entry.slot {
                own.insert(self.overlay.entry_key(entry), value);
            }
        }
        let mut more = self.cleared.get(key) != Some(&true);
        let mut after: Option<Vec<u8>> = None;
        while more {
            let page = reads::map_scan(&info.call, info.number, key as u32, after.as_deref(), PAGE_BYTES)?;
            for at in 0..page.key_ends.len() {
                let entry_key = item(&page.key_data, &page.key_ends, at);
                while let Some(first) = own.first_entry().filter(|first| *first.key() < entry_key) {
                    let (entry_key, value) = first.remove_entry();
                    if !look(entry_key, value)? {
                        return Ok(());
                    }
                }
                let goes_on = match own.remove(entry_key) {
                    Some(value) => look(entry_key, value)?,
                    None if self.is_gone(key, entry_key) => true,
                    None => look(
                        entry_key,
                        &schema::decode(item(&page.value_data, &page.value_ends, at))?,
                    )?,
                };
                if !goes_on {
                    return Ok(());
                }
            }
            more = page.more;
            if more {
                let last = page
                    .key_ends
                    .len()
                    .checked_sub(1)
                    .ok_or("the host gave an empty page")?;
                after = Some(item(&page.key_data, &page.key_ends, last).to_vec());
            }
        }
        for (entry_key, value) in own {
            if !look(entry_key, value)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns true if this call has removed an entry.
    fn is_gone(&self, key: usize, entry_key: &[u8]) -> bool {
        self.overlay
            .get(key as u32, entry_key)
            .is_some_and(|number| matches!(self.overlay.entries[number].slot, Slot::Removed | Slot::Absent))
    }

    /// Writes of the call: first whole maps that are cleared, then entries.
    fn write(&self, info: &StateInfo, writes: &mut Writes) -> Result<(), String> {
        let is_cleared = |key: u32| self.cleared.get(key as usize) == Some(&true);
        for key in (0..self.cleared.len()).filter(|key| self.cleared[*key]) {
            writes.entries.push_bare(Op::Clear, info, key, &[])?;
        }
        for entry in &self.overlay.entries {
            let (key, entry_key) = (entry.key as usize, self.overlay.entry_key(entry));
            match &entry.slot {
                Slot::Dirty(value) => {
                    let write = |to: &mut Vec<u8>| schema::encode(value, to);
                    writes.entries.push(Op::Put, info, key, entry_key, write)?;
                }
                Slot::Removed if !is_cleared(entry.key) => {
                    writes.entries.push_bare(Op::Remove, info, key, entry_key)?;
                }
                Slot::Unread | Slot::Absent | Slot::Clean(_) | Slot::Removed => {}
            }
        }
        Ok(())
    }
}

impl<V> StateColumn for MapColumn<V>
where
    V: State + Serialize + DeserializeOwned + Send + 'static,
{
    fn info(&self) -> &StateInfo {
        &self.info
    }

    fn begin(&mut self, keys: usize, _: Option<Cells>) {
        self.known.with(|known| known.keys = keys);
    }

    fn end(&mut self, writes: Option<&mut Writes>) -> Result<(), String> {
        self.known.with(|known| {
            let written = writes.map_or(Ok(()), |writes| known.write(&self.info, writes));
            known.keys = 0;
            known.wanted.clear();
            known.cleared.clear();
            known.overlay.clear();
            written
        })
    }
}
