//! `run`: a job attached to this process, with the API on a loopback port, a progress line, and Ctrl-C.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft_model::error_kind::ErrorKind;
use regraft_model::id::JobId;
use serde_json::json;

use super::args::RunArgs;
use super::build::{build_and_load, engine};
use super::exit_status::ExitStatus;
use super::failure::Failure;
use super::job::absolute;
use super::log;
use super::offline::{observed, waiting};
use super::output::{Output, print};
use super::progress::{Progress, now_ms};
use super::savepoint::open;
use super::serve::{announcement, host_context};
use super::show::dead_letters;
use super::signals::EndingSignals;
use crate::api::access::{Access, Token};
use crate::api::client::Client;
use crate::api::routes::Listening;
use crate::api::types::JobView;
use crate::dataflow::control::locked;
use crate::graph::job_graph::JobGraph;
use crate::jobs::handle::JobHandle;
use crate::jobs::observe::ObservedJob;
use crate::jobs::start::{NewJob, RestoreFrom, start};
use crate::jobs::status::JobStatus;
use crate::savepoint::restore::RestoreOptions;
use crate::serve::attached::AttachedRuns;
use crate::serve::catalog::{CatalogRecord, EndedJob};
use crate::serve::entries::{Claims, refuse_collision, refuse_replacing_shared};
use crate::serve::gc::hold;
use crate::serve::go_on::{Again, as_typed_in};
use crate::serve::host::{Host, SavepointOptions};
use crate::serve::submission::{Allow, Submission};
use crate::stdout;
use regraft_model::snapshot::SnapshotKind;

/// The outcome of an interruption of an attached run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interrupted {
    /// It was not interrupted.
    No,
    /// A savepoint ended the job.
    Saved,
    /// The job was cancelled, and nothing was saved.
    Lost,
}

/// `regraft run`.
///
/// # Errors
/// [`Failure`] where the job does not start, or does not end well.
pub async fn run(args: &RunArgs, data_dir: &Path, output: Output) -> Result<ExitStatus, Failure> {
    if let Some(warning) = args.restore.claim_mode.warning() {
        log::line(&format!("warning: {warning}"));
    }
    if output.json {
        stdout::claim();
    }
    let (graph, warnings) = args.job.load(data_dir, &args.arguments)?;
    log::warnings(&warnings);
    let (origin, allow) = (Origin::read(args).await?, Allow::from(args));
    refuse_replacing_shared(&graph, allow, args.restore.from_savepoint.is_some())?;
    let engine = engine(data_dir)?;
    let (build_graph, build_engine, build_dir) = (graph.clone(), engine.clone(), data_dir.to_owned());
    let building = move || build_and_load(&build_graph, &build_engine, &build_dir);
    let modules = tokio::task::spawn_blocking(building).await??;
    let (others_graph, dir) = (graph.clone(), data_dir.to_owned());
    tokio::task::spawn_blocking(move || refuse_collisions(&others_graph, &dir, allow, origin)).await??;
    let context = host_context(data_dir, &args.workers, false);
    let restore = restore_from(args);
    let savepoint_at_end = args.savepoint_at_end.as_deref().map(absolute);
    let started = std::time::Instant::now();
    // Until the job is known to need what it starts from.
    let dir = data_dir.to_owned();
    let held = tokio::task::spawn_blocking(move || hold(&dir)).await?.ok();
    let job = start(
        &context,
        NewJob {
            graph,
            modules,
            restore,
            savepoint_at_end,
            job_id: None,
        },
    )
    .await?;
    let (host, runs) = (Host::new(engine, context, None), AttachedRuns::open(data_dir).ok());
    let host = Arc::new(match &runs {
        Some(runs) => host.noting(runs.clone()),
        None => host,
    });
    host.add(job.clone());
    let noted = Noted {
        record: CatalogRecord {
            job_id: job.job_id(),
            name: job.shared.graph.name.clone(),
            created_at: job.shared.started_at,
            submission: submission(args, &job.shared.graph, data_dir, allow)?,
        },
        runs,
        data_dir,
    };
    let (interrupted, ended) = attend(&job, &host, &noted, held, output).await?;
    end(&job, &ended, &interrupted, started.elapsed().as_millis() as u64, output)
}

