//! The help, the version, spellings from other tools, and verbs that are not implemented yet.

use crate::fixtures::{COPY, Expected, refused};
use crate::support::{Ran, World};

#[test]
fn version() {
    let ran = World::new().run(&["--version"]).exits(0);
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        (concat!("regraft ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
}

const EXIT_STATUS: &str = "\
Exit status:
    0  done
    1  the operation failed: missing input, refused restore or upgrade, corrupt file, job FAILED or CANCELED
    2  usage: arguments, job file, module, or no such job
  130  interrupted; nothing was saved
";

#[test]
fn every_help_lists_the_exit_statuses() {
    let world = World::new();
    let verbs = [
        "new",
        "sdk",
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
        "gc",
        "inspect",
        "graph",
        "validate",
        "state",
    ];
    let help = world.run(&["--help"]).exits(0);
    assert!(help.stdout.ends_with(EXIT_STATUS), "{}", help.stdout);
    for verb in verbs {
        assert!(
            help.stdout.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb} is in the help"
        );
        let help = world.run(&[verb, "--help"]).exits(0);
        assert!(help.stdout.ends_with(EXIT_STATUS), "{verb}: {}", help.stdout);
        assert_eq!(help.stderr, "");
    }
    for verb in ["show", "verify"] {
        let help = world.run(&["state", verb, "--help"]).exits(0);
        assert!(help.stdout.ends_with(EXIT_STATUS), "state {verb}: {}", help.stdout);
    }
}

#[track_caller]
fn usage(args: &[&str], message: &str) {
    let world = World::new();
    refused(
        &world,
        args,
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: None,
            path: None,
        },
    );
    assert_eq!(crate::fixtures::files(world.path()), [""; 0]);
}

#[test]
fn no_verb() {
    let ran = World::new().run(&[]).exits(2);
    assert!(
        ran.stderr.starts_with("error: no command is given\n\n")
            && ran.stderr.contains("Usage: regraft [OPTIONS] <COMMAND>")
            && ran.stderr.contains("  run "),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_verb_that_is_none() {
    usage(
        &["rum"],
        "unrecognized subcommand 'rum'\n\n  tip: a similar subcommand exists: 'run'\n\nUsage: regraft [OPTIONS] <COMMAND>\n\nFor more information, try '--help'.",
    );
}

#[test]
fn a_flag_that_is_none() {
    usage(
        &["run", "--paralelism", "2"],
        "unexpected argument '--paralelism' found\n\n  tip: a similar argument exists: '--parallelism'\n  tip: to pass '--paralelism' as a value, use '-- --paralelism'\n\nUsage: regraft run --parallelism <N> [JOB.toml] [-- <ARGS>...]\n\nFor more information, try '--help'.",
    );
}

#[test]
fn verbs_that_are_not_there_yet() {
    usage(
        &["fork", "a", "--name", "b"],
        "regraft fork is not implemented yet; take a savepoint and write `regraft run -s SAVEPOINT JOB.toml --name NEW-NAME --set SINK.path=DIR`",
    );
    usage(
        &["state", "export", "x"],
        "regraft state export is not implemented yet; a savepoint's state is Parquet, which any tool reads: PATH/operators/*.parquet",
    );
}

#[test]
fn no_such_job() {
    for args in [
        &["info", "x"][..],
        &["savepoint", "x"],
        &["stop", "x"],
        &["cancel", "x"],
    ] {
        let message = "there is no job \"x\"; expected an id, a unique prefix of one, or a name; no job is running";
        usage(args, message);
    }
}

#[test]
fn habits_of_others() {
    let world = World::new();
    world.write("job.toml", COPY);
    world.write("in/a", "a\n");
    let ran = world
        .run(&["run", "-restoreMode", "NO_CLAIM", "-p", "1", "job.toml"])
        .exits(0);
    assert_eq!(ran.stdout, "a\n");
    let ran = world.run(&["run", "-claimMode", "LEGACY", "job.toml"]).exits(0);
    let warning = "warning: claim mode legacy is deprecated and taken as no-claim; write --claim-mode no-claim\n";
    assert!(ran.stderr.starts_with(warning), "{}", ran.stderr);
    // The value of the flag is optional, and the job is not taken for it.
    let message = "there is no job \"JOB\"; expected an id, a unique prefix of one, or a name; no job is running";
    refused(
        &world,
        &["cancel", "-s", "JOB"],
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: None,
            path: None,
        },
    );
    refused(
        &world,
        &["cancel", "-s", "dir", "JOB"],
        &Expected {
            status: 2,
            kind: "usage",
            message,
            uid: None,
            path: None,
        },
    );
}

#[test]
fn claim() {
    usage(
        &["run", "--claim-mode", "claim"],
        "invalid value 'claim' for '--claim-mode <MODE>': claim is not implemented yet; use no-claim: the savepoint stays yours, and you may remove it after the job's first checkpoint\n\nFor more information, try '--help'.",
    );
    usage(
        &["run", "--claim-mode", "x"],
        "invalid value 'x' for '--claim-mode <MODE>': expected no-claim\n\nFor more information, try '--help'.",
    );
}

/// Scripts unset a variable by setting it to the empty string.
#[test]
fn an_empty_variable_names_no_host() {
    let world = World::new();
    let mut command = world.command(&["list"]);
    let ran = command.env("REGRAFT_HOST", "").env("REGRAFT_TOKEN", "").output();
    let ran = Ran::from(ran.expect("runs")).exits(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("No running jobs.\n", ""));
}

#[test]
fn nothing_to_build() {
    let world = World::new();
    world.write("job.toml", COPY);
    let said = "There is nothing to build: no operator of the job has a crate.\n";
    assert_eq!(world.run(&["build"]).exits(0).stdout, said);
}
