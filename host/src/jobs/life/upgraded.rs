//! The last upgrade of a job, and the way back to the modules before it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regraft_model::id::{CheckpointId, JobVersion, OperatorUid};

use super::Life;
use super::failure::JobFailure;
use crate::storage::paths;

/// An upgrade that has come about in this process.
#[derive(Debug)]
pub(super) struct Upgraded {
    /// Its checkpoint, with the state that the modules before it have left.
    pub(super) id: CheckpointId,
    /// Version that it made.
    pub(super) version: JobVersion,
    /// URL of that checkpoint.
    pub(super) url: String,
    /// SHA-256 of the module that each changed operator had before.
    pub(super) before: BTreeMap<OperatorUid, String>,
}

impl Life {
    /// Returns how to go back to the modules before the last upgrade, if an operator fails that it has changed.
    pub(super) fn way_back(&self, failure: &JobFailure) -> Option<String> {
        let upgraded = self.upgraded.as_ref()?;
        let uid = failure.uid()?;
        if !upgraded.before.keys().any(|changed| changed.as_str() == uid) {
            return None;
        }
        let Upgraded {
            id,
            version,
            url,
            before,
        } = upgraded;
        let mut text = format!("\"{uid}\" runs the module of version {version}, by the upgrade at checkpoint {id}. ");
        // A checkpoint is named by the directory of its job, beside which modules are.
        let shared = url.rsplit_once('/').map_or("", |(job, _)| job);
        let command = |from: &str| {
            let mut command = format!("regraft run -s {from} JOB.toml");
            for (uid, sha256) in before {
                let file = format!("{shared}/{}", paths::SHARED_DIR);
                let file = file.strip_prefix("file://").unwrap_or(&file);
                let _ = write!(command, " --module {uid}={file}/{sha256}.wasm");
            }
            command
        };
        let newest = self.known.kept.back().copied();
        if self.known.kept.contains(id) || self.rounds.contains_key(id) || newest.is_none() {
            let _ = write!(text, "To go back to the module before it: {}", command(url));
        } else if let Some(newest) = newest {
            let from = format!("{shared}/{}", paths::checkpoint_name(newest));
            let _ = write!(
                text,
                "The state before it is not kept any more. To run the module before it on the state of checkpoint {newest}, if it can read that: {}",
                command(&from)
            );
        }
        Some(text)
    }
}
