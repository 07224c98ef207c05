//! Parses every verb in the spellings that people use, and checks that mistakes are named.

use super::*;

fn parsed(line: &str) -> Verb {
    match parse(line.split(' ').map(OsString::from).collect()).unwrap() {
        Parsed::Run(cli) => cli.verb,
        Parsed::Print(text) => panic!("{text}"),
    }
}

fn refused(line: &str) -> String {
    parse(line.split(' ').map(OsString::from).collect())
        .map(|_| ())
        .unwrap_err()
        .message
}

fn run(line: &str) -> RunArgs {
    match parsed(&format!("regraft run {line}")) {
        Verb::Run(args) => *args,
        verb => panic!("{verb:?}"),
    }
}

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_the_spellings_of_habit() {
    for line in [
        "-s sp -n job.toml",
        "--from-savepoint sp --allow-non-restored-state job.toml",
        "--fromSavepoint sp --allowNonRestoredState job.toml",
        "-fromSavepoint sp -allowNonRestoredState job.toml",
        "job.toml -n -s=sp",
    ] {
        let args = run(line);
        assert_eq!(args.restore.from_savepoint.as_deref(), Some("sp"), "{line}");
        assert!(args.restore.allow_non_restored_state, "{line}");
        assert_eq!(args.job.job, Path::new("job.toml"), "{line}");
    }
    for flag in [
        "--claim-mode",
        "--restore-mode",
        "-restoreMode",
        "--restoreMode",
        "--claimMode",
        "-claimMode",
    ] {
        for mode in ["no-claim", "NO_CLAIM", "No_Claim"] {
            assert_eq!(run(&format!("{flag} {mode} j")).restore.claim_mode, ClaimMode::NoClaim);
        }
    }
    assert_eq!(run("j").restore.claim_mode, ClaimMode::NoClaim);
    let legacy = run("--restore-mode LEGACY j").restore.claim_mode;
    assert_eq!(
        legacy.warning(),
        Some("claim mode legacy is deprecated and taken as no-claim; write --claim-mode no-claim")
    );
    assert_eq!(
        refused("regraft run --claim-mode CLAIM j"),
        "invalid value 'CLAIM' for '--claim-mode <MODE>': claim is not implemented yet; use no-claim: the savepoint stays yours, and you may remove it after the job's first checkpoint\n\nFor more information, try '--help'."
    );
}

#[test]
fn run_takes_everything_else() {
    let args = run(
        "j.toml -p 3 --set count.config.min=3 --set checkpoint.interval=1s --module count=c.wasm --name b --savepoint-at-end sp -c word-count -s sp --drop-state count --drop-state split/seen --allow-same-name --allow-shared-output --allow-later-output -- --x -d",
    );
    assert_eq!(
        (
            args.job.parallelism,
            args.job.name.as_deref(),
            args.job.entry.as_deref()
        ),
        (Some(3), Some("b"), Some("word-count"))
    );
    assert_eq!(args.job.set, ["count.config.min=3", "checkpoint.interval=1s"]);
    assert_eq!(args.job.module, ["count=c.wasm"]);
    assert_eq!(args.savepoint_at_end.as_deref(), Some("sp"));
    assert_eq!(args.arguments, ["--x", "-d"]);
    assert!(args.allow_same_name && args.allow_shared_output && args.allow_later_output);
    let dropped: Vec<(&str, Option<&str>)> = args
        .restore
        .drop_state
        .iter()
        .map(|drop| (drop.uid.as_str(), drop.state.as_deref()))
        .collect();
    assert_eq!(dropped, [("count", None), ("split", Some("seen"))]);
    assert!(refused("regraft run j --drop-state count").contains("--from-savepoint <SAVEPOINT>"));
}

