//! The protocol's vocabulary: inputs that report what happened, effects that say what to do.
//!
//! Effects marked *beside* run beside the control loop and are answered by exactly one input; all others are done at once,
//! in the order in which they are given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use regraft_model::id::{AttemptId, CheckpointId, JobVersion, OperatorUid};

use super::failure::JobFailure;
use crate::checkpoint::round::Acknowledged;
use crate::checkpoint::store::{JobFacts, Stored};
use crate::dataflow::control::Event;
use crate::dataflow::element::SwapSet;
use crate::dataflow::operator::{Modules, OperatorModule};
use crate::graph::plan::{RegionIndex, SubtaskId};
use crate::jobs::handle::{JobError, SnapshotReport};
use crate::jobs::observe::{PastRound, RoundSummary};
use crate::jobs::request::{RequestId, SavepointTarget, SnapshotRequest};
use crate::jobs::status::JobStatus;
use crate::savepoint::metadata::Ancestor;
use crate::savepoint::permit::CommitPermit;
use regraft_model::snapshot::SnapshotKind;

/// Readings that come with each input.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic nanoseconds.
    pub now_ns: u64,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Random bits, for the jitter of restarts.
    pub random: u64,
    /// Number of old checkpoints that are to be removed.
    pub to_be_removed: usize,
}

/// Something that happened to a job.
#[derive(Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// An event of a subtask, with the attempt that the subtask belongs to.
    Event(AttemptId, Event),
    /// A user asks for a snapshot.
    Asked(RequestId, SnapshotRequest),
    /// A user cancels the job.
    Cancel,
    /// The host ends, and leaves the job as it is for another process.
    Suspend,
    /// Threads of a region could not be started.
    NotStarted(RegionIndex, String),
    /// URL of the directory in which a round is being stored.
    Located(CheckpointId, String),
    /// Answers [`Effect::Join`]: all threads of a region have ended.
    Joined(RegionIndex),
    /// Answers [`Effect::Store`].
    Stored(CheckpointId, StoreOutcome),
    /// Answers [`Effect::RecordVersion`].
    Recorded(CheckpointId, Result<(), RecordFailure>),
    /// Answers [`Effect::Commit`]; true if there was something to commit.
    Committed(CheckpointId, Result<bool, CommitFailure>),
    /// Answers [`Effect::Prepare`].
    Prepared(Result<Next, PrepareFailure>),
    /// Answers [`Effect::RemoveOld`].
    OldRemoved,
    /// Answers [`Effect::RemoveSavepoint`]: files of that savepoint are still there.
    StillThere(CheckpointId),
    /// Answers any other effect that runs beside the loop.
    Noted,
}

/// Result of storing a round.
#[derive(Debug)]
pub enum StoreOutcome {
    /// The round is durable.
    Durable(Box<Stored>),
    /// It is not, and nothing of it is left.
    Failed {
        /// The reason.
        why: String,
        /// The operator whose state can never be saved as it is.
        at_fault: Option<OperatorUid>,
    },
    /// It is not, since a process that has lost the job has written a round of the same number. It does not count as failed.
    Occupied(String),
    /// Nothing was written, since the target cannot be used.
    NotBegun(String),
    /// It may be durable: the store did not say, and does not let it be removed.
    Unclear(String),
}

/// A version record that was not created, or may have been.
#[derive(Debug, Clone)]
pub struct RecordFailure {
    /// The reason.
    pub message: String,
    /// True if another try may succeed.
    pub may_pass: bool,
}

/// Output of a durable round that could not be made visible.
#[derive(Debug, Clone)]
pub struct CommitFailure {
    /// The sink; `None` if another host runs the job.
    pub uid: Option<OperatorUid>,
    /// The reason.
    pub message: String,
    /// True if another try may succeed.
    pub may_pass: bool,
}

/// An attempt that did not come about.
#[derive(Debug, Clone)]
pub struct PrepareFailure {
    /// The reason.
    pub error: JobError,
    /// True if another try may succeed.
    pub may_pass: bool,
}

