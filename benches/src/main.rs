//! Measures the cost of the wasm boundary and of the host's dataflow: `cargo run --release -p regraft-bench`.
//!
//! Three contenders do the same work in one run, in turn: a hand-written loop, the operators of `examples/` compiled
//! natively inside the host's dataflow, and the same operators as components in it. Every result is checksummed, and a
//! difference is an error.
//!
//! - [`settings`]: the command line.
//! - [`usage`]: CPU time of the process and of threads.
//! - [`workload`]: the records of W2 and W3, as plain functions.
//! - [`text`], [`records`]: the inputs.
//! - [`hand`]: the hand-written loops.
//! - [`native`]: an operator of the SDK as an operator of the host, without wasm.
//! - [`guests`]: the operators, native or as components.
//! - [`pipeline`]: wires and runs one or two subtasks, as a deployment does.
//! - [`rounds`]: runs the contenders in turn, and compares their results.
//! - [`calls`]: the cost of one call of a keyed operator.
//! - [`latency`]: end-to-end latency of a whole job within this process.
//! - [`jobs`]: whole jobs run by the `regraft` program: beside other programs, checkpoints, isolation.
//! - [`report`]: medians and tables.
//! - [`publish`]: prints tables, and puts them into a document.

mod settings;
mod usage;
mod workload;
mod text;
mod records;
mod hand;
mod native;
mod guests;
mod pipeline;
mod report;
mod publish;
mod rounds;
mod calls;
mod latency;
mod jobs;

use std::process::ExitCode;

use clap::Parser as _;

use guests::Guests;
use settings::{Part, Settings};

/// An error that ends the benchmark.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), Failure> {
    if let Some(hand) = settings.hand {
        return hand::process(hand, settings);
    }
    type Table = fn(&Settings) -> Result<String, Failure>;
    // Whole programs come first: the memory of this process is a lower bound of theirs.
    let parts: [(Part, &str, Table); 6] = [
        (Part::Chain, "chain-programs", jobs::programs::chains),
        (Part::Programs, "programs", jobs::programs::table),
        (Part::Checkpoints, "checkpoints", jobs::checkpoints::cost),
        (Part::Increments, "increments", jobs::checkpoints::increments),
        (Part::Isolation, "isolation", jobs::isolation::cost),
        (Part::Neighbours, "neighbours", jobs::isolation::neighbours),
    ];
    for (part, name, table) in parts {
        if settings.does(part) {
            publish::table(settings, name, &table(settings)?)?;
        }
    }
    let within = [Part::W1, Part::W2, Part::W3, Part::Chain, Part::Calls, Part::Latency];
    if within.into_iter().any(|part| settings.does(part)) {
        within_process(settings, &Guests::load()?)?;
    }
    Ok(())
}

/// Measures the parts that run within this process.
fn within_process(settings: &Settings, guests: &Guests) -> Result<(), Failure> {
    let mut measured = vec![];
    if settings.does(Part::W1) {
        measured.push(rounds::words(settings, guests)?);
    }
    if settings.does(Part::W2) {
        measured.push(rounds::records(settings, guests)?);
    }
    if settings.does(Part::W3) {
        measured.push(rounds::arithmetic(settings, guests)?);
    }
    if !measured.is_empty() {
        let tables = [report::table(&measured), report::ratios(&measured)];
        publish::table(settings, "data-path", &tables.join("\n"))?;
    }
    if settings.does(Part::Chain) {
        let chains: Result<Vec<_>, _> = [1, 4, 8]
            .map(|maps| rounds::chain(settings, guests, maps))
            .into_iter()
            .collect();
        let chains = chains?;
        let tables = [report::table(&chains), report::ratios(&chains)];
        publish::table(settings, "chain", &tables.join("\n"))?;
    }
    if settings.does(Part::Calls) {
        publish::table(settings, "calls", &calls::table(settings, guests)?)?;
    }
    if settings.does(Part::Latency) {
        publish::table(settings, "latency", &latency::table(settings, guests)?)?;
    }
    Ok(())
}
