//! A job file, and everything that can override it.
//!
//! An input is a job file. Lines that begin with `#!` add the rest: `#! set KEY=VALUE`, `#! env NAME=VALUE`, `#! name
//! NAME`, `#! parallelism N`, `#! module UID=PATH`, and `#! config`, after which all other lines belong to the host's
//! configuration.

use std::collections::BTreeSet;
use std::path::Path;

use regraft::connectors::BUILT_IN;
use regraft::graph::job_graph::{JobGraph, Node, NodeKind, Partitioning, Policy, RestartStrategy, SettingOrigin};
use regraft::graph::plan::Plan;
use regraft::graph::problem::Place;
use regraft::graph::{JobFileError, Overrides, parse_job, parse_module, render};

use super::{Target, check_error};
use crate::mutate;
use crate::random::Random;

pub(super) const TARGET: Target = Target {
    name: "job-file",
    run,
    mutate: |random, data, other| mutate::text(random, data, other, &WORDS),
    generate,
    len_max: 32 << 10,
    memory_max: |len| (4 << 20) + len * 4000,
};

/// Words that the parser looks for.
const WORDS: [&str; 118] = [
    "[[source]]\n",
    "[[operator]]\n",
    "[[sink]]\n",
    "[checkpoint]\n",
    "[savepoint]\n",
    "[state]\n",
    "[restart]\n",
    "name = ",
    "uid = ",
    "connector = ",
    "inputs = ",
    "path = ",
    "key = ",
    "rate = ",
    "seed = ",
    "rows = ",
    "splits = ",
    "fields = ",
    "mode = ",
    "poll = ",
    "format = ",
    "compression = ",
    "module = ",
    "crate = ",
    "config = ",
    "limits = ",
    "memory = ",
    "time-per-batch = ",
    "on-trap = ",
    "on-failure = ",
    "dead-letter = ",
    "budget = ",
    "imports = ",
    "watermark = ",
    "max-out-of-orderness = ",
    "idleness = ",
    "timestamp = ",
    "parallelism = ",
    "max-parallelism = ",
    "interval = ",
    "timeout = ",
    "min-pause = ",
    "tolerable-failures = ",
    "max-concurrent = ",
    "retain = ",
    "on-cancel = ",
    "unaligned = ",
    "dir = ",
    "backend = ",
    "strategy = ",
    "attempts = ",
    "delay = ",
    "initial-backoff = ",
    "max-backoff = ",
    "backoff-multiplier = ",
    "reset-backoff-threshold = ",
    "jitter-factor = ",
    "attempts-before-reset-backoff = ",
    "from = ",
    "by = ",
    "port = ",
    "type = ",
    "range = ",
    "zipf = ",
    "sequence = ",
    "len = ",
    "n = ",
    "exponent = ",
    "\"file\"",
    "\"generator\"",
    "\"print\"",
    "\"blackhole\"",
    "\"a\"",
    "\"b\"",
    "[\"a\"]",
    "[\"a\", \"b\"]",
    "{ from = \"a\", by = \"key\" }",
    "{ connector = \"print\" }",
    "{ max-out-of-orderness = \"5s\" }",
    "\"forward\"",
    "\"key\"",
    "\"rebalance\"",
    "\"broadcast\"",
    "\"off\"",
    "\"10s\"",
    "\"256MiB\"",
    "\"exponential-delay\"",
    "\"fixed-delay\"",
    "\"none\"",
    "\"dead-letter\"",
    "\"fail\"",
    "\"u64\"",
    "\"string\"",
    "\"bytes\"",
    "true",
    "false",
    "1e400",
    "-1",
    "0x",
    "nan",
    "1979-05-27",
    "\"",
    "'''",
    "\"\"\"",
    "\\u0000",
    "\\n",
    "[",
    "]",
    "{",
    "}",
    ".",
    "\n#! set a.parallelism=2\n",
    "\n#! set checkpoint.interval=1s\n",
    "\n#! env REGRAFT_PARALLELISM=3\n",
    "\n#! config\n",
    "state.savepoints.dir = ",
    "execution.checkpointing.interval = ",
    "s3://",
];

