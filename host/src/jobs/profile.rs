//! Profiles of an operator's guest, sampled while the job runs.
//!
//! The subtasks of an operator have a profiler each, which stays the same over restarts and upgrades of the job. A profile
//! turns them on, waits, and adds up what they have gathered. The data path is not asked.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use regraft_guest_runtime::limits::SAMPLE_TICK;
use regraft_guest_runtime::profile::{Profile, Profiler, Tree};
use regraft_model::error_kind::ErrorKind;
use regraft_model::id::{JobId, JobVersion, OperatorUid};

use super::handle::JobHandle;
use super::status::JobStatus;
use crate::dataflow::control::locked;
use crate::graph::job_graph::{JobGraph, NodeKind};
use crate::graph::suggest::nearest;
use crate::graph::units::show_duration;

/// Shortest profile.
pub const DURATION_MIN: Duration = Duration::from_millis(100);
/// Longest profile.
pub const DURATION_MAX: Duration = Duration::from_secs(600);

/// A profile to take.
#[derive(Debug, Clone)]
pub struct ProfileRequest {
    /// The operator.
    pub uid: String,
    /// Index of its subtask; `None` for all of them.
    pub subtask: Option<u32>,
    /// Time to sample for.
    pub duration: Duration,
}

/// A profile that was taken.
#[derive(Debug, Clone)]
pub struct ProfileReport {
    /// Id of the job.
    pub job_id: JobId,
    /// Name of the job.
    pub name: String,
    /// The operator.
    pub uid: OperatorUid,
    /// Index of its subtask; `None` for all of them.
    pub subtask: Option<u32>,
    /// Number of subtasks that were sampled.
    pub subtasks: u32,
    /// Time that was sampled: less than was requested if the job has ended.
    pub duration: Duration,
    /// Version of the job at the beginning.
    pub from_version: JobVersion,
    /// Version of the job at the end.
    pub version: JobVersion,
    /// Number of restarts meanwhile.
    pub restarts: u64,
    /// Stage of the job at the end.
    pub status: JobStatus,
    /// Samples of all subtasks.
    pub profile: Arc<Profile>,
}

/// A profile that was refused, or has nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The job has no such operator.
    #[error("job {name} ({job}) has no operator \"{uid}\" to profile. {}Its guests are: {}", .near.as_ref().map(|near| format!("Did you mean \"{near}\"? ")).unwrap_or_default(), listed(known))]
    NoSuchOperator {
        /// Id of the job.
        job: JobId,
        /// Name of the job.
        name: String,
        /// Uid that was asked for.
        uid: String,
        /// A similar uid of an operator.
        near: Option<String>,
        /// Uids of all operators.
        known: Vec<String>,
    },
    /// The uid is that of a source or sink.
    #[error(
        "\"{uid}\" of job {name} ({job}) is a {role}, which runs no guest; the guests of the job are: {}",
        listed(known)
    )]
    NoGuest {
        /// Id of the job.
        job: JobId,
        /// Name of the job.
        name: String,
        /// Uid that was asked for.
        uid: String,
        /// `source` or `sink`.
        role: &'static str,
        /// Uids of all operators.
        known: Vec<String>,
    },
    /// The operator has no such subtask.
    #[error("operator \"{uid}\" has no subtask {subtask}: expected 0 to {}, or none for all of them", parallelism.saturating_sub(1))]
    NoSuchSubtask {
        /// The operator.
        uid: OperatorUid,
        /// Index that was asked for.
        subtask: u32,
        /// Number of its subtasks.
        parallelism: u32,
    },
    /// The duration is too short or too long.
    #[error("a profile takes {} to {}, and {} were requested; choose another --duration", show_duration(DURATION_MIN), show_duration(DURATION_MAX), show_duration(*.0))]
    Duration(Duration),
    /// The job does not run.
    #[error("job {job} is {status}, not RUNNING: there is nothing to profile. `regraft info {job}` shows why")]
    NotRunning {
        /// Id of the job.
        job: JobId,
        /// Its stage.
        status: JobStatus,
    },
    /// The operator is being profiled.
    #[error(
        "operator \"{uid}\" of job {job} is being profiled already; repeat the command when that profile has ended"
    )]
    UnderWay {
        /// Id of the job.
        job: JobId,
        /// The operator.
        uid: OperatorUid,
    },
    /// The guest was never seen.
    #[error("{}", nothing(.0))]
    NoSamples(Box<ProfileReport>),
}

