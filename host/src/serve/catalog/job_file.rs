//! `job.json` of the catalog. Hosts are upgraded in place: a file of an earlier version is read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regraft_model::id::{JobId, OperatorUid};
use serde::{Deserialize, Serialize};

use super::CatalogRecord;
use crate::graph::job_graph::Artifact;
use crate::graph::{ModuleOverride, Overrides};
use crate::jobs::start::RestoreFrom;
use crate::savepoint::restore::RestoreOptions;
use crate::serve::submission::{Allow, Submission};

/// `job.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct JobFile {
    job_id: JobId,
    name: String,
    created_at: i64,
    submission: SubmissionRecord,
}

/// Submission of a job.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubmissionRecord {
    file: String,
    text: String,
    base_dir: PathBuf,
    layers: LayersRecord,
    #[serde(default)]
    arguments: Vec<String>,
    modules: BTreeMap<OperatorUid, String>,
    #[serde(default)]
    restore: Option<RestoreRecord>,
    #[serde(default)]
    savepoint_at_end: Option<String>,
    #[serde(default)]
    allow: AllowRecord,
}

/// Settings from outside the job file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LayersRecord {
    name: Option<String>,
    entry: Option<String>,
    parallelism: Option<u64>,
    set: Vec<String>,
    modules: Vec<ModuleRecord>,
    environment: Vec<(String, String)>,
    config: Option<ConfigRecord>,
    current_dir: PathBuf,
}

/// Configuration of the host, as it was when the job came.
#[derive(Serialize, Deserialize)]
struct ConfigRecord {
    path: PathBuf,
    text: String,
}

/// One `--module`.
#[derive(Serialize, Deserialize)]
struct ModuleRecord {
    uid: OperatorUid,
    is_crate: bool,
    path: PathBuf,
    text: String,
}

/// Savepoint to start from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreRecord {
    location: String,
    #[serde(default)]
    allow_non_restored: bool,
    #[serde(default)]
    drop_state: Vec<String>,
    #[serde(default)]
    allow_later_output: bool,
}

/// Collisions that are allowed.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AllowRecord {
    same_name: bool,
    shared_output: bool,
}

impl From<&CatalogRecord> for JobFile {
    fn from(record: &CatalogRecord) -> Self {
        Self {
            job_id: record.job_id,
            name: record.name.clone(),
            created_at: record.created_at,
            submission: (&record.submission).into(),
        }
    }
}

impl From<JobFile> for CatalogRecord {
    fn from(file: JobFile) -> Self {
        Self {
            job_id: file.job_id,
            name: file.name,
            created_at: file.created_at,
            submission: file.submission.into(),
        }
    }
}

impl From<&Submission> for SubmissionRecord {
    fn from(submission: &Submission) -> Self {
        Self {
            file: submission.file.clone(),
            text: submission.text.clone(),
            base_dir: submission.base_dir.clone(),
            layers: (&submission.overrides).into(),
            arguments: submission.overrides.arguments.clone(),
            modules: submission.modules.clone(),
            restore: submission.restore.as_ref().map(|from| RestoreRecord {
                location: from.location.clone(),
                allow_non_restored: from.options.allow_non_restored,
                drop_state: from.options.drop_state.clone(),
                allow_later_output: from.allow_later_output,
            }),
            savepoint_at_end: submission.savepoint_at_end.clone(),
            allow: AllowRecord {
                same_name: submission.allow.same_name,
                shared_output: submission.allow.shared_output,
            },
        }
    }
}

impl From<SubmissionRecord> for Submission {
    fn from(record: SubmissionRecord) -> Self {
        Self {
            file: record.file,
            text: record.text,
            base_dir: record.base_dir,
            overrides: record.layers.overrides(record.arguments),
            modules: record.modules,
            restore: record.restore.map(|from| RestoreFrom {
                location: from.location,
                options: RestoreOptions {
                    allow_non_restored: from.allow_non_restored,
                    drop_state: from.drop_state,
                },
                allow_later_output: from.allow_later_output,
            }),
            savepoint_at_end: record.savepoint_at_end,
            allow: Allow {
                same_name: record.allow.same_name,
                shared_output: record.allow.shared_output,
            },
        }
    }
}

impl From<&Overrides> for LayersRecord {
    fn from(overrides: &Overrides) -> Self {
        let module = |module: &ModuleOverride| {
            let (is_crate, path) = match &module.artifact {
                Artifact::Crate(path) => (true, path),
                Artifact::Module(path) => (false, path),
            };
            ModuleRecord {
                uid: module.uid.clone(),
                is_crate,
                path: path.clone(),
                text: module.text.clone(),
            }
        };
        let config = overrides.config.clone();
        Self {
            name: overrides.name.clone(),
            entry: overrides.entry.clone(),
            parallelism: overrides.parallelism,
            set: overrides.set.clone(),
            modules: overrides.modules.iter().map(module).collect(),
            environment: overrides.environment.clone(),
            config: config.map(|(path, text)| ConfigRecord { path, text }),
            current_dir: overrides.current_dir.clone(),
        }
    }
}

impl LayersRecord {
    fn overrides(self, arguments: Vec<String>) -> Overrides {
        let module = |module: ModuleRecord| ModuleOverride {
            uid: module.uid,
            artifact: if module.is_crate {
                Artifact::Crate(module.path)
            } else {
                Artifact::Module(module.path)
            },
            text: module.text,
        };
        Overrides {
            name: self.name,
            entry: self.entry,
            prefer: None,
            parallelism: self.parallelism,
            set: self.set,
            modules: self.modules.into_iter().map(module).collect(),
            arguments,
            environment: self.environment,
            config: self.config.map(|config| (config.path, config.text)),
            current_dir: self.current_dir,
        }
    }
}
