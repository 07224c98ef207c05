//! `run -d`: builds a job here, and submits it to a serving host, which runs it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::args::RunArgs;
use super::build::engine;
use super::failure::Failure;
use super::job::{absolute, client, upload};
use super::log;
use super::output::Output;
use super::run::{Origin, refuse_collisions};
use crate::compile::{StderrReport, Tools, build_guests, component_paths, guest_crates};
use crate::jobs::submission::{Layers, RestoreSource, Submission};

/// `regraft run -d`. `origin` is the job whose savepoint is restored.
///
/// # Errors
/// [`Failure`] where there is no host, or it refuses the job.
pub fn submit(args: &RunArgs, data_dir: &Path, origin: Origin, output: Output) -> Result<(), Failure> {
    if let Some(warning) = args.restore.claim_mode.warning() {
        log::line(&format!("warning: {warning}"));
    }
    let client = client(&args.host, data_dir);
    // Fails before anything is built.
    let host = client.serving()?.to_owned();
    let overrides = args.job.overrides(data_dir, &args.arguments)?;
    let (graph, warnings) = crate::graph::load_job(&args.job.job, &overrides)?;
    log::warnings(&warnings);
    let engine = engine(data_dir)?;
    let built = build_guests(&guest_crates(&graph), &Tools::from_env(), &engine, &StderrReport::new())?;
    refuse_collisions(&graph, data_dir, args.into(), origin)?;
    let mut modules = BTreeMap::new();
    for (uid, path) in component_paths(&graph, &built) {
        let uploaded = upload(&client, &host, &uid, &path)?;
        modules.insert(uid, uploaded.digest);
    }
    let submission = Submission {
        file: args.job.job.to_string_lossy().into_owned(),
        text: graph.text.clone(),
        base_dir: graph.base_dir.clone(),
        layers: Layers {
            // The host has a configuration of its own.
            config: None,
            ..Layers::from(&overrides)
        },
        arguments: args.arguments.clone(),
        modules,
        restore: args.restore.from_savepoint.as_deref().map(|location| RestoreSource {
            location: absolute(location),
            allow_non_restored: args.restore.allow_non_restored_state,
            drop_state: args.restore.drop_state.iter().map(ToString::to_string).collect(),
            allow_later_output: args.allow_later_output,
        }),
        savepoint_at_end: args.savepoint_at_end.as_deref().map(absolute),
        allow: args.into(),
    };
    let submitted = client.submit(&submission)?;
    output.result(&json!(submitted), || {
        format!("Job has been submitted with JobID {}", submitted.job_id)
    });
    Ok(())
}
