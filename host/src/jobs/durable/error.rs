//! Errors of starting a job and of going on with one, one variant for each reason, and of committing output.

use std::path::PathBuf;

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{CheckpointId, JobId, OperatorUid};

use super::job_lock::JobLockError;
use super::records::RecordError;
use crate::connector::sink::SinkError;
use crate::environment::Panicked;
use crate::jobs::admission::Refused;
use crate::jobs::deploy::DeployError;
use crate::jobs::handle::{JobError, JobProblem};
use crate::jobs::life::effect::{CommitFailure, PrepareFailure};
use crate::savepoint::compat::Refusal;
use crate::savepoint::metadata::MetadataError;
use crate::storage::StoreError;

/// Failure to start a job, or to go on with one: nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The components do not fit the graph or each other.
    #[error(transparent)]
    Unfit(#[from] Refused),
    /// The location of the checkpoint directory cannot be opened.
    #[error(transparent)]
    Directory(StoreError),
    /// A record of the job cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Another process of this machine runs the job, or it cannot be found out.
    #[error(transparent)]
    Locked(#[from] JobLockError),
    /// The records that a new job begins with cannot be written.
    #[error("the checkpoint directory cannot be used: {0}")]
    NotRecorded(#[source] RecordError),
    /// The directory for the savepoint at the end cannot be written to.
    #[error("the savepoint directory cannot be used: {source}")]
    SavepointDirectory {
        /// The directory, a path or URL.
        dir: String,
        /// Error of the store.
        source: StoreError,
    },
    /// The savepoint that a new job is to start from cannot be read.
    #[error("{source}")]
    Savepoint {
        /// Its location, as it was given.
        location: String,
        /// Error of reading it.
        source: MetadataError,
    },
    /// The savepoint that a job started from cannot be read, and the job has no checkpoint.
    #[error(
        "job {job} has no checkpoint yet, so it goes back to the savepoint that it started from, which must stay until then: {source}"
    )]
    Origin {
        /// Id of the job.
        job: JobId,
        /// Location of the savepoint.
        location: String,
        /// Error of reading it.
        source: MetadataError,
    },
    /// A savepoint or checkpoint cannot be read.
    #[error(transparent)]
    Snapshot(#[from] MetadataError),
    /// The job cannot take over the state of a savepoint or checkpoint.
    #[error("{refusal}")]
    Restore {
        /// Location of the state.
        url: String,
        /// All obstacles.
        refusal: Refusal,
    },
    /// A sink refuses the output that earlier runs of the job have left.
    #[error(
        "{} of earlier runs of this job, {} the first of them, and existing = \"refuse\". Remove them, write elsewhere (--set {}.path=…), or set existing to \"keep\" or \"replace\"",
        .0, .0.first(), .0.uid
    )]
    EarlierOutput(Parts),
    /// The job that took the savepoint has committed output after it.
    #[error(
        "{parts} of a later state than checkpoint {id} of the savepoint, {} the first of them: restoring would write their records again. Remove them, write elsewhere (--set {}.path=…), or allow it with --allow-later-output",
        parts.first(), parts.uid
    )]
    LaterOutput {
        /// Its output.
        parts: Parts,
        /// Round of the savepoint.
        id: CheckpointId,
    },
    /// Another job went on from the savepoint before, and has committed output.
    #[error(
        "{parts} of job \"{name}\" ({job}), {} the first of them, which went on from this savepoint before: restoring it once more would write their records again. {} them, write elsewhere (--set {}.path=…), or allow it with --allow-later-output",
        parts.first(), remedy(checkpoint.as_deref()), parts.uid
    )]
    HeirOutput {
        /// Its output.
        parts: Parts,
        /// Its name.
        name: String,
        /// Its id.
        job: JobId,
        /// Its newest checkpoint, if it has one.
        checkpoint: Option<String>,
    },
    /// A record that every job has is missing.
    #[error(
        "job {job} cannot be brought back: {dir} has no {what}. Put the directory back, or start the job from a savepoint."
    )]
    Missing {
        /// Id of the job.
        job: JobId,
        /// Its directory, as a URL.
        dir: String,
        /// Name of the record.
        what: &'static str,
    },
    /// The newest checkpoint is damaged, and an earlier one does not do.
    #[error("checkpoint {id} of job {job} cannot be used: {}; {}", reason.trim_end_matches('.'), consequence(again.as_ref()))]
    Damaged {
        /// Id of the job.
        job: JobId,
        /// The damaged checkpoint.
        id: CheckpointId,
        /// Its location.
        url: String,
        /// Error of reading it.
        reason: String,
        /// The checkpoint before it, and the parts that would be written again; `None` where there is none.
        again: Option<(CheckpointId, Vec<String>)>,
    },
    /// The component of an operator cannot be loaded.
    #[error("the module of operator \"{uid}\" ({digest}) cannot be loaded: {reason}")]
    Module {
        /// The operator.
        uid: OperatorUid,
        /// SHA-256 of the component.
        digest: String,
        /// Error of the loader.
        reason: String,
    },
    /// The subtasks cannot be built.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The output that a snapshot has pending cannot be committed.
    #[error("the output that {of} has pending cannot be committed: {source}")]
    Commit {
        /// The snapshot, for people.
        of: String,
        /// Error of the sink.
        source: CommitError,
    },
    /// A sink cannot be taken over for the attempt.
    #[error("sink \"{uid}\": {source}")]
    Sink {
        /// The sink.
        uid: OperatorUid,
        /// Its error.
        source: SinkError,
    },
    /// A host whose records this one does not have has gone on with the job.
    #[error(
        "{parts} of later checkpoints of this job than {from}, {} the first of them: a host with other records has run it, and going on would write their records again. Use the checkpoint directory of that host; or remove these parts, to do without them",
        parts.first()
    )]
    Ahead {
        /// The point that this host would go on from, for people.
        from: String,
        /// The output.
        parts: Parts,
    },
    /// A host whose records this one does not have has written output of the job.
    #[error(
        "{parts} of this job, {} the first of them, that a host with other records has written: going on would write their records again. Use the checkpoint directory of that host; or remove these parts, to do without them",
        parts.first()
    )]
    Foreign {
        /// The output.
        parts: Parts,
    },
    /// Another host goes on with the job meanwhile.
    #[error("another host completes one checkpoint after the other meanwhile: it still runs the job")]
    Overtaken,
    /// A broken rule in the host.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Parts in the directory of a sink, which a new job must not add to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("sink \"{uid}\": {} holds {} part(s)", dir.display(), names.len())]
