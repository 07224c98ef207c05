//! Arguments that users of Flink and other tools type from habit. Spellings that clap cannot parse are rewritten before
//! parsing; verbs and flags of later versions are refused with an alternative. Pure: arguments in, arguments out.

use std::ffi::OsString;

use super::failure::Failure;

/// Long flags that Flink spells with a single dash.
const ONE_DASH: [&str; 11] = [
    "restoreMode",
    "restore-mode",
    "claimMode",
    "claim-mode",
    "detached",
    "fromSavepoint",
    "allowNonRestoredState",
    "savepointPath",
    "type",
    "drain",
    "withSavepoint",
];

/// Verbs that are not implemented yet, each with what to do meanwhile.
const LATER_VERBS: [(&str, &str); 8] = [
    (
        "apply",
        "write `regraft run -d JOB.toml` for a new job, and `regraft upgrade JOB JOB.toml` for a running one",
    ),
    (
        "canary",
        "write `regraft upgrade JOB --module UID=NEW.wasm`, and upgrade back the same way",
    ),
    (
        "fork",
        "take a savepoint and write `regraft run -s SAVEPOINT JOB.toml --name NEW-NAME --set SINK.path=DIR`",
    ),
    (
        "plan",
        "`regraft upgrade` refuses what does not fit before the job notices",
    ),
    (
        "rollback",
        "upgrade back: `regraft upgrade JOB --module UID=OLD.wasm`; where the new module has a state that the old one lacks, write `regraft stop JOB`, then `regraft run -s SAVEPOINT OLD-JOB.toml --drop-state UID/STATE`",
    ),
    (
        "rescale",
        "write `regraft stop JOB`, then `regraft run -s SAVEPOINT JOB.toml -p N`",
    ),
    ("compare", "compare the files that the two jobs' sinks wrote"),
    (
        "dev",
        "after a change write `regraft upgrade JOB --module UID=CRATE-DIRECTORY`",
    ),
];

/// Verbs of Flink, of its REST API and dashboards, and of other tools that run things, each with what to write here.
const VERBS_OF_OTHERS: [(&[&str], &str); 14] = [
    (
        &["resume", "restore", "recover", "continue", "unsuspend"],
        "`regraft run -s SAVEPOINT JOB.toml`",
    ),
    (
        &["status", "describe", "get"],
        "`regraft info JOB`, or `regraft list` for all jobs",
    ),
    (&["ps", "ls", "jobs", "top"], "`regraft list`"),
    (&["kill", "delete", "rm", "terminate", "abort"], "`regraft cancel JOB`"),
    (&["pause", "suspend", "drain", "shutdown"], "`regraft stop JOB`"),
    (&["submit", "deploy", "start", "launch"], "`regraft run -d JOB.toml`"),
    (&["run-application", "exec"], "`regraft run JOB.toml`"),
    (&["checkpoint", "snapshot", "backup"], "`regraft savepoint JOB`"),
    (
        &["checkpoints", "savepoints", "snapshots"],
        "`regraft list --snapshots JOB`",
    ),
    (&["dispose", "prune"], "`regraft savepoint -d SAVEPOINT`"),
    (
        &["update", "redeploy", "replace", "patch", "swap"],
        "`regraft upgrade JOB --module UID=NEW.wasm`",
    ),
    (&["init", "create", "scaffold"], "`regraft new NAME`"),
    (&["check", "lint", "test"], "`regraft validate JOB.toml`"),
    (&["log", "tail"], "`regraft logs JOB`"),
];

/// Verbs of `state` that are not implemented yet, each with what to do meanwhile.
const LATER_STATE_VERBS: [(&str, &str); 10] = [
    ("list", "`regraft state show SAVEPOINT` lists all states"),
    ("read", SHOW_ENTRIES),
    ("get", SHOW_ENTRIES),
    (
        "export",
        "a savepoint's state is Parquet, which any tool reads: PATH/operators/*.parquet",
    ),
    (
        "edit",
        "state is written by its operator only: put a module into the job that corrects it, `regraft upgrade JOB --module UID=NEW.wasm`",
    ),
    (
        "bootstrap",
        "run a job that reads the data from a source, and start from its savepoint: `regraft run --savepoint-at-end DIR JOB.toml`",
    ),
    (
        "diff",
        "compare what `regraft state show --entries SAVEPOINT` prints of both savepoints",
    ),
    (
        "history",
        "`regraft list --snapshots JOB` lists the checkpoints and savepoints of a job, and `regraft state show --entries SAVEPOINT` the entries of each",
    ),
    (
        "skew",
        "`regraft state show SAVEPOINT` has the keys and bytes of each state",
    ),
    (
        "migrate",
        "start a job whose operator reads the schema of the savepoint: `regraft run -s SAVEPOINT JOB.toml`",
    ),
];

