//! The values of one key in one byte string, each with the number of its state and of its schema.
//!
//! A value with schema 0 is a removal (a tombstone) that a later increment still has to record.
//! A value that expires is preceded by its time of expiry.

use super::rows::{NEVER, REMOVED};
use super::short::append;

/// Size of the header before each value: state number, schema number, length of the value with its time of expiry.
pub(super) const HEAD: usize = 8;
/// Flag in the state number: the value is preceded by its time of expiry.
const EXPIRES: u16 = 1 << 15;
/// Number of states that a backend can tell apart, without [`LINK`].
pub const STATES_MAX: usize = LINK as usize;
/// Number of the pseudo state that links to the key's entries. Its schema is 1 if any of them has a value.
pub const LINK: u16 = EXPIRES - 1;

/// One value of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'a> {
    /// Number of the state.
    pub state: u16,
    /// Number of the schema.
    pub schema: u16,
    /// Time of expiry, or `NEVER`.
    pub expires: i64,
    /// Encoded value.
    pub value: &'a [u8],
    /// All bytes of the item, including its header.
    pub raw: &'a [u8],
}

impl Item<'_> {
    /// Returns true if this is a value that has not expired at `now`.
    #[must_use]
    pub const fn is_live(&self, now: i64) -> bool {
        self.schema != REMOVED && self.expires > now
    }
}

fn split(blob: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let (head, tail) = blob.split_first_chunk::<HEAD>()?;
    let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let (value, after) = tail.split_at_checked(len)?;
    let (state, schema) = (
        u16::from_le_bytes([head[0], head[1]]),
        u16::from_le_bytes([head[2], head[3]]),
    );
    Some((state, schema, value, after))
}

/// Splits off the time of expiry that precedes a value.
fn timed(value: &[u8]) -> (i64, &[u8]) {
    value
        .split_first_chunk()
        .map_or((NEVER, value), |(time, value)| (i64::from_le_bytes(*time), value))
}

/// Returns the value of a state and the number of its schema, or `None` if there is no item of the state or it has
/// expired at `now`.
#[inline]
#[must_use]
pub fn value_in(blob: &[u8], state: u16, now: i64) -> Option<(u16, &[u8])> {
    let mut rest = blob;
    while let Some((found, schema, value, after)) = split(rest) {
        if found == state {
            return Some((schema, value));
        }
        if found == state | EXPIRES {
            let (expires, value) = timed(value);
            return (expires > now).then_some((schema, value));
        }
        rest = after;
    }
    None
}

/// Iterates over the values in order.
pub fn items(blob: &[u8]) -> impl Iterator<Item = Item<'_>> {
    let mut rest = blob;
    std::iter::from_fn(move || {
        let (state, schema, value, after) = split(rest)?;
        let raw = &rest[..rest.len() - after.len()];
        rest = after;
        let (expires, value) = if state & EXPIRES == 0 {
            (NEVER, value)
        } else {
            timed(value)
        };
        Some(Item {
            state: state & !EXPIRES,
            schema,
            expires,
            value,
            raw,
        })
    })
}

/// Returns true if any state has a value or entry, expired or not.
#[must_use]
pub fn is_live(blob: &[u8]) -> bool {
    items(blob).any(|item| item.schema != REMOVED)
}

/// Returns true if any state has a value or entry, expired or not, and the number of removed values.
#[must_use]
pub fn tally(blob: &[u8]) -> (bool, usize) {
    let (mut live, mut removals) = (false, 0);
    let mut rest = blob;
    while let Some((state, schema, _, after)) = split(rest) {
        live |= schema != REMOVED;
        removals += usize::from(schema == REMOVED && state != LINK);
        rest = after;
    }
    (live, removals)
}

/// Returns the header of a value of `len` bytes that does not expire.
#[inline]
#[must_use]
pub const fn head(state: u16, schema: u16, len: usize) -> u64 {
    state as u64 | (schema as u64) << 16 | (len as u64) << 32
}

/// Appends a value to a blob.
#[inline]
pub fn push_value(blob: &mut Vec<u8>, state: u16, schema: u16, expires: i64, value: &[u8]) {
    let timed = expires != NEVER;
    let (state, len) = if timed {
        (state | EXPIRES, value.len() + 8)
    } else {
        (state, value.len())
    };
    append(blob, &head(state, schema, len).to_le_bytes());
    if timed {
        append(blob, &expires.to_le_bytes());
    }
    append(blob, value);
}

/// Appends a removal.
pub fn push_removal(blob: &mut Vec<u8>, state: u16) {
    push_value(blob, state, REMOVED, NEVER, &[]);
}

/// Appends the link to the key's entries.
pub fn push_link(blob: &mut Vec<u8>, entries: u32, live: bool) {
    push_value(blob, LINK, u16::from(live), NEVER, &entries.to_le_bytes());
}

/// Returns the index of the key's entries, if the blob has a link.
#[inline]
#[must_use]
pub fn link_in(blob: &[u8]) -> Option<u32> {
    let (_, value) = value_in(blob, LINK, 0)?;
    Some(u32::from_le_bytes(*value.first_chunk()?))
}

/// Appends the values of `blob` whose states `keep` accepts to `out`.
pub fn copy_values(blob: &[u8], out: &mut Vec<u8>, keep: impl Fn(u16) -> bool) {
    for item in items(blob).filter(|item| keep(item.state)) {
        out.extend_from_slice(item.raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_state_until_they_expire() {
        let mut blob = vec![];
        push_value(&mut blob, 3, 1, NEVER, b"three");
        push_value(&mut blob, 5, 2, 100, b"five");
        push_removal(&mut blob, 6);
        push_link(&mut blob, 77, true);
        assert_eq!(value_in(&blob, 3, i64::MAX), Some((1, &b"three"[..])));
        assert_eq!(value_in(&blob, 5, 99), Some((2, &b"five"[..])));
        assert_eq!(value_in(&blob, 5, 100), None);
        assert_eq!(value_in(&blob, 6, 0), Some((0, &b""[..])));
        assert_eq!(value_in(&blob, 7, 0), None);
        assert_eq!(link_in(&blob), Some(77));
        assert_eq!(tally(&blob), (true, 1));
        let mut part = vec![];
        copy_values(&blob, &mut part, |state| state == 6);
        assert_eq!((is_live(&part), tally(&part)), (false, (false, 1)));
        let all: Vec<_> = items(&blob).map(|item| (item.state, item.expires)).collect();
        assert_eq!(all, [(3, NEVER), (5, 100), (6, NEVER), (LINK, NEVER)]);
        assert_eq!(items(&blob).map(|item| item.raw).collect::<Vec<_>>().concat(), blob);
    }
}
