//! The way on after a job has ended: its newest snapshot, and the command that starts a job from it. Pure, except for the list
//! of snapshots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regraft_model::id::OperatorUid;

use super::snapshots::ListedSnapshot;
use super::submission::Submission;
use crate::escape::shell_word;
use crate::graph::Overrides;
use crate::jobs::observe::GoOn;
use crate::jobs::start::RestoreFrom;

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
    upgraded: &BTreeMap<OperatorUid, PathBuf>,
) -> Option<GoOn> {
    let newest = snapshots.iter().max_by_key(|snapshot| snapshot.checkpoint_id);
    let path = newest.map(|snapshot| snapshot.url.as_str()).or(restored_from)?;
    // What it was allowed to leave out of the savepoint that it started from is not in its own snapshots any more.
    let restore = submission.restore.as_ref().filter(|_| newest.is_none());
    Some(GoOn {
        path: path.to_owned(),
        command: command(submission, path, restore, again, upgraded),
    })
}

/// Returns the way on with a command for a shell that is in this directory already.
#[must_use]
pub fn as_typed_in(dir: &Path, go_on: &GoOn) -> GoOn {
    let command = go_on.command.strip_prefix(&change_to(dir)).unwrap_or(&go_on.command);
    GoOn {
        command: command.to_owned(),
        ..go_on.clone()
    }
}

fn change_to(dir: &Path) -> String {
    format!("cd {} && ", shell_word(&dir.to_string_lossy()))
}

/// Returns the command line that starts the same job from a snapshot, for a POSIX shell.
fn command(
    submission: &Submission,
    snapshot: &str,
    restore: Option<&RestoreFrom>,
    again: Again,
    upgraded: &BTreeMap<OperatorUid, PathBuf>,
) -> String {
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
    let modules = modules.iter().filter(|module| !upgraded.contains_key(&module.uid));
    let modules: Vec<&str> = modules.map(|module| module.text.as_str()).collect();
    for module in &modules {
        flag("--module", module);
    }
    for (uid, path) in upgraded {
        flag("--module", &format!("{uid}={}", path.display()));
    }
    if let Some(dir) = &submission.savepoint_at_end {
        flag("--savepoint-at-end", dir);
    }
    for drop in restore.iter().flat_map(|restore| &restore.options.drop_state) {
        flag("--drop-state", drop);
    }
    let switches = [
        ("-n", restore.is_some_and(|restore| restore.options.allow_non_restored)),
        (
            "--allow-later-output",
            restore.is_some_and(|restore| restore.allow_later_output),
        ),
        ("--allow-same-name", submission.allow.same_name),
        ("--allow-shared-output", submission.allow.shared_output),
    ];
    let given = switches.iter().filter(|(_, is_given)| *is_given);
    words.extend(given.map(|(switch, _)| (*switch).to_owned()));
    words.push(submission.file.clone());
    if !arguments.is_empty() {
        words.push("--".to_owned());
        words.extend(arguments.iter().cloned());
    }
    let line = words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
    // Relative paths are those of the directory in which the job was started.
    let is_relative =
        Path::new(&submission.file).is_relative() || modules.iter().any(|module| has_relative_path(module));
    match is_relative {
        true => format!("{}{line}", change_to(current_dir)),
        false => line,
    }
}

fn has_relative_path(module: &str) -> bool {
    module
        .split_once('=')
        .is_some_and(|(_, path)| Path::new(path).is_relative())
}

#[cfg(test)]
mod tests {
    use regraft_model::id::CheckpointId;

    use super::*;
    use crate::graph::ModuleOverride;
    use crate::graph::job_graph::Artifact;
    use crate::savepoint::metadata::{Owner, Trigger};
    use crate::savepoint::restore::RestoreOptions;
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
            &BTreeMap::new(),
        );
        let line =
            "-c hourly --name 'it'\\''s me' -p 2 --set 'in.path=a b' --module count=count.wasm job.toml -- --loud";
        let found = found.expect("a snapshot");
        assert_eq!(found.path, "file:///chk-10");
        let typed = format!("regraft run -s file:///chk-10 {line}");
        assert_eq!(found.command, format!("cd /jobs && {typed}"));
        assert_eq!(as_typed_in(Path::new("/jobs"), &found).command, typed);
        assert_eq!(as_typed_in(Path::new("/job"), &found), found);
        let none = BTreeMap::new();
        let served = go_on(&submission(), &[], Some("file:///sp"), Again::Detached, &none).expect("the savepoint");
        assert_eq!(
            served.command,
            format!("cd /jobs && regraft run -d -s file:///sp {line}")
        );
        assert_eq!(go_on(&submission(), &[], None, Again::Attached, &none), None);
    }

    #[test]
    fn the_job_goes_on_with_its_modules_and_with_what_it_was_allowed() {
        let mut submission = submission();
        submission.allow = Allow {
            same_name: true,
            shared_output: true,
        };
        submission.restore = Some(RestoreFrom {
            location: "sp".to_owned(),
            options: RestoreOptions {
                allow_non_restored: true,
                drop_state: vec!["count/old".to_owned()],
            },
            allow_later_output: true,
        });
        let upgraded = [(
            OperatorUid::new("count").expect("a uid"),
            PathBuf::from("/shared/2.wasm"),
        )]
        .into();
        let of = |snapshots: &[ListedSnapshot]| {
            let found = go_on(&submission, snapshots, Some("file:///sp"), Again::Attached, &upgraded);
            found.expect("a way on").command
        };
        let begins = "--name 'it'\\''s me' -p 2 --set 'in.path=a b' --module count=/shared/2.wasm";
        let ends = "--allow-same-name --allow-shared-output job.toml -- --loud";
        assert_eq!(
            of(&[snapshot(4)]),
            format!("cd /jobs && regraft run -s file:///chk-4 -c hourly {begins} {ends}")
        );
        assert_eq!(
            of(&[]),
            format!(
                "cd /jobs && regraft run -s file:///sp -c hourly {begins} --drop-state count/old -n --allow-later-output {ends}"
            )
        );
    }
}