/// Returns the job as it was submitted, so that it can be told later how to start it again.
fn submission(args: &RunArgs, graph: &JobGraph, data_dir: &Path, allow: Allow) -> Result<Submission, Failure> {
    Ok(Submission {
        file: args.job.job.to_string_lossy().into_owned(),
        text: graph.text.clone(),
        base_dir: graph.base_dir.clone(),
        overrides: args.job.overrides(data_dir, &args.arguments)?,
        modules: BTreeMap::new(),
        restore: restore_from(args),
        savepoint_at_end: args.savepoint_at_end.as_deref().map(absolute),
        allow,
    })
}

/// Record of an attached run, by which it is listed after its end. The job runs even if the record cannot be written.
struct Noted<'a> {
    record: CatalogRecord,
    runs: Option<AttachedRuns>,
    data_dir: &'a Path,
}

impl Noted<'_> {
    async fn begun(&self) {
        if let Some(runs) = &self.runs
            && let Err(error) = runs.begun(&self.record).await
        {
            tracing::warn!("the job will not be listed once it has ended: {error}");
        }
    }

    /// Returns the job as it ended, with the way on, and notes it.
    async fn ended(&self, job: &JobHandle, host: &Host) -> ObservedJob {
        let mut ended = job.shared.observe();
        if ended.status == JobStatus::Failed {
            ended.go_on = host.way_on(&self.record.submission, &ended, Again::Attached).await;
        }
        let note = EndedJob {
            ended_at: now_ms(),
            job: ended.clone(),
        };
        if let Some(runs) = &self.runs
            && let Err(error) = runs.ended(&note, self.data_dir).await
        {
            tracing::warn!("that the job has ended could not be noted: {error}");
        }
        ended
    }
}

/// Serves the API, shows progress, and waits for the end of the job or for Ctrl-C.
async fn attend(
    job: &JobHandle,
    host: &Arc<Host>,
    noted: &Noted<'_>,
    held: Option<File>,
    output: Output,
) -> Result<(Interrupted, ObservedJob), Failure> {
    let data_dir = noted.data_dir;
    let io = |error: std::io::Error| Failure::new(ErrorKind::Failed, format!("cannot serve the API: {error}"));
    // Before the job is announced as running: from then on, Ctrl-C must work as documented.
    let mut signals = EndingSignals::new().map_err(io)?;
    let token = Token::random();
    let access = Access::new(&token, None);
    let listening = Listening::on((Ipv4Addr::LOCALHOST, 0).into()).await.map_err(io)?;
    let server = listening.serve(host.clone(), access);
    let name = job.shared.graph.name.as_str();
    let announced = announcement(Some((job.job_id(), name)), &server.url(), &token).publish(data_dir);
    if let Err(error) = &announced {
        tracing::warn!(
            "the job cannot be announced in {}: {error}; other terminals do not find it",
            data_dir.display()
        );
    }
    noted.begun().await;
    drop(held);
    tracing::info!(
        "Job {} ({}) listens on http://{}.",
        job.shared.graph.name,
        job.job_id(),
        server.address
    );
    let progress = Progress::start(job.clone());
    let mut outcome = Interrupted::No;
    tokio::select! {
        () = job.done() => {}
        typed = signals.typed() => outcome = interrupted(job, host, &mut signals, typed, output).await,
    }
    // A guest that computes without end must not keep a user who wants to leave.
    loop {
        tokio::select! {
            () = job.done() => break,
            typed = signals.typed() => if typed {
                end_at_once(job, output)
            } else if outcome == Interrupted::No {
                outcome = Interrupted::Lost;
                job.cancel();
            },
        }
    }
    progress.end();
    let ended = noted.ended(job, host).await;
    // From here on, clients no longer find this host.
    drop(announced);
    server.end().await;
    Ok((outcome, ended))
}

