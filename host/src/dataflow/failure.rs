//! Why a subtask failed, as it is shown to people: uid, subtask, record, cause, backtrace, policy.

use std::fmt;

use regraft_guest_runtime::trap::GuestError;
use regraft_model::batch::Batch;
use regraft_model::id::OperatorUid;

use super::sink::SinkError;
use super::source::SourceError;
use crate::state::backend::BackendError;

/// A failed subtask.
#[derive(Debug)]
pub struct SubtaskFailure {
    /// The node that failed.
    pub uid: OperatorUid,
    /// Its subtask, from 0.
    pub subtask: u32,
    /// What it was doing.
    pub doing: &'static str,
    /// The record at fault, where it is known.
    pub record: Option<Record>,
    /// Why.
    pub cause: Cause,
}

impl SubtaskFailure {
    /// Whether the same again may go well: a restart from the last checkpoint is worth it.
    ///
    /// It is not where the same input gives the same failure (a guest that fails on a record, state that does not
    /// decode), where input or output has vanished, and where a rule of the host is broken.
    #[must_use]
    pub const fn restartable(&self) -> bool {
        match &self.cause {
            Cause::Guest(error) => matches!(error, GuestError::Engine { .. }),
            Cause::Source(error) => matches!(error, SourceError::Io { .. }),
            Cause::Sink(error) => matches!(error, SinkError::Io { .. }),
            Cause::Bug(_) => false,
            Cause::Panic(_) => true,
        }
    }
}

/// What went wrong below.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// In the guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Reading.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Writing.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A broken rule in the host.
    #[error(transparent)]
    Bug(#[from] BackendError),
    /// The host's own code panicked.
    #[error("the host panicked: {0}; this is a bug in Regraft, please report it")]
    Panic(String),
}

/// A record, shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it came from, as far as that is known.
    pub position: Option<String>,
    /// Its key and value, cut; none where only the batch is known.
    pub content: Option<(String, String)>,
    /// How many records the batch had.
    pub of: usize,
}

/// Where a guest was when it failed, one function a line, innermost first; nothing where that is not known.
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

/// Longer keys and values are cut to this many bytes.
const SHOWN_BYTES_MAX: usize = 200;

/// Bytes as text where they are text, else as hex; cut.
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
        // A cut in the middle of a character is still text.
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
    /// The record that an error names, or the batch it is in.
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
            content: row.map(|row| (shown(batch.key(row as usize)), shown(batch.values.get(row as usize)))),
            of: batch.len(),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Some((key, value)) => write!(f, "key {key}, value {value}")?,
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
            Cause::Guest(_) | Cause::Bug(_) | Cause::Panic(_) => "operator",
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
        if let Cause::Guest(error) = &self.cause {
            write!(f, "{}\n  policy: on-trap = \"fail\": the job fails", Backtrace(error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