fn generate(random: &mut Random) -> Vec<u8> {
    let words: Vec<&str> = (0..random.length(60)).map(|_| *random.pick(&WORDS)).collect();
    words.concat().into_bytes()
}

/// The parsed input.
#[derive(Default)]
struct Case {
    file: String,
    config: Option<String>,
    overrides: Overrides,
}

/// Common directory of job file, configuration and command line, so that a relative path means the same in each.
const DIR: &str = "/job";

fn read(data: &[u8]) -> Case {
    let mut case = Case::default();
    case.overrides.current_dir = DIR.into();
    for line in String::from_utf8_lossy(data).split_inclusive('\n') {
        let Some(directive) = line.strip_prefix("#! ") else {
            case.config.as_mut().unwrap_or(&mut case.file).push_str(line);
            continue;
        };
        let (word, value) = directive
            .trim_end()
            .split_once(' ')
            .unwrap_or((directive.trim_end(), ""));
        let overrides = &mut case.overrides;
        match word {
            "config" => case.config = case.config.take().or_else(|| Some(String::new())),
            "set" => overrides.set.push(value.to_owned()),
            "name" => overrides.name = Some(value.to_owned()),
            "parallelism" => overrides.parallelism = value.parse().ok(),
            "module" => overrides.modules.extend(parse_module(value, Path::new(DIR))),
            "env" => {
                let pair = value
                    .split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()));
                overrides.environment.extend(pair);
            }
            _ => {}
        }
    }
    let config = case.config.clone();
    case.overrides.config = config.map(|text| (Path::new(DIR).join("config.toml"), text));
    case
}

fn run(data: &[u8]) -> bool {
    let case = read(data);
    match parse_job(&case.file, "job.toml", Path::new(DIR), &case.overrides, BUILT_IN) {
        Err(error) => {
            check_problems(&case, &error);
            false
        }
        Ok((graph, warnings)) => {
            for warning in warnings {
                check_error(&warning.to_string(), "", 4000);
            }
            check_graph(&graph);
            check_settings(&case, &graph);
            true
        }
    }
}

fn check_problems(case: &Case, error: &JobFileError) {
    let problems = error.problems();
    assert!(!problems.is_empty(), "it is refused without a reason");
    for problem in problems {
        let line_of = |text: &str| text.lines().count() + 1;
        match &problem.place {
            Place::JobFile { line, .. } => assert!((1..=line_of(&case.file)).contains(line), "{problem}"),
            Place::Config { line, .. } => {
                let lines = case.config.as_deref().map_or(0, line_of);
                assert!((1..=lines).contains(line), "{problem}");
            }
            Place::Environment(_) | Place::CommandLine(_) => {}
        }
        assert!(!problem.message.is_empty());
        assert!(!problem.message.contains('\n'), "a problem is one line: {problem:?}");
        // The message quotes the whole wrong value.
        check_error(
            &problem.message,
            "",
            4000 + 4 * (case.file.len() + case.overrides.set.concat().len()),
        );
    }
    assert_eq!(error.to_string().lines().count(), problems.len(), "{error}");
}

