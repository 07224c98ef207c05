//! Verbs that act on running jobs: `savepoint`, `stop`, `cancel`, `upgrade`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regraft_guest_runtime::engine::COMPONENT_BYTES_MAX;
use regraft_model::id::OperatorUid;
use serde_json::json;

use super::args::{CancelArgs, HostArgs, JobArgs, SavepointArgs, StopArgs, UpgradeArgs};
use super::build;
use super::failure::Failure;
use super::log;
use super::output::Output;
use super::progress::while_waiting;
use crate::api::client::{Client, FoundJob};
use crate::api::types::{JobView, ModuleUploaded, SavepointRequest, SnapshotReport, UpgradeReport, UpgradeRequest};
use crate::compile::{GuestCrate, StderrReport, Tools, build_guests, component_paths, guest_crates};
use crate::environment::files::read_regular;
use crate::graph::job_graph::{Artifact, JobGraph};
use crate::graph::{Overrides, parse_module};

/// A running job, and the client that has found it.
pub(super) struct Asked {
    pub(super) client: Client,
    pub(super) job: FoundJob,
}

/// Creates a client of the host that the user names, or of all hosts on this machine.
pub(super) fn client(host: &HostArgs, data_dir: &Path) -> Client {
    let token = host.token.as_deref().filter(|token| !token.trim().is_empty());
    Client::new(host.named(), token, data_dir)
}

pub(super) fn find(args: &JobArgs, data_dir: &Path) -> Result<Asked, Failure> {
    find_on(&args.job, &args.host, data_dir)
}

pub(super) fn find_on(job: &str, host: &HostArgs, data_dir: &Path) -> Result<Asked, Failure> {
    let client = client(host, data_dir);
    let job = client.find(job)?;
    Ok(Asked { client, job })
}

/// Uploads the component of an operator to a host, which loads and compiles it.
///
/// # Errors
/// [`Failure`] with the uid and the path, where the file cannot be read or the host does not run it.
pub(super) fn upload(client: &Client, host: &str, uid: &OperatorUid, path: &Path) -> Result<ModuleUploaded, Failure> {
    let shown = path.display();
    let uploaded = read_regular(path, COMPONENT_BYTES_MAX)
        .map_err(|error| Failure::usage(format!("operator \"{uid}\": cannot read the module {shown}: {error}")))
        .and_then(|component| {
            client.upload(host, &component).map_err(|error| Failure {
                message: format!("operator \"{uid}\": {shown}: {error}"),
                ..Failure::from(error)
            })
        });
    uploaded.map_err(|failure| Failure {
        uid: Some(uid.to_string()),
        path: Some(shown.to_string()),
        ..failure
    })
}

/// Makes a directory absolute, since the host may run in another one. URLs are returned as they are.
pub(super) fn absolute(dir: &str) -> String {
    if dir.contains("://") {
        return dir.to_owned();
    }
    std::path::absolute(dir).map_or_else(|_| dir.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Builds the answer of `savepoint` and `stop` with `--json`.
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
    let Asked { client, job } = find_on(args.job.as_deref().unwrap_or_default(), &args.host, data_dir)?;
    output.line(&format!("Triggering savepoint for job {}.", job.summary.job_id));
    output.line("Waiting for response...");
    let native = args.format.is_native();
    let request = SavepointRequest {
        dir: args.dir.as_deref().map(absolute),
        native,
        drain: false,
    };
    let report = while_waiting("taking a savepoint", || client.savepoint(&job, &request))?;
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
    let native = args.format.is_native();
    let format = if native { "NATIVE" } else { "CANONICAL" };
    output.line(&format!(
        "{word} job \"{}\" with a {format} savepoint.",
        job.summary.job_id
    ));
    let dir = args.savepoint_path.clone().flatten().as_deref().map(absolute);
    let request = SavepointRequest {
        dir,
        native,
        drain: args.drain,
    };
    let report = while_waiting("taking a savepoint", || client.stop(&job, &request))?;
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
        saved = Some(while_waiting("taking a savepoint", || {
            client.savepoint(&job, &request)
        })?);
    } else {
        output.line(&format!("Cancelling job {id}."));
    }
    let view = client.cancel(&job)?;
    let savepoint = saved.as_ref().map(|report| report.path.clone());
    output.result(
        &json!({ "job_id": id, "status": view.status, "savepoint": savepoint }),
        || match &savepoint {
            Some(path) => format!("Cancelled job {id}. Savepoint stored in {path}."),
            None => match &view.go_on {
                // It could not be brought back: its checkpoints have stayed.
                Some(go_on) => format!(
                    "Cancelled job {id}. Its checkpoints stay: it goes on from {} with `{}`.",
                    go_on.path, go_on.command
                ),
                None => format!("Cancelled job {id}."),
            },
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
            "upgrade cannot drop state yet: stop the job, and start the new one with run -s SAVEPOINT --drop-state {drop}"
        )));
    }
    let Asked { client, job } = find(&args.job, data_dir)?;
    let running = client.info(&job)?;
    let components = new_components(args, &running, data_dir)?;
    let mut modules = BTreeMap::new();
    for (uid, path) in components {
        let uploaded = upload(&client, &job.host, &uid, &path)?;
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
            "there is nothing to upgrade: the job already runs these modules",
        ));
    }
    let report = while_waiting("swapping modules", || client.upgrade(&job, &UpgradeRequest { modules }))?;
    output.result(&json!(report), || upgraded(&report));
    Ok(())
}

/// Returns the closing line of an upgrade, which a person can quote.
fn upgraded(report: &UpgradeReport) -> String {
    let uids: Vec<String> = report
        .uids
        .iter()
        .map(|changed| format!("{}: {} -> {}", changed.uid, changed.from, changed.to))
        .collect();
    format!(
        "{} at checkpoint {}, no output for {} ms (prepare {} ms, align {} ms, swap {} ms)",
        uids.join(", "),
        report.checkpoint_id,
        whole(report.gap_ms),
        whole(report.prepare_ms),
        whole(report.align_ms),
        whole(report.swap_ms)
    )
}

/// Formats milliseconds for people: whole, or with one digit where that would be 0.
fn whole(ms: f64) -> String {
    if ms < 0.95 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// Refuses other changes in the new job file: an upgrade changes only modules today, and must not ignore the rest.
fn refuse_other_changes(graph: &JobGraph, running: &JobView) -> Result<(), Failure> {
    let uids = graph.nodes.iter().map(|node| &node.uid);
    let uids = uids.chain(running.operators.iter().map(|node| &node.uid));
    let modules: BTreeSet<String> = uids
        .flat_map(|uid| [format!("{uid}.crate"), format!("{uid}.module")])
        .collect();
    let keys = graph.settings.keys().chain(running.settings.keys());
    let keys: BTreeSet<&String> = keys.filter(|key| !modules.contains(*key)).collect();
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

/// Returns the component files of an upgrade, building those that are guest crates.
fn new_components(
    args: &UpgradeArgs,
    running: &JobView,
    data_dir: &Path,
) -> Result<BTreeMap<OperatorUid, PathBuf>, Failure> {
    let engine = build::engine(data_dir)?;
    let (tools, progress) = (Tools::from_env(data_dir), StderrReport::new());
    if let Some(new_job) = &args.new_job {
        let overrides = Overrides {
            prefer: Some(running.name.clone()),
            ..Overrides::from_process(data_dir)?
        };
        let (graph, _) = crate::graph::load_job(new_job, &overrides, crate::connectors::BUILT_IN)?;
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
