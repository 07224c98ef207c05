//! What it takes to start a job: its file, everything that is said about it elsewhere, and which components it runs.
//!
//! It travels from the command line to a host, and stands in the host's catalog, so that the job can be started again
//! where neither the file nor the crates are there any more. All paths in it are absolute.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regraft_model::id::OperatorUid;
use serde::{Deserialize, Serialize};

use super::handle::JobError;
use super::start::RestoreFrom;
use crate::graph::job_graph::{Artifact, JobGraph};
use crate::graph::{ModuleOverride, Overrides, parse_job};
use crate::savepoint::restore::RestoreOptions;

/// A job to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// What messages call the job file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// The directory that relative paths in it are relative to.
    pub base_dir: PathBuf,
    /// What was said about it outside the file.
    pub layers: Layers,
    /// What stood after `--`.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The SHA-256 of each operator's component.
    pub modules: BTreeMap<OperatorUid, String>,
    /// Where its state comes from.
    #[serde(default)]
    pub restore: Option<RestoreSource>,
    /// `--savepoint-at-end`.
    #[serde(default)]
    pub savepoint_at_end: Option<String>,
    /// What may collide with other jobs.
    #[serde(default)]
    pub allow: Allow,
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
    /// The host's configuration. A host puts in its own when it takes a job.
    pub config: Option<ConfigFile>,
    /// What relative paths on the command line are relative to.
    pub current_dir: PathBuf,
}

/// `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// What stands in it.
    pub text: String,
}

/// One `--module`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleChoice {
    /// Of which operator.
    pub uid: OperatorUid,
    /// Whether `path` is a guest crate's directory rather than a component file.
    pub is_crate: bool,
    /// Where it was.
    pub path: PathBuf,
    /// As it was typed.
    pub text: String,
}

/// A savepoint to start from.
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

/// What may collide with other jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// `--allow-same-name`.
    pub same_name: bool,
    /// `--allow-shared-output`.
    pub shared_output: bool,
}

impl Submission {
    /// The job, read as if the command line were here.
    ///
    /// # Errors
    /// [`JobError`] of kind usage with every problem of the job file.
    pub fn graph(&self) -> Result<JobGraph, JobError> {
        let overrides = self.layers.overrides(&self.arguments);
        parse_job(&self.text, &self.file, &self.base_dir, &overrides)
            .map(|(graph, _)| graph)
            .map_err(|error| JobError::usage(error.to_string()))
    }

    /// Where its state comes from.
    #[must_use]
    pub fn restore_from(&self) -> Option<RestoreFrom> {
        self.restore.as_ref().map(|source| RestoreFrom {
            location: source.location.clone(),
            options: RestoreOptions {
                allow_non_restored: source.allow_non_restored,
                drop_state: source.drop_state.clone(),
            },
            allow_later_output: source.allow_later_output,
        })
    }
}

impl Layers {
    fn overrides(&self, arguments: &[String]) -> Overrides {
        let module = |choice: &ModuleChoice| ModuleOverride {
            uid: choice.uid.clone(),
            artifact: if choice.is_crate {
                Artifact::Crate(choice.path.clone())
            } else {
                Artifact::Module(choice.path.clone())
            },
            text: choice.text.clone(),
        };
        Overrides {
            name: self.name.clone(),
            entry: self.entry.clone(),
            parallelism: self.parallelism,
            set: self.set.clone(),
            modules: self.modules.iter().map(module).collect(),
            arguments: arguments.to_vec(),
            environment: self.environment.clone(),
            config: self.config.clone().map(|config| (config.path, config.text)),
            current_dir: self.current_dir.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::job_graph::NodeKind;

    const JOB: &str = r#"
name = "words"
[[source]]
uid = "lines"
connector = "file"
path = "in/*"
[[operator]]
uid = "count"
crate = "count"
inputs = ["lines"]
[[sink]]
uid = "out"
connector = "print"
inputs = ["count"]
"#;

    fn overrides() -> Overrides {
        Overrides {
            name: Some("other".to_owned()),
            parallelism: Some(3),
            set: vec!["checkpoint.interval=7s".to_owned(), "lines.path=there/*".to_owned()],
            modules: vec![ModuleOverride {
                uid: OperatorUid::new("count").expect("uid"),
                artifact: Artifact::Module("/client/count-v2.wasm".into()),
                text: "count=count-v2.wasm".to_owned(),
            }],
            arguments: vec!["--loud".to_owned()],
            environment: vec![("REGRAFT_CHECKPOINT_TIMEOUT".to_owned(), "9s".to_owned())],
            config: Some(("/data/config.toml".into(), "[checkpoint]\nretain = 5\n".to_owned())),
            current_dir: "/client".into(),
            ..Overrides::default()
        }
    }

    #[test]
    fn what_comes_out_is_what_the_command_line_would_have_read() {
        let overrides = overrides();
        let submission = Submission {
            file: "job.toml".to_owned(),
            text: JOB.to_owned(),
            base_dir: "/client/jobs".into(),
            layers: Layers::from(&overrides),
            arguments: overrides.arguments.clone(),
            modules: BTreeMap::new(),
            restore: None,
            savepoint_at_end: None,
            allow: Allow::default(),
        };
        let text = serde_json::to_string(&submission).expect("JSON");
        let back: Submission = serde_json::from_str(&text).expect("read");
        assert_eq!(back, submission);
        let (here, _) = parse_job(JOB, "job.toml", "/client/jobs".as_ref(), &overrides).expect("a job");
        let there = back.graph().expect("a job");
        assert_eq!(format!("{there:?}"), format!("{here:?}"));
        assert_eq!((there.name.as_str(), there.parallelism), ("other", 3));
        let NodeKind::Operator(count) = &there.nodes[1].kind else {
            panic!("an operator")
        };
        assert_eq!(count.artifact, Artifact::Module("/client/count-v2.wasm".into()));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let error = serde_json::from_str::<Submission>(r#"{"file":"a","tekst":""}"#).expect_err("no such key");
        assert!(error.to_string().contains("unknown field `tekst`"), "{error}");
    }
}
