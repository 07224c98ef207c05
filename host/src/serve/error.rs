//! Errors of a host, one variant for each refusal and each failure. `api` and `cli` print them.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use regraft_guest_runtime::module_error::ModuleError;
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{JobId, OperatorUid};

use super::catalog::CatalogError;
use crate::dataflow::workers::SUBTASKS_MAX;
use crate::graph::JobFileError;
use crate::jobs::durable::error::AttemptError;
use crate::jobs::durable::records::RecordError;
use crate::jobs::handle::{JobError, JobProblem};
use crate::jobs::profile::ProfileError;
use crate::jobs::status::JobStatus;
use crate::storage::StoreError;
use crate::upgrade::error::UpgradeError;

/// An operation of a host that was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The host has no such job.
    #[error("there is no job {0} on this host")]
    NoSuchJob(String),
    /// No such operation was begun, or it was dropped.
    #[error("no operation {id} of job {job} is remembered on this host")]
    NoSuchOperation {
        /// Id of the job, as it was given.
        job: String,
        /// Id of the operation.
        id: String,
    },
    /// The task of an operation has panicked.
    #[error("an operation on job {0} has ended without a result; the log of the host says why")]
    Broken(JobId),
    /// A job file is larger than any may be.
    #[error(
        "the job file {file} has {bytes} bytes, and at most {max} are read; leave out comments, or move data that it holds into files"
    )]
    JobFileTooLarge {
        /// The file, as the user named it.
        file: String,
        /// Its size.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// A component was not uploaded, or it was dropped.
    #[error("no module {digest} has been uploaded")]
    NoSuchModule {
        /// The operator that it is for.
        uid: OperatorUid,
        /// SHA-256 of the component.
        digest: String,
    },
    /// A submission has a component for an operator that its job does not have.
    #[error("the job has no operator \"{0}\"")]
    NoSuchOperator(OperatorUid),
    /// A submission has no component for an operator of its job.
    #[error("operator \"{0}\" has no module in the submission")]
    WithoutModule(OperatorUid),
    /// An uploaded component cannot be run.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A component in the catalog cannot be read or loaded.
    #[error("{source}")]
    Component {
        /// The operator that it is for.
        uid: OperatorUid,
        /// Error of the catalog or of the engine.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The job is not in a stage for this operation.
    #[error("job {job} is {status}, not RUNNING")]
    NotRunning {
        /// Id of the job.
        job: JobId,
        /// Its stage.
        status: JobStatus,
    },
    /// The job could not be brought back.
    #[error(
        "job {job} is {status}, not RUNNING, and is not brought back yet: {}. {} tries again; `regraft cancel {job}` gives it up, and keeps its checkpoints",
        failure.as_deref().unwrap_or("no reason is known"),
        next_host(*status)
    )]
    Held {
        /// Id of the job.
        job: JobId,
        /// Its stage.
        status: JobStatus,
        /// Reason, where one is known.
        failure: Option<String>,
    },
    /// Another host has taken the job over.
    #[error(
        "job {job} is not this host's any more: {}. Ask the host that runs it; this one touches nothing of the job, and forgets it at its end",
        failure.as_deref().unwrap_or("another host has taken it over")
    )]
    Lost {
        /// Id of the job.
        job: JobId,
        /// Reason, where one is known.
        failure: Option<String>,
    },
    /// The host runs a single job, and takes no others.
    #[error(
        "this host is a `regraft run` with a job of its own and takes no others: start `regraft serve`, and submit to that"
    )]
    Attached,
    /// The jobs of the host would have more subtasks than a host runs.
    #[error(
        "the job has {found} subtasks and those of this host have {running}, and a host runs at most {SUBTASKS_MAX}; lower its parallelism (-p), stop a job of this host, or submit it to another host"
    )]
    TooManySubtasks {
        /// Subtasks of the job.
        found: u64,
        /// Subtasks of all other jobs that have not ended.
        running: u64,
    },
    /// The host is ending.
    #[error("this host is ending and takes no more jobs")]
    Ending,
    /// A job of the same name runs.
    #[error(
        "a job named \"{name}\" {} ({job}); {} it, give this one another name with --name, or allow it with --allow-same-name",
        if *suspended { "is suspended, and goes on when `regraft serve` is started" } else { "is running already" },
        if *suspended { "wait until it is brought back, or cancel" } else { "stop" }
    )]
    SameName {
        /// Name of both jobs.
        name: String,
        /// Id of the other job.
        job: JobId,
        /// True if the other job waits to be brought back.
        suspended: bool,
    },
    /// A job that writes to the same directory runs.
    #[error(
        "{} to {}, where job \"{name}\" ({job}) writes {}; write elsewhere (--set {uid}.{}=…), or allow it with --allow-shared-output",
        writer(uid, *dead_letters),
        dir.display(),
        if *suspended { "when `regraft serve` brings it back" } else { "already" },
        if *dead_letters { "dead-letter.path" } else { "path" }
    )]
    SharedOutput {
        /// The sink, or the operator with dead letters.
        uid: OperatorUid,
        /// True for dead letters.
        dead_letters: bool,
        /// The directory.
        dir: PathBuf,
        /// Name of the other job.
        name: String,
        /// Id of the other job.
        job: JobId,
        /// True if the other job waits to be brought back.
        suspended: bool,
    },
    /// A sink would remove output from a directory that others may write to.
    #[error(
        "\"{0}\": existing = \"replace\" and --allow-shared-output do not go together, since it would remove output from a directory that another job writes to; leave one of them out"
    )]
    ReplacesShared(OperatorUid),
    /// The checkpoint directory has nothing of a job that was started.
    #[error(
        "{dir} has nothing of job {job} any more, not even how it started. Put its directory back, or start the job from a savepoint"
    )]
    Gone {
        /// Checkpoint directory.
        dir: String,
        /// Id of the job.
        job: JobId,
    },
    /// No savepoint was taken.
    #[error("{}{}", .0, .0.consequence())]
    Savepoint(#[source] SavepointError),
    /// The host keeps no logs.
    #[error("job {0} runs attached: its log is what its `regraft run` prints on stderr")]
    NoLog(JobId),
    /// A log cannot be read.
    #[error("the log of job {job} cannot be read: {source}")]
    Log {
        /// Id of the job.
        job: JobId,
        /// Error of the file system.
        source: io::Error,
    },
    /// The list of jobs cannot be read when the host starts.
    #[error("the jobs of this host cannot be read: {0}")]
    NotOpened(#[source] CatalogError),
    /// A job cannot be written to the list.
    #[error("the job could not be taken in: {0}")]
    NotTakenIn(#[source] CatalogError),
    /// A list of jobs cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A record of a job cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
    /// A job file has problems.
    #[error(transparent)]
    JobFile(#[from] JobFileError),
    /// A job cannot be started, brought back or given up.
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    /// A running job cannot be upgraded.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// A guest cannot be profiled.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The job failed.
    #[error(transparent)]
    Job(#[from] JobError),
}

/// Failure to take a savepoint; the job goes on.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    /// The job is not in a stage to be saved.
    #[error("job {job} is {status}, not RUNNING: nothing can be saved")]
    NotRunning {
        /// Id of the job.
        job: JobId,
        /// Its stage.
        status: JobStatus,
    },
    /// Neither the request nor the job names a directory.
    #[error(
        "no savepoint directory is known for job {0}: name one with the command (`regraft savepoint JOB DIR`, `regraft stop JOB --savepoint-path DIR`), or set `dir` in [savepoint] of the job file (Flink's state.savepoints.dir)"
    )]
    NoDirectory(JobId),
    /// The directory cannot be written to.
    #[error("the savepoint directory cannot be used: {}", source.to_string().trim_end_matches('.'))]
    Directory {
        /// The directory, a path or URL.
        dir: String,
        /// Error of the store.
        source: StoreError,
    },
    /// The round failed.
    #[error(transparent)]
    Round(JobError),
}

impl HostError {
    /// Returns its kind, which says what its reader does next.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchJob(_)
            | Self::NoSuchOperation { .. }
            | Self::JobFileTooLarge { .. }
            | Self::NoSuchModule { .. }
            | Self::NoSuchOperator(_)
            | Self::WithoutModule(_)
            | Self::Module(_)
            | Self::ReplacesShared(_)
            | Self::JobFile(_) => ErrorKind::Usage,
            Self::Attempt(error) => error.kind(),
            Self::Upgrade(error) => error.kind(),
            Self::Profile(error) => error.kind(),
            Self::Job(error) | Self::Savepoint(SavepointError::Round(error)) => error.kind,
            Self::Broken(_) => ErrorKind::Bug,
            _ => ErrorKind::Failed,
        }
    }

    /// Returns the uid of the node that it is about.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        match self {
            Self::NoSuchModule { uid, .. }
            | Self::NoSuchOperator(uid)
            | Self::WithoutModule(uid)
            | Self::Component { uid, .. }
            | Self::SharedOutput { uid, .. }
            | Self::ReplacesShared(uid) => Some(uid.to_string()),
            Self::Attempt(error) => error.uid(),
            Self::Upgrade(error) => error.uid(),
            Self::Profile(error) => error.uid(),
            Self::Job(error) | Self::Savepoint(SavepointError::Round(error)) => error.uid.clone(),
            _ => None,
        }
    }

    /// Returns the file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        match self {
            Self::SharedOutput { dir: path, .. } | Self::Io { path, .. } => Some(path.display().to_string()),
            Self::Gone { dir, .. } | Self::Savepoint(SavepointError::Directory { dir, .. }) => Some(dir.clone()),
            Self::Attempt(error) => error.path(),
            Self::Upgrade(error) => error.path(),
            Self::Job(error) | Self::Savepoint(SavepointError::Round(error)) => error.path.clone(),
            _ => None,
        }
    }

    /// Returns each problem on its own, where there are several; the message has all of them.
    #[must_use]
    pub fn problems(&self) -> Vec<JobProblem> {
        match self {
            Self::Attempt(error) => error.problems(),
            Self::Upgrade(error) => error.problems(),
            _ => vec![],
        }
    }

    /// Returns true if another try may succeed.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Attempt(error) if error.may_pass())
    }
}

