//! The way on after a job has ended: its newest snapshot, and the command that starts a job from it. Pure, except for the list
//! of snapshots.

use std::path::Path;

use super::snapshots::ListedSnapshot;
use super::submission::Submission;
use crate::graph::Overrides;
use crate::jobs::observe::GoOn;

/// Place where a job is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// In the process of the command.
    Attached,
    /// In a host that serves.
    Detached,
}

/// Returns the newest of a job's snapshots, or else the savepoint that it started from, with the command to go on from it;
/// `None` where there is neither.
#[must_use]
pub fn go_on(
    submission: &Submission,
    snapshots: &[ListedSnapshot],
    restored_from: Option<&str>,
    again: Again,
) -> Option<GoOn> {
    let newest = snapshots.iter().max_by_key(|snapshot| snapshot.checkpoint_id);
    let path = newest.map(|snapshot| snapshot.url.as_str()).or(restored_from)?;
    Some(GoOn {
        path: path.to_owned(),
        command: command(submission, path, again),
    })
}

/// Returns the command line that starts the same job from a snapshot, for a POSIX shell.
fn command(submission: &Submission, snapshot: &str, again: Again) -> String {
    let Overrides {
        name,
        entry,
        prefer: _,
        parallelism,
        set,
        modules,
        arguments,
        environment: _,
        config: _,
        current_dir,
    } = &submission.overrides;
    let mut words = vec!["regraft".to_owned(), "run".to_owned()];
    if again == Again::Detached {
        words.push("-d".to_owned());
    }
    let mut flag = |flag: &str, value: &str| words.extend([flag.to_owned(), value.to_owned()]);
    flag("-s", snapshot);
    if let Some(entry) = entry {
        flag("-c", entry);
    }
    if let Some(name) = name {
        flag("--name", name);
    }
    if let Some(parallelism) = parallelism {
        flag("-p", &parallelism.to_string());
    }
    for set in set {
        flag("--set", set);
    }
    for module in modules {
        flag("--module", &module.text);
    }
    if let Some(dir) = &submission.savepoint_at_end {
        flag("--savepoint-at-end", dir);
    }
    words.push(submission.file.clone());
    if !arguments.is_empty() {
        words.push("--".to_owned());
        words.extend(arguments.iter().cloned());
    }
    let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    // Relative paths are those of the directory in which the job was started.
    let relative =
        Path::new(&submission.file).is_relative() || modules.iter().any(|module| has_relative_path(&module.text));
    match again {
        Again::Detached if relative => format!("cd {} && {line}", quoted(&current_dir.to_string_lossy())),
        _ => line,
    }
}

fn has_relative_path(module: &str) -> bool {
    module
        .split_once('=')
        .is_some_and(|(_, path)| Path::new(path).is_relative())
}

/// Quotes a word for a POSIX shell, where it needs that.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use regraft_model::id::{CheckpointId, OperatorUid};

    use super::*;
    use crate::graph::ModuleOverride;
    use crate::graph::job_graph::Artifact;
    use crate::savepoint::metadata::{Owner, Trigger};
    use crate::serve::submission::Allow;

    fn submission() -> Submission {
        Submission {
            file: "job.toml".to_owned(),
            text: String::new(),
            base_dir: "/jobs".into(),
            overrides: Overrides {
                name: Some("it's me".to_owned()),
                entry: Some("hourly".to_owned()),
                parallelism: Some(2),
                set: vec!["in.path=a b".to_owned()],
                modules: vec![ModuleOverride {
                    uid: OperatorUid::new("count").expect("a uid"),
                    artifact: Artifact::Module("/jobs/count.wasm".into()),
                    text: "count=count.wasm".to_owned(),
                }],
                arguments: vec!["--loud".to_owned()],
                current_dir: "/jobs".into(),
                ..Overrides::default()
            },
            modules: BTreeMap::new(),
            restore: None,
            savepoint_at_end: None,
            allow: Allow::default(),
        }
    }

    fn snapshot(id: u64) -> ListedSnapshot {
        ListedSnapshot {
            owner: Owner::Host,
            trigger: Trigger::Periodic,
            checkpoint_id: CheckpointId(id),
            completed_at_ms: 0,
            bytes: 0,
            url: format!("file:///chk-{id}"),
        }
    }

    #[test]
    fn the_newest_snapshot_counts_and_the_command_can_be_pasted() {
        let found = go_on(
            &submission(),
            &[snapshot(9), snapshot(10), snapshot(3)],
            None,
            Again::Attached,
        );
        let line =
            "-c hourly --name 'it'\\''s me' -p 2 --set 'in.path=a b' --module count=count.wasm job.toml -- --loud";
        let found = found.expect("a snapshot");
        assert_eq!(found.path, "file:///chk-10");
        assert_eq!(found.command, format!("regraft run -s file:///chk-10 {line}"));
        let served = go_on(&submission(), &[], Some("file:///sp"), Again::Detached).expect("the savepoint");
        assert_eq!(
            served.command,
            format!("cd /jobs && regraft run -d -s file:///sp {line}")
        );
        assert_eq!(go_on(&submission(), &[], None, Again::Attached), None);
    }
}