fn check_graph(graph: &JobGraph) {
    assert!((1..=32_768).contains(&graph.max_parallelism));
    let parallelisms = graph.nodes.iter().map(|node| node.parallelism);
    for parallelism in parallelisms.chain([graph.parallelism]) {
        assert!((1..=graph.max_parallelism).contains(&parallelism));
    }
    let uids: BTreeSet<&str> = graph.nodes.iter().map(|node| node.uid.as_str()).collect();
    assert_eq!(uids.len(), graph.nodes.len(), "uids are unique");
    for (idx, node) in graph.nodes.iter().enumerate() {
        assert_eq!(
            node.inputs.is_empty(),
            matches!(node.kind, NodeKind::Source(_)),
            "{}",
            node.uid
        );
        for input in &node.inputs {
            assert!(input.from < idx, "{} stands before its input", node.uid);
            let from = &graph.nodes[input.from];
            assert!(!matches!(from.kind, NodeKind::Sink(_)));
            assert!(input.by != Partitioning::Forward || from.parallelism == node.parallelism);
        }
        if let NodeKind::Operator(operator) = &node.kind {
            let needed = [operator.on_trap, operator.on_failure].contains(&Policy::DeadLetter);
            assert!(!needed || operator.dead_letter.is_some());
        }
        if let (NodeKind::Source(_), Some(watermark)) = (&node.kind, &node.watermark) {
            assert!(
                watermark.timestamp.is_some(),
                "{} makes watermarks of no times",
                node.uid
            );
        }
    }
    let settings = &graph.checkpoint;
    assert!(settings.max_concurrent > 0 && settings.retain > 0 && !settings.timeout.is_zero());
    assert!(settings.interval.is_none_or(|interval| !interval.is_zero()));
    if let RestartStrategy::ExponentialDelay {
        initial_backoff,
        max_backoff,
        backoff_multiplier,
        jitter_factor,
        ..
    } = graph.restart
    {
        assert!(!initial_backoff.is_zero() && max_backoff >= initial_backoff);
        assert!(backoff_multiplier >= 1.0 && (0.0..=1.0).contains(&jitter_factor));
    }
    // Everything that is made of a graph has each node once.
    let plan = Plan::new(graph);
    let chains = plan.chains().iter();
    let mut chained: Vec<usize> = chains.flat_map(|chain| chain.nodes.clone()).collect();
    chained.sort_unstable();
    let all: Vec<usize> = (0..graph.nodes.len()).collect();
    assert_eq!(chained, all);
    let regions = plan.regions().iter();
    let mut in_regions: Vec<&str> = regions
        .flat_map(|region| &region.uids)
        .map(|uid| uid.as_str())
        .collect();
    in_regions.sort_unstable();
    let mut uids: Vec<&str> = graph.nodes.iter().map(|node| node.uid.as_str()).collect();
    uids.sort_unstable();
    assert_eq!(in_regions, uids);
    for node in &graph.nodes {
        assert!(plan.region_of_uid(&node.uid).is_some() && plan.parallelism_of(&node.uid) == node.parallelism);
    }
    for uid in uids {
        assert!(render::text(graph).contains(uid) && render::mermaid(graph).contains(uid));
    }
}

/// Renders the graph without the origins of its settings.
fn essence(graph: &JobGraph) -> String {
    let mut graph = graph.clone();
    graph.settings.clear();
    format!("{graph:#?}")
}

/// Checks that each setting is recorded with its effective value: given again, all of them change nothing.
fn check_settings(case: &Case, graph: &JobGraph) {
    // The path of a source is kept beside the job file's directory where it comes from the job file, and only there. It is
    // not taken from there if the connector is given elsewhere.
    let is_source = |node: &&Node| matches!(node.kind, NodeKind::Source(_));
    let sources = graph.nodes.iter().filter(is_source);
    let keys = |node: &Node| ["connector", "path"].map(|key| format!("{}.{key}", node.uid));
    let kept: Vec<String> = sources.flat_map(keys).collect();
    let means_more = |key, origin| origin == SettingOrigin::JobFile && kept.contains(key);
    let set = graph
        .settings
        .iter()
        .filter(|(key, setting)| !means_more(key, setting.origin));
    let set = set.map(|(key, setting)| format!("{key}={}", setting.value));
    let overrides = Overrides {
        set: set.collect(),
        ..Overrides::clone(&case.overrides)
    };
    match parse_job(&case.file, "job.toml", Path::new(DIR), &overrides, BUILT_IN) {
        Ok((again, _)) => {
            let values = |graph: &JobGraph| {
                let values = graph
                    .settings
                    .iter()
                    .map(|(key, setting)| (key.clone(), setting.value.clone()));
                values.collect::<Vec<_>>()
            };
            assert_eq!(values(graph), values(&again), "with {:#?}", overrides.set);
            assert_eq!(essence(graph), essence(&again), "with {:#?}", overrides.set);
        }
        Err(error) => panic!("the settings in effect are refused when they are given: {error}"),
    }
}