impl SavepointError {
    /// Returns what becomes of the job, where the text does not say so.
    const fn consequence(&self) -> &'static str {
        match self {
            Self::NotRunning { .. } | Self::Round(_) => "",
            Self::NoDirectory(_) | Self::Directory { .. } => "; the job goes on",
        }
    }
}

/// Returns the host that tries again to bring a job back.
fn next_host(status: JobStatus) -> &'static str {
    if status == JobStatus::Restarting {
        "This host"
    } else {
        "The next `regraft serve`"
    }
}

fn writer(uid: &OperatorUid, dead_letters: bool) -> String {
    if dead_letters {
        format!("operator \"{uid}\" writes dead letters")
    } else {
        format!("sink \"{uid}\" writes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_bits(7);
    const ID: &str = "00000000000000000000000000000007";

    #[test]
    fn every_refusal_has_its_text() {
        let uid = || OperatorUid::new("out").expect("a uid");
        let shared = |dead_letters| HostError::SharedOutput {
            uid: uid(),
            dead_letters,
            dir: "/out".into(),
            name: "words".to_owned(),
            job: JOB,
            suspended: false,
        };
        let held = |status, failure: Option<&str>| HostError::Held {
            job: JOB,
            status,
            failure: failure.map(str::to_owned),
        };
        let module = HostError::NoSuchModule {
            uid: uid(),
            digest: "ab12".to_owned(),
        };
        let trigger = HostError::NoSuchOperation {
            job: "7".to_owned(),
            id: "9".to_owned(),
        };
        let not_running = HostError::NotRunning {
            job: JOB,
            status: JobStatus::Finished,
        };
        let unsaved = HostError::Savepoint(SavepointError::NotRunning {
            job: JOB,
            status: JobStatus::Restarting,
        });
        let same_name = HostError::SameName {
            name: "words".to_owned(),
            job: JOB,
            suspended: false,
        };
        let gone = HostError::Gone {
            dir: "/data/checkpoints".to_owned(),
            job: JOB,
        };
        let log = HostError::Log {
            job: JOB,
            source: io::Error::other("no"),
        };
        let file = HostError::Io {
            path: "/data".into(),
            source: io::Error::other("no"),
        };
        let damaged = || CatalogError::Damaged {
            path: "p".to_owned(),
            reason: "r".to_owned(),
        };
        let left =
            "p is damaged: r. The job is left as it is; start it anew from a savepoint or checkpoint, and remove p.";
        for (error, text) in [
            (HostError::NoSuchJob("7".to_owned()), "there is no job 7 on this host".to_owned()),
            (trigger, "no operation 9 of job 7 is remembered on this host".to_owned()),
            (module, "no module ab12 has been uploaded".to_owned()),
            (HostError::Broken(JOB), format!("an operation on job {ID} has ended without a result; the log of the host says why")),
            (HostError::JobFileTooLarge { file: "j.toml".to_owned(), bytes: 9, max: 8 }, "the job file j.toml has 9 bytes, and at most 8 are read; leave out comments, or move data that it holds into files".to_owned()),
            (HostError::NoSuchOperator(uid()), "the job has no operator \"out\"".to_owned()),
            (HostError::WithoutModule(uid()), "operator \"out\" has no module in the submission".to_owned()),
            (not_running, format!("job {ID} is FINISHED, not RUNNING")),
            (held(JobStatus::Restarting, Some("no space")), format!("job {ID} is RESTARTING, not RUNNING, and is not brought back yet: no space. This host tries again; `regraft cancel {ID}` gives it up, and keeps its checkpoints")),
            (held(JobStatus::Suspended, None), format!("job {ID} is SUSPENDED, not RUNNING, and is not brought back yet: no reason is known. The next `regraft serve` tries again; `regraft cancel {ID}` gives it up, and keeps its checkpoints")),
            (HostError::Attached, "this host is a `regraft run` with a job of its own and takes no others: start `regraft serve`, and submit to that".to_owned()),
            (HostError::TooManySubtasks { found: 4000, running: 8000 }, "the job has 4000 subtasks and those of this host have 8000, and a host runs at most 8192; lower its parallelism (-p), stop a job of this host, or submit it to another host".to_owned()),
            (HostError::Ending, "this host is ending and takes no more jobs".to_owned()),
            (same_name, format!("a job named \"words\" is running already ({ID}); stop it, give this one another name with --name, or allow it with --allow-same-name")),
            (shared(false), format!("sink \"out\" writes to /out, where job \"words\" ({ID}) writes already; write elsewhere (--set out.path=…), or allow it with --allow-shared-output")),
            (shared(true), format!("operator \"out\" writes dead letters to /out, where job \"words\" ({ID}) writes already; write elsewhere (--set out.dead-letter.path=…), or allow it with --allow-shared-output")),
            (HostError::ReplacesShared(uid()), "\"out\": existing = \"replace\" and --allow-shared-output do not go together, since it would remove output from a directory that another job writes to; leave one of them out".to_owned()),
            (gone, format!("/data/checkpoints has nothing of job {ID} any more, not even how it started. Put its directory back, or start the job from a savepoint")),
            (HostError::NoLog(JOB), format!("job {ID} runs attached: its log is what its `regraft run` prints on stderr")),
            (log, format!("the log of job {ID} cannot be read: no")),
            (file, "/data: no".to_owned()),
            (HostError::NotOpened(damaged()), format!("the jobs of this host cannot be read: {left}")),
            (HostError::NotTakenIn(damaged()), format!("the job could not be taken in: {left}")),
            (unsaved, format!("job {ID} is RESTARTING, not RUNNING: nothing can be saved")),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_savepoint_that_is_not_taken_leaves_the_job_running() {
        let source = StoreError::Permission {
            operation: "write",
            path: "file:///sp".to_owned(),
        };
        let dir = "/sp".to_owned();
        let error = HostError::Savepoint(SavepointError::Directory { dir, source });
        assert_eq!(
            error.to_string(),
            "the savepoint directory cannot be used: no permission to write file:///sp. Check its owner and mode, or choose another directory; the job goes on"
        );
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::Failed, Some("/sp".to_owned()))
        );
        let round = HostError::Savepoint(SavepointError::Round(JobError::failed("no")));
        assert_eq!(round.to_string(), "no");
    }
}
