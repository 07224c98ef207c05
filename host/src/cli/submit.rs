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
use super::run::{Origin, refuse_collisions, restore_from};
use crate::api::types::SubmitRequest;
use crate::compile::{StderrReport, Tools, build_guests, component_paths, guest_crates};
use crate::graph::Overrides;
use crate::jobs::start::RestoreFrom;
use crate::serve::submission::Submission;

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
    let (graph, warnings) = crate::graph::load_job(&args.job.job, &overrides, crate::connectors::BUILT_IN)?;
    log::warnings(&warnings);
    let engine = engine(data_dir)?;
    let built = build_guests(
        &guest_crates(&graph),
        &Tools::from_env(data_dir),
        &engine,
        &StderrReport::new(),
    )?;
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
        overrides: Overrides {
            // The host has a configuration of its own.
            config: None,
            ..overrides
        },
        modules,
        restore: restore_from(args).map(|from| RestoreFrom {
            location: absolute(&from.location),
            ..from
        }),
        savepoint_at_end: args.savepoint_at_end.as_deref().map(absolute),
        allow: args.into(),
    };
    let submitted = client.submit(&SubmitRequest::from(&submission))?;
    output.result(&json!(submitted), || {
        format!("Job has been submitted with JobID {}", submitted.job_id)
    });
    Ok(())
}
