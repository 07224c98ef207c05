//! Measures the cost of the wasm boundary and of the host's dataflow: `cargo run --release -p regraft-bench`.
//!
//! Three contenders do the same work in one run, in turn: a hand-written loop, the operators of `examples/` compiled
//! natively inside the host's dataflow, and the same operators as components in it. Every result is checksummed, and a
//! difference is an error.
//!
//! - [`settings`]: the command line.
//! - [`usage`]: CPU time of the process and of threads.
//! - [`text`], [`records`]: the inputs.
//! - [`hand`]: the hand-written loops.
//! - [`native`]: an operator of the SDK as an operator of the host, without wasm.
//! - [`guests`]: the operators, native or as components.
//! - [`pipeline`]: wires and runs two subtasks, as a deployment does.
//! - [`rounds`]: runs the contenders in turn, and compares their results.
//! - [`calls`]: the cost of one call of a keyed operator.
//! - [`jobs`]: whole jobs run by the `regraft` program: checkpoints, isolation.
//! - [`report`]: medians and tables.

mod settings;
mod usage;
mod text;
mod records;
mod hand;
mod native;
mod guests;
mod pipeline;
mod report;
mod rounds;
mod calls;
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
    if settings.does(Part::W1) || settings.does(Part::W2) || settings.does(Part::Calls) {
        data_path(settings, &Guests::load()?)?;
    }
    if settings.does(Part::Checkpoints) {
        println!("{}", jobs::checkpoints::cost(settings)?);
    }
    if settings.does(Part::Increments) {
        println!("{}", jobs::checkpoints::increments(settings)?);
    }
    if settings.does(Part::Isolation) {
        println!("{}", jobs::isolation::cost(settings)?);
    }
    if settings.does(Part::Neighbours) {
        println!("{}", jobs::isolation::neighbours(settings)?);
    }
    Ok(())
}

/// Measures the parts that run within this process.
fn data_path(settings: &Settings, guests: &Guests) -> Result<(), Failure> {
    let mut measured = vec![];
    if settings.does(Part::W1) {
        measured.push(rounds::words(settings, guests)?);
    }
    if settings.does(Part::W2) {
        measured.push(rounds::records(settings, guests)?);
    }
    if !measured.is_empty() {
        println!("{}", report::table(&measured));
        println!("{}", report::ratios(&measured));
    }
    if settings.does(Part::Calls) {
        println!("{}", calls::table(settings, guests)?);
    }
    Ok(())
}