/// Result of preparing an attempt.
#[derive(Debug)]
pub enum Next {
    /// Subtasks of these regions are ready to run.
    Run(Box<Ready>),
    /// Nothing is left to run, and all output is committed.
    Over(Box<Over>),
}

/// An attempt whose subtasks are ready to run.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its number.
    pub attempt: AttemptId,
    /// The version it runs.
    pub version: JobVersion,
    /// The modules of that version.
    pub modules: Modules,
    /// The checkpoint it goes on from; `None` for the savepoint that the job started from, or the beginning.
    pub restored: Option<CheckpointId>,
    /// Its origin, for people.
    pub from: String,
    /// Savepoints that the job descends from, nearest first.
    pub lineage: Vec<Ancestor>,
    /// Its rounds have greater numbers than this one.
    pub last_id: CheckpointId,
    /// Complete checkpoints, oldest first.
    pub checkpoints: VecDeque<CheckpointId>,
    /// Recorded savepoints whose output may not be committed yet.
    pub savepoints: BTreeSet<CheckpointId>,
    /// The regions whose subtasks are ready.
    pub regions: Vec<RegionIndex>,
}

/// The end of a job that only has to be announced.
#[derive(Debug, Clone)]
pub struct Over {
    /// Its last round.
    pub checkpoint_id: CheckpointId,
    /// The savepoint that ended it, as a URL.
    pub savepoint: Option<String>,
    /// State of each sink's subtasks in that round.
    pub sink_states: SinkStates,
}

/// States of the subtasks of each sink, as its connector saved them.
pub type SinkStates = BTreeMap<OperatorUid, Vec<serde_json::Value>>;

/// The regions and modules that an attempt is to run.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The regions to run.
    pub regions: Vec<RegionIndex>,
    /// Modules that are loaded already.
    pub known: Vec<Arc<dyn OperatorModule>>,
    /// The attempt gets a greater number than this one.
    pub after: AttemptId,
    /// Its rounds get greater numbers than this one.
    pub last_id: CheckpointId,
    /// The newest round whose output is known to be committed.
    pub committed: Option<CheckpointId>,
}

/// A message to subtasks that carries nothing but numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The round's files are durable, and its sinks have committed where it commits.
    Completed {
        /// The round.
        id: CheckpointId,
        /// True if it committed.
        committed: bool,
    },
    /// The round was given up.
    Aborted(CheckpointId),
    /// To sources: end here, as if there were no more input.
    Drain,
    /// All is saved: end.
    Terminate,
}

