//! `gc`: removes checkpoints that no job needs, after they have been shown.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::args::{GcArgs, HostArgs};
use super::failure::Failure;
use super::job::client;
use super::offline::block_on;
use super::output::Output;
use crate::api::types::SnapshotRowKind;
use crate::serve::gc::{Directory, Left, Plan, Running, exclude_starts, facts, plan, remove};

/// `regraft gc`.
///
/// # Errors
/// [`Failure`] where it is not known what the jobs of this machine need, or something cannot be removed.
pub fn gc(args: &GcArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let _held = args.yes.then(|| exclude_starts(data_dir)).transpose()?;
    let (directories, running) = block_on(facts(data_dir, running(&args.host, data_dir)?))?;
    let plan = plan(directories, &running);
    if args.yes {
        for directory in &plan.remove {
            remove(directory)?;
        }
    }
    let removed = |directory: &Directory| {
        let recorded = directory.recorded.as_ref();
        json!({
            "path": directory.path, "job_id": directory.job_id, "files": directory.files, "bytes": directory.bytes,
            "name": recorded.map(|recorded| &recorded.name), "status": recorded.and_then(|recorded| recorded.ended),
        })
    };
    let left = |left: &Left| json!({ "path": left.path, "reason": left.reason });
    let value = json!({
        "removed": args.yes,
        "directories": plan.remove.iter().map(removed).collect::<Vec<_>>(),
        "bytes": plan.remove.iter().map(|directory| directory.bytes).sum::<u64>(),
        "left": plan.left.iter().map(left).collect::<Vec<_>>(),
    });
    output.result(&value, || text(&plan, args.yes));
    Ok(())
}

/// Asks all hosts for what their jobs need. One that does not answer fails the verb: what it needs is not known.
fn running(host: &HostArgs, data_dir: &Path) -> Result<Running, Failure> {
    let client = client(host, data_dir).strict();
    let mut running = Running {
        jobs: BTreeSet::new(),
        needed: vec![],
    };
    for job in client.jobs()?.into_iter().filter(|job| !job.summary.status.is_over()) {
        running.jobs.insert(job.summary.job_id);
        let Some(from) = job.summary.restored_from.clone() else {
            continue;
        };
        let own = client.snapshots(&job)?.snapshots;
        if !own.iter().any(|row| row.kind == SnapshotRowKind::Checkpoint) {
            running.needed.push(from);
        }
    }
    Ok(running)
}

fn text(plan: &Plan, removed: bool) -> String {
    let mut lines = vec![];
    match (plan.remove.is_empty(), removed) {
        (true, _) => lines.push("Nothing to remove.".to_owned()),
        (false, true) => lines.push("Removed:".to_owned()),
        (false, false) => lines.push("Would be removed by `regraft gc --yes`:".to_owned()),
    }
    for directory in &plan.remove {
        let recorded = directory.recorded.as_ref();
        let job = recorded.map(|recorded| {
            let status = recorded.ended.map(|status| status.to_string()).unwrap_or_default();
            format!("  {} {status}", recorded.name)
        });
        lines.push(format!(
            "  {}{}, {} bytes in {} files",
            directory.path.display(),
            job.unwrap_or_default(),
            directory.bytes,
            directory.files
        ));
    }
    if !plan.left.is_empty() {
        lines.push("Left alone:".to_owned());
    }
    let left = plan.left.iter();
    lines.extend(left.map(|left| format!("  {}: {}", left.path.display(), left.reason)));
    lines.join("\n")
}
