//! Names of parts and of the directories in which they are pending.
//!
//! A part is pending in `PATH/.pending/<JobID>/a<attempt>-<random>/` and renamed on commit to
//! `PATH/part-<uid>-<subtask>-<first 12 of JobID>-<checkpoint>-<n>.<ext>`, where `n` is the first number whose name is free.
//! Pure.

use regraft_model::id::{AttemptId, CheckpointId, JobId, OperatorUid};
use xxhash_rust::xxh3::xxh3_64;

use crate::connector::sink::SinkContext;

/// Directory of pending parts, in the sink's directory.
pub(super) const PENDING: &str = ".pending";
/// Prefix of the directory for parts that a snapshot names, of an attempt whose own directory is gone.
const KEPT: &str = "kept-";
/// Hex digits of the JobID in the name of a part. Names of version 0.1 have six.
const JOB_DIGITS: usize = 12;

/// Returns the directory of a job's pending parts, relative to the sink's.
pub(super) fn pending_dir(job_id: JobId) -> String {
    format!("{PENDING}/{job_id}")
}

/// The directory in which the parts of one attempt at one sink are pending: `a<attempt>-<random>`.
///
/// The first eight of the 16 hex digits are those of the uid, since two sinks of a job may write to one directory; the others
/// are random, since hosts that do not know of each other may number their attempts alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttemptDir {
    /// The attempt.
    pub(super) attempt: AttemptId,
    uid: u32,
    nonce: u32,
}

impl AttemptDir {
    /// Returns the directory of an attempt at a sink.
    pub(super) fn new(attempt: AttemptId, nonce: u32, uid: &OperatorUid) -> Self {
        let uid = digits_of(uid);
        Self { attempt, uid, nonce }
    }

    /// Reads the name of a directory; `None` if it is not that of an attempt.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (attempt, random) = name.strip_prefix('a')?.split_once('-')?;
        let part = |range| u32::from_str_radix(random.get(range)?, 16).ok();
        let parsed = Self {
            attempt: AttemptId(attempt.parse().ok()?),
            uid: part(0..8)?,
            nonce: part(8..16)?,
        };
        // Of all spellings of a number only one is the name.
        (parsed.name() == name).then_some(parsed)
    }

    /// Returns its name.
    pub(super) fn name(self) -> String {
        format!("a{}-{:08x}{:08x}", self.attempt, self.uid, self.nonce)
    }

    /// Returns the name of the directory for those of its parts that outlive it since a snapshot names them.
    pub(super) fn kept_name(self) -> String {
        format!("{KEPT}{}", self.name())
    }

    /// Returns the attempt's directory whose parts are kept in the directory of this name.
    pub(super) fn parse_kept(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix(KEPT)?)
    }

    /// Returns true if it is that of an attempt at this sink.
    pub(super) fn is_of(self, uid: &OperatorUid) -> bool {
        self.uid == digits_of(uid)
    }
}

fn digits_of(uid: &OperatorUid) -> u32 {
    (xxh3_64(uid.as_str().as_bytes()) >> 32) as u32
}

/// Returns the uid in the name of a pending part, `<uid>-<subtask>-v<version>-a<attempt>-<n>.<ext>`.
pub(super) fn uid_of_pending(name: &str) -> Option<&str> {
    let (stem, _) = name.rsplit_once('.')?;
    let mut fields = stem.rsplitn(5, '-');
    let is = |field: Option<&str>, prefix: &str| {
        field
            .and_then(|field| field.strip_prefix(prefix))
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let plain = is(fields.next(), "") && is(fields.next(), "a") && is(fields.next(), "v") && is(fields.next(), "");
    fields.next().filter(|_| plain)
}

/// Returns the directory of the pending parts of an attempt at a sink, relative to the sink's.
pub(super) fn attempt_dir(of: &SinkContext) -> String {
    let dir = AttemptDir::new(of.attempt, of.nonce, &of.uid);
    format!("{}/{}", pending_dir(of.job_id), dir.name())
}

/// Returns the path of the `n`-th pending part of an attempt, relative to the sink's directory.
pub(super) fn pending(of: &SinkContext, n: u64, extension: &str) -> String {
    let SinkContext {
        uid,
        subtask,
        attempt,
        version,
        ..
    } = of;
    let dir = attempt_dir(of);
    format!("{dir}/{uid}-{subtask}-v{version}-a{attempt}-{n}.{extension}")
}

/// Returns the name that a part has once it is committed.
pub(super) fn committed(of: &SinkContext, id: CheckpointId, extension: &str) -> String {
    let (uid, subtask, job) = (&of.uid, of.subtask, of.job_id.to_string());
    let job = job.get(..JOB_DIGITS).unwrap_or(&job);
    format!("part-{uid}-{subtask}-{job}-{id}-0.{extension}")
}

/// Returns true if the digits of a part's name are the first ones of a JobID.
pub(super) fn is_short_for(digits: &str, job_id: JobId) -> bool {
    digits == job_id.short() || digits.len() == JOB_DIGITS && job_id.to_string().starts_with(digits)
}

/// The name of a committed part, `part-<uid>-<subtask>-<digits of JobID>-<checkpoint>-<n>.<ext>`, in its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartName<'a> {
    pub(super) uid: &'a str,
    pub(super) job: &'a str,
    pub(super) checkpoint: u64,
}

impl<'a> PartName<'a> {
    /// Reads the name of a file; `None` if it is not a part's.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let (stem, _) = name
            .strip_prefix("part-")?
            .rsplit_once('.')
            .filter(|_| !name.contains('/'))?;
        // A uid may have hyphens.
        let mut fields = stem.rsplitn(5, '-');
        let _: u32 = fields.next()?.parse().ok()?;
        let checkpoint = fields.next()?.parse().ok()?;
        let job = fields.next()?;
        let _: u32 = fields.next()?.parse().ok()?;
        let is_job = matches!(job.len(), 6 | JOB_DIGITS) && job.bytes().all(|b| b.is_ascii_hexdigit());
        let uid = fields.next()?;
        is_job.then_some(Self { uid, job, checkpoint })
    }

    /// Returns true if it is the name of a part of this sink.
    pub(super) fn is_of(name: &str, uid: &OperatorUid) -> bool {
        PartName::parse(name).is_some_and(|part| part.uid == uid.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_name_of_a_directory_is_read_as_it_was(attempt: u32, nonce: u32) {
            let uid = OperatorUid::new("out").expect("a uid");
            let dir = AttemptDir::new(AttemptId(attempt), nonce, &uid);
            prop_assert_eq!(AttemptDir::parse(&dir.name()), Some(dir));
            prop_assert_eq!(AttemptDir::parse_kept(&dir.kept_name()), Some(dir));
            prop_assert_eq!(AttemptDir::parse(&dir.kept_name()), None);
        }
    }
}