impl ProfileError {
    /// Returns its kind.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchOperator { .. } | Self::NoGuest { .. } | Self::NoSuchSubtask { .. } | Self::Duration(_) => {
                ErrorKind::Usage
            }
            Self::NotRunning { .. } | Self::UnderWay { .. } | Self::NoSamples(_) => ErrorKind::Failed,
        }
    }

    /// Returns the uid that it is about.
    #[must_use]
    pub fn uid(&self) -> Option<String> {
        match self {
            Self::NoSuchOperator { uid, .. } | Self::NoGuest { uid, .. } => Some(uid.clone()),
            Self::NoSuchSubtask { uid, .. } | Self::UnderWay { uid, .. } => Some(uid.to_string()),
            Self::NoSamples(report) => Some(report.uid.to_string()),
            Self::Duration(_) | Self::NotRunning { .. } => None,
        }
    }
}

/// Samples the guest of an operator for a time, or until the job ends. The engine must tick for samples meanwhile
/// ([`GuestEngine::sampling`](regraft_guest_runtime::engine::GuestEngine::sampling)).
///
/// # Errors
/// [`ProfileError`], case by case. The job goes on in any case.
pub async fn profile(job: &JobHandle, request: &ProfileRequest) -> Result<ProfileReport, ProfileError> {
    let shared = &job.shared;
    let uid = operator(&shared.graph, job.job_id(), &request.uid)?;
    if !(DURATION_MIN..=DURATION_MAX).contains(&request.duration) {
        return Err(ProfileError::Duration(request.duration));
    }
    let all = shared.counters.get(&uid).map_or(&[][..], Vec::as_slice);
    let subtasks = match request.subtask {
        None => all,
        Some(subtask) => all.get(subtask as usize).map_or(&[][..], std::slice::from_ref),
    };
    if let (Some(subtask), []) = (request.subtask, subtasks) {
        return Err(ProfileError::NoSuchSubtask {
            uid,
            subtask,
            parallelism: all.len() as u32,
        });
    }
    let (before, from_version, restarts) = {
        let state = locked(&shared.state);
        (state.status, state.version, state.restarts)
    };
    if before != JobStatus::Running {
        let (job, status) = (job.job_id(), before);
        return Err(ProfileError::NotRunning { job, status });
    }
    let mut running = Running::default();
    for counters in subtasks {
        if !running.start(&counters.profiler) {
            let job = job.job_id();
            return Err(ProfileError::UnderWay { job, uid });
        }
    }
    let clock = job.environment().clock();
    let began = clock.monotonic_ns();
    let time_is_over = job.environment().sleep(request.duration);
    tokio::select! {
        () = time_is_over => {}
        () = job.done() => {}
    }
    let duration = Duration::from_nanos(clock.monotonic_ns().saturating_sub(began));
    let profile = Arc::new(running.stop());
    let state = locked(&shared.state);
    let report = ProfileReport {
        job_id: job.job_id(),
        name: shared.graph.name.clone(),
        uid,
        subtask: request.subtask,
        subtasks: subtasks.len() as u32,
        duration,
        from_version,
        version: state.version,
        restarts: state.restarts.saturating_sub(restarts),
        status: state.status,
        profile,
    };
    if report.profile.samples == 0 {
        return Err(ProfileError::NoSamples(Box::new(report)));
    }
    Ok(report)
}

/// Profilers that are on until this is dropped.
#[derive(Default)]
struct Running(Vec<Arc<Profiler>>);

impl Running {
    /// Turns a profiler on. Returns false if it is on already.
    fn start(&mut self, profiler: &Arc<Profiler>) -> bool {
        let started = profiler.start();
        if started {
            self.0.push(Arc::clone(profiler));
        }
        started
    }