/// Something to do.
#[derive(Debug)]
pub enum Effect {
    /// The job goes over to a status.
    Status(JobStatus),
    /// A line for the log.
    Log(Level, String),
    /// A change of what is shown of the job.
    Show(Shown),
    /// The answer to a request.
    Answer(Answer),
    /// Start the prepared subtasks of a region; `drain` if they are to end at once.
    Start {
        /// The region.
        region: RegionIndex,
        /// The attempt.
        attempt: AttemptId,
        /// True if sources are to end where they are.
        drain: bool,
    },
    /// Send a message to every subtask.
    Broadcast(Told),
    /// Let the subtasks of a region end between two steps.
    Stop(RegionIndex),
    /// *Beside.* Join the threads of a region, all of whose subtasks have ended.
    Join(RegionIndex),
    /// Begin a round: trigger these subtasks.
    Begin(Box<Begin>),
    /// Trigger a subtask directly, whose inputs ended while a round was under way.
    Trigger(CheckpointId, SubtaskId),
    /// *Beside.* Write an acknowledged round.
    Store(Box<Store>),
    /// *Beside.* Make the modules of a durable upgrade the job's, by a record that is created and never overwritten.
    RecordVersion {
        /// The upgrade's round.
        id: CheckpointId,
        /// The number of the version.
        version: JobVersion,
        /// All modules of the version.
        modules: Modules,
        /// Those of them that are new.
        new: Modules,
    },
    /// The job keeps no components but those of these modules.
    KeepModules(BTreeSet<String>),
    /// *Beside.* Make the output of a durable round visible.
    Commit(CheckpointId, CommitPermit),
    /// *Beside.* Record that the output of a round is committed.
    NoteCommitted(CheckpointId),
    /// A checkpoint counts from now on, and the next one may build on it.
    Confirm(CheckpointId),
    /// *Beside.* Remove checkpoints that are older than those to be kept.
    RemoveOld,
    /// *Beside.* Merge long chains of increments.
    MergeLong,
    /// A round that is being stored is not wanted any more: the store stops, and removes what it has written.
    CancelStoring(CheckpointId),
    /// The attempt that is being prepared is not wanted any more.
    CancelPreparing,
    /// *Beside.* Remove the files of a round that is of no use.
    GiveUp(CheckpointId),
    /// *Beside.* Remove the record of a savepoint whose output is committed.
    ForgetSavepoint(CheckpointId),
    /// *Beside.* Remove the files and the record of a savepoint that is said to have failed.
    RemoveSavepoint(CheckpointId),
    /// The round is over: nothing has to be kept for it any more.
    Close(CheckpointId),
    /// The directory of a savepoint that had expired is of no use any more.
    Forget(CheckpointId),
    /// Nothing is merged any more.
    EndMerging,
    /// The operator keeps state of its own and has trapped: run it so that the record at fault is found alone.
    Careful(OperatorUid),
    /// *Beside.* Prepare the next attempt.
    Prepare(Wish),
    /// Nothing runs any more, and every request is answered. The last effect.
    End(JobStatus),
}

/// A round that begins.
#[derive(Debug)]
pub struct Begin {
    /// Its number.
    pub id: CheckpointId,
    /// Its kind.
    pub kind: SnapshotKind,
    /// True if subtasks align its barriers.
    pub aligned: bool,
    /// Instances that travel in its barrier.
    pub swaps: Option<SwapSet>,
    /// The subtasks to trigger.
    pub targets: Vec<SubtaskId>,
    /// The job as it is before the barrier.
    pub facts: JobFacts,
}

/// A round to be written.
#[derive(Debug)]
pub struct Store {
    /// The parts of all subtasks.
    pub round: Acknowledged,
    /// The user's target; `None` for the job's own directory.
    pub savepoint: Option<SavepointTarget>,
    /// The job as it is before the barrier.
    pub facts: JobFacts,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The request.
    pub request: RequestId,
    /// Its result.
    pub result: Result<SnapshotReport, JobError>,
    /// The round and the subtasks that did not acknowledge it in time, whose progress belongs in the message.
    pub waited_for: Option<(CheckpointId, Vec<SubtaskId>)>,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Beginning or end of a periodic checkpoint, in the ordinary course of a job.
    Periodic,
    /// The ordinary course of a job.
    Info,
    /// Something failed that the job gets over.
    Warn,
    /// The job fails.
    Error,
}

/// A change of what is shown of a job.
#[derive(Debug)]
pub enum Shown {
    /// It runs an attempt of a version.
    Version {
        /// The attempt.
        attempt: AttemptId,
        /// The version.
        version: JobVersion,
        /// Its modules.
        modules: Modules,
    },
    /// A round is durable.
    Completed(RoundSummary),
    /// A round is over, completed or not. A round that expired names the subtasks that had not acknowledged it.
    Round(PastRound),
    /// The savepoint that ends the job, as a URL.
    FinalSavepoint(Option<String>),
    /// The states of sinks in the newest durable round.
    Sinks(SinkStates),
    /// The job restarts after this failure.
    Restart(String),
    /// The job has failed.
    Failed(Arc<JobFailure>),
    /// A checkpoint expired: the log line ends with what held these subtasks up.
    Expired {
        /// The round.
        id: CheckpointId,
        /// The log line.
        line: String,
        /// Subtasks that had not acknowledged it.
        missing: Vec<SubtaskId>,
    },
}
