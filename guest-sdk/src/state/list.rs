//! Keyed state of a list per key, which does not travel.

use super::cell::{HandleSide, RuntimeSide, share};
use super::column::{Op, StateColumn, StateInfo, Writes};
use super::reads;
use crate::bindings::regraft::operator::types::Cells;
use crate::bytes::{append, item};
use crate::error::Error;
use crate::schema::{self, State};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Approximate size of one page of a scan, in bytes.
const PAGE_BYTES: u32 = 256 << 10;
/// No item.
const NONE: u32 = u32::MAX;

/// Changes of a call to the list of one key. The items that it appends are a chain.
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

/// A call's writes to one list state.
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

/// A keyed state of a list per key. Made by [`Declare::list`](crate::Declare::list).
///
/// It does not travel: appending costs no more than encoding the item, looking at the list reads all of it by imports.
/// An operator sees its own writes at once; they leave at the end of the call.
///
/// Every method means the list of the key at hand, in `process`, `on_timer` and `finish`. The call fails with a message
/// that names the state when an item cannot be decoded, and when no key is at hand (in `open`, `on_watermark` and
/// `finish_all`, or on another thread); the list then reads as empty.
pub struct ListState<T> {
    info: Arc<StateInfo>,
    known: HandleSide<Known>,
    // Items are kept encoded.
    items: PhantomData<fn() -> T>,
}

struct ListColumn {
    info: Arc<StateInfo>,
    known: RuntimeSide<Known>,
}

impl<T> ListState<T>
where
    T: State + Serialize + DeserializeOwned + 'static,
{
    pub(crate) fn new(info: StateInfo) -> (Self, Box<dyn StateColumn>) {
        info.set_far();
        let info = Arc::new(info);
        let (handle, runtime) = share(&info.call, Known::default());
        let column = ListColumn {
            info: info.clone(),
            known: runtime,
        };
        let state = ListState {
            info,
            known: handle,
            items: PhantomData,
        };
        (state, Box::new(column))
    }

    /// An item lives for `ttl` of processing time after it was appended. To be said in `declare`.
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.info.set_ttl(ttl);
        self
    }

    /// Appends an item. Nothing is read.
    pub fn push(&mut self, item: &T) {
        if let Some((info, known, key)) = self.at_key()
            && let Err(error) = known.push(key, item)
        {
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
        if let Some((_, known, key)) = self.at_key() {
            *known.list(key) = Appended {
                cleared: true,
                ..NOTHING
            };
        }
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

    /// Returns true if there is no item.
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
        if let Some((info, known, key)) = self.at_key()
            && let Err(why) = known.walk(info, key, page_bytes, look)
        {
            info.fail(format_args!("its items cannot be read: {why}"));
        }
    }

    /// The call's writes, and the current key. `None` where none is at hand; the call has failed then.
    fn at_key(&mut self) -> Option<(&StateInfo, &mut Known, usize)> {
        if let Some((key, known)) = self.known.at_key()
            && key < known.keys
        {
            return Some((&self.info, known, key));
        }
        self.info.without_key();
        None
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

impl StateColumn for ListColumn {
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
            known.lists.clear();
            known.data.clear();
            known.ends.clear();
            known.next.clear();
            written
        })
    }
}