/// The verb for entries of states.
const SHOW_ENTRIES: &str = "`regraft state show --entries=UID/STATE SAVEPOINT` shows the entries of a state";

/// Flags whose value is the next argument. Needed to tell an optional value from a JOB.
const VALUED: [&str; 3] = ["--host", "--token", "--type"];

/// Rewrites arguments, the program's name first, to what clap can parse.
///
/// # Errors
/// A verb or flag that is not implemented yet, as [`regraft_model::error_kind::ErrorKind::Usage`].
pub fn rewrite(args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let mut ours = args;
    let job_arguments = ours.split_off(end);
    // An argument that is not Unicode is a path, and not a spelling to rewrite.
    let mut texts: Vec<OsString> = ours.into_iter().map(one_dash).collect();
    if let Some(verb_idx) = verb_position(&texts) {
        let verb = texts
            .get(verb_idx)
            .and_then(|verb| verb.to_str())
            .unwrap_or_default()
            .to_owned();
        let after: Vec<String> = texts
            .iter()
            .skip(verb_idx + 1)
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        refuse_verb(&verb, &after)?;
        refuse_flags(&verb, &after)?;
        let optional: Option<(&[&str], &str)> = match verb.as_str() {
            "cancel" => Some((&["-s", "--with-savepoint", "--withSavepoint"], "--with-savepoint")),
            "stop" => Some((&["-p", "--savepoint-path", "--savepointPath"], "--savepoint-path")),
            _ => None,
        };
        if let Some((spellings, flag)) = optional {
            let tail = texts.split_off(verb_idx + 1);
            texts.extend(optional_value(tail, spellings, flag));
        }
    }
    texts.extend(job_arguments);
    Ok(texts)
}

/// Rewrites `-restoreMode` to `--restoreMode`.
fn one_dash(arg: OsString) -> OsString {
    let Some(text) = arg.to_str() else { return arg };
    match text.strip_prefix('-') {
        Some(rest) if ONE_DASH.contains(&rest.split('=').next().unwrap_or(rest)) => format!("-{text}").into(),
        _ => arg,
    }
}

/// Returns the position of the first argument that is neither a flag nor the value of one.
fn verb_position(args: &[OsString]) -> Option<usize> {
    let mut idx = 1;
    while let Some(arg) = args.get(idx) {
        if VALUED.iter().any(|flag| arg == flag) {
            idx += 2;
        } else if arg.to_string_lossy().starts_with('-') {
            idx += 1;
        } else {
            return Some(idx);
        }
    }
    None
}

fn refuse_verb(verb: &str, after: &[String]) -> Result<(), Failure> {
    if let Some((_, instead)) = LATER_VERBS.iter().find(|(later, _)| *later == verb) {
        return Err(Failure::usage(format!(
            "regraft {verb} is not implemented yet; {instead}"
        )));
    }
    if let Some((_, ours)) = VERBS_OF_OTHERS.iter().find(|(names, _)| names.contains(&verb)) {
        return Err(Failure::usage(format!("regraft has no verb {verb}; write {ours}")));
    }
    if verb == "state"
        && let Some(verb) = after.iter().find(|arg| !arg.starts_with('-'))
        && let Some((_, instead)) = LATER_STATE_VERBS.iter().find(|(later, _)| later == verb)
    {
        return Err(Failure::usage(format!(
            "regraft state {verb} is not implemented yet; {instead}"
        )));
    }
    // A job of this name is saved without a second word, or by its id.
    let mut words = after.iter().filter(|arg| !arg.starts_with('-'));
    if verb == "savepoint" && words.next().is_some_and(|word| word == "prune") && words.next().is_some() {
        return Err(Failure::usage(NO_PRUNE));
    }
    Ok(())
}

