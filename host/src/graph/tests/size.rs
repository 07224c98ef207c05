//! Limits of a job's subtasks and channels.

use super::*;
use crate::graph::size::subtasks;

/// A source, an operator behind a keyed edge, and a sink, with this parallelism.
fn keyed(parallelism: &str) -> String {
    format!(
        "name = \"j\"\nmax-parallelism = 32768\n{parallelism}\n[[source]]\nuid = \"src\"\nconnector = \"file\"\npath = \"a\"\n[[operator]]\nuid = \"count\"\nmodule = \"c.wasm\"\ninputs = [{{ from = \"src\", by = \"key\" }}]\n[[sink]]\nuid = \"snk\"\nconnector = \"print\"\ninputs = [\"count\"]\n"
    )
}

const CHANNELS: &str = "the job has 16000000 channels between subtasks, one for each pair that an edge connects, and at most 131072 are made (\"src\" to \"count\" has 16000000); lower parallelism: 362 at both ends fits";

#[test]
fn a_parallelism_whose_channels_are_too_many_is_refused() {
    let too_many = "job.toml:1: the job has 8000 subtasks, each of them a thread with instances of its own, and at most 4096 are run (\"src\" has 4000, \"count\" has 4000); lower parallelism: 2048 for each of them fits";
    let channels = format!("job.toml:1: {CHANNELS}");
    refused(&keyed("parallelism = 4000"), &[too_many, &channels]);
    let at_the_limit = good(&keyed("parallelism = 362"), &overrides());
    assert_eq!(subtasks(&plan::Plan::new(&at_the_limit)), 724);
    let channels = "job.toml:1: the job has 131769 channels between subtasks, one for each pair that an edge connects, and at most 131072 are made (\"src\" to \"count\" has 131769); lower parallelism: 362 at both ends fits";
    refused(&keyed("parallelism = 363"), &[channels]);
}

#[test]
fn the_command_line_is_held_to_the_limits_too() {
    let with = Overrides {
        parallelism: Some(30_000),
        ..overrides()
    };
    let error = parse_with(&keyed(""), &with).unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].contains("the job has 60000 subtasks"), "{error}");
    assert!(lines[1].contains("the job has 900000000 channels"), "{error}");
}

#[test]
fn subtasks_without_channels_are_limited_too() {
    let flat = |parallelism: u32| around(&format!("max-parallelism = 32768\nparallelism = {parallelism}"));
    good(&flat(4096), &overrides());
    let refusal = "job.toml:1: the job has 4097 subtasks, each of them a thread with instances of its own, and at most 4096 are run (\"src\" has 4097); lower parallelism: 4096 for each of them fits";
    refused(&flat(4097), &[refusal]);
}
