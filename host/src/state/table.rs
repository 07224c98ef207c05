//! The hash table of one key group: linear probing over slots of one cache line each, with keys and small values
//! inline.
//!
//! A slot holds a key and its *blob*, the values of all its states (`blob`), so the whole travelling state of a key
//! costs one cache miss.
//! Entries that do not fit inline are in a side table.
//!
//! Each slot carries the stamp of its last write; 0 is an empty slot.
//! A snapshot begins a new generation, and the first write to an older entry saves the old blob (the mark of design
//! note 0003).

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::arena::{Arena, Block};
use super::mark::{Mark, Stamp};
use super::short::{HEAD, append, copy, head};

/// Number of bytes of key and blob that fit into a slot.
pub(super) const INLINE: usize = 48;

/// One entry, of the size of a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Slot {
    hash: u32,
    /// Stamp of the last write; 0 for an empty slot.
    stamp: Stamp,
    key_len: u32,
    blob_len: u32,
    /// Key, then blob; if they do not fit, the number of the spilled entry, little-endian.
    data: [u8; INLINE],
}

/// Memory of a slot, in bytes.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

/// log2 of a slot's size.
const SLOT_BITS: u32 = size_of::<Slot>().trailing_zeros();

/// Approximate memory of a spilled entry without its bytes.
pub(super) const SPILLED_BYTES: usize = 32;

/// An empty slot. All of its bytes are 0, as those of a new block.
const EMPTY: Slot = Slot {
    hash: 0,
    stamp: 0,
    key_len: 0,
    blob_len: 0,
    data: [0; INLINE],
};

/// The slots of a table, in a block of an arena; a new table has none.
#[derive(Debug)]
struct Slots {
    block: Option<Block>,
    len: usize,
}

impl Slots {
    /// Returns 2^`bits` empty slots.
    fn new(arena: &Arena, bits: u32) -> Self {
        Self {
            block: Some(arena.block(bits + SLOT_BITS)),
            len: 1 << bits,
        }
    }

    #[inline]
    fn start(&self) -> NonNull<Slot> {
        self.block
            .as_ref()
            .map_or(NonNull::dangling(), |block| block.start().cast())
    }
}

impl Deref for Slots {
    type Target = [Slot];

    #[inline]
    fn deref(&self) -> &[Slot] {
        // SAFETY: the block has room for `len` slots and is aligned to 64 bytes, as a slot is.
        // It was zeroed when made, and zeros are empty slots.
        // The block is owned, so the borrow of `self` covers it.
        unsafe { NonNull::slice_from_raw_parts(self.start(), self.len).as_ref() }
    }
}

impl DerefMut for Slots {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Slot] {
        // SAFETY: as above, and the borrow is mutable.
        unsafe { NonNull::slice_from_raw_parts(self.start(), self.len).as_mut() }
    }
}

/// Entries saved before their first write after a mark, concatenated.
#[derive(Debug, Default)]
struct Saved {
    bytes: Vec<u8>,
    /// Lengths of the key and the blob of each entry.
    lengths: Vec<(u32, u32)>,
}

impl Saved {
    #[inline]
    fn push(&mut self, entry: &[u8], key: u32, blob: u32) {
        append(&mut self.bytes, entry);
        self.lengths.push((key, blob));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |&(key, blob)| {
            let (entry, after) = rest.split_at(key as usize + blob as usize);
            rest = after;
            entry.split_at(key as usize)
        })
    }
}

/// The entries of one key group.
#[derive(Debug)]
pub struct Table {
    slots: Slots,
    arena: Arena,
    /// log2 of the number of slots.
    bits: u32,
    len: usize,
    /// Number of changes so far; see [`Table::changes`].
    changes: u64,
    spilled: Vec<Box<[u8]>>,
    spilled_free: Vec<u32>,
    /// Bytes of the spilled entries.
    spilled_bytes: usize,
    /// Entries as they were at the mark of the snapshot in progress.
    saved: Saved,
}

impl Table {
    /// Returns an empty table, which takes its slots from `arena`.
    #[must_use]
    pub fn new(arena: Arena) -> Self {
        let slots = Slots { block: None, len: 0 };
        Self {
            slots,
            arena,
            bits: 0,
            len: 0,
            changes: 0,
            spilled: vec![],
            spilled_free: vec![],
            spilled_bytes: 0,
            saved: Saved::default(),
        }
    }

