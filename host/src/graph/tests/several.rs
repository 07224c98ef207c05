//! Files with several jobs, and Flink's names and words.

use super::*;
use crate::graph::job_graph::{CheckpointMode, OnCancel, RestartStrategy};

/// A node for each of a source and a sink, below `[[job]]`.
const NODES: &str = "[[job.source]]\nuid = \"src\"\nconnector = \"file\"\npath = \"a\"\n[[job.sink]]\nuid = \"snk\"\nconnector = \"print\"\ninputs = [\"src\"]\n";

fn two() -> String {
    format!(
        "parallelism = 2\n[checkpoint]\nretain = 3\n[[job]]\nname = \"hourly\"\nparallelism = 4\n{NODES}[[job]]\nname = \"daily\"\n[job.checkpoint]\ninterval = \"1m\"\n{NODES}"
    )
}

fn entry(name: &str) -> Overrides {
    Overrides {
        entry: Some(name.into()),
        ..overrides()
    }
}

#[test]
fn one_of_several_jobs_is_chosen_by_its_name() {
    let (hourly, daily) = (good(&two(), &entry("hourly")), good(&two(), &entry("daily")));
    assert_eq!((hourly.name.as_str(), hourly.parallelism), ("hourly", 4));
    assert_eq!((daily.name.as_str(), daily.parallelism), ("daily", 2));
    assert_eq!(
        (hourly.checkpoint.retain, daily.checkpoint.retain),
        (3, 3),
        "it holds for both"
    );
    assert_eq!(daily.checkpoint.interval, Some(Duration::from_secs(60)));
    let preferred = Overrides {
        prefer: Some("daily".into()),
        ..overrides()
    };
    assert_eq!(good(&two(), &preferred).name, "daily");
    let one = two()
        .split("[[job]]\nname = \"daily\"")
        .next()
        .expect("the first")
        .to_owned();
    assert_eq!(good(&one, &overrides()).name, "hourly");
    let set = Overrides {
        set: vec!["src.path=b".into()],
        name: Some("other".into()),
        ..entry("daily")
    };
    assert_eq!(good(&two(), &set).name, "other");
}

#[test]
fn a_choice_that_cannot_be_made_lists_the_jobs() {
    refused_with(
        &two(),
        &overrides(),
        &["job.toml:4: the file holds the jobs \"hourly\" and \"daily\"; choose one with -c hourly"],
    );
    refused_with(
        &two(),
        &entry("dayly"),
        &["-c dayly: did you mean \"daily\"? the file holds the jobs \"hourly\" and \"daily\""],
    );
    refused_with(
        &two().replace("\"daily\"", "\"hourly\""),
        &entry("hourly"),
        &["job.toml:15: the file holds another job \"hourly\"; give one of them another name"],
    );
    refused_with(
        &format!("name = \"j\"\n{}", two()),
        &entry("daily"),
        &["job.toml:1: name belongs to one job, and the file holds them in [[job]]; move it to one of them"],
    );
    refused_with(
        "job = 3\n",
        &overrides(),
        &["job.toml:1: job: expected tables, found an integer; write [[job]]"],
    );
}

#[test]
fn names_and_words_of_flink() {
    let text = around(
        "\"parallelism.default\" = 3\n\"state.backend.type\" = \"hashmap\"\nexecution.checkpointing.externalized-checkpoint-retention = \"RETAIN_ON_CANCELLATION\"\nexecution.checkpointing.mode = \"AT_LEAST_ONCE\"\nrestart-strategy.type = \"disable\"",
    );
    let graph = good(&text, &overrides());
    assert_eq!(graph.parallelism, 3);
    assert_eq!(graph.checkpoint.on_cancel, OnCancel::Retain);
    assert_eq!(graph.checkpoint.mode, CheckpointMode::AtLeastOnce);
    assert_eq!(graph.restart, RestartStrategy::None);
    let set = Overrides {
        set: vec![
            "parallelism.default=2".into(),
            "state.backend.type=hashmap".into(),
            "checkpoint.on-cancel=DELETE_ON_CANCELLATION".into(),
            "pipeline.max-parallelism=64".into(),
        ],
        ..overrides()
    };
    let graph = good(&text, &set);
    assert_eq!((graph.parallelism, graph.max_parallelism), (2, 64));
    assert_eq!(graph.checkpoint.on_cancel, OnCancel::Delete);
    refused_around(
        "[state]\nbackend.type = \"rocksdb\"",
        &[
            "job.toml:3: [state]: backend = \"disk\" is not implemented yet; remove it or set it to its default (\"memory\")",
        ],
    );
}

#[test]
fn the_nearest_word_is_proposed_and_no_opposite() {
    refused_around(
        "[checkpoint]\non-cancel = \"keep\"\nmode = \"exactly\"\n[[operator]]\nuid = \"o\"\nmodule = \"m\"\ninputs = [{ from = \"src\", by = \"keyBy\" }]",
        &[
            "job.toml:3: [checkpoint]: on-cancel: expected \"delete\" or \"retain\", found \"keep\"",
            "job.toml:4: [checkpoint]: mode: expected \"exactly-once\" or \"at-least-once\", found \"exactly\"; write mode = \"exactly-once\"",
            "job.toml:8: operator \"o\": inputs: by: expected \"forward\", \"key\", \"rebalance\" or \"broadcast\", found \"keyBy\"; write by = \"key\"",
        ],
    );
}

#[test]
fn a_name_is_quoted_where_a_command_needs_it() {
    let spaced = |text: &str| text.replace("\"hourly\"", "\"case sp\"");
    refused_with(
        &spaced(&two()),
        &overrides(),
        &["job.toml:4: the file holds the jobs \"case sp\" and \"daily\"; choose one with -c 'case sp'"],
    );
    let other = Overrides {
        entry: Some("other".into()),
        ..overrides()
    };
    refused_with(
        &GOOD.replace("\"word-count\"", "\"case sp\""),
        &other,
        &["-c other: the file holds one job, \"case sp\"; write -c 'case sp', or leave -c out"],
    );
}
