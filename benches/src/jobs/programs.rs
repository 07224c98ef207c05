//! Whole programs beside each other, as processes: Regraft by its command line, the hand-written loop, timely dataflow,
//! and Flink. They do the same work, one after the other, round by round, and must emit the same records.
//!
//! - [`work`]: the workloads, as each program is told to do them.
//! - [`peers`]: builds timely's program, and fetches Flink.
//! - [`tables`]: what they used, and ratios.

mod work;
mod peers;
mod tables;

use std::path::Path;
use std::process::Command;

use super::lab::Lab;
use super::process::{self, Used};
use crate::Failure;
use crate::pipeline::Totals;
use crate::settings::{Contender, Settings};
use crate::text;
use peers::Peers;
use work::Work;

/// A program that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// `regraft run` of the job.
    Regraft,
    /// The hand-written loop: this program, as a process of its own.
    Loop,
    /// Timely dataflow.
    Timely,
    /// Flink.
    Flink,
}

/// The runs of a program with a workload, at one parallelism.
#[derive(Debug)]
struct Entry {
    work: Work,
    parallelism: u32,
    program: Program,
    /// One for each round.
    runs: Vec<Used>,
}

/// Measures W1, W2, W3, and the source and sink alone. Returns tables.
pub(crate) fn table(settings: &Settings) -> Result<String, Failure> {
    contest(
        settings,
        &[Work::Words, Work::Chain(0), Work::Records, Work::Arithmetic],
    )
}

/// Measures chains of stateless operators. Returns tables.
pub(crate) fn chains(settings: &Settings) -> Result<String, Failure> {
    contest(
        settings,
        &[Work::Chain(0), Work::Chain(1), Work::Chain(4), Work::Chain(8)],
    )
}

fn contest(settings: &Settings, works: &[Work]) -> Result<String, Failure> {
    let contest = Contest::prepare(settings, works)?;
    let mut entries = vec![];
    for work in works {
        for parallelism in &settings.parallelism {
            for program in contest.programs(*work) {
                entries.push(Entry {
                    work: *work,
                    parallelism: *parallelism,
                    program,
                    runs: vec![],
                });
            }
        }
    }
    let mut expected: Vec<(Work, Totals)> = vec![];
    for round in 1..=settings.rounds {
        for entry in &mut entries {
            let Entry {
                work,
                parallelism,
                program,
                ..
            } = *entry;
            eprint!(
                "round {round} of {}: {work}, {program:?}, p={parallelism} … ",
                settings.rounds
            );
            let (found, used) = contest.run(work, program, parallelism)?;
            eprintln!("{:.2} s, {:.2} CPU s", used.wall.as_secs_f64(), used.cpu.as_secs_f64());
            entry.runs.push(used);
            match expected.iter().find(|(other, _)| *other == work) {
                None => expected.push((work, found)),
                Some((_, expected)) if *expected == found => {}
                Some((_, expected)) => {
                    return Err(format!(
                        "{work}: {program:?} at parallelism {parallelism} emitted {found:x?}, the first program {expected:x?}"
                    )
                    .into());
                }
            }
        }
    }
    let records = |work: Work| contest.records(work);
    let mut text = tables::used(&entries, settings, &records);
    text.push('\n');
    text.push_str(&tables::ratios(&entries));
    if !settings.flink && works.contains(&Work::Records) {
        text.push_str("\nFlink was left out: `--flink` fetches and measures it.\n");
    }
    Ok(text)
}

/// The programs and inputs of all runs.
struct Contest<'a> {
    settings: &'a Settings,
    lab: Lab,
    peers: Peers,
    texts: text::Texts,
    /// For each workload, the arguments of `run` that name the components, so that no run looks for changed sources.
    modules: Vec<(Work, Vec<String>)>,
}

