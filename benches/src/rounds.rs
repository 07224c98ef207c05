//! Runs the contenders in turn, round by round, and compares their results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use regraft::connector::source::{SourceConnector as _, SourceContext, SourceReader};
use regraft::connectors::file::settings::{FileSource, LineKey, MAX_RECORD_DEFAULT, OnTruncate};
use regraft::environment::files::LocalFiles;

use crate::Failure;
use crate::guests::{Guests, Kind, Op};
use crate::pipeline::{Pipeline, Totals};
use crate::records::Replay;
use crate::settings::{Contender, Settings};
use crate::{hand, records, text, usage};

/// Emits once per key, at the end.
const FINAL: &str = r#"{"emit":"final"}"#;
/// The steps of W3.
const MAP: &str = r#"{"step":"map"}"#;
const FILTER: &str = r#"{"step":"filter"}"#;
/// Records in a batch, as the source reads them.
const BATCH: usize = 1024;

/// One run of one contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Time from the first record to the end of the last thread.
    pub(crate) wall: Duration,
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// CPU time of the busiest thread: the time that the run would take with a free core for every thread.
    pub(crate) busiest: Duration,
}

/// The measurements of a workload.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Name of the workload.
    pub(crate) name: String,
    /// Number of records that each contender processed; in W1, words.
    pub(crate) records: u64,
    /// Runs of each contender; run `i` belongs to round `i`.
    pub(crate) runs: Vec<(Contender, Vec<Run>)>,
}

/// Measures W1.
pub(crate) fn words(settings: &Settings, guests: &Guests) -> Result<Measured, Failure> {
    let texts = text::make(&settings.dir, settings.size, settings.files)?;
    let name = format!("W1, {} M words", texts.words / 1_000_000);
    measure(settings, name, texts.words, |contender| match kind(contender) {
        None => Ok((hand::words(&texts.files)?, None)),
        Some(kind) => {
            let source = FileSource {
                path: texts.glob.clone(),
                relative: None,
                watch: false,
                poll: Duration::from_secs(1),
                key: LineKey::None,
                on_truncate: OnTruncate::Fail,
                max_record: MAX_RECORD_DEFAULT,
            };
            let splits = source.assign(&LocalFiles, vec![])?;
            let context = SourceContext {
                files: Arc::new(LocalFiles),
                subtask: 0,
                parallelism: 1,
                timestamp: None,
                known: Arc::new(splits.clone()),
            };
            run(Pipeline {
                reader: source.reader(&context, splits)?,
                stateless: vec![guests.open(Op::Split, kind, "null")?],
                keyed: Some(guests.open(Op::CountWords, kind, FINAL)?),
            })
        }
    })
}

/// Measures W2.
pub(crate) fn records(settings: &Settings, guests: &Guests) -> Result<Measured, Failure> {
    let (rows, keys) = (settings.records, settings.keys);
    let batches = if settings.pregenerated {
        records::batches(rows, keys, BATCH)?
    } else {
        vec![]
    };
    let batches = Arc::new(batches);
    let how = if settings.pregenerated {
        "pregenerated"
    } else {
        "generated"
    };
    let name = format!("W2, {} M {how} records, {keys} keys", rows / 1_000_000);
    measure(settings, name, rows, |contender| match kind(contender) {
        None if settings.pregenerated => Ok((hand::batches(&batches)?, None)),
        None => Ok((hand::records(rows, keys)?, None)),
        Some(kind) => {
            let reader: Box<dyn SourceReader> = if settings.pregenerated {
                Box::new(Replay {
                    batches: batches.clone(),
                    next: 0,
                })
            } else {
                Box::new(records::reader(rows, keys)?)
            };
            run(Pipeline {
                reader,
                stateless: vec![],
                keyed: Some(guests.open(Op::CountRecords, kind, FINAL)?),
            })
        }
    })
}