    /// Returns the number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of changes so far: insertions, removals, and the first update of each entry after a mark.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns the approximate memory of the table, in bytes, with what is saved for a sweep.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (self.slots.len() << SLOT_BITS)
            + self.spilled_bytes
            + self.spilled.len() * SPILLED_BYTES
            + self.saved.bytes.len()
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        // The key group is taken from the murmur of the hash, so within a group the hash's own bits are still well
        // spread.
        (hash.wrapping_mul(0x9e37_79b1) >> (32 - self.bits)) as usize
    }

    /// Prefetches the cache line where `hash` is looked up first.
    #[inline]
    pub fn prefetch(&self, hash: u32) {
        if self.bits != 0 {
            self.prefetch_slot(self.home(hash) as u32);
        }
    }

    /// Prefetches a slot's cache line.
    #[inline]
    pub fn prefetch_slot(&self, slot: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(slot) = self.slots.get(slot as usize) {
            let slot = &raw const *slot;
            // SAFETY: a prefetch reads nothing that the program can see, and the address is that of a live slot.
            unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(slot.cast::<i8>()) };
        }
    }

    /// Returns the slot of a key.
    #[inline]
    pub fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        self.find_by_head(hash, head(key, &(0..key.len())), key)
    }

    /// Returns the slot of a key, given its [`head`].
    #[inline(always)]
    pub fn find_by_head(&self, hash: u32, own: u128, key: &[u8]) -> Option<u32> {
        if self.bits == 0 {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if slot.stamp == 0 {
                return None;
            }
            if slot.hash == hash && slot.key_len as usize == key.len() && self.has_key(slot, own, key) {
                return Some(at as u32);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn bytes_of<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        let len = slot.key_len as usize + slot.blob_len as usize;
        if len <= INLINE {
            &slot.data[..len]
        } else {
            let [a, b, c, d, ..] = slot.data;
            &self.spilled[u32::from_le_bytes([a, b, c, d]) as usize]
        }
    }

    #[inline]
    fn key_of<'a>(&'a self, slot: &'a Slot) -> &'a [u8] {
        let len = slot.key_len as usize;
        // The common case does not depend on where the blob is.
        if len + slot.blob_len as usize <= INLINE {
            &slot.data[..len]
        } else {
            &self.bytes_of(slot)[..len]
        }
    }

    /// Returns true if a slot has this key, of the same length.
    #[inline]
    fn has_key(&self, slot: &Slot, own: u128, key: &[u8]) -> bool {
        if key.len() <= HEAD && key.len() + slot.blob_len as usize <= INLINE {
            head(&slot.data, &(0..key.len())) == own
        } else {
            self.key_of(slot) == key
        }
    }

    /// Returns the number of slots, including free ones.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns hash, key, blob and stamp of the entry in a slot, or `None` if it is free.
    #[must_use]
    pub fn entry(&self, slot: u32) -> Option<(u32, &[u8], &[u8], Stamp)> {
        let slot = self.slots.get(slot as usize).filter(|slot| slot.stamp != 0)?;
        let (key, blob) = self.bytes_of(slot).split_at(slot.key_len as usize);
        Some((slot.hash, key, blob, slot.stamp))
    }

    /// Returns the stamp of a slot.
    #[inline]
    #[must_use]
    pub fn stamp(&self, slot: u32) -> Stamp {
        self.slots[slot as usize].stamp
    }

    /// Returns the blob in a slot.
    #[inline]
    #[must_use]
    pub fn blob(&self, slot: u32) -> &[u8] {
        let slot = &self.slots[slot as usize];
        &self.bytes_of(slot)[slot.key_len as usize..]
    }

    /// Saves the entry if it belongs to the sweep in progress.
    #[inline]
    fn save(&mut self, at: usize, mark: Mark) {
        let slot = &self.slots[at];
        if mark.saves(slot.stamp) {
            let len = slot.key_len as usize + slot.blob_len as usize;
            // `bytes_of` would borrow all of the table.
            let entry = if len <= INLINE {
                &slot.data[..len]
            } else {
                let [a, b, c, d, ..] = slot.data;
                &*self.spilled[u32::from_le_bytes([a, b, c, d]) as usize]
            };
            self.saved.push(entry, slot.key_len, slot.blob_len);
        }
    }

    fn release_spilled(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.key_len as usize + slot.blob_len as usize > INLINE {
            let [a, b, c, d, ..] = slot.data;
            let number = u32::from_le_bytes([a, b, c, d]);
            let entry = std::mem::take(&mut self.spilled[number as usize]);
            self.spilled_bytes -= entry.len();
            self.spilled_free.push(number);
        }
    }

    /// Replaces the blob of an entry.
    #[inline]
    pub fn update(&mut self, slot: u32, blob: &[u8], mark: Mark) {
        let at = slot as usize;
        self.save(at, mark);
        let slot = &mut self.slots[at];
        let key_len = slot.key_len as usize;
        let (old, new) = (key_len + slot.blob_len as usize, key_len + blob.len());
        self.changes += u64::from(slot.stamp < mark.now);
        slot.stamp = mark.rewritten(slot.stamp);
        if old <= INLINE && new <= INLINE {
            copy(&mut slot.data[key_len..], blob);
            slot.blob_len = blob.len() as u32;
            return;
        }
        self.replace(at, blob);
    }

    /// Replaces the blob of an entry by `head` and `value`, if both old and new ones are inline and begin with `head`, which
    /// has the length of the value. Returns false, and changes nothing, if they do not.
    #[inline]
    pub fn update_value(&mut self, slot: u32, head: u64, value: &[u8], mark: Mark) -> bool {
        let at = slot as usize;
        let slot = &self.slots[at];
        let (start, len) = (slot.key_len as usize, size_of::<u64>() + value.len());
        if slot.blob_len as usize != len
            || start + len > INLINE
            || slot.data[start..].first_chunk() != Some(&head.to_le_bytes())
        {
            return false;
        }
        self.save(at, mark);
        let slot = &mut self.slots[at];
        self.changes += u64::from(slot.stamp < mark.now);
        slot.stamp = mark.rewritten(slot.stamp);
        copy(&mut slot.data[start + size_of::<u64>()..], value);
        true
    }

    /// Replaces the blob of an entry with one that means the same, which no mark has to notice.
    pub fn rewrite(&mut self, slot: u32, blob: &[u8]) {
        self.replace(slot as usize, blob);
    }

    fn replace(&mut self, at: usize, blob: &[u8]) {
        let key: Box<[u8]> = self.key_of(&self.slots[at]).into();
        self.release_spilled(at);
        self.write(at, &key, blob);
    }

    /// Writes key and blob into a slot whose old content has been released.
    fn write(&mut self, at: usize, key: &[u8], blob: &[u8]) {
        let len = key.len() + blob.len();
        let mut data = [0; INLINE];
        if len <= INLINE {
            data[..key.len()].copy_from_slice(key);
            data[key.len()..len].copy_from_slice(blob);
        } else {
            let bytes: Box<[u8]> = [key, blob].concat().into();
            self.spilled_bytes += len;
            let number = if let Some(number) = self.spilled_free.pop() {
                self.spilled[number as usize] = bytes;
                number
            } else {
                self.spilled.push(bytes);
                (self.spilled.len() - 1) as u32
            };
            data[..4].copy_from_slice(&number.to_le_bytes());
        }
        let slot = &mut self.slots[at];
        slot.key_len = key.len() as u32;
        slot.blob_len = blob.len() as u32;
        slot.data = data;
    }

    /// Inserts an entry for a key that is not in the table. May move other entries.
    pub fn insert(&mut self, hash: u32, key: &[u8], blob: &[u8], stamp: Stamp) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = self.home(hash);
        while self.slots[at].stamp != 0 {
            at = (at + 1) & mask;
        }
        self.write(at, key, blob);
        self.slots[at].hash = hash;
        self.slots[at].stamp = stamp;
        self.len += 1;
        self.changes += 1;
    }

    fn grow(&mut self) {
        let bits = if self.bits == 0 { 3 } else { self.bits + 1 };
        let old = std::mem::replace(&mut self.slots, Slots::new(&self.arena, bits));
        self.bits = bits;
        let mask = self.slots.len() - 1;
        for &slot in &*old {
            if slot.stamp != 0 {
                let mut at = self.home(slot.hash);
                while self.slots[at].stamp != 0 {
                    at = (at + 1) & mask;
                }
                self.slots[at] = slot;
            }
        }
    }

    /// Removes an entry.
    ///
    /// May move other entries, but none from a slot before it, except across the end of the table.
    pub fn remove(&mut self, slot: u32, mark: Mark) {
        let mut hole = slot as usize;
        self.save(hole, mark);
        self.release_spilled(hole);
        self.len -= 1;
        self.changes += 1;
        let mask = self.slots.len() - 1;
        // Move back the entries that the hole would cut off from their home slots.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if self.slots[at].stamp == 0 {
                break;
            }
            let home = self.home(self.slots[at].hash);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
    }

    /// Iterates over all entries: hash, key, blob.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
        self.slots.iter().filter(|slot| slot.stamp != 0).map(|slot| {
            let (key, blob) = self.bytes_of(slot).split_at(slot.key_len as usize);
            (slot.hash, key, blob)
        })
    }

    /// Calls `each` with every key and blob as of the mark, and forgets the saved entries.
    pub fn sweep(&mut self, mark: Mark, mut each: impl FnMut(&[u8], &[u8])) {
        for slot in &*self.slots {
            if mark.saves(slot.stamp) {
                let (key, blob) = self.bytes_of(slot).split_at(slot.key_len as usize);
                each(key, blob);
            }
        }
        for (key, blob) in std::mem::take(&mut self.saved).iter() {
            each(key, blob);
        }
    }

    /// Forgets the saved entries.
    pub fn drop_saved(&mut self) {
        self.saved = Saved::default();
    }
}