impl<'a> Contest<'a> {
    /// Builds programs, makes inputs, and lets Regraft compile what its jobs need.
    fn prepare(settings: &'a Settings, works: &[Work]) -> Result<Self, Failure> {
        let has_peers = works.iter().any(|work| !matches!(work, Work::Chain(_)));
        let mut contest = Self {
            settings,
            lab: Lab::new()?,
            peers: Peers::prepare(settings, has_peers)?,
            texts: text::make(&std::path::absolute(&settings.dir)?, settings.size, settings.files)?,
            modules: vec![],
        };
        for work in works {
            eprintln!("building the guests of {work}");
            contest.lab.write(&work.file(), &work.job(), settings)?;
            contest.modules.push((*work, contest.lab.build(&work.file())?));
            // Components are compiled by the first run that needs them.
            contest.regraft(*work, 1, work.sets(1, contest.texts.files.first().ok_or("no text")?))?;
        }
        Ok(contest)
    }

    /// Returns the programs that take part in a workload.
    fn programs(&self, work: Work) -> Vec<Program> {
        let without = |contender| self.settings.without.contains(&contender);
        let is_chain = matches!(work, Work::Chain(_));
        let mut programs = vec![Program::Regraft];
        if !without(Contender::Loop) {
            programs.push(Program::Loop);
        }
        // The text of W1 would have to be read by a source of timely's own.
        if self.peers.timely.is_some() && !is_chain && work != Work::Words {
            programs.push(Program::Timely);
        }
        if self.peers.flink.is_some() && !is_chain {
            programs.push(Program::Flink);
        }
        programs
    }

    /// Number of records that go in: words, in W1.
    fn records(&self, work: Work) -> u64 {
        match work {
            Work::Words => self.texts.words,
            Work::Records => self.settings.records,
            Work::Arithmetic | Work::Chain(_) => self.settings.map_records,
        }
    }

    fn run(&self, work: Work, program: Program, parallelism: u32) -> Result<(Totals, Used), Failure> {
        match program {
            Program::Regraft => {
                let sets = work.sets(self.records(work), Path::new(&self.texts.glob));
                self.regraft(work, parallelism, sets)
            }
            Program::Loop => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(work.loop_arguments(self.settings, self.records(work), parallelism));
                printed(&mut command)
            }
            Program::Timely => {
                let mut command = Command::new(self.peers.timely.as_ref().ok_or("no timely")?);
                command.args(work.peer_arguments(self.settings, self.records(work), parallelism));
                printed(&mut command)
            }
            Program::Flink => {
                let mut command = self.peers.flink.as_ref().ok_or("no Flink")?.command();
                command.args(work.flink_arguments(self.settings, self.records(work), parallelism, &self.texts));
                printed(&mut command)
            }
        }
    }

    fn regraft(&self, work: Work, parallelism: u32, sets: Vec<String>) -> Result<(Totals, Used), Failure> {
        let mut arguments = vec![
            "run".to_owned(),
            work.file(),
            "--json".into(),
            "-p".into(),
            parallelism.to_string(),
        ];
        for set in sets {
            arguments.extend(["--set".into(), set]);
        }
        let modules = self.modules.iter().filter(|(other, _)| *other == work);
        modules.for_each(|(_, more)| arguments.extend_from_slice(more));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (out, used) = process::run(&mut self.lab.command(&arguments))?;
        let result: serde_json::Value = serde_json::from_str(&out)?;
        let found = &result["blackholes"]["out"];
        Ok((totals(found["records"].as_u64(), found["checksum"].as_str())?, used))
    }
}

/// Runs a program that prints `records=N checksum=HEX`.
fn printed(command: &mut Command) -> Result<(Totals, Used), Failure> {
    let (out, used) = process::run(command)?;
    let value = |key: &str| out.split_whitespace().find_map(|word| word.strip_prefix(key));
    let records = value("records=").and_then(|number| number.parse().ok());
    let totals = totals(records, value("checksum="));
    Ok((totals.map_err(|error| format!("{command:?}: {error}: {out:?}"))?, used))
}

fn totals(records: Option<u64>, checksum: Option<&str>) -> Result<Totals, Failure> {
    let checksum = checksum.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    match (records, checksum) {
        (Some(records), Some(checksum)) => Ok(Totals { records, checksum }),
        _ => Err("it printed no totals".into()),
    }
}
