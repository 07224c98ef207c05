//! Reactions to failures: `[checkpoint]`, `[restart]`, and the policies of an operator.

use super::*;
use crate::graph::job_graph::{CheckpointMode, CheckpointSettings, OnCancel, Operator, Policy, RestartStrategy};

#[track_caller]
fn warned(text: &str, expected: &[&str]) -> JobGraph {
    let (graph, warnings) = parse_with(text, &overrides()).unwrap();
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, expected);
    graph
}

/// Returns the effective value of a setting, and its origin.
fn setting<'a>(graph: &'a JobGraph, key: &str) -> (&'a str, &'a str) {
    let setting = graph
        .settings
        .get(key)
        .unwrap_or_else(|| panic!("{key} is not recorded"));
    (&setting.value, setting.origin.word())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn checkpoint_settings() {
    let defaults = good(&around(""), &overrides());
    assert_eq!(
        defaults.checkpoint,
        CheckpointSettings {
            interval: Some(seconds(10)),
            mode: CheckpointMode::ExactlyOnce,
            min_pause: Duration::ZERO,
            timeout: seconds(600),
            tolerable_failures: 0,
            max_concurrent: 1,
            retain: 1,
            on_cancel: OnCancel::Delete,
            dir: None,
        }
    );
    for (key, value) in [
        ("interval", "\"10s\""),
        ("mode", "\"exactly-once\""),
        ("min-pause", "\"0s\""),
        ("timeout", "\"10m\""),
        ("tolerable-failures", "0"),
        ("max-concurrent", "1"),
        ("retain", "1"),
        ("on-cancel", "\"delete\""),
        ("unaligned", "false"),
    ] {
        let found = setting(&defaults, &format!("checkpoint.{key}"));
        assert_eq!(found, (value, "default"), "{key}");
    }
    let all = "[checkpoint]\ninterval = \"1s\"\nmode = \"at-least-once\"\nmin-pause = \"500ms\"\ntimeout = \"1m\"\ntolerable-failures = 2\nmax-concurrent = 3\nretain = 4\non-cancel = \"retain\"\ndir = \"c\"";
    let graph = good(&around(all), &overrides());
    assert_eq!(
        graph.checkpoint,
        CheckpointSettings {
            interval: Some(seconds(1)),
            mode: CheckpointMode::AtLeastOnce,
            min_pause: Duration::from_millis(500),
            timeout: seconds(60),
            tolerable_failures: 2,
            max_concurrent: 3,
            retain: 4,
            on_cancel: OnCancel::Retain,
            dir: Some("/job/c".to_owned()),
        }
    );
    assert_eq!(setting(&graph, "checkpoint.retain"), ("4", "job file"));
    refused_around(
        "[checkpoint]\nmode = \"EXACTLY_ONCE\"\nmin-pause = 3\ntolerable-failures = -1\nmax-concurrent = 0\nretain = \"all\"\non-cancel = \"keep\"\nunaligned = 3\ntolerable-failure = 1",
        &[
            "job.toml:4: [checkpoint]: min-pause: expected a duration, found 3; write min-pause = \"0s\"",
            "job.toml:5: [checkpoint]: tolerable-failures: expected an integer from 0 to 4294967295, found -1; write tolerable-failures = 0",
            "job.toml:6: [checkpoint]: max-concurrent: expected an integer from 1 to 4294967295, found 0; write max-concurrent = 1",
            "job.toml:7: [checkpoint]: retain: expected an integer from 1 to 4294967295, found \"all\"; write retain = 1",
            "job.toml:8: [checkpoint]: on-cancel: expected \"delete\" or \"retain\", found \"keep\"",
            "job.toml:9: [checkpoint]: unaligned: expected true or false, found 3; write unaligned = false",
            "job.toml:10: [checkpoint]: unknown key \"tolerable-failure\"; did you mean \"tolerable-failures\"?",
        ],
    );
}

const EXPONENTIAL: RestartStrategy = RestartStrategy::ExponentialDelay {
    initial_backoff: Duration::from_secs(1),
    max_backoff: Duration::from_secs(60),
    backoff_multiplier: 1.5,
    reset_backoff_threshold: Duration::from_secs(3600),
    jitter_factor: 0.1,
    attempts: None,
};

#[test]
fn restart_strategies() {
    let defaults = good(&around(""), &overrides());
    assert_eq!(defaults.restart, EXPONENTIAL);
    for (key, value) in [
        ("strategy", "\"exponential-delay\""),
        ("initial-backoff", "\"1s\""),
        ("max-backoff", "\"1m\""),
        ("backoff-multiplier", "1.5"),
        ("reset-backoff-threshold", "\"1h\""),
        ("jitter-factor", "0.1"),
    ] {
        let found = setting(&defaults, &format!("restart.{key}"));
        assert_eq!(found, (value, "default"), "{key}");
    }
    assert!(
        !defaults.settings.contains_key("restart.attempts"),
        "of another strategy"
    );
    for (lines, expected) in [
        ("[restart]\nstrategy = \"none\"", RestartStrategy::None),
        (
            "[restart]\nstrategy = \"fixed-delay\"",
            RestartStrategy::FixedDelay {
                attempts: 1,
                delay: seconds(1),
            },
        ),
        (
            "restart-strategy.type = \"fixed-delay\"\nrestart-strategy.fixed-delay.attempts = 0\nrestart-strategy.fixed-delay.delay = \"0s\"",
            RestartStrategy::FixedDelay {
                attempts: 0,
                delay: Duration::ZERO,
            },
        ),
        (
            "[restart]\ninitial-backoff = \"2s\"\nmax-backoff = \"2s\"\nbackoff-multiplier = 2\nreset-backoff-threshold = \"1m\"\njitter-factor = 0\nattempts-before-reset-backoff = 5",
            RestartStrategy::ExponentialDelay {
                initial_backoff: seconds(2),
                max_backoff: seconds(2),
                backoff_multiplier: 2.0,
                reset_backoff_threshold: seconds(60),
                jitter_factor: 0.0,
                attempts: Some(5),
            },
        ),
    ] {
        assert_eq!(warned(&around(lines), &[]).restart, expected, "{lines}");
    }
    refused_around(
        "[restart]\nstrategy = \"failure-rate\"\ninitial-backoff = \"0s\"\nmax-backoff = \"10ms\"\nbackoff-multiplier = 0.5\njitter-factor = \"much\"\nattempts-before-reset-backoff = 0\nattempt = 3",
        &[
            "job.toml:3: [restart]: strategy: expected \"exponential-delay\", \"fixed-delay\" or \"none\", found \"failure-rate\"",
            "job.toml:4: [restart]: initial-backoff: expected a duration above zero, found \"0s\"; write initial-backoff = \"1s\"",
            "job.toml:5: [restart]: max-backoff (10ms) is less than initial-backoff (1s); make it at least that",
            "job.toml:6: [restart]: backoff-multiplier: expected a number of at least 1, found 0.5; write backoff-multiplier = 1.5",
            "job.toml:7: [restart]: jitter-factor: expected a number from 0 to 1, found \"much\"; write jitter-factor = 0.1",
            "job.toml:8: [restart]: attempts-before-reset-backoff: expected an integer from 1 to 4294967295, found 0; write attempts-before-reset-backoff = 10",
            "job.toml:9: [restart]: unknown key \"attempt\"; did you mean \"attempts\"?",
        ],
    );
}

#[test]
fn without_checkpoints_only_a_named_strategy_restarts() {
    let off = "[checkpoint]\ninterval = \"off\"\n";
    let graph = good(&around(off), &overrides());
    assert_eq!(graph.restart, RestartStrategy::None);
    assert_eq!(setting(&graph, "restart.strategy"), ("\"none\"", "default"));
    let named = format!("{off}[restart]\nstrategy = \"exponential-delay\"");
    assert_eq!(good(&around(&named), &overrides()).restart, EXPONENTIAL);
    // The host's configuration may name a strategy as the job file may.
    let config = "[restart]\nstrategy = \"fixed-delay\"\nattempts = 7\n";
    let layered = Overrides {
        set: vec!["restart.delay=3s".into()],
        config: Some(("/data/config.toml".into(), config.into())),
        ..overrides()
    };
    let graph = good(&around(off), &layered);
    let expected = RestartStrategy::FixedDelay {
        attempts: 7,
        delay: seconds(3),
    };
    assert_eq!(graph.restart, expected);
    assert_eq!(setting(&graph, "restart.strategy"), ("\"fixed-delay\"", "config"));
    assert_eq!(setting(&graph, "restart.delay"), ("\"3s\"", "command line"));
    // A layer above it may name another strategy, and then the keys of the lower layer have no effect.
    let graph = warned(
        &around("[restart]\nstrategy = \"none\"\ndelay = \"2s\""),
        &[
            "job.toml:4: [restart]: delay has no effect with strategy = \"none\"; remove it, or write strategy = \"fixed-delay\"",
        ],
    );
    assert_eq!(graph.restart, RestartStrategy::None);
}

/// Returns a job with an operator, whose settings begin at line 6.
fn with_operator(lines: &str) -> String {
    around(&format!(
        "[[operator]]\nuid = \"o\"\nmodule = \"m\"\ninputs = [\"src\"]\n{lines}\n[[sink]]\nuid = \"k\"\nconnector = \"print\"\ninputs = [\"o\"]"
    ))
}

fn operator(graph: &JobGraph) -> &Operator {
    match &graph.node("o").unwrap().kind {
        NodeKind::Operator(operator) => operator,
        other => panic!("{other:?}"),
    }
}

#[test]
fn policies_of_an_operator() {
    let graph = good(&with_operator(""), &overrides());
    let o = operator(&graph);
    assert_eq!(
        (o.on_trap, o.on_failure, o.dead_letter.is_none()),
        (Policy::Fail, Policy::Fail, true)
    );
    assert_eq!(setting(&graph, "o.on-trap"), ("\"fail\"", "default"));
    assert_eq!(setting(&graph, "o.on-failure"), ("\"fail\"", "default"));

    let rejects = "dead-letter = { connector = \"file\", path = \"rejects\", budget = 1000 }";
    let graph = warned(&with_operator(&format!("on-trap = \"dead-letter\"\n{rejects}")), &[]);
    let o = operator(&graph);
    assert_eq!((o.on_trap, o.on_failure), (Policy::DeadLetter, Policy::DeadLetter));
    let letters = o.dead_letter.as_ref().expect("dead letters");
    let file: &FileSink = settings_of(&*letters.connector);
    assert_eq!(
        (file.path.as_path(), file.format, letters.budget),
        (Path::new("/job/rejects"), TextFormat::Json, Some(1000))
    );
    assert_eq!(setting(&graph, "o.on-failure"), ("\"dead-letter\"", "job file"));
    assert_eq!(setting(&graph, "o.dead-letter.format"), ("\"json\"", "default"));
    assert_eq!(setting(&graph, "o.dead-letter.budget"), ("1000", "job file"));

    // Either policy alone is enough to need dead letters.
    for (lines, policies) in [
        (
            "on-trap = \"dead-letter\"\non-failure = \"fail\"",
            [Policy::DeadLetter, Policy::Fail],
        ),
        ("on-failure = \"dead-letter\"", [Policy::Fail, Policy::DeadLetter]),
    ] {
        for connector in ["print", "blackhole"] {
            let lines = format!("{lines}\ndead-letter = {{ connector = \"{connector}\" }}");
            let graph = warned(&with_operator(&lines), &[]);
            let o = operator(&graph);
            assert_eq!([o.on_trap, o.on_failure], policies);
            let letters = o.dead_letter.as_ref().expect("dead letters");
            assert_eq!((letters.connector.name(), letters.budget), (connector, None));
        }
    }
    // The command line can set values within the table.
    let set = [
        "o.on-trap=dead-letter",
        "o.dead-letter.connector=print",
        "o.dead-letter.budget=3",
    ];
    let set = Overrides {
        set: set.map(str::to_owned).into(),
        ..overrides()
    };
    let graph = good(&with_operator(""), &set);
    assert_eq!(operator(&graph).dead_letter.as_ref().unwrap().budget, Some(3));
    assert_eq!(setting(&graph, "o.dead-letter.budget"), ("3", "command line"));
}

#[test]
fn policies_that_cannot_be() {
    refused(
        &with_operator("on-trap = \"dead-letter\""),
        &[
            "job.toml:6: operator \"o\": on-trap = \"dead-letter\" needs to know where dead letters go; add dead-letter = { connector = \"file\", path = \"rejects\" }",
        ],
    );
    refused(
        &with_operator("on-trap = \"fail\"\non-failure = \"dead-letter\""),
        &[
            "job.toml:7: operator \"o\": on-failure = \"dead-letter\" needs to know where dead letters go; add dead-letter = { connector = \"file\", path = \"rejects\" }",
        ],
    );
    refused(
        &with_operator("on-trap = \"ignore\"\non-failure = 3\ndead-leter = {}\ndead-letter = \"rejects\""),
        &[
            "job.toml:6: operator \"o\": on-trap: expected \"fail\" or \"dead-letter\", found \"ignore\"",
            "job.toml:7: operator \"o\": on-failure: expected \"fail\" or \"dead-letter\", found 3; write on-failure = \"fail\"",
            "job.toml:8: operator \"o\": unknown key \"dead-leter\"; did you mean \"dead-letter\"?",
            "job.toml:9: operator \"o\": dead-letter: expected a table, found \"rejects\"; write dead-letter = { connector = \"file\", path = \"rejects\" }",
        ],
    );
    for (table, expected) in [
        ("{ path = \"r\" }", "has no connector; add connector = \"file\""),
        (
            "{ connector = \"kafka\" }",
            "connector: expected \"file\", \"print\" or \"blackhole\", found \"kafka\"",
        ),
        ("{ connector = \"file\" }", "has no path; add path = \"rejects\""),
        (
            "{ connector = \"file\", path = \"s3://b/x\" }",
            "path = \"s3://b/x\" is not implemented yet; remove it or set it to a local path",
        ),
        (
            "{ connector = \"file\", path = \"r\", format = \"lines\" }",
            "format: expected \"json\", found \"lines\"; write format = \"json\"",
        ),
        (
            "{ connector = \"print\", budget = 0 }",
            "budget: expected an integer of at least 1, found 0; write budget = 1000",
        ),
        (
            "{ connector = \"print\", path = \"r\" }",
            "unknown key \"path\"; expected \"connector\" or \"budget\"",
        ),
    ] {
        let text = with_operator(&format!("on-trap = \"dead-letter\"\ndead-letter = {table}"));
        refused(
            &text,
            &[&format!("job.toml:7: operator \"o\": dead-letter: {expected}")],
        );
    }
}

#[test]
fn dead_letters_that_nobody_sees_are_pointed_out() {
    let rejects = "dead-letter = { connector = \"file\", path = \"r\" }";
    warned(
        &with_operator(rejects),
        &[
            "job.toml:6: operator \"o\": dead-letter has no effect while on-trap and on-failure are \"fail\"; add on-trap = \"dead-letter\"",
        ],
    );
    let off = format!("on-trap = \"dead-letter\"\n{rejects}\n[checkpoint]\ninterval = \"off\"");
    warned(
        &with_operator(&off),
        &[
            "job.toml:1: operator \"o\": dead-letter: checkpoint.interval is \"off\", so its output becomes visible only when the job ends; set checkpoint.interval = \"10s\"",
        ],
    );
}
