//! Verbs about running jobs: `list`, `info`, `savepoint`, `stop`, `cancel`, `upgrade`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regraft_model::id::OperatorUid;
use serde_json::json;

use super::args::{CancelArgs, HostArgs, JobArgs, SavepointArgs, SavepointType, StopArgs, UpgradeArgs};
use super::build;
use super::failure::Failure;
use super::log;
use super::output::Output;
use crate::api::client::{Client, FoundJob};
use crate::api::types::{JobList, SavepointRequest, UpgradeRequest};
use crate::build::{GuestCrate, StderrReport, Tools, build_guests, component_paths, guest_crates};
use crate::graph::job_graph::{Artifact, JobGraph};
use crate::graph::{Overrides, parse_module};
use crate::jobs::handle::{JobError, JobView, RoundView, SnapshotReport};

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
            uid: error.uid,
            path: error.path,
        }
    }
}

/// The job that the user means, and who to ask about it.
struct Asked {
    client: Client,
    job: FoundJob,
}

fn find(args: &JobArgs, data_dir: &Path) -> Result<Asked, Failure> {
    let client = Client::new(args.host.host.as_deref(), data_dir);
    let job = client.find(&args.job)?;
    Ok(Asked { client, job })
}

/// `regraft list`.
///
/// # Errors
/// [`Failure`] where a named host does not answer.
pub fn list(args: &HostArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let jobs = Client::new(args.host.as_deref(), data_dir).jobs()?;
    let list = JobList {
        jobs: jobs.into_iter().map(|job| job.summary).collect(),
    };
    output.result(&json!(list), || {
        if list.jobs.is_empty() {
            return "No running jobs.".to_owned();
        }
        let line = |j: &crate::api::types::JobSummary| {
            format!("{} : {} : {} ({})", date_time(j.started_at), j.job_id, j.name, j.status)
        };
        list.jobs.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// `regraft info`.
///
/// # Errors
/// [`Failure`].
pub fn info(args: &JobArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let asked = find(args, data_dir)?;
    let view = asked.client.info(&asked.job)?;
    output.result(&json!(view), || info_text(&view));
    Ok(())
}

fn info_text(view: &JobView) -> String {
    let mut lines = vec![
        format!("{} ({}) {}", view.name, view.job_id, view.status),
        format!("started      {}", date_time(view.started_at)),
        format!("restored     {}", view.restored_from.as_deref().unwrap_or("no")),
        format!("version      {}", view.version),
        format!("parallelism  {} of at most {}", view.parallelism, view.max_parallelism),
        format!("records      {} in, {} out", view.records_in, view.records_out),
    ];
    lines.push(match &view.last_checkpoint {
        Some(last) => format!(
            "checkpoints  {}; the last: {} at {}, {} bytes in {} ms (align {:.1} ms, sync {:.1} ms)",
            view.checkpoints,
            last.checkpoint_id,
            date_time(last.completed_at),
            last.bytes,
            last.duration_ms,
            last.align_ms,
            last.sync_ms
        ),
        None => "checkpoints  none yet".to_owned(),
    });
    if view.attempt.0 > 1 || view.restarts > 0 {
        let why = view.last_failure.as_deref().and_then(|failure| failure.lines().next());
        let why = why
            .map(|why| format!("; the last one after: {why}"))
            .unwrap_or_default();
        lines.push(format!(
            "attempt      {}, {} restarts by this host{why}",
            view.attempt, view.restarts
        ));
    }
    if let Some(failure) = &view.failure {
        lines.push(format!("failure      {failure}"));
    }
    lines.push(format!(
        "{:<20} {:<9} {:>3} {:<7} {:>12} {:>12} {:>10}  STATES",
        "UID", "KIND", "P", "MODULE", "IN", "OUT", "KEYS"
    ));
    for node in &view.operators {
        lines.push(format!(
            "{:<20} {:<9} {:>3} {:<7} {:>12} {:>12} {:>10}  {}",
            node.uid.as_str(),
            node.kind,
            node.parallelism,
            node.module.as_deref().unwrap_or("-"),
            node.records_in,
            node.records_out,
            node.keys,
            node.states.join(", ")
        ));
    }
    lines.extend(rounds_text(&view.recent_checkpoints));
    for (key, setting) in view.settings.iter().filter(|(_, setting)| setting.origin != "default") {
        lines.push(format!("{key} = {}  ({})", setting.value, setting.origin));
    }
    lines.join("\n")
}

/// Rounds shown of those that are remembered; `--json` has all.
const ROUNDS_SHOWN: usize = 5;

/// The last rounds, and what each subtask took part with in the newest one that all of them acknowledged.
fn rounds_text(rounds: &[RoundView]) -> Vec<String> {
    let mut lines = vec![];
    let shown = &rounds[rounds.len().saturating_sub(ROUNDS_SHOWN)..];
    if shown.is_empty() {
        return lines;
    }
    lines.push(format!(
        "{:<12} {:<12} {:<10} {:>8} {:>12}  TRIGGERED",
        "CHECKPOINT", "KIND", "STATUS", "MS", "BYTES"
    ));
    for round in shown {
        let why = round.failure.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
        lines.push(format!(
            "{:<12} {:<12} {:<10} {:>8} {:>12}  {}{why}",
            round.checkpoint_id,
            round.kind,
            round.status,
            round.duration_ms,
            round.bytes,
            date_time(round.triggered_at)
        ));
    }
    if let Some(last) = rounds.iter().rev().find(|round| !round.subtasks.is_empty()) {
        lines.push(format!(
            "{:<20} {:>9} {:>9} {:>9} {:>12}  in checkpoint {}",
            "UID#SUBTASK", "ALIGN MS", "SYNC MS", "ASYNC MS", "BYTES", last.checkpoint_id
        ));
        lines.extend(last.subtasks.iter().map(|part| {
            let name = format!("{}#{}", part.uid, part.subtask);
            format!(
                "{name:<20} {:>9.1} {:>9.1} {:>9.1} {:>12}",
                part.align_ms, part.sync_ms, part.async_ms, part.bytes
            )
        }));
    }
    lines
}

/// A directory as the host will understand it: relative to where the user is.
pub(super) fn absolute(dir: &str) -> String {
    if dir.contains("://") {
        return dir.to_owned();
    }
    std::path::absolute(dir).map_or_else(|_| dir.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// What `savepoint` and `stop` answer with `--json`.
pub(super) fn savepoint_json(report: &SnapshotReport) -> serde_json::Value {
    json!({
        "job_id": report.job_id,
        "path": report.path,
        "checkpoint_id": report.checkpoint_id,
        "format": report.format,
        "bytes": report.bytes,
        "duration_ms": report.duration_ms,
    })
}

/// `regraft savepoint`.
///
/// # Errors
/// [`Failure`]; the job goes on.
pub fn savepoint(args: &SavepointArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let Asked { client, job } = find(&args.job, data_dir)?;
    output.line(&format!("Triggering savepoint for job {}.", job.summary.job_id));
    output.line("Waiting for response...");
    let native = args.format == SavepointType::Native;
    let request = SavepointRequest {
        dir: args.dir.as_deref().map(absolute),
        native,
        drain: false,
    };
    let report = client.savepoint(&job, &request)?;
    output.result(&savepoint_json(&report), || {
        format!(
            "Savepoint completed. Path: {}\nYou can resume your program from this savepoint with the run command.",
            report.path
        )
    });
    Ok(())
}

/// `regraft stop`.
///
/// # Errors
/// [`Failure`]; the job goes on.
pub fn stop(args: &StopArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let Asked { client, job } = find(&args.job, data_dir)?;
    let word = if args.drain { "Draining" } else { "Suspending" };
    let native = args.format == SavepointType::Native;
    let format = if native { "NATIVE" } else { "CANONICAL" };
    output.line(&format!(
        "{word} job \"{}\" with a {format} savepoint.",
        job.summary.job_id
    ));
    let dir = args.savepoint_path.clone().flatten().as_deref().map(absolute);
    let report = client.stop(
        &job,
        &SavepointRequest {
            dir,
            native,
            drain: args.drain,
        },
    )?;
    output.result(&savepoint_json(&report), || {
        format!("Savepoint completed. Path: {}", report.path)
    });
    Ok(())
}

/// `regraft cancel`.
///
/// # Errors
/// [`Failure`]; where a savepoint was asked for and failed, the job goes on.
pub fn cancel(args: &CancelArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let Asked { client, job } = find(&args.job, data_dir)?;
    let id = job.summary.job_id;
    let mut saved = None;
    if let Some(dir) = &args.with_savepoint {
        log::line(
            "note: `regraft stop` takes a savepoint and ends the job as one step, and is preferred to `cancel -s`",
        );
        output.line(&format!(
            "Cancelling job {id} with savepoint to {}.",
            dir.as_deref().unwrap_or("default savepoint directory")
        ));
        let request = SavepointRequest {
            dir: dir.as_deref().map(absolute),
            ..SavepointRequest::default()
        };
        saved = Some(client.savepoint(&job, &request)?);
    } else {
        output.line(&format!("Cancelling job {id}."));
    }
    let view = client.cancel(&job)?;
    let savepoint = saved.as_ref().map(|report| report.path.clone());
    output.result(
        &json!({ "job_id": id, "status": view.status, "savepoint": savepoint }),
        || match &savepoint {
            Some(path) => format!("Cancelled job {id}. Savepoint stored in {path}."),
            None => format!("Cancelled job {id}."),
        },
    );
    Ok(())
}

/// `regraft upgrade`.
///
/// # Errors
/// [`Failure`]; the job goes on as it was.
pub fn upgrade(args: &UpgradeArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    if let Some(drop) = args.drop_state.first() {
        return Err(Failure::usage(format!(
            "upgrade cannot drop state yet (--drop-state {}): stop the job, and start the new one with run -s SAVEPOINT --drop-state",
            drop.uid
        )));
    }
    let Asked { client, job } = find(&args.job, data_dir)?;
    let running = client.info(&job)?;
    let components = new_components(args, &running, data_dir)?;
    let mut modules = BTreeMap::new();
    for (uid, path) in components {
        let bytes = std::fs::read(&path).map_err(|error| Failure {
            uid: Some(uid.to_string()),
            path: Some(path.display().to_string()),
            ..Failure::usage(format!(
                "operator \"{uid}\": cannot read the module {}: {error}",
                path.display()
            ))
        })?;
        let uploaded = client.upload(&job, &bytes).map_err(|error| Failure {
            uid: Some(uid.to_string()),
            path: Some(path.display().to_string()),
            message: format!("operator \"{uid}\": {}: {}", path.display(), error.message),
            ..Failure::from(error)
        })?;
        // A job file names all modules; those that run already stay.
        let same = running.operators.iter().any(|node| {
            node.uid == uid
                && node
                    .module
                    .as_deref()
                    .is_some_and(|short| uploaded.digest.starts_with(short))
        });
        if args.new_job.is_none() || !same {
            modules.insert(uid, uploaded.digest);
        }
    }
    if modules.is_empty() {
        return Err(Failure::usage(
            "there is nothing to upgrade: the job runs these very modules",
        ));
    }
    let report = client.upgrade(&job, &UpgradeRequest { modules })?;
    output.result(&json!(report), || report.line());
    Ok(())
}

/// An upgrade changes modules and nothing else, today: whatever else differs in the new job file is told, not ignored.
fn refuse_other_changes(graph: &JobGraph, running: &JobView) -> Result<(), Failure> {
    let is_module = |key: &str| key.ends_with(".crate") || key.ends_with(".module");
    let keys = graph.settings.keys().chain(running.settings.keys());
    let keys: std::collections::BTreeSet<&String> = keys.filter(|key| !is_module(key)).collect();
    let mut changes = vec![];
    for key in keys {
        let new = graph.settings.get(key).map_or("(not set)", |setting| &setting.value);
        let old = running.settings.get(key).map_or("(not set)", |setting| &setting.value);
        if new != old {
            changes.push(format!("  {key}: the job runs with {old}, the file has {new}"));
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "an upgrade changes modules only, for now, and the new job file differs in more:\n{}\nPut these back, or stop the job and start the new one from its savepoint with run -s",
        changes.join("\n")
    )))
}

/// The component files of an upgrade; guest crates are built.
fn new_components(
    args: &UpgradeArgs,
    running: &JobView,
    data_dir: &Path,
) -> Result<BTreeMap<OperatorUid, PathBuf>, Failure> {
    let engine = build::engine(data_dir)?;
    let (tools, progress) = (Tools::from_env(), StderrReport::new());
    if let Some(new_job) = &args.new_job {
        let overrides = Overrides::from_process(data_dir)?;
        let (graph, _) = crate::graph::load_job(new_job, &overrides)?;
        refuse_other_changes(&graph, running)?;
        let built = build_guests(&guest_crates(&graph), &tools, &engine, &progress)?;
        return Ok(component_paths(&graph, &built));
    }
    let current_dir = std::env::current_dir().unwrap_or_default();
    let mut components = BTreeMap::new();
    for text in &args.module {
        let module = parse_module(text, &current_dir).map_err(Failure::usage)?;
        let path = match module.artifact {
            Artifact::Module(path) => path,
            Artifact::Crate(dir) => {
                let guest = GuestCrate {
                    uid: module.uid.clone(),
                    dir,
                };
                let built = build_guests(&[guest], &tools, &engine, &progress)?;
                built
                    .into_iter()
                    .map(|built| built.component)
                    .next()
                    .unwrap_or_default()
            }
        };
        components.insert(module.uid, path);
    }
    Ok(components)
}

/// Milliseconds since the Unix epoch as `2026-11-21 05:20:00` (UTC). Howard Hinnant's `civil_from_days`.
fn date_time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(super::date_time(0), "1970-01-01 00:00:00");
        assert_eq!(super::date_time(1_709_251_199_000), "2024-02-29 23:59:59");
        assert_eq!(super::date_time(1_795_238_400_000), "2026-11-21 05:20:00");
        assert_eq!(super::date_time(-1), "1969-12-31 23:59:59");
    }
}
