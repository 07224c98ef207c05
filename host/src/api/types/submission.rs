//! A job to start, as the command line sends it to a host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regraft_model::id::OperatorUid;
use serde::{Deserialize, Serialize};

use crate::graph::job_graph::Artifact;
use crate::graph::{ModuleOverride, Overrides};
use crate::jobs::start::RestoreFrom;
use crate::savepoint::restore::RestoreOptions;
use crate::serve::submission::{Allow, Submission};

/// Body of `POST /api/v1/jobs`. Its components have been uploaded, and all paths in it are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// Name of the job file in messages.
    pub file: String,
    /// Text of the job file.
    pub text: String,
    /// Directory that relative paths in the file are relative to.
    pub base_dir: PathBuf,
    /// Settings from outside the file.
    pub layers: Layers,
    /// Arguments behind `--`.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// SHA-256 of each operator's component.
    pub modules: BTreeMap<OperatorUid, String>,
    /// Savepoint that it starts from.
    #[serde(default)]
    pub restore: Option<RestoreSource>,
    /// Directory of `--savepoint-at-end`.
    #[serde(default)]
    pub savepoint_at_end: Option<String>,
    /// Collisions with other jobs that are allowed.
    #[serde(default)]
    pub allow: AllowedCollisions,
}

/// Settings from outside the job file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layers {
    /// `--name`.
    pub name: Option<String>,
    /// `-c`.
    pub entry: Option<String>,
    /// `-p`.
    pub parallelism: Option<u64>,
    /// `--set`, each.
    pub set: Vec<String>,
    /// `--module`, each.
    pub modules: Vec<ModuleChoice>,
    /// Environment variables that are settings.
    pub environment: Vec<(String, String)>,
    /// Configuration of the host, which puts in its own.
    pub config: Option<ConfigFile>,
    /// Directory that relative paths on the command line are relative to.
    pub current_dir: PathBuf,
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Text of the file.
    pub text: String,
}

/// One `--module`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleChoice {
    /// Uid of the operator.
    pub uid: OperatorUid,
    /// True if `path` is a guest crate's directory rather than a component file.
    pub is_crate: bool,
    /// Path that it was built or read from.
    pub path: PathBuf,
    /// The argument as it was typed.
    pub text: String,
}

/// Savepoint to start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreSource {
    /// Its directory or `_metadata` file, as an absolute path or URL.
    pub location: String,
    /// `-n`.
    #[serde(default)]
    pub allow_non_restored: bool,
    /// `--drop-state`, each.
    #[serde(default)]
    pub drop_state: Vec<String>,
    /// `--allow-later-output`.
    #[serde(default)]
    pub allow_later_output: bool,
}

/// Collisions with other jobs that are allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowedCollisions {
    /// `--allow-same-name`.
    pub same_name: bool,
    /// `--allow-shared-output`.
    pub shared_output: bool,
}

impl From<&Submission> for SubmitRequest {
    fn from(submission: &Submission) -> Self {
        Self {
            file: submission.file.clone(),
            text: submission.text.clone(),
            base_dir: submission.base_dir.clone(),
            layers: (&submission.overrides).into(),
            arguments: submission.overrides.arguments.clone(),
            modules: submission.modules.clone(),
            restore: submission.restore.as_ref().map(|from| RestoreSource {
                location: from.location.clone(),
                allow_non_restored: from.options.allow_non_restored,
                drop_state: from.options.drop_state.clone(),
                allow_later_output: from.allow_later_output,
            }),
            savepoint_at_end: submission.savepoint_at_end.clone(),
            allow: AllowedCollisions {
                same_name: submission.allow.same_name,
                shared_output: submission.allow.shared_output,
            },
        }
    }
}

impl From<SubmitRequest> for Submission {
    fn from(record: SubmitRequest) -> Self {
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

impl From<&Overrides> for Layers {
    fn from(overrides: &Overrides) -> Self {
        let module = |module: &ModuleOverride| {
            let (is_crate, path) = match &module.artifact {
                Artifact::Crate(path) => (true, path),
                Artifact::Module(path) => (false, path),
            };
            ModuleChoice {
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
            config: config.map(|(path, text)| ConfigFile { path, text }),
            current_dir: overrides.current_dir.clone(),
        }
    }
}

impl Layers {
    fn overrides(self, arguments: Vec<String>) -> Overrides {
        let module = |module: ModuleChoice| ModuleOverride {
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
