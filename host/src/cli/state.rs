//! `state show` and `state verify`: savepoints, offline.

use regraft_model::error_kind::ErrorKind;

use super::args::{DropState, StateArgs, StateVerb};
use super::failure::Failure;
use super::output::Output;
use crate::savepoint::load::Savepoint;
use crate::savepoint::metadata::MetadataError;
use crate::savepoint::show::{EntriesOf, ShownSavepoint, ShownState};
use crate::savepoint::{show, verify};
use crate::storage::LocalStores;

/// `regraft state …`.
///
/// # Errors
/// [`Failure`] where there is no savepoint, or it is damaged.
pub async fn state(args: &StateArgs, output: Output) -> Result<(), Failure> {
    match &args.verb {
        StateVerb::Show(args) => {
            let savepoint = open(&args.path).await?;
            let shown = match &args.entries {
                None => show::show(&savepoint),
                Some(of) => with_entries(&savepoint, &args.path, of.as_ref()).await?,
            };
            let json = serde_json::to_value(&shown).unwrap_or_default();
            output.result(&json, || shown.text().trim_end().to_owned());
            Ok(())
        }
        StateVerb::Verify(args) => {
            let savepoint = open(&args.path).await?;
            let files = savepoint.metadata.files().count();
            let bar = (!output.json).then(|| indicatif::ProgressBar::new(files as u64));
            let report = verify::verify(&savepoint, |done| {
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
                return Err(Failure {
                    kind: ErrorKind::Data,
                    message: messages.join("\n"),
                    uid: first.uid.as_ref().map(ToString::to_string),
                    path: Some(first.path.clone()),
                });
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

async fn with_entries(savepoint: &Savepoint, path: &str, of: Option<&DropState>) -> Result<ShownSavepoint, Failure> {
    let wanted = EntriesOf {
        uid: of.map(|of| of.uid.clone()),
        state: of.and_then(|of| of.state.clone()),
    };
    let failed = |error: MetadataError| Failure {
        path: Some(path.to_owned()),
        ..Failure::new(error.kind(), error.to_string())
    };
    let (shown, found) = show::show_entries(savepoint, &wanted).await.map_err(failed)?;
    match of {
        Some(of) if !found => {
            let states = shown.operators.iter().flat_map(|operator| {
                let name = |state: &ShownState| format!("{}/{}", operator.uid, state.name);
                operator.states.iter().map(name)
            });
            let known = states.collect::<Vec<_>>().join(", ");
            Err(Failure {
                path: Some(path.to_owned()),
                ..Failure::usage(format!(
                    "--entries={of}: {} has no such state. Expected one of: {known}",
                    savepoint.url()
                ))
            })
        }
        _ => Ok(shown),
    }
}

/// Opens a savepoint.
///
/// # Errors
/// [`Failure`] where there is none.
pub(super) async fn open(path: &str) -> Result<Savepoint, Failure> {
    Savepoint::open(&LocalStores, path)
        .await
        .map_err(|error: MetadataError| Failure {
            path: Some(path.to_owned()),
            ..Failure::new(error.kind(), error.to_string())
        })
}
