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