    /// Turns all of them off, and adds up what they have gathered.
    fn stop(&mut self) -> Profile {
        let mut all = Tree::default();
        for profile in self.0.drain(..).filter_map(|profiler| profiler.stop()) {
            all.add(&profile);
        }
        all.into_profile()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for profiler in &self.0 {
            profiler.stop();
        }
    }
}

/// Returns the uid of an operator of a job.
fn operator(graph: &JobGraph, job: JobId, uid: &str) -> Result<OperatorUid, ProfileError> {
    let operators = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.kind, NodeKind::Operator(_)));
    let known = || -> Vec<String> { operators.clone().map(|node| node.uid.to_string()).collect() };
    let (uid, name) = (uid.to_owned(), graph.name.clone());
    let role = match graph.node(&uid).map(|node| (&node.kind, &node.uid)) {
        Some((NodeKind::Operator(_), uid)) => return Ok(uid.clone()),
        Some((NodeKind::Source(_), _)) => "source",
        Some((NodeKind::Sink(_), _)) => "sink",
        None => {
            let known = known();
            let words: Vec<&str> = known.iter().map(String::as_str).collect();
            let near = nearest(&uid, &words).map(str::to_owned);
            return Err(ProfileError::NoSuchOperator {
                job,
                name,
                uid,
                near,
                known,
            });
        }
    };
    let known = known();
    Err(ProfileError::NoGuest {
        job,
        name,
        uid,
        role,
        known,
    })
}

fn listed(uids: &[String]) -> String {
    if uids.is_empty() {
        return "none".to_owned();
    }
    uids.join(", ")
}

