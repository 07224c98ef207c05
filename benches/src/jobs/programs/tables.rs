//! Tables of whole programs: what they used, and ratios round by round.

use std::fmt::Write as _;

use super::work::Work;
use super::{Entry, Program};
use crate::jobs::process::Used;
use crate::report::{Spread, with_interval};
use crate::settings::Settings;

const fn name(program: Program) -> &'static str {
    match program {
        Program::Regraft => "Regraft",
        Program::Loop => "hand-written loop",
        Program::Timely => "timely",
        Program::Flink => "Flink 2.3",
    }
}

/// Renders wall clock, CPU time and memory of all programs.
pub(super) fn used(entries: &[Entry], settings: &Settings, records: &dyn Fn(Work) -> u64) -> String {
    let mut text = format!(
        "Whole programs, {} rounds, interleaved: median (min to max). {} keys.\n\n\
         | workload | M records | program | p | wall s | M records/s | CPU s | CPU ns per record | peak MB |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        settings.rounds, settings.keys
    );
    for Entry {
        work,
        parallelism,
        program,
        runs,
    } in entries
    {
        let spread = |each: fn(&Used) -> f64| Spread::of(runs.iter().map(each));
        let (wall, cpu) = (
            spread(|run| run.wall.as_secs_f64()),
            spread(|run| run.cpu.as_secs_f64()),
        );
        let memory = spread(|run| run.memory_max as f64 / 1e6);
        let records = records(*work) as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {work} | {:.1} | {} | {parallelism} | {} | {:.2} | {} | {:.1} | {:.0} |",
            records / 1e6,
            name(*program),
            wall.text(2),
            records / wall.median / 1e6,
            cpu.text(2),
            cpu.median * 1e9 / records,
            memory.median,
        );
    }
    text
}

/// Renders how many times as much each other program used as Regraft, and Regraft at each parallelism beside the first.
pub(super) fn ratios(entries: &[Entry]) -> String {
    let mut text = String::from(
        "| ratio, round by round: median (95 % interval) | p | by wall clock | by CPU time |\n|---|---|---|---|\n",
    );
    let mut line = |what: String, parallelism: String, more: &Entry, less: &Entry| {
        let ratio = |each: fn(&Used) -> f64| {
            let ratios: Vec<f64> = more
                .runs
                .iter()
                .zip(&less.runs)
                .map(|(a, b)| each(a) / each(b))
                .collect();
            with_interval(&ratios, 2)
        };
        let (wall, cpu) = (ratio(|run| run.wall.as_secs_f64()), ratio(|run| run.cpu.as_secs_f64()));
        let _ = writeln!(text, "| {what} | {parallelism} | {wall} | {cpu} |");
    };
    for entry in entries {
        let find = |program: Program, parallelism: u32| {
            entries
                .iter()
                .find(|other| other.work == entry.work && other.program == program && other.parallelism == parallelism)
        };
        let (work, p) = (entry.work, entry.parallelism);
        if entry.program != Program::Regraft
            && let Some(regraft) = find(Program::Regraft, p)
        {
            line(
                format!("{work}: {} / Regraft", name(entry.program)),
                p.to_string(),
                entry,
                regraft,
            );
        }
        let first = entries.first().map_or(1, |first| first.parallelism);
        if p != first
            && let Some(one) = find(entry.program, first)
        {
            line(
                format!("{work}: {} at p={first} / p={p}", name(entry.program)),
                format!("{first}, {p}"),
                one,
                entry,
            );
        }
    }
    text
}