/// Refusal of `savepoint prune`.
const NO_PRUNE: &str =
    "savepoint prune is not implemented yet; remove savepoints one by one with `regraft savepoint -d PATH`";

fn refuse_flags(verb: &str, after: &[String]) -> Result<(), Failure> {
    for arg in after {
        let flag = arg.split('=').next().unwrap_or(arg);
        let message = match (verb, flag) {
            (_, "-yid" | "--yarnapplicationId") => "YARN is not supported; use --host URL".to_owned(),
            (_, dynamic) if dynamic.starts_with("-D") => {
                let setting = arg.strip_prefix("-D").filter(|setting| !setting.is_empty());
                format!("{flag} is not known; write --set {}", setting.unwrap_or("KEY=VALUE"))
            }
            (_, "-m" | "--jobmanager") => format!("{flag} is not known; use --host URL"),
            ("list", "-s" | "--scheduled") => format!(
                "{flag} is not known: a job is not scheduled here, it starts at once or is refused; `regraft list` shows also those that wait for their host"
            ),
            ("savepoint", "--keep" | "--older-than" | "--dry-run") => NO_PRUNE.to_owned(),
            ("savepoint" | "stop", "--label") => format!(
                "{flag} is not implemented yet; a savepoint has its job's name and its time, and can have a directory of its own: `regraft {verb} JOB {}DIR`",
                if verb == "stop" { "--savepoint-path " } else { "" }
            ),
            ("savepoint" | "stop", "--if-healthy") => {
                format!(
                    "{flag} is not implemented yet; `regraft info JOB` shows status, restarts and the last checkpoints"
                )
            }
            ("info", "--since-restore") => {
                format!("{flag} is not implemented yet; `regraft info JOB` shows the job's counts since it was started")
            }
            ("run" | "upgrade", "--rename") => format!(
                "{flag} is not implemented yet; keep the uid, which is what state is bound to, or drop its state with --drop-state UID[/STATE]"
            ),
            ("upgrade", "-p" | "--parallelism") => format!(
                "upgrade {flag} is not implemented yet; write `regraft stop JOB`, then `regraft run -s SAVEPOINT JOB.toml -p N`"
            ),
            _ => continue,
        };
        return Err(Failure::usage(message));
    }
    Ok(())
}