/// Says why a profile has no samples, and what to do.
fn nothing(report: &ProfileReport) -> String {
    let ProfileReport {
        job_id,
        name,
        uid,
        duration,
        status,
        profile,
        ..
    } = report;
    let mut text = format!(
        "operator \"{uid}\" of job {name} ({job_id}) was never seen at work in {:.1} s: ",
        duration.as_secs_f64()
    );
    let _ = match profile.calls {
        0 => write!(text, "no call of its guest has ended"),
        1 => write!(text, "its guest was called once"),
        calls => write!(text, "its guest was called {calls} times"),
    };
    if profile.calls > 0 {
        let computed = profile.computed.as_secs_f64() * 1e3;
        let _ = write!(text, " and computed for {computed:.1} ms in all");
    }
    text.push_str(". ");
    let _ = if *status != JobStatus::Running {
        write!(
            text,
            "The job is {status} now; profile one that runs (`regraft list`), and begin earlier"
        )
    } else if profile.calls == 0 {
        write!(
            text,
            "`regraft info {job_id}` shows whether records reach it; profile it while they do"
        )
    } else {
        write!(
            text,
            "A sample is taken every {} of computing: profile for longer (--duration), or under more load",
            show_duration(SAMPLE_TICK)
        )
    };
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::graph::{Overrides, parse_job};

    const JOB: JobId = JobId::from_bits(7);
    const ID: &str = "00000000000000000000000000000007";

    fn graph() -> JobGraph {
        let text = "name = \"words\"
[[source]]
uid = \"lines\"
connector = \"file\"
path = \"in\"
[[operator]]
uid = \"split\"
module = \"split.wasm\"
inputs = [\"lines\"]
[[operator]]
uid = \"count\"
module = \"count.wasm\"
inputs = [{ from = \"split\", by = \"key\" }]
[[sink]]
uid = \"out\"
connector = \"blackhole\"
inputs = [\"count\"]
";
        let known = crate::connectors::BUILT_IN;
        let parsed = parse_job(text, "job.toml", Path::new("/j"), &Overrides::default(), known);
        parsed.expect("a good job").0
    }

    fn report(status: JobStatus, calls: u64, computed: Duration) -> Box<ProfileReport> {
        let profile = Profile {
            calls,
            computed,
            ..Profile::default()
        };
        Box::new(ProfileReport {
            job_id: JOB,
            name: "words".to_owned(),
            uid: OperatorUid::new("count").expect("a uid"),
            subtask: None,
            subtasks: 2,
            duration: Duration::from_millis(10_020),
            from_version: JobVersion(1),
            version: JobVersion(1),
            restarts: 0,
            status,
            profile: Arc::new(profile),
        })
    }

    #[test]
    fn every_refusal_has_its_text() {
        let graph = graph();
        let found = operator(&graph, JOB, "count").expect("an operator");
        assert_eq!(found.as_str(), "count");
        let of = |uid| operator(&graph, JOB, uid).expect_err("refused");
        let uid = || found.clone();
        let running = JobStatus::Running;
        let (ms, failed, usage) = (Duration::from_millis, ErrorKind::Failed, ErrorKind::Usage);
        let no_subtask = ProfileError::NoSuchSubtask {
            uid: uid(),
            subtask: 2,
            parallelism: 2,
        };
        let not_running = ProfileError::NotRunning {
            job: JOB,
            status: JobStatus::Restarting,
        };
        for (error, kind, uid, text) in [
            (
                of("cuont"),
                usage,
                Some("cuont"),
                format!(
                    "job words ({ID}) has no operator \"cuont\" to profile. Did you mean \"count\"? Its guests are: split, count"
                ),
            ),
            (
                of("x"),
                usage,
                Some("x"),
                format!("job words ({ID}) has no operator \"x\" to profile. Its guests are: split, count"),
            ),
            (
                of("out"),
                usage,
                Some("out"),
                format!(
                    "\"out\" of job words ({ID}) is a sink, which runs no guest; the guests of the job are: split, count"
                ),
            ),
            (
                no_subtask,
                usage,
                Some("count"),
                "operator \"count\" has no subtask 2: expected 0 to 1, or none for all of them".to_owned(),
            ),
            (
                ProfileError::Duration(ms(3_600_000)),
                usage,
                None,
                "a profile takes 100ms to 10m, and 1h were requested; choose another --duration".to_owned(),
            ),
            (
                not_running,
                failed,
                None,
                format!(
                    "job {ID} is RESTARTING, not RUNNING: there is nothing to profile. `regraft info {ID}` shows why"
                ),
            ),
            (
                ProfileError::UnderWay { job: JOB, uid: uid() },
                failed,
                Some("count"),
                format!(
                    "operator \"count\" of job {ID} is being profiled already; repeat the command when that profile has ended"
                ),
            ),
            (
                ProfileError::NoSamples(report(running, 0, ms(0))),
                failed,
                Some("count"),
                format!(
                    "operator \"count\" of job words ({ID}) was never seen at work in 10.0 s: no call of its guest has ended. `regraft info {ID}` shows whether records reach it; profile it while they do"
                ),
            ),
            (
                ProfileError::NoSamples(report(running, 12, ms(3))),
                failed,
                Some("count"),
                format!(
                    "operator \"count\" of job words ({ID}) was never seen at work in 10.0 s: its guest was called 12 times and computed for 3.0 ms in all. A sample is taken every 1ms of computing: profile for longer (--duration), or under more load"
                ),
            ),
            (
                ProfileError::NoSamples(report(JobStatus::Canceled, 1, ms(3))),
                failed,
                Some("count"),
                format!(
                    "operator \"count\" of job words ({ID}) was never seen at work in 10.0 s: its guest was called once and computed for 3.0 ms in all. The job is CANCELED now; profile one that runs (`regraft list`), and begin earlier"
                ),
            ),
        ] {
            assert_eq!((error.kind(), error.uid().as_deref()), (kind, uid), "{error}");
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_profile_that_is_given_up_turns_its_profilers_off() {
        let (one, other) = (Arc::new(Profiler::default()), Arc::new(Profiler::default()));
        assert!(other.start());
        let mut running = Running::default();
        assert!(running.start(&one) && !running.start(&other) && !running.start(&one));
        drop(running);
        assert!(one.start(), "it was turned off");
        assert!(!other.start(), "it is another profile's");
    }
}
