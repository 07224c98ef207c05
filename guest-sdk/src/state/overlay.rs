//! A call's knowledge of the entries of maps: a small hash table from (key, map key) to what is kept of the entry.
//!
//! The standard table would need a box for every map key, and hashes them with care against collisions by design, which
//! in a table that lives for one call, and may be slow in one call, is not worth its price.

use crate::bytes::append;

/// No entry.
const NONE: u32 = u32::MAX;
/// The smallest table.
const PLACES_MIN: usize = 64;
/// Tables up to this size are kept from call to call.
const PLACES_KEPT: usize = 1 << 16;

/// An entry.
pub(super) struct Entry<V> {
    hash: u32,
    /// Index of the key in the call.
    pub(super) key: u32,
    start: u32,
    end: u32,
    pub(super) slot: V,
}

/// Entries in the order in which they were first touched.
pub(super) struct Overlay<V> {
    /// Numbers of entries; a power of two of places, or none.
    places: Vec<u32>,
    pub(super) entries: Vec<Entry<V>>,
    bytes: Vec<u8>,
}

impl<V> Default for Overlay<V> {
    fn default() -> Self {
        Overlay {
            places: Vec::new(),
            entries: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

impl<V> Overlay<V> {
    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        if self.places.len() > PLACES_KEPT {
            *self = Self::default();
        } else if !self.entries.is_empty() {
            self.places.fill(NONE);
            self.entries.clear();
            self.bytes.clear();
        }
    }

    /// The number of the entry, which is made with `slot` where there is none yet. `write` appends the map key to the
    /// bytes that it is given.
    pub(super) fn find_or_insert<E>(
        &mut self,
        key: u32,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        slot: impl FnOnce() -> V,
    ) -> Result<usize, E> {
        let start = self.bytes.len();
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let hash = hash(key, &self.bytes[start..]);
        match self.find(hash, key, &self.bytes[start..]) {
            Ok(entry) => {
                self.bytes.truncate(start);
                Ok(entry)
            }
            Err(place) => {
                let number = self.entries.len();
                self.entries.push(Entry {
                    hash,
                    key,
                    start: start as u32,
                    end: self.bytes.len() as u32,
                    slot: slot(),
                });
                if self.entries.len() * 2 > self.places.len() {
                    self.grow();
                } else {
                    self.places[place] = number as u32;
                }
                Ok(number)
            }
        }
    }

    /// The number of the entry, where there is one.
    pub(super) fn get(&self, key: u32, entry_key: &[u8]) -> Option<usize> {
        self.find(hash(key, entry_key), key, entry_key).ok()
    }

    /// The map key of an entry.
    pub(super) fn entry_key(&self, entry: &Entry<V>) -> &[u8] {
        &self.bytes[entry.start as usize..entry.end as usize]
    }

    /// The number of the entry, or the place where it belongs.
    fn find(&self, hash: u32, key: u32, entry_key: &[u8]) -> Result<usize, usize> {
        let Some(mask) = self.places.len().checked_sub(1) else {
            return Err(0);
        };
        let mut place = hash as usize & mask;
        // There is always a free place: at most half of them are taken.
        loop {
            let number = self.places[place];
            if number == NONE {
                return Err(place);
            }
            let entry = &self.entries[number as usize];
            if entry.hash == hash && entry.key == key && self.entry_key(entry) == entry_key {
                return Ok(number as usize);
            }
            place = (place + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.places.len() * 2).max(PLACES_MIN);
        self.places.clear();
        self.places.resize(len, NONE);
        for (number, entry) in self.entries.iter().enumerate() {
            let mut place = entry.hash as usize & (len - 1);
            while self.places[place] != NONE {
                place = (place + 1) & (len - 1);
            }
            self.places[place] = number as u32;
        }
    }
}

/// Folded multiplication, eight bytes at a time.
fn hash(key: u32, entry_key: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(K);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = fold(K ^ entry_key.len() as u64, u64::from(key));
    for bytes in entry_key.chunks(8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        state = fold(state, u64::from_le_bytes(word));
    }
    state as u32
}

/// Appends entries' map keys as a column.
pub(super) fn push_column(to: &mut (Vec<u8>, Vec<u32>), entry_key: &[u8]) {
    append(&mut to.0, entry_key);
    to.1.push(to.0.len() as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_plain_map_finds() {
        let mut overlay = Overlay::<u64>::default();
        for round in 0..3 {
            let mut plain = std::collections::HashMap::new();
            let mut x = 1u64;
            for i in 0..5_000 {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
                let (key, text) = ((x >> 60) as u32, format!("{}", (x >> 33) % 1000));
                let next = plain.len();
                let expected = *plain.entry((key, text.clone())).or_insert(next);
                let write = |to: &mut Vec<u8>| {
                    to.extend_from_slice(text.as_bytes());
                    Ok::<_, ()>(())
                };
                assert_eq!(overlay.get(key, text.as_bytes()), (expected < next).then_some(expected));
                assert_eq!(overlay.find_or_insert(key, write, || i), Ok(expected));
                let entry = &overlay.entries[expected];
                assert_eq!((entry.key, overlay.entry_key(entry)), (key, text.as_bytes()));
            }
            assert_eq!(overlay.entries.len(), plain.len());
            overlay.clear();
            assert_eq!(overlay.get(0, b"1"), None);
        }
    }

    #[test]
    fn a_map_key_that_cannot_be_written_leaves_nothing() {
        let mut overlay = Overlay::<u8>::default();
        let fails = |to: &mut Vec<u8>| {
            to.push(7);
            Err("no")
        };
        assert_eq!(overlay.find_or_insert(1, fails, || 1), Err("no"));
        assert!(overlay.entries.is_empty() && overlay.bytes.is_empty());
    }
}