#[test]
fn stop_cancel_and_savepoint() {
    let Verb::Stop(args) = parsed("regraft stop --type NATIVE --savepointPath dir job --drain") else {
        panic!()
    };
    assert_eq!(
        (args.savepoint_path, args.format.is_native(), args.drain),
        (Some(Some("dir".into())), true, true)
    );
    let Verb::Stop(args) = parsed("regraft stop -p dir job") else {
        panic!()
    };
    assert_eq!(
        (args.savepoint_path, args.job.job.as_str()),
        (Some(Some("dir".into())), "job")
    );
    let Verb::Stop(args) = parsed("regraft stop job") else {
        panic!()
    };
    assert_eq!((args.savepoint_path, args.format.is_native()), (None, false));
    let Verb::Cancel(args) = parsed("regraft cancel -s job") else {
        panic!()
    };
    assert_eq!((args.with_savepoint, args.job.job.as_str()), (Some(None), "job"));
    let Verb::Cancel(args) = parsed("regraft cancel -s dir job --host http://h") else {
        panic!()
    };
    assert_eq!(
        (args.with_savepoint, args.job.host.host.as_deref()),
        (Some(Some("dir".into())), Some("http://h"))
    );
    let Verb::Savepoint(args) = parsed("regraft savepoint job dir --type canonical") else {
        panic!()
    };
    assert_eq!((args.job.as_deref(), args.dir.as_deref()), (Some("job"), Some("dir")));
    let Verb::Savepoint(args) = parsed("regraft savepoint -d dir --force") else {
        panic!()
    };
    assert_eq!(
        (args.job, args.dispose.as_deref(), args.force),
        (None, Some("dir"), true)
    );
    assert!(refused("regraft savepoint job -d dir").contains("cannot be used with"));
    assert!(refused("regraft savepoint job --force").contains("cannot be used with"));
}

#[test]
fn jobs_are_served_submitted_listed_and_read() {
    let Verb::Serve(args) = parsed("regraft serve") else {
        panic!()
    };
    assert_eq!(
        (args.listen.as_str(), args.config, args.token_file),
        ("127.0.0.1:7878", None, None)
    );
    for line in [
        "-d job.toml",
        "--detached job.toml",
        "-detached job.toml",
        "job.toml --detach",
    ] {
        assert!(run(line).detached, "{line}");
    }
    assert!(!run("job.toml -- -d").detached);
    let Verb::List(args) = parsed("regraft list -a --host h") else {
        panic!()
    };
    assert!(args.all && args.host.host.as_deref() == Some("h"));
    let Verb::List(args) = parsed("regraft list --snapshots job") else {
        panic!()
    };
    assert_eq!(args.snapshots.as_deref(), Some("job"));
    let Verb::Logs(args) = parsed("regraft logs job -f --lines 5") else {
        panic!()
    };
    assert!(args.follow && args.lines == 5 && args.job.job == "job");
}

#[test]
fn upgrade_takes_modules_or_a_job_file() {
    let Verb::Upgrade(args) = parsed("regraft upgrade job --module a=a.wasm --module b=b") else {
        panic!()
    };
    assert_eq!(args.module, ["a=a.wasm", "b=b"]);
    let Verb::Upgrade(args) = parsed("regraft upgrade job new.toml") else {
        panic!()
    };
    assert_eq!(args.new_job.as_deref(), Some(Path::new("new.toml")));
    assert!(refused("regraft upgrade job").contains("required arguments were not provided"));
    assert!(refused("regraft upgrade job new.toml --module a=b").contains("cannot be used with"));
}

#[test]
fn every_verb_takes_json_and_lists_the_exit_statuses() {
    for verb in [
        "new",
        "build",
        "run",
        "serve",
        "list",
        "info",
        "logs",
        "savepoint",
        "stop",
        "cancel",
        "upgrade",
        "profile",
        "inspect",
        "graph",
        "validate",
        "state",
    ] {
        let help = parse(["regraft", verb, "--help"].map(OsString::from).into()).unwrap();
        let Parsed::Print(help) = help else { panic!() };
        assert!(
            help.contains("--json") && help.contains("130  interrupted"),
            "{verb}: {help}"
        );
    }
    for line in [
        "regraft list --json",
        "regraft --json list",
        "regraft state show sp --json",
    ] {
        let Parsed::Run(cli) = parse(line.split(' ').map(OsString::from).collect()).unwrap() else {
            panic!()
        };
        assert!(cli.json);
    }
    assert!(wants_json(&["regraft", "nope", "--json"].map(OsString::from)));
    assert!(!wants_json(&["regraft", "run", "--", "--json"].map(OsString::from)));
}

