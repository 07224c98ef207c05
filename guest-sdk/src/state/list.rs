//! Keyed state of a list per key, which does not travel.

use super::call::{other_schema, outside};
use super::column::{Op, StateColumn, StateInfo, Writes};
use super::reads;
use crate::bytes::{append, item};
use crate::error::Error;
use crate::schema::{self, State};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// What one page of a scan has, about.
const PAGE_BYTES: u32 = 256 << 10;
/// No item.
const NONE: u32 = u32::MAX;

/// What a call does to the list of one key: the items that it appends are a chain.
#[derive(Clone, Copy)]
struct Appended {
    /// The list that the host has goes.
    cleared: bool,
    first: u32,
    last: u32,
}

const NOTHING: Appended = Appended {
    cleared: false,
    first: NONE,
    last: NONE,
};

/// What a call knows of one list state: what it has written.
#[derive(Default)]
struct Known {
    keys: usize,
    /// By key; empty where nothing was written.
    lists: Vec<Appended>,
    data: Vec<u8>,
    ends: Vec<u32>,
    /// For each item the one behind it of the same key.
    next: Vec<u32>,
}

struct Lists<T> {
    info: StateInfo,
    known: UnsafeCell<Known>,
    items: PhantomData<fn() -> T>,
}

// SAFETY: as for `Call`. Items are kept encoded, so nothing of type `T` is in it.
unsafe impl<T> Sync for Lists<T> {}

/// A keyed state of a list per key. Made by [`Declare::list`](crate::Declare::list).
///
/// It does not travel: appending costs no more than encoding the item, looking at the list reads all of it by imports.
/// An operator sees its own writes at once; they leave at the end of the call.
///
/// Every method means the list of the key at hand, in `process`, `on_timer` and `finish`. An item that cannot be decoded
/// fails the call with a message that names the state.
///
/// # Panics
///
/// All methods, where no key is at hand (in `open`, `on_watermark`, `finish_all`, or on another thread).
pub struct ListState<T>(Arc<Lists<T>>);

impl<T> ListState<T>
where
    T: State + Serialize + DeserializeOwned + 'static,
{
    pub(crate) fn new(info: StateInfo) -> Self {
        info.set_far();
        ListState(Arc::new(Lists {
            info,
            known: UnsafeCell::default(),
            items: PhantomData,
        }))
    }

    pub(crate) fn column(&self) -> Arc<dyn StateColumn> {
        self.0.clone()
    }

    /// An item lives for `ttl` of processing time after it was appended. To be said in `declare`.
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.0.info.set_ttl(ttl);
        self
    }

    /// Appends an item. Nothing is read.
    pub fn push(&mut self, item: &T) {
        let (info, known, key) = self.0.at_key();
        if let Err(error) = known.push(key, item) {
            info.fail(error);
        }
    }

    /// Appends items. Nothing is read.
    pub fn extend<'a>(&mut self, items: impl IntoIterator<Item = &'a T>) {
        for item in items {
            self.push(item);
        }
    }

    /// Replaces all items. Nothing is read.
    pub fn set<'a>(&mut self, items: impl IntoIterator<Item = &'a T>) {
        self.clear();
        self.extend(items);
    }

    /// Removes all items. Nothing is read.
    pub fn clear(&mut self) {
        let (_, known, key) = self.0.at_key();
        *known.list(key) = Appended {
            cleared: true,
            ..NOTHING
        };
    }

    /// Calls `take` with every item, in order.
    pub fn for_each(&mut self, mut take: impl FnMut(T)) {
        self.walk(PAGE_BYTES, |item| {
            take(item);
            true
        });
    }

    /// All items, in order.
    pub fn get(&mut self) -> Vec<T> {
        let mut items = Vec::new();
        self.for_each(|item| items.push(item));
        items
    }

    /// All items, in order; the list is empty then.
    pub fn take(&mut self) -> Vec<T> {
        let items = self.get();
        self.clear();
        items
    }

    /// Whether there is no item.
    pub fn is_empty(&mut self) -> bool {
        let mut empty = true;
        self.walk(1, |_| {
            empty = false;
            false
        });
        empty
    }

    /// Calls `look` for every item until it returns false.
    fn walk(&mut self, page_bytes: u32, look: impl FnMut(T) -> bool) {
        let (info, known, key) = self.0.at_key();
        if let Err(why) = known.walk(info, key, page_bytes, look) {
            info.fail(format_args!("its items cannot be read: {why}"));
        }
    }
}