/// Measures W3.
pub(crate) fn arithmetic(settings: &Settings, guests: &Guests) -> Result<Measured, Failure> {
    let (rows, keys) = (settings.map_records, settings.keys);
    let name = format!("W3, {} M records", rows / 1_000_000);
    measure(settings, name, rows, |contender| match kind(contender) {
        None => Ok((hand::arithmetic(rows, keys, 1, 1)?, None)),
        Some(kind) => run(Pipeline {
            reader: Box::new(records::reader(rows, keys)?),
            stateless: vec![
                guests.open(Op::Arithmetic, kind, MAP)?,
                guests.open(Op::Arithmetic, kind, FILTER)?,
            ],
            keyed: None,
        }),
    })
}

/// Measures a chain of so many maps.
pub(crate) fn chain(settings: &Settings, guests: &Guests, maps: u32) -> Result<Measured, Failure> {
    let (rows, keys) = (settings.map_records, settings.keys);
    let name = format!("chain of {maps}, {} M records", rows / 1_000_000);
    measure(settings, name, rows, |contender| match kind(contender) {
        None => Ok((hand::chain(rows, keys, 1, 1, maps)?, None)),
        Some(kind) => run(Pipeline {
            reader: Box::new(records::reader(rows, keys)?),
            stateless: (0..maps)
                .map(|_| guests.open(Op::Arithmetic, kind, MAP))
                .collect::<Result<_, _>>()?,
            keyed: None,
        }),
    })
}

/// The result of a run, and the CPU time of its busiest thread if it had several.
type Found = (Totals, Option<Duration>);

fn run(pipeline: Pipeline) -> Result<Found, Failure> {
    let (totals, busiest) = pipeline.run()?;
    Ok((totals, Some(busiest)))
}

const fn kind(contender: Contender) -> Option<Kind> {
    match contender {
        Contender::Loop | Contender::Timely => None,
        Contender::Native => Some(Kind::Native),
        Contender::Wasm => Some(Kind::Wasm),
    }
}

fn measure(
    settings: &Settings,
    name: String,
    records: u64,
    mut run: impl FnMut(Contender) -> Result<Found, Failure>,
) -> Result<Measured, Failure> {
    let mut runs: Vec<(Contender, Vec<Run>)> = settings.contenders().into_iter().map(|c| (c, vec![])).collect();
    let mut expected = None;
    for round in 1..=settings.rounds {
        for (contender, runs) in &mut runs {
            eprint!("{name}: round {round} of {}, {contender:?} … ", settings.rounds);
            let (start, cpu) = (Instant::now(), usage::cpu());
            let (totals, busiest) = run(*contender)?;
            let (wall, cpu) = (start.elapsed(), usage::cpu() - cpu);
            let busiest = busiest.unwrap_or(cpu);
            let measured = Run { wall, cpu, busiest };
            eprintln!("{:.2} s", measured.wall.as_secs_f64());
            runs.push(measured);
            let expected = *expected.get_or_insert(totals);
            if totals != expected {
                return Err(
                    format!("{name}: {contender:?} found {totals:x?}, the first contender {expected:x?}").into(),
                );
            }
        }
    }
    Ok(Measured { name, records, runs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn settings(dir: &std::path::Path, more: &[&str]) -> Settings {
        let dir = dir.to_string_lossy();
        let first = [
            "bench",
            "--rounds",
            "1",
            "--size",
            "100KB",
            "--records",
            "20000",
            "--map-records",
            "20000",
            "--keys",
            "500",
            "--dir",
            &dir,
        ];
        Settings::parse_from(first.iter().chain(more))
    }

    #[test]
    fn all_contenders_find_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let guests = Guests::load().expect("guests");
        for more in [&[][..], &["--pregenerated"]] {
            let settings = settings(dir.path(), more);
            assert_eq!(words(&settings, &guests).expect("W1").runs.len(), 3);
            assert_eq!(records(&settings, &guests).expect("W2").runs.len(), 3);
        }
        let settings = settings(dir.path(), &[]);
        assert_eq!(arithmetic(&settings, &guests).expect("W3").runs.len(), 3);
        assert_eq!(chain(&settings, &guests, 3).expect("a chain").runs.len(), 3);
    }
}
