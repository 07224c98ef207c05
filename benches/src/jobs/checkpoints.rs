//! The cost of checkpoints, and the bytes that they write.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regraft::api::types::{RoundStatus, RoundView};
use serde_json::Value;

use super::lab::{ASK_EVERY, Lab};
use crate::Failure;
use crate::report::{Spread, percentiles, with_interval};
use crate::settings::Settings;

/// The job of workload W2: keyed count and sum.
const COUNT: &str = r#"
name = "bench-count"
[checkpoint]
interval = "off"
[[source]]
uid = "events"
connector = "generator"
seed = 1
rows = ROWS
key = "id"
fields = [{ name = "id", type = "u64", range = [0, LAST_KEY] }, { name = "payload", type = "bytes", len = 32 }]
[[operator]]
uid = "count"
crate = "ROOT/examples/rolling-count/count"
inputs = [{ from = "events", by = "key" }]
config = { emit = "final" }
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#;

/// A job that reads all keys once, and then changes one key in a hundred between two checkpoints, without end.
const SOME_CHANGE: &str = r#"
name = "bench-some-change"
[checkpoint]
interval = "200ms"
on-cancel = "retain"
[[source]]
uid = "all"
connector = "generator"
seed = 1
rows = KEYS
key = "id"
fields = [{ name = "id", type = "u64", sequence = 0 }, { name = "payload", type = "bytes", len = 32 }]
[[source]]
uid = "some"
connector = "generator"
seed = 2
rate = RATE
key = "id"
fields = [{ name = "id", type = "u64", range = [0, LAST_KEY] }, { name = "payload", type = "bytes", len = 32 }]
[[operator]]
uid = "count"
crate = "ROOT/examples/rolling-count/count"
inputs = [{ from = "all", by = "key" }, { from = "some", by = "key" }]
config = { emit = "final" }
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#;

/// Number of checkpoints between which one key in a hundred changes.
const INCREMENTS: usize = 100;

/// Least number of pairs, so that there is an interval.
const PAIRS: u32 = 9;

/// Measures the throughput with a checkpoint every second relative to none, and how long checkpoints pause processing.
///
/// The two runs of a pair take turns in being the first.
pub(crate) fn cost(settings: &Settings) -> Result<String, Failure> {
    let lab = Lab::new()?;
    let job = lab.write("count.toml", COUNT, settings)?;
    let modules = lab.build(&job.display().to_string())?;
    // Compiles what is not compiled yet.
    lab.run_with(&modules, &job, "bench-count", &["events.rows=1000"], false)?;
    let (mut ratios, mut cpu, mut rates, mut taken) = (vec![], vec![], vec![], 0);
    let pairs = settings.rounds.max(PAIRS);
    for pair in 1..=pairs {
        eprint!("checkpoints, pair {pair} of {pairs}: ");
        let run = |with: bool| {
            let every: &[&str] = if with { &["checkpoint.interval=1s"] } else { &[] };
            lab.run_with(&modules, &job, "bench-count", every, with)
        };
        let first = run(pair % 2 == 0)?;
        let second = run(pair % 2 == 1)?;
        let (with, without) = if pair % 2 == 0 {
            (first, second)
        } else {
            (second, first)
        };
        if without.result["blackholes"] != with.result["blackholes"] {
            return Err("the counts differ with checkpoints".into());
        }
        let ratio = without.number("duration_ms") / with.number("duration_ms");
        eprintln!("{ratio:.3}");
        ratios.push(ratio);
        cpu.push(with.used.cpu.as_secs_f64() / without.used.cpu.as_secs_f64());
        rates.push(with.number("records_in") / with.number("duration_ms") / 1e3);
        taken += with.view.map_or(0, |view| completed(&view.recent_checkpoints).count());
    }
    // Many more checkpoints, to measure the pause of each.
    let often = lab.run(&job, "bench-count", &["checkpoint.interval=100ms"], true)?;
    let rounds = often.view.map(|view| view.recent_checkpoints).unwrap_or_default();
    let longest = |round: &RoundView| round.subtasks.iter().map(|part| part.sync_ms).fold(0.0, f64::max);
    let sync: Vec<f64> = completed(&rounds).map(longest).collect();
    let mut text = String::from("| checkpoints every second | |\n|---|---|\n");
    let _ = writeln!(text, "| keys | {} |", settings.keys);
    let _ = writeln!(text, "| M records/s with | {} |", Spread::of(rates).text(2));
    let ratio = with_interval(&ratios, 3);
    let _ = writeln!(
        text,
        "| throughput with / without, {pairs} pairs: median (95 % interval) | {ratio} |"
    );
    let _ = writeln!(text, "| CPU time with / without | {} |", with_interval(&cpu, 3));
    let _ = writeln!(text, "| checkpoints seen, at least | {taken} |");
    let _ = writeln!(
        text,
        "| synchronous part of {} checkpoints, ms: median, p99, max | {} |",
        sync.len(),
        percentiles(sync, 3)
    );
    Ok(text)
}

