//! `state show` and `state verify`: savepoints, offline.

pub mod text;

use std::path::Path;

use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::{DropState, HostArgs, StateArgs, StateVerb};
use super::failure::Failure;
use super::output::Output;
use super::savepoint::{Needing, Why, needed_by, open};
use crate::api::types::ProblemBody;
use crate::graph::suggest::nearest;
use crate::savepoint::budget::Budget;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::Owner;
use crate::savepoint::show::{EntriesOf, ShownSavepoint, ShownState};
use crate::savepoint::{show, verify};

/// `regraft state …`.
///
/// # Errors
/// [`Failure`] where there is no savepoint, or it is damaged.
pub async fn state(args: &StateArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    match &args.verb {
        StateVerb::Show(args) => {
            let savepoint = open(&args.path).await?;
            let budget = Budget::of_machine();
            let mut shown = match &args.entries {
                None => show::show(&savepoint),
                Some(of) => with_entries(&savepoint, &args.path, of.as_ref(), &budget).await?,
            };
            let read = show::read_positions(&savepoint, &mut shown, &budget).await;
            read.map_err(|error| Failure::of_savepoint(&args.path, &error))?;
            let needed = Needed::ask(&savepoint, &args.host, data_dir).await;
            let mut json = serde_json::to_value(&shown).unwrap_or_default();
            json["needed_by"] = json!(needed.jobs);
            json["safe_to_delete"] = json!(needed.safe());
            output.result(&json, || text::text(&shown, &needed.facts()).trim_end().to_owned());
            Ok(())
        }
        StateVerb::Verify(args) => {
            let savepoint = open(&args.path).await?;
            let files = savepoint.metadata.files().count();
            let bar = (!output.json).then(|| indicatif::ProgressBar::new(files as u64));
            let report = verify::verify(&savepoint, &Budget::of_machine(), |done| {
                if let Some(bar) = &bar {
                    bar.set_position(done as u64);
                }
            })
            .await;
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            if let Some(first) = report.problems.first() {
                let messages: Vec<&str> = report.problems.iter().map(|problem| problem.message.as_str()).collect();
                let problems = report.problems.iter().map(|problem| ProblemBody {
                    kind: ErrorKind::Data,
                    message: problem.message.clone(),
                    uid: problem.uid.as_ref().map(ToString::to_string),
                    path: Some(problem.path.clone()),
                    remedy: None,
                });
                let failure = Failure {
                    uid: first.uid.as_ref().map(ToString::to_string),
                    path: Some(first.path.clone()),
                    ..Failure::new(ErrorKind::Data, messages.join("\n"))
                };
                return Err(failure.with_problems(problems.collect()));
            }
            let json = serde_json::json!({
                "path": savepoint.url(), "ok": true, "files": report.files, "bytes": report.bytes, "entries": report.entries,
            });
            output.result(&json, || {
                format!(
                    "{} is sound: {} files, {} bytes, {} rows",
                    savepoint.url(),
                    report.files,
                    report.bytes,
                    report.entries
                )
            });
            Ok(())
        }
    }
}

/// Jobs that need a savepoint, as far as running hosts and this data directory can tell.
struct Needed {
    /// Each job with the reason, as JSON.
    jobs: Vec<serde_json::Value>,
    /// The same for people.
    shown: Vec<String>,
    /// True if the savepoint is a host's checkpoint.
    of_host: bool,
    /// Reason why it cannot be told.
    unknown: Option<String>,
}

impl Needed {
    async fn ask(savepoint: &Savepoint, host: &HostArgs, data_dir: &Path) -> Self {
        let (needing, unknown) = needed_by(savepoint, host, data_dir).await;
        let of_host = savepoint.metadata.owner == Owner::Host;
        let mut needed = Self {
            jobs: vec![],
            shown: vec![],
            of_host,
            unknown: unknown.map(|error| error.message),
        };
        for Needing {
            job_id,
            name,
            why,
            waits,
        } in needing
        {
            let why = match why {
                Why::Own => "whose checkpoint it is",
                Why::Origin => "until first checkpoint",
                Why::End => "until its output is committed",
            };
            let waiting = if waits { ", which waits for its host" } else { "" };
            needed.shown.push(format!("job {name} ({job_id}) {why}{waiting}"));
            let mut json = json!({ "job_id": job_id, "name": name, "why": why });
            if waits {
                json["waits"] = json!(true);
            }
            needed.jobs.push(json);
        }
        needed
    }

    /// Returns true if no job needs it; `None` where that cannot be told.
    const fn safe(&self) -> Option<bool> {
        match (self.of_host || !self.jobs.is_empty(), &self.unknown) {
            (true, _) => Some(false),
            (false, None) => Some(true),
            (false, Some(_)) => None,
        }
    }

    /// Returns the facts for people, each a name with a value.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let safe = match (self.safe(), &self.unknown) {
            (Some(true), _) => "yes".to_owned(),
            (Some(false), _) if self.jobs.is_empty() => {
                "no, it is a checkpoint, which its host keeps and removes".to_owned()
            }
            (Some(false), _) => "no".to_owned(),
            (None, why) => format!("unknown: {}", why.as_deref().unwrap_or_default()),
        };
        let by = self.shown.iter().map(|job| ("needed by", job.clone()));
        by.chain([("safe to delete", safe)]).collect()
    }
}

async fn with_entries(
    savepoint: &Savepoint,
    path: &str,
    of: Option<&DropState>,
    budget: &Budget,
) -> Result<ShownSavepoint, Failure> {
    let wanted = EntriesOf {
        uid: of.map(|of| of.uid.clone()),
        state: of.and_then(|of| of.state.clone()),
    };
    let shown = show::show_entries(savepoint, &wanted, budget).await;
    let (shown, found) = shown.map_err(|error| Failure::of_savepoint(path, &error))?;
    match of {
        Some(of) if !found => {
            let states = shown.operators.iter().flat_map(|operator| {
                let name = |state: &ShownState| format!("{}/{}", operator.uid, state.name);
                operator.states.iter().map(name)
            });
            let known: Vec<String> = states.collect();
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let near = nearest(&of.to_string(), &names).map(|near| format!("; did you mean {near}?"));
            Err(Failure {
                path: Some(path.to_owned()),
                ..Failure::usage(format!(
                    "--entries={of}: {} has no such state. Expected one of: {}{}",
                    savepoint.url(),
                    known.join(", "),
                    near.unwrap_or_default()
                ))
            })
        }
        _ => Ok(shown),
    }
}
