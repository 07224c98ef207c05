//! Rows of keyed state on their way to or from a file, as columns.

use regraft_model::batch::BytesColumn;
use regraft_model::key_group::KeyGroup;

/// The content of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowsOf {
    /// A state, by its position among the bound states: those at the mark for a snapshot, the present ones for `load`.
    State(u16),
    /// Pending timers.
    Timers,
}

/// Schema number of a removed row.
pub const REMOVED: u16 = 0;

/// Time of expiry of a value that does not expire.
pub const NEVER: i64 = i64::MAX;

/// Rows of one key group and one state, or its timers, in no particular order.
///
/// All columns have the same length, except that `entry_keys` and `expires` may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRows {
    /// The key group.
    pub group: KeyGroup,
    /// The content of the rows.
    pub of: RowsOf,
    /// The keys. Each pair of key and entry key occurs once.
    pub keys: BytesColumn,
    /// Map: the encoded map key.
    /// List: the index as a `u64`, big-endian.
    /// Timers: see [`timer_entry`].
    /// Value, reducing and aggregating: the column is empty.
    pub entry_keys: BytesColumn,
    /// Encoded values; empty for timers and removed rows.
    pub values: BytesColumn,
    /// Number of the schema that each value was written with. Timers have 1; [`REMOVED`] occurs only in increments.
    pub schemas: Vec<u16>,
    /// Times of expiry in milliseconds since the Unix epoch, or [`NEVER`]. The column is empty if nothing expires.
    pub expires: Vec<i64>,
}

impl StateRows {
    /// Returns empty rows.
    #[must_use]
    pub fn new(group: KeyGroup, of: RowsOf) -> Self {
        Self {
            group,
            of,
            keys: BytesColumn::default(),
            entry_keys: BytesColumn::default(),
            values: BytesColumn::default(),
            schemas: vec![],
            expires: vec![],
        }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.schemas.len()
    }

    /// Returns true if there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    /// Returns the entry key of row `i`, or `None` if the rows have no entry keys.
    #[must_use]
    pub fn entry_key(&self, i: usize) -> Option<&[u8]> {
        (!self.entry_keys.is_empty()).then(|| self.entry_keys.get(i))
    }

    /// Returns the time at which row `i` expires.
    #[must_use]
    pub fn expires_at(&self, i: usize) -> i64 {
        self.expires.get(i).copied().unwrap_or(NEVER)
    }
}

/// Appends the entry key of a timer: its time, then its name.
///
/// The time is big-endian with the sign bit flipped, so that the bytes are in order of time.
pub fn timer_entry(time: i64, name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(time as u64 ^ (1 << 63)).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

/// Splits a timer's entry key into time and name. Returns `None` if it is malformed.
#[must_use]
pub fn split_timer_entry(entry: &[u8]) -> Option<(i64, &str)> {
    let (time, name) = entry.split_first_chunk()?;
    let time = u64::from_be_bytes(*time) ^ (1 << 63);
    Some((time as i64, std::str::from_utf8(name).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_sort_by_time_and_come_back() {
        let times = [i64::MIN, -2, -1, 0, 1, 250, i64::MAX];
        let entry = |time, name| {
            let mut out = vec![];
            timer_entry(time, name, &mut out);
            out
        };
        let entries: Vec<_> = times.iter().map(|time| entry(*time, "gap")).collect();
        assert!(entries.is_sorted());
        for (time, bytes) in times.iter().zip(&entries) {
            assert_eq!(split_timer_entry(bytes), Some((*time, "gap")));
        }
        assert_eq!(split_timer_entry(&entries[0][..7]), None);
        assert!(entry(1, "a") < entry(1, "b") && entry(1, "b") < entry(2, "a"));
    }
}
