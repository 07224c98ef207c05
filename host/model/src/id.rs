//! Newtypes for ids and indices, validated on construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The stable name that the user gives to an operator, source or sink, and the only thing that ties it to its state.
///
/// Matches `[A-Za-z_][A-Za-z0-9_-]{0,62}`. In a job file it is none of [`RESERVED_UIDS`].
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperatorUid(std::sync::Arc<str>);

/// Tables of the job file that hold settings of the whole job.
pub const TABLES: [&str; 4] = ["checkpoint", "savepoint", "state", "restart"];
/// Words that a job file cannot use as uids, because `--set NAME.key=V` takes them for a table: [`TABLES`], and those that
/// are or will be tables elsewhere.
pub const RESERVED_UIDS: [&str; 8] = [
    "checkpoint",
    "savepoint",
    "state",
    "restart",
    "job",
    "limits",
    "store",
    "upgrade",
];

/// A text that is not a valid uid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// The text has a character or a length that a uid cannot have.
    #[error("{0:?} is not a uid: expected a letter or '_', then up to 62 letters, digits, '_' or '-'")]
    Malformed(String),
    /// The text is one of [`RESERVED_UIDS`].
    #[error("{0:?} cannot be a uid: it is reserved for a table of the job file; choose another")]
    Reserved(String),
}

impl OperatorUid {
    /// Validates a uid.
    ///
    /// # Errors
    /// - [`UidError::Malformed`] if `text` does not match the pattern of a uid.
    /// - [`UidError::Reserved`] if it is one of [`RESERVED_UIDS`].
    pub fn new(text: &str) -> Result<Self, UidError> {
        if RESERVED_UIDS.contains(&text) {
            return Err(UidError::Reserved(text.to_owned()));
        }
        Self::recorded(text)
    }

    /// Validates a uid of a record. One that has been reserved since then is accepted: a savepoint with it stays readable.
    fn recorded(text: &str) -> Result<Self, UidError> {
        let mut bytes = text.bytes();
        let head_ok = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest_ok = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !head_ok || !rest_ok || text.len() > 63 {
            return Err(UidError::Malformed(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Returns the uid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for OperatorUid {
    type Error = UidError;
    fn try_from(text: String) -> Result<Self, UidError> {
        Self::recorded(&text)
    }
}

impl From<OperatorUid> for String {
    fn from(uid: OperatorUid) -> Self {
        uid.0.to_string()
    }
}

/// The identity of a job, printed as 32 hex digits.
///
/// A job that is started from a savepoint gets a new id; upgrade and recovery keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(u128);

impl JobId {
    /// Makes an id from 128 bits, which in a host are random.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns the first six hex digits, as used in the names of savepoints and parts.
    #[must_use]
    pub fn short(self) -> String {
        self.to_string()[..6].to_owned()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JobID: expected 32 hex digits")]
pub struct JobIdError(String);

impl FromStr for JobId {
    type Err = JobIdError;
    fn from_str(text: &str) -> Result<Self, JobIdError> {
        if text.len() != 32 {
            return Err(JobIdError(text.to_owned()));
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| JobIdError(text.to_owned()))
    }
}

impl TryFrom<String> for JobId {
    type Error = JobIdError;
    fn try_from(text: String) -> Result<Self, JobIdError> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Number of a checkpoint or savepoint within a job, from 1; the numbering continues after a restore.
    CheckpointId(u64)
}
number! {
    /// Index of a parallel instance of a chain, from 0.
    SubtaskIndex(u32)
}
number! {
    /// Number of an attempt to run a job under the same JobID, from 1. Part of the name of every pending output part.
    AttemptId(u32)
}
number! {
    /// Version of a job, which names the modules it runs: 1 at its start, incremented by every upgrade.
    JobVersion(u32)
}

impl CheckpointId {
    /// Returns the id that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_checked() {
        for good in ["a", "_", "word-count_2", &"x".repeat(63)] {
            assert_eq!(OperatorUid::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "1a", "-a", "a b", "a.b", "ä", &"x".repeat(64)] {
            assert_eq!(OperatorUid::new(bad), Err(UidError::Malformed(bad.to_owned())));
        }
        for reserved in RESERVED_UIDS {
            assert_eq!(OperatorUid::new(reserved), Err(UidError::Reserved(reserved.to_owned())));
            // Records of jobs from before it was reserved have it.
            assert!(OperatorUid::try_from(reserved.to_owned()).is_ok());
        }
        assert!(TABLES.iter().all(|table| RESERVED_UIDS.contains(table)));
    }

    #[test]
    fn job_ids_are_32_hex_digits_both_ways() {
        let id = JobId::from_bits(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "000000");
        assert!("ab".parse::<JobId>().is_err());
    }
}