/// Handles the first signal: takes a savepoint where a directory is known, else cancels the job and says what is lost. A job
/// whose savepoint fails goes on if the user has `typed` Ctrl-C; the second one ends at once.
async fn interrupted(
    job: &JobHandle,
    host: &Arc<Host>,
    signals: &mut EndingSignals,
    typed: bool,
    output: Output,
) -> Interrupted {
    if job.shared.graph.savepoint_dir.is_none() {
        log::line(
            "interrupted: the job is cancelled; nothing is saved, since no savepoint directory is known: set `dir` in [savepoint], or use `regraft stop JOB --savepoint-path DIR`",
        );
        job.cancel();
        return Interrupted::Lost;
    }
    log::line("interrupted: stopping with a savepoint; Ctrl-C again ends at once, with nothing saved");
    tokio::select! {
        stopped = host.savepoint(job, SavepointOptions::default(), SnapshotKind::Stop) => match stopped {
            Ok(report) => {
                log::line(&format!("Savepoint completed. Path: {}", report.path));
                Interrupted::Saved
            }
            Err(error) if typed => {
                log::line(&format!("no savepoint was taken: {error}; the job goes on; Ctrl-C again ends it at once"));
                Interrupted::No
            }
            Err(error) => {
                log::line(&format!("no savepoint was taken: {error}; the job is cancelled, and nothing is saved"));
                job.cancel();
                Interrupted::Lost
            }
        },
        () = signals.interrupt() => end_at_once(job, output),
    }
}

/// Handles the second Ctrl-C.
fn end_at_once(job: &JobHandle, output: Output) -> ! {
    let said = "interrupted again: ended at once, nothing is saved";
    if output.json {
        let message = format!("job {} ({}): {said}", job.shared.graph.name, job.job_id());
        print(&Failure::new(ErrorKind::Interrupted, message).to_json());
    }
    log::line(said);
    log::flush();
    std::process::exit(ExitStatus::Interrupted.code().into());
}

/// Prints the results of a run at its end, and returns its status.
fn end(
    job: &JobHandle,
    ended: &ObservedJob,
    interrupted: &Interrupted,
    duration_ms: u64,
    output: Output,
) -> Result<ExitStatus, Failure> {
    let failed = job.failure();
    let state = locked(&job.shared.state);
    let here = std::env::current_dir().unwrap_or_default();
    let go_on = ended.go_on.as_ref().map(|go_on| as_typed_in(&here, go_on));
    match ended.status {
        JobStatus::Finished => {
            for (uid, (records, checksum)) in &state.sink_totals {
                output.line(&format!("blackhole {uid}: records={records} checksum={checksum:016x}"));
            }
            let savepoint = state.final_savepoint.clone();
            if output.json {
                print(&finished_json(ended, duration_ms, savepoint.as_deref(), &state.sink_totals).to_string());
            } else if let (Some(path), Interrupted::No) = (&savepoint, interrupted) {
                log::line(&format!("Savepoint completed. Path: {path}"));
            }
            log::line(&format!(
                "Job {} ({}) finished: {} records in, {} out{}, in {duration_ms} ms.",
                ended.name,
                ended.job_id,
                ended.records_in,
                ended.records_out,
                dead_letters(ended.dead_letters)
            ));
            Ok(ExitStatus::Done)
        }
        JobStatus::Canceled => {
            let kind = if *interrupted == Interrupted::Lost {
                ErrorKind::Interrupted
            } else {
                ErrorKind::Failed
            };
            Err(Failure::new(
                kind,
                format!("job {} ({}) was CANCELED", ended.name, ended.job_id),
            ))
        }
        status => Err(Failure {
            uid: state.failed_uid.clone(),
            ..Failure::new(
                failed.map_or(ErrorKind::Failed, |failed| failed.kind),
                format!(
                    "job {} ({}) {status}: {}{}",
                    ended.name,
                    ended.job_id,
                    ended.failure.as_deref().unwrap_or("no reason is known"),
                    go_on.map(|go_on| format!("\n{go_on}")).unwrap_or_default()
                ),
            )
        }),
    }
}