/// Measures the bytes of checkpoints between which one key in a hundred changes, relative to the first one, which has
/// all keys.
pub(crate) fn increments(settings: &Settings) -> Result<String, Failure> {
    let lab = Lab::new()?;
    // Five checkpoints a second.
    let rate = (settings.keys / 100 * 5).max(1);
    let text = SOME_CHANGE.replace("RATE", &rate.to_string());
    let job = lab.write("some.toml", &text, settings)?;
    let file = job.display().to_string();
    lab.done(&["build", &file])?;
    let running = lab.start(&["run", &file, "--set", "checkpoint.dir=ckpt"])?;
    let (client, found) = lab.find("bench-some-change")?;
    let mut rounds: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut loaded_at = None;
    while loaded_at.is_none_or(|at| rounds.len() < at + INCREMENTS) {
        std::thread::sleep(ASK_EVERY);
        let view = client.info(&found).map_err(|error| error.to_string())?;
        for round in completed(&view.recent_checkpoints) {
            rounds.insert(round.checkpoint_id.0, (round.bytes, round.full_bytes));
        }
        if loaded_at.is_none() && view.operators.iter().any(|node| node.keys >= settings.keys) {
            loaded_at = Some(rounds.len());
        }
    }
    // Size of a checkpoint that has everything.
    lab.done(&["savepoint", "bench-some-change", "full", "--type", "native"])?;
    let full = full_bytes(&lab.path().join("full"))?;
    client.cancel(&found).map_err(|error| error.to_string())?;
    while client
        .find("bench-some-change")
        .is_ok_and(|found| !found.summary.status.is_over())
    {
        std::thread::sleep(ASK_EVERY / 10);
    }
    drop(running);
    let last = rounds.values().map(|(_, full)| *full).max().unwrap_or(0);
    // Checkpoints after the one that had all keys.
    let later: Vec<f64> = rounds
        .values()
        .skip_while(|(_, full)| *full * 10 < last * 9)
        .skip(2)
        .map(|(written, _)| *written as f64)
        .collect();
    let (files, bytes) = chain(&lab.path().join("ckpt"))?;
    let mut text = String::from("| one key in a hundred changes between two checkpoints | |\n|---|---|\n");
    let _ = writeln!(text, "| keys | {} |", settings.keys);
    let _ = writeln!(text, "| checkpoints | {} |", rounds.len());
    let _ = writeln!(text, "| bytes of state in a savepoint of the same job | {full} |");
    let _ = writeln!(
        text,
        "| bytes written by each later checkpoint | {} |",
        Spread::of(later.clone()).text(0)
    );
    let _ = writeln!(
        text,
        "| of it, in % of the savepoint | {} |",
        Spread::of(later.iter().map(|written| written * 100.0 / full as f64)).text(2)
    );
    let _ = writeln!(
        text,
        "| files of keyed state that a restore of the last one reads | {files} |"
    );
    let _ = writeln!(text, "| their bytes | {bytes} |");
    Ok(text)
}

fn completed(rounds: &[RoundView]) -> impl Iterator<Item = &RoundView> {
    rounds.iter().filter(|round| round.status == RoundStatus::Completed)
}

/// Returns number and total size of the files of keyed state that the newest checkpoint below a directory names.
fn chain(checkpoints: &std::path::Path) -> Result<(usize, u64), Failure> {
    let mut newest: Option<(u64, std::path::PathBuf)> = None;
    for job in std::fs::read_dir(checkpoints)? {
        for entry in std::fs::read_dir(job?.path())? {
            let path = entry?.path().join("_metadata");
            let name = path.parent().and_then(|dir| dir.file_name()).unwrap_or_default();
            let id = name
                .to_string_lossy()
                .strip_prefix("chk-")
                .and_then(|id| id.parse().ok());
            if let Some(id) = id
                && path.exists()
                && newest.as_ref().is_none_or(|(least, _)| id > *least)
            {
                newest = Some((id, path));
            }
        }
    }
    let (_, path) = newest.ok_or("no checkpoint was kept")?;
    let files = named_files(&path)?;
    Ok((files.len(), files.iter().sum()))
}

/// Returns the size of all state files of the only savepoint in a directory.
fn full_bytes(savepoints: &std::path::Path) -> Result<u64, Failure> {
    let entry = std::fs::read_dir(savepoints)?
        .next()
        .ok_or("no savepoint was taken")??;
    Ok(named_files(&entry.path().join("_metadata"))?.iter().sum())
}

/// Returns the sizes of all Parquet files that a `_metadata` names.
fn named_files(path: &std::path::Path) -> Result<Vec<u64>, Failure> {
    let metadata: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let mut files = vec![];
    state_files(&metadata, &mut files);
    Ok(files)
}

/// Collects the sizes of all Parquet files that a part of `_metadata` names.
fn state_files(value: &Value, files: &mut Vec<u64>) {
    match value {
        Value::Object(fields) => {
            let path = fields.get("path").and_then(Value::as_str).unwrap_or_default();
            if path.ends_with(".parquet") {
                files.extend(fields.get("bytes").and_then(Value::as_u64));
            }
            fields.values().for_each(|value| state_files(value, files));
        }
        Value::Array(items) => items.iter().for_each(|value| state_files(value, files)),
        _ => {}
    }
}