impl<T> Lists<T> {
    /// What the call knows, and the current key. To be called through the one handle, borrowed mutably for as long.
    #[allow(clippy::mut_from_ref)]
    fn at_key(&self) -> (&StateInfo, &mut Known, usize) {
        let key = self.info.call.enter(&self.info.name);
        // SAFETY: `enter` has made sure that this thread runs the operator's code, so the runtime is not in it; and the
        // caller has the only handle.
        let known = unsafe { &mut *self.known.get() };
        if key >= known.keys {
            outside(&self.info.name);
        }
        (&self.info, known, key)
    }
}

impl Known {
    fn list(&mut self, key: usize) -> &mut Appended {
        if self.lists.is_empty() {
            self.lists.resize(self.keys, NOTHING);
        }
        &mut self.lists[key]
    }

    fn push<T: State + Serialize>(&mut self, key: usize, item: &T) -> Result<(), Error> {
        schema::encode(item, &mut self.data)?;
        let number = self.ends.len() as u32;
        self.ends.push(self.data.len() as u32);
        self.next.push(NONE);
        let list = self.list(key);
        let before = std::mem::replace(&mut list.last, number);
        if before == NONE {
            list.first = number;
        } else {
            self.next[before as usize] = number;
        }
        Ok(())
    }

    /// The items that the call has appended to a list, encoded.
    fn appended(&self, list: Appended) -> impl Iterator<Item = &[u8]> {
        let number = |number: u32| Some(number).filter(|number| *number != NONE);
        std::iter::successors(number(list.first), move |at| number(self.next[*at as usize]))
            .map(|at| item(&self.data, &self.ends, at as usize))
    }

    fn walk<T: State + DeserializeOwned>(
        &self,
        info: &StateInfo,
        key: usize,
        page_bytes: u32,
        mut look: impl FnMut(T) -> bool,
    ) -> Result<(), Error> {
        let list = self.lists.get(key).copied().unwrap_or(NOTHING);
        let (mut first, mut more) = (0, !list.cleared);
        while more {
            let page = reads::list_scan(&info.call, info.number, key as u32, first, page_bytes)?;
            for at in 0..page.ends.len() {
                if page.schemas[at] != 1 {
                    return Err(other_schema(page.schemas[at]).into());
                }
                if !look(schema::decode(item(&page.data, &page.ends, at))?) {
                    return Ok(());
                }
            }
            first += page.ends.len() as u32;
            // A page that could have had more is the last one.
            more = !page.ends.is_empty() && page.data.len() >= page_bytes as usize;
        }
        for bytes in self.appended(list) {
            if !look(schema::decode(bytes)?) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, info: &StateInfo, writes: &mut Writes) -> Result<(), String> {
        for (key, list) in self.lists.iter().enumerate() {
            if list.cleared {
                writes.entries.push_bare(Op::Clear, info, key, &[])?;
            }
            for bytes in self.appended(*list) {
                writes.entries.push(Op::Append, info, key, &[], |to| {
                    append(to, bytes);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl<T> StateColumn for Lists<T>
where
    T: State + Serialize + DeserializeOwned + 'static,
{
    fn info(&self) -> &StateInfo {
        &self.info
    }

    unsafe fn begin(&self, keys: usize) {
        // SAFETY: by the contract, nobody else is in it.
        let known = unsafe { &mut *self.known.get() };
        known.keys = keys;
    }

    unsafe fn end(&self, writes: Option<&mut Writes>) -> Result<(), String> {
        // SAFETY: by the contract, nobody else is in it.
        let known = unsafe { &mut *self.known.get() };
        let written = writes.map_or(Ok(()), |writes| known.write(&self.info, writes));
        known.keys = 0;
        known.lists.clear();
        known.data.clear();
        known.ends.clear();
        known.next.clear();
        written
    }
}