#[test]
fn mistakes_are_named() {
    assert_eq!(
        refused("regraft savepiont"),
        "unrecognized subcommand 'savepiont'\n\n  tip: a similar subcommand exists: 'savepoint'\n\nUsage: regraft [OPTIONS] <COMMAND>\n\nFor more information, try '--help'."
    );
    assert!(refused("regraft savepoint").contains("<JOB>"));
    assert!(refused("regraft run -s").contains("--from-savepoint"));
    assert!(refused("regraft run -s x --drop-state 1/x j").contains("\"1\" is not a uid"));
}

/// Returns the texts between backticks in the code of all files below `dir`, without its comments.
fn quoted_commands(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            quoted_commands(&entry, found);
            continue;
        }
        let text = std::fs::read_to_string(&entry).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            // What follows the last backtick of an odd number is not quoted.
            let parts: Vec<&str> = line.split('`').collect();
            let quoted = parts.iter().take(parts.len() - 1).skip(1).step_by(2);
            found.extend(quoted.map(|quoted| (entry.clone(), (*quoted).to_owned())));
        }
    }
}

/// A remedy that cannot be typed sends its reader from one error to the next.
#[test]
fn every_command_that_a_message_quotes_can_be_parsed() {
    let (mut found, mut seen) = (vec![], 0);
    quoted_commands(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    for (file, quoted) in found {
        // The rewrite of max parallelism is named with the words that it does not exist yet.
        if !quoted.starts_with("regraft ") || quoted.starts_with("regraft state edit") || quoted.contains("{verb}") {
            continue;
        }
        let line = quoted.replace("\\\"", "").replace("-p N", "-p 2").replace("{}", "x");
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let complete = args.len() > 2;
        match parse(args) {
            Ok(_) => {}
            // A verb alone names the verb.
            Err(failure) if !complete => assert!(
                !failure.message.contains("unrecognized") && !failure.message.contains("no verb"),
                "{}: `{quoted}`: {failure}",
                file.display()
            ),
            Err(failure) => panic!("{}: `{quoted}`: {failure}", file.display()),
        }
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn verbs_of_other_systems_name_ours() {
    assert_eq!(
        refused("regraft resume sp"),
        "regraft has no verb resume; write `regraft run -s SAVEPOINT JOB.toml`"
    );
    assert_eq!(
        refused("regraft status j --json"),
        "regraft has no verb status; write `regraft info JOB`, or `regraft list` for all jobs"
    );
    for (verb, ours) in [
        ("restore", "run -s"),
        ("kill", "cancel"),
        ("ps", "list"),
        ("submit", "run -d"),
        ("deploy", "run -d"),
        ("checkpoint", "savepoint"),
        ("redeploy", "upgrade"),
        ("init", "new"),
    ] {
        let said = refused(&format!("regraft {verb} x"));
        assert!(
            said.starts_with(&format!("regraft has no verb {verb}; write `regraft {ours}")),
            "{said}"
        );
    }
}

#[test]
fn help_begins_with_what_is_the_verbs_own() {
    let help = match parse(vec!["regraft".into(), "upgrade".into(), "--help".into()]) {
        Ok(Parsed::Print(text)) => text,
        parsed => panic!("{parsed:?}"),
    };
    assert!(
        help.contains(
            "Usage: regraft upgrade [OPTIONS] <JOB> <NEW-JOB.toml>\n       regraft upgrade [OPTIONS] <JOB> --module <UID=PATH>...\n"
        ),
        "{help}"
    );
    let at = |flag: &str| {
        help.find(&format!("      {flag} "))
            .unwrap_or_else(|| panic!("{flag} in {help}"))
    };
    assert!(at("--module") < at("--json"), "{help}");
    assert!(!help.contains("--drop-state"), "it is always refused: {help}");
    assert!(at("--json") < at("--host") && at("--host") < at("--token"), "{help}");
}
