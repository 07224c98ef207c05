//! The cause of a subtask's failure, and its rendering for users: uid, subtask, record, cause, backtrace, policy.

use std::fmt;

use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::Batch;
use regraft_model::id::OperatorUid;

use crate::connector::sink::SinkError;
use crate::connector::source::SourceError;
use crate::state::backend::BackendError;

/// A failed subtask.
#[derive(Debug)]
pub struct SubtaskFailure {
    /// Uid of the node that failed.
    pub uid: OperatorUid,
    /// Index of the subtask, from 0.
    pub subtask: u32,
    /// The call or operation that failed, such as `process`.
    pub doing: &'static str,
    /// The record at fault, where it is known.
    pub record: Option<Record>,
    /// The cause.
    pub cause: Cause,
    /// The rule by which the guest's failure fails the job; `None` where the failure is not a guest's.
    pub policy: Option<&'static str>,
    /// True if the guest keeps state of its own that only a checkpoint has, so that the batch could not be run again.
    /// Only a restart that runs the operator carefully shows if the same record fails again.
    pub unisolated: bool,
}

/// The policies of a job file, and the rules that always fail a job, as they are shown to users.
pub mod policy {
    /// The policy `on-trap`.
    pub const ON_TRAP: &str = "on-trap = \"fail\": the job fails";
    /// The policy `on-failure`.
    pub const ON_FAILURE: &str = "on-failure = \"fail\": the job fails";
    /// An error that names no record.
    pub const NO_RECORD: &str = "an error that names no record always fails the job";
    /// A failure in a call without records.
    pub const NO_ROWS: &str = "a failure here always fails the job";
    /// A trap in a guest that cannot be rerun from its state before the call.
    pub const UNISOLATED: &str =
        "the operator keeps state of its own, so the job goes back to its last checkpoint to find the record";
}

impl SubtaskFailure {
    /// Creates a failure of a node that names no record.
    #[must_use]
    pub fn new(uid: OperatorUid, subtask: u32, doing: &'static str, cause: impl Into<Cause>) -> Self {
        Self {
            uid,
            subtask,
            doing,
            record: None,
            cause: cause.into(),
            policy: None,
            unisolated: false,
        }
    }

    /// Returns true if a retry may succeed, so that a restart from the last checkpoint is worth it.
    ///
    /// It is not where the same input gives the same failure (a guest that fails on a record, state that does not
    /// decode), where input or output has vanished, or where an invariant of the host is broken.
    #[must_use]
    pub const fn restartable(&self) -> bool {
        match &self.cause {
            Cause::Guest(error) => self.unisolated || matches!(error, GuestError::Engine { .. }),
            Cause::Source(error) => matches!(error, SourceError::Io { .. }),
            Cause::Sink(error) => matches!(error, SinkError::Io { .. }),
            Cause::Swap(_) | Cause::Panic(_) => true,
            Cause::Budget { .. } | Cause::Bug(_) | Cause::Endless { .. } => false,
            Cause::Cancelled => true,
        }
    }
}

/// The underlying error of a failure.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The guest failed.
    #[error(transparent)]
    Guest(GuestError),
    /// A new module failed while it took over. With the old one, the job can go on from its last checkpoint.
    #[error("the new module failed: {0}")]
    Swap(GuestError),
    /// The operator's budget of dead letters is exhausted.
    #[error(
        "the operator has more dead letters than `dead-letter.budget` allows, which is {budget}; the next one would be: {error}"
    )]
    Budget {
        /// The limit, as in the job file.
        budget: u64,
        /// The error of the record that no longer fits.
        error: Box<GuestError>,
    },
    /// At the end of all inputs, timers set themselves again without end.
    #[error(
        "at the end of the input, when all event-time timers fire, these timers have set themselves again {times} times: {}. There is no end to it: set none of them in `on_timer` once `cx.watermark()` is `i64::MAX`, or end the job with `stop`, without --drain, or with --savepoint-at-end",
        timers.join(", ")
    )]
    Endless {
        /// Names of the timers.
        timers: Vec<String>,
        /// Number of times, one after the other.
        times: u32,
    },
    /// The job was cancelled meanwhile.
    #[error("the job was cancelled")]
    Cancelled,
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// An invariant of the host is broken.
    #[error(transparent)]
    Bug(#[from] BackendError),
    /// The host's own code panicked.
    #[error("the host panicked: {0}; this is a bug in Regraft, please report it")]
    Panic(String),
}

impl From<GuestError> for Cause {
    /// Maps an interrupted call to [`Cause::Cancelled`]: a call is interrupted only when the subtask is to end, which
    /// is no failure of the guest.
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Interrupted => Self::Cancelled,
            error => Self::Guest(error),
        }
    }
}

impl Cause {
    /// Wraps the error of a new module that cannot take over; an interrupted call becomes [`Cause::Cancelled`].
    #[must_use]
    pub fn of_swap(error: GuestError) -> Self {
        match error {
            GuestError::Interrupted => Self::Cancelled,
            error => Self::Swap(error),
        }
    }
}

/// A record or timer, rendered for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Position in the source, as far as it is known.
    pub position: Option<String>,
    /// Key and content, truncated; `None` where only the batch is known.
    pub content: Option<(String, Shown)>,
    /// Number of records in the batch.
    pub of: usize,
}