pub struct Parts {
    /// The sink.
    pub uid: OperatorUid,
    /// Its directory.
    pub dir: PathBuf,
    /// Names of the parts, at least one.
    pub names: Vec<String>,
}

impl Parts {
    fn first(&self) -> &str {
        self.names.first().map(String::as_str).unwrap_or_default()
    }
}

/// Output that could not be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", uid.as_ref().map(|uid| format!("sink \"{uid}\": ")).unwrap_or_default())]
pub struct CommitError {
    /// The sink; `None` if another host runs the job.
    pub uid: Option<OperatorUid>,
    /// The sink's own message, or that the host panicked.
    pub message: String,
    /// True if a later try may succeed.
    pub may_pass: bool,
}

impl CommitError {
    /// Returns the error of a process that has lost the job.
    #[must_use]
    pub fn taken() -> Self {
        Self {
            uid: None,
            message: "another host has taken the job over, and has dropped or committed this output: it runs this job now, and two must not"
                .to_owned(),
            may_pass: false,
        }
    }
}

impl AttemptError {
    /// Returns true if another host runs the job: this one must leave all that there is of it.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::NotRecorded(RecordError::Taken { .. })
                | Self::Sink {
                    source: SinkError::Taken { .. },
                    ..
                }
                | Self::Locked(_)
                | Self::Overtaken
        )
    }

    /// Returns a function that makes an error of that of a sink.
    pub(in crate::jobs) fn of_sink(uid: &OperatorUid) -> impl FnOnce(SinkError) -> Self {
        |source| Self::Sink {
            uid: uid.clone(),
            source,
        }
    }

    /// Returns its kind, which says what its reader does next.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unfit(_) => ErrorKind::Usage,
            Self::Damaged { .. } => ErrorKind::Data,
            Self::Savepoint { source, .. } | Self::Origin { source, .. } | Self::Snapshot(source) => source.kind(),
            Self::Deploy(error) => error.kind(),
            _ => ErrorKind::Failed,
        }
    }

    /// Returns the uid of the node that it is about.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        match self {
            Self::Unfit(refused) => refused.uid.as_ref().map(ToString::to_string),
            Self::Restore { refusal, .. } => refusal.uid(),
            Self::Deploy(error) => error.uid().map(ToString::to_string),
            Self::EarlierOutput(parts)
            | Self::LaterOutput { parts, .. }
            | Self::HeirOutput { parts, .. }
            | Self::Ahead { parts, .. }
            | Self::Foreign { parts } => Some(parts.uid.to_string()),
            Self::Module { uid, .. } => Some(uid.to_string()),
            Self::Commit { source, .. } => source.uid.as_ref().map(ToString::to_string),
            Self::Sink { uid, .. } => Some(uid.to_string()),
            _ => None,
        }
    }

    /// Returns the file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        match self {
            Self::Record(error) | Self::NotRecorded(error) => Some(error.path().to_owned()),
            Self::Deploy(error) => error.path().map(str::to_owned),
            Self::Sink { source, .. } => source.path().map(str::to_owned),
            Self::Locked(error) => Some(error.path().display().to_string()),
            Self::EarlierOutput(parts)
            | Self::LaterOutput { parts, .. }
            | Self::HeirOutput { parts, .. }
            | Self::Ahead { parts, .. }
            | Self::Foreign { parts } => Some(parts.dir.display().to_string()),
            Self::SavepointDirectory { dir: path, .. }
            | Self::Savepoint { location: path, .. }
            | Self::Origin { location: path, .. }
            | Self::Restore { url: path, .. }
            | Self::Missing { dir: path, .. }
            | Self::Damaged { url: path, .. } => Some(path.clone()),
            _ => None,
        }
    }

    /// Returns each problem on its own, where there are several; the message has all of them.
    #[must_use]
    pub fn problems(&self) -> Vec<JobProblem> {
        let problems: Vec<JobProblem> = match self {
            Self::Unfit(refused) => refused.problems.iter().map(JobProblem::from).collect(),
            Self::Restore { refusal, .. } => refusal.problems.iter().map(JobProblem::from).collect(),
            _ => vec![],
        };
        if problems.len() < 2 { vec![] } else { problems }
    }

    /// Returns true if another try may succeed.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Record(error) => error.may_pass(),
            Self::Snapshot(source) | Self::Origin { source, .. } => matches!(source, MetadataError::Store(_)),
            Self::Deploy(error) => error.may_pass(),
            Self::Commit { source, .. } => source.may_pass,
            Self::Sink { source, .. } => matches!(source, SinkError::Io { .. }),
            // Its holder may end, and a disk may have room again.
            Self::Overtaken | Self::Locked(_) => true,
            _ => false,
        }
    }
}