/// Rewrites `cancel -s JOB`, `cancel -s DIR JOB` and `cancel JOB -s [DIR]`: the flag's value is optional, and the only
/// word that is not the value of another flag is the JOB.
fn optional_value(args: Vec<OsString>, spellings: &[&str], flag: &str) -> Vec<OsString> {
    let is_flag = |arg: &OsString| spellings.iter().any(|spelling| arg == spelling);
    let mut words = 0_usize;
    let mut skip = false;
    for arg in &args {
        if !skip && !arg.to_string_lossy().starts_with('-') {
            words += 1;
        }
        skip = VALUED.iter().any(|valued| arg == valued);
    }
    let mut out = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let with_value = arg.to_str().and_then(|text| text.split_once('='));
        if let Some((spelling, value)) = with_value
            && spellings.contains(&spelling)
        {
            out.push(format!("{flag}={value}").into());
        } else if is_flag(&arg) {
            let has_value = words > 1 && args.peek().is_some_and(|next| !next.to_string_lossy().starts_with('-'));
            let value = if has_value { args.next() } else { None };
            let mut joined = OsString::from(flag);
            if let Some(value) = value {
                joined.push("=");
                joined.push(value);
                words -= 1;
            }
            out.push(joined);
        } else {
            out.push(arg);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let args = rewrite(args).unwrap();
        args.iter()
            .map(|arg| arg.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn refused(line: &str) -> String {
        rewrite(line.split(' ').map(OsString::from).collect())
            .unwrap_err()
            .message
    }

    #[test]
    fn one_dash_becomes_two() {
        assert_eq!(
            rewritten("regraft run -restoreMode NO_CLAIM j.toml"),
            "regraft run --restoreMode NO_CLAIM j.toml"
        );
        assert_eq!(
            rewritten("regraft run -claimMode=no-claim j.toml"),
            "regraft run --claimMode=no-claim j.toml"
        );
        assert_eq!(
            rewritten("regraft run -allowNonRestoredState j"),
            "regraft run --allowNonRestoredState j"
        );
        // The arguments after -- are the job's own.
        assert_eq!(
            rewritten("regraft run j.toml -- -restoreMode -d"),
            "regraft run j.toml -- -restoreMode -d"
        );
    }

    #[test]
    fn an_optional_directory_never_swallows_the_job() {
        for (typed, taken) in [
            ("cancel -s job", "cancel --with-savepoint job"),
            ("cancel -s dir job", "cancel --with-savepoint=dir job"),
            ("cancel job -s dir", "cancel job --with-savepoint=dir"),
            ("cancel job -s", "cancel job --with-savepoint"),
            (
                "cancel --json -s --host u job",
                "cancel --json --with-savepoint --host u job",
            ),
            ("cancel -s=dir job", "cancel --with-savepoint=dir job"),
            ("cancel job", "cancel job"),
            ("stop -p job", "stop --savepoint-path job"),
            (
                "stop --type native --savepointPath dir job",
                "stop --type native --savepoint-path=dir job",
            ),
            (
                "stop --savepointPath --type native job",
                "stop --savepoint-path --type native job",
            ),
            ("stop --savepoint-path=dir job", "stop --savepoint-path=dir job"),
        ] {
            assert_eq!(rewritten(&format!("regraft {typed}")), format!("regraft {taken}"));
        }
        assert_eq!(
            rewritten("regraft --host u cancel -s job"),
            "regraft --host u cancel --with-savepoint job"
        );
    }

    #[test]
    fn what_is_not_there_yet_says_what_to_do_instead() {
        assert_eq!(
            refused("regraft fork j --name b"),
            "regraft fork is not implemented yet; take a savepoint and write `regraft run -s SAVEPOINT JOB.toml --name NEW-NAME --set SINK.path=DIR`"
        );
        for verb in ["plan", "rollback", "rescale", "compare", "dev"] {
            assert!(
                refused(&format!("regraft --json {verb} x"))
                    .starts_with(&format!("regraft {verb} is not implemented yet; "))
            );
        }
        assert_eq!(
            refused("regraft state export sp"),
            "regraft state export is not implemented yet; a savepoint's state is Parquet, which any tool reads: PATH/operators/*.parquet"
        );
        assert_eq!(
            refused("regraft state get sp k"),
            "regraft state get is not implemented yet; `regraft state show --entries=UID/STATE SAVEPOINT` shows the entries of a state"
        );
        for (verb, instead) in LATER_STATE_VERBS {
            let said = refused(&format!("regraft state {verb} sp"));
            assert_eq!(said, format!("regraft state {verb} is not implemented yet; {instead}"));
        }
        for line in ["prune dir", "prune dir --keep 5", "prune --dry-run dir"] {
            assert_eq!(
                refused(&format!("regraft savepoint {line}")),
                "savepoint prune is not implemented yet; remove savepoints one by one with `regraft savepoint -d PATH`"
            );
        }
        assert_eq!(rewritten("regraft savepoint prune"), "regraft savepoint prune");
        for line in [
            "savepoint j --if-healthy",
            "stop j --label=x",
            "info j --since-restore",
            "run --rename a=b",
        ] {
            let said = refused(&format!("regraft {line}"));
            assert!(
                said.starts_with("--") && said.contains(" is not implemented yet; "),
                "{said}"
            );
        }
        // The arguments after -- are the job's own.
        assert_eq!(rewritten("regraft run j -- --rename a"), "regraft run j -- --rename a");
        assert_eq!(
            refused("regraft savepoint j -yid app"),
            "YARN is not supported; use --host URL"
        );
        assert_eq!(
            refused("regraft run -Dstate.savepoints.dir=sp j"),
            "-Dstate.savepoints.dir is not known; write --set state.savepoints.dir=sp"
        );
        assert_eq!(
            refused("regraft run -D parallelism=2 j"),
            "-D is not known; write --set KEY=VALUE"
        );
        assert_eq!(
            refused("regraft list -s"),
            "-s is not known: a job is not scheduled here, it starts at once or is refused; `regraft list` shows also those that wait for their host"
        );
        assert_eq!(refused("regraft list -m host:8081"), "-m is not known; use --host URL");
        assert_eq!(
            refused("regraft upgrade j -p 3"),
            "upgrade -p is not implemented yet; write `regraft stop JOB`, then `regraft run -s SAVEPOINT JOB.toml -p N`"
        );
    }
}