/// The content of a row beside its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The value of a record, truncated.
    Value(String),
    /// A timer.
    Timer {
        /// Name of the timer.
        name: String,
        /// Time that it was registered for, in milliseconds.
        time: i64,
    },
}

/// The guest's backtrace, one function per line, innermost first; empty where it is not known.
#[derive(Debug)]
pub struct Backtrace<'a>(pub &'a GuestError);

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, frame) in self.0.backtrace().iter().enumerate() {
            write!(f, "\n  {} {frame}", if i == 0 { "at" } else { "by" })?;
        }
        Ok(())
    }
}

/// Limit in bytes to which keys and values are truncated.
pub(in crate::dataflow) const SHOWN_BYTES_MAX: usize = 200;

/// Renders bytes as quoted text if they are UTF-8, else as hex; truncated to 200 bytes.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = if cut.len() < bytes.len() {
        format!("… ({} bytes)", bytes.len())
    } else {
        String::new()
    };
    let text = match std::str::from_utf8(cut) {
        Ok(text) => Some(text),
        // Truncating in the middle of a character leaves the rest text.
        Err(e) if cut.len() < bytes.len() && e.valid_up_to() + 4 > cut.len() => {
            std::str::from_utf8(&cut[..e.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text) => format!("{text:?}{more}"),
        None => format!("0x{}{more}", cut.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

impl Record {
    /// Describes the row that an error names, or the only row of the batch, else the batch as a whole.
    #[must_use]
    pub fn of(batch: &Batch, row: Option<u32>) -> Self {
        let row = row
            .filter(|row| (*row as usize) < batch.len())
            .or((batch.len() == 1).then_some(0));
        Self {
            position: batch.origin.as_ref().and_then(|origin| match row {
                Some(row) => origin.text(row),
                None => origin.text_of_all(batch.len()),
            }),
            content: row.map(|row| {
                let value = Shown::Value(shown(batch.values.get(row as usize)));
                (shown(batch.key(row as usize)), value)
            }),
            of: batch.len(),
        }
    }

    /// Describes a timer of a key.
    #[must_use]
    pub fn timer(key: &[u8], name: &str, time: i64) -> Self {
        let name = name.to_owned();
        Self {
            position: None,
            content: Some((shown(key), Shown::Timer { name, time })),
            of: 1,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Some((key, Shown::Value(value))) => write!(f, "key {key}, value {value}")?,
            Some((key, Shown::Timer { name, time })) => write!(f, "key {key}, timer \"{name}\" of {time}")?,
            None => write!(f, "one of {} records of a batch; the guest did not say which", self.of)?,
        }
        match &self.position {
            Some(position) => write!(f, ", from {position}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SubtaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.cause {
            Cause::Source(_) => "source",
            Cause::Sink(_) => "sink",
            _ => "operator",
        };
        let Self {
            uid,
            subtask,
            doing,
            cause,
            ..
        } = self;
        write!(f, "{kind} \"{uid}\", subtask {subtask}, failed in {doing}: {cause}")?;
        if let Some(record) = &self.record {
            write!(f, "\n  record: {record}")?;
        }
        if let Cause::Guest(error) | Cause::Swap(error) = &self.cause {
            write!(f, "{}", Backtrace(error))?;
        }
        match self.policy {
            Some(policy) => write!(f, "\n  policy: {policy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_tried_where_the_same_again_may_go_well() {
        let uid = || OperatorUid::new("count").expect("uid");
        let restartable = |cause: Cause| SubtaskFailure::new(uid(), 0, "process", cause).restartable();
        let failed = || GuestError::InvalidOutcome { what: "x".into() };
        let engine = GuestError::Engine {
            doing: "reading state",
            message: "x".into(),
        };
        let io = || std::io::Error::other("x");
        let (doing, path) = ("write", String::new());
        assert!(!restartable(failed().into()));
        assert!(restartable(engine.into()));
        assert!(restartable(Cause::Swap(failed())));
        assert!(restartable(
            SinkError::Io {
                doing,
                path,
                error: io()
            }
            .into()
        ));
        assert!(!restartable(SinkError::Lost { parts: vec![] }.into()));
        let (path, error) = ("a".to_owned(), io());
        assert!(restartable(SourceError::Io { path, error }.into()));
        let (path, error) = ("a".to_owned(), "changed".into());
        assert!(!restartable(SourceError::Input { path, error }.into()));
        assert!(restartable(Cause::Panic(String::new())));
        let (budget, error) = (1, Box::new(failed()));
        assert!(!restartable(Cause::Budget { budget, error }));
        let mut failure = SubtaskFailure::new(uid(), 0, "process", failed());
        failure.unisolated = true;
        assert!(failure.restartable());
    }

    #[test]
    fn long_and_binary_bytes_are_shown_cut() {
        assert_eq!(shown(b"a\tb"), r#""a\tb""#);
        assert_eq!(shown(&[0xff, 0x00]), "0xff00");
        let long = "ä".repeat(150);
        assert_eq!(shown(long.as_bytes()), format!("\"{}\"… (300 bytes)", "ä".repeat(100)));
        let odd = format!("x{long}");
        assert_eq!(shown(odd.as_bytes()), format!("\"x{}\"… (301 bytes)", "ä".repeat(99)));
    }
}