/// Returns what to do about the output of a job that went on from a savepoint before.
fn remedy(checkpoint: Option<&str>) -> String {
    match checkpoint {
        Some(checkpoint) => format!("Go on from where it was with run -s {checkpoint}, remove"),
        None => "Remove".to_owned(),
    }
}

/// Returns why the checkpoint before a damaged one does not do.
fn consequence(again: Option<&(CheckpointId, Vec<String>)>) -> String {
    match again {
        None => "and no earlier one is there; keep more of them with checkpoint.retain".to_owned(),
        Some((before, parts)) => format!(
            "and going back to checkpoint {before} would write again what {} part(s) have already, {} the first of them; remove them and start the job from that checkpoint with run -s",
            parts.len(),
            parts.first().map(String::as_str).unwrap_or_default()
        ),
    }
}

impl From<StoreError> for AttemptError {
    fn from(error: StoreError) -> Self {
        RecordError::from(error).into()
    }
}

impl From<AttemptError> for PrepareFailure {
    fn from(error: AttemptError) -> Self {
        Self {
            may_pass: error.may_pass(),
            error: JobError {
                kind: error.kind(),
                message: error.to_string(),
                uid: error.uid(),
                path: error.path(),
            },
        }
    }
}

impl From<CommitError> for CommitFailure {
    fn from(error: CommitError) -> Self {
        let CommitError { uid, message, may_pass } = error;
        Self { uid, message, may_pass }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_bits(7);
    const ID: &str = "00000000000000000000000000000007";

    fn uid() -> OperatorUid {
        OperatorUid::new("out").expect("a uid")
    }

    #[test]
    fn every_reason_has_its_text() {
        let parts = || Parts {
            uid: uid(),
            dir: "/out".into(),
            names: vec!["part-1".to_owned(), "part-2".to_owned()],
        };
        let heir = |checkpoint: Option<&str>| AttemptError::HeirOutput {
            parts: parts(),
            name: "words".to_owned(),
            job: JOB,
            checkpoint: checkpoint.map(str::to_owned),
        };
        let damaged = |again| AttemptError::Damaged {
            job: JOB,
            id: CheckpointId(9),
            url: "file:///chk-9".to_owned(),
            reason: "why".to_owned(),
            again,
        };
        let later = AttemptError::LaterOutput {
            parts: parts(),
            id: CheckpointId(9),
        };
        let ahead = AttemptError::Ahead {
            from: "checkpoint 3".to_owned(),
            parts: parts(),
        };
        let sink = AttemptError::Sink {
            uid: uid(),
            source: SinkError::Taken {
                found: "why".to_owned(),
            },
        };
        let missing = AttemptError::Missing {
            job: JOB,
            dir: "file:///job".to_owned(),
            what: "versions",
        };
        let module = AttemptError::Module {
            uid: uid(),
            digest: "ab12".to_owned(),
            reason: "why".to_owned(),
        };
        let commit = AttemptError::Commit {
            of: "checkpoint 9".to_owned(),
            source: CommitError {
                uid: Some(uid()),
                message: "why".to_owned(),
                may_pass: false,
            },
        };
        let origin = AttemptError::Origin {
            job: JOB,
            location: "/sp".to_owned(),
            source: MetadataError::FileMissing {
                path: "file:///sp/a".to_owned(),
            },
        };
        let taken = AttemptError::NotRecorded(RecordError::Taken {
            path: "file:///job/1".to_owned(),
        });
        let again = "restoring it once more would write their records again.";
        for (error, text) in [
            (AttemptError::EarlierOutput(parts()), "sink \"out\": /out holds 2 part(s) of earlier runs of this job, part-1 the first of them, and existing = \"refuse\". Remove them, write elsewhere (--set out.path=…), or set existing to \"keep\" or \"replace\"".to_owned()),
            (later, "sink \"out\": /out holds 2 part(s) of a later state than checkpoint 9 of the savepoint, part-1 the first of them: restoring would write their records again. Remove them, write elsewhere (--set out.path=…), or allow it with --allow-later-output".to_owned()),
            (heir(None), format!("sink \"out\": /out holds 2 part(s) of job \"words\" ({ID}), part-1 the first of them, which went on from this savepoint before: {again} Remove them, write elsewhere (--set out.path=…), or allow it with --allow-later-output")),
            (heir(Some("file:///chk-9")), format!("sink \"out\": /out holds 2 part(s) of job \"words\" ({ID}), part-1 the first of them, which went on from this savepoint before: {again} Go on from where it was with run -s file:///chk-9, remove them, write elsewhere (--set out.path=…), or allow it with --allow-later-output")),
            (missing, format!("job {ID} cannot be brought back: file:///job has no versions. Put the directory back, or start the job from a savepoint.")),
            (damaged(None), format!("checkpoint 9 of job {ID} cannot be used: why; and no earlier one is there; keep more of them with checkpoint.retain")),
            (damaged(Some((CheckpointId(8), parts().names))), format!("checkpoint 9 of job {ID} cannot be used: why; and going back to checkpoint 8 would write again what 2 part(s) have already, part-1 the first of them; remove them and start the job from that checkpoint with run -s")),
            (module, "the module of operator \"out\" (ab12) cannot be loaded: why".to_owned()),
            (commit, "the output that checkpoint 9 has pending cannot be committed: sink \"out\": why".to_owned()),
            (origin, format!("job {ID} has no checkpoint yet, so it goes back to the savepoint that it started from, which must stay until then: file:///sp/a is missing, but _metadata lists it. A savepoint is moved or copied as a whole directory.")),
            (taken, "the checkpoint directory cannot be used: file:///job/1 has been written by another host: it runs this job now, and two must not".to_owned()),
            (ahead, "sink \"out\": /out holds 2 part(s) of later checkpoints of this job than checkpoint 3, part-1 the first of them: a host with other records has run it, and going on would write their records again. Use the checkpoint directory of that host; or remove these parts, to do without them".to_owned()),
            (sink, "sink \"out\": another host has taken this job over: why; it runs this job now, and two must not. This one writes nothing more: stop one of the two hosts, or, where this one is the only one, start it again".to_owned()),
            (AttemptError::Overtaken, "another host completes one checkpoint after the other meanwhile: it still runs the job".to_owned()),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_record_that_the_store_does_not_give_is_tried_again() {
        let store = || StoreError::NotFound { path: "p".to_owned() };
        assert!(AttemptError::from(store()).may_pass());
        assert!(AttemptError::from(MetadataError::from(store())).may_pass());
        assert!(!AttemptError::Directory(store()).may_pass());
    }
}
