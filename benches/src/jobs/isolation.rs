//! The cost of isolation, and the effect of a misbehaving guest on its neighbour.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::lab::Lab;
use crate::Failure;
use crate::report::{Spread, percentiles};
use crate::settings::Settings;

/// A keyed count that can be configured to panic on one record in a million.
const PICKY: &str = r#"
name = "bench-picky"
[checkpoint]
interval = "off"
[[source]]
uid = "events"
connector = "generator"
seed = 1
rows = ROWS
key = "id"
fields = [{ name = "id", type = "u64", range = [0, LAST_KEY] }, { name = "n", type = "u64", sequence = 0 }]
[[operator]]
uid = "count"
crate = "ROOT/tests/guests/picky"
inputs = [{ from = "events", by = "key" }]
config = { how = "not", every = 1000000 }
on-trap = "dead-letter"
dead-letter = { connector = "file", path = "dead" }
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#;

/// A job that misbehaves as configured, on one record in ten.
const NEIGHBOUR: &str = r#"
name = "neighbour"
[checkpoint]
interval = "1s"
[[source]]
uid = "events"
connector = "generator"
seed = 1
rate = 1000
key = "id"
fields = [{ name = "id", type = "u64", range = [0, 9] }, { name = "n", type = "u64", sequence = 0 }]
[[operator]]
uid = "count"
crate = "ROOT/tests/guests/picky"
inputs = [{ from = "events", by = "key" }]
config = { how = "HOW", every = 10 }
limits = { memory = "64MiB", time-per-batch = "100ms" }
on-trap = "dead-letter"
dead-letter = { connector = "blackhole" }
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#;

/// The job whose latency is measured, on words that are appended to a file.
const PROBE: &str = r#"
name = "probe"
[checkpoint]
interval = "1s"
[[source]]
uid = "lines"
connector = "file"
path = "in/*.txt"
mode = "watch"
poll = "1ms"
[[operator]]
uid = "split"
crate = "ROOT/examples/word-count/split"
inputs = ["lines"]
[[operator]]
uid = "count"
crate = "ROOT/examples/word-count/count"
inputs = [{ from = "split", by = "key" }]
config = { emit = "update" }
[[sink]]
uid = "out"
connector = "blackhole"
inputs = ["count"]
"#;

/// Number of latency measurements beside each neighbour.
const PROBES: u64 = 300;
/// Pause between two measurements.
const PAUSE: Duration = Duration::from_millis(7);
/// Limit of a latency.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Measures the throughput of a guest that panics on one record in a million, with dead letters, relative to one that
/// does not panic.
pub(crate) fn cost(settings: &Settings) -> Result<String, Failure> {
    let lab = Lab::new()?;
    let job = lab.write("picky.toml", PICKY, settings)?;
    lab.run(&job, "bench-picky", &["events.rows=1000"], false)?;
    let (mut ratios, mut dead) = (vec![], 0.0);
    for round in 0..settings.rounds {
        eprintln!("isolation, round {}", round + 1);
        let good = lab.run(&job, "bench-picky", &[], false)?;
        let bad = lab.run(&job, "bench-picky", &["count.config.how=panic"], false)?;
        dead = bad.number("dead_letters");
        let expected = settings.job_records / 1_000_000;
        if dead != expected as f64 {
            return Err(format!("{dead} dead letters: expected {expected}").into());
        }
        ratios.push(good.number("duration_ms") / bad.number("duration_ms"));
    }
    let mut text = String::from("| isolation | |\n|---|---|\n");
    let _ = writeln!(text, "| records | {} |", settings.job_records);
    let _ = writeln!(text, "| dead letters | {dead} |");
    let ratio = Spread::of(ratios).text(3);
    let _ = writeln!(text, "| throughput with panics / without | {ratio} |");
    Ok(text)
}

/// Measures the latency of a word from its append to a file until it has reached the sink, in a host whose other job
/// misbehaves.
pub(crate) fn neighbours(settings: &Settings) -> Result<String, Failure> {
    let mut text = String::from(
        "| the other job of the host | latency of a word, ms: median, p99, max | its dead letters |\n|---|---|---|\n",
    );
    for how in ["none", "not", "loop", "grow", "panic"] {
        eprintln!("neighbours: {how}");
        let lab = Lab::new()?;
        std::fs::create_dir(lab.path().join("in"))?;
        let probe = lab.write("probe.toml", PROBE, settings)?.display().to_string();
        let neighbour = lab.write("neighbour.toml", &NEIGHBOUR.replace("HOW", how), settings)?;
        let neighbour = neighbour.display().to_string();
        let _host = lab.start(&["serve", "--listen", "127.0.0.1:0"])?;
        // The host may not listen yet.
        let start = Instant::now();
        while let Err(error) = lab.done(&["run", "-d", &probe]) {
            if start.elapsed() > LATENCY_MAX {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
        if how != "none" {
            lab.done(&["run", "-d", &neighbour])?;
            // Wait until it has begun to misbehave.
            let (client, found) = lab.find("neighbour")?;
            let seen = || client.info(&found).is_ok_and(|view| view.records_in > 50);
            while !seen() {
                std::thread::sleep(PAUSE);
            }
        }
        let latencies = latencies(&lab)?;
        let dead = match lab.find("neighbour") {
            Ok((client, found)) if how != "none" => client.info(&found).map_or(0, |view| view.dead_letters),
            _ => 0,
        };
        let of = match how {
            "none" => "none",
            "not" => "behaves",
            other => other,
        };
        let _ = writeln!(text, "| {of} | {} | {dead} |", percentiles(latencies, 2));
    }
    Ok(text)
}

/// Returns latencies in milliseconds.
fn latencies(lab: &Lab) -> Result<Vec<f64>, Failure> {
    let (client, found) = lab.find("probe")?;
    let come = || {
        let view = client.info(&found).map_err(|error| error.to_string())?;
        let sink = view.operators.iter().find(|node| node.uid.as_str() == "out");
        Ok::<u64, Failure>(sink.map_or(0, |node| node.records_in))
    };
    let mut words = std::fs::File::create(lab.path().join("in/words.txt"))?;
    let mut latencies = vec![];
    for n in 1..=PROBES {
        let start = Instant::now();
        words.write_all(format!("word{n}\n").as_bytes())?;
        while come()? < n {
            if start.elapsed() > LATENCY_MAX {
                return Err(format!("word {n} has not come").into());
            }
        }
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(PAUSE);
    }
    Ok(latencies)
}