fn finished_json(
    ended: &ObservedJob,
    duration_ms: u64,
    savepoint: Option<&str>,
    totals: &std::collections::BTreeMap<regraft_model::id::OperatorUid, (u64, u64)>,
) -> serde_json::Value {
    let blackholes: serde_json::Map<String, serde_json::Value> = totals
        .iter()
        .map(|(uid, (records, checksum))| {
            (
                uid.to_string(),
                json!({ "records": records, "checksum": format!("{checksum:016x}") }),
            )
        })
        .collect();
    json!({
        "job_id": ended.job_id,
        "name": ended.name,
        "status": ended.status,
        "records_in": ended.records_in,
        "records_out": ended.records_out,
        "dead_letters": ended.dead_letters,
        "duration_ms": duration_ms,
        "savepoint": savepoint,
        "blackholes": blackholes,
    })
}

/// Returns the savepoint to start from, as the arguments name it.
pub(super) fn restore_from(args: &RunArgs) -> Option<RestoreFrom> {
    let location = args.restore.from_savepoint.clone()?;
    Some(RestoreFrom {
        location,
        options: RestoreOptions {
            allow_non_restored: args.restore.allow_non_restored_state,
            drop_state: args.restore.drop_state.iter().map(ToString::to_string).collect(),
        },
        allow_later_output: args.allow_later_output,
    })
}

impl From<&JobView> for Claims {
    fn from(view: &JobView) -> Self {
        let dirs = view.operators.iter().filter_map(|node| node.target.as_ref());
        Self {
            job_id: view.job_id,
            name: view.name.clone(),
            output_dirs: dirs.map(PathBuf::from).collect(),
            suspended: view.status == JobStatus::Suspended,
        }
    }
}

/// The job whose savepoint is restored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin(Option<JobId>);

impl Origin {
    /// Reads the job's id from the savepoint, before anything is built. A host that the user names may be on another machine,
    /// so that only it knows if the savepoint is there.
    ///
    /// # Errors
    /// [`Failure`] where there is no such savepoint, or it is damaged.
    pub async fn read(args: &RunArgs) -> Result<Self, Failure> {
        let Some(location) = &args.restore.from_savepoint else {
            return Ok(Self(None));
        };
        let opened = open(location).await;
        if args.detached && args.host.named().is_some() {
            return Ok(Self(opened.ok().map(|savepoint| savepoint.metadata.job_id)));
        }
        Ok(Self(Some(opened?.metadata.job_id)))
    }
}

impl From<&RunArgs> for Allow {
    fn from(args: &RunArgs) -> Self {
        Self {
            same_name: args.allow_same_name,
            shared_output: args.allow_shared_output,
        }
    }
}

/// Refuses a job if one of the same name, or one that writes to the same directory, already runs on this machine.
pub(super) fn refuse_collisions(
    graph: &JobGraph,
    data_dir: &Path,
    allow: Allow,
    Origin(origin): Origin,
) -> Result<(), Failure> {
    let client = Client::new(None, None, data_dir);
    // A host that has just ended, or one that does not answer, writes nothing.
    let running = client.jobs().unwrap_or_default();
    for job in running.iter().filter(|job| !job.summary.status.is_over()) {
        let (id, name) = (job.summary.job_id, &job.summary.name);
        if origin == Some(id) {
            let still = match job.summary.status {
                JobStatus::Suspended => "waits for its host",
                _ => "still runs",
            };
            log::line(&format!(
                "warning: job \"{name}\" ({id}), whose savepoint this is, {still}; as in Flink, if it fails it may be restored from a checkpoint before the savepoint, and process again what this job has taken over"
            ));
        }
        let Ok(view) = client.info(job) else { continue };
        refuse_collision(graph, &Claims::from(&view), allow)?;
    }
    // Jobs that a host brings back when it is started, and that write where they wrote.
    for job in observed(&waiting(&client, &running, data_dir)?, data_dir)? {
        refuse_collision(graph, &Claims::from(&job), allow)?;
    }
    Ok(())
}
